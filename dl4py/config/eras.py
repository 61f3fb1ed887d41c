"""JSON of old releases as the current one writes it: plain dict → plain dict.

Nothing in a file names its release, so every function looks for what its own releases
wrote, and leaves all else alone. They run from the oldest to the newest, before
anything is decoded; what DL4J wrote from 1.0.0-beta7 to 1.0.0-M2.1 passes unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Part = dict[str, Any]


def current(content: Mapping[str, Any]) -> Part:
    """A network's JSON of any release that is known, as M2.1 writes it.

    Args:
        content: in plain Python types; it stays as it is.
    """
    found = dict(content)
    for change in RELEASES:
        found = _everywhere(found, change)
    return found


def from_060(part: Part) -> None:
    """0.5.0 and 0.6.0: windows had no mode."""
    if _kind(part) in ("ConvolutionLayer", "SubsamplingLayer"):
        part.setdefault("convolutionMode", "Truncate")


def from_100a(part: Part) -> None:
    """Up to 1.0.0-alpha: embeddings always had a bias, and one factor for both axes."""
    kind = _kind(part)
    if kind == "EmbeddingLayer":
        part.setdefault("hasBias", True)
    if kind == "Upsampling2D" and _is_whole(part.get("size")):
        part["size"] = [part["size"]] * 2


def from_100b3(part: Part) -> None:
    """Up to 1.0.0-beta3: another name of a schedule."""
    if _kind(part) == "Nesterovs" and "momentumSchedule" in part:
        part.setdefault("momentumISchedule", part.pop("momentumSchedule"))


def from_100b4(part: Part) -> None:
    """Up to 1.0.0-beta4: means counted padding, names told what a variance was.

    A bidirectional layer repeated the size of one direction, not of both.
    """
    if _kind(part) == "Bidirectional" and part.get("mode") == "CONCAT":
        one = part.get("fwd")
        if isinstance(one, dict) and part.get("nout") == one.get("nout"):
            part.pop("nout", None)
    if _kind(part) in ("SubsamplingLayer", "Subsampling1DLayer"):
        part.setdefault("avgPoolIncludePadInDivisor", True)
    variables = part.get("variables")
    if isinstance(part.get("layer"), dict) and isinstance(variables, list):

        def name_variance(inside: Part) -> None:
            if _kind(inside) == "BatchNormalization" and variables:
                inside.setdefault("useLogStd", "var" not in variables)

        part["layer"] = _everywhere(part["layer"], name_variance)


RELEASES = (from_060, from_100a, from_100b3, from_100b4)


def _kind(part: Part) -> str:
    """The class of a JSON object, without its package: packages have moved."""
    return str(part.get("@class", "")).rpartition(".")[2]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _everywhere(value: Any, change: Callable[[Part], None]) -> Any:
    """A copy of a JSON value with every object in it changed, inner ones first."""
    if isinstance(value, Mapping):
        part = {key: _everywhere(inside, change) for key, inside in value.items()}
        change(part)
        return part
    if isinstance(value, list):
        return [_everywhere(inside, change) for inside in value]
    return value
