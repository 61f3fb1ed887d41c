"""What predictions are worth, as plain types that a report draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

from dl4py.evaluation import (
    ROC,
    Evaluation,
    EvaluationCalibration,
    RegressionEvaluation,
    ROCMultiClass,
)

STEPS = 100  # of thresholds: curves in constant memory


class Judge:
    """Counts predictions in the evaluations that fit them.

    Probabilities of two classes or more with one-hot labels or class indices: an
    ``Evaluation``, ROC curves and calibration; other scores of classes: an
    ``Evaluation`` alone. One column of probabilities with labels 0 and 1: an
    ``Evaluation`` and a ROC curve. Anything else: a ``RegressionEvaluation``. The first
    batch decides.

    Args:
        metrics: those to count in instead, by any names.
    """

    def __init__(self, metrics: Mapping[str, Metric] | None = None) -> None:
        self.given = dict(metrics or {})
        self.metrics: dict[str, Metric] = {}

    def update(self, p: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of predictions and labels."""
        p, y = p.detach(), y.detach()
        if not self.metrics:
            chosen = self.given or fitting(p, y)
            self.metrics = {name: m.to(p.device) for name, m in chosen.items()}
            for metric in self.metrics.values():
                metric.reset()
        index = p.dim() > 1 and y.dim() == p.dim() - 1 and p.shape[1] > 1
        for metric in self.metrics.values():
            hot = y
            if index and isinstance(metric, EvaluationCalibration):
                hot = one_hot(y.long(), p.shape[1]).movedim(-1, 1)
            metric.update(p, hot, *(() if mask is None else (mask,)))

    def result(self) -> dict[str, Any]:
        """What is counted so far, of all ranks, as plain types; empty without data."""
        found: dict[str, Any] = {}
        for metric in self.metrics.values():
            with metric.sync_context():
                found |= plain(metric)
        return found


def fitting(p: Tensor, y: Tensor) -> dict[str, Metric]:
    """The evaluations for such predictions and labels."""
    binary = bool(((y == 0) | (y == 1)).all())
    share = bool(((p >= 0) & (p <= 1)).all())
    if p.dim() > 1 and p.shape[1] > 1:
        index = y.dim() == p.dim() - 1
        hot = y.shape == p.shape and binary and bool((y.sum(1) <= 1).all())
        if index or hot:
            found: dict[str, Metric] = {"evaluation": Evaluation(p.shape[1])}
            if share:
                found["roc"] = ROCMultiClass(STEPS)
                found["calibration"] = EvaluationCalibration(p.shape[1])
            return found
    elif binary and share:
        return {"evaluation": Evaluation(2), "roc": ROC(STEPS)}
    return {"regression": RegressionEvaluation()}


def plain(metric: Metric) -> dict[str, Any]:
    """What a report shows of a metric; nothing of one that it does not know."""
    if isinstance(metric, Evaluation):
        names = metric.labels or range(metric.num_classes)
        return {
            "classes": [str(name) for name in names],
            "confusion": metric.confusion.tolist(),
            "stats": metric.stats(include_confusion=False),
            "accuracy": float(metric.accuracy()),
        }
    if isinstance(metric, (ROC, ROCMultiClass)):
        columns = range(metric.num_columns())
        return {"roc": [_curve(metric.roc_curve(c)) for c in columns]}
    if isinstance(metric, EvaluationCalibration):
        classes = range(metric.num_classes())
        totals, sums = metric.totals.sum(1), metric.sums.sum(1)
        some = totals > 0
        return {
            "calibration": [_points(metric.reliability_diagram(c)) for c in classes],
            "calibration_of_all": {
                "x": _listed((sums / totals)[some]),
                "y": _listed((metric.positives.sum(1) / totals)[some]),
            },
            "calibration_error": float(metric.compute()),
        }
    if isinstance(metric, RegressionEvaluation):
        return {"regression": metric.stats()}
    return {}


def _curve(curve: Any) -> dict[str, Any]:
    return {**_points(curve), "area": curve.area}


def _points(curve: Any) -> dict[str, Any]:
    return {"x": _listed(curve.x), "y": _listed(curve.y)}


def _listed(t: Tensor) -> list[float]:
    return [round(v, 6) for v in t.to(torch.float64).tolist()]
