"""What DL4J's integration tests recorded in April 2020, followed step by step."""

import base64
import io
import json
import zipfile

import numpy as np
import pytest
import torch

from dl4py import evaluation
from dl4py.config.codec import is_real
from dl4py.io.arrays import read_ndarray
from dl4py.noise import NativeRandom
from tests import resources
from tests.resources import START, array, assert_predicts, data, error, restored

CASES = "dl4j-integration-tests"


def numbers(name):
    return np.loadtxt(io.StringIO(data(name).read().decode()), delimiter=",", ndmin=1)


@pytest.fixture(scope="module")
def mnist():
    parts = []
    for k in range(26):
        file = data(f"datasets/mnist/mnist-train-{k}.bin")
        file.read(1)  # flags: features and labels
        parts.append([torch.from_numpy(read_ndarray(file)) for _ in range(2)])
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def batches(x, y, size):
    return list(zip(x.split(size), y.split(size), strict=True))


def moon(part):
    rows = torch.from_numpy(numbers(f"{CASES}/data/moon_data_{part}.csv")).float()
    return rows[:, 1:].contiguous(), torch.eye(2)[rows[:, 0].long()]


def sequences(part, count):
    place = f"{CASES}/data/uci_seq/{part}"
    x = np.stack([numbers(f"{place}/features/{i}.csv") for i in range(count)])
    kinds = [int(numbers(f"{place}/labels/{i}.csv")[0]) for i in range(count)]
    return torch.from_numpy(x).float().unsqueeze(1), torch.eye(6)[kinds]


def standardized():
    """The sequences that were trained and tested on, by the mean of the former."""
    (x, y), (test, kinds) = sequences("train", 101), sequences("test", 150)
    mean, std = x.mean(), x.std(unbiased=False)
    return (x - mean) / std, y, (test - mean) / std, kinds


def assert_same(ours, theirs, rel, path="$"):
    """Equality of two evaluations' JSON; ``rel``: of what are no counts."""
    if isinstance(theirs, dict) and theirs.keys() == {"array"}:
        pair = (base64.b64decode(value["array"]) for value in (ours, theirs))
        np.testing.assert_allclose(*map(read_ndarray, pair), rtol=rel, err_msg=path)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), path
        for key in theirs:
            assert_same(ours[key], theirs[key], rel, f"{path}.{key}")
    elif isinstance(theirs, list) and not all(map(is_real, theirs)):
        assert len(ours) == len(theirs), path
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, rel, f"{path}[{i}]")
    elif isinstance(theirs, (list, float)):
        assert ours == pytest.approx(theirs, rel=rel), path
    else:
        assert ours == theirs, path


class TestCases:
    """What DL4J's integration tests recorded in April 2020."""

    def start(self, case, **options):
        resources.folder()
        return restored(f"{CASES}/{case}/{START}", **options)

    def predicts(self, net, case, *inputs):
        for i, x in enumerate(inputs):
            expected = array(f"{CASES}/{case}/predictions/output_{i}_0.bin")
            assert_predicts(net, x[: len(expected)], expected)

    def has_gradient(self, net, case, x, y):
        gradient, score = net.gradient_and_score(x, y)
        expected = array(f"{CASES}/{case}/flattenedGradients.bin")
        assert error(gradient, expected) < 1e-5
        return score

    def trains(self, net, case, steps):
        """Follow the recorded curve; how far the last parameters are from theirs."""
        curve = numbers(f"{CASES}/{case}/trainingCurve.csv")
        assert len(curve) == len(steps)
        for expected, (x, y) in zip(curve, steps, strict=True):
            score = net.score(x, y, training=True)
            assert score == pytest.approx(expected, rel=1e-5)
            net.fit(x, y)
        expected = array(f"{CASES}/{case}/paramsPostTrain.bin").reshape(-1)
        return (net.params() - expected).abs()

    def evaluates(self, net, case, x, y, rel=1e-4):
        """Every evaluation that was recorded after training.

        Thresholds are probabilities after float32 steps, which amplify rounding: DL4J's
        own tests allow 1e-4 for curves.
        """
        place = resources.folder() / CASES / case / "evaluation"
        found = sorted(place.iterdir())
        assert found
        for path in found:
            metric = getattr(evaluation, path.name.split(".")[1])()
            ours = json.loads(net.evaluate((x, y), metric).to_json())
            assert_same(ours, json.loads(path.read_text()), rel)

    def test_rows_of_images(self, mnist):
        x, y = mnist
        net = self.start("MLPMnist")
        self.predicts(net, "MLPMnist", x, x)
        self.has_gradient(net, "MLPMnist", x[:10], y[:10])
        # l1 and Adam turn rounding around 0 into whole steps, so that float32 is off by
        # what threads and memory make of it; in float64 nothing of that is ours
        steps = batches(x[:512].double(), y[:512].double(), 16)
        off = self.trains(self.start("MLPMnist", dtype="double"), "MLPMnist", steps)
        recorded = array(f"{CASES}/MLPMnist/paramsPostTrain.bin").reshape(-1)
        assert (off > 1e-5).sum() < len(off) / 500
        far = off > 1e-3
        assert far.sum() < 10 and off.max() < 0.02
        assert recorded[far].abs().max() < 0.01
        # thresholds are probabilities: of the recorded parameters, not of these
        net.set_params(recorded)
        self.evaluates(net, "MLPMnist", x[:160], y[:160])

    def test_images(self, mnist):
        x, y = mnist
        net = self.start("LenetMnist")
        self.predicts(net, "LenetMnist", x, x[8:])
        off = self.trains(net, "LenetMnist", batches(x[:960], y[:960], 16))
        assert off.max() < 1e-5

    def test_moons(self):
        x, y = moon("eval")
        net = self.start("MLPMoon")
        self.predicts(net, "MLPMoon", x, x)
        self.has_gradient(net, "MLPMoon", x[:5], y[:5])
        assert self.trains(net, "MLPMoon", batches(*moon("train"), 32)).max() < 1e-5
        self.evaluates(net, "MLPMoon", x, y)

    def test_sequences(self):
        case = "RnnCsvSequenceClassification1"
        net = self.start(case)
        x, y, test, kinds = standardized()
        self.predicts(net, case, x)
        self.has_gradient(net, case, x[:10], y[:10])
        assert self.trains(net, case, batches(x, y, 10)).max() < 1e-4
        self.evaluates(net, case, test, kinds)

    def test_volumes(self):
        net = self.start("Cnn3dSynthetic")
        x = torch.from_numpy(resources.recovered("SyntheticCNN_Input_3072.npy"))
        x, y = x.float().reshape(2, 3, 8, 8, 8), torch.eye(10)[[1, 0]]
        self.predicts(net, "Cnn3dSynthetic", x)
        self.has_gradient(net, "Cnn3dSynthetic", x, y)
        assert self.trains(net, "Cnn3dSynthetic", [(x, y)]).max() < 1e-6
        self.evaluates(net, "Cnn3dSynthetic", x, y)

    def test_codes_of_images(self, mnist):
        """Pretraining: weights were drawn, then noise, from one stream of ND4J's."""
        x, _ = mnist
        net = self.start("VAEMnistAnomaly")
        self.predicts(net, "VAEMnistAnomaly", x, x)
        first, noise = net.params(), NativeRandom(12345, bits=32)
        net.reset_parameters(noise)
        assert (net.params() - first).abs().max() < 1e-6
        net.set_params(first)
        for module in net.modules():
            if hasattr(module, "noise"):
                module.noise = noise
        for part in x[:512].split(16):
            net.pretrain_layer(0, part)
        place = f"{CASES}/VAEMnistAnomaly/paramsPostUnsupervised.bin"
        off = (net.params() - array(place).reshape(-1)).abs()
        assert off.max() < 2e-4 and (off < 1e-6).double().mean() > 0.99
        assert (net.params() - first).abs().max() > 0.03

    @pytest.mark.parametrize(
        "case",
        [
            "MLPMnist",
            "MLPMoon",
            "LenetMnist",
            "RnnCsvSequenceClassification1",
            "CNN1dCharacterTestCase",
        ],
    )
    def test_first_weights(self, case):
        """Those that the seed of a configuration drew in April 2020.

        They lie in the file as they were drawn, kernels of series too, whose kernel of
        [3, 1] counted once then.
        """
        net = self.start(case)
        with zipfile.ZipFile(data(f"{CASES}/{case}/{START}")) as archive:
            first = read_ndarray(archive.read("coefficients.bin")).reshape(-1)
        net.reset_parameters(NativeRandom(net.conf.seed, bits=32))
        assert np.abs(net.params().numpy() - first).max() < 1e-6

    def test_characters(self):
        """Kernels of series as they lay up to beta7."""
        case = "CNN1dCharacterTestCase"
        text = json.loads(resources.recovered(f"{case}.json"))
        words, lines = text["vocabulary"], text["sequences"]
        places = torch.tensor([[words.index(c) for c in line] for line in lines])
        one_hot = torch.eye(len(words))[places].movedim(2, 1)
        x, y = one_hot[:, :, :-1], one_hot[:, :, 1:]
        x, y = (torch.nn.functional.pad(t, (0, 1)) for t in (x, y))  # no next one
        net = self.start(case)
        self.predicts(net, case, x)
        gradient, score = net.gradient_and_score(x, y)
        assert score == pytest.approx(551.8953857421875, rel=1e-6)
        theirs = array(f"{CASES}/{case}/flattenedGradients.bin").reshape(-1)
        bias, kernel = 32, 32 * 77 * 3
        moved = theirs.clone()
        inside = theirs[bias : bias + kernel].reshape(32, 77, 3).permute(2, 1, 0)
        moved[bias : bias + kernel] = inside.reshape(-1)
        assert error(gradient, moved) < 1e-5
