"""Scores that training goes by."""

from __future__ import annotations

import math


def check_score(score: float, iteration: int) -> None:
    """Refuse to step on a score that is no number.

    >>> check_score(1.5, 0)
    """
    if not math.isfinite(score):
        raise FloatingPointError(
            f"the score is {score} at iteration {iteration}; the parameters are those "
            "before this step: look for values in the batch that are not finite, lower "
            "the learning rate or set gradient_normalization(...)"
        )
