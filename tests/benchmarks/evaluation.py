"""Evaluations of many predictions beside torchmetrics, update and compute.

The peers check their arguments as they do by default.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torchmetrics import Metric
from torchmetrics import classification as peer

from dl4py import evaluation
from tests.benchmarks.harness import Call, Case, Floor, Table


def fed(metric: Metric, p: torch.Tensor, y: torch.Tensor) -> Call:
    """A call that counts the predictions in ten batches and asks for the result."""

    def call() -> object:
        metric.reset()
        for rows in zip(p.chunk(10), y.chunk(10), strict=True):
            metric.update(*rows)
        return metric.compute()

    return call


def cases(quick: bool) -> Iterator[Case]:
    for n in (10**5,) if quick else (10**5, 10**6, 10**7):
        p = torch.rand(n)
        y = (torch.rand(n) < p).long()
        rows, classes = n // 10, 10
        logits = torch.randn(rows, classes)
        probabilities, index = logits.softmax(1), logits.argmax(1)
        hot = torch.nn.functional.one_hot(index, classes)
        of = (
            ("ROC exact", evaluation.ROC(), peer.BinaryAUROC(), p, y, y),
            (
                "ROC 100 steps",
                evaluation.ROC(100),
                peer.BinaryAUROC(thresholds=101),
                p,
                y,
                y,
            ),
            (
                "EvaluationBinary",
                evaluation.EvaluationBinary(classes),
                peer.MultilabelF1Score(num_labels=classes),
                probabilities,
                hot,
                hot,
            ),
            (
                "EvaluationCalibration",
                evaluation.EvaluationCalibration(classes),
                peer.MulticlassCalibrationError(num_classes=classes, n_bins=10),
                probabilities,
                hot,
                index,
            ),
            (
                "Evaluation",
                evaluation.Evaluation(classes),
                peer.MulticlassConfusionMatrix(num_classes=classes),
                probabilities,
                index,
                index,
            ),
        )
        for name, ours, theirs, given, labels, targets in of:
            calls = {"torchmetrics": fed(theirs, given, targets)}
            yield Case(name, n, f"{n:.0e}", fed(ours, given, labels), calls)


FLOORS = (Floor("torchmetrics", 1 / 1.5, lambda row: row.size >= 10**7),)
TABLE = Table("Evaluations", cases, FLOORS, computes=True)
