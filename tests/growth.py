"""How a step's time and bytes grow with processes: ``python -m tests.growth``.

Weak scaling of a dense network of N float32 parameters: each of p processes (gloo, one
thread, this machine's loopback) takes a batch of its own. The model of a step's time is

t(N, p) = c₀ + c₁ N + α + 4 N · 2 (p − 1)/p / β    (α and the last term only for p > 1)

with c₀, c₁ from one process and α, β from two, both from the smallest and the largest
network; the one between them is predicted. One and two processes take turns, so that
other work on the machine meets both alike, and the least of all turns counts.
"""

import math
import socket
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dl4py import NeuralNetConfiguration
from dl4py.config import Dense, Output

WIDTHS, BATCH, ROUNDS, STEPS = (512, 1024, 1536), 32, 16, 5
Turn = tuple[float, float, float]  # one process, two processes, bytes a step


def network(width):
    chain = NeuralNetConfiguration.builder().seed(1).data_type("float")
    chain = chain.updater("sgd", lr=0.01).activation("relu")
    chain = chain.layer(Dense(n_in=256, n_out=width)).layer(Dense(n_out=width))
    return chain.layer(Output(n_out=10)).build().module()


def sent():
    """Bytes that the loopback device has sent so far."""
    (line,) = (w for w in Path("/proc/net/dev").read_text().splitlines() if "lo:" in w)
    return int(line.split(":")[1].split()[8])


def timed(step):
    """The mean of some steps, and the bytes of each."""
    start, before = time.perf_counter(), sent()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS, (sent() - before) / STEPS


def work(rank, folder, port):
    torch.set_num_threads(1)
    meeting = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    nets = [network(width) for width in WIDTHS]
    turns = [[] for _ in WIDTHS]
    steps = []
    for net in nets:
        x = torch.randn(BATCH, 256)
        y = torch.eye(10)[torch.randint(10, (BATCH,))]
        wrapped = DistributedDataParallel(net)

        def step(net=net, model=net, x=x, y=y):
            net.optimizer.zero_grad()
            model(x, labels=y).backward()
            net.optimizer.step()

        def together(step=step, wrapped=wrapped):
            step(model=wrapped)

        steps.append((step, together))
        for _ in range(3):  # after its first step DDP orders its buckets anew
            together()
    for _ in range(ROUNDS):
        for kept, (step, together) in zip(turns, steps, strict=True):
            one = timed(step)[0] if rank == 0 else 0.0
            dist.barrier()
            two, count = timed(together)
            dist.barrier()
            kept.append((one, two, count))
    sizes = [sum(p.numel() for p in net.parameters()) for net in nets]
    if rank == 0:
        torch.save({"sizes": sizes, "turns": turns}, f"{folder}/found.pt")
    dist.barrier()
    dist.destroy_process_group()


def line(xs, ys):
    """Slope and intercept through the first and the last point."""
    slope = (ys[-1] - ys[0]) / (xs[-1] - xs[0])
    return slope, ys[0] - slope * xs[0]


GPUS = (8, 64, 256, 1024)
NODE, HOP = 8, 5e-6  # GPUs of a node; seconds a message waits
INSIDE, BETWEEN = 300e9, 40e9  # bytes a second of one GPU, in a node and out of it
RATE = 100e12  # operations a second that a GPU attains in training
MODELS = {  # parameters, and operations of an example forward and backward
    "LeNet": (431_080, 14e6),
    "ResNet50": (25_600_000, 24.6e9),
    "VGG16": (138_000_000, 93e9),
}


def ring(size, gpus):
    """Seconds of a ring all-reduce of float32 gradients; its slowest link counts."""
    speed = INSIDE if gpus <= NODE else BETWEEN
    return 2 * (gpus - 1) / gpus * 4 * size / speed + 2 * (gpus - 1) * HOP


def page():
    """The table of SCALING.md."""
    print("| | GPUs | MB a GPU sends in a step | ring, ms | batch a GPU |")
    print("|---|---|---|---|---|")
    for name, (size, work) in MODELS.items():
        for gpus in GPUS:
            seconds = ring(size, gpus)
            batch = math.ceil(9 * seconds * RATE / work)
            count = 2 * (gpus - 1) / gpus * 4 * size / 1e6
            row = f"{name} | {gpus:,} | {count:.1f} | {1e3 * seconds:.2f} | {batch:,}"
            print(f"| {row} |")


def main():
    page()
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torch.multiprocessing.spawn(work, (folder, port), nprocs=2)
        found = torch.load(f"{folder}/found.pt")
    sizes, columns = (
        found["sizes"],
        [list(zip(*t, strict=True)) for t in found["turns"]],
    )
    for name, pick in (("least", min), ("median", statistics.median)):
        one, two = ([pick(c[i]) for c in columns] for i in range(2))
        compute, still = line(sizes, one)
        rest = [b - a for a, b in zip(one, two, strict=True)]
        wire, alpha = line(sizes, rest)
        told = [still + alpha + (compute + wire) * n for n in sizes]
        print(f"\n{name} of {ROUNDS} turns of {STEPS} steps, batch {BATCH} a process")
        print("N, t(1) ms, t(2) ms, t(1)/t(2), formula's t(2) ms, off by")
        for n, a, b, t in zip(sizes, one, two, told, strict=True):
            row = f"{n:9,} {1e3 * a:7.1f} {1e3 * b:7.1f} {a / b:5.2f} {1e3 * t:7.1f}"
            used = "(fitted)" if n in (sizes[0], sizes[-1]) else f"{t / b - 1:+.0%}"
            print(row, used)
        print(f"c0 {1e3 * still:.2f} ms, c1 {1e9 * compute:.2f} ns, ", end="")
        print(f"alpha {1e3 * alpha:.2f} ms, beta {4e-9 / wire:.2f} GB/s")
    print("\nbytes that both send in a step: least measured, formula 2 · 4 N, ratio")
    for n, c in zip(sizes, columns, strict=True):
        print(f"{min(c[2]):13,.0f} {8 * n:13,} {min(c[2]) / (8 * n):.3f}")


if __name__ == "__main__":
    main()
