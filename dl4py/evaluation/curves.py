"""What an evaluation draws: curves of thresholds, diagrams of bins."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dl4py.evaluation import java
from dl4py.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "org.nd4j.evaluation.curves."


@dataclass(frozen=True, eq=False)
class Curve:
    """A line through points (x, y), vectors of float64."""

    java: ClassVar[str]
    axes: ClassVar[tuple[str, str]]  # what is drawn to the right and upwards

    @property
    def x(self) -> Tensor:
        raise NotImplementedError

    @property
    def y(self) -> Tensor:
        raise NotImplementedError

    @property
    def area(self) -> float:
        """Under the line, by the trapezoidal rule, added up from left to right."""
        width = (self.x[1:] - self.x[:-1]).abs()
        parts = width * ((self.y[1:] + self.y[:-1]) / 2)
        return float(parts.cpu().cumsum(0)[-1])

    def to_dict(self) -> dict[str, Any]:
        """DL4J's JSON as plain Python types."""
        fields = dataclasses.fields(self)
        content = {
            f.metadata.get("json", f.name): getattr(self, f.name) for f in fields
        }
        plain = {
            k: v.tolist() if isinstance(v, Tensor) else v for k, v in content.items()
        }
        return {"@class": CURVES + self.java, **plain}

    def to_json(self) -> str:
        """DL4J's JSON."""
        return java.json(self.to_dict())

    def plot(self, ax: Axes | None = None, label: str | None = None) -> Any:
        """Draw it; returns (figure, axes)."""
        figure, ax = canvas(type(self).__name__, ax, self.axes)
        ax.plot(self.x.tolist(), self.y.tolist(), label=label)
        return figure, ax


@dataclass(frozen=True, eq=False)
class RocCurve(Curve):
    """True over false positive rates, a point per threshold.

    DL4J: org.nd4j.evaluation.curves.RocCurve
    """

    threshold: Tensor
    fpr: Tensor
    tpr: Tensor

    java = "RocCurve"
    axes = "False positive rate", "True positive rate"

    @property
    def x(self) -> Tensor:
        return self.fpr

    @property
    def y(self) -> Tensor:
        return self.tpr

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "auc": self.area}


class Point(NamedTuple):
    """A point of a precision-recall curve."""

    idx: int
    threshold: float
    precision: float
    recall: float


class Confusion(NamedTuple):
    """What is counted at one threshold."""

    point: Point
    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve(Curve):
    """Precision over recall, a point per threshold, thresholds rising.

    DL4J: org.nd4j.evaluation.curves.PrecisionRecallCurve
    """

    threshold: Tensor
    precision: Tensor
    recall: Tensor
    tp: Tensor = field(metadata={"json": "tpCount"})
    fp: Tensor = field(metadata={"json": "fpCount"})
    fn: Tensor = field(metadata={"json": "fnCount"})
    total: int = field(metadata={"json": "totalCount"})

    java = "PrecisionRecallCurve"
    axes = "Recall", "Precision"

    @property
    def x(self) -> Tensor:
        return self.recall

    @property
    def y(self) -> Tensor:
        return self.precision

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "area": self.area}

    def point(self, index: int) -> Point:
        """The point of this number."""
        values = (self.threshold, self.precision, self.recall)
        return Point(index, *(float(v[index]) for v in values))

    def point_at_threshold(self, threshold: float) -> Point:
        """The first point of at least this threshold; of equal ones that which Java's
        binary search meets.
        """
        _check_share("threshold", threshold)
        t = self.threshold.tolist()
        low, high = 0, len(t) - 1
        while low <= high:
            middle = (low + high) // 2
            if t[middle] == threshold:
                return self.point(middle)
            low, high = (
                (middle + 1, high) if t[middle] < threshold else (low, middle - 1)
            )
        return self.point(low)

    def point_at_precision(self, precision: float) -> Point:
        """The point of the lowest threshold with at least this precision."""
        _check_share("precision", precision)
        found = (self.precision >= precision).nonzero()
        return self.point(int(found[0]) if len(found) else len(self.precision) - 1)

    def point_at_recall(self, recall: float) -> Point:
        """The point of the highest threshold with at least this recall; a lower one of
        the same recall if it is as precise.
        """
        _check_share("recall", recall)
        best = None
        for i in (self.recall >= recall).nonzero().flatten().flip(0).tolist():
            here = self.point(i)
            if best is None or (
                here.recall == best.recall and here.precision >= best.precision
            ):
                best = here
        return self.point(0) if best is None else best

    def confusion_at_point(self, index: int) -> Confusion:
        """The counts at a point."""
        tp, fp, fn = (int(v[index]) for v in (self.tp, self.fp, self.fn))
        return Confusion(self.point(index), tp, fp, fn, self.total - tp - fp - fn)

    def confusion_at_threshold(self, threshold: float) -> Confusion:
        """The counts at :meth:`point_at_threshold`."""
        return self.confusion_at_point(self.point_at_threshold(threshold).idx)


@dataclass(frozen=True, eq=False)
class ReliabilityDiagram(Curve):
    """The share of positives over the mean predicted probability, a point per bin.

    DL4J: org.nd4j.evaluation.curves.ReliabilityDiagram
    """

    title: str
    mean_predicted: Tensor = field(metadata={"json": "meanPredictedValueX"})
    fraction_positive: Tensor = field(metadata={"json": "fractionPositivesY"})

    java = "ReliabilityDiagram"
    axes = "Mean predicted probability", "Share of positives"

    @property
    def x(self) -> Tensor:
        return self.mean_predicted

    @property
    def y(self) -> Tensor:
        return self.fraction_positive


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width between two bounds.

    DL4J: org.nd4j.evaluation.curves.Histogram
    """

    title: str
    lower: float
    upper: float
    counts: tuple[int, ...]

    def edges(self) -> list[float]:
        """The bounds of the bins, one more than there are bins."""
        width = (self.upper - self.lower) / len(self.counts)
        return [self.lower + i * width for i in range(len(self.counts) + 1)]

    def to_dict(self) -> dict[str, Any]:
        """DL4J's JSON as plain Python types."""
        return {
            "@class": CURVES + "Histogram",
            "title": self.title,
            "lower": self.lower,
            "upper": self.upper,
            "binCounts": list(self.counts),
        }

    def to_json(self) -> str:
        """DL4J's JSON."""
        return java.json(self.to_dict())

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the bars; returns (figure, axes)."""
        figure, ax = canvas("Histogram", ax, ("", "Count"))
        edges = self.edges()
        ax.bar(edges[:-1], self.counts, edges[1] - edges[0], align="edge")
        ax.set_title(self.title)
        return figure, ax


def canvas(name: str, ax: Axes | None, labels: tuple[str, str]) -> tuple[Figure, Axes]:
    """The axes to draw on, new ones if there are none."""
    need("matplotlib", f"{name}.plot() draws")
    from matplotlib import pyplot

    if ax is None:
        _, ax = pyplot.subplots(layout="constrained")
    ax.set(xlabel=labels[0], ylabel=labels[1])
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure, ax


def exact_curves(
    scores: Tensor, positive: Tensor, remove_redundant: bool
) -> tuple[RocCurve, PrecisionRecallCurve]:
    """The curves of ROC(0): a point per example, sorted by falling score.

    Equal scores keep their order and stay points of their own, so that the area depends
    on it; what lies on a straight line between its neighbours is left out if
    ``remove_redundant``.

    Args:
        scores: ``[n]``.
        positive: ``[n]``, 1 or 0.
    """
    if not len(scores):  # masked out as a whole
        nan, none = (
            torch.full((2,), torch.nan, dtype=torch.float64),
            torch.zeros(2).long(),
        )
        ends = nan.new_tensor([1.0, 0.0])
        empty = PrecisionRecallCurve(ends.flip(0), nan, nan, none, none, none, 0)
        return RocCurve(ends, nan, nan), empty
    scores, positive = _falling(scores, positive)
    tp = positive.cumsum(0, dtype=torch.int64)
    n, positives = len(scores), int(tp[-1])
    negatives = n - positives
    ranks = torch.arange(1, n + 1, device=tp.device)
    # DL4J divides by ND4J's linspace(1, n), which rounds: 15.000000000000002
    share = (ranks - 1).double() / max(n - 1, 1)
    precision = tp.double() / ((1 - share) + share * n)
    bends = straight = torch.arange(n, device=tp.device)
    if remove_redundant and positives and negatives:
        # an axis stands still at both sides; the last one meets the end
        bends = (positive[1:] != positive[:-1]).nonzero().squeeze(1)
    if remove_redundant:
        ends = precision.new_tensor([1.0, positives / n])
        around = torch.cat([ends[:1], precision, ends[1:]])
        level = around[1:] == around[:-1]
        still = torch.cat([positive == 0, positive.new_ones(1) == 1])
        if not positives:  # recalls of 0 / 0
            still = torch.zeros_like(still)
        flat = (level[:-1] & level[1:]) | (still[:-1] & still[1:])
        straight = flat.logical_not_().nonzero().squeeze(1)
    return (
        _roc(scores, tp, bends, positives, negatives),
        _precision_recall(scores, tp, precision, straight, positives),
    )


def _roc(
    scores: Tensor, tp: Tensor, at: Tensor, positives: int, negatives: int
) -> RocCurve:
    """The curve through the points of sorted scores ``at`` these places."""
    tps = tp[at]
    rates = (at + 1 - tps).double() / negatives, tps.double() / positives
    t, (fpr, tpr) = scores[at].double(), rates
    zero, one = t.new_zeros(1), t.new_ones(1)
    return RocCurve(
        torch.cat([one, t, zero]),
        torch.cat([zero, fpr, one]),
        torch.cat([zero, tpr, one]),
    )


def _precision_recall(
    scores: Tensor, tp: Tensor, precision: Tensor, at: Tensor, positives: int
) -> PrecisionRecallCurve:
    n, at = len(scores), at.flip(0)
    tps, t = tp[at], scores[at].double()
    fps = at + 1 - tps
    zero, one = t.new_zeros(1), t.new_ones(1)
    none, all = tp.new_zeros(1), tp.new_full((1,), positives)
    return PrecisionRecallCurve(
        torch.cat([zero, t, one]),
        torch.cat([one * positives / n, precision[at], one]),
        torch.cat([one, tps.double() / positives, zero]),
        torch.cat([all, tps, none]),
        torch.cat([n - all, fps, none]),
        torch.cat([none, positives - tps, all]),
        n,
    )


def _falling(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Both by falling score, equal ones in the order in which they came."""
    packs = scores.is_cpu and scores.dtype != torch.float64 and len(scores) < 1 << 31
    if not packs:
        order = scores.sort(descending=True, stable=True).indices
        return scores[order], positive[order]
    # whole numbers that sort alike: a score's bits, its place, its label behind. NumPy
    # sorts these ten times as fast as ATen sorts floats with their indices
    bits = (scores.float() + 0.0).view(torch.int32)  # of -0 those of 0
    bits = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).bitwise_not_()
    keys = bits.long() << 32
    keys += torch.arange(0, 2 * len(keys), 2)
    keys += positive
    keys.numpy().sort()
    positive = (keys & 1).to(positive.dtype)
    bits = (keys >> 32).int().bitwise_not_()
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return bits.view(torch.float32).to(scores.dtype), positive


def stepped_curves(
    thresholds: Tensor, tp: Tensor, fp: Tensor, positives: int, negatives: int
) -> tuple[RocCurve, PrecisionRecallCurve]:
    """The curves of ROC(steps) from how many scores reach each threshold."""
    tp, fp = tp.cpu(), fp.cpu()
    t, tps, fps = thresholds.cpu(), tp.double(), fp.double()
    nothing = (tp + fp) == 0
    precision = torch.where(nothing, 1.0, tps / (tps + fps))
    recall = tps / positives if positives else torch.ones_like(tps)
    return (
        RocCurve(t, fps / negatives, tps / positives),
        PrecisionRecallCurve(
            t, precision, recall, tp, fp, positives - tp, positives + negatives
        ),
    )


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1 or math.isnan(value):
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
