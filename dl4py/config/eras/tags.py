"""Up to 1.0.0-alpha an object stood inside one whose only key was its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dl4py.config.codec import DL4JFormatError, unregistered
from dl4py.config.eras.parts import Part, wrapped
from dl4py.registry import (
    ACTIVATIONS,
    DISTRIBUTIONS,
    LAYERS,
    LOSSES,
    PREPROCESSORS,
    RECONSTRUCTIONS,
    VERTICES,
    Registry,
)

# names that are neither a Java class's nor one of ours → the class
_CLASSES = {
    "ElementWiseMult": "ElementWiseMultiplicationLayer",
    "LayerVertex": "LayerVertex",
    "LossWrapper": "LossFunctionWrapper",
}
_GONE = (  # preprocessors that ended with 0.9.1
    "binomialSampling",
    "reshape",
    "unitVariance",
    "zeroMean",
    "zeroMeanAndUnitVariance",
)
# where wrapped objects stand: key → their registry, and how DL4J's class is named
Slot = tuple[Registry[Any], str]
_LAYER: Slot = (LAYERS, "{}")
_ACTIVATION: Slot = (ACTIVATIONS, "Activation{}")
_PREPROCESSOR: Slot = (PREPROCESSORS, "{}PreProcessor")
_SLOTS: dict[str, Slot] = {
    "layer": _LAYER,
    "fwd": _LAYER,
    "bwd": _LAYER,
    "underlying": _LAYER,
    "lossFn": (LOSSES, "Loss{}"),
    "lossFunction": (LOSSES, "Loss{}"),
    "dist": (DISTRIBUTIONS, "{}Distribution"),
    "distribution": (DISTRIBUTIONS, "{}Distribution"),
    "outputDistribution": (RECONSTRUCTIONS, "{}ReconstructionDistribution"),
    "preProcessor": _PREPROCESSOR,
}
_MANY: dict[str, Slot] = {
    "inputPreProcessors": _PREPROCESSOR,
    "reconstructionDistributions": (RECONSTRUCTIONS, "{}ReconstructionDistribution"),
    "vertices": (VERTICES, "{}"),
}


def classes(value: Any, path: str = "$") -> Any:
    """A copy of a JSON value in which wrapped objects state their class instead."""
    if isinstance(value, Mapping):
        return {k: _slot(k, v, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [classes(v, f"{path}[{i}]") for i, v in enumerate(value)]
    return value


def _slot(key: str, value: Any, path: str) -> Any:
    if key in _MANY and isinstance(value, Mapping):
        return {k: _named(v, _MANY[key], f"{path}.{k}") for k, v in value.items()}
    if key in _MANY and isinstance(value, list):
        return [_named(v, _MANY[key], f"{path}[{i}]") for i, v in enumerate(value)]
    # a layer of somebody's own may have more activations than DL4J's
    slot = _ACTIVATION if "activation" in key.lower() else _SLOTS.get(key)
    return classes(value, path) if slot is None else _named(value, slot, path)


def _named(value: Any, slot: Slot, path: str) -> Any:
    if not wrapped(value):
        return classes(value, path)
    ((name, inside),) = value.items()
    registry, pattern = slot
    if name in _GONE and registry is PREPROCESSORS:
        raise DL4JFormatError(
            f"{path}: {name}: a preprocessor that ended with 0.9.1; DL4J 1.0.0-M2.1 "
            "has none, nor have we"
        )
    simple = _CLASSES.get(name) or pattern.format(name)
    entry = registry.by_java(simple) or registry.by_java(name)
    java = entry.java if entry is not None and entry.java else simple
    if entry is None and simple not in _CLASSES.values():
        raise DL4JFormatError(f"{path}: {unregistered(registry, name)}")
    tag = "type" if registry is DISTRIBUTIONS else "@class"
    content: Part = {k: v for k, v in inside.items() if k != tag}
    return {tag: java, **classes(content, path)}
