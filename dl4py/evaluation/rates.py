"""Rates of a confusion matrix and DL4J's ways to average them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Average = Literal["macro", "micro"]
NAN = float("nan")


class Counts(NamedTuple):
    """How often a class was predicted or passed over, rightly (t) or wrongly (f).

    ``edge`` stands for 0/0.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def precision(self, edge: float) -> float:
        return _share(self.tp, self.fp, edge)

    def recall(self, edge: float) -> float:
        return _share(self.tp, self.fn, edge)

    def false_positive_rate(self, edge: float) -> float:
        return _share(self.fp, self.tn, edge)

    def false_negative_rate(self, edge: float) -> float:
        return _share(self.fn, self.tp, edge)

    def f_beta(self, beta: float) -> float:
        p, r = self.precision(NAN), self.recall(NAN)
        if p == 0 or r == 0:
            return 0.0
        return (1 + beta**2) * p * r / (beta**2 * p + r)

    def f_beta_if_defined(self, beta: float, edge: float) -> float:
        defined = not math.isnan(self.precision(NAN) + self.recall(NAN))
        return self.f_beta(beta) if defined else edge

    def g_measure(self) -> float:
        return math.sqrt(self.precision(0.0) * self.recall(0.0))

    def matthews_correlation(self) -> float:
        tp, fp, fn, tn = map(float, self)
        under = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return (tp * tn - fp * fn) / math.sqrt(under) if under else NAN


def _share(a: int, b: int, edge: float) -> float:
    return a / (a + b) if a or b else edge


class Rates:
    """The numbers of an evaluation, read off ``confusion``: [actual, predicted] counts.

    Methods take a class, or an average ("macro" or "micro"), or neither; the rules are
    told at :class:`dl4py.evaluation.Evaluation`.
    """

    confusion: Tensor  # a plain 0 while the number of classes is unknown
    top_n: int
    top_n_correct: Tensor
    binary_positive_class: int | None

    @property
    def num_classes(self) -> int:
        """How many classes there are, 0 while unknown."""
        return self.confusion.shape[0] if self.confusion.ndim else 0

    def num_row_counter(self) -> int:
        """How many rows were counted."""
        return int(self.confusion.sum())

    def accuracy(self) -> float:
        """Share of rows whose class was predicted."""
        return sum(self.true_positives()) / self.num_row_counter()

    def top_n_accuracy(self) -> float:
        """Share of rows whose class is among the ``top_n`` most probable."""
        return self.top_n_correct_count() / sum(self.positive())

    def top_n_correct_count(self) -> int:
        """Rows whose class is among the ``top_n`` most probable."""
        if self.top_n > 1:
            return int(self.top_n_correct)
        return int(self.confusion.diagonal().sum()) if self.num_classes else 0

    def top_n_total_count(self) -> int:
        """Rows that ``top_n_accuracy()`` is about: all."""
        return self.num_row_counter()

    def precision(
        self, cls: int | None = None, average: Average | None = None, edge: float = 0.0
    ) -> float:
        """TP / (TP + FP)."""
        return self._value(Counts.precision, cls, average, edge, skip=True)

    def recall(
        self, cls: int | None = None, average: Average | None = None, edge: float = 0.0
    ) -> float:
        """TP / (TP + FN)."""
        return self._value(Counts.recall, cls, average, edge, skip=True)

    def false_positive_rate(
        self, cls: int | None = None, average: Average | None = None, edge: float = 0.0
    ) -> float:
        """FP / (FP + TN)."""
        return self._value(Counts.false_positive_rate, cls, average, edge)

    def false_negative_rate(
        self, cls: int | None = None, average: Average | None = None, edge: float = 0.0
    ) -> float:
        """FN / (FN + TP)."""

        def micro(total: Counts) -> float:
            return _share(total.fn, total.tn, 0.0)  # DL4J: ΣTN in place of ΣTP

        return self._value(Counts.false_negative_rate, cls, average, edge, micro)

    def false_alarm_rate(self) -> float:
        """(FPR + FNR) / 2 of the macro averages."""
        fpr = self.false_positive_rate(average="macro")
        return (fpr + self.false_negative_rate(average="macro")) / 2

    def f1(
        self, cls: int | None = None, average: Average | None = None, edge: float = 0.0
    ) -> float:
        """2·P·R / (P + R)."""
        return self.f_beta(1.0, cls, average, edge)

    def f_beta(
        self,
        beta: float,
        cls: int | None = None,
        average: Average | None = None,
        edge: float = 0.0,
    ) -> float:
        """(1 + β²)·P·R / (β²·P + R)."""

        def one(c: Counts, edge: float) -> float:
            return c.f_beta_if_defined(beta, edge)

        def micro(total: Counts) -> float:
            return total.f_beta(beta)

        averaged = cls is None and (average or self.binary_positive_class is None)
        if self.num_classes == 2 and averaged:
            return self._counts()[1].f_beta(beta)  # DL4J: whatever the average
        return self._value(one, cls, average, edge, micro, skip=True)

    def g_measure(
        self, cls: int | None = None, average: Average | None = None
    ) -> float:
        """√(P·R); macro average by default."""
        average = average or ("macro" if cls is None else None)
        return self._value(lambda c, _: c.g_measure(), cls, average)

    def matthews_correlation(
        self, cls: int | None = None, average: Average | None = None
    ) -> float:
        """Matthews' correlation, one class against all others; macro by default."""
        average = average or ("macro" if cls is None else None)
        return self._value(lambda c, _: c.matthews_correlation(), cls, average)

    def score_for_metric(self, metric: str) -> float:
        """ACCURACY, F1, PRECISION, RECALL, GMEASURE or MCC, as early stopping asks."""
        scores = {
            "ACCURACY": self.accuracy,
            "F1": self.f1,
            "PRECISION": self.precision,
            "RECALL": self.recall,
            "GMEASURE": self.g_measure,
            "MCC": self.matthews_correlation,
        }
        if metric.upper() not in scores:
            raise ValueError(
                f"metric must be one of {', '.join(scores)}, got {metric!r}"
            )
        return scores[metric.upper()]()

    def average_precision_num_classes_excluded(self) -> int:
        """How many classes the macro average of P leaves out."""
        return sum(math.isnan(c.precision(NAN)) for c in self._counts())

    def average_recall_num_classes_excluded(self) -> int:
        """How many classes the macro average of R leaves out."""
        return sum(math.isnan(c.recall(NAN)) for c in self._counts())

    def average_f_beta_num_classes_excluded(self) -> int:
        """How many classes macro averages of F leave out."""
        return sum(math.isnan(c.f_beta_if_defined(1.0, NAN)) for c in self._counts())

    average_f1_num_classes_excluded = average_f_beta_num_classes_excluded

    def true_positives(self) -> list[int]:
        """Rows of each class that were predicted as it."""
        return [c.tp for c in self._counts()]

    def false_positives(self) -> list[int]:
        """Rows of other classes that were predicted as each class."""
        return [c.fp for c in self._counts()]

    def true_negatives(self) -> list[int]:
        """Rows of other classes that were not predicted as each class."""
        return [c.tn for c in self._counts()]

    def false_negatives(self) -> list[int]:
        """Rows of each class that were predicted as another one."""
        return [c.fn for c in self._counts()]

    def positive(self) -> list[int]:
        """Rows of each class, TP + FN."""
        return [c.tp + c.fn for c in self._counts()]

    def negative(self) -> list[int]:
        """Rows of other classes than each class, TN + FP."""
        return [c.tn + c.fp for c in self._counts()]

    def class_count(self, cls: int) -> int:
        """Rows of class ``cls``."""
        return self.positive()[self._class(cls)]

    def _counts(self) -> list[Counts]:
        total = self.confusion.sum()
        if not total:
            raise RuntimeError(
                f"{type(self).__name__}: nothing is evaluated yet; call "
                "update(predictions, labels) first"
            )
        tp = self.confusion.diagonal()
        fp, fn = self.confusion.sum(0) - tp, self.confusion.sum(1) - tp
        table = torch.stack([tp, fp, fn, total - tp - fp - fn], dim=1)
        return [Counts(*row) for row in table.tolist()]

    def _class(self, cls: int) -> int:
        if cls not in range(self.num_classes):
            raise ValueError(f"cls must be in [0, {self.num_classes}), got {cls!r}")
        return cls

    def _value(
        self,
        of: Callable[[Counts, float], float],
        cls: int | None,
        average: Average | None,
        edge: float = 0.0,
        micro: Callable[[Counts], float] | None = None,
        skip: bool = False,
    ) -> float:
        """``of`` one class or averaged, where ``skip`` leaves out undefined classes."""
        counts = self._counts()
        if cls is not None and average is not None:
            raise ValueError(f"give cls or average, not both: {cls!r}, {average!r}")
        if average is None and cls is None and len(counts) == 2:
            cls = self.binary_positive_class
        if cls is not None:
            return of(counts[self._class(cls)], edge)
        if average == "micro":
            total = Counts(*map(sum, zip(*counts, strict=True)))
            return micro(total) if micro else of(total, 0.0)
        if average not in (None, "macro"):
            raise ValueError(f"average must be 'macro' or 'micro', got {average!r}")
        values = [of(c, NAN if skip else 0.0) for c in counts]
        if skip:
            values = [v for v in values if not math.isnan(v)]
        return sum(values) / len(values) if values else NAN
