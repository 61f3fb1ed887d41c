"""Files of ten years: all load, predict what was recorded, and train as recorded."""

import io
import json
import re
import struct
import warnings
import zipfile
from collections import Counter

import pytest
import torch

import dl4py
from dl4py.activations.base import Activation
from dl4py.io.arrays import read_ndarray
from dl4py.losses.base import Loss
from dl4py.registry import ACTIVATIONS, LAYERS, LOSSES, MODULES
from tests import resources
from tests.resources import MLP, array, assert_predicts, changed, data, error, restored

REGRESSION = "regression_testing"
CASES = "dl4j-integration-tests"
MODELS = resources.models()

# models and inputs that the collection refers to and does not hold, or whose own
# numbers do not fit together: what was found
UNPROVABLE = {
    **{
        f"{REGRESSION}/{folder}/{name}_{folder}.bin": "the model is a remote file"
        for folder in ("100a", "100b3", "100b4")
        for name in (
            "GravesLSTMCharModelingExample",
            "VaeMNISTAnomaly",
            "HouseNumberDetection",
        )
    },
    **{
        f"{REGRESSION}/{folder}/{folder}_ModelSerializer_Regression_CNN_1.zip": (
            "pads to 28 × 28 × 3 = 2352 numbers, and its output layer takes 2028"
        )
        for folder in ("071", "080")
    },
    f"{CASES}/LenetMnist/evaluation": "over MNIST's test images, which are not here",
    f"{CASES}/LenetMnist/gradients": "of a test image, which is not here",
    f"{CASES}/CNN1dCharacterTestCase/trainingCurve.csv": (
        "its second point is of a text that is lost; the first batch was recovered"
    ),
    f"{CASES}/CNN1dCharacterTestCase/evaluation": "over a text that is lost",
    f"{REGRESSION}/eval_100b": "results without their model",
}


@pytest.fixture
def custom(monkeypatch):
    """The twin of the layer that somebody wrote in Java, for one test."""
    for registry in (LAYERS, MODULES):
        for name in ("_entries", "_java"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    return resources.register_custom()


@pytest.mark.parametrize("name", MODELS)
def test_every_file_loads_and_is_written_as_today(name, custom):
    net = restored(name)
    with zipfile.ZipFile(data(name)) as archive:
        numbers = read_ndarray(archive.read("coefficients.bin")).reshape(-1)
    assert net.num_params() == numbers.size
    written = io.BytesIO()
    dl4py.save(net, written)
    with zipfile.ZipFile(written) as archive:
        content = json.loads(archive.read("configuration.json"))
    found = dl4py.config.eras.recognise(content)
    assert found.releases == dl4py.config.eras.TODAY and not found.old
    again = dl4py.restore(written)
    assert torch.equal(again.params(), net.params())
    assert torch.equal(again.updater_state(), net.updater_state())
    assert again.conf.to_dict() == net.conf.to_dict() == content


@pytest.mark.parametrize("name", MODELS)
def test_the_era_is_recognised(name):
    with zipfile.ZipFile(data(name)) as archive:
        content = json.loads(archive.read("configuration.json"))
    found = dl4py.config.eras.recognise(content)
    assert found.releases == resources.releases(name) and found.because


@pytest.mark.parametrize("name", [n for n in MODELS if "ModelSerializer" in n])
def test_parameters_and_state_in_order(name):
    """0.5.0 to 0.8.0 wrote 1, 2, 3 … into both, in their own orders."""
    net = restored(name)
    for found in (net.params(), net.updater_state()):
        assert torch.equal(found, torch.arange(1.0, len(found) + 1))


def test_all_files_are_counted():
    resources.folder()
    assert Counter(n.split("/")[1] for n in MODELS if n.startswith(REGRESSION)) == {
        "050": 3,
        "071": 5,
        "080": 5,
        "100a": 3,
        "100b3": 2,
        "100b4": 5,
    }
    assert sum(name.startswith(CASES) for name in MODELS) == 7
    for name in UNPROVABLE:
        (place,) = resources.folder().glob(f"{name}*")
        assert place.exists()


@pytest.mark.parametrize("folder", ["071", "080"])
def test_files_that_contradict_themselves(folder):
    """They load; as in DL4J, there is no image that their layers take."""
    resources.folder()
    place = f"{REGRESSION}/{folder}/{folder}_ModelSerializer_Regression_CNN_1.zip"
    with pytest.raises(ValueError, match=r"expects \[n, 2028\], got \[2, 2352\]"):
        restored(place).output(torch.zeros(2, 3, 28, 28))


class TestRecordedOutputs:
    @pytest.mark.parametrize(
        "case",
        [
            "100a/CustomLayerExample{}_100a",
            "100a/CustomLayerExample_Graph{}_100a",
            "100b3/CustomLayerExample{}_100b3_double",
            "100b3/CustomLayerExample{}_100b3_float",
            "100b4/CustomLayerExample{}_100b4_double",
            "100b4/CustomLayerExample{}_100b4_float",
            "100b4/CustomLayerExample{}_100b4_half",
            "100b4/SyntheticBidirectionalRNNGraph{}_100b4",
            "100b4/SyntheticCNN{}_100b4",
        ],
    )
    def test_beside_models(self, case, custom):
        net = restored(f"{REGRESSION}/{case.format('')}.bin")
        given = case.replace("_Graph", "").format("_Input")
        expected = array(f"{REGRESSION}/{case.format('_Output')}.bin")
        assert_predicts(net, array(f"{REGRESSION}/{given}.bin"), expected)

    def test_upsampling(self):
        place = f"{REGRESSION}/100a/upsampling"
        resources.folder()
        net = restored(f"{place}/net.bin")
        x, y = array(f"{place}/in.bin"), array(f"{place}/labels.bin")
        assert_predicts(net, x, array(f"{place}/out.bin"))
        gradient, _ = net.gradient_and_score(x, y)
        assert error(gradient, array(f"{place}/gradient.bin")) < 1e-5


CUSTOM = f"{REGRESSION}/100b3/CustomLayerExample_100b3_double.bin"


class TestCustomClasses:
    def test_without_a_twin(self):
        message = (
            r"\$.confs\[1\].layer: unknown layer '{0}': a class of somebody's own "
            r"needs a twin in Python; register it with "
            r"@LAYERS.add\('name', java='{0}'\)"
        )
        with pytest.raises(
            dl4py.DL4JFormatError, match=message.format(".*CustomLayer")
        ):
            restored(CUSTOM)

    def test_its_class_is_written_back(self, custom):
        net = restored(CUSTOM)
        layer = net.conf.to_dict()["confs"][1]["layer"]
        assert layer["@class"] == resources.CUSTOM
        assert layer["secondActivationFunction"]["@class"].endswith("ActivationSigmoid")

    @pytest.mark.parametrize(
        "key, kind", [("activationFn", "activation"), ("lossFn", "loss")]
    )
    def test_activations_and_losses(self, key, kind):
        def change(content):
            (layer,) = content["confs"][1]["layer"].values()
            layer[key] = {"com.acme.Own" if key == "lossFn" else "Own": {}}

        message = rf"unknown {kind} '(com.acme.)?Own': .* register it with @\w+.add"
        with pytest.raises(dl4py.DL4JFormatError, match=message):
            dl4py.restore(changed(MLP, change))

    def test_their_twins(self, monkeypatch):
        """By the simple name in wrapped files, and written back with the whole one."""
        for registry in (ACTIVATIONS, LOSSES):
            for name in ("_entries", "_java"):
                monkeypatch.setattr(registry, name, dict(getattr(registry, name)))

        @ACTIVATIONS.add("own", java="com.acme.Own")
        class Own(Activation):
            def forward(self, x):
                return x.square()

        @LOSSES.add("fourth", java="com.acme.Fourth")
        class Fourth(Loss):
            def scores(self, output, labels):
                return (output - labels).pow(4)

        def change(content):
            (layer,) = content["confs"][1]["layer"].values()
            layer.update(activationFn={"Own": {}}, lossFn={"Fourth": {}})

        net = dl4py.restore(changed(MLP, change))
        x, y = torch.ones(2, 3) / 100, torch.zeros(2, 5)
        before, last = net.feed_forward(x)
        w, b = (view.array for view in list(net.views())[2:])
        torch.testing.assert_close(last, (before @ w + b).square().detach())
        score = net.score(x, y) - net.penalty().item()
        assert score == pytest.approx(last.pow(4).sum(1).mean().item(), rel=1e-5)
        layer = net.conf.to_dict()["confs"][1]["layer"]
        assert layer["activationFn"]["@class"] == "com.acme.Own"
        assert layer["lossFn"]["@class"] == "com.acme.Fourth"


def per_parameter(net):
    """The updater's state as 0.5.0 to 0.8.0 wrote it, put together by hand."""
    optimizer = net.optimizer
    parts = []
    for view in net.views():
        states = [
            optimizer.state[track.tensor][name]
            for name, track in optimizer.segments()
            if track.view.name == view.name and track.view.node == view.node
        ]
        parts += [view.flat(state) for state in states]
    return torch.cat(parts)


def row(values):
    """A row of float32 as releases up to beta wrote it."""

    def text(word):
        return struct.pack(">H", len(word)) + word.encode()

    words = [2, 1, len(values), 1, 1, 0, 1, 99]
    shape = text("JAVACPP") + struct.pack(">i", 8) + text("INT")
    shape += struct.pack(">8i", *words)
    elements = text("JAVACPP") + struct.pack(">i", len(values)) + text("FLOAT")
    return shape + elements + values.numpy().astype(">f4").tobytes()


def adam(content):
    for conf in content["confs"]:
        (layer,) = conf["layer"].values()
        layer.update(updater="ADAM", adamMeanDecay=0.9, adamVarDecay=0.999)
        layer.update(dropOut=0.0)


class TestState:
    def test_two_states_parameter_by_parameter(self):
        state = torch.rand(82, generator=torch.Generator().manual_seed(0))
        file = changed(MLP, adam, **{"updaterState.bin": row(state)})
        net = dl4py.restore(file)
        assert torch.equal(per_parameter(net), state)
        found = net.updater_state()
        assert not torch.equal(found, state)
        # W of 3 × 4: both its moments come first in the file
        assert torch.equal(found[:12], state[:12])
        assert torch.equal(found[41:53], state[12:24])
        again = io.BytesIO()
        dl4py.save(net, again)
        assert torch.equal(dl4py.restore(again).updater_state(), found)

    def test_of_another_length(self):
        message = (
            r"updaterState.bin: 81 numbers, the configuration implies 82; read as a "
            r"file of 0.8.0 \("
        )
        with pytest.raises(dl4py.DL4JFormatError, match=message):
            dl4py.restore(
                changed(MLP, adam, **{"updaterState.bin": row(torch.ones(81))})
            )

    @pytest.mark.parametrize("count", [40, 42])
    def test_parameters_of_another_length(self, count):
        message = (
            f"coefficients.bin: {count} numbers, the .* implies 41; read as a file"
        )
        with pytest.raises(dl4py.DL4JFormatError, match=message):
            file = changed(MLP, **{"coefficients.bin": row(torch.ones(count))})
            dl4py.restore(file)


@pytest.mark.parametrize("entry", ["coefficients.bin", "updaterState.bin"])
def test_arrays_that_end_early(entry):
    message = rf"^model:{entry}: byte \d+: .* 161 are left; read as a file of 0.8.0 \("
    with pytest.raises(dl4py.DL4JFormatError, match=message):
        dl4py.restore(changed(MLP, **{entry: row(torch.ones(41))[:-3]}))


class TestJavaObjects:
    """A file never makes a Java object, nor one of Python's."""

    OBJECT = bytes.fromhex("aced0005") + b"\x73\x72"

    @pytest.mark.parametrize("entry", ["updater.bin", "preprocessor.bin", "objects/a"])
    def test_are_named_and_left_out(self, entry):
        file = changed(MLP, **{entry: self.OBJECT})
        with pytest.warns(UserWarning, match=f"never read, left out: {entry} "):
            net = dl4py.restore(file)
        assert net.num_params() == 41

    @pytest.mark.parametrize(
        "entry",
        [
            "normalizer.bin",
            "coefficients.bin",
            "updaterState.bin",
            "configuration.json",
        ],
    )
    def test_where_data_should_be_is_refused(self, entry):
        file = changed(MLP, **{entry: self.OBJECT})
        message = f"^model:{entry}: a serialised Java object, which is never read"
        with pytest.raises(dl4py.DL4JFormatError, match=message):
            dl4py.restore(file)


def series():
    """A network of M2.1's with a kernel over series."""
    from dl4py.config import Convolution1D, NeuralNetConfiguration, RnnOutput

    chain = NeuralNetConfiguration.builder().seed(1).updater("adam", lr=0.1)
    chain.layer(Convolution1D(n_in=2, n_out=3, kernel_size=2, activation="tanh"))
    net = chain.layer(RnnOutput(n_out=2, format="NCW")).build().module(dl4j_exact=True)
    net.fit(torch.randn(4, 2, 5), torch.eye(2)[torch.randint(2, (4, 4))].movedim(2, 1))
    return net


def as_old(net, forget):
    """The file that an older release would have written of it."""
    file = io.BytesIO()
    dl4py.save(net, file)
    kernel = slice(3, 15)

    def back(values):
        values = values.clone()
        inside = values[kernel].reshape(2, 2, 3).permute(2, 1, 0)
        values[kernel] = inside.reshape(-1)
        return values

    half = len(net.updater_state()) // 2
    state = torch.cat([back(part) for part in net.updater_state().split(half)])
    out = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(out, "w") as new:
        content = json.loads(old.read("configuration.json"))
        for conf in content["confs"] if forget else ():
            for key in ("rnnDataFormat", "timeDistributedFormat", "cnn2dDataFormat"):
                conf["layer"].pop(key, None)
        new.writestr("configuration.json", json.dumps(content))
        new.writestr("coefficients.bin", row(back(net.params())))
        new.writestr("updaterState.bin", row(state))
    return out


class TestKernelsOfSeries:
    @pytest.mark.parametrize("release", [None, "1.0.0-beta7"])
    def test_up_to_beta7(self, release):
        net = series()
        file = as_old(net, forget=release is None)
        again = dl4py.restore(file, release=release)
        assert torch.equal(again.params(), net.params())
        assert torch.equal(again.updater_state(), net.updater_state())

    def test_where_nothing_tells(self):
        net = series()
        file = as_old(net, forget=False)
        with pytest.warns(
            UserWarning,
            match="restore(..., release='1.0.0-M1')".replace("(", r"\(").replace(
                ")", r"\)"
            ),
        ):
            again = dl4py.restore(file)
        assert torch.equal(again.params(), net.params())
        later = dl4py.restore(file, release="M1")
        assert not torch.equal(later.params(), net.params())

    def test_vectors_tell(self):
        net, file = series(), io.BytesIO()
        dl4py.save(net, file)
        assert torch.equal(dl4py.restore(file).params(), net.params())

    def test_releases_that_no_file_needs(self):
        with pytest.raises(ValueError, match=r"release=...\): expected one of beta7"):
            restored(MLP, release="0.9.1")


class TestMixedEras:
    @pytest.mark.parametrize(
        "change, place",
        [
            (
                lambda c: c["confs"][1]["layer"]["output"].update(iupdater={}),
                "iupdater",
            ),
            (
                lambda c: c["confs"][1]["layer"]["output"].update(weightInitFn={}),
                "weight",
            ),
            (lambda c: c["confs"][1].update(layer={"@class": "x.Dense"}), "'@class'"),
            (lambda c: c.update(dataType="FLOAT"), "'dataType'"),
            (lambda c: c.update(redistributeParams=True), "'redistributeParams'"),
            (
                lambda c: c["confs"][1]["layer"]["output"].update(
                    activationFunction="relu"
                ),
                "'activationFunction'",
            ),
        ],
    )
    def test_are_refused(self, change, place):
        message = rf"^model:configuration.json: \$.*{place}.*, as .* wrote it, but \$.*"
        with pytest.raises(dl4py.DL4JFormatError, match=message + "two eras mixed"):
            dl4py.restore(changed(MLP, change))

    @pytest.mark.parametrize("folder", ["100b3", "100b4"])
    def test_an_updater_twice(self, folder, custom):
        """Up to 1.0.0-alpha its name stood beside the object."""

        def change(content):
            content["confs"][0]["layer"]["updater"] = "ADAM"

        name = f"{REGRESSION}/{folder}/CustomLayerExample_{folder}_float.bin"
        message = r"'updater': 'ADAM', as 0.5.0 to 1.0.0-alpha .* two eras mixed"
        with pytest.raises(dl4py.DL4JFormatError, match=message):
            dl4py.restore(changed(name, change))

    def test_a_chain_and_a_graph(self):
        message = r"\$: expected 'confs' of a chain or 'vertices' of a graph, got both;"
        with pytest.raises(dl4py.DL4JFormatError, match=message):
            dl4py.restore(changed(MLP, lambda c: c.update(vertices={})))

    @pytest.mark.parametrize(
        "key, value, expected",
        [
            ("updater", 3, "a name, got 3"),
            ("activationFunction", 3, "a name, got 3"),
            ("weightInit", ["XAVIER"], "a name, got \\['XAVIER'\\]"),
            ("useDropConnect", "x", "true or false, got 'x'"),
            ("useRegularization", "maybe", "true or false, got 'maybe'"),
            ("l2", "x", "a number, got 'x'"),
        ],
    )
    def test_words_that_are_none(self, key, value, expected):
        """Not what they are by default, as if they were not there."""

        def change(content):
            conf = content["confs"][0]
            (layer,) = conf["layer"].values()
            (conf if key.startswith("use") else layer)[key] = value

        name = f"{REGRESSION}/050/050_ModelSerializer_Regression_MLP_1.zip"
        message = (
            rf"^model:configuration.json: \$.confs\[0\].layer: {key}: must be "
            rf"{expected}; read as a file of 0.5.0 \("
        )
        with pytest.raises(dl4py.DL4JFormatError, match=message):
            dl4py.restore(changed(name, change))

    @pytest.mark.parametrize(
        "change, message",
        [
            (
                lambda c: c.update(inputPreProcessors={"1": {"@class": "a.Own"}}),
                r"\$.inputPreProcessors.1: unknown preprocessor 'a.Own': a class of "
                r"somebody's own needs a twin in Python; register it with "
                r"@PREPROCESSORS.add",
            ),
            (
                lambda c: c.update(inputPreProcessors={"1": {"cnnToFeedForward": {}}}),
                r"\$.inputPreProcessors.1.inputHeight: must be given; read as",
            ),
            (
                lambda c: c["confs"][0].update(layer={"RBM": {}}),
                "RBM: restricted Boltz",
            ),
            (lambda c: c["confs"][0].update(layer={"gru": {}}), "gru: GRUs ended"),
            (lambda c: c["confs"][0].update(layer={"x": {}}), "unknown layer 'x'"),
            (
                lambda c: c.update(inputPreProcessors={"0": {"zeroMean": {}}}),
                r"\$.inputPreProcessors.0: zeroMean: a preprocessor that ended",
            ),
            (
                lambda c: c["confs"][0]["layer"]["dense"].update(learningRate="x"),
                r"\$.confs\[0\].layer: learningRate: must be a number, got 'x'",
            ),
            (
                lambda c: c["confs"][0]["layer"]["dense"].update(updater="CUSTOM"),
                r"\$.confs\[0\].layer: updater: one of somebody's own",
            ),
            (
                lambda c: c["confs"][0]["layer"]["dense"].update(dropOut=1.5),
                r"\$.confs\[0\].layer.idropout.p: .* got 1.5",
            ),
            (
                lambda c: c["confs"][0].update(learningRatePolicy="Often"),
                r"\$.confs\[0\].layer: learningRatePolicy: must be one of .* 'Often'",
            ),
        ],
    )
    def test_what_no_era_wrote(self, change, message):
        with pytest.raises(dl4py.DL4JFormatError, match=message) as caught:
            dl4py.restore(changed(MLP, change))
        assert str(caught.value).startswith("model:configuration.json: $")
        assert re.search(
            r"; read as a file of 0\.\d.*\(\$.confs.* wrapped", str(caught.value)
        )


def test_nothing_is_warned_of_in_plain_files():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restored(MLP)
