"""The zoo's configurations are DL4J's."""

import json
import shutil

import pytest
import torch

from dl4py import zoo
from tests import graphs

NETWORKS = {
    "simple_cnn": zoo.simple_cnn(7),
    "text_generation_lstm": zoo.text_generation_lstm(),
}


@pytest.fixture(scope="module")
def dl4js(oracle, tmp_path_factory):
    """name → (JSON, number of parameters) of what DL4J's own builders make."""
    if shutil.which("javac") is None:
        pytest.skip("there is no Java compiler")
    out, classes = tmp_path_factory.mktemp("zoo"), tmp_path_factory.mktemp("classes")
    graphs.ask([out], classes, "Zoo")
    return {
        name: (
            json.loads((out / f"{name}.json").read_text()),
            int((out / f"{name}.count").read_text()),
        )
        for name in NETWORKS
    }


def plain(content):
    """Without cuDNN's settings, which torch has no use for, and what init() adds."""
    for layer in (one["layer"] for one in content["confs"]):
        for key in [k for k in layer if k.startswith("cudnn")]:
            del layer[key]
        layer.pop("poolingDimensions", None)  # DL4J's init() writes what it found
    return content


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_dl4js(name, dl4js):
    conf = NETWORKS[name]
    content, count = dl4js[name]
    assert plain(json.loads(conf.to_json())) == plain(content)
    assert conf.module().num_params() == count


def test_numbers_of_parameters():
    """Counted by hand: kernels and biases, four numbers a normalised channel."""
    convolutions = [(7, 3, 16), (7, 16, 16), (5, 16, 32), (5, 32, 32), (3, 32, 64)]
    convolutions += [(3, 64, 64), (3, 64, 128), (3, 128, 128), (3, 128, 256)]
    whole = sum(k * k * i * o + 5 * o for k, i, o in convolutions) + 9 * 256 * 7 + 7
    assert NETWORKS["simple_cnn"].module().num_params() == whole
    lstm = sum(4 * 256 * (i + 256 + 1) + 3 * 256 for i in (47, 256))  # with peepholes
    whole = lstm + 256 * 47 + 47
    assert NETWORKS["text_generation_lstm"].module().num_params() == whole


def test_arguments():
    small = zoo.simple_cnn(2, (1, 24, 32), seed=3, updater="sgd").module()
    assert small.output(torch.rand(2, 1, 24, 32)).sum(1).tolist() == pytest.approx(
        [1, 1]
    )
    assert small.conf.seed == 3
    net = zoo.text_generation_lstm(5).module()
    x = torch.eye(5)[torch.randint(5, (2, 60))].transpose(1, 2)
    assert net.fit(x, x) > 0  # two windows
    assert net.clock.iteration == 2
