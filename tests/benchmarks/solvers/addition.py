"""The addition problem: HessianFree with structural damping, 100 tanh units.

``python -m tests.benchmarks.solvers.addition [T ...] [--minutes 60] [--seed 0]
[--out FOLDER]``

A sequence of T pairs (a number of [0, 1], a mark); two are marked, one in the first
tenth and one in the rest of the first half, and after the last pair the network says
their sum. Wrong is an answer more than 0.04 away; solved is less than 0.1 % wrong of
10,000 sequences that no step has seen. The lengths are tried in order, each for as many
minutes of processor time as given. Everything is on disk after every step: what was
killed goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py.solvers import HessianFree, damp
from tests.benchmarks import report


def sequences(
    count: int, length: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """[length, count, 2] and the sums [count, 1]."""
    x = torch.zeros(length, count, 2)
    x[:, :, 0] = torch.rand(length, count, generator=random)
    early = max(1, length // 10)
    first = torch.randint(0, early, (count,), generator=random)
    second = torch.randint(
        early, max(early + 1, length // 2), (count,), generator=random
    )
    rows = torch.arange(count)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return x, (x[first, rows, 0] + x[second, rows, 0])[:, None]


class Adder(nn.Module):
    """Martens' start: 15 connections of a unit N(0, 1/15), of inputs N(0, 1/16)."""

    def __init__(self, units: int, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.rnn, self.last = nn.RNN(2, units), nn.Linear(units, 1)
        with torch.no_grad():
            for p in self.parameters():
                p.zero_()
            for weight in self.rnn.weight_hh_l0, self.last.weight:
                for row in weight:
                    some = torch.randperm(units, generator=random)[:15]
                    row[some] = torch.randn(len(some), generator=random) / 15**0.5
            shape = self.rnn.weight_ih_l0.shape
            self.rnn.weight_ih_l0 += 0.25 * torch.randn(shape, generator=random)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = damp(self.rnn(x)[0], "tanh", dim=1)
        return self.last(hidden[-1])


class Run:
    """One length: batches drawn anew at every step."""

    def __init__(
        self, file: pathlib.Path, length: int, seed: int, units: int, rows: int
    ) -> None:
        self.file, self.length, self.rows = file, length, rows
        self.net = Adder(units, seed)
        self.optimizer = HessianFree(
            self.net.parameters(),
            damping=0.1,
            structural_damping=0.03,
            cg_max_iter=100,
            cg_decay=0.95,
            l2=2e-6,
        )
        self.random = torch.Generator().manual_seed(seed + 1)
        judge = torch.Generator().manual_seed(10**6)
        self.judged = sequences(10_000, length, judge)
        self.seconds = 0.0
        self.curve: list[
            list[float]
        ] = []  # seconds, squared error, share of wrong ones
        if file.exists():
            kept = torch.load(file, weights_only=True)
            self.net.load_state_dict(kept["net"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.random.set_state(kept["random"])
            self.seconds, self.curve = kept["seconds"], kept["curve"]

    @property
    def solved(self) -> bool:
        return bool(self.curve) and self.curve[-1][2] < 1e-3

    def step(self) -> None:
        began = time.process_time()
        x, y = sequences(self.rows, self.length, self.random)
        part = x[:, : self.rows // 2], y[: self.rows // 2]

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            self.optimizer.zero_grad()
            loss = F.mse_loss(self.net(x), y)
            loss.backward()
            return loss

        self.optimizer.step(closure, lambda: closure(*part))
        self.seconds += time.process_time() - began
        with torch.no_grad():
            x, y = self.judged
            away = (self.net(x) - y).abs()
        wrong = float((away > 0.04).float().mean())
        self.curve.append([self.seconds, float(away.square().mean()), wrong])
        self.save()

    def save(self) -> None:
        new = self.file.with_suffix(".new")
        state: dict[str, Any] = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
            "seconds": self.seconds,
            "curve": self.curve,
        }
        torch.save(state, new)
        os.replace(new, self.file)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.solvers.addition")
    parser.add_argument("lengths", nargs="*", type=int, default=[50], metavar="T")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each length")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1000, help="sequences of a step")
    parser.add_argument("--steps", type=int, default=10**9, help="at most")
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    out = given.out or pathlib.Path("build", "benchmarks")
    (out / "addition").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    file = out / "addition.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for length in given.lengths:
        kept = out / "addition" / f"{length}-{given.seed}.pt"
        run = Run(kept, length, given.seed, given.units, given.rows)
        while not run.solved and len(run.curve) < given.steps:
            if run.seconds >= 60 * given.minutes:
                break
            run.step()
            result[f"{length}/{given.seed}"] = {
                "solved": run.solved,
                "minutes": given.minutes,
                "rows": given.rows,
                "curve": [[float(f"{v:.4g}") for v in p] for p in run.curve],
                "machine": report.machine(),
            }
            new = file.with_suffix(".new")
            new.write_text(json.dumps(result) + "\n")
            os.replace(new, file)
        seconds, squares, wrong = run.curve[-1]
        print(
            f"T = {length}: {'solved' if run.solved else 'not solved'} after "
            f"{len(run.curve)} steps, {seconds:.0f} s; {wrong:.2%} wrong, mean squared "
            f"error {squares:.2g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
