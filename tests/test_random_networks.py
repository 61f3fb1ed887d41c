"""Networks that DL4J puts together at random compute here what DL4J computed.

``DL4PY_NETWORKS`` says how many are made (most need a layer or graph to come).
"""

import json
import os
import zipfile

import numpy as np

from dl4py.config import ActivationLayer
from tests.catalogue import Case
from tests.test_catalogue import MISSING, Run, configuration

COUNT = int(os.environ.get("DL4PY_NETWORKS", 40))


def case(folder):
    with zipfile.ZipFile(folder / "model.zip") as model:
        conf = model.read("configuration.json").decode()
    files = folder.rglob("*.npy")
    arrays = {str(f.relative_to(folder).with_suffix("")): np.load(f) for f in files}
    for name, key in (("score.txt", "score"), ("scores.txt", "scores")):
        if (folder / name).exists():
            arrays[key] = np.array((folder / name).read_text().split(), float)
    meta = json.loads((folder / "meta.json").read_text())
    return Case(folder.name, conf, meta, arrays)


def test_equal_dl4j(oracle, tmp_path):
    oracle("fuzz", 777, COUNT, tmp_path)
    compared = 0
    for folder in sorted(p.parent for p in tmp_path.glob("*/meta.json")):
        network = case(folder)
        conf = configuration(network)
        if conf is MISSING or isinstance(conf.layers[0], ActivationLayer):
            continue  # in the latter DL4J overwrites its own input
        overwritten = {
            f"layers/{i:02}"  # by the ActivationLayer behind it
            for i, layer in enumerate(conf.layers[1:])
            if isinstance(layer, ActivationLayer)
        }
        run = Run(network, conf)
        run.outputs()
        run.layers(without=overwritten)
        run.gradient()
        if conf.backprop_type == "Standard" and network.meta["trains"]:
            run.steps()
        compared += bool(run.compared)
    assert compared >= COUNT // 10
