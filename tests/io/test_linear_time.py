"""Restoring, inspecting and saving take time in proportion to the file.

Lines that run are counted for every function, in files of n and of 2n layers: nothing
is timed, and a quadratic loop shows before it takes longer than the rest.
"""

import io
import itertools
import json
import sys
import zipfile
from collections import Counter

import pytest

import dl4py
from dl4py.io.arrays import header_bytes
from dl4py.network import summary

DL4J = "org.deeplearning4j.nn.conf"
ACTIVATION = {"@class": f"{DL4J}.layers.ActivationLayer", "layerName": "a"}
DENSE = {"@class": f"{DL4J}.layers.DenseLayer", "layerName": "a", "nin": 1, "nout": 1}
ADAM = {"iupdater": {"@class": "Adam", "learningRate": 0.01}}
ROWS = {"@class": f"{DL4J}.preprocessor.RnnToFeedForwardPreProcessor"}


def zipped(layers, preprocessors=(), state=0, graph=False):
    """A model zip whose parameters are all 0, with ``state`` times as many numbers."""
    confs = [{"seed": 1, "layer": layer} for layer in layers]
    content = {"confs": confs, "inputPreProcessors": dict(preprocessors)}
    if graph:
        names = ["in", *(f"v{i}" for i in range(len(confs)))]
        layer = {"@class": f"{DL4J}.graph.LayerVertex", "preProcessor": None}
        content = {
            "defaultConfiguration": {"seed": 1},
            "networkInputs": ["in"],
            "networkOutputs": names[-1:],
            "vertices": {
                name: {**layer, "layerConf": conf}
                for name, conf in zip(names[1:], confs, strict=True)
            },
            "vertexInputs": {b: [a] for a, b in itertools.pairwise(names)},
        }
    count = 2 * sum("nin" in layer for layer in layers)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("configuration.json", json.dumps(content))
        for entry, size in (("coefficients", count), ("updaterState", state * count)):
            data = header_bytes((size,), "FLOAT") + bytes(4 * size) if size else b""
            archive.writestr(f"{entry}.bin", data)
    return file


FILES = {
    "one name": lambda n: zipped([ACTIVATION] * n),
    "names that end in numbers": lambda n: zipped(
        [{**ACTIVATION, "layerName": f"a_{i}"} for i in range(n // 2)]
        + [ACTIVATION] * (n // 2)
    ),
    "preprocessors": lambda n: zipped(
        [ACTIVATION] * n, ((str(i), ROWS) for i in range(n))
    ),
    "parameters": lambda n: zipped([DENSE] * n),
    "graph": lambda n: zipped([{**DENSE, **ADAM}] * n, state=2, graph=True),
    "state": lambda n: zipped([{**DENSE, **ADAM}] * n, state=2),
}


def everything(file):
    net = dl4py.restore(file)
    summary.table(net)
    json.dumps(summary.describe(net))
    dl4py.save(net, io.BytesIO())
    return net


def lines(file):
    """Function → how many of its lines ran."""
    counts = Counter()

    def local(frame, event, _):
        counts[frame.f_code.co_filename, frame.f_code.co_name] += event == "line"
        return local

    before = sys.gettrace()
    sys.settrace(local)
    try:
        everything(file)
    finally:
        sys.settrace(before)
    return counts


@pytest.mark.parametrize("name", FILES)
def test_no_function_runs_quadratically_often(name):
    make, n = FILES[name], 24
    everything(make(n))  # what is imported and cached at first use is no part of it
    few, many = lines(make(n)), lines(make(2 * n))
    slow = {f: (few[f], many[f]) for f in many if many[f] > 2.2 * few[f] + 20}
    assert not slow


def test_names_of_layers_stay_short():
    net = everything(zipped([ACTIVATION] * 500))
    assert net.nodes[0].name == "a" and net.nodes[-1].name == "a_499"
    assert {layer.name for layer in net.conf.layers} == {"a"}


def test_a_long_name_does_not_widen_every_row():
    long = {**ACTIVATION, "layerName": "x" * 100_000}
    net = dl4py.restore(zipped([long] + [ACTIVATION] * 99))
    text = str(summary.table(net))
    assert len(text) < 20_000 and f"{'x' * 76} ..." in text
    assert summary.describe(net)["layers"][0]["name"] == "x" * 100_000
