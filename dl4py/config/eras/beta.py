"""What 1.0.0-alpha to beta4 wrote otherwise: penalties, initial weights, defaults."""

from __future__ import annotations

import math
from typing import Any

from dl4py.config.codec import shown
from dl4py.config.eras.early import declared, named, number
from dl4py.config.eras.parts import Part, everywhere, kind
from dl4py.registry import WEIGHT_INITS

_REGULARIZATION = "org.nd4j.linalg.learning.regularization."
_INIT = "org.deeplearning4j.nn.weights."
# what only old releases wrote: around a layer, around all, in a loss
AROUND = (
    "extraArgs l1ByParam l2ByParam leakyreluAlpha learningRateByParam "
    "learningRatePolicy lrPolicyDecayRate lrPolicyPower lrPolicySteps numIterations "
    "pretrain useDropConnect useRegularization"
).split()
NETWORK = ("backprop", "pretrain", "redistributeParams", "legacyBatchScaledL2")
_BACKENDS = ("cudnn", "helper")  # written back, they change nothing
LOSS = ("configProperties", "numOutputs")


def from_100b3(layer: Part, conf: Part) -> None:
    """Up to 1.0.0-beta3: penalties were numbers, initial weights a name.

    DL4J 1.0.0-M2.1 takes l2 for a decay beside the updater, as those releases did.
    """
    if any(key in layer for key in ("l1", "l2", "weightInit")):
        for new, l1, l2 in (
            ("regularization", "l1", "l2"),
            ("regularizationBias", "l1Bias", "l2Bias"),
        ):
            if new not in layer:
                layer[new] = _penalties(number(layer, l1), number(layer, l2))
    scheme = named(layer, "weightInit")
    if scheme is not None and "weightInitFn" not in layer:
        layer["weightInitFn"] = _initial(scheme, layer)
    known = declared(layer)
    for key in layer.keys() - known - {"@class"} if known else ():
        if not key.startswith(_BACKENDS):  # DL4J too reads what it knows
            del layer[key]
    if isinstance(layer.get("lossFn"), dict):
        for key in LOSS:
            layer["lossFn"].pop(key, None)


def _penalties(l1: float | None, l2: float | None) -> list[Part]:
    def fixed(value: float) -> Part:
        return {"@class": "org.nd4j.linalg.schedule.FixedSchedule", "value": value}

    found: list[Part] = []
    if l1:
        name = f"{_REGULARIZATION}L1Regularization"
        found.append({"@class": name, "l1": fixed(l1)})
    if l2:
        name = f"{_REGULARIZATION}WeightDecay"
        found.append({"@class": name, "applyLR": False, "coeff": fixed(l2)})
    return found


def _initial(name: str, layer: Part) -> Part:
    """The weight initialisation of a name; it matters where weights are drawn anew."""
    if name == "DISTRIBUTION":
        given = layer.get("dist")
        if not isinstance(given, dict):
            raise ValueError(f"dist: must be a distribution, got {shown(given)}")
        return {"@class": f"{_INIT}WeightInitDistribution", "distribution": given}
    if name in ("SIZE", "NORMALIZED", "VI"):
        return _uniform(_bound(name, layer))
    if name in ("ZERO", "ONES"):
        value = float(name == "ONES")
        return {"@class": f"{_INIT}WeightInitConstant", "value": value}
    return {"@class": WEIGHT_INITS.entry(name).java}


def _bound(name: str, layer: Part) -> float:
    """The bound of a uniform distribution that 0.5.0 to 0.9.1 drew from."""
    sizes = [number(layer, key) for key in ("nin", "nout")]
    n_in, n_out = (1.0 if size is None or size < 1 else size for size in sizes)
    first = n_out if kind(layer).startswith("Convolution") else n_in
    if name == "SIZE":
        return 4 * math.sqrt(6 / (n_in + n_out))
    if name == "VI":
        return math.sqrt(6) / math.sqrt(n_in + n_out + 1)
    return 0.5 / first


def _uniform(bound: float) -> Part:
    name = "org.deeplearning4j.nn.conf.distribution.UniformDistribution"
    drawn = {"type": name, "lower": -bound, "upper": bound}
    return {"@class": f"{_INIT}WeightInitDistribution", "distribution": drawn}


_UNCLIPPED = {"LossMCXENT": "softmaxClipEps", "LossBinaryXENT": "clipEps"}
_IMAGES = (
    "ConvolutionLayer Deconvolution2D DepthwiseConvolution2D SeparableConvolution2D "
    "SubsamplingLayer Subsampling1DLayer Convolution1DLayer Convolution3D "
    "Deconvolution3D"
)
_SERIES = (
    "Convolution1DLayer GravesBidirectionalLSTM GravesLSTM LSTM RnnLossLayer "
    "RnnOutputLayer SimpleRnn"
)
_FORMATS = (  # layers that stated no data format up to beta6
    (_IMAGES.split(), "cnn2dDataFormat", "NCHW"),
    # DL4J leaves it null, takes that for NWC, and cannot train
    (_SERIES.split(), "rnnDataFormat", "NCW"),
    (["BatchNormalization"], "cnn2DFormat", "NCHW"),
    (["CnnLossLayer", "Upsampling2D", "SpaceToBatchLayer"], "format", "NCHW"),
    (["LocallyConnected2D"], "format", "NCHW"),
    (["Cropping2D", "ZeroPaddingLayer"], "dataFormat", "NCHW"),
    (["LocalResponseNormalization"], "dataFormat", "NCHW"),
)


def filled(content: Any) -> Any:
    """What DL4J's reader fills in where a file is silent, whatever its release.

    Up to 1.0.0-alpha embeddings always had a bias, and one factor stood for both axes;
    up to beta3 a schedule had another name; up to beta4 means counted padding, names
    told what a variance was, and a bidirectional layer repeated the size of one
    direction, not of both.
    """
    return everywhere(content, _fill)


def _fill(part: Part) -> None:
    name = kind(part)
    if name in ("ConvolutionLayer", "SubsamplingLayer"):
        part.setdefault("convolutionMode", "Truncate")
    if name in ("SubsamplingLayer", "Subsampling1DLayer"):
        part.setdefault("avgPoolIncludePadInDivisor", True)
    if name in _UNCLIPPED:
        part.setdefault(_UNCLIPPED[name], 0.0)
    for names, key, format in _FORMATS:
        if name in names:
            part.setdefault(key, format)
    if name == "EmbeddingLayer":
        part.setdefault("hasBias", True)
    if name == "Upsampling2D" and _is_whole(part.get("size")):
        part["size"] = [part["size"]] * 2
    if name == "Nesterovs" and "momentumSchedule" in part:
        part.setdefault("momentumISchedule", part.pop("momentumSchedule"))
    if name == "Bidirectional" and part.get("mode") == "CONCAT":
        one = part.get("fwd")
        if isinstance(one, dict) and part.get("nout") == one.get("nout"):
            part.pop("nout", None)
    variables = part.get("variables")
    if isinstance(part.get("layer"), dict) and isinstance(variables, list):

        def name_variance(inside: Part) -> None:
            if kind(inside) == "BatchNormalization" and variables:
                inside.setdefault("useLogStd", "var" not in variables)

        part["layer"] = everywhere(part["layer"], name_variance)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
