"""The evaluation of regressions: errors and correlation per column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dl4py.evaluation import java
from dl4py.evaluation.rows import RowMetric, as_rows, check_tensors, mask_rows

EPSILON = 1e-5  # DL4J: Nd4j.EPS_THRESHOLD


class RegressionEvaluation(RowMetric):
    """Errors and correlation of each output column, with DL4J's table.

    For labels y and predictions p of a column over its n unmasked rows::

        MSE  = Σ(p - y)² / n      RSE = Σ(p - y)² / Σ(y - ȳ)²
        MAE  = Σ|p - y| / n       R²  = 1 - Σ(p - y)² / Σ(y - ȳ)²
        RMSE = √MSE               PC  = Σ(p - p̄)(y - ȳ) / √(Σ(p - p̄)² · Σ(y - ȳ)²)

    Methods take a column; without one they average over the columns. All come from
    running sums in float64, which Apple's MPS devices lack. As in DL4J, RSE is ∞ where
    Σ(y - ȳ)² is 1e-5 or less, and R² and PC of constant columns are NaN or ±∞.

    In a distributed run ``compute()`` covers all processes; give ``columns`` there.

    Args:
        columns: their number or their names; without it the first batch tells.
        precision: digits after the point in ``stats()``, 0 or more.
        metric: mse, mae, rmse, rse, pc or r2, for ``compute()`` to give this number
            alone; ``collection(...)`` has one metric each, for ``self.log_dict``.
        kwargs: those of :class:`torchmetrics.Metric`.

    Example:
        >>> evaluation = RegressionEvaluation(["height", "weight"])
        >>> labels = torch.tensor([[1.0, 5.0], [2.0, 7.0], [3.0, 9.0]])
        >>> evaluation.update(labels + torch.tensor([0.5, -1.0]), labels)
        >>> evaluation.mean_squared_error(0), evaluation.mean_squared_error()
        (0.25, 0.625)
        >>> evaluation.r_squared()
        0.625

    DL4J: org.nd4j.evaluation.regression.RegressionEvaluation
    """

    shown = numbers = ("mse", "mae", "rmse", "rse", "pc", "r2")
    rising = ("pc", "r2")
    sums: Tensor  # [8, columns] in the order of update(); a plain 0 until known

    def __init__(
        self,
        columns: int | Sequence[str] | None = None,
        precision: int = 5,
        metric: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(metric, **kwargs)
        if isinstance(columns, int):
            columns = [f"col_{i}" for i in range(columns)]
        if columns is not None and (
            isinstance(columns, str)
            or not columns
            or not all(isinstance(name, str) for name in columns)
        ):
            raise ValueError(
                "RegressionEvaluation(columns=...) must be a number >= 1 or names, got "
                f"{columns!r}"
            )
        if not isinstance(precision, int) or precision < 0:
            raise ValueError(
                "RegressionEvaluation(precision=...) must be a whole number >= 0, got "
                f"{precision!r}"
            )
        self.names = None if columns is None else tuple(columns)
        self.precision = precision
        shape = () if self.names is None else (8, len(self.names))
        self.add_state("sums", torch.zeros(shape, dtype=torch.float64), "sum")

    def update(
        self, predictions: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            predictions: ``[n, columns]``, ``[n, columns, time]``, ``[n, columns,
                height, width]``, or ``[n]`` for one column.
            labels: in the same shape.
            mask: in the same shape, or without the columns; 0 where nothing counts.
        """
        check_tensors(predictions, labels, mask)
        if predictions.shape != labels.shape or not predictions.ndim:
            raise ValueError(
                "predictions and labels must have one shape [n, columns, ...], got "
                f"{list(predictions.shape)} and {list(labels.shape)}"
            )
        if predictions.ndim == 1:
            predictions, labels = predictions.unsqueeze(1), labels.unsqueeze(1)
        columns = predictions.shape[1]
        if columns != self.num_columns() != 0:
            raise ValueError(
                f"predictions {list(predictions.shape)} have {columns} columns, this "
                f"RegressionEvaluation has {self.num_columns()}"
            )
        p, y = as_rows(predictions.detach()).double(), as_rows(labels.detach()).double()
        n = torch.ones_like(p)
        if mask is not None:
            keep = mask_rows(mask, tuple(predictions.shape))
            p, y, n = (torch.where(keep, x, 0.0) for x in (p, y, n))
        error = p - y
        terms = (n, y, p, error**2, error.abs(), p * y, y**2, p**2)
        self.sums = self.sums + torch.stack([term.sum(0) for term in terms])

    def compute(self) -> Any:
        """Averages over the columns: mse, mae, rmse, rse, pc, r2, or ``metric`` alone;
        NaN without data.
        """
        found = {
            name.lower(): values.mean().to(torch.get_default_dtype())
            for name, values in self._columns().items()
        }
        return found if self.metric is None else found[self.metric]

    def num_columns(self) -> int:
        """How many columns there are, 0 while unknown."""
        return self.sums.shape[1] if self.sums.ndim else 0

    def mean_squared_error(self, column: int | None = None) -> float:
        """Σ(p - y)² / n."""
        return self._value("MSE", column)

    def mean_absolute_error(self, column: int | None = None) -> float:
        """Σ|p - y| / n."""
        return self._value("MAE", column)

    def root_mean_squared_error(self, column: int | None = None) -> float:
        """√MSE."""
        return self._value("RMSE", column)

    def relative_squared_error(self, column: int | None = None) -> float:
        """Σ(p - y)² / Σ(y - ȳ)²."""
        return self._value("RSE", column)

    def pearson_correlation(self, column: int | None = None) -> float:
        """Σ(p - p̄)(y - ȳ) / √(Σ(p - p̄)² Σ(y - ȳ)²)."""
        return self._value("PC", column)

    correlation_r2 = pearson_correlation  # DL4J's old name, which does not square

    def r_squared(self, column: int | None = None) -> float:
        """1 - Σ(p - y)² / Σ(y - ȳ)²."""
        return self._value("R2", column)

    def score_for_metric(self, metric: str) -> float:
        """DL4J's ``scoreForMetric``: the average MSE, MAE, RMSE, RSE, PC or R2."""
        if metric.upper() not in self._columns():
            names = ", ".join(self._columns())
            raise ValueError(f"metric must be one of {names}, got {metric!r}")
        return self._value(metric.upper(), None)

    def stats(self) -> str:
        """DL4J's table, a line per column."""
        if not self.num_columns():
            return "RegressionEvaluation: No Data"
        names = self._titles()
        first, width = 5 + max(map(len, names)), 10 + self.precision
        columns = {name: values.tolist() for name, values in self._columns().items()}
        columns["R^2"] = columns.pop("R2")
        lines = [f"{'Column':<{first}}" + "".join(f"{c:<{width}}" for c in columns)]
        for i, name in enumerate(names):
            cells = [java.scientific(v[i], self.precision) for v in columns.values()]
            lines.append(f"{name:<{first}}" + "".join(f"{c:<{width}}" for c in cells))
        return "\n".join([*lines, ""])

    def to_json(self) -> str:
        """DL4J's JSON."""
        self._value("MSE", None)
        n, y, p, squared, absolute, py, yy, pp = (v.tolist() for v in self.sums.cpu())
        means = [(self.sums[i] / self.sums[0]).tolist() for i in (1, 2)]
        vectors = {
            "exampleCountPerColumn": n,
            "labelsSumPerColumn": y,
            "sumSquaredErrorsPerColumn": squared,
            "sumAbsErrorsPerColumn": absolute,
            "currentMean": means[0],
            "currentPredictionMean": means[1],
            "sumOfProducts": py,
            "sumSquaredLabels": yy,
            "sumSquaredPredicted": pp,
            "sumLabels": y,
        }
        return java.json(
            {
                "@class": "org.nd4j.evaluation.regression.RegressionEvaluation",
                "axis": 1,
                "initialized": True,
                "columnNames": list(self._titles()),
                "precision": self.precision,
                **{name: java.vector(values) for name, values in vectors.items()},
            }
        )

    def _titles(self) -> tuple[str, ...]:
        return self.names or tuple(f"col_{i}" for i in range(self.num_columns()))

    def _columns(self) -> dict[str, Tensor]:
        """Every measure for every column."""
        sums = self.sums if self.sums.ndim else self.sums.expand(8, 1)
        n, y, p, squared, absolute, py, yy, pp = sums.cpu().double()
        y_spread, p_spread = yy - y * y / n, pp - p * p / n
        rse = torch.where(y_spread.abs() > EPSILON, squared / y_spread, torch.inf)
        return {
            "MSE": squared / n,
            "MAE": absolute / n,
            "RMSE": (squared / n).sqrt(),
            "RSE": rse,
            "PC": (py - p * y / n) / (y_spread.sqrt() * p_spread.sqrt()),
            "R2": (y_spread - squared) / y_spread,
        }

    def _value(self, name: str, column: int | None) -> float:
        if not self.num_columns():
            raise RuntimeError(
                "RegressionEvaluation: nothing is evaluated yet; call "
                "update(predictions, labels) first"
            )
        values = self._columns()[name]
        if column is None:
            return float(values.mean())
        if column not in range(len(values)):
            raise ValueError(f"column must be in [0, {len(values)}), got {column!r}")
        return float(values[column])
