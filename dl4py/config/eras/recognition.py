"""Which releases wrote a configuration: nothing in it says so, much hints at it.

Each hint leaves some eras possible. Those that all hints leave are the answer; hints
that leave none contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dl4py.config.codec import DL4JFormatError, shown
from dl4py.config.eras.parts import confs, layers, wrapped


@dataclass(frozen=True)
class Era:
    """Releases that wrote their files alike.

    Args:
        key: for the conversions.
        releases: of DL4J, as a message names them.
        because: what in the file told.
        notes: what this reader makes of it that DL4J 1.0.0-M2.1's own does not.
    """

    key: str
    releases: str
    because: str = ""
    notes: tuple[str, ...] = ()

    @property
    def old(self) -> bool:
        """Whether today's readers could take it for something else."""
        return self.key != _D or self.releases != TODAY

    @property
    def state_by_parameter(self) -> bool:
        """Whether an updater's state is one parameter's after another's: to 0.8.0."""
        return self.key in (_N, _A)

    def __str__(self) -> str:
        return f"a file of {self.releases} ({self.because})"

    @contextmanager
    def assumed(self) -> Iterator[None]:
        """Errors inside say which era was assumed, where another could be meant."""
        try:
            yield
        except DL4JFormatError as error:
            if not self.old:
                raise
            raise DL4JFormatError(f"{error}; read as {self}") from error


TODAY = "1.0.0-beta7 to M2.1"
ERAS = {
    "wrapped, names": "0.5.0 to 0.7.2",
    "wrapped": "0.8.0",
    "wrapped, own updaters": "0.9.0 to 1.0.0-alpha",
    "classes": "1.0.0-beta to beta3",
    "lists": "1.0.0-beta4 to M2.1",
}
_N, _A, _B, _C, _D = ERAS
Hint = tuple[str, frozenset[str], str]  # path, the eras left possible, what is there


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_there(value: object) -> bool:
    return True


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


Rule = tuple[Callable[[object], bool], tuple[str, ...]]
# key → what its value is where it tells, and the eras that wrote it so
_CONF: dict[str, Rule] = {
    "learningRateByParam": (_is_there, (_N, _A, _B)),
    "learningRatePolicy": (_is_there, (_N, _A, _B)),
    "useRegularization": (_is_there, (_N, _A, _B)),
    "pretrain": (_is_there, (_N, _A, _B, _C)),
}
_LAYER: dict[str, Rule] = {
    "activationFunction": (_is_text, (_N,)),
    "activationFn": (_is_object, (_A, _B, _C, _D)),
    "dropOut": (_is_number, (_N, _A, _B)),
    "idropout": (_is_there, (_B, _C, _D)),
    "iupdater": (_is_object, (_B, _C, _D)),
    "l1": (_is_number, (_N, _A, _B, _C)),
    "weightInit": (_is_text, (_N, _A, _B, _C)),
    "weightInitFn": (_is_there, (_D,)),
    "regularization": (_is_there, (_D,)),
}
_TOP: dict[str, Rule] = {
    "redistributeParams": (_is_there, (_N,)),
    "backprop": (_is_there, (_N, _A, _B, _C)),
    "pretrain": (_is_there, (_N, _A, _B, _C)),
    "legacyBatchScaledL2": (_is_there, (_C,)),
    "dataType": (_is_there, (_D,)),
    "validateOutputLayerConfig": (_is_there, (_D,)),
}
# what M2.1 writes under old names elsewhere
_NOT_BASE = ("layerParams", "vertexParams")


def recognise(content: Mapping[str, Any]) -> Era:
    """The era of a network's JSON, and what in it told.

    Raises:
        DL4JFormatError: where one part was written by other releases than another.
    """
    left = frozenset(ERAS)
    told: list[Hint] = []
    for hint in _hints(content):
        path, eras, what = hint
        now = left & eras
        if not now:
            first = next(h for h in told if not h[1] & eras)
            raise DL4JFormatError(
                f"{path}: {what}, as {_range(eras)} wrote it, but {first[0]} has "
                f"{first[2]}, as {_range(first[1])}: two eras mixed in one file"
            )
        if now != left:
            told.append(hint)
            left = now
    because = "; ".join(f"{path} has {what}" for path, _, what in told)
    if len(left) > 1:  # no hint between neighbours: layers without parameters
        key = next(key for key in reversed(ERAS) if key in left)
    else:
        (key,) = left
    releases, more = _narrowed(key, content)
    because = "; ".join(filter(None, (because, more))) or "nothing older in it"
    return Era(key, releases, because, tuple(_notes(content)) if key != _D else ())


def _hints(content: Mapping[str, Any]) -> Iterator[Hint]:
    for path, layer, conf in layers(content):
        if wrapped(conf.get("layer")):
            outer, tag = path.rpartition(".")[0], path.rpartition(".")[2]
            yield outer, frozenset((_N, _A, _B)), f"a layer wrapped in {shown(tag)}"
        elif isinstance(layer.get("@class"), str):
            yield path, frozenset((_C, _D)), "a layer with '@class'"
        if not any(key in layer for key in _NOT_BASE):
            yield from _told(layer, _LAYER, path)
            if _is_text(layer.get("updater")):
                both = (_B,) if _is_object(layer.get("iupdater")) else ()
                eras = frozenset((_N, _A, *both))
                yield path, eras, f"'updater': {shown(layer['updater'])}"
    for path, conf in confs(content):
        yield from _told(conf, _CONF, path)
    yield from _told(content, _TOP, "$")


def _told(
    part: Mapping[str, Any], rules: Mapping[str, Rule], path: str
) -> Iterator[Hint]:
    for key, (tells, eras) in rules.items():
        if key in part and tells(part[key]):
            yield path, frozenset(eras), f"{key!r}"


def _range(eras: frozenset[str]) -> str:
    named = [releases for key, releases in ERAS.items() if key in eras]
    first, last = named[0], named[-1]
    if first == last:
        return first
    return f"{first.partition(' to ')[0]} to {last.partition(' to ')[2]}"


def _narrowed(key: str, content: Mapping[str, Any]) -> tuple[str, str]:
    """The releases as far as finer hints tell, and the hint."""
    found = list(layers(content))
    keys = {k for _, layer, _ in found for k in layer}
    around = {k for _, conf in confs(content) for k in conf}
    if key == _A:
        return "0.8.0", "activations are objects"
    if key == _N:
        if "redistributeParams" in content or "customLossFunction" in keys:
            return "0.5.0", "losses are names"
        if "pretrain" in around:
            return "0.7.0 to 0.7.2", "'pretrain' stands beside layers"
        return "0.6.0", "'pretrain' does not stand beside layers"
    if key == _B:
        if "learningRateByParam" in around:
            return "0.9.0 to 0.9.1", "'learningRateByParam' is there"
        return "0.9.2 to 1.0.0-alpha", "'learningRateByParam' is not there"
    if key == _C:
        if "legacyBatchScaledL2" in {*keys, *content}:
            return "1.0.0-beta3", "'legacyBatchScaledL2' is there"
        return "1.0.0-beta to beta2", "'legacyBatchScaledL2' is not there"
    if SINCE_BETA7 & keys:
        return TODAY, "layers state their data format"
    if "nin" in keys:
        return "1.0.0-beta4 to beta6", "layers state no data format"
    return TODAY, ""


SINCE_BETA7 = {
    "cnn2dDataFormat",
    "cnn2DFormat",
    "rnnDataFormat",
    "timeDistributedFormat",
}


def _notes(content: Mapping[str, Any]) -> Iterator[str]:
    for path, layer, conf in layers(content):
        policy = conf.get("learningRatePolicy")
        if policy == "Score":
            yield (
                f"{path}: learning-rate policy 'Score' is left out, the rate stays: no "
                "schedule follows scores; DL4J 1.0.0-M2.1 drops it too"
            )
        elif policy not in (None, "None"):
            yield (
                f"{path}: learning-rate policy {shown(policy)} became a schedule; old "
                "releases applied it to the rate of the step before, DL4J 1.0.0-M2.1 "
                "drops it"
            )
        if layer.get("momentumSchedule"):
            yield f"{path}: momentumSchedule is kept; DL4J 1.0.0-M2.1 drops it"
        for key in ("biasL1", "biasL2"):
            if _is_number(layer.get(key)) and layer[key]:
                yield f"{path}: {key} is kept; DL4J 1.0.0-M2.1 drops it"
        rate, bias = layer.get("learningRate"), layer.get("biasLearningRate")
        if _is_number(rate) and _is_number(bias) and rate != bias:
            yield f"{path}: biasLearningRate is kept; DL4J 1.0.0-M2.1 drops it"
        if conf.get("useRegularization") is False and (
            layer.get("l1") or layer.get("l2")
        ):
            yield (
                f"{path}: l1 and l2 are off, as useRegularization says; DL4J "
                "1.0.0-M2.1 applies them"
            )
        times = conf.get("numIterations", 1)
        if times != 1:
            yield (
                f"{path}: numIterations is {shown(times)}: old releases made as many "
                "steps for each batch, here and in DL4J 1.0.0-M2.1 it is one"
            )
