"""The evaluation of classifiers: a metric that counts a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dl4py.evaluation.rates import NAN
from dl4py.evaluation.report import Report
from dl4py.evaluation.rows import (
    RowMetric,
    as_rows,
    check_tensors,
    mask_rows,
)
from dl4py.extras import need
from dl4py.losses.misfit import MaskMisfit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Evaluation(Report, RowMetric):
    """Accuracy, precision, recall, F1 and more of a classifier, with DL4J's table.

    Per class, from its true and false positives and negatives::

        P   = TP / (TP + FP)      F_β = (1 + β²)·P·R / (β²·P + R)
        R   = TP / (TP + FN)      G   = √(P·R)
        FPR = FP / (FP + TN)      MCC = (TP·TN - FP·FN)
        FNR = FN / (FN + TP)            / √((TP+FP)·(TP+FN)·(TN+FP)·(TN+FN))

    0/0 is 0 unless ``edge`` says otherwise, and F is 0 if P or R is. DL4J averages in
    its own way:

    - ``precision()``, ``recall()``, ``f1()`` and the two rates without arguments are
      the positive class's if there are two classes, else the macro average.
    - Macro P (R) leaves out classes never predicted (never present), macro F leaves
      out both; macro G, MCC, FPR and FNR leave out none.
    - With two classes, averages of F are class 1's, whatever the positive class.
    - Micro averages are the formulas on summed counts, but FNR = ΣFN / (ΣFN + ΣTN).

    What these rules leave undefined is NaN as in DL4J, whose tables print it: MCC of a
    class with a zero factor, averages of F where no class has one.

    In a LightningModule: ``self.evaluation.update(p, y)`` in each validation step,
    ``self.log_dict(self.evaluation.compute())`` at the end of the epoch, then
    ``reset()``. Or ``self.scores = Evaluation.collection(3, prefix="val_")``, then
    ``self.scores.update(p, y)`` and ``self.log_dict(self.scores)`` in each step,
    since Lightning logs metrics that give one number.

    In a distributed run ``compute()`` covers all processes and the other methods this
    one; inside ``with evaluation.sync_context():`` they cover all. Give
    ``num_classes`` there, so that a process without data knows it.

    Args:
        num_classes: 2 or more; without it the first batch tells.
        labels: the names of the classes.
        top_n: ``top_n_accuracy()`` takes a row as right when fewer than ``top_n``
            classes are more probable than the true one; 1 or more.
        threshold: of two classes, class 1 is predicted above it; in [0, 1].
        cost_array: factors >= 0, one per class: argmax of cost · probability counts.
        positive: the positive class of two, 0 or 1; None for macro averages.
        metric: accuracy, precision, recall, f1, gmeasure or mcc, for ``compute()`` to
            give this number alone.
        kwargs: those of :class:`torchmetrics.Metric`.

    Example:
        >>> evaluation = Evaluation(labels=["cat", "dog", "emu"])
        >>> p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
        >>> evaluation.update(p, torch.tensor([0, 1, 2]))
        >>> evaluation.precision(0), evaluation.precision(), evaluation.recall()
        (0.5, 0.75, 0.6666666666666666)
        >>> print(evaluation.confusion_matrix())  # doctest: +ELLIPSIS
         0 1 2
        -------
         1 0 0 | 0 = cat
         1 0 0 | 1 = dog
         0 0 1 | 2 = emu
        ...

    DL4J: org.nd4j.evaluation.classification.Evaluation
    """

    shown = ("accuracy", "precision", "recall", "f1")
    numbers = (*shown, "gmeasure", "mcc")
    rising = numbers

    def __init__(
        self,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        top_n: int = 1,
        threshold: float | None = None,
        cost_array: Sequence[float] | Tensor | None = None,
        positive: int | None = 1,
        metric: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(metric, **kwargs)
        if isinstance(labels, str) or not all(isinstance(s, str) for s in labels or ()):
            raise TypeError(f"Evaluation(labels=...) must be names, got {labels!r}")
        self.labels = None if labels is None else tuple(labels)
        self.top_n = top_n
        self.threshold = threshold
        self.cost_array = None if cost_array is None else tuple(map(float, cost_array))
        self.binary_positive_class = positive
        self.sized = num_classes is not None
        k = self._check_arguments(num_classes)
        shape = (k, k) if k else ()
        self.add_state("confusion", torch.zeros(shape, dtype=torch.int64), "sum")
        self.add_state("top_n_correct", torch.tensor(0), "sum")

    def update(
        self, predictions: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> None:
        """Count a batch; of equal probabilities the first class is predicted.

        Args:
            predictions: probabilities ``[n, K]``, ``[n, K, time]`` or ``[n, K, height,
                width]``. With K = 1, or ``[n]``, that of class 1 of two, predicted
                above 0.5 or the threshold. Integers ``[n]`` are class indices.
            labels: one-hot or soft in the same shape, or class indices in that shape
                with K left out or 1.
            mask: shaped like such class indices; rows where it is 0 are ignored,
                whatever they hold.
        """
        p, y = _rows(predictions, labels, mask)
        single, indices = p.shape[1] == 1, not p.is_floating_point()
        k = self.num_classes if indices else 2 if single else p.shape[1]
        if not k:
            raise ValueError(
                "predictions of class indices [n] need Evaluation(num_classes=...)"
            )
        if k != self.num_classes != 0:
            raise ValueError(
                f"predictions {list(predictions.shape)} have {k} classes, this "
                f"Evaluation counts {self.num_classes}"
            )
        if single and (self.top_n > 1 or self.cost_array is not None):
            raise ValueError(
                "Evaluation with top_n or cost_array needs predictions [n, K] with a "
                f"probability per class, got {list(predictions.shape)}"
            )
        predicted = _indices("predictions", p, k) if indices else self._predict(p)
        if y.shape[1] > 1:
            actual = y.argmax(1)
        elif single and not indices:
            actual = _between("labels", y, 0, 1)[:, 0].gt(0.5).long()
        else:
            actual = _indices("labels", y, k)
        pairs = torch.bincount(k * actual + predicted, minlength=k * k)
        self.confusion = self.confusion + pairs.reshape(k, k)
        if self.top_n > 1:
            above = (p > p.gather(1, actual.unsqueeze(1))).sum(1)
            self.top_n_correct = self.top_n_correct + (above < self.top_n).sum()

    def compute(self) -> Any:
        """Accuracy, precision, recall and f1, as the methods of these names without
        arguments give them, or ``metric`` alone; NaN where no row counted.
        """
        names = self.shown if self.metric is None else (self.metric,)
        known = self.num_row_counter() > 0
        values = [self.score_for_metric(name) if known else NAN for name in names]
        found = torch.tensor(values, device=self.device)
        return dict(zip(names, found, strict=True)) if self.metric is None else found[0]

    def plot(self, val: Any = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the confusion matrix, or numbers.

        Args:
            val: counts as in ``confusion``; or what ``compute()`` or a call returned,
                or a list of such results as steps of a curve. Default: ``confusion``.
            ax: where to draw; a new figure without it.
        """
        need("matplotlib", f"{type(self).__name__}.plot() draws")
        if val is None:
            if not self.num_classes:
                raise RuntimeError("Evaluation: nothing is evaluated yet")
            val = self.confusion
        if isinstance(val, Tensor) and val.ndim == 2:
            return self._draw(val.tolist(), ax)
        return super().plot(val, ax)

    def _predict(self, p: Tensor) -> Tensor:
        if p.shape[1] == 1 or self.threshold is not None:
            threshold = 0.5 if self.threshold is None else self.threshold
            return (p[:, -1] > threshold).long()
        if self.cost_array is not None:
            p = p * p.new_tensor(self.cost_array)
        return p.max(1).indices  # as argmax, in less time

    def _check_arguments(self, num_classes: int | None) -> int | None:
        """The number of classes, if the arguments tell it."""

        def refuse(name: str, expected: str, got: object) -> ValueError:
            return ValueError(f"Evaluation({name}=...) must be {expected}, got {got!r}")

        if not isinstance(self.top_n, int) or self.top_n < 1:
            raise refuse("top_n", "a whole number >= 1", self.top_n)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise refuse("threshold", "in [0, 1]", self.threshold)
        costs = self.cost_array
        if costs is not None and not all(0 <= cost < math.inf for cost in costs):
            raise refuse("cost_array", "finite and >= 0", costs)
        if self.binary_positive_class not in (None, 0, 1):
            raise refuse("positive", "0, 1 or None", self.binary_positive_class)
        if costs is not None and self.threshold is not None:
            raise ValueError("Evaluation takes a threshold or a cost_array, not both")
        sizes = {
            "num_classes": num_classes,
            "labels": None if self.labels is None else len(self.labels),
            "threshold": None if self.threshold is None else 2,
            "cost_array": None if costs is None else len(costs),
        }
        said = {name: k for name, k in sizes.items() if k is not None}
        for name, k in said.items():
            if not isinstance(k, int) or k < 2:
                raise refuse(name, "for 2 classes or more", k)
        if len(set(said.values())) > 1:
            raise ValueError(f"Evaluation got different numbers of classes: {said}")
        return next(iter(said.values()), None)


def _rows(
    predictions: Tensor, labels: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The rows that count, ``[rows, K]`` or ``[rows, 1]`` each."""
    check_tensors(predictions, labels, mask)
    if predictions.ndim == 1:
        predictions = predictions.unsqueeze(1)
    elif predictions.ndim == 0 or not predictions.is_floating_point():
        raise ValueError(
            "predictions must be probabilities [n, K, ...] or class indices [n], got "
            f"{list(predictions.shape)} of {predictions.dtype}"
        )
    shape = tuple(predictions.shape)
    n, _, *rest = shape
    if labels.shape == (n, *rest):
        labels = labels.unsqueeze(1)
    elif tuple(labels.shape) not in ((n, 1, *rest), shape):
        raise ValueError(
            f"labels must be one-hot {list(shape)} or class indices {[n, *rest]} for "
            f"predictions {list(shape)}, got {list(labels.shape)}"
        )
    p, y = as_rows(predictions), as_rows(labels)
    if y.dtype == torch.bool:
        y = y.long()
    if mask is not None:
        keep = mask_rows(mask, shape)
        if keep.shape[1] > 1:
            raise MaskMisfit(
                f"mask must be one number per row {[n, *rest]}, got one per class "
                f"{list(mask.shape)}: an Evaluation compares whole rows"
            )
        p, y = p[keep[:, 0]], y[keep[:, 0]]
    for name, value in {"predictions": p, "labels": y}.items():
        if _has_nan(value):
            raise ValueError(f"{name} must not hold NaN where the mask is not 0")
    return p, y


def _has_nan(x: Tensor) -> bool:
    if not x.is_floating_point():
        return False
    # one NaN makes a sum NaN; so do infinities, which are looked at again
    return bool(x.sum().isnan()) and bool(x.isnan().any())


def _between(name: str, x: Tensor, low: int, high: int) -> Tensor:
    if not x.numel():
        return x
    least, most = x.aminmax()
    if least < low or most > high:
        outside = x[(x < low) | (x > high)]
        raise ValueError(
            f"{name} must be in [{low}, {high}], got {outside[0].item()}: mask rows "
            "that do not count"
        )
    return x


def _indices(name: str, x: Tensor, k: int) -> Tensor:
    index = _between(name, x, 0, k - 1)[:, 0].long()
    if x.is_floating_point() and (index != x[:, 0]).any():
        raise ValueError(f"{name} must be whole class indices, got fractions")
    return index
