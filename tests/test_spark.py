"""Training and scoring on Spark with two tasks of one machine.

Starting processes through Spark is what takes time here: one test does so, the others
start them directly or not at all.
"""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

pytest.importorskip("pyspark")

import dl4py
from dl4py import NeuralNetConfiguration, data
from dl4py.config import BatchNormalization, Dense, Output
from dl4py.normalizers import Standardize


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        patch.delenv("PYSPARK_PYTHON", raising=False)
        patch.setenv("PYTHONPATH", root)
        patch.setenv("OMP_NUM_THREADS", "1")
        builder = SparkSession.builder.master("local[2]").appName("dl4py")
        for key, value in (
            ("spark.ui.enabled", "false"),
            ("spark.driver.host", "127.0.0.1"),
            ("spark.sql.shuffle.partitions", "2"),
            ("spark.default.parallelism", "2"),
        ):
            builder = builder.config(key, value)
        session = builder.getOrCreate()
        session.sparkContext.pythonExec = sys.executable
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()


def network(*between):
    chain = NeuralNetConfiguration.builder().seed(1).data_type("double")
    chain.updater("adam", lr=0.05).layer(Dense(n_in=4, n_out=6, activation="tanh"))
    for layer in between or [BatchNormalization()]:
        chain = chain.layer(layer)
    return chain.layer(Output(n_out=3)).build().module()


def frame(spark, x, y):
    rows = [(*map(float, a), int(b)) for a, b in zip(x, y, strict=True)]
    return spark.createDataFrame(
        rows, "a double, b double, c double, d double, label int"
    )


@pytest.mark.filterwarnings("ignore")  # PySpark's and Lightning's own
def test_fits_scores_and_stands_in_a_pipeline(spark, tmp_path):
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.feature import VectorAssembler

    from dl4py import spark as ours

    x, y = data.iris()
    x, names = x.double(), ["a", "b", "c", "d"]
    table = frame(spark, x.tolist(), y.argmax(1).tolist())
    spark.sparkContext.pythonExec = "no-such-python"  # fit and transform see to it

    with pytest.raises(ValueError, match="there is no column 'e'; the DataFrame has a"):
        ours.fit(network(), table, features=["a", "e"])
    with pytest.raises(TypeError, match="got z string"):
        ours.transform(network(), table.selectExpr("'1' as z"), features="z")
    other = NeuralNetConfiguration.builder().layer(Output(n_in=4, n_out=3)).build()
    dl4py.save(other.module(), tmp_path / "other.zip", allow_difference=True)
    with pytest.raises(ValueError, match="checkpoint=.*: it holds another network"):
        ours.fit(
            network(), table, features=names, checkpoint=str(tmp_path / "other.zip")
        )

    # gradients: two processes with 75 rows are one with 150
    net = network(Dense(n_out=5, activation="tanh"))
    net.normalizer = Standardize().fit(x)
    before = net.params()
    estimator = ours.NetworkEstimator(net, features="vector", batch_size=75, epochs=3)
    assembler = VectorAssembler(inputCols=names, outputCol="vector")
    model = Pipeline(stages=[assembler, estimator]).fit(table)
    found = model.stages[1].network
    assert torch.equal(net.params(), before)
    net.fit([(x, y.double())], epochs=3)
    torch.testing.assert_close(found.params(), net.params(), rtol=0, atol=1e-11)
    assert (found.clock.iteration, found.clock.epoch) == (3, 3)

    # scoring, saved and loaded
    model.write().overwrite().save(str(tmp_path / "saved"))
    again = PipelineModel.load(str(tmp_path / "saved"))
    for scored in (model.transform(table), again.transform(table)):
        rows = scored.select(*names, "prediction").collect()
        x = torch.tensor([row[:4] for row in rows], dtype=torch.float64)
        expected = found.predict(x).numpy()
        np.testing.assert_allclose([r[4] for r in rows], expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_batches_are_the_same_however_rows_come(spark, tmp_path):
    """An executor that hands over its rows late changes nothing."""
    from dl4py.spark.shards import Shards, write

    rows = torch.randn(120, 2, generator=torch.Generator().manual_seed(1)).tolist()
    rows += rows[:30]
    told = "x array<double>, y array<double>"
    found = []
    for i, given in enumerate((rows, rows[::-1], rows[40:] + rows[:40])):
        # each part of the input is handed over as a whole: 1, 2, or 5 of them
        parts = spark.sparkContext.parallelize(
            [(row, row[:1]) for row in given], (1, 2, 5)[i]
        )
        write(spark.createDataFrame(parts, told), 2, str(tmp_path / f"{i}"))
        shards = [
            Shards(str(tmp_path / f"{i}"), 20, rank, 2, torch.float64)
            for rank in range(2)
        ]
        found.append([torch.cat(batch, 1) for shard in shards for batch in shard])
    torch.testing.assert_close(found[1:], [found[0]] * 2, rtol=0, atol=0)
    kept = torch.cat(found[0])[:, :2]
    assert sorted(kept.tolist()) == sorted(rows) and kept.tolist() != sorted(rows)


BATCH, EVERY, EPOCHS = 20, 3, 2


def rank(number, folder, ports):
    """What a process does: a whole run, and one that ends early and goes on."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(number),
        GROUP_RANK=str(number),
        LOCAL_RANK="0",
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        TORCHELASTIC_RUN_ID="a",
    )
    from dl4py.spark.training import _rank, _start

    found = {}
    for every in (EVERY, 0):
        place = f"{folder}/{every}.zip"
        for name, goal, file in (
            ("whole", EPOCHS, None),
            ("half", EPOCHS - 1, place),
            ("on", EPOCHS, place),
        ):
            os.environ["MASTER_PORT"] = str(ports.pop())
            while name == "on" and not os.path.exists(place):
                time.sleep(0.01)  # rank 0 may not have written it yet
            net = _start(network(), file, goal)
            net = _rank(net, f"{folder}/rows", BATCH, goal, 3, every, file)
            now = (net.clock.iteration, net.clock.epoch)
            found[every, name] = net.params(), net.updater_state(), now
    torch.save(found, f"{folder}/{number}.pt")


@pytest.mark.filterwarnings("ignore")
def test_averages_and_goes_on_from_a_checkpoint(tmp_path):
    import pyarrow
    import pyarrow.parquet

    from dl4py.spark.shards import Shards

    x, y = data.iris()
    (tmp_path / "rows").mkdir()
    for i, part in enumerate(torch.arange(150).split(60)):
        columns = {"x": x[part].double().tolist(), "y": y[part].argmax(1).tolist()}
        columns["y"] = [[label] for label in columns["y"]]
        table = pyarrow.table(columns)
        pyarrow.parquet.write_table(table, tmp_path / "rows" / f"{i}.parquet")
    shards = [
        list(Shards(str(tmp_path / "rows"), BATCH, number, 2, torch.float64, 3))
        for number in range(2)
    ]
    assert [len(a) for a, _ in shards[0]] == [20, 20, 20, 15]
    assert torch.equal(torch.cat([a for s in shards for a, _ in s]), x.double())

    sockets = [socket.socket() for _ in range(6)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    torch.multiprocessing.spawn(rank, (str(tmp_path), ports), nprocs=2)

    nets = [network(), network()]
    for _ in range(EPOCHS):
        for i in range(4):
            for each, shard in zip(nets, shards, strict=True):
                each.fit(*shard[i])
            if i in (2, 3):
                means = [
                    torch.stack([getattr(n, word)() for n in nets]).mean(0)
                    for word in ("params", "updater_state")
                ]
                for each in nets:
                    each.set_params(means[0])
                    set_state(each, means[1])
    expected = nets[0].params(), nets[0].updater_state(), (8, 2)
    found = torch.load(tmp_path / "0.pt")
    torch.testing.assert_close(found[EVERY, "whole"], expected, rtol=0, atol=1e-11)
    for every in (EVERY, 0):
        assert found[every, "half"][2] == (4, 1)
        torch.testing.assert_close(
            found[every, "on"], found[every, "whole"], rtol=0, atol=1e-15
        )


def test_an_executor_without_the_package_is_told_of():
    """The question goes there by value: it is answered where dl4py is not."""
    from pyspark import cloudpickle

    from dl4py.spark.executors import check_executors

    class Context:
        sparkContext = property(lambda self: self)

        def parallelize(self, rows, _):
            self.rows = rows
            return self

        def map(self, function):
            sent = cloudpickle.dumps(function)
            code = (
                "import sys, pickle; sys.modules['dl4py'] = None\n"
                f"print(pickle.loads({sent!r})(0))"
            )
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            self.told = [done.stdout.strip()] * len(self.rows)
            return self

        def collect(self):
            return self.told

    with pytest.raises(
        RuntimeError, match="no dl4py in the Python of .*PYSPARK_PYTHON"
    ):
        check_executors(Context(), 2)


def set_state(net, flat):
    """Put a flat updater state into a network, in DL4J's order."""
    at = 0
    for name, track in net.optimizer.segments():
        state = net.optimizer.state[track.tensor][name]
        track.view.fill(flat[at : at + track.view.size], state)
        at += track.view.size
    assert at == len(flat)
