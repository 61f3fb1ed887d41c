"""Restoring and saving 512 MB beside ``zipfile`` and one byte-swapped copy.

The baseline reads (or writes) the same entries with ``zipfile`` and swaps their bytes
once. ``python -m tests.benchmarks.files`` prints the peak memory of both, as a share of
the parameters, above what the network itself holds.
"""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator

import numpy as np

import dl4py
from dl4py.config import (
    ActivationLayer,
    BatchNormalization,
    Convolution2D,
    Dense,
    ElementWiseVertex,
    GlobalPooling,
    InputType,
    NeuralNetConfiguration,
    Output,
    Subsampling,
)
from dl4py.network import Network
from tests.benchmarks.harness import WARM, Case, Floor, Table

SIZE = {False: 4096, True: 2048}  # of a layer: four times its square in parameters
ENTRIES = ("coefficients.bin", "updaterState.bin")


def network(size: int) -> Network:
    """Four square layers with one state number per parameter."""
    chain = NeuralNetConfiguration.builder().seed(1).updater("nesterovs", lr=0.1)
    for _ in range(4):
        chain.layer(Dense(n_in=size, n_out=size, activation="relu"))
    net = chain.layer(Output(n_in=size, n_out=2)).build().module(dl4j_exact=True)
    net.updater_state()
    return net


STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks and width of ResNet50


def resnet50() -> Network:
    """A graph of ResNet50's shape: 175 steps, 25.6 million parameters."""
    graph = (
        NeuralNetConfiguration.builder()
        .seed(1)
        .updater("nesterovs", lr=0.1)
        .activation("identity")
        .convolution_mode("Same")
        .graph_builder()
        .add_inputs("x")
        .set_input_types(InputType.convolutional(64, 64, 3))
    )

    def conv(name: str, of: str, n_out: int, kernel: int, stride: int = 1) -> str:
        layer = Convolution2D(kernel_size=kernel, stride=stride, n_out=n_out)
        graph.add_layer(f"{name}_c", layer, of)
        graph.add_layer(name, BatchNormalization(), f"{name}_c")
        return name

    def relu(name: str, of: str) -> str:
        graph.add_layer(name, ActivationLayer(activation="relu"), of)
        return name

    first = relu("stem_r", conv("stem", "x", 64, 7, 2))
    graph.add_layer("stem_p", Subsampling(kernel_size=3, stride=2), first)
    last = "stem_p"
    for s, (blocks, width) in enumerate(STAGES):
        for b in range(blocks):
            at, stride = f"s{s}b{b}", 2 if s and not b else 1
            x = relu(f"{at}_a", conv(f"{at}_1", last, width, 1, stride))
            x = relu(f"{at}_b", conv(f"{at}_2", x, width, 3))
            x = conv(f"{at}_3", x, 4 * width, 1)
            skip = last if b else conv(f"{at}_k", last, 4 * width, 1, stride)
            graph.add_vertex(f"{at}_s", ElementWiseVertex("Add"), x, skip)
            last = relu(at, f"{at}_s")
    graph.add_layer("pool", GlobalPooling(pooling_type="avg"), last)
    graph.add_layer("out", Output(n_out=1000), "pool")
    net = graph.set_outputs("out").build().module(dl4j_exact=True)
    net.updater_state()
    return net


def read(path: str) -> list[np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        entries = [archive.read(name) for name in ENTRIES]
    # headers are shorter than 136 bytes; their exact length does not matter here
    return [np.frombuffer(e, ">f4", offset=len(e) % 4).astype("<f4") for e in entries]


def write(arrays: list[np.ndarray], path: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in zip(ENTRIES, arrays, strict=True):
            archive.writestr(name, array.astype(">f4").tobytes())


def cases(quick: bool) -> Iterator[Case]:
    size = SIZE[quick]
    with tempfile.TemporaryDirectory() as folder:
        path, other = f"{folder}/model.zip", f"{folder}/other.zip"
        net = network(size)
        dl4py.save(net, path)
        megabytes = os.path.getsize(path) // 1_000_000
        label = f"{megabytes} MB"
        yield Case(
            "restore",
            megabytes,
            label,
            lambda: dl4py.restore(path),
            {"zipfile + swap": lambda: read(path)},
        )
        arrays = read(path)
        yield Case(
            "save",
            megabytes,
            label,
            lambda: dl4py.save(net, other),
            {"zipfile + swap": lambda: write(arrays, other)},
        )
        dl4py.save(resnet50(), path)
        megabytes = os.path.getsize(path) // 1_000_000
        yield Case(
            "restore ResNet50",
            megabytes,
            f"{megabytes} MB",
            lambda: dl4py.restore(path),
            {"zipfile + swap": lambda: read(path)},
        )


TABLE = Table(
    "Model files",
    cases,
    (Floor("zipfile + swap", 1 / 1.3),),
    axis="megabytes",
    environment=WARM,
)


def peak(action: str, size: int) -> float:
    """Peak memory above the network's own, as a share of the bytes of its parameters.

    In a process of its own; ``action`` is ``"restore"`` or ``"save"``.
    """
    command = [sys.executable, "-m", "tests.benchmarks.files", action, str(size)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout)


def _resident(key: str) -> int:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0]) * 1024


def _measure(action: str, size: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.zip"
        small = io.BytesIO()
        dl4py.save(network(8), small)
        dl4py.restore(small)  # what is loaded at first use is no memory of this file
        net: Network | None = network(size)
        assert net is not None
        own = 4 * (net.num_params() + net.updater_state().numel())
        parameters = 4 * net.num_params()
        dl4py.save(net, path)
        if action == "restore":
            net = None
        before = _resident("VmRSS")
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        if net is None:
            net, before = dl4py.restore(path), before + own
        else:
            dl4py.save(net, path)
        return (_resident("VmHWM") - before) / parameters


def main() -> None:
    if len(sys.argv) > 1:
        print(_measure(sys.argv[1], int(sys.argv[2])))
        return
    for action in ("restore", "save"):
        share = peak(action, SIZE[False])
        print(f"{action}: {share:.3f} of the parameters above the network's own")


if __name__ == "__main__":
    main()
