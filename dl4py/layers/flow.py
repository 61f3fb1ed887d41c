"""What goes from step to step of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class Flow:
    """The result of one step.

    Args:
        x: its activations.
        mask: their mask.
        n: the number of examples; stacking changes it on the way.
        state: of a recurrent layer, what the next piece of the series starts from.
        score: of an output whose labels are known, a sum over examples; ``x`` is empty
            then unless another step reads it.
        order: of ND4J's array of ``x``, ``"c"`` or ``"f"``: that of random numbers.
    """

    x: Tensor
    mask: Tensor | None
    n: int
    state: Any = None
    score: Tensor | None = None
    order: str = "c"
