"""A whole network's configuration and its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from dl4py.config.codec import (
    DL4JFormatError,
    at,
    decode,
    decode_field,
    encode,
    mapping,
    replace,
    shown,
)
from dl4py.config.kinds import Choice, Integer, field, flag
from dl4py.config.layer import Layer
from dl4py.config.preprocessors import Preprocessor
from dl4py.registry import json_key

if TYPE_CHECKING:
    from dl4py.network import Network

DATA_TYPES = Choice("FLOAT", "DOUBLE", "HALF", "BFLOAT16")
_TORCH_NAMES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}
SGD = "STOCHASTIC_GRADIENT_DESCENT"
ALGORITHMS = Choice(
    SGD, "LINE_GRADIENT_DESCENT", "CONJUGATE_GRADIENT", "LBFGS", "HESSIAN_FREE"
)


def data_type(value: Any) -> str:
    """DL4J's name of a data type, from its own name, torch's name or a torch dtype."""
    name = str(value).removeprefix("torch.").lower()
    return DATA_TYPES(_TORCH_NAMES.get(name, name))


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, got {value!r}")
    return value


@dataclass(frozen=True, kw_only=True)
class MultiLayerConfiguration:
    """A chain of layers, final: every value is filled in, normal and checked.

    ``NeuralNetConfiguration.builder()`` makes one, and so does
    ``NeuralNetConfiguration.from_json``.

    Args:
        layers: the layers from input to output.
        preprocessors: layer index → what stands before that layer.
        seed: of the initial parameters.
        data_type: ``"FLOAT"``, ``"DOUBLE"``, ``"HALF"`` or ``"BFLOAT16"``.
        mini_batch: whether gradients are divided by the number of examples.
        minimize: whether the score is to go down.
        optimization_algo: DL4J's name of the algorithm: updaters with
            ``STOCHASTIC_GRADIENT_DESCENT``, else one of ``dl4py.solvers``, for which
            updaters count only with ``dl4j_exact``.
        max_num_line_search_iterations, step_function: for the solvers.
        backprop_type: ``"Standard"``, or ``"TruncatedBPTT"``, which is not built yet.
        tbptt_fwd_length, tbptt_back_length: time steps of a truncated piece, >= 1.
        validate_output_layer_config: whether the builder refuses output layers that
            cannot work.
        iteration_count, epoch_count: how far a network has been trained, >= 0.
        cache_mode, inference_workspace_mode, training_workspace_mode: kept for DL4J's
            files; they change nothing.
        extra: JSON keys that no field declares; those beside each layer, in order,
            under ``"confs"``.

    DL4J: org.deeplearning4j.nn.conf.MultiLayerConfiguration
    """

    layers: tuple[Any, ...]
    preprocessors: Mapping[int, Preprocessor] = field(dict)
    seed: int = field(kind=_seed)
    data_type: str = field("FLOAT", data_type)
    mini_batch: bool = field(True, flag)
    minimize: bool = field(True, flag)
    optimization_algo: str = field(SGD, ALGORITHMS)
    max_num_line_search_iterations: int = field(5, Integer(1))
    step_function: Any = field(None)
    backprop_type: str = field("Standard", Choice("Standard", "TruncatedBPTT"))
    tbptt_fwd_length: int = field(20, Integer(1))
    tbptt_back_length: int = field(20, Integer(1))
    validate_output_layer_config: bool = field(True, flag)
    iteration_count: int = field(0, Integer(0))
    epoch_count: int = field(0, Integer(0))
    cache_mode: str = field("NONE")
    inference_workspace_mode: str = field("ENABLED")
    training_workspace_mode: str = field("ENABLED")
    extra: Mapping[str, Any] = field(dict)

    # where DL4J writes a setting: beside every layer, or once, or both
    _beside: ClassVar[tuple[str, ...]] = (
        "cache_mode",
        "data_type",
        "epoch_count",
        "iteration_count",
        "max_num_line_search_iterations",
        "mini_batch",
        "minimize",
        "optimization_algo",
        "seed",
        "step_function",
    )
    _once: ClassVar[tuple[str, ...]] = (
        "backprop_type",
        "cache_mode",
        "data_type",
        "epoch_count",
        "inference_workspace_mode",
        "iteration_count",
        "tbptt_back_length",
        "tbptt_fwd_length",
        "training_workspace_mode",
        "validate_output_layer_config",
    )

    def module(self, dl4j_exact: bool = False) -> Network:
        """The network as a ``torch.nn.Module`` with freshly drawn parameters.

        Args:
            dl4j_exact: whether DL4J's faults are reproduced too.
        """
        from dl4py.network.build import (
            build,
        )  # the builder stands above the configuration

        return build(self, dl4j_exact)

    def lightning(self, dl4j_exact: bool = False, package: str | None = None) -> Any:
        """The network as a LightningModule, ready for a ``Trainer``.

        Args:
            dl4j_exact: as in :meth:`module`.
            package: ``"lightning"`` or ``"pytorch_lightning"``; default: the one that
                is imported already, else ``"lightning"``.
        """
        from dl4py.network.build import (
            lightning,
        )  # above the configuration, as in module

        return lightning(self, dl4j_exact, package)

    def to_json(self) -> str:
        """DL4J's JSON of this configuration."""
        return json.dumps(self.to_dict(), indent=2)

    def to_dict(self) -> dict[str, Any]:
        """:meth:`to_json` as plain Python types."""
        shared = self._keys(self._beside)
        beside = (*self.extra.get("confs", ()), *({} for _ in self.layers))
        confs = []
        for i, layer in enumerate(self.layers):
            path = f"$.confs[{i}].layer"
            conf = {
                **shared,
                **beside[i],
                "layer": encode(layer, path),
                "variables": list(layer.variables),
            }
            confs.append({k: conf[k] for k in sorted(conf)})
        content = {
            **self._keys(self._once),
            **{k: v for k, v in self.extra.items() if k != "confs"},
            "confs": confs,
            "inputPreProcessors": {
                str(i): encode(p) for i, p in sorted(self.preprocessors.items())
            },
        }
        return {k: content[k] for k in sorted(content)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MultiLayerConfiguration:
        """The configuration that :meth:`to_dict` writes as ``content``.

        Raises:
            DL4JFormatError: naming the place in ``content``, if it is not that.
        """
        confs = content.get("confs")
        if not isinstance(confs, list) or not confs:
            raise DL4JFormatError("$.confs: expected a list of layers")
        layers = [_layer(conf, f"$.confs[{i}]") for i, conf in enumerate(confs)]
        named = {*cls._beside, *cls._once}
        declared = {json_key(f): f for f in fields(cls) if f.name in named}
        values: dict[str, Any] = {}
        apart = ("confs", "layer", "variables", "inputPreProcessors")
        for path, source in (("$.confs[0]", confs[0]), ("$", content)):
            for key, f in declared.items():
                if key in source:
                    place = f"{path}.{key}"
                    values[f.name] = decode_field(f, decode(source[key], place), place)
        known = {*declared, *apart}
        rest = [{k: v for k, v in conf.items() if k not in known} for conf in confs]
        extra = {k: v for k, v in content.items() if k not in known}
        if any(rest):
            extra["confs"] = rest
        with at("$"):
            return cls(
                layers=tuple(layers),
                preprocessors=_preprocessors(content, len(layers)),
                extra=extra,
                **values,
            )

    def _keys(self, names: tuple[str, ...]) -> dict[str, Any]:
        known = {f.name: f for f in fields(self)}
        return {json_key(known[n]): encode(getattr(self, n)) for n in names}


def _layer(conf: Any, path: str) -> Layer:
    raw = mapping(mapping(conf, path).get("layer"), f"{path}.layer")
    layer = decode(raw, f"{path}.layer")
    if not isinstance(layer, Layer):
        name = shown(raw.get("@class"))
        raise DL4JFormatError(f"{path}.layer: unknown layer {name}")
    variables = conf.get("variables") or []
    if not isinstance(variables, list):
        raise DL4JFormatError(f"{path}.variables: expected a list of names")
    with at(f"{path}.layer"):
        return _finished(layer, raw, variables)


def _preprocessors(content: Mapping[str, Any], count: int) -> dict[int, Preprocessor]:
    path = "$.inputPreProcessors"
    found = {}
    raw = content.get("inputPreProcessors")
    for key, value in mapping({} if raw is None else raw, path).items():
        preprocessor = decode(value, f"{path}.{key}")
        if not isinstance(preprocessor, Preprocessor):
            raise DL4JFormatError(f"{path}.{key}: expected a preprocessor")
        if key not in {str(i) for i in range(count)}:
            raise DL4JFormatError(f"{path}: no layer {shown(key)}, there are {count}")
        found[int(key)] = preprocessor
    return found


def _finished(layer: Layer, raw: Mapping[str, Any], variables: list[Any]) -> Layer:
    """A layer read from JSON in normal form; absent settings take DL4J's defaults."""
    if "useLogStd" not in raw and hasattr(layer, "use_log_std") and variables:
        layer = replace(layer, use_log_std="var" not in variables)
    return layer.resolved(DEFAULTS)  # type: ignore[no-any-return]


DEFAULTS: dict[str, Any] = {  # DL4J's, where a network sets nothing
    "activation": "sigmoid",
    "weight_init": "xavier",
    "updater": "sgd",
    "bias_init": 0.0,
    "gain_init": 1.0,
    "gradient_normalization": "None",
    "gradient_normalization_threshold": 1.0,
    "regularization": (),
    "regularization_bias": (),
    "convolution_mode": "Truncate",
}
