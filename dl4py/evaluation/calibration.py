"""How well the probabilities of a classifier are calibrated."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dl4py.evaluation import java
from dl4py.evaluation.columns import CLASSIFICATION
from dl4py.evaluation.curves import Histogram, ReliabilityDiagram
from dl4py.evaluation.rows import RowMetric, binary_rows, names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BLOCK = 1 << 17  # numbers that are counted at once: they stay in a core's cache


class EvaluationCalibration(RowMetric):
    """Reliability diagrams, residuals and probabilities of each class as histograms.

    A probability p of a class falls into the bin ⌊p · bins⌋, 1 into the last. A point
    of a reliability diagram is the share of rows of that class in a bin over their mean
    probability: on the diagonal, if 0.7 comes true in 7 of 10 cases. Residuals are
    |label - p|. Only counts and sums are kept.

    ``compute()`` is a number that DL4J does not have: the class-wise expected
    calibration error, for each class Σ |positives - Σp| / n over the bins, averaged
    (Kull et al., 2019); lower is better.

    Args:
        num_classes: how many there are; without it the first batch tells.
        reliability_bins: of the diagrams, 1 or more.
        histogram_bins: of the histograms, 1 or more.
        exclude_empty_bins: whether bins without a row have no point; else NaN.
        labels: the names of the classes, for ``plot()``.
        kwargs: those of :class:`torchmetrics.Metric`.

    Example:
        >>> evaluation = EvaluationCalibration(reliability_bins=2)
        >>> p = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.25, 0.75]])
        >>> evaluation.update(p, torch.tensor([[1, 0], [0, 1], [0, 1]]))
        >>> diagram = evaluation.reliability_diagram(0)
        >>> diagram.mean_predicted.tolist(), diagram.fraction_positive.tolist()
        ([0.25, 0.75], [0.0, 0.5])

    DL4J: org.nd4j.evaluation.classification.EvaluationCalibration
    """

    numbers = shown = ("ece",)
    positives: Tensor  # [bins, classes] of rows of the class
    totals: Tensor  # [bins, classes] of all rows
    sums: Tensor  # [bins, classes] of probabilities
    label_counts: Tensor  # [classes]
    prediction_counts: Tensor  # [classes]
    residuals: Tensor  # [bins, classes] of all rows
    residuals_of_class: Tensor  # [bins, classes] of rows of the class
    probabilities: Tensor  # [bins, classes] of all rows
    probabilities_of_class: Tensor  # [bins, classes] of rows of the class

    def __init__(
        self,
        num_classes: int | None = None,
        reliability_bins: int = 10,
        histogram_bins: int = 50,
        exclude_empty_bins: bool = True,
        labels: Sequence[str] | None = None,
        metric: str | None = "ece",
        **kwargs: Any,
    ) -> None:
        super().__init__(metric, **kwargs)
        sizes = {"reliability_bins": reliability_bins, "histogram_bins": histogram_bins}
        if num_classes is not None:
            sizes["num_classes"] = num_classes
        for name, value in sizes.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"EvaluationCalibration({name}=...) must be a whole number >= 1, "
                    f"got {value!r}"
                )
        self.reliability_bins = reliability_bins
        self.histogram_bins = histogram_bins
        self.exclude_empty_bins = exclude_empty_bins
        self.labels = names("EvaluationCalibration", labels)
        k = len(self.labels) if self.labels is not None else num_classes
        if num_classes not in (None, k):
            raise ValueError(
                f"EvaluationCalibration got {num_classes} classes and {k} labels"
            )
        for name, size in self._sizes().items():
            shape = () if k is None else (size, k) if size else (k,)
            dtype = torch.float64 if name == "sums" else torch.int64
            self.add_state(name, torch.zeros(shape, dtype=dtype), "sum")

    def _sizes(self) -> dict[str, int]:
        """Each state and its number of bins, 0 for none."""
        found = dict.fromkeys(("positives", "totals", "sums"), self.reliability_bins)
        found |= dict.fromkeys(("label_counts", "prediction_counts"), 0)
        kinds = "residuals", "probabilities"
        found |= dict.fromkeys(
            [*kinds, *(f"{kind}_of_class" for kind in kinds)], self.histogram_bins
        )
        return found

    def update(
        self, predictions: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            predictions: probabilities ``[n, classes]``, or with axes behind.
            labels: one-hot, in the same shape.
            mask: without the classes, or in the same shape.
        """
        p, y, keep = binary_rows(predictions, labels, mask)
        k = p.shape[1]
        if k != self.num_classes() != 0:
            raise ValueError(
                f"predictions {list(predictions.shape)} have {k} classes, this "
                f"EvaluationCalibration counts {self.num_classes()}"
            )
        rows = max(1, BLOCK // k)
        added = [
            self._counts(p[at], y[at], None if keep is None else keep[at])
            for at in (slice(i, i + rows) for i in range(0, max(1, len(p)), rows))
        ]
        for name in added[0]:
            total = sum(counts[name] for counts in added)
            setattr(self, name, getattr(self, name) + total)

    def _counts(self, p: Tensor, y: Tensor, keep: Tensor | None) -> dict[str, Tensor]:
        """What rows add to the states."""
        k, size, large = p.shape[1], self.reliability_bins, self.histogram_bins
        hits = y if keep is None else y & keep
        at = hits.flatten().nonzero().squeeze(1)
        mine, column = p.flatten()[at], at % k
        # residuals are p where the label is 0: only those of the class are others
        residuals = _tallied(1 - mine, column, large, k)
        of_class = _tallied(mine, column, large, k)
        heights, sums = _counted(p, keep, large)
        if _nested(p, size, large):  # the diagram's bins are some of the histogram's
            positives, totals, sums = (
                x.reshape(size, -1, k).sum(1) for x in (of_class, heights, sums)
            )
        else:
            positives = _tallied(mine, column, size, k)
            totals, sums = _counted(p, keep, size)
        best = p.max(1).indices  # as argmax, in less time
        return {
            "positives": positives,
            "totals": totals,
            "sums": sums,
            "label_counts": positives.sum(0),
            "prediction_counts": _predicted(best, keep, k),
            "residuals": heights - of_class + residuals,
            "residuals_of_class": residuals,
            "probabilities": heights,
            "probabilities_of_class": of_class,
        }

    def compute(self) -> Any:
        """The class-wise expected calibration error; NaN without data."""
        dtype = torch.get_default_dtype()
        if not self.num_classes():
            error = torch.tensor(float("nan"), dtype=dtype)
        else:
            gaps = (self.positives - self.sums).abs().sum(0) / self.totals.sum(0)
            error = gaps.mean().to(dtype)
        return {"ece": error} if self.metric is None else error

    def num_classes(self) -> int:
        """How many classes there are, 0 while unknown."""
        return self.totals.shape[1] if self.totals.ndim else 0

    def _class(self, index: int) -> int:
        k = self.num_classes()
        if not k:
            raise RuntimeError(
                "EvaluationCalibration: nothing is evaluated yet; call "
                "update(predictions, labels) first"
            )
        if index not in range(k):
            raise ValueError(f"class must be in [0, {k}), got {index!r}")
        return index

    def reliability_diagram(self, index: int) -> ReliabilityDiagram:
        """The diagram of a class."""
        c = self._class(index)
        totals = self.totals[:, c].cpu().double()
        x, y = self.sums[:, c].cpu() / totals, self.positives[:, c].cpu() / totals
        if self.exclude_empty_bins:
            x, y = x[totals > 0], y[totals > 0]
        return ReliabilityDiagram(f"Reliability Diagram: Class {c}", x, y)

    def label_counts_each_class(self) -> list[int]:
        """How many rows have each class."""
        counts: list[int] = self.label_counts.tolist()
        return counts

    def prediction_counts_each_class(self) -> list[int]:
        """How many rows have each class as the most probable one, of equal ones the
        first.
        """
        counts: list[int] = self.prediction_counts.tolist()
        return counts

    def residual_plot(self, index: int | None = None) -> Histogram:
        """|label - p| of the rows of a class, or of all rows and classes."""
        if index is None:
            title = "Residual Plot - All Predictions and Classes"
            return self._histogram(title, self.residuals, None)
        title = f"Residual Plot - Predictions for Label Class {index}"
        return self._histogram(title, self.residuals_of_class, index)

    def probability_histogram(self, index: int | None = None) -> Histogram:
        """Probabilities of a class in its rows, or of all classes in all rows."""
        title = "Network Probabilities Histogram - "
        if index is None:
            title += "All Predictions and Classes"
            return self._histogram(title, self.probabilities, None)
        title += f"P(class {index}) - Data Labelled Class {index} Only"
        return self._histogram(title, self.probabilities_of_class, index)

    def _histogram(self, title: str, counts: Tensor, index: int | None) -> Histogram:
        c = self._class(index or 0)
        found = counts.sum(1) if index is None else counts[:, c]
        return Histogram(title, 0.0, 1.0, tuple(found.tolist()))

    def plot(self, val: Any = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the reliability diagram of every class, or, given it, the number of
        ``compute()`` in torchmetrics' picture.
        """
        if val is not None:
            return super().plot(val, ax)
        k = self._class(0) + self.num_classes()
        figure = None
        for c in range(k):
            label = self.labels[c] if self.labels else f"class {c}"
            figure, ax = self.reliability_diagram(c).plot(ax, label)
        assert ax is not None and figure is not None
        ax.plot([0, 1], [0, 1], linestyle=":", color="gray")
        ax.legend()
        return figure, ax

    def stats(self) -> str:
        """DL4J's line."""
        return f"EvaluationCalibration(nBins={self.reliability_bins})"

    def to_json(self) -> str:
        """DL4J's JSON."""
        self._class(0)
        row, table = java.array, java.table
        return java.json(
            {
                "@class": CLASSIFICATION + "EvaluationCalibration",
                "reliabilityDiagNumBins": self.reliability_bins,
                "histogramNumBins": self.histogram_bins,
                "excludeEmptyBins": self.exclude_empty_bins,
                "axis": 1,
                "rDiagBinPosCount": table(self.positives),
                "rDiagBinTotalCount": table(self.totals),
                "rDiagBinSumPredictions": table(self.sums),
                "labelCountsEachClass": row([self.label_counts_each_class()], "LONG"),
                "predictionCountsEachClass": row(
                    [self.prediction_counts_each_class()], "LONG"
                ),
                "residualPlotOverall": row([self.residuals.sum(1).double().tolist()]),
                "residualPlotByLabelClass": table(self.residuals_of_class.double()),
                "probHistogramOverall": row(
                    [self.probabilities.sum(1).double().tolist()]
                ),
                "probHistogramByLabelClass": table(
                    self.probabilities_of_class.double()
                ),
            }
        )


def _edges(x: Tensor, count: int) -> Tensor:
    """The bounds between bins of [0, 1]."""
    return x.new_tensor([i * (1.0 / count) for i in range(1, count)])


def _nested(x: Tensor, few: int, many: int) -> bool:
    """Whether the bounds of few bins are among those of many."""
    step = many // few
    if many % few:
        return False
    return torch.equal(_edges(x, few), _edges(x, many)[step - 1 :: step])


@functools.lru_cache(64)
def _factor(count: int) -> float | None:
    """What takes every float32 in [0, 1] to its bin, cut to a whole number.

    ``None``: nothing does, at each bound and at the number before it.
    """
    x = torch.zeros((), dtype=torch.float32, device="cpu")
    bounds = _edges(x, count)
    at, before = bounds.double(), bounds.nextafter(x).double()
    bins = torch.arange(1, count, dtype=torch.float64, device="cpu")
    factor = float(torch.cat([bins / at, bins.new_full((1,), count)]).max())
    fits = bool((at * factor >= bins).all() and (before * factor < bins).all())
    return factor if fits else None


def _bins(x: Tensor, count: int) -> Tensor:
    """The bin of each number in [0, 1]."""
    factor = _factor(count) if x.dtype == torch.float32 else None
    if factor is not None:
        return x.double().mul_(factor).int().clamp_(max=count - 1)
    edges = _edges(x, count)
    return torch.bucketize(x.contiguous(), edges, right=True, out_int32=True)


def _cells(x: Tensor, column: Tensor, size: int, columns: int) -> Tensor:
    """One number for each bin and column."""
    return _bins(x, size).mul_(columns).add_(column.int()).flatten()


def _counted(x: Tensor, keep: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """How many rows each bin has, and the sum of their numbers, ``[size, columns]``."""
    columns = x.shape[1]
    column = torch.arange(columns, device=x.device, dtype=torch.int32)
    cells = _cells(x, column, size, columns)
    if keep is not None:
        cells = cells.masked_fill(~keep.flatten(), size * columns)
    most = size * columns + 1
    counts = torch.bincount(cells, minlength=most)
    sums = torch.bincount(cells, x.double().flatten(), minlength=most)
    return counts[:-1].reshape(size, columns), sums[:-1].reshape(size, columns)


def _tallied(x: Tensor, column: Tensor, size: int, columns: int) -> Tensor:
    """How many of single numbers each bin of their columns has."""
    cells = _cells(x, column, size, columns)
    return torch.bincount(cells, minlength=size * columns).reshape(size, columns)


def _predicted(best: Tensor, keep: Tensor | None, k: int) -> Tensor:
    """How often each class is the most probable, where its column counts."""
    if keep is not None:
        best = best[keep.gather(1, best.unsqueeze(1)).squeeze(1)]
    return torch.bincount(best, minlength=k)
