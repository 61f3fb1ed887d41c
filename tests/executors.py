"""An executor of Spark's that is killed while a network fits.

    python -m tests.executors

On a cluster of two executors on this machine: the first run is undisturbed; in the
second one executor's JVM is killed after the first epochs, and Spark starts the stage
again, which goes on from the checkpoint; in the third Spark may not, and the call ends
with one message, after which another call goes on. All give the same parameters.
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
SPAWN = multiprocessing.get_context("spawn")
ROOT = Path(__file__).parent.parent


def session(attempts):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("dl4py")
    for key, value in (
        ("spark.ui.enabled", "false"),
        ("spark.driver.host", "127.0.0.1"),
        ("spark.executor.memory", "512m"),
        ("spark.sql.shuffle.partitions", "2"),
        ("spark.stage.maxConsecutiveAttempts", str(attempts)),
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
    told["epoch"] = dl4py.restore(checkpoint).clock.epoch


def run(name, attempts, kill, file, out):
    """One call of ``fit``; a JVM holds one cluster, so each has its own process."""
    x, y = dl4py.data.iris()
    spark, told = session(attempts), {}
    table = frame(spark, x.double().tolist(), y.argmax(1).tolist())
    if kill:
        threading.Thread(target=killed, args=(file, told), daemon=True).start()
    start = time.time()
    words = {"features": ["a", "b", "c", "d"], "batch_size": 25, "epochs": EPOCHS}
    try:
        net = ours.fit(network(), table, checkpoint=str(file), **words)
    except RuntimeError as error:
        after = time.time() - told.get("time", start)
        print(f"{name}: {after:.1f} s after the kill: {error}", flush=True)
    else:
        print(f"{name}: {time.time() - start:.0f} s, {net.clock.epoch} epochs", end="")
        print(f", killed after {told.get('epoch')}" if told else "", flush=True)
        torch.save(net.params(), out)
    spark.stop()


def main():
    runs = (
        ("undisturbed", 1, False),
        ("killed, Spark goes on", 4, True),
        ("killed, one attempt", 1, True),
        ("called again", 1, False),
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "net.zip")
        for i, given in enumerate(runs):
            out = Path(folder, f"{i}.pt")
            process = SPAWN.Process(target=run, args=(*given, file, out))
            process.start()
            process.join()
            found[given[0]] = torch.load(out) if out.exists() else None
    assert found.pop("killed, one attempt") is None, "it was not killed"
    whole = found.pop("undisturbed")
    for name, params in found.items():
        torch.testing.assert_close(params, whole, rtol=0, atol=1e-12, msg=name)
    print("the same parameters")


if __name__ == "__main__":
    main()
