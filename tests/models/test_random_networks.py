"""Networks that DL4J puts together at random compute here what DL4J computed.

Chains and graphs; ``DL4PY_NETWORKS`` says how many are made (many need a layer that is
to come).

Not compared: the recorded activations of what an ActivationLayer or a PReLU reads,
since DL4J writes the layer's result over them, what others make of these, and networks
that begin with one. DL4J skips by itself what it cannot compute (its own validation
fails, a number is not finite).
"""

import json
import os
import zipfile

import numpy as np

from dl4py.config import (
    ActivationLayer,
    ComputationGraphConfiguration,
    Cropping2D,
    PReLU,
)
from tests.catalogue import Case
from tests.models.test_catalogue import MISSING, Run, configuration

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


def overwritten(conf):
    """Names of a graph's steps, numbers of a chain's layers, not to be compared.

    That is what these write over, by a Cropping2D too, which is a view in DL4J, and
    what other steps make of it afterwards. ``None``: the input is.
    """
    steps = conf.plan().steps
    chain = not isinstance(conf, ComputationGraphConfiguration)
    places = {s.name: f"{i:02}" if chain else s.name for i, s in enumerate(steps)}
    views = {s.name: s.inputs[0] for s in steps if isinstance(s.conf, Cropping2D)}
    written, wrong = set(), set()
    for s in steps:
        if (written | wrong).intersection(s.inputs):
            wrong.add(s.name)
        read = s.inputs[0] if isinstance(s.conf, (ActivationLayer, PReLU)) else None
        while read is not None:
            written.add(read)
            read = views.get(read)
    return {places.get(name) for name in written | wrong}


def test_equal_dl4j(oracle, tmp_path):
    oracle("fuzz", 777, COUNT, tmp_path)
    compared = {"mln": 0, "graph": 0}
    for folder in sorted(p.parent for p in tmp_path.glob("*/meta.json")):
        network = case(folder)
        conf = configuration(network)
        if conf is MISSING or None in (lost := overwritten(conf)):
            continue
        run = Run(network, conf)
        run.outputs()
        keys = (k.split("_", 1) for k in network.arrays if k.startswith("layers/"))
        run.layers(
            without={
                k for k, name in keys if name in lost or k.rpartition("/")[2] in lost
            }
        )
        run.gradient()
        if conf.backprop_type == "Standard" and network.meta["trains"]:
            run.steps()
        compared[network.meta["kind"]] += bool(run.compared)
    assert compared["mln"] >= COUNT // 10 and compared["graph"] >= COUNT // 20
