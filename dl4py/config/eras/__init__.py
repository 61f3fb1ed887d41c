"""JSON of old releases as the current one writes it: plain dict → plain dict.

Nothing in a file names its release; :func:`recognise` tells the era from what is there,
and refuses two in one file. The functions of the releases run from the oldest of the
era to the newest, before anything is decoded. What DL4J wrote from 1.0.0-beta7 to
1.0.0-M2.1 passes unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dl4py.config.codec import at
from dl4py.config.eras.beta import AROUND, NETWORK, filled, from_100b3
from dl4py.config.eras.early import from_050, from_060, from_072, from_080, from_091
from dl4py.config.eras.parts import Part, confs, kind, nested
from dl4py.config.eras.recognition import ERAS, TODAY, Era, recognise
from dl4py.config.eras.tags import classes

__all__ = ["ERAS", "RELEASES", "TODAY", "Era", "current", "recognise"]

Change = Callable[[Part, Part], None]
RELEASES: tuple[Change, ...] = (
    from_050,
    from_060,
    from_072,
    from_080,
    from_091,
    from_100b3,
)
_FIRST = dict(zip(ERAS, (from_050, from_080, from_091, from_100b3), strict=False))


def current(content: Mapping[str, Any], era: Era | None = None) -> Part:
    """A network's JSON of any release that is known, as M2.1 writes it.

    Args:
        content: in plain Python types; it stays as it is.
        era: that of ``content``, where it is known already.

    Raises:
        DL4JFormatError: naming the place, where the content contradicts its era.
    """
    era = era or recognise(content)
    if era.key not in _FIRST:
        return filled(content)  # type: ignore[no-any-return]
    return _older(content, RELEASES[RELEASES.index(_FIRST[era.key]) :])


def _older(content: Mapping[str, Any], changes: tuple[Change, ...]) -> Part:
    found = classes(content)
    for path, conf in confs(found):
        for place, layer in nested(conf.get("layer"), f"{path}.layer"):
            with at(place):
                for change in changes:
                    change(layer, conf)
    if "redistributeParams" in found:
        _flatten_images(found)
    default = found.get("defaultConfiguration")
    for _, conf in [*confs(found), *[("", default)] * isinstance(default, dict)]:
        for key in AROUND:
            conf.pop(key, None)
    for key in NETWORK:
        found.pop(key, None)
    return filled(found)  # type: ignore[no-any-return]


def _flatten_images(content: Part) -> None:
    """0.5.0: rows after images needed no preprocessor, and no size of images is known.

    Only square images say theirs; height and width 0 stand for any.
    """
    given = content.setdefault("inputPreProcessors", {})
    channels = 0
    for i, (path, conf) in enumerate(confs(content)):
        layer = conf["layer"] if isinstance(conf.get("layer"), dict) else {}
        name = kind(layer)
        if name == "ConvolutionLayer":
            channels = layer.get("nout") or 0
        elif name in ("DenseLayer", "OutputLayer") and channels:
            with at(path):
                side = math.isqrt(int(layer["nin"]) // channels)
                square = side * side * channels == layer["nin"]
            size = side if square else 0
            if isinstance(given, dict) and str(i) not in given:
                given[str(i)] = {
                    "@class": "org.deeplearning4j.nn.conf.preprocessor."
                    "CnnToFeedForwardPreProcessor",
                    "inputHeight": size,
                    "inputWidth": size,
                    "numChannels": channels,
                }
            channels = 0
        elif name not in ("SubsamplingLayer", "BatchNormalization", "ActivationLayer"):
            channels = 0
