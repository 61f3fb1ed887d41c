"""Networks that DL4J puts together at random compute here what DL4J computed.

Chains and graphs, trained for 3 steps and some for 20.
``python -m tests.models.test_random_networks [COUNT SEED ...] [--steps N]`` makes 300,
or as many, of each seed.

Not compared: the recorded activations of what an ActivationLayer or a PReLU reads,
since DL4J writes the layer's result over them, what others make of these, and networks
that begin with one; the steps after a Wasserstein loss under a mask of the labels'
shape. DL4J skips by itself what it cannot compute (its own validation fails, a number
is not finite).
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile
import zipfile

import numpy as np
import pytest
import torch

from dl4py.config import (
    ActivationLayer,
    ComputationGraphConfiguration,
    Cropping2D,
    PReLU,
)
from tests import graphs
from tests.catalogue import Case
from tests.models.test_catalogue import Run, configuration

COUNT = 20


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


class Shaken(Run):
    """What blows up rounding: Adam and norms, which divide by it; gradients that are
    nothing else; numbers at a kink.

    Allowed is 100 times what becomes of parameters that start one rounding away, up or
    down at random, or what a sum of some hundred numbers around 1 may be off by.
    """

    WAYS = 8

    def __init__(self, case, conf):
        super().__init__(case, conf)
        p, generator = self.net.params(), torch.Generator().manual_seed(0)
        self.twins = []
        for _ in range(self.WAYS):
            twin = Kept(case, conf)
            away = torch.randn(p.shape, generator=generator).to(p) * torch.inf
            twin.net.set_params(torch.nextafter(p, away))
            trained(twin)
            self.twins.append(twin.kept)

    def check(self, key, ours, tolerance):
        if key in self.arrays:
            ours = np.asarray(ours, dtype=float)
            name, theirs = self.case.name, self.arrays[key]
            assert theirs.size == ours.size, f"{name}: {key}: {theirs.size} numbers"
            theirs = theirs.reshape(ours.shape)
            shaken = max(np.abs(ours - t[key]).max(initial=0.0) for t in self.twins)
            scale = max(np.abs(theirs).max(initial=0.0), 1e-30)
            allowed = max(tolerance * scale, 100 * shaken, 1e-13)
            error = np.abs(ours - theirs).max(initial=0.0)
            assert error <= allowed, f"{name}: {key}: {error:.1e}"
            self.compared.append(key)


class Kept(Run):
    """What comes out, compared with nothing."""

    def __init__(self, case, conf):
        super().__init__(case, conf)
        self.kept = {}

    def check(self, key, ours, tolerance):
        self.kept[key] = np.asarray(ours, dtype=float)


def relabelled(run):
    """Whether the recorded fits had other labels than the ones that are recorded.

    DL4J's Wasserstein loss multiplies the caller's labels themselves by a mask of their
    shape, and what records the errors of the input gives it that of the features.
    """
    *_, last = run.net.layers.values()
    lossy = getattr(getattr(last.conf, "loss", None), "name", None) == "wasserstein"
    masks = [a for key, a in run.arrays.items() if key.startswith("fmask_")]
    return lossy and any(m.shape == run.arrays["labels_0"].shape for m in masks)


def trained(run):
    """Gradient, score and the recorded fits."""
    run.gradient()
    if run.case.meta["trains"] and not relabelled(run):
        run.steps()


def compared(folder):
    """The kind of the network if it was compared with DL4J's numbers, or ``None``."""
    network = case(folder)
    conf = configuration(network)
    if None in (lost := overwritten(conf)):
        return None
    run = Run(network, conf)
    if run.net.door.chain and len(run.x) != network.arrays["out_0"].shape[0]:
        return None  # DL4J took the rows of all series for those of one
    run.outputs()
    keys = (k.split("_", 1) for k in network.arrays if k.startswith("layers/"))
    run.layers(
        without={k for k, name in keys if name in lost or k.rpartition("/")[2] in lost}
    )
    try:
        trained(run)
    except AssertionError:
        trained(Shaken(network, conf))
    return network.meta["kind"] if run.compared else None


def folders(made):
    return sorted(p.parent for p in made.glob("*/meta.json"))


def make(seed, count, steps, folder):
    """Let DL4J make so many networks and train them; their folders."""
    classes = folder / "classes"
    classes.mkdir()
    graphs.ask([str(seed), str(count), str(steps), folder], classes, "RandomNetworks")
    return folders(folder)


@pytest.mark.filterwarnings("ignore:truncated back-propagation. DL4J takes")
def test_equal_dl4j(oracle, tmp_path):
    oracle("fuzz", 777, COUNT, tmp_path)
    kinds = [compared(folder) for folder in folders(tmp_path)]
    assert kinds.count("mln") >= COUNT // 5 and kinds.count("graph") >= COUNT // 10


@pytest.mark.filterwarnings("ignore:truncated back-propagation. DL4J takes")
@pytest.mark.skipif(not shutil.which("javac"), reason="needs a JDK")
@pytest.mark.usefixtures("oracle")  # which unpacks what is compiled against
def test_equal_dl4j_after_twenty_steps(tmp_path):
    made = make(2020, 5, 20, tmp_path)
    assert all(case(folder).meta["fits"] == 20 for folder in made)
    assert len(made) - [compared(folder) for folder in made].count(None) >= 3


def main():
    """Make so many networks a seed; print which differ, and how many were compared."""
    parser = argparse.ArgumentParser(prog="python -m tests.models.test_random_networks")
    parser.add_argument("count", nargs="?", type=int, default=300)
    parser.add_argument("seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--steps", type=int, default=3, help="of training, 3")
    given = parser.parse_args()
    differ, kinds = 0, []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as made:
            for folder in make(seed, given.count, given.steps, pathlib.Path(made)):
                try:
                    kinds.append(compared(folder))
                except AssertionError as error:
                    differ += 1
                    print(f"{seed}: {str(error).splitlines()[0]}", flush=True)
    chains, wide = (kinds.count(kind) for kind in ("mln", "graph"))
    print(f"{chains} chains and {wide} graphs equal DL4J's, {differ} differ")
    print(f"{kinds.count(None)} could not be compared")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
