"""The evaluation of several independent binary outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dl4py.evaluation import java
from dl4py.evaluation.columns import CLASSIFICATION, NO_DATA, Curves
from dl4py.evaluation.rates import NAN, Counts
from dl4py.evaluation.rows import binary_rows, names


class EvaluationBinary(Curves):
    """Accuracy, precision, recall, F1 and more of each binary output by itself.

    An output is predicted positive above its threshold, 0.5 without one. The formulas
    are those of :class:`dl4py.evaluation.Evaluation`; here 0/0 is NaN, as DL4J has it
    for several outputs, except for the two error rates, where it is 0. Averages are
    means over the outputs: one NaN spoils them.

    Args:
        num_outputs: how many there are; without it the first batch tells.
        labels: the names of the outputs.
        threshold: one number in [0, 1] per output.
        roc_steps: for ``roc_curve(output)`` and the column AUC of the table: 0 keeps
            every score, n counts at n steps; ``None``: no curves.
        metric: accuracy, precision, recall, f1, gmeasure or mcc, for ``compute()`` to
            give this average alone.
        kwargs: those of :class:`torchmetrics.Metric`.

    Example:
        >>> evaluation = EvaluationBinary(labels=["rain", "wind"])
        >>> p = torch.tensor([[0.9, 0.2], [0.4, 0.6], [0.6, 0.1]])
        >>> evaluation.update(p, torch.tensor([[1, 0], [0, 1], [0, 0]]))
        >>> evaluation.precision(0), evaluation.average_accuracy()
        (0.5, 0.8333333333333333)

    DL4J: org.nd4j.evaluation.classification.EvaluationBinary
    """

    shown = ("accuracy", "precision", "recall", "f1")
    numbers = (*shown, "gmeasure", "mcc")
    rising = numbers
    tallies: Tensor  # [4, outputs]: TP, FP, FN, TN

    def __init__(
        self,
        num_outputs: int | None = None,
        labels: Sequence[str] | None = None,
        threshold: Sequence[float] | Tensor | None = None,
        roc_steps: int | None = None,
        metric: str | None = None,
        **kwargs: Any,
    ) -> None:
        known_names = names("EvaluationBinary", labels)
        limits = None if threshold is None else [float(t) for t in threshold]
        said = {
            "num_outputs": num_outputs,
            "labels": None if known_names is None else len(known_names),
            "threshold": None if limits is None else len(limits),
        }
        known = {name: k for name, k in said.items() if k is not None}
        if len(set(known.values())) > 1:
            raise ValueError(
                f"EvaluationBinary got different numbers of outputs: {known}"
            )
        columns = next(iter(known.values()), None)
        if columns is not None and (not isinstance(columns, int) or columns < 1):
            raise ValueError(
                f"EvaluationBinary(num_outputs=...) must be 1 or more, got {columns!r}"
            )
        if limits is not None and not all(0 <= t <= 1 for t in limits):
            raise ValueError(
                f"EvaluationBinary(threshold=...) must be in [0, 1], got {limits}"
            )
        super().__init__(roc_steps, True, columns, metric, **kwargs)
        self.labels, self.threshold = known_names, limits
        shape = (4, columns) if columns else ()
        self.add_state("tallies", torch.zeros(shape, dtype=torch.int64), "sum")

    @property
    def _bounded(self) -> bool:
        return True

    def update(
        self, predictions: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            predictions: probabilities ``[n, outputs]``, or with axes behind.
            labels: 0 or 1, in the same shape.
            mask: in the same shape, or without the outputs.
        """
        p, y, keep = binary_rows(predictions, labels, mask)
        self.count(p, y, keep)
        limits = 0.5 if self.threshold is None else p.new_tensor(self.threshold)
        positive = p > limits
        cells = [positive & y, positive & ~y, ~positive & y, ~positive & ~y]
        if keep is not None:
            cells = [cell & keep for cell in cells]
        self.tallies = self.tallies + torch.stack([cell.sum(0) for cell in cells])

    def compute(self) -> Any:
        """Averages over the outputs: accuracy, precision, recall, f1, or ``metric``."""
        of = {
            "accuracy": self.average_accuracy,
            "precision": self.average_precision,
            "recall": self.average_recall,
            "f1": self.average_f1,
            "gmeasure": self.average_g_measure,
            "mcc": self.average_matthews_correlation,
        }
        wanted = self.shown if self.metric is None else (self.metric,)
        known = self.num_columns() > 0
        found = {n: torch.tensor(of[n]() if known else NAN) for n in wanted}
        return found if self.metric is None else found[self.metric]

    def num_labels(self) -> int:
        """How many outputs there are, 0 while unknown."""
        return self.num_columns()

    def _counts(self, output: int) -> Counts:
        return Counts(*self.tallies[:, self._column(output)].tolist())

    def true_positives(self, output: int) -> int:
        """How often it was predicted and right."""
        return self._counts(output).tp

    def false_positives(self, output: int) -> int:
        """How often it was predicted and wrong."""
        return self._counts(output).fp

    def true_negatives(self, output: int) -> int:
        """How often it was not predicted and right so."""
        return self._counts(output).tn

    def false_negatives(self, output: int) -> int:
        """How often it was missed."""
        return self._counts(output).fn

    def total_count(self, output: int) -> int:
        """How many rows of an output counted."""
        return sum(self._counts(output))

    def accuracy(self, output: int) -> float:
        """(TP + TN) / n."""
        c, n = self._counts(output), self.total_count(output)
        return (c.tp + c.tn) / n if n else NAN

    def precision(self, output: int) -> float:
        """TP / (TP + FP)."""
        return self._counts(output).precision(NAN)

    def recall(self, output: int) -> float:
        """TP / (TP + FN)."""
        return self._counts(output).recall(NAN)

    def f_beta(self, beta: float, output: int) -> float:
        """(1 + β²)·P·R / (β²·P + R)."""
        return self._counts(output).f_beta(beta)

    def f1(self, output: int) -> float:
        """2·P·R / (P + R)."""
        return self.f_beta(1.0, output)

    def g_measure(self, output: int) -> float:
        """√(P·R)."""
        return math.sqrt(self.precision(output) * self.recall(output))

    def matthews_correlation(self, output: int) -> float:
        """(TP·TN - FP·FN) / √((TP+FP)·(TP+FN)·(TN+FP)·(TN+FN))."""
        return self._counts(output).matthews_correlation()

    def false_positive_rate(self, output: int, edge: float = 0.0) -> float:
        """FP / (FP + TN), ``edge`` for 0/0."""
        return self._counts(output).false_positive_rate(edge)

    def false_negative_rate(self, output: int, edge: float = 0.0) -> float:
        """FN / (FN + TP), ``edge`` for 0/0."""
        return self._counts(output).false_negative_rate(edge)

    def false_alarm_rate(self, output: int) -> float:
        """The mean of the false positive and the false negative rate."""
        rates = self.false_positive_rate(output), self.false_negative_rate(output)
        return sum(rates) / 2

    def average_accuracy(self) -> float:
        """Mean over the outputs."""
        return self._average(self.accuracy)

    def average_precision(self) -> float:
        """Mean over the outputs."""
        return self._average(self.precision)

    def average_recall(self) -> float:
        """Mean over the outputs."""
        return self._average(self.recall)

    def average_f1(self) -> float:
        """Mean over the outputs."""
        return self._average(self.f1)

    def average_g_measure(self) -> float:
        """Mean over the outputs."""
        return self._average(self.g_measure)

    def average_matthews_correlation(self) -> float:
        """Mean over the outputs."""
        return self._average(self.matthews_correlation)

    def average_false_alarm_rate(self) -> float:
        """Mean over the outputs."""
        return self._average(self.false_alarm_rate)

    def stats(self) -> str:
        """DL4J's table, a line per output."""
        if not self.num_columns():
            return NO_DATA
        cells: dict[str, Any] = {
            "Accuracy": (12, lambda c: java.fixed(self.accuracy(c))),
            "F1": (12, lambda c: java.fixed(self.f1(c))),
            "Precision": (12, lambda c: java.fixed(self.precision(c))),
            "Recall": (12, lambda c: java.fixed(self.recall(c))),
            "Total": (8, self.total_count),
            "TP": (7, self.true_positives),
            "TN": (7, self.true_negatives),
            "FP": (7, self.false_positives),
            "FN": (7, self.false_negatives),
        }
        if self.threshold_steps is not None:
            cells["AUC"] = (12, lambda c: java.fixed(self.calculate_auc(c)))
        text = self._table(cells)
        if self.threshold is not None:
            limits = ", ".join(java.double(t) for t in self.threshold)
            text += f"\nPer-output decision thresholds: [{limits}]"
        return text

    def to_json(self) -> str:
        """DL4J's JSON."""
        known = self.num_columns() > 0
        tp, fp, fn, tn = self.tallies.tolist() if known else (None,) * 4
        roc = None
        if self.threshold_steps is not None:
            roc = {
                "@class": CLASSIFICATION + "ROCBinary",
                "underlying": [self._one(c) for c in range(self.num_columns())],
                "thresholdSteps": self.threshold_steps,
                "rocRemoveRedundantPts": self.remove_redundant,
                "labels": None,
                "axis": 1,
            }
        limits = self.threshold
        return java.json(
            {
                "@class": CLASSIFICATION + "EvaluationBinary",
                "axis": 1,
                "countTruePositive": tp,
                "countFalsePositive": fp,
                "countTrueNegative": tn,
                "countFalseNegative": fn,
                "rocBinary": roc,
                "labels": self.labels,
                "decisionThreshold": None if limits is None else java.array([limits]),
            }
        )
