"""What a network's configuration holds beside its layers: chains and graphs alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from dl4py.config.codec import (
    DL4JFormatError,
    at,
    decode,
    decode_field,
    encode,
    mapping,
    shown,
)
from dl4py.config.kinds import Choice, Integer, field, flag
from dl4py.config.layer import DEFAULTS, Layer
from dl4py.config.plan import Plan
from dl4py.config.preprocessors import Preprocessor
from dl4py.registry import canonical, json_key

if TYPE_CHECKING:
    from dl4py.network import Network
    from dl4py.noise import Source

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


_WORKSPACES = Choice("NONE", "ENABLED", "SINGLE", "SEPARATE")
_STEPS = Choice("negativeDefault", "default", "negativeGradient", "gradient")


def _step_function(value: Any) -> dict[str, Any]:
    """DL4J's JSON of a step function, from that, its class's name or a shorter one."""
    if isinstance(value, Mapping) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str):
        raise ValueError(f"must be the name of a step function, got {value!r}")
    word = canonical(value.rpartition(".")[2]).removesuffix("stepfunction")
    return {_STEPS(word): {}}


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
        backprop_type: ``"Standard"``, or ``"TruncatedBPTT"``: a series is trained on in
            windows of ``tbptt_fwd_length`` steps, one step of the updater each.
        tbptt_fwd_length: time steps of a window, >= 1; the last one may be shorter.
        tbptt_back_length: time steps from the end of a window through which errors go
            back in recurrent layers, >= 1; DL4J does not heed it.
        validate_output_layer_config: whether the builder refuses output layers that
            cannot work.
        iteration_count, epoch_count: how far a network has been trained, >= 0.
        cache_mode, inference_workspace_mode, training_workspace_mode: kept for DL4J's
            files; they change nothing.
        extra: JSON keys that no field declares. Under ``"confs"``, by layer, those
            beside it and settings that differ there from the network's.
    """

    seed: int = field(kind=Integer(-1 << 63, bits=63))
    data_type: str = field("FLOAT", data_type)
    mini_batch: bool = field(True, flag)
    minimize: bool = field(True, flag)
    optimization_algo: str = field(SGD, ALGORITHMS)
    max_num_line_search_iterations: int = field(5, Integer(1))
    step_function: Mapping[str, Any] | None = field(None, _step_function)
    backprop_type: str = field("Standard", Choice("Standard", "TruncatedBPTT"))
    tbptt_fwd_length: int = field(20, Integer(1))
    tbptt_back_length: int = field(20, Integer(1))
    validate_output_layer_config: bool = field(True, flag)
    iteration_count: int = field(0, Integer(0))
    epoch_count: int = field(0, Integer(0))
    cache_mode: str = field("NONE", Choice("NONE", "HOST", "DEVICE"))
    inference_workspace_mode: str = field("ENABLED", _WORKSPACES)
    training_workspace_mode: str = field("ENABLED", _WORKSPACES)
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

    @property
    def truncated(self) -> bool:
        """Whether training cuts series into windows."""
        return self.backprop_type != "Standard"

    def module(self, dl4j_exact: bool = False, noise: Source = None) -> Network:
        """The network as a ``torch.nn.Module`` with freshly drawn parameters.

        Args:
            dl4j_exact: whether DL4J's faults are reproduced too.
            noise: where all random numbers come from, parameters first: with
                ``dl4py.NativeRandom(seed)`` of the configuration's seed they are those
                of DL4J. Default: torch's generators, of which the parameters take a
                new one with that seed.
        """
        from dl4py.network.build import (
            build,
        )  # the builder stands above the configuration

        return build(self, dl4j_exact, noise=noise)

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

    def to_yaml(self) -> str:
        """:meth:`to_json` as YAML, as DL4J's ``toYaml``."""
        from dl4py.config.yaml import dump  # takes time to import

        return dump(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """:meth:`to_json` as plain Python types."""
        raise NotImplementedError

    def divides(self, i: int, name: str) -> bool:
        """Whether DL4J divides the score of step i by the number of examples.

        An output does as ``miniBatch`` beside itself says, which transfer learning may
        have left different; for gradients that of the network counts.
        """
        beside = self.extra.get("confs", ())
        if isinstance(beside, Mapping):
            own = beside.get(name, {})
        else:
            own = beside[i] if i < len(beside) else {}
        return bool(own.get("miniBatch", self.mini_batch))

    def _written_once(self) -> dict[str, Any]:
        return self._keys({n: getattr(self, n) for n in self._once})

    def _beside_layer(
        self, layer: Layer | None, variables: list[str], extra: Any, path: str
    ) -> dict[str, Any]:
        """What DL4J writes around one layer."""
        conf = {
            **self._shared(vars(self)),
            "variables": variables,
            **extra,
            "layer": None if layer is None else encode(layer, path),
        }
        return {k: conf[k] for k in sorted(conf)}

    @classmethod
    def _kept(
        cls, conf: Mapping[str, Any], own: Any, variables: Any, values: Any
    ) -> dict[str, Any]:
        """What stands around a layer and :meth:`_beside_layer` would not write.

        Args:
            conf: DL4J's JSON around the layer.
            own: the settings in it.
            variables: the layer's.
            values: the network's settings.
        """
        written = {**cls._shared(values), "variables": list(variables)}
        given = {**conf, **cls._keys(own)}
        return {
            key: value
            for key, value in given.items()
            if key != "layer" and written.get(key, ...) != value
        }

    @classmethod
    def _shared(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON of the settings that DL4J repeats beside every layer."""
        defaults = {f.name: f.default for f in fields(cls)}
        now = {n: values.get(n, defaults[n]) for n in cls._beside}
        return cls._keys({**now, "iteration_count": 0})  # DL4J counts them once

    @classmethod
    def _keys(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        known = {f.name: f for f in fields(cls)}
        return {json_key(known[n]): encode(v) for n, v in values.items()}

    @classmethod
    def _declared(cls) -> dict[str, Field[Any]]:
        """JSON key → field of the settings."""
        named = {*cls._beside, *cls._once}
        return {json_key(f): f for f in fields(cls) if f.name in named}

    @classmethod
    def _settings(cls, *sources: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The settings in JSON objects, (path, object) each; the later one wins."""
        return {
            f.name: decode_field(f, source[key], f"{path}.{key}")
            for path, source in sources
            for key, f in cls._declared().items()
            if key in source
        }

    @classmethod
    def _network(
        cls, counting: Mapping[str, Any], content: Mapping[str, Any], place: str
    ) -> dict[str, Any]:
        """The network's settings: those at ``place`` that count, and its own."""
        values = {**counting, **cls._settings(("$", content))}
        for key, f in cls._declared().items():
            if f.default is MISSING and f.name not in values:
                raise DL4JFormatError(f"{place}.{key}: must be given")
        return values

    @classmethod
    def _check_agreement(
        cls,
        path: str,
        own: Mapping[str, Any],
        expected: Mapping[str, Any],
        place: str,
        either: bool = False,
    ) -> None:
        """Raise where settings around a layer contradict those that count.

        DL4J repeats the network's settings around every layer. Where transfer learning
        adds layers it writes its builder's defaults there, and the time for the seed;
        in graphs (``either``) those that count may be such ones.

        Args:
            path, own: a place and the settings there.
            expected, place: the settings that count, and where they stand.
        """
        for key, f in cls._declared().items():
            if f.name in _FREE or f.name not in own or f.name not in expected:
                continue
            a, b = own[f.name], expected[f.name]
            added = _added(f, a) or (
                either and _added(f, b) and f.name not in ("mini_batch", "minimize")
            )
            if a != b and not added:
                raise DL4JFormatError(
                    f"{path}.{key}: must be {shown(encode(b))} as in {place}, got "
                    f"{shown(encode(a))}"
                )


# what may differ: arrays decide on the type, and the network counts for its layers
_FREE = ("data_type", "epoch_count", "iteration_count")
_CLOCK = 10**12  # a seed that nobody gave is the time in milliseconds, 1.4e12 and more


def _added(setting: Field[Any], value: Any) -> bool:
    """Whether DL4J's builder writes ``value`` where nothing is set."""
    return bool(value >= _CLOCK if setting.name == "seed" else value == setting.default)


def layer_of(conf: Any, path: str) -> Layer:
    """The layer in what DL4J writes around it."""
    raw = mapping(mapping(conf, path).get("layer"), f"{path}.layer")
    layer = decode(raw, f"{path}.layer")
    if not isinstance(layer, Layer):
        name = shown(raw.get("@class"))
        raise DL4JFormatError(f"{path}.layer: unknown layer {name}")
    check_names(conf.get("variables", []), f"{path}.variables")
    with at(f"{path}.layer"):
        return _finished(layer, raw)


def own_type(conf: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """A data type beside a layer that is not the network's: transfer leaves such."""
    own = conf.get("dataType")
    return {} if own in (None, common.get("dataType")) else {"dataType": own}


def check_names(value: Any, path: str) -> list[str]:
    """``value`` if it is a list of names."""
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise DL4JFormatError(f"{path}: expected a list of names, got {shown(value)}")
    return value


def preprocessor_of(value: Any, path: str) -> Preprocessor:
    """The preprocessor in a JSON object."""
    preprocessor = decode(value, path)
    if not isinstance(preprocessor, Preprocessor):
        raise DL4JFormatError(f"{path}: expected a preprocessor")
    return preprocessor


def check_given(item: Any, raw: Mapping[str, Any], place: str = "") -> None:
    """Refuse null, and missing sizes, where DL4J always writes a value.

    Args:
        item: a layer or vertex as it was read.
        raw: its JSON.
        place: where it stands in the layer around it.
    """
    held = getattr(item, "holds", ())
    for f in fields(item):
        key, value = json_key(f), getattr(item, f.name)
        null = key in raw and raw[key] is None
        size = f.name in ("n_in", "n_out") and bool(item.variables)
        known = f.metadata.get("inherit") or f.default is not None
        if (
            (null and known and f.name in DEFAULTS)
            or (null and f.name in held)
            or (size and value is None)
        ):
            raise ValueError(f"{place}{key}: must be given, got null")
        if isinstance(value, Layer) and isinstance(raw.get(key), Mapping):
            check_given(value, raw[key], f"{place}{key}.")


def _finished(layer: Layer, raw: Mapping[str, Any]) -> Layer:
    """A layer read from JSON in normal form; absent settings take DL4J's defaults."""
    check_given(layer, raw)
    return layer.resolved(DEFAULTS)  # type: ignore[no-any-return]
