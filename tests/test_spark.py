"""Training and scoring on Spark with two tasks of one machine."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("pyspark")

from dl4py import NeuralNetConfiguration, data
from dl4py.config import BatchNormalization, Dense, Output
from dl4py.normalizers import Standardize


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        for name, value in (
            ("PYSPARK_PYTHON", sys.executable),
            ("PYTHONPATH", root),
            ("OMP_NUM_THREADS", "1"),
        ):
            patch.setenv(name, value)
        builder = SparkSession.builder.master("local[2]").appName("dl4py")
        for key, value in (
            ("spark.ui.enabled", "false"),
            ("spark.driver.host", "127.0.0.1"),
            ("spark.sql.shuffle.partitions", "2"),
        ):
            builder = builder.config(key, value)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()


def network():
    chain = NeuralNetConfiguration.builder().seed(1).data_type("double")
    chain.updater("adam", lr=0.05).layer(Dense(n_in=4, n_out=6, activation="tanh"))
    return chain.layer(BatchNormalization()).layer(Output(n_out=3)).build().module()


def frame(spark, x, y):
    rows = [(*map(float, a), int(b)) for a, b in zip(x, y, strict=True)]
    return spark.createDataFrame(
        rows, "a double, b double, c double, d double, label int"
    )


@pytest.mark.filterwarnings("ignore")  # PySpark's and Lightning's own
def test_fits_scores_and_stands_in_a_pipeline(spark, tmp_path, monkeypatch):
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.feature import VectorAssembler

    from dl4py import spark as ours
    from dl4py.spark import training
    from dl4py.spark.shards import Shards

    x, y = data.iris()
    x, numbers = x.double(), y.argmax(1)
    table = frame(spark, x.tolist(), numbers.tolist())
    names = ["a", "b", "c", "d"]

    with pytest.raises(ValueError, match="there is no column 'e'; the DataFrame has a"):
        ours.fit(network(), table, features=["a", "e"])
    with pytest.raises(TypeError, match="got z string"):
        ours.transform(network(), table.selectExpr("'1' as z"), features="z")

    # gradients: two processes with 75 rows are one with 150
    net = NeuralNetConfiguration.builder().seed(1).data_type("double")
    net.updater("adam", lr=0.05).layer(Dense(n_in=4, n_out=6, activation="tanh"))
    net = net.layer(Output(n_out=3)).build().module()
    before = net.params()
    found = ours.fit(net, table, features=names, batch_size=75, epochs=3)
    assert torch.equal(net.params(), before)
    net.fit([(x, y.double())], epochs=3)
    torch.testing.assert_close(found.params(), net.params(), rtol=0, atol=1e-11)

    # parameter averaging, as a stage; the files are kept to be looked at
    monkeypatch.setattr(training.shutil, "rmtree", lambda *_, **__: None)
    net = network()
    net.normalizer = Standardize().fit(x)
    estimator = ours.NetworkEstimator(
        net,
        features="vector",
        batch_size=20,
        averaging_frequency=3,
        epochs=2,
        folder=str(tmp_path),
    )
    assembler = VectorAssembler(inputCols=names, outputCol="vector")
    model = Pipeline(stages=[assembler, estimator]).fit(table)
    found = model.stages[1].network
    nets = [network(), network()]
    (folder,) = tmp_path.iterdir()
    shards = [
        list(Shards(str(folder), 20, rank, 2, torch.float64, 3)) for rank in range(2)
    ]
    assert [len(a) for a, _ in shards[0]] == [20, 20, 20, 15]
    rows = torch.cat([a for shard in shards for a, _ in shard])
    assert torch.equal(rows.sort(0)[0], x.sort(0)[0])
    for _ in range(2):
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
    torch.testing.assert_close(found.params(), nets[0].params(), rtol=0, atol=1e-11)
    torch.testing.assert_close(
        found.updater_state(), nets[0].updater_state(), rtol=0, atol=1e-11
    )
    assert (found.clock.iteration, found.clock.epoch) == (8, 2)

    # scoring, saved and loaded
    model.write().overwrite().save(str(tmp_path / "saved"))
    again = PipelineModel.load(str(tmp_path / "saved"))
    for scored in (model.transform(table), again.transform(table)):
        rows = scored.select(*names, "prediction").collect()
        x = torch.tensor([row[:4] for row in rows], dtype=torch.float64)
        expected = found.predict(x).numpy()
        np.testing.assert_allclose([r[4] for r in rows], expected, rtol=0, atol=1e-12)


def test_an_executor_without_the_package_is_told_of():
    """The question goes there by value: it is answered where dl4py is not."""
    from pyspark import cloudpickle

    from dl4py.spark.training import _check_executors

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
        _check_executors(Context(), 2)


def set_state(net, flat):
    """Put a flat updater state into a network, in DL4J's order."""
    at = 0
    for name, track in net.optimizer.segments():
        state = net.optimizer.state[track.tensor][name]
        track.view.fill(flat[at : at + track.view.size], state)
        at += track.view.size
    assert at == len(flat)
