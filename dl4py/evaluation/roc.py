"""Receiver operating characteristics: of one, of several binary, of all classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dl4py.evaluation import java
from dl4py.evaluation.columns import CLASSIFICATION, NO_DATA, Curves, NamedCurves
from dl4py.evaluation.rows import (
    as_rows,
    binary_rows,
    check_tensors,
    checked,
    mask_rows,
)
from dl4py.losses.misfit import MaskMisfit

if TYPE_CHECKING:
    pass


class ROC(Curves):
    """The ROC curve of a binary classifier.

    The score of a row is the probability of class 1: the second of two columns, or a
    single one. Exact (``threshold_steps=0``): rows are sorted by falling score, each a
    point of both curves. With n steps: a row is predicted positive at the thresholds
    i/n, i = 0 … n - 1, that its score reaches, and never at 1. Areas are trapezoidal.

    As in DL4J equal scores are not one point but keep the order in which they came, so
    that ``auc`` depends on that order; torchmetrics' ``BinaryAUROC`` merges them. Areas
    under the ROC curve are NaN where one class is missing.

    Args:
        threshold_steps, remove_redundant, metric, kwargs: as in ``Curves``: 0 is exact
            and keeps all scores; 30 or 100 are usual where memory counts. ``metric`` is
            auc or auprc.

    Example:
        >>> roc = ROC()
        >>> roc.update(torch.tensor([0.9, 0.8, 0.3, 0.1]), torch.tensor([1, 0, 1, 0]))
        >>> roc.calculate_auc()
        0.75
        >>> print(roc.stats())
        AUC (Area under ROC Curve):                0.75
        AUPRC (Area under Precision/Recall Curve): 0.7916666666666666

    DL4J: org.nd4j.evaluation.classification.ROC
    """

    def __init__(
        self,
        threshold_steps: int = 0,
        remove_redundant: bool = True,
        metric: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold_steps, remove_redundant, 1, metric, **kwargs)

    def update(
        self, predictions: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            predictions: ``[n]``, ``[n, 1]``, ``[n, 2]``, or with axes of time or pixels
                behind.
            labels: 0 or 1 in the shape of the predictions, one-hot if there are two
                columns, or without the columns.
            mask: without the columns or with one; rows where it is 0 do not count.
        """
        check_tensors(predictions, labels, mask)
        p = predictions.unsqueeze(1) if predictions.ndim == 1 else predictions
        if p.ndim == 0 or p.shape[1] > 2:
            raise ValueError(
                "ROC: predictions must have 1 or 2 columns [n, 2], got "
                f"{list(predictions.shape)}; ROCMultiClass and ROCBinary take more"
            )
        y = labels.unsqueeze(1) if labels.ndim < p.ndim else labels
        if y.shape not in (p.shape, (p.shape[0], 1, *p.shape[2:])):
            raise ValueError(
                f"labels must have the shape of the predictions {list(p.shape)}, with "
                f"or without the columns, got {list(labels.shape)}"
            )
        keep = None
        if mask is not None:
            keep = mask_rows(mask, (p.shape[0], 1, *p.shape[2:]))
        rows, actual = as_rows(p)[:, -1:], as_rows(y)[:, -1:]
        self.count(*checked(rows, actual, keep, self._bounded), keep)

    def stats(self) -> str:
        """DL4J's two lines."""
        if not self.present.sum():
            return "ROC: No data available (no data has been performed)"
        roc, pr = self.curves(0)
        text = (
            f"AUC (Area under ROC Curve):                {java.double(roc.area)}\n"
            f"AUPRC (Area under Precision/Recall Curve): {java.double(pr.area)}"
        )
        return f"{text}\n{self._note()}" if self.threshold_steps else text

    def to_json(self) -> str:
        """DL4J's JSON."""
        return java.json(self._one(0))


class ROCBinary(NamedCurves):
    """A ROC curve for each of several independent binary outputs.

    Args:
        threshold_steps, remove_redundant, metric, kwargs: as in :class:`ROC`.
        labels: the names of the outputs.

    Example:
        >>> roc = ROCBinary(labels=["rain", "wind"])
        >>> p = torch.tensor([[0.9, 0.2], [0.4, 0.6], [0.6, 0.1]])
        >>> roc.update(p, torch.tensor([[1, 0], [0, 1], [0, 0]]))
        >>> roc.calculate_auc(0), roc.calculate_average_auc()
        (1.0, 1.0)

    DL4J: org.nd4j.evaluation.classification.ROCBinary
    """

    def update(
        self, predictions: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            predictions: probabilities ``[n, outputs]``, or with axes behind.
            labels: 0 or 1, in the same shape.
            mask: in the same shape, or without the outputs.
        """
        self.count(*binary_rows(predictions, labels, mask, self._bounded))

    def stats(self) -> str:
        """DL4J's table, a line per output."""
        if not self.num_columns():
            return NO_DATA
        text = self._table(
            {
                "AUC": (12, lambda c: java.fixed(self.calculate_auc(c))),
                "AUPRC": (12, lambda c: java.fixed(self.calculate_aucpr(c))),
                "# Pos": (10, self.count_actual_positive),
                "# Neg": (10, self.count_actual_negative),
            }
        )
        return f"{text}\n{self._note()}" if self.threshold_steps else text

    def to_json(self) -> str:
        """DL4J's JSON."""
        return java.json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """DL4J's JSON as plain Python types."""
        return {
            "@class": CLASSIFICATION + "ROCBinary",
            "underlying": [self._one(c) for c in range(self.num_columns())],
            "thresholdSteps": self.threshold_steps,
            "rocRemoveRedundantPts": self.remove_redundant,
            "labels": self.labels,
            "axis": 1,
        }


class ROCMultiClass(NamedCurves):
    """A ROC curve for each class of a classifier against all others.

    Args:
        threshold_steps, remove_redundant, metric, kwargs: as in :class:`ROC`.
        labels: the names of the classes.

    Example:
        >>> roc = ROCMultiClass()
        >>> p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.5, 0.4]])
        >>> roc.update(p, torch.tensor([0, 1, 2]))
        >>> [roc.calculate_auc(c) for c in range(3)]
        [1.0, 0.5, 1.0]

    DL4J: org.nd4j.evaluation.classification.ROCMultiClass
    """

    def update(
        self, predictions: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            predictions: probabilities ``[n, classes]``, or with axes behind.
            labels: one-hot in the same shape, or class indices without the classes.
            mask: without the classes; rows where it is 0 do not count.
        """
        check_tensors(predictions, labels, mask)
        shape = predictions.shape
        if predictions.ndim < 2 or shape[1] < 2:
            raise ValueError(
                "ROCMultiClass: predictions must be probabilities [n, classes] of 2 "
                f"classes or more, got {list(shape)}; ROC takes one"
            )
        p, k = as_rows(predictions), shape[1]
        keep = None if mask is None else mask_rows(mask, tuple(shape))
        if keep is not None and keep.shape[1] > 1:
            raise MaskMisfit(
                f"mask must be one number per row {[shape[0], *shape[2:]]}, got one "
                "per class"
            )
        if labels.shape == shape:
            y = as_rows(labels)
        elif labels.shape == (shape[0], *shape[2:]):
            index = labels.reshape(-1)
            if keep is not None:
                index = index.masked_fill(~keep[:, 0], 0)
            wrong = index[(index < 0) | (index >= k) | (index != index.long())]
            if len(wrong):
                raise ValueError(
                    f"labels must be class indices in [0, {k}), got {wrong[0].item()}"
                )
            y = torch.nn.functional.one_hot(index.long(), k)
        else:
            raise ValueError(
                f"labels must be one-hot {list(shape)} or class indices "
                f"{[shape[0], *shape[2:]]}, got {list(labels.shape)}"
            )
        if keep is not None:
            keep = keep.expand_as(p)
        self.count(*checked(p, y, keep, self._bounded), keep)

    def stats(self) -> str:
        """DL4J's table, a line per class."""
        if not self.num_columns():
            return NO_DATA
        text = self._table(
            {
                "AUC": (12, lambda c: java.fixed(self.calculate_auc(c))),
                "# Pos": (10, self.count_actual_positive),
                "# Neg": (10, self.count_actual_negative),
            }
        )
        text += f"Average AUC: {java.fixed(self.calculate_average_auc()):<12}"
        return f"{text}\n{self._note()}" if self.threshold_steps else text

    def to_json(self) -> str:
        """DL4J's JSON."""
        return java.json(
            {
                "@class": CLASSIFICATION + "ROCMultiClass",
                "thresholdSteps": self.threshold_steps,
                "rocRemoveRedundantPts": self.remove_redundant,
                "underlying": [self._one(c) for c in range(self.num_columns())],
                "labels": self.labels,
                "axis": 1,
            }
        )
