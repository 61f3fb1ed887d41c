"""A run as curves by name, read from what a ``StatsCallback`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dl4py.training.journal import FILE, read

Curve = tuple[list[float], list[float | None]]  # iterations, values


@dataclass
class Run:
    """The statistics of a run.

    Args:
        folder: where they are written.
        model: its first record: the model's name, its layers, its weights' names.
        score: of every iteration.
        families: kind of number → name → curve.
        histograms: kind → name → the latest one, and of which iteration.
        evaluation: of the last validation.
        advice: what was said about a parameter.
        times: seconds since 1970 of the first and the last record.
        epochs: how many were begun.
    """

    folder: Path
    model: Mapping[str, Any] = field(default_factory=dict)
    score: Curve = field(default_factory=lambda: ([], []))
    families: dict[str, dict[str, Curve]] = field(default_factory=dict)
    histograms: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)
    times: tuple[float, float] = (0.0, 0.0)
    epochs: int = 0

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The one run in ``folder``, at any depth.

        Where it was begun again or resumed, what came later counts.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        files = sorted(folder.rglob(FILE))
        if (folder / FILE) in files:
            files = [folder / FILE]
        if not files:
            raise FileNotFoundError(
                f"{folder} holds no {FILE}: train with dl4py.StatsCallback() among the "
                "Trainer's callbacks"
            )
        if len(files) > 1:
            names = ", ".join(str(file.parent) for file in files[:5])
            raise ValueError(
                f"{folder} holds {len(files)} runs; give one of them: {names}"
                + " …" * (len(files) > 5)
            )
        run = cls(files[0].parent)
        kept: list[dict[str, Any]] = []
        for record in read(files[0]):
            if record["kind"] == "model":
                start = record.get("iteration", 0)
                kept = [old for old in kept if old.get("iteration", 0) < start]
            kept.append(record)
        for record in kept:
            run._add(record)
        return run

    def _add(self, record: dict[str, Any]) -> None:
        kind, step = record["kind"], record.get("iteration", 0)
        self.epochs = max(self.epochs, record.get("epoch", -1) + 1)
        if when := record.get("time"):
            self.times = (self.times[0] or when, when)
        for at, value in record.get("scores", ()):
            _put(self.score, at, value)
        for what, found in record.get("histograms", {}).items():
            for name, one in found.items():
                one = {**one, "iteration": step}
                self.histograms.setdefault(what, {})[name] = one
        if kind == "model":
            self.model = record
        elif kind == "evaluation":
            self.evaluation = record
        elif kind == "report":
            self.advice |= record.get("advice", {})
            for family, values in record.items():
                if isinstance(values, dict) and family not in ("histograms", "advice"):
                    for name, value in values.items():
                        curves = self.families.setdefault(family, {})
                        _put(curves.setdefault(name, ([], [])), step, value)


def _put(curve: Curve, step: float, value: float | None) -> None:
    curve[0].append(step)
    curve[1].append(value)
