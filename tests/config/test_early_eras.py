"""0.5.0 to 1.0.0-beta3, release by release: what their words became."""

import copy
import json
import zipfile

import pytest

from dl4py import DL4JFormatError, NeuralNetConfiguration
from dl4py.config.eras import current, recognise
from dl4py.config.weight_noise import DropConnect
from tests.resources import data

OLD = "regression_testing"
FILES = {
    "0.5.0": f"{OLD}/050/050_ModelSerializer_Regression_MLP_2.zip",
    "0.7.1": f"{OLD}/071/071_ModelSerializer_Regression_MLP_2.zip",
    "0.8.0": f"{OLD}/080/080_ModelSerializer_Regression_MLP_2.zip",
}


def content(release, around=None, **values):
    """The JSON of a real file with other values in its first layer."""
    with zipfile.ZipFile(data(FILES[release])) as archive:
        found = json.loads(archive.read("configuration.json"))
    conf = found["confs"][0]
    (layer,) = conf["layer"].values()
    layer.update(values)
    conf.update(around or {})
    return found


def layer(release, around=None, **values):
    """The first layer of that, as it is decoded."""
    found = content(release, around, **values)
    return NeuralNetConfiguration.from_dict(found).layers[0]


def test_what_is_given_stays_as_it_is():
    given = content("0.5.0")
    before = copy.deepcopy(given)
    current(given)
    assert given == before


@pytest.mark.parametrize("release", FILES)
def test_nothing_old_is_left(release):
    found = json.dumps(current(content(release)))
    for word in (
        "activationFunction adamMeanDecay backprop dropOut extraArgs l1ByParam "
        "learningRateByParam lrPolicySteps numIterations redistributeParams updater "
        "useDropConnect useRegularization lossFunction customLossFunction weightInit"
    ).split():
        assert f'"{word}"' not in found


@pytest.mark.parametrize("release", FILES)
def test_one_network_of_three_releases(release):
    found = layer(release)
    assert found.activation.name == "leakyrelu" and found.n_out == 4
    assert found.updater.kwargs == {"lr": 0.15, "rms_decay": 0.96, "epsilon": 1e-8}
    l1, l2 = found.regularization
    assert (l1.l1.value, l2.coeff.value, l2.apply_lr) == (0.1, 0.2, False)
    assert found.dropout.p == 0.6  # the share that is kept
    assert found.weight_init.distribution.std == 1.2


class TestUpdaters:
    @pytest.mark.parametrize("missing", ["NaN", None])
    def test_defaults_of_what_is_missing(self, missing):
        found = layer("0.5.0", updater="ADAM", adamMeanDecay=0.8, adamVarDecay=missing)
        expected = {"lr": 0.15, "beta1": 0.8, "beta2": 0.999, "epsilon": 1e-8}
        assert found.updater.kwargs == expected

    def test_rates_of_biases(self):
        found = layer("0.8.0", biasLearningRate=0.3)
        assert found.bias_updater.kwargs["lr"] == 0.3
        assert found.updater.kwargs["lr"] == 0.15
        assert layer("0.8.0").bias_updater is None

    def test_momentum_after(self):
        schedule = {"3": 0.5}
        found = layer(
            "0.8.0", updater="NESTEROVS", momentum=0.9, momentumSchedule=schedule
        )
        momentum = found.updater.kwargs["momentum"]
        assert [momentum(i) for i in (0, 2, 3, 9)] == [0.9, 0.9, 0.5, 0.5]


POLICIES = {
    "Exponential": lambda i: 0.15 * 0.5**i,
    "Inverse": lambda i: 0.15 / (1 + 0.5 * i) ** 2,
    "Poly": lambda i: 0.15 * (1 - i / 20) ** 2,
    "Step": lambda i: 0.15 * 0.5 ** (i // 4),
    "Sigmoid": lambda i: 0.15 / (1 + 2.718281828459045 ** (-0.5 * (i - 4))),
    "Schedule": lambda i: 0.15 if i < 2 else 0.07,
    # once for each divisor of 4 above 1 that has been reached
    "TorchStep": lambda i: 0.15 * 0.5 ** ((i >= 2) + (i >= 4)),
    "Score": lambda i: 0.15,
    "None": lambda i: 0.15,
}


class TestPolicies:
    AROUND = {
        "lrPolicyDecayRate": 0.5,
        "lrPolicyPower": 2.0,
        "lrPolicySteps": 4.0,
        "numIterations": 20,
    }

    @pytest.mark.parametrize("policy", POLICIES)
    def test_become_schedules(self, policy):
        around = {**self.AROUND, "learningRatePolicy": policy}
        found = layer("0.7.1", around, learningRateSchedule={"2": 0.07})
        rate = found.updater.kwargs["lr"]
        for i in range(8):
            value = rate(i) if callable(rate) else rate
            assert value == pytest.approx(POLICIES[policy](i), rel=1e-12)

    def test_are_noted(self):
        around = {**self.AROUND, "learningRatePolicy": "Step"}
        notes = recognise(content("0.7.1", around, biasL2=0.1)).notes
        assert [note.partition(" ")[2].split()[0] for note in notes] == [
            "learning-rate",
            "biasL2",
            "numIterations",
        ]
        assert not recognise(content("0.7.1")).notes

    def test_that_no_schedule_follows(self):
        (note,) = recognise(content("0.7.1", {"learningRatePolicy": "Score"})).notes
        assert "policy 'Score' is left out, the rate stays" in note

    def test_with_updaters_of_their_own(self):
        """0.9.0 and 0.9.1: both forms of an updater, of which the object counts."""
        own = {"@class": "org.nd4j.linalg.learning.config.Sgd", "learningRate": 0.2}
        around = {**self.AROUND, "learningRatePolicy": "Step"}
        given = content("0.8.0", around)
        for conf in given["confs"]:
            (inside,) = conf["layer"].values()
            inside["iupdater"] = own
        assert recognise(given).releases == "0.9.0 to 0.9.1"
        found = NeuralNetConfiguration.from_dict(given).layers[0]
        assert found.updater.name == "sgd" and found.dropout.p == 0.6
        assert [found.updater.kwargs["lr"](i) for i in (0, 4)] == [0.2, 0.1]


class TestPenalties:
    @pytest.mark.parametrize("release", FILES)
    def test_on_biases(self, release):
        names = {"0.8.0": ("l1Bias", "l2Bias")}.get(release, ("biasL1", "biasL2"))
        found = layer(release, **dict(zip(names, (0.01, 0.02), strict=True)))
        l1, l2 = found.regularization_bias
        assert (l1.l1.value, l2.coeff.value) == (0.01, 0.02)

    def test_that_are_switched_off(self):
        assert layer("0.8.0", {"useRegularization": False}).regularization == ()


class TestDropout:
    def test_of_weights(self):
        found = layer("0.8.0", {"useDropConnect": True})
        assert found.weight_noise == DropConnect(0.6) and found.dropout is None

    @pytest.mark.parametrize("value", [0.0, "NaN", None])
    def test_none(self, value):
        assert layer("0.8.0", dropOut=value).dropout is None


@pytest.mark.parametrize(
    "name, bound",
    [("SIZE", 4 * (6 / 7) ** 0.5), ("NORMALIZED", 0.5 / 3), ("VI", 0.75**0.5)],
)
def test_weights_of_old(name, bound):
    drawn = layer("0.5.0", weightInit=name).weight_init.distribution
    assert (drawn.lower, drawn.upper) == pytest.approx((-bound, bound))


class TestImages:
    FILE = f"{OLD}/050/050_ModelSerializer_Regression_CNN_1.zip"

    def old(self, **values):
        with zipfile.ZipFile(data(self.FILE)) as archive:
            found = json.loads(archive.read("configuration.json"))
        found["confs"][2]["layer"]["output"].update(values)
        return NeuralNetConfiguration.from_dict(found)

    def test_rows_after_images(self):
        conf = self.old()
        before = conf.preprocessors[2]
        assert (before.height, before.width, before.channels) == (26, 26, 3)
        assert conf.layers[0].convolution_mode == "Truncate"

    def test_images_of_any_size(self):
        before = self.old(nin=3 * 4 * 5).preprocessors[2]
        assert (before.height, before.width, before.channels) == (0, 0, 3)


def test_statistics_that_were_not_kept():
    batch = {
        "batchNormalization": {"activationFunction": "identity", "nin": 4, "nout": 4}
    }
    found = content("0.5.0", {"layer": batch, "variables": ["gamma", "beta"]})
    message = (
        r"\$.confs\[0\].layer: 0.5.0 kept no running mean and variance of a "
        r"BatchNormalization .*; read as a file of 0.5.0 \("
    )
    with pytest.raises(DL4JFormatError, match=message):
        NeuralNetConfiguration.from_dict(found)


class TestGraphs:
    """Wrapped vertices, preprocessors and layers inside layers."""

    def old(self):
        file = f"{OLD}/080/080_ModelSerializer_Regression_CG_LSTM_1.zip"
        with zipfile.ZipFile(data(file)) as archive:
            return json.loads(archive.read("configuration.json"))

    def test_vertices(self):
        given = self.old()
        given["vertices"]["sum"] = {"ElementWiseVertex": {"op": "Add"}}
        given["vertices"]["part"] = {"SubsetVertex": {"from": 0, "to": 2}}
        given["vertices"]["turn"] = {
            "PreprocessorVertex": {"preProcessor": {"rnnToFeedForward": {}}}
        }
        given["vertexInputs"] |= {"sum": ["0", "1"], "part": ["sum"], "turn": ["part"]}
        conf = NeuralNetConfiguration.from_dict(given)
        kinds = [type(conf.vertices[n]).__name__ for n in ("sum", "part", "turn")]
        assert kinds == ["ElementWiseVertex", "SubsetVertex", "PreprocessorVertex"]
        assert type(conf.vertices["turn"].preprocessor).__name__ == "RnnToFeedForward"

    def test_frozen_layers(self):
        given = self.old()
        conf = given["vertices"]["0"]["LayerVertex"]["layerConf"]
        conf["layer"] = {"FrozenLayer": {"layer": conf["layer"], "layerName": "0"}}
        frozen = NeuralNetConfiguration.from_dict(given).vertices["0"]
        inside = frozen.underlying
        assert inside.updater.name == "rmsprop" and inside.n_out == 4
