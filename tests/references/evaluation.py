"""Rates of a confusion matrix and errors of a regression, in NumPy float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def confusion(predicted: Array, actual: Array, k: int) -> Array:
    """[actual, predicted] counts."""
    table = np.zeros((k, k))
    for a, p in zip(actual, predicted, strict=True):
        table[int(a), int(p)] += 1
    return table


def per_class(table: Array) -> dict[str, Array]:
    """Every rate of every class; NaN for 0/0."""
    tp = np.diag(table)
    present, predicted, total = table.sum(1), table.sum(0), table.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        p, r = tp / predicted, tp / present
        f1 = np.where(tp > 0, 2 * tp / (predicted + present), 0 * p * r)
        spread = predicted * present * (total - predicted) * (total - present)
        return {
            "precision": p,
            "recall": r,
            "f1": f1,
            "g_measure": np.sqrt(np.nan_to_num(p) * np.nan_to_num(r)),
            "false_positive_rate": (predicted - tp) / (total - present),
            "false_negative_rate": (present - tp) / present,
            "matthews_correlation": (tp * total - predicted * present)
            / np.sqrt(spread),
        }


def macro(name: str, values: Array) -> float:
    """DL4J's macro average: which classes it leaves out, which it takes as 0."""
    if name in ("precision", "recall", "f1"):
        known = values[~np.isnan(values)]
        return float(known.mean()) if known.size else float("nan")
    return float((values if "matthews" in name else np.nan_to_num(values)).mean())


def regression(p: Array, y: Array) -> dict[str, Array]:
    """The measures of every column, from deviations."""
    error, dy, dp = p - y, y - y.mean(0), p - p.mean(0)
    rse = (error**2).sum(0) / (dy**2).sum(0)
    return {
        "mean_squared_error": (error**2).mean(0),
        "mean_absolute_error": np.abs(error).mean(0),
        "root_mean_squared_error": np.sqrt((error**2).mean(0)),
        "relative_squared_error": rse,
        "pearson_correlation": (dp * dy).sum(0)
        / np.sqrt((dp**2).sum(0) * (dy**2).sum(0)),
        "r_squared": 1 - rse,
    }
