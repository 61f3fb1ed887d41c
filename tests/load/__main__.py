"""``python -m tests.load``: how fast models are served, and that nothing is lost.

Servers, and the clients that ask them, share one machine, so that only figures of one
run are to be compared. ``python -m tests.load NAME ...`` measures only these parts.
"""

import asyncio
import json
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
from collections import Counter

import numpy as np
import torch

import dl4py
from tests.serving import models
from tests.serving.running import Connection, ask, body, closed, running

N = 10_000


def told(found, seconds, total):
    """One line about answers."""
    statuses = Counter(status for status, _ in found)
    p50, p95 = (1e3 * seconds[int(len(seconds) * q)] for q in (0.5, 0.95))
    return (
        f"p50 {p50:7.2f} ms  p95 {p95:7.2f} ms  {len(found) / total:6.0f} /s  "
        f"{dict(statuses)}"
    )


def measured(label, port, bodies, clients):
    """Ask, print what came, and return requests a second."""
    asyncio.run(closed(port, bodies[: 2 * clients], clients))  # warm
    found, seconds, total = asyncio.run(closed(port, bodies, clients))
    print(f"{label:34} {clients:3} clients  {told(found, seconds, total)}", flush=True)
    assert all(status == 200 for status, _ in found)
    return len(found) / total


def bodies_of(net, n, seed=0):
    """(rows, bodies) of distinct inputs."""
    shape = (1, 28, 28) if "lenet" in net else (models.FEATURES,)
    generator = torch.Generator().manual_seed(seed)
    rows = 5 + 3 * torch.randn(n, *shape, generator=generator)
    if "lenet" not in net:
        return rows, [body(row) for row in rows.tolist()]
    told = [json.dumps({"inputs": [row]}).encode() for row in rows.tolist()]
    return rows, told


def throughput(folder):
    """Iris and LeNet beside a bare FastAPI handler."""
    for name, n in (("iris", 2000), ("lenet", 600)):
        path = folder / f"{name}.zip"
        _, bodies = bodies_of(name, n)
        for clients in (1, 64):
            few = bodies[: n // 4] if clients == 1 else bodies
            rates = {}
            for label, options in (
                ("bare FastAPI", None),
                ("--workers 0", ("--workers", 0)),
                ("--workers 1", ("--workers", 1)),
            ):
                module = "tests.load.bare" if options is None else None
                with running(path, *(options or ()), module=module) as (_, port):
                    rates[label] = measured(f"{name}, {label}", port, few, clients)
            ratios = ", ".join(
                f"{label} {rates[label] / rates['bare FastAPI']:.2f}"
                for label in ("--workers 0", "--workers 1")
            )
            print(f"{name}, {clients} clients: requests/s over FastAPI's: {ratios}")


def batching(folder):
    """A network whose forward takes milliseconds, with and without batches."""
    path = folder / "heavy.zip"
    net = dl4py.restore(path)
    rows, bodies = bodies_of("heavy", 600)
    torch.set_num_threads(1)
    starts = []
    for i in range(10):
        start = time.perf_counter()
        net.predict(rows[i : i + 1])
        starts.append(time.perf_counter() - start)
    print(f"heavy: one forward takes {1e3 * sorted(starts)[5]:.1f} ms")
    rates = []
    for batch in (1, 64):
        with running(path, "--batch", batch) as (_, port):
            label = f"heavy, --batch {batch}"
            rates.append(measured(label, port, bodies, 64))
    print(f"heavy, 64 clients: batching gives {rates[1] / rates[0]:.1f} times as many")


def overload(folder):
    """Twice the load that is borne: 429 from a bounded line, and well again at once."""
    path = folder / "heavy.zip"
    _, bodies = bodies_of("heavy", 4000)
    with running(path) as (_, port):
        rate = 2 * measured("heavy", port, bodies[:600], 64)
    queue = max(4, int(rate / 4))  # what it answers in half a second
    with running(path, "--queue", queue) as (_, port):
        found, seconds = [], []

        async def one(line, given):
            start = time.perf_counter()
            found.append(await line.post("/predict", given))
            seconds.append(time.perf_counter() - start)
            return line

        async def open_load():
            free = [Connection(port) for _ in range(500)]
            tasks, start, sent = set(), time.perf_counter(), 0

            def back(task):
                tasks.discard(task)
                free.append(task.result())

            while (now := time.perf_counter() - start) < 5:
                while sent < rate * now and free:
                    given = bodies[sent % len(bodies)]
                    task = asyncio.create_task(one(free.pop(), given))
                    tasks.add(task)
                    task.add_done_callback(back)
                    sent += 1
                await asyncio.sleep(0.002)
            ended = time.perf_counter()
            line = Connection(port)
            while (await line.post("/predict", bodies[0]))[0] != 200:
                await asyncio.sleep(0.01)
            recovered = time.perf_counter() - ended
            await asyncio.gather(*tasks)
            return sent / 5, recovered

        sent, recovered = asyncio.run(open_load())
        print(
            f"heavy, --queue {queue}, {sent:.0f} requests/s  "
            f"{told(found, sorted(seconds), 5)}"
        )
        print(f"heavy: answered with 200 {1e3 * recovered:.0f} ms after the load ended")
        statuses = {status for status, _ in found}
        assert statuses == {200, 429} and recovered < 1


def compared(found, rows, net):
    """Every answer is the offline prediction."""
    assert all(status == 200 for status, _ in found)
    outputs = np.float32([json.loads(content)["outputs"][0] for _, content in found])
    expected = np.concatenate([net.predict(part).numpy() for part in rows.split(500)])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    return np.abs(outputs - expected).max()


def distinct(folder):
    """10,000 requests with distinct inputs, none lost or swapped."""
    path = folder / "iris.zip"
    rows, bodies = bodies_of("iris", N)
    net = dl4py.restore(path)
    for workers in (0, 2):
        with running(path, "--workers", workers) as (_, port):
            found, seconds, total = asyncio.run(closed(port, bodies, 64))
        off = compared(found, rows, net)
        print(f"iris, --workers {workers}, {N} inputs  {told(found, seconds, total)}")
        print(f"  every answer is the offline prediction, off by {off:.0e} at most")


def killed(folder):
    """Workers that are killed under load, each time that there are two of them."""
    path = folder / "iris.zip"
    rows, bodies = bodies_of("iris", N, seed=1)
    net = dl4py.restore(path)
    with running(path, "--workers", 2) as (process, port):
        tasks = pathlib.Path(f"/proc/{process.pid}/task")
        done = threading.Event()
        dead = []

        def kill():
            while not done.wait(0.5):
                if json.loads(ask(port, "/health")[1])["workers"]["iris"] < 2:
                    continue  # the last is not replaced yet
                found = " ".join(p.read_text() for p in tasks.glob("*/children"))
                os.kill(int(found.split()[0]), signal.SIGKILL)
                dead.append(found)

        thread = threading.Thread(target=kill)
        thread.start()
        found, seconds, total = asyncio.run(closed(port, bodies, 32))
        done.set()
        thread.join()
    compared(found, rows, net)
    print(f"iris, {len(dead)} workers killed       {told(found, seconds, total)}")
    assert dead


PARTS = {f.__name__: f for f in (throughput, batching, overload, distinct, killed)}


def main(names):
    """Measure these parts."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for model in ("iris", "lenet", "heavy"):
            dl4py.save(getattr(models, model)(), folder / f"{model}.zip")
        for part in names or PARTS:
            print(f"\n{PARTS[part].__doc__}")
            PARTS[part](folder)


if __name__ == "__main__":
    main(sys.argv[1:])
