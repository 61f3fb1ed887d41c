"""What 0.5.0 to 0.9.1 wrote otherwise: names, updaters, policies, dropout.

All take a layer in which objects state their class, and what stands around it.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any

from dl4py.config.codec import argument_key, is_real, shown
from dl4py.config.eras.parts import Part, kind
from dl4py.config.layer import BaseLayer
from dl4py.registry import (
    ACTIVATIONS,
    LAYERS,
    LOSSES,
    UPDATERS,
    json_key,
    parameters,
)

_NOT_ANY_MORE = "squared_loss"  # a name of MSE today, of L2 then
_SCHEDULE = "org.nd4j.linalg.schedule."
_OLD_KEYS = {"beta1": "adamMeanDecay", "beta2": "adamVarDecay"}


def declared(part: Mapping[str, Any]) -> frozenset[str]:
    """The JSON keys of a layer's class; none where nobody registered it."""
    entry = LAYERS.by_java(kind(part)) if kind(part) else None
    if entry is None or not dataclasses.is_dataclass(entry.item):
        return frozenset()
    keys = map(json_key, dataclasses.fields(entry.item))
    return frozenset((*keys, *getattr(entry.item, "json_derived", ())))


def is_base(part: Mapping[str, Any]) -> bool:
    """Whether this is a layer with parameters or an activation, as DL4J sorts them."""
    entry = LAYERS.by_java(kind(part)) if kind(part) else None
    item = entry.item if entry else None
    return isinstance(item, type) and issubclass(item, BaseLayer)


def number(part: Mapping[str, Any], key: str) -> float | None:
    """A number of an old file, ``None`` where there is none: absent, null or NaN."""
    value = part.get(key)
    if value is None or value == "NaN":
        return None
    if not is_real(value):
        raise ValueError(f"{key}: must be a number, got {shown(value)}")
    return float(value)


def named(part: Mapping[str, Any], key: str) -> str | None:
    """A name of an old file, ``None`` where there is none."""
    value = part.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key}: must be a name, got {shown(value)}")
    return value


def switch(part: Mapping[str, Any], key: str) -> bool | None:
    """A switch of an old file, ``None`` where there is none."""
    value = part.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key}: must be true or false, got {shown(value)}")
    return value


def from_050(layer: Part, conf: Part) -> None:
    """0.5.0: losses were names, and no running statistics were kept."""
    names = conf.get("variables")
    if kind(layer) == "BatchNormalization" and names and "mean" not in names:
        raise ValueError(
            "0.5.0 kept no running mean and variance of a BatchNormalization in its "
            "files: what it predicted cannot be told"
        )
    if "lossFn" in layer or "lossFn" not in declared(layer):
        return
    loss = named(layer, "lossFunction")
    if loss is None:
        return
    if loss == "CUSTOM":
        raise ValueError("lossFunction: a loss of somebody's own, which no file holds")
    entry = LOSSES.entry("l2" if loss.lower() == _NOT_ANY_MORE else loss)
    layer["lossFn"] = {"@class": entry.java or entry.key}
    for argument, default in parameters(entry.item).items():
        if argument.endswith("clip_eps"):
            layer["lossFn"][argument_key(entry.item, argument)] = default


def from_060(layer: Part, conf: Part) -> None:
    """0.5.0 and 0.6.0: windows had no mode."""
    if kind(layer) in ("ConvolutionLayer", "SubsamplingLayer"):
        layer.setdefault("convolutionMode", "Truncate")


def from_072(layer: Part, conf: Part) -> None:
    """0.5.0 to 0.7.2: activations were names; penalties on biases had another name.

    Likelihoods were not clipped, and pooling had no ε.
    """
    activation = named(layer, "activationFunction")
    if activation is not None and "activationFn" not in layer:
        layer["activationFn"] = {"@class": ACTIVATIONS.entry(activation).java}
    for old, new in (("biasL1", "l1Bias"), ("biasL2", "l2Bias")):
        if old in layer and new not in layer:
            layer[new] = layer.pop(old)
    if kind(layer) == "SubsamplingLayer":
        layer.setdefault("eps", 0.0)


def from_080(layer: Part, conf: Part) -> None:
    """0.5.0 to 0.8.0: an updater was a name, its numbers stood beside it."""
    updater = named(layer, "updater")
    if updater is None or layer.get("iupdater") is not None:
        return
    if updater == "CUSTOM":
        raise ValueError("updater: one of somebody's own, which no file holds")
    entry = UPDATERS.entry(updater)
    made: Part = {"@class": entry.java}
    for argument, default in parameters(entry.item).items():
        key = argument_key(entry.item, argument)
        value = number(layer, _OLD_KEYS.get(key, key))
        if value is None and default is not inspect.Parameter.empty:
            value = default
        made[key] = value
    layer["iupdater"] = made


def from_091(layer: Part, conf: Part) -> None:
    """0.5.0 to 0.9.1: policies, rates of biases, dropout, a switch for penalties."""
    if isinstance(layer.get("iupdater"), dict):
        _follow(layer, conf)
    on_weights, regularized = (
        switch(conf, key) for key in ("useDropConnect", "useRegularization")
    )
    if is_base(layer):
        keep = number(layer, "dropOut")
        if keep and layer.get("idropout") is None:
            _drop(layer, keep, on_weights is True)
    if regularized is False:
        for key in ("l1", "l2", "l1Bias", "l2Bias"):
            number(layer, key)  # one all the same
            layer.pop(key, None)


def _drop(layer: Part, keep: float, weights: bool) -> None:
    if weights:
        layer["weightNoise"] = {
            "@class": "org.deeplearning4j.nn.conf.weightnoise.DropConnect",
            "applyToBiases": False,
            "weightRetainProb": keep,
        }
    else:
        layer["idropout"] = {
            "@class": "org.deeplearning4j.nn.conf.dropout.Dropout",
            "p": keep,
        }


def _follow(layer: Part, conf: Part) -> None:
    """Give a layer's updaters the schedules that its policies stand for."""
    updater = layer["iupdater"]
    bias = number(layer, "biasLearningRate")
    differs = bias is not None and bias != number(layer, "learningRate")
    if differs and "learningRate" in updater and layer.get("biasUpdater") is None:
        layer["biasUpdater"] = {**updater, "learningRate": bias}
    momenta = layer.get("momentumSchedule")
    for made in (updater, layer.get("biasUpdater")):
        if not isinstance(made, dict):
            continue
        rate = number(made, "learningRate")
        if rate is not None and (policy := schedule(layer, conf, rate)):
            made["learningRateSchedule"], made["learningRate"] = policy, "NaN"
        momentum = number(made, "momentum")
        if momenta and momentum is not None:
            made["momentumISchedule"] = stepwise(momenta, momentum, "momentumSchedule")
            made["momentum"] = "NaN"


def schedule(layer: Part, conf: Part, rate: float) -> Part | None:
    """The schedule that a learning-rate policy stands for, from ``rate`` on."""
    policy = conf.get("learningRatePolicy")
    if policy in (None, "None", "Score"):  # Score follows the scores: no schedule does
        return None
    if policy == "Schedule":
        values = layer.get("learningRateSchedule") or {}
        return stepwise(values, rate, "learningRateSchedule")
    decay, power, steps = (
        number(conf, f"lrPolicy{word}") for word in ("DecayRate", "Power", "Steps")
    )
    if policy == "TorchStep":
        return stepwise(_divisors(steps, rate, decay), rate, "lrPolicySteps")
    fields: dict[str, Part] = {
        "Exponential": {"gamma": decay},
        "Inverse": {"gamma": decay, "power": power},
        "Poly": {"power": power, "maxIter": conf.get("numIterations")},
        "Sigmoid": {"gamma": decay, "stepSize": None if steps is None else int(steps)},
        "Step": {"decayRate": decay, "step": steps},
    }
    if policy not in fields:
        raise ValueError(
            f"learningRatePolicy: must be one of None, Schedule, Score, TorchStep, "
            f"{', '.join(fields)}, got {shown(policy)}"
        )
    name = f"{_SCHEDULE}{policy}Schedule"
    common = {"scheduleType": "ITERATION", "initialValue": rate}
    return {"@class": name, **common, **fields[policy]}


def stepwise(values: Any, first: float, key: str) -> Part:
    """A map of iterations as a schedule that begins with ``first``."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{key}: must be a map of iterations, got {shown(values)}")
    content = {"0": first, **values}
    return {
        "@class": f"{_SCHEDULE}MapSchedule",
        "scheduleType": "ITERATION",
        "values": content,
    }


def _divisors(steps: float | None, rate: float, decay: float | None) -> Part:
    """DL4J's TorchStep as it was: the rate fell where i > 1 divides the steps."""
    if steps is None or decay is None or not 1 <= steps <= 1e9:
        raise ValueError("lrPolicySteps, lrPolicyDecayRate: must be numbers >= 1, >= 0")
    whole = int(steps)
    small = [i for i in range(1, math.isqrt(whole) + 1) if whole % i == 0]
    found = sorted({*small, *(whole // i for i in small)} - {1})
    return {str(i): rate * decay**k for k, i in enumerate(found, 1)}
