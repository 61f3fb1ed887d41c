"""Columns of scores and labels, kept or counted, and the curves of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dl4py.evaluation import java
from dl4py.evaluation.curves import (
    PrecisionRecallCurve,
    RocCurve,
    exact_curves,
    stepped_curves,
)
from dl4py.evaluation.rows import (
    RowMetric,
    names,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSIFICATION = "org.nd4j.evaluation.classification."
NO_DATA = "\n-- No Data --\n"


class Curves(RowMetric):
    """A ROC curve and a precision-recall curve for each column of scores.

    Args:
        threshold_steps: 0 keeps every score and label, as DL4J's exact mode does; from
            1 on that many steps of thresholds in [0, 1], and counts alone are kept:
            constant memory. ``None``: no curves.
        remove_redundant: whether points on a straight line between their neighbours
            are left out of exact curves.
        columns: how many columns there are; without it the first batch tells.
        metric, kwargs: as in :class:`RowMetric`.
    """

    shown: ClassVar[tuple[str, ...]] = ("auc", "auprc")
    numbers = rising = shown
    scores: list[Tensor] | Tensor  # [rows, columns] each
    actual: list[Tensor] | Tensor  # the same: 1 or 0, 2 where masked out
    reached: Tensor  # [2, steps + 1, columns]: negatives, positives at a threshold
    present: Tensor  # [2, columns]: negatives, positives

    def __init__(
        self,
        threshold_steps: int | None = 0,
        remove_redundant: bool = True,
        columns: int | None = None,
        metric: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(metric, **kwargs)
        steps = threshold_steps
        if steps is not None and (
            not isinstance(steps, int) or isinstance(steps, bool) or steps < 0
        ):
            raise ValueError(
                f"{type(self).__name__}(threshold_steps=...) must be a whole number "
                f">= 0 (0: exact), got {steps!r}"
            )
        self.threshold_steps = steps
        self.remove_redundant = remove_redundant
        shape: tuple[int, ...] = (2, columns) if columns else ()
        self.add_state("present", torch.zeros(shape, dtype=torch.int64), "sum")
        if steps == 0:
            self.add_state("scores", [], "cat")
            self.add_state("actual", [], "cat")
        elif steps:
            shape = (2, steps + 1, columns) if columns else ()
            self.add_state("reached", torch.zeros(shape, dtype=torch.int64), "sum")

    def thresholds(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The steps from 0 to 1."""
        assert self.threshold_steps
        step = 1.0 / self.threshold_steps
        steps = torch.arange(self.threshold_steps + 1, dtype=torch.float64)
        return (steps * step).to(dtype)

    def count(self, p: Tensor, y: Tensor, keep: Tensor | None) -> None:
        """Add rows of scores ``[rows, columns]``, with labels 0 and 1 as booleans."""
        columns = p.shape[1]
        if columns != self.num_columns() != 0:
            raise ValueError(
                f"predictions have {columns} columns, this {type(self).__name__} "
                f"counts {self.num_columns()}"
            )
        marks = y.to(torch.uint8)
        if keep is not None:
            marks = marks.masked_fill(~keep, 2)
        found = (
            torch.stack([y.logical_not(), y])
            if keep is None
            else torch.stack([marks == 0, marks == 1])
        )
        present = found.sum(1)
        if self.threshold_steps == 0:
            assert isinstance(self.scores, list) and isinstance(self.actual, list)
            self.scores = [*self.scores, p]
            self.actual = [*self.actual, marks]
        elif self.threshold_steps:
            steps = self.thresholds(p.dtype).to(p.device)
            bins = torch.bucketize(
                p.contiguous(), steps, right=True
            )  # how many it reaches
            size = len(steps) + 1
            cell = (marks.long() * size + bins) * columns
            cell = cell + torch.arange(columns, device=p.device)
            found = torch.bincount(cell.flatten(), minlength=3 * size * columns)
            found = found.reshape(3, size, columns)[:2, 1:]
            found = found.flip(1).cumsum(1).flip(1)
            found[:, -1] = 0  # DL4J: a threshold of 1 is not reached, even by 1
            self.reached = self.reached + found
        self.present = self.present + present

    @property
    def _bounded(self) -> bool:
        """Whether scores must be probabilities: exact curves sort any."""
        return self.threshold_steps != 0

    def num_columns(self) -> int:
        """How many columns there are, 0 while unknown."""
        return self.present.shape[1] if self.present.ndim else 0

    def compute(self) -> Any:
        """Means over the columns: auc, auprc, or ``metric`` alone; NaN without data."""
        columns = self.num_columns() if self.present.sum() else 0
        curves = [self.curves(c) for c in range(columns)]
        found = {
            "auc": _mean([roc.area for roc, _ in curves]),
            "auprc": _mean([pr.area for _, pr in curves]),
        }
        return found if self.metric is None else found[self.metric]

    def curves(self, column: int) -> tuple[RocCurve, PrecisionRecallCurve]:
        """Both curves of a column."""
        negatives, positives = self.present[:, self._column(column)].tolist()
        if self.threshold_steps:
            fp, tp = self.reached[:, :, column]
            return stepped_curves(self.thresholds(), tp, fp, positives, negatives)
        if self.threshold_steps is None:
            raise RuntimeError(
                f"this {type(self).__name__} keeps no curves: make it with roc_steps=0 "
                "(exact) or more"
            )
        scores, actual = (_joined(x)[:, column] for x in (self.scores, self.actual))
        if negatives + positives < len(actual):
            keep = actual != 2
            scores, actual = scores[keep], actual[keep]
        return exact_curves(scores, actual, self.remove_redundant)

    def _column(self, column: int) -> int:
        columns = self.num_columns()
        if not columns or not self.present.sum():
            raise RuntimeError(
                f"{type(self).__name__}: nothing is evaluated yet; call "
                "update(predictions, labels) first"
            )
        if column not in range(columns):
            raise ValueError(f"column must be in [0, {columns}), got {column!r}")
        return column

    def roc_curve(self, column: int = 0) -> RocCurve:
        """The ROC curve of a column."""
        return self.curves(column)[0]

    def precision_recall_curve(self, column: int = 0) -> PrecisionRecallCurve:
        """The precision-recall curve of a column."""
        return self.curves(column)[1]

    def calculate_auc(self, column: int = 0) -> float:
        """The area under the ROC curve; NaN where one class is missing."""
        return self.roc_curve(column).area

    def calculate_aucpr(self, column: int = 0) -> float:
        """The area under the precision-recall curve."""
        return self.precision_recall_curve(column).area

    def calculate_average_auc(self) -> float:
        """The mean of :meth:`calculate_auc` over the columns."""
        return self._average(self.calculate_auc)

    def calculate_average_aucpr(self) -> float:
        """The mean of :meth:`calculate_aucpr` over the columns."""
        return self._average(self.calculate_aucpr)

    def _average(self, of: Any) -> float:
        self._column(0)
        values = [of(c) for c in range(self.num_columns())]
        return float(sum(values) / len(values))

    def count_actual_positive(self, column: int = 0) -> int:
        """How many rows of a column are positive."""
        return int(self.present[1, self._column(column)])

    def count_actual_negative(self, column: int = 0) -> int:
        """How many rows of a column are negative."""
        return int(self.present[0, self._column(column)])

    def plot(self, val: Any = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the ROC curve of every column, or, given them, the numbers of
        ``compute()`` in torchmetrics' picture.
        """
        if val is not None:
            return super().plot(val, ax)
        titles, figure = self._names(), None
        for c in range(max(self.num_columns(), self._column(0) + 1)):
            curve = self.roc_curve(c)
            figure, ax = curve.plot(ax, f"{titles[c]} (AUC {curve.area:.3f})")
        assert ax is not None and figure is not None
        ax.plot([0, 1], [0, 1], linestyle=":", color="gray")
        ax.legend()
        return figure, ax

    def _names(self) -> Sequence[str]:
        return getattr(self, "labels", None) or [
            str(c) for c in range(self.num_columns())
        ]

    def _note(self) -> str:
        steps = self.threshold_steps
        return (
            f"[Note: Thresholded AUC/AUPRC calculation used with {steps} steps); "
            "accuracy may reduced compared to exact mode]"
        )

    def _table(self, cells: dict[str, Any]) -> str:
        """DL4J's table: a line of names, a line a column."""
        first = 5 + max(15, *map(len, self._names()))
        lines = [
            f"{'Label':<{first}}" + "".join(f"{n:<{w}}" for n, (w, _) in cells.items())
        ]
        for c, name in enumerate(self._names()):
            line = f"{name:<{first}}"
            lines.append(line + "".join(f"{of(c):<{w}}" for w, of in cells.values()))
        return "\n".join(lines)

    def _one(self, column: int) -> dict[str, Any]:
        """The JSON of DL4J's ROC for a column."""
        roc, pr = (curve.to_dict() for curve in self.curves(column))
        exact = not self.threshold_steps
        counts = {}
        if not exact:
            fp, tp = self.reached[:, :, column].tolist()
            counts = {
                java.double(t): {
                    "threshold": t,
                    "countTruePositive": tp[i],
                    "countFalsePositive": fp[i],
                }
                for i, t in enumerate(self.thresholds().tolist())
            }
        positives, negatives = (
            self.count_actual_positive(column),
            self.count_actual_negative(column),
        )
        return {
            "@class": CLASSIFICATION + "ROC",
            "thresholdSteps": self.threshold_steps,
            "countActualPositive": positives,
            "countActualNegative": negatives,
            "counts": counts,
            "auc": roc["auc"],
            "auprc": pr["area"],
            **({"rocCurve": roc, "prCurve": pr} if exact else {}),
            "isExact": exact,
            "exampleCount": positives + negatives,
            "rocRemoveRedundantPts": self.remove_redundant,
        }


class NamedCurves(Curves):
    """Curves of columns that may have names.

    Args:
        threshold_steps, remove_redundant, metric, kwargs: as in :class:`Curves`.
        labels: the names of the columns, which tell how many there are.
    """

    def __init__(
        self,
        threshold_steps: int = 0,
        remove_redundant: bool = True,
        labels: Sequence[str] | None = None,
        metric: str | None = None,
        **kwargs: Any,
    ) -> None:
        known = names(type(self).__name__, labels)
        columns = None if known is None else len(known)
        super().__init__(threshold_steps, remove_redundant, columns, metric, **kwargs)
        self.labels = known


def _joined(x: list[Tensor] | Tensor) -> Tensor:
    return torch.cat(x) if isinstance(x, list) else x


def _mean(values: list[float]) -> Tensor:
    found = torch.tensor(values, dtype=torch.get_default_dtype())
    return found.mean() if values else torch.tensor(float("nan"))
