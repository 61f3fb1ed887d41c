"""Networks of real size beside hand-written torch and beside DL4J itself.

DL4J writes the first zips (``oracle zoo``), dl4py the others; DL4J times its own
``fit`` and ``output`` with as many threads, right before the same zips are timed here;
a quick run times it with one thread only, where the floors are. Where DL4J is not at
hand there is nothing to measure. GravesLSTM stands beside torch's LSTM, which has no
peepholes.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

import dl4py
from dl4py.config import GravesLSTM, InputType, NeuralNetConfiguration, RnnOutput
from dl4py.network import Network
from tests import oracle
from tests.benchmarks.harness import Case, Floor, Row, Table
from tests.benchmarks.training import (
    TorchLstm,
    TorchSeries,
    characters,
    classes,
    series,
    step,
    torch_lenet,
    torch_mlp,
)

TWINS: dict[str, tuple[Callable[[], nn.Module], type[torch.optim.Optimizer]]] = {
    "mlp": (torch_mlp, torch.optim.Adam),
    "lenet": (torch_lenet, torch.optim.Adam),
    "lstm": (TorchLstm, torch.optim.RMSprop),
    "graves": (TorchLstm, torch.optim.Adam),
    "conv1d": (TorchSeries, torch.optim.Adam),
}
# times DL4J, measured once for plain torch on 1 thread: 2.2, 1.15; 6.8, 7.7; 3.3, 3.2
FASTER = {
    "mlp": (2.0, 1.0),
    "lenet": (6.0, 6.0),
    "lstm": (3.0, 3.0),
    "graves": (3.0, 3.0),
    "conv1d": (3.0, 3.0),
}


def graves() -> Network:
    chain = NeuralNetConfiguration.builder().seed(1).updater("adam", lr=1e-3)
    chain.input_type(InputType.recurrent(77, 50))
    for _ in range(2):
        chain.layer(GravesLSTM(n_out=200, activation="tanh"))
    return chain.layer(RnnOutput(n_out=77)).build().module()


def write(folder: pathlib.Path) -> None:
    """The zips that are not in DL4J's zoo, with a batch each."""
    for name, net, x, y in (
        ("graves", graves(), characters(32), characters(32)),
        ("conv1d", series("adam"), torch.rand(64, 8, 128), classes(64)),
    ):
        (folder / name).mkdir()
        exact = net.conf.module(dl4j_exact=True)  # no word then on what differs
        dl4py.save(exact, folder / name / "model.zip")
        for key, t in (("in", x), ("labels", y)):
            np.save(folder / name / f"{key}_0.npy", t.numpy())


def java(folder: pathlib.Path, calls: int) -> tuple[float, float]:
    """Median seconds of DL4J's fit and output."""
    paths = [folder / n for n in ("model.zip", "in_0.npy", "labels_0.npy")]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    result = subprocess.run(
        [str(oracle.PROGRAM), "bench", *map(str, paths), str(calls)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **threads},
    )
    found = re.search(r"fit_ms ([\d.]+) output_ms ([\d.]+)", result.stdout)
    assert found is not None, result.stdout
    return float(found[1]) / 1000, float(found[2]) / 1000


def pair(folder: pathlib.Path, name: str, quick: bool) -> Iterator[Case]:
    fit: dict[str, float] = {}
    output: dict[str, float] = {}
    if not quick or torch.get_num_threads() == 1:
        fit["DL4J"], output["DL4J"] = java(folder, 10 if quick else 30)
    x, y = (torch.from_numpy(np.load(folder / f"{n}_0.npy")) for n in ("in", "labels"))
    net = dl4py.restore(folder / "model.zip")
    make, optimizer = TWINS[name]
    twin, criterion = make(), nn.CrossEntropyLoss()
    train = step(lambda: criterion(twin(x), y), optimizer(twin.parameters(), lr=1e-3))

    def predict() -> Tensor:
        with torch.no_grad():
            return torch.softmax(twin(x), 1)

    n = len(x)
    yield Case(
        f"{name}, fit",
        n,
        str(n),
        lambda: net.fit(x, y),
        {"torch": train},
        measured=fit,
    )
    yield Case(
        f"{name}, output",
        n,
        str(n),
        lambda: net.output(x),
        {"torch": predict},
        measured=output,
    )


def cases(quick: bool) -> Iterator[Case]:
    if not oracle.at_hand():
        print("DL4J itself is not at hand: nothing to compare with")
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [str(oracle.PROGRAM), "zoo", folder]
        subprocess.run(command, check=True, capture_output=True)
        write(pathlib.Path(folder))
        for name in TWINS:
            yield from pair(pathlib.Path(folder, name), name, quick)


def _is(name: str, one: str) -> Callable[[Row], bool]:
    return lambda row: row.name == f"{name}, {one}" and row.threads == 1


TABLE = Table(
    "The same zip in DL4J and here",
    cases,
    (
        Floor("torch", 1 / 1.05),
        *(
            Floor("DL4J", least, _is(name, one))
            for name, both in FASTER.items()
            for one, least in zip(("fit", "output"), both, strict=True)
        ),
    ),
    axis="examples in a batch",
    block=0.05,
)
