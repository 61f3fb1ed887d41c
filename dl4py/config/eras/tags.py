"""Up to 1.0.0-alpha an object stood inside one whose only key was its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dl4py.config.codec import DL4JFormatError, shown
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
_GONE = {
    "RBM": "restricted Boltzmann machines ended with 0.9.1",
    "gru": "GRUs ended with 0.5.0",
    "binomialSampling": "sampling preprocessors ended with 0.9.1",
    "reshape": "this preprocessor ended with 0.9.1",
    "unitVariance": "scaling preprocessors ended with 0.9.1",
    "zeroMean": "scaling preprocessors ended with 0.9.1",
    "zeroMeanAndUnitVariance": "scaling preprocessors ended with 0.9.1",
}
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
    if name in _GONE and registry is not VERTICES:
        raise DL4JFormatError(
            f"{path}: {name}: {_GONE[name]}, and DL4J 1.0.0-M2.1 has none; there is "
            "none here"
        )
    simple = _CLASSES.get(name) or pattern.format(name)
    entry = registry.by_java(simple) or registry.by_java(name)
    java = entry.java if entry is not None and entry.java else simple
    if entry is None and simple not in _CLASSES.values():
        raise DL4JFormatError(f"{path}: {unknown(registry, name)}")
    tag = "type" if registry is DISTRIBUTIONS else "@class"
    content: Part = {k: v for k, v in inside.items() if k != tag}
    return {tag: java, **classes(content, path)}


def unknown(registry: Registry[Any], name: str) -> str:
    """What to say of a class that nobody registered."""
    word = registry.kind.upper().replace(" ", "_") + "S"
    words = {"LOSSS": "LOSSES", "VERTEXS": "VERTICES"}
    return (
        f"unknown {registry.kind} {shown(name)}: a class of somebody's own needs a twin "
        f"in Python; register it with @{words.get(word, word)}.add('name', "
        f"java={shown(name)})"
    )
