"""Old files through Java: it reads them as we do, and goes on with what we write."""

import copy
import io
import json
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch

import dl4py
from tests import backdated, catalogue, resources
from tests.models.test_java import assert_close, go_on_in_java
from tests.resources import MLP, array, changed, data

OLD = "regression_testing"
NAMED = f"{OLD}/050/050_ModelSerializer_Regression_MLP_2.zip"
SIMPLE = [n for n in resources.models() if "Custom" not in n]  # whose classes Java has


def leaves(value, path="$"):
    """Every value of a JSON tree with its path."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from leaves(inside, f"{path}.{key}")
    elif isinstance(value, list):
        yield f"{path}.length", len(value)
        for i, inside in enumerate(value):
            yield from leaves(inside, f"{path}[{i}]")
    else:
        yield path, value


# keys of which DL4J makes nothing where it reads an old file, or which change nothing
FREE = (
    "gaininit",
    "cachemode",
    "gradientnormalizationthreshold",
    "rnndataformat",  # null, with which DL4J cannot train
    ".datatype",  # the arrays decide
    ".mode",  # of Convolution3D, which has a convolutionMode too
)
LOST = ("regularization", "weightInitFn")  # in graphs, and of layers inside layers


def apart(ours, theirs):
    """Path → the two values, where two configurations differ in what counts."""
    pair = [dict(leaves(content)) for content in (ours, theirs)]
    found = {
        p: tuple(one.get(p, "absent") for one in pair) for p in {*pair[0], *pair[1]}
    }
    return {
        path: values
        for path, values in found.items()
        if values[0] != values[1]
        and not path.lower().endswith(FREE)
        and ".cudnn" not in path
        and not (values[1] in (None, "absent") and any(w in path for w in LOST))
        and not path.endswith(".helperAllowFallback")
    }


def read_by_java(oracle, file, folder):
    """The configuration that DL4J makes of a file, as it writes it today."""
    (folder / "old.zip").write_bytes(file.getvalue())
    oracle("config", folder / "old.zip", folder / "new.json")
    return json.loads((folder / "new.json").read_text())


def read_apart(oracle, file, folder):
    """Where DL4J makes another configuration of a file."""
    theirs = read_by_java(oracle, file, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows of kernels of series tell no release
        ours = dl4py.restore(file).conf.to_dict()
    return apart(json.loads(json.dumps(ours)), theirs)


@pytest.mark.parametrize("name", SIMPLE)
def test_files_are_read_as_java_reads_them(oracle, name, tmp_path):
    theirs = read_by_java(oracle, data(name), tmp_path)
    ours = json.loads(json.dumps(dl4py.restore(data(name)).conf.to_dict()))
    if name.endswith("050_ModelSerializer_Regression_CNN_1.zip"):
        del ours["inputPreProcessors"]["2"]  # without it Java cannot run the network
    assert not apart(ours, theirs)


def in_layer(i=0, **values):
    """A change of an old configuration: keys of layer ``i``."""

    def change(content):
        (layer,) = content["confs"][i]["layer"].values()
        layer.update(copy.deepcopy(values))
        for key in [k for k, v in values.items() if v is ...]:
            del layer[key]

    return change


def in_all(around=None, **values):
    """A change of all layers, and of what stands around them."""

    def change(content):
        for i, conf in enumerate(content["confs"]):
            in_layer(i, **values)(content)
            conf.update(around or {})

    return change


def named(name):
    """All layers as up to 0.7.2, the first one with this activation."""

    def change(content):
        in_all(activationFn=..., activationFunction="softmax")(content)
        in_layer(activationFunction=name)(content)

    return change


TAGS = "Cube ELU HardSigmoid HardTanh Identity LReLU RationalTanh RectifiedTanh SELU"
TAGS += " SWISH ReLU RReLU Sigmoid Softmax SoftPlus SoftSign TanH"
LOSSES = "BinaryXENT CosineProximity Hinge KLD MAE L1 MAPE MCXENT MSE L2 MSLE"
LOSSES += " NegativeLogLikelihood Poisson SquaredHinge"
INITS = "ZERO ONES SIGMOID_UNIFORM NORMAL LECUN_NORMAL UNIFORM XAVIER XAVIER_UNIFORM"
INITS += " XAVIER_FAN_IN XAVIER_LEGACY RELU RELU_UNIFORM IDENTITY LECUN_UNIFORM"
UPDATERS = "SGD ADAM ADAMAX ADADELTA NESTEROVS NADAM ADAGRAD RMSPROP NONE"
NUMBERS = {
    "adamMeanDecay": 0.91,
    "adamVarDecay": 0.998,
    "rho": 0.94,
    "momentum": 0.7,
    "rmsDecay": 0.96,
}
VARIATIONS = {
    **{f"tag {t}": in_layer(activationFn={t: {}}) for t in TAGS.split()},
    **{
        f"name {t}": named(t.lower())
        for t in [*TAGS.replace("LReLU", "LeakyReLU").split()]
    },
    **{f"loss {t}": in_layer(1, lossFn={t: {}}) for t in LOSSES.split()},
    **{f"init {t}": in_layer(weightInit=t) for t in INITS.split()},
    **{
        f"updater {t} {e}": in_all(updater=t, epsilon=e, **NUMBERS)
        for t in UPDATERS.split()
        for e in ("NaN", 1e-7)
    },
    **{
        f"dist {next(iter(d))}": in_layer(dist=d)
        for d in (
            {"normal": {"mean": 0.1, "std": 1.2}},
            {"gaussian": {"mean": 0.1, "std": 1.2}},
            {"uniform": {"lower": -1.0, "upper": 2.0}},
            {"binomial": {"numberOfTrials": 3, "probabilityOfSuccess": 0.3}},
        )
    },
    "drop connect": in_all({"useDropConnect": True}),
    "no dropout": in_all(dropOut=0.0),
    "penalties on biases": in_layer(l1Bias=0.01, l2Bias=0.02),
}


def without_state(name, change):
    """A varied file; updaters differ in how much state they have."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(changed(name, change)) as old,
        zipfile.ZipFile(out, "w") as new,
    ):
        for entry in ("configuration.json", "coefficients.bin"):
            new.writestr(entry, old.read(entry))
    return out


@pytest.mark.parametrize("variation", VARIATIONS)
def test_every_word_is_read_as_java_reads_it(oracle, variation, tmp_path):
    file = without_state(MLP, VARIATIONS[variation])
    assert not read_apart(oracle, file, tmp_path)


@pytest.mark.parametrize(
    "name", ["MSE", "XENT", "MCXENT", "SQUARED_LOSS", "NEGATIVELOGLIKELIHOOD"]
)
def test_names_of_losses(oracle, name, tmp_path):
    file = without_state(NAMED, in_layer(1, lossFunction=name))
    assert not read_apart(oracle, file, tmp_path)


@pytest.mark.parametrize("era", ["alpha", "beta3"])
def test_every_layer_is_read_as_java_reads_it(oracle, era, tmp_path):
    """Today's networks, one for each class in them, as an older release wrote them."""
    seen, count, wrong = set(), 0, {}
    for name in catalogue.copied():
        text, numbers = catalogue.model(name)
        kinds = set(re.findall(r"org\.deeplearning4j\.[\w.]+", text)) - seen
        if not kinds:
            continue
        try:
            content = getattr(backdated, f"as_{era}")(json.loads(text))
        except backdated.Impossible:
            continue
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("configuration.json", json.dumps(content))
            archive.writestr("coefficients.bin", numbers)
        seen |= kinds
        count += 1
        try:
            found = read_apart(oracle, out, tmp_path)
        except RuntimeError as error:  # DL4J reads no such file
            found = {} if (era, name) in JAVA_CANNOT else {"refused": error}
        if found:
            wrong[name] = found
    assert not wrong and count > 40


# what 1.0.0-alpha's reader in M2.1 has no word for
JAVA_CANNOT = {
    ("alpha", "pretrain_vae_composite"),
    ("alpha", "pretrain_vae_loss_wrapper"),
    ("alpha", "yolo2"),
}


def inputs(net, name):
    """A batch that fits a network, from DL4J's own where it recorded one."""
    g = torch.Generator().manual_seed(0)
    first = net.conf.layers[0]
    if "Regression_CNN_1" in name:
        return torch.randn(2, 3, 28, 28, generator=g)
    if "upsampling" in name:
        return array(f"{OLD}/100a/upsampling/in.bin")
    if "Synthetic" in name and OLD in name:
        return array(name.replace("_100b4.bin", "_Input_100b4.bin"))
    if "Lenet" in name:
        return torch.rand(2, 784, generator=g)
    if "Cnn3d" in name:
        return torch.randn(2, 3, 8, 8, 8, generator=g)
    if "RnnCsv" in name:
        return torch.randn(3, 1, 6, generator=g)
    steps = (8,) if first.family == "rnn" else ()
    return torch.randn(3, first.n_in, *steps, generator=g)


def labels(net, x):
    """One-hot labels in the shape of the output."""
    y = net.output(x)
    g = torch.Generator().manual_seed(1)
    kinds = torch.randint(y.shape[1], (y.shape[0], *y.shape[2:]), generator=g)
    return torch.eye(y.shape[1], dtype=y.dtype)[kinds].movedim(-1, 1).contiguous()


CONTRADICTING = (
    "071_ModelSerializer_Regression_CNN_1",
    "080_ModelSerializer_Regression_CNN_1",
)


@pytest.mark.parametrize(
    "name", [n for n in SIMPLE if not any(c in n for c in CONTRADICTING)]
)
def test_java_goes_on_with_what_is_written(oracle, name, tmp_path):
    """Predictions to 1e-12 and three steps to 1e-10, in float64."""
    net = dl4py.restore(data(name), dtype="double")
    if "ModelSerializer" in name:  # 1, 2, 3 … saturate everything
        g = torch.Generator().manual_seed(2)
        net.set_params(torch.randn(net.num_params(), generator=g).double() / 4)
    x = inputs(net, name).double()
    noisy = any(layer.dropout is not None for layer in net.conf.layers)
    steps = 0 if noisy or "VAE" in name else 3
    y = labels(net, x) if steps else x
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE", steps=steps)


def no_noise(content):
    """What only ND4J's own random numbers could follow, and solvers, left out."""
    confs = content.get("confs") or [
        vertex["LayerVertex"]["layerConf"] for vertex in content["vertices"].values()
    ]
    for conf in confs:
        conf["optimizationAlgo"] = "STOCHASTIC_GRADIENT_DESCENT"
        (layer,) = conf["layer"].values()
        layer["dropOut"] = 0.0


@pytest.mark.parametrize(
    "name", [n for n in SIMPLE if "MLP_2" in n or "LSTM" in n.rpartition("/")[2]]
)
def test_java_goes_on_without_noise(oracle, name, tmp_path):
    net = dl4py.restore(changed(name, no_noise), dtype="double")
    g = torch.Generator().manual_seed(2)
    net.set_params(torch.randn(net.num_params(), generator=g).double() / 4)
    x = inputs(net, name).double()
    go_on_in_java(oracle, net, x, labels(net, x), tmp_path, dtype="DOUBLE")


@pytest.mark.parametrize(
    "name", [n for n in SIMPLE if "ModelSerializer" in n and "CNN" not in n]
)
def test_java_predicts_the_same_from_the_old_file(oracle, name, tmp_path):
    net = dl4py.restore(data(name))
    x = inputs(net, name)
    (tmp_path / "old.zip").write_bytes(data(name).getvalue())
    np.save(tmp_path / "x.npy", x.double().numpy())
    oracle("output", tmp_path / "old.zip", tmp_path / "out", tmp_path / "x.npy")
    theirs = np.load(tmp_path / "out" / "out_0.npy")
    assert_close(net.output(x), theirs, 1e-5, "output")
