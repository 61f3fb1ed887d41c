"""What a network's configuration holds beside its layers: chains and graphs alike."""

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
from dl4py.config.layer import DEFAULTS, Layer
from dl4py.config.plan import Plan
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
class NetworkConfiguration:
    """Base of all networks' configurations, which are final: filled in and checked.

    Args:
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
        extra: JSON keys that no field declares; those beside each layer under
            ``"confs"``.
    """

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

    def plan(self) -> Plan:
        """The layers and vertices in the order of evaluation."""
        raise NotImplementedError

    def to_json(self) -> str:
        """DL4J's JSON of this configuration."""
        return json.dumps(self.to_dict(), indent=2)

    def to_dict(self) -> dict[str, Any]:
        """:meth:`to_json` as plain Python types."""
        raise NotImplementedError

    def _keys(self, names: tuple[str, ...]) -> dict[str, Any]:
        known = {f.name: f for f in fields(self)}
        return {json_key(known[n]): encode(getattr(self, n)) for n in names}

    def _beside_layer(
        self, layer: Layer | None, variables: list[str], extra: Any, path: str
    ) -> dict[str, Any]:
        """What DL4J writes around one layer."""
        conf = {
            **self._keys(self._beside),
            **extra,
            "layer": None if layer is None else encode(layer, path),
            "variables": variables,
        }
        return {k: conf[k] for k in sorted(conf)}

    @classmethod
    def _declared(cls) -> dict[str, Any]:
        """JSON key → field of the settings."""
        named = {*cls._beside, *cls._once}
        return {json_key(f): f for f in fields(cls) if f.name in named}

    @classmethod
    def _settings(cls, *sources: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The settings in JSON objects, (path, object) each; the later one wins."""
        values: dict[str, Any] = {}
        for path, source in sources:
            for key, f in cls._declared().items():
                if key in source:
                    place = f"{path}.{key}"
                    values[f.name] = decode_field(f, decode(source[key], place), place)
        return values


def layer_of(conf: Any, path: str) -> Layer:
    """The layer in what DL4J writes around it."""
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


def own_type(conf: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """A data type beside a layer that is not the network's: transfer leaves such."""
    own = conf.get("dataType")
    return {} if own in (None, common.get("dataType")) else {"dataType": own}


def preprocessor_of(value: Any, path: str) -> Preprocessor:
    """The preprocessor in a JSON object."""
    preprocessor = decode(value, path)
    if not isinstance(preprocessor, Preprocessor):
        raise DL4JFormatError(f"{path}: expected a preprocessor")
    return preprocessor


def _finished(layer: Layer, raw: Mapping[str, Any], variables: list[Any]) -> Layer:
    """A layer read from JSON in normal form; absent settings take DL4J's defaults."""
    if "useLogStd" not in raw and hasattr(layer, "use_log_std") and variables:
        layer = replace(layer, use_log_std="var" not in variables)
    return layer.resolved(DEFAULTS)  # type: ignore[no-any-return]
