"""An executor of Spark's that is killed while a network fits.

    python -m tests.executors

On a cluster of two executors on this machine, for mean gradients and for averages: one
run is undisturbed; in another one executor's JVM is killed after the first epochs, and
the call ends with one message within 30 s; it is called again, goes on from the
checkpoint, and ends with the undisturbed run's parameters and updater state.

Spark does not start a stage again whose task of TorchDistributor's died, although it
may try four times here (``spark.stage.maxConsecutiveAttempts``): it ends the job of a
barrier stage whose results are collected.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import torch

import dl4py
from dl4py import spark as ours
from tests.test_spark import frame, network

EPOCHS = 40
WITHIN = 30.0  # seconds
SPAWN = multiprocessing.get_context("spawn")
ROOT = Path(__file__).parent.parent


def session():
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("dl4py")
    for key, value in (
        ("spark.ui.enabled", "false"),
        ("spark.driver.host", "127.0.0.1"),
        ("spark.executor.memory", "512m"),
        ("spark.sql.shuffle.partitions", "2"),
        ("spark.stage.maxConsecutiveAttempts", "4"),
    ):
        builder = builder.config(key, value)
    os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("OFF")
    return made


def executors():
    """The JVMs of executors below this process."""
    parents, found = {}, []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            status = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = int(status[1])
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if b"CoarseGrainedExecutorBackend" in command and b"java" in command[:200]:
            found.append(int(place.name))

    def mine(number):
        while number > 1 and number != os.getpid():
            number = parents.get(number, 0)
        return number == os.getpid()

    return sorted(filter(mine, found))


def killed(checkpoint, told):
    """Kill one executor when the first epochs are kept."""
    while not checkpoint.exists():
        time.sleep(0.05)
    os.kill(executors()[-1], signal.SIGKILL)
    told["time"] = time.time()


def run(kill, every, file, out):
    """One call of ``fit``; a JVM holds one cluster, so each has its own process."""
    x, y = dl4py.data.iris()
    spark, told = session(), {}
    table = frame(spark, x.double().tolist(), y.argmax(1).tolist())
    began = dl4py.restore(file).clock.epoch if file.exists() else 0
    if kill:
        threading.Thread(target=killed, args=(file, told), daemon=True).start()
    start = time.time()
    words = {"features": ["a", "b", "c", "d"], "batch_size": 25, "epochs": EPOCHS}
    words |= {"checkpoint": str(file), "averaging_frequency": every}
    try:
        net = ours.fit(network(), table, **words)
    except RuntimeError as error:
        after = time.time() - told["time"]
        kept = dl4py.restore(file).clock.epoch
        told = str(error).replace(str(file), file.name)
        print(
            f"    {after:.1f} s after the kill, epoch {kept} kept: {told}", flush=True
        )
        assert kill and after < WITHIN and 0 < kept < EPOCHS, (kill, after, kept)
        assert "ExecutorLostFailure" in told and "call it again to go on" in told, told
    else:
        assert not kill, "it was not killed"
        assert net.clock.epoch == EPOCHS and not file.exists()
        print(
            f"    epochs {began + 1} to {EPOCHS}: {time.time() - start:.0f} s",
            flush=True,
        )
        torch.save((net.params(), net.updater_state()), out)
    spark.stop()


def main():
    for every, name in ((None, "mean gradients"), (2, "averages of two batches")):
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            # a file of its own: what the undisturbed run leaves helps nobody
            whole, file = Path(folder, "whole.zip"), Path(folder, "net.zip")
            outs = [Path(folder, f"{i}.pt") for i in range(3)]
            given = ((False, whole), (True, file), (False, file))
            for (kill, place), out in zip(given, outs, strict=True):
                process = SPAWN.Process(target=run, args=(kill, every, place, out))
                process.start()
                process.join()
                assert process.exitcode == 0, "see above"
            found = [torch.load(out) for out in (outs[0], outs[2])]
            torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-12)
            print("    the same parameters and updater state", flush=True)


if __name__ == "__main__":
    main()
