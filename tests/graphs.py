"""Graphs that were built here, with everything the real DL4J computed for them.

The catalogue has one graph a vertex; these are about masks through vertices and about
several inputs and outputs. ``tests/data/graphs.zip`` holds DL4J's numbers;
``python -m tests.graphs`` makes it anew (it needs a JDK and the oracle).
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import dl4py
from dl4py.config import (
    LSTM,
    AttentionVertex,
    BatchNormalization,
    Convolution1D,
    Convolution2D,
    Dense,
    DuplicateToTimeSeriesVertex,
    ElementWiseVertex,
    GlobalPooling,
    GravesLSTM,
    InputType,
    L2NormalizeVertex,
    L2Vertex,
    LastTimeStep,
    LastTimeStepVertex,
    LocallyConnected1D,
    LocallyConnected2D,
    LossLayer,
    MergeVertex,
    NeuralNetConfiguration,
    Output,
    PreprocessorVertex,
    RecurrentAttention,
    ReshapeVertex,
    ReverseTimeSeriesVertex,
    RnnOutput,
    RnnToFeedForward,
    ScaleVertex,
    SeparableConvolution2D,
    ShiftVertex,
    StackVertex,
    Subsampling3D,
    SubsetVertex,
)
from dl4py.config.regularization import MaxNorm, MinMaxNorm, UnitNorm
from tests.catalogue import Case
from tests.golden import HERE, SHARED
from tests.oracle import Oracle

COPY = HERE / "data" / "graphs.zip"
N = 3  # examples
ROWS, SERIES = InputType.feed_forward(4), InputType.recurrent(4, 5)
SHOWN = np.array([[1.0], [0.0], [1.0]])  # a mask of rows
Masks = list[Any]


def lengths(time: int, *shown: int) -> np.ndarray:
    """A mask ``[n, time]`` whose first steps are shown."""
    return (np.arange(time) < np.array(shown)[:, None]).astype(float)


def builder() -> Any:
    """Settings of all cases."""
    settings = NeuralNetConfiguration.builder().seed(5).data_type("double")
    return settings.updater("adam", lr=0.1).activation("tanh").bias_init(0.2)


def graph(*names: str, types: Any = (), outputs: Any = ("out",)) -> Any:
    """A builder with inputs and outputs."""
    inputs = builder().graph_builder().add_inputs(*names)
    return inputs.set_outputs(*outputs).set_input_types(*types)


def rows(vertex: Any, masks: Masks) -> tuple[Any, ...]:
    """A vertex on rows, then Dense and Output: the mask goes all the way."""
    names = [f"x{i}" for i in range(len(masks))]
    made = graph(*names, types=[ROWS] * len(masks)).add_vertex("v", vertex, *names)
    made.add_layer("a", Dense(n_out=4), "v").add_layer("out", Output(n_out=3), "a")
    return made, [(N, 4)] * len(masks), [(N, 3)], masks, [None]


def series(vertex: Any, masks: Masks) -> tuple[Any, ...]:
    """The same on series; Dense shows which steps are masked."""
    names = [f"x{i}" for i in range(len(masks))]
    made = graph(*names, types=[SERIES] * len(masks)).add_vertex("v", vertex, *names)
    made.add_layer("a", Dense(n_out=4), "v").add_layer("out", RnnOutput(n_out=3), "a")
    return made, [(N, 4, 5)] * len(masks), [(N, 3, 5)], masks, [None]


def attention(*masks: Any) -> tuple[Any, ...]:
    """Queries, keys and values of three sizes."""
    made = graph("q", "k", types=[SERIES, InputType.recurrent(3, 6)])
    made.add_layer("lk", LSTM(n_out=2), "k")
    vertex = AttentionVertex(n_out=6, n_heads=2, project_input=True)
    made.add_vertex("att", vertex, "q", "lk", "k")
    made.add_layer("out", RnnOutput(n_out=3), "att")
    return made, [(N, 4, 5), (N, 3, 6)], [(N, 3, 5)], list(masks), [None]


def stacked(shapes: Any, labels: Any, masks: Masks, *layers: Any) -> tuple[Any, ...]:
    """Two inputs below each other."""
    kind = InputType.feed_forward(4) if len(labels) == 2 else InputType.recurrent(4)
    made = graph("x", "y", types=[kind, kind]).add_vertex("v0", StackVertex(), "x", "y")
    for i, layer in enumerate(layers):
        name = "out" if layer is layers[-1] else f"v{i + 1}"
        made.add_layer(name, layer, f"v{i}")
    return made, shapes, [labels], masks, [None]


def towers(*labels_masks: Any) -> tuple[Any, ...]:
    """Rows and series that meet twice."""
    made = graph("x", "y", types=[ROWS, InputType.recurrent(3, 5)])
    made.set_outputs("o2", "o1").add_layer("a", Dense(n_out=4), "x")
    made.add_layer("l", LSTM(n_out=4), "y")
    made.add_vertex("last", LastTimeStepVertex("y"), "l")
    made.add_vertex("dup", DuplicateToTimeSeriesVertex("y"), "a")
    made.add_layer("o1", RnnOutput(n_out=3), "l", "dup")
    made.add_layer(
        "o2", Output(n_out=2, activation="identity", loss="mse"), "a", "last"
    )
    masks = [None, lengths(5, 5, 3, 2)]
    return made, [(N, 4), (N, 3, 5)], [(N, 2), (N, 3, 5)], masks, list(labels_masks)


def merged_images() -> tuple[Any, ...]:
    """Masks of images, joined by "or"."""
    kinds = [InputType.convolutional(4, 4, c) for c in (2, 1)]
    made = graph("x", "y", types=kinds).add_vertex("m", MergeVertex(), "x", "y")
    made.add_layer("pool", GlobalPooling(pooling_type="max"), "m")
    made.add_layer("out", Output(n_out=3), "pool")
    masks = np.ones((2, N, 1, 4, 4))
    masks[0, 1, :, 3:], masks[1, 1, ..., 2:] = 0, 0
    return made, [(N, 2, 4, 4), (N, 1, 4, 4)], [(N, 3)], list(masks), [None]


def separable() -> tuple[Any, ...]:
    """One channel, and as many factors as there are channels out: DL4J forgets pW."""
    made = graph("x", types=[InputType.convolutional(5, 4, 1)])
    layer = SeparableConvolution2D(kernel_size=(2, 3), n_out=3, depth_multiplier=3)
    made.add_layer("s", layer, "x").add_layer("out", Output(n_out=3), "s")
    return made, [(N, 1, 5, 4)], [(N, 3)], [None], [None]


def bounded() -> tuple[Any, ...]:
    """Constraints of Convolution1D, whose axes DL4J lays over other memory."""
    made = graph("x", types=[SERIES])
    norms: list[Any] = [
        MaxNorm(dimensions=(1,), max_norm=0.3),
        UnitNorm(dimensions=(1, 2)),
        MinMaxNorm(dimensions=(1, 2, 3), min=0.2, max=0.4, rate=0.6),
    ]
    for i, norm in enumerate(norms):
        layer = Convolution1D(
            n_out=2 + i, kernel_size=2, convolution_mode="Same", constraints=(norm,)
        )
        made.add_layer(f"c{i}", layer, f"c{i - 1}" if i else "x")
    made.add_layer("out", RnnOutput(n_out=3), "c2")
    return made, [(N, 4, 5)], [(N, 3, 5)], [None], [None]


def reshaped(shape: tuple[int, ...], layer: Any, labels: Any) -> tuple[Any, ...]:
    """Rows of 6 numbers in another shape."""
    made = graph("x").add_layer("a", Dense(n_in=4, n_out=6), "x")
    made.add_vertex("v", ReshapeVertex(shape), "a").add_layer("out", layer, "v")
    return made, [(N, 4)], [labels], [None], [None]


def read_on() -> tuple[Any, ...]:
    """An output that another layer reads: its labels mask ends there."""
    made = graph("x", types=[ROWS], outputs=("o1", "o2"))
    made.add_layer("a", Dense(n_out=4), "x").add_layer("o1", Output(n_out=3), "a")
    made.add_layer("c", Dense(n_out=4), "o1")
    made.add_layer("o2", Output(n_out=2), "c")
    return made, [(N, 4)], [(N, 3), (N, 2)], [None], [SHOWN, None]


def twice(vertex: Any) -> tuple[Any, ...]:
    """A vertex that reads one layer twice."""
    made = graph("x", types=[ROWS]).add_layer("a", Dense(n_out=4), "x")
    made.add_vertex("v", vertex, "a", "a").add_layer("out", Output(n_out=3), "v")
    return made, [(N, 4)], [(N, 3)], [None], [None]


def partly(layer: Any, kind: Any, labels: tuple[int, ...]) -> tuple[Any, ...]:
    """A mask of the labels' shape that leaves some outputs of an example."""
    made = graph("x", types=[kind]).add_layer("out", layer, "x")
    mask = np.arange(np.prod(labels)).reshape(labels) % 5 % 2  # of 0 and 1
    return made, [(N, 4, *labels[2:])], [labels], [None], [mask.astype(float)]


def last_step(layer: Any) -> tuple[Any, ...]:
    """Of series with masked steps before, between and after the shown ones."""
    made = graph("x", types=[SERIES]).add_layer(
        "l", LastTimeStep(underlying=layer), "x"
    )
    made.add_layer("out", Output(n_out=3), "l")
    mask = np.array([[0, 0, 0, 0, 1], [1, 0, 1, 1, 0], [0, 1, 1, 0, 1.0]])
    return made, [(N, 4, 5)], [(N, 3)], [mask], [None]


def behind_attention() -> tuple[Any, ...]:
    """A mask goes on behind attention that steps."""
    mask = np.array([[0, 1, 0, 1, 0], [1, 0, 1, 1, 0], [0, 1, 1, 0, 1.0]])
    made = graph("x", types=[SERIES])
    made.add_layer("a", RecurrentAttention(n_out=4, n_heads=2, head_size=2), "x")
    made.add_layer("l", LastTimeStep(underlying=LSTM(n_out=2)), "a")
    made.add_layer("out", Output(n_out=3), "l")
    return made, [(N, 4, 5)], [(N, 3)], [mask], [None]


def beside() -> tuple[Any, ...]:
    """Windows of which some see nothing but padding."""
    made = graph("x", types=[InputType.convolutional3d(2, 3, 4, 2)])
    pool = Subsampling3D(
        kernel_size=1, stride=(1, 2, 2), padding=(0, 0, 1), convolution_mode="Truncate"
    )
    made.add_layer("s", pool, "x").add_layer("p", GlobalPooling(), "s")
    made.add_layer("out", Output(n_out=3), "p")
    return made, [(N, 2, 2, 3, 4)], [(N, 3)], [None], [None]


def alone() -> tuple[Any, ...]:
    """Batch normalisation of one example, as it is left at an epoch's end."""
    made = graph("x", types=[ROWS]).add_layer("b", BatchNormalization(), "x")
    made.add_layer("out", Output(n_out=3), "b")
    return made, [(1, 4)], [(1, 3)], [None], [None]


def single(before: Any, layer: Any, kind: Any, shape: Any) -> tuple[Any, ...]:
    """Windows of one number, of one example: DL4J's errors all go to the first."""
    made = graph("x", types=[kind]).add_layer("a", before, "x")
    made.add_layer("c", layer, "a").add_layer("p", GlobalPooling(), "c")
    made.add_layer("out", Output(n_out=3), "p")
    return made, [(1, *shape)], [(1, 3)], [None], [None]


def chain(*layers: Any) -> tuple[Any, ...]:
    """A chain with a features mask of rows."""
    made = builder().layer(Dense(n_in=4, n_out=3))
    for layer in layers:
        made.layer(layer)
    return made, [(N, 4)], [(N, 3)], [SHOWN], [None]


KEYS = lengths(6, 6, 4, 1)
QUERIES = lengths(5, 5, 3, 2)
NONE_SHOWN = KEYS * np.array([[1.0], [0.0], [1.0]])
# name → (builder, shapes of inputs, shapes of labels, features masks, labels masks)
CASES: dict[str, tuple[Any, ...]] = {
    "a_mask_behind_recurrent_attention": behind_attention(),
    "a_maximum_of_padding": beside(),
    "add_one_mask": series(ElementWiseVertex("Add"), [QUERIES, None]),
    "add_two_masks": series(ElementWiseVertex("Add"), [QUERIES, lengths(5, 4, 4, 1)]),
    "attention_all_hidden": attention(None, NONE_SHOWN),
    "attention_all_masks": attention(QUERIES, KEYS),
    "attention_key_mask": attention(None, KEYS),
    "attention_no_mask": attention(None, None),
    "attention_query_mask": attention(QUERIES, None),
    "chain_loss_layer_mask": chain(LossLayer(activation="softmax")),
    "chain_output_mask": chain(Output(n_out=3)),
    "graves_lstm_last_step_mask": last_step(GravesLSTM(n_out=2)),
    "l2_mask": rows(L2Vertex(), [SHOWN, None]),
    "l2_normalize_mask": series(L2NormalizeVertex(), [QUERIES]),
    "locally_connected_1d_single": single(
        LSTM(n_out=1), LocallyConnected1D(kernel_size=1, n_out=2), SERIES, (4, 5)
    ),
    "locally_connected_1d_single_padded": single(
        LSTM(n_out=1),
        LocallyConnected1D(kernel_size=1, n_out=2, padding=1, stride=2),
        SERIES,
        (4, 5),
    ),
    "locally_connected_2d_single": single(
        Convolution2D(n_out=1, kernel_size=(2, 1)),
        LocallyConnected2D(kernel_size=(1, 1), n_out=2),
        InputType.convolutional(4, 3, 2),
        (2, 4, 3),
    ),
    "lstm_last_step_mask": last_step(LSTM(n_out=2)),
    "merge_images_masks": merged_images(),
    "output_partly_masked": partly(Output(n_out=3, loss="kld"), ROWS, (N, 3)),
    "output_read_on": read_on(),
    "preprocessor_mask": series(PreprocessorVertex(RnnToFeedForward()), [QUERIES]),
    "product_twice": twice(ElementWiseVertex("Product")),
    "merge_twice": twice(MergeVertex()),
    "reshape_mask": rows(ReshapeVertex((-1, 4)), [SHOWN]),
    "reshape_more_examples": reshaped((-1, 3), Output(n_in=3, n_out=3), (2 * N, 3)),
    "reshape_series_mask": series(ReshapeVertex((-1, 4, 5)), [QUERIES]),
    "reshape_to_series": reshaped(
        (-1, 3, 2), RnnOutput(n_in=3, n_out=3, format="NCW"), (N, 3, 2)
    ),
    "batch_norm_of_one_example": alone(),
    "constrained_kernels_of_series": bounded(),
    "reverse_mask": series(ReverseTimeSeriesVertex("x0"), [QUERIES]),
    "rnn_output_partly_masked": partly(
        RnnOutput(n_out=3, loss="kld"), SERIES, (N, 3, 5)
    ),
    "scale_mask": rows(ScaleVertex(2.0), [SHOWN]),
    "separable_of_one_channel": separable(),
    "shift_mask": series(ShiftVertex(2.0), [QUERIES]),
    "stack": stacked([(N, 4), (2, 4)], (5, 3), [None, None], Output(n_out=3)),
    "stack_masks": stacked(
        [(N, 4), (N, 4)],
        (2 * N, 3),
        [SHOWN, 1 - SHOWN],
        Dense(n_out=4),
        Output(n_out=3),
    ),
    "stack_series_of_two_lengths": stacked(
        [(N, 4, 5), (N, 4, 3)],
        (2 * N, 3, 5),
        [QUERIES, lengths(3, 3, 1, 2)],
        LSTM(n_out=3),
        RnnOutput(n_out=3),
    ),
    "subset_mask": series(SubsetVertex(1, 2), [QUERIES]),
    "towers": towers(None, None),
    "towers_labels_masks": towers(SHOWN, QUERIES),
}


def configuration(name: str) -> Any:
    """The case's configuration, built here."""
    return CASES[name][0].build()


def batch(name: str) -> dict[str, np.ndarray]:
    """The case's arrays: in_0, labels_0, fmask_0, lmask_0 and so on."""
    _, inputs, labels, features_masks, labels_masks = CASES[name]
    r = np.random.RandomState(7)
    arrays = {f"in_{i}": r.uniform(-1, 1, shape) for i, shape in enumerate(inputs)}
    for i, shape in enumerate(labels):
        classes = r.randint(shape[1], size=(shape[0], *shape[2:]))
        one_hot = np.moveaxis(np.eye(shape[1])[classes], -1, 1)
        arrays[f"labels_{i}"] = np.ascontiguousarray(one_hot)
    for key, masks in (("fmask", features_masks), ("lmask", labels_masks)):
        arrays |= {f"{key}_{i}": m for i, m in enumerate(masks) if m is not None}
    return arrays


def load(name: str) -> Case:
    """A case with DL4J's numbers."""
    with zipfile.ZipFile(COPY) as archive:
        conf = archive.read(f"{name}/configuration.json").decode()
        meta = json.loads(archive.read(f"{name}/meta.json"))
        arrays = dict(np.load(io.BytesIO(archive.read(f"{name}/case.npz"))))
    return Case(name, conf, meta, arrays)


def ask(folders: Sequence[str | Path], classes: Path, program: str = "Graphs") -> str:
    """Let DL4J compute each folder's case; what it said.

    Args:
        folders: the program's arguments.
        classes: where it is compiled to.
        program: one of ``tests/java``.
    """
    # the jars are unpacked when it starts
    with Oracle():
        pass
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    cache = Path(os.environ.get("DL4J_ORACLE_CACHE", home / "dl4j-oracle"))
    jars = f"{SHARED}/oracle/oracle.jar:{cache}/lib/*"
    source = HERE / "java" / f"{program}.java"
    compiler = ["javac", "-nowarn", "-cp", jars, "-d", classes, source]
    subprocess.run(compiler, check=True)
    memory = ["-Xmx2g", f"-Dorg.bytedeco.javacpp.cachedir={cache}/native"]
    command = ["java", *memory, "-cp", f"{classes}:{jars}", f"oracle.{program}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *folders], check=True, env=env, stdout=subprocess.PIPE
    )
    return done.stdout.decode()


def make() -> None:
    """Write the copy anew."""
    from tests.models.test_random_networks import case

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folders = []
        for name in CASES:
            folder = root / name
            folder.mkdir()
            dl4py.save(
                configuration(name).module(dl4j_exact=True), folder / "model.zip"
            )
            for key, array in batch(name).items():
                np.save(folder / f"{key}.npy", array)
            folders.append(folder)
        said = ask(folders, root)
        print(
            *(line for line in said.splitlines() if not line.startswith("Added")),
            sep="\n",
        )
        with zipfile.ZipFile(COPY, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zip:
            for folder in folders:
                found = case(folder / "dl4j")
                content = io.BytesIO()
                np.savez(content, **found.arrays)
                entries = {
                    "configuration.json": found.json,
                    "meta.json": json.dumps(found.meta),
                    "case.npz": content.getvalue(),
                }
                for entry, data in entries.items():
                    info = zipfile.ZipInfo(
                        f"{folder.name}/{entry}", (1980, 1, 1, 0, 0, 0)
                    )
                    info.compress_type = zipfile.ZIP_DEFLATED
                    zip.writestr(info, data)


if __name__ == "__main__":
    sys.exit(make())
