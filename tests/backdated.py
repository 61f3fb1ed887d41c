"""Today's JSON as 1.0.0-beta3 and 1.0.0-alpha would have written it."""

from __future__ import annotations

import copy
from typing import Any

from dl4py.registry import WEIGHT_INITS

JSON = dict[str, Any]
PREFIXES = {  # key → what a class's name begins with, beside its tag in 1.0.0-alpha
    "activationFn": "Activation",
    "gateActivationFn": "Activation",
    "pzxActivationFn": "Activation",
    "lossFn": "Loss",
}
SUFFIXES = {
    "preProcessor": "PreProcessor",
    "outputDistribution": "ReconstructionDistribution",
    "dist": "Distribution",
}
LAYER_TAGS = {
    "AutoEncoder": "autoEncoder",
    "ConvolutionLayer": "convolution",
    "Convolution1DLayer": "convolution1d",
    "GravesLSTM": "gravesLSTM",
    "LSTM": "LSTM",
    "GravesBidirectionalLSTM": "gravesBidirectionalLSTM",
    "OutputLayer": "output",
    "CenterLossOutputLayer": "CenterLossOutputLayer",
    "RnnOutputLayer": "rnnoutput",
    "LossLayer": "loss",
    "DenseLayer": "dense",
    "SubsamplingLayer": "subsampling",
    "Subsampling1DLayer": "subsampling1d",
    "BatchNormalization": "batchNormalization",
    "LocalResponseNormalization": "localResponseNormalization",
    "EmbeddingLayer": "embedding",
    "ActivationLayer": "activation",
    "VariationalAutoencoder": "VariationalAutoencoder",
    "DropoutLayer": "dropout",
    "GlobalPoolingLayer": "GlobalPooling",
    "ZeroPaddingLayer": "zeroPadding",
    "ZeroPadding1DLayer": "zeroPadding1d",
    "FrozenLayer": "FrozenLayer",
    "Upsampling2D": "Upsampling2D",
    "Yolo2OutputLayer": "Yolo2OutputLayer",
    "RnnLossLayer": "RnnLossLayer",
    "CnnLossLayer": "CnnLossLayer",
    "Bidirectional": "Bidirectional",
    "SimpleRnn": "SimpleRnn",
    "ElementWiseMultiplicationLayer": "ElementWiseMult",
    "MaskLayer": "MaskLayer",
    "MaskZeroLayer": "MaskZeroLayer",
    "Cropping1D": "Cropping1D",
    "Cropping2D": "Cropping2D",
}
VERTEX_TAGS = (
    "ElementWiseVertex MergeVertex SubsetVertex LayerVertex LastTimeStepVertex "
    "ReverseTimeSeriesVertex DuplicateToTimeSeriesVertex PreprocessorVertex "
    "StackVertex UnstackVertex L2Vertex ScaleVertex L2NormalizeVertex"
).split()
HELD = ("layer", "fwd", "bwd", "underlying")
LATER = (  # keys that no release before beta4 wrote
    "cnn2DFormat cnn2dDataFormat dataFormat dataType format gainInit hasLayerNorm "
    "helperAllowFallback maskArrayInput mergeAxis modified rnnDataFormat "
    "timeDistributedFormat topologicalOrder topologicalOrderStr useLogStd "
    "validateOutputLayerConfig avgPoolIncludePadInDivisor weightInitFnRecurrent"
).split()


class Impossible(Exception):
    """What older releases had no words for."""


def simple(value: JSON) -> str:
    return str(value["@class"]).rpartition(".")[2]


def as_beta3(content: JSON) -> JSON:
    """Penalties as numbers, initial weights as a name, no data formats."""
    found = _without(copy.deepcopy(content))
    found.update(backprop=True, pretrain=False)
    _each_layer(found, _plainly)
    return found


def as_alpha(content: JSON) -> JSON:
    """That with every object wrapped in its name."""
    found = as_beta3(content)
    _each_layer(found, _wrapped_inside)
    found["inputPreProcessors"] = {
        k: _wrap(v, suffix="PreProcessor")
        for k, v in found.get("inputPreProcessors", {}).items()
    }
    for conf in _confs(found):
        conf["layer"] = _wrap_layer(conf["layer"])
    for name, vertex in found.get("vertices", {}).items():
        if simple(vertex) not in VERTEX_TAGS:
            raise Impossible(simple(vertex))
        if vertex.get("preProcessor"):
            vertex["preProcessor"] = _wrap(vertex["preProcessor"], "", "PreProcessor")
        found["vertices"][name] = _wrap(vertex)
    return found


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"dataType", "shape", "data"}:
            return value
        kept = ("dataFormat",) if "3D" in str(value.get("@class")) else ()
        return {k: _without(v) for k, v in value.items() if k in kept or k not in LATER}
    return [_without(v) for v in value] if isinstance(value, list) else value


def _confs(content: JSON) -> list[JSON]:
    vertices = content.get("vertices", {}).values()
    return content.get("confs") or [
        v["layerConf"] for v in vertices if "layerConf" in v
    ]


def _each_layer(content: JSON, change: Any) -> None:
    def visit(layer: JSON) -> None:
        for key in HELD:
            if isinstance(layer.get(key), dict):
                visit(layer[key])
        change(layer)

    for conf in _confs(content):
        visit(conf["layer"])


def _plainly(layer: JSON) -> None:
    for key, l1, l2 in (
        ("regularization", "l1", "l2"),
        ("regularizationBias", "l1Bias", "l2Bias"),
    ):
        if key not in layer:
            continue
        layer[l1] = layer[l2] = 0.0
        for term in layer.pop(key):
            name = {"L1Regularization": "l1", "L2Regularization": "l2"}.get(
                simple(term)
            )
            coefficient = term[name or "coeff"]
            if simple(coefficient) != "FixedSchedule":
                raise Impossible("a scheduled penalty")
            layer[l1 if name == "l1" else l2] = coefficient["value"]
    init = layer.pop("weightInitFn", None)
    if init is not None:
        names = {
            WEIGHT_INITS.entry(key).java: WEIGHT_INITS.entry(key).names[0]
            for key in WEIGHT_INITS
        }
        name = names[init["@class"]].upper()
        if name == "CONSTANT":
            raise Impossible("a constant")
        layer["weightInit"] = name
        layer["dist"] = init.get("distribution")


def _wrap(value: JSON, prefix: str = "", suffix: str = "") -> JSON:
    name = str(value.get("@class") or value.get("type")).rpartition(".")[2]
    inside = {k: v for k, v in value.items() if k not in ("@class", "type")}
    tag = name.removeprefix(prefix).removesuffix(suffix)
    if suffix == "PreProcessor":
        tag = tag[0].lower() + tag[1:]
    if suffix == "Distribution":
        tag = tag.lower()
    return {tag: inside}


def _wrapped_inside(layer: JSON) -> None:
    for key in HELD:
        if isinstance(layer.get(key), dict):
            layer[key] = _wrap_layer(layer[key])
    for key, value in layer.items():
        if not isinstance(value, dict):
            continue
        if key in PREFIXES:
            layer[key] = _wrap(value, prefix=PREFIXES[key])
        elif key in SUFFIXES:
            if isinstance(value.get("activationFn"), dict):
                value["activationFn"] = _wrap(value["activationFn"], "Activation")
            layer[key] = _wrap(value, suffix=SUFFIXES[key])


def _wrap_layer(layer: JSON) -> JSON:
    name = simple(layer)
    if name not in LAYER_TAGS:
        raise Impossible(name)
    return {LAYER_TAGS[name]: {k: v for k, v in layer.items() if k != "@class"}}
