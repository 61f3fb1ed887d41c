"""Solvers beside their peers: training loss over time, several seeds, one run.

``python -m tests.benchmarks.solvers [PROBLEM ...] [--seeds N] [--out FOLDER]``

Every solver gets the same seconds of processor time on one thread, from the same
starts, after a warm-up. Loss is the lowest training loss so far, at a quarter, at half
and at the end of the time: medians over seeds, with the lowest and highest. The last
column is when a solver came down to what the best of dl4py's peers ended with, within
1e-5 of it. Writes ``solvers.json`` and a picture of loss over time per problem.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import statistics
import time
from typing import Any

import torch
from torch import nn

from dl4py.solvers import Solver
from tests.benchmarks import harness, report
from tests.benchmarks.solvers.contestants import OURS, Ended, Watch, everyone
from tests.benchmarks.solvers.problems import PROBLEMS, Problem, digits


def run(problem: Problem, solve: Any, seed: int, seconds: float) -> dict[str, Any]:
    """One curve, thinned out."""
    torch.manual_seed(seed)
    params, loss = problem.start()
    watch, error = Watch(loss, seconds), None
    try:
        solve(params, watch)
    except Ended:
        pass
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}".splitlines()[0]
    curve = watch.curve
    kept = [p for i, p in enumerate(curve) if i == 0 or p[1] < curve[i - 1][1]]
    stride = max(1, len(kept) // 400)
    return {
        "loss": curve[-1][1],
        "evaluations": watch.evaluations,
        "seconds": curve[-1][0],
        "error": error,
        "curve": [*kept[::stride], kept[-1]],
    }


def thinned(run: dict[str, Any]) -> dict[str, Any]:
    """A run with about 60 points of its curve."""
    curve = run["curve"]
    kept = [*curve[:: max(1, len(curve) // 60)], curve[-1]]
    return {**run, "curve": [[float(f"{v:.4g}") for v in p] for p in kept]}


def at(curve: list[tuple[float, float]], seconds: float) -> float:
    """The loss of a curve at a time."""
    return [value for t, value in curve if t <= seconds or t == curve[0][0]][-1]


def reached(curve: list[tuple[float, float]], loss: float) -> float:
    """When a curve came down to a loss."""
    return next((t for t, value in curve if value <= loss), math.inf)


def table(results: dict[str, list[dict[str, Any]]], seconds: float) -> str:
    targets = [
        min(
            loss
            for name, loss in zip(results, of_seed, strict=True)
            if name not in OURS
        )
        for of_seed in zip(*map(losses, results.values()), strict=True)
    ]
    lines = []
    for name, runs in results.items():
        curves = [r["curve"] for r in runs]
        line = [name]
        for share in (0.25, 0.5, 1.0):
            values = [at(curve, share * seconds) for curve in curves]
            spread = f"{min(values):.2g}..{max(values):.2g}"
            line.append(f"{statistics.median(values):.4g} ({spread})")
        line.append(f"{statistics.median(r['evaluations'] for r in runs):.0f}")
        times = [
            reached(curve, target + 1e-5 * abs(target))
            for curve, target in zip(curves, targets, strict=True)
        ]
        when = statistics.median(times)
        line.append("never" if math.isinf(when) else f"{when:.2f}")
        errors = {r["error"] for r in runs if r["error"]}
        lines.append([*line, "; ".join(sorted(errors))[:60]])
    head = ["", "1/4", "1/2", "end", "evaluations", "s to best peer's", "error"]
    return harness.markdown(head, lines)


def trial_costs() -> dict[str, float]:
    """Network → time of a value over time of a gradient, medians of pairs."""
    sizes = [784, 400, 200, 100, 50, 25, 6, 25, 50, 100, 200, 400, 784]
    autoencoder = [
        part
        for a, b in zip(sizes, sizes[1:], strict=False)
        for part in (nn.Linear(a, b), nn.Sigmoid())
    ]
    x, y = digits()
    nets = {
        "784-100-10": nn.Sequential(nn.Linear(784, 100), nn.Tanh(), nn.Linear(100, 10)),
        "autoencoder 784-400-200-100-50-25-6": nn.Sequential(*autoencoder[:-1]),
        "convolutions": nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)),
            nn.Conv2d(1, 16, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(800, 10),
        ),
    }
    costs = {}
    for name, net in nets.items():
        rows = x[:1000]
        seen: list[float] = []

        class Trying(Solver):
            def advance(self, problem: Any) -> Any:
                for _ in range(25):
                    began = time.process_time()
                    problem.value(problem.x)
                    middle = time.process_time()
                    problem.evaluate(problem.x)
                    seen.append((middle - began) / (time.process_time() - middle))  # noqa: B023
                return problem.x

        solver = Trying(net.parameters(), {"lr": 1.0, "l2": 0.0})

        def closure(
            net: nn.Module = net, solver: Solver = solver, rows: Any = rows
        ) -> Any:
            solver.zero_grad()
            z = net(rows)
            if z.shape[1] == 10:
                loss = nn.functional.cross_entropy(z, y[:1000])
            else:
                loss = nn.functional.binary_cross_entropy_with_logits(z, rows)
            loss.backward()
            return loss

        solver.step(closure)
        costs[name] = statistics.median(seen)
    return costs


def losses(runs: list[dict[str, Any]]) -> list[float]:
    return [r["loss"] for r in runs]


def draw(
    problem: Problem, results: dict[str, list[dict[str, Any]]], path: pathlib.Path
) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for i, (name, runs) in enumerate(results.items()):
        for j, r in enumerate(runs):
            times, values = zip(*r["curve"], strict=True)
            style = "-" if name in OURS else "--"
            axes.step(
                [*times, r["seconds"]],
                [*values, values[-1]],
                style,
                color=f"C{i % 10}",
                where="post",
                alpha=0.8,
                label=name if j == 0 else None,
            )
    axes.set(xlabel="seconds", ylabel="training loss", yscale="log", xscale="log")
    report.save(figure, axes, problem.title, path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.solvers")
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=str([*PROBLEMS]))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the seconds")
    parser.add_argument("--only", nargs="+", help="some of the solvers")
    parser.add_argument("--out", type=pathlib.Path, help="folder for JSON and pictures")
    given = parser.parse_args()
    out = given.out or pathlib.Path("build", "benchmarks")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    file = out / "solvers.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if not given.problems:
        result["trials"] = trial_costs()
        print("value / gradient:", result["trials"])
    for key in given.problems or PROBLEMS:
        problem = PROBLEMS[key]
        seconds = problem.seconds * given.share
        known = {
            k: v for k, v in everyone().items() if not given.only or k in given.only
        }
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in known}
        for solve in known.values():
            run(problem, solve, 0, min(0.3, seconds))  # what is set up only once
        for seed in range(given.seeds):
            for name, solve in known.items():
                results[name].append(run(problem, solve, seed, seconds))
        print(f"\n## {problem.title}, {seconds:g} s, {given.seeds} seeds\n")
        print(table(results, seconds), flush=True)
        result[key] = {
            "title": problem.title,
            "seconds": seconds,
            "machine": report.machine(),
            "results": {name: list(map(thinned, of)) for name, of in results.items()},
        }
        file.write_text(json.dumps(result) + "\n")
        draw(problem, results, out / f"solvers-{key}.png")


if __name__ == "__main__":
    main()
