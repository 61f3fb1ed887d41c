"""A network's parameters as DL4J sees them: flat vectors, and what penalises them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dl4py.clock import Clock
from dl4py.layers.view import View
from dl4py.ops.head import head
from dl4py.ops.sharding import gathered


class Parameters(nn.Module):
    """What a network says of its parameters; :class:`Network` has it."""

    clock: Clock
    dl4j_exact: bool
    _views: tuple[View, ...]

    def views(self) -> Iterator[View]:
        """Every parameter and statistic in the order of DL4J's flat vector."""
        return iter(self._views)

    def params(self) -> Tensor:
        """All parameters and statistics as one flat vector in DL4J's order, a copy.

        Of what is pruned or parametrized the present value counts: what layers compute
        with, and what ``dl4py.save`` writes.
        """
        parts = [view.flat(gathered(view.tensor.detach())) for view in self._views]
        return torch.cat(parts) if parts else torch.zeros(0)

    def num_params(self) -> int:
        """Length of :meth:`params`."""
        return sum(view.tensor.numel() for view in self._views)

    def set_params(self, values: Tensor) -> None:
        """Write a flat vector in DL4J's order into the parameters.

        Pruned places stay 0. What is parametrized must be able to follow from its value
        (torch's ``right_inverse``).
        """
        expected = self.num_params()
        if values.dim() != 1 or values.numel() != expected:
            raise ValueError(
                f"set_params(values): expected a vector of {expected} numbers, got "
                f"shape {tuple(values.shape)}"
            )
        start = 0
        with torch.no_grad():
            for view in self._views:
                count = view.tensor.numel()
                view.fill(values[start : start + count])
                start += count

    def penalty(self, whole: bool = False) -> Tensor:
        """What l1, l2 and weight decay add to the score.

        Args:
            whole: also what DL4J's score leaves out.
        """
        terms = [
            # not w, which is in the outputs
            gathered(head(r.score, w.view_as(w), self.clock))
            for w, rs in self.penalised(whole or not self.dl4j_exact)
            for r in rs
        ]
        first = next(self.parameters(), None)
        zero = torch.zeros(()) if first is None else first.new_zeros(())
        return torch.stack(terms).sum() if terms else gathered(zero)

    def penalised(self, whole: bool) -> Iterator[tuple[Tensor, tuple[Any, ...]]]:
        """(parameter, its penalties) wherever there are any; ``whole`` as above."""
        for view in self._views:
            found = view.penalties if whole or view.owner.scores_penalties else ()
            if found and view.trained == "always":
                yield view.tensor, found
