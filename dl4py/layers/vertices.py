"""What stands between the layers of a graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dl4py import config
from dl4py.layers.flow import Flow
from dl4py.layers.part import Part, implements, module_of
from dl4py.layers.view import View
from dl4py.noise import Noise


class Vertex(Part):
    """Base of all vertices: ``vertex(*xs)`` on the arrays of its inputs."""

    def flow(self, given: Sequence[Flow], inputs: Mapping[str, Flow]) -> Flow:
        """What leaves the vertex when ``given`` comes in.

        Args:
            given: what leaves the steps that it reads.
            inputs: the network's inputs by name.
        """
        y = self(*(flow.x for flow in given))
        masks = [flow.mask for flow in given]
        return Flow(y, self.feed_mask(masks, given), self.count(given[0].n))

    def feed_mask(
        self, masks: Sequence[Tensor | None], given: Sequence[Flow]
    ) -> Tensor | None:
        """The mask of what leaves; by default the first input's."""
        return masks[0]

    def count(self, n: int) -> int:
        """How many examples leave when ``n`` come in."""
        return n


def either(masks: Sequence[Tensor | None]) -> Tensor | None:
    """1 where any of the masks is not 0; none where one is missing, as if it were 1."""
    known = [mask for mask in masks if mask is not None]
    if len(known) < len(masks):
        return None
    if len(known) == 1:
        return known[0]
    joined = torch.stack([mask != 0 for mask in known]).any(0)
    return joined.to(known[0].dtype)


@implements(config.MergeVertex)
class MergeVertex(Vertex):
    """
    Example:
        >>> MergeVertex()(torch.zeros(2, 3), torch.ones(2, 1)).shape
        torch.Size([2, 4])
    """

    leaves = "same"

    def forward(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, self.conf.merge_axis)

    def feed_mask(
        self, masks: Sequence[Tensor | None], given: Sequence[Flow]
    ) -> Tensor | None:
        return either(masks)


@implements(config.ElementWiseVertex)
class ElementWiseVertex(Vertex):
    """
    Example:
        >>> ElementWiseVertex("Max")(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 3.0]))
        tensor([2., 5.])
    """

    def follow(self, order: str) -> str:
        return order if self.conf.op == "Max" else "c"

    def forward(self, *xs: Tensor) -> Tensor:
        op, (first, *rest) = self.conf.op, xs
        if op == "Max":  # among equals the gradient goes to one
            alike = torch.broadcast_tensors(*xs)  # type: ignore[no-untyped-call]
            return torch.stack(alike).max(0)[0]
        for x in rest:
            if op == "Product":
                first = first * x
            else:
                first = first - x if op == "Subtract" else first + x
        return first / len(xs) if op == "Average" else first

    def feed_mask(
        self, masks: Sequence[Tensor | None], given: Sequence[Flow]
    ) -> Tensor | None:
        return either(masks)


@implements(config.SubsetVertex)
class SubsetVertex(Vertex):
    """
    Example:
        >>> SubsetVertex(1, 2)(torch.arange(4.0).view(1, 4))
        tensor([[1., 2.]])
    """

    leaves = "same"

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.conf.first : self.conf.last + 1]


@implements(config.StackVertex)
class StackVertex(Vertex):
    """
    Example:
        >>> StackVertex()(torch.zeros(2, 3), torch.ones(2, 3)).shape
        torch.Size([4, 3])
    """

    leaves = "same"

    def flow(self, given: Sequence[Flow], inputs: Mapping[str, Flow]) -> Flow:
        y = self(*(flow.x for flow in given))
        mask = None
        known = [flow.mask for flow in given if flow.mask is not None]
        if known:
            masks = [
                known[0].new_ones(
                    flow.x.shape[0],
                    *(flow.x.shape[2:] if flow.x.dim() == 3 else known[0].shape[1:]),
                )
                if flow.mask is None
                else flow.mask
                for flow in given
            ]
            mask = _stacked(masks, y.dim() == 3)
        return Flow(y, mask, sum(flow.n for flow in given))

    def forward(self, *xs: Tensor) -> Tensor:
        return _stacked(xs, xs[0].dim() == 3)


def _stacked(xs: Sequence[Tensor], series: bool) -> Tensor:
    """Examples below each other; DL4J fills shorter series up with 0."""
    if not series:
        return torch.cat(tuple(xs))
    longest = max(x.shape[-1] for x in xs)
    return torch.cat([F.pad(x, (0, longest - x.shape[-1])) for x in xs])


@implements(config.UnstackVertex)
class UnstackVertex(Vertex):
    """
    Example:
        >>> UnstackVertex(1, 2)(torch.arange(4.0).view(4, 1))
        tensor([[2.],
                [3.]])
    """

    leaves = "same"

    def forward(self, x: Tensor) -> Tensor:
        return self._block(x)

    def _block(self, t: Tensor) -> Tensor:
        step = t.shape[0] // self.conf.stack_size
        return t[self.conf.index * step : (self.conf.index + 1) * step]

    def feed_mask(
        self, masks: Sequence[Tensor | None], given: Sequence[Flow]
    ) -> Tensor | None:
        (mask,) = masks
        return None if mask is None else self._block(mask)

    def count(self, n: int) -> int:
        return n // int(self.conf.stack_size)


@implements(config.ScaleVertex)
class ScaleVertex(Vertex):
    """
    Example:
        >>> ScaleVertex(2.0)(torch.ones(1, 2))
        tensor([[2., 2.]])
    """

    leaves = "same"

    def forward(self, x: Tensor) -> Tensor:
        factor: float = self.conf.scale_factor
        return x * factor


@implements(config.ShiftVertex)
class ShiftVertex(Vertex):
    """
    Example:
        >>> ShiftVertex(2.0)(torch.ones(1, 2))
        tensor([[3., 3.]])
    """

    leaves = "same"

    def forward(self, x: Tensor) -> Tensor:
        shift: float = self.conf.shift_factor
        return x + shift


@implements(config.L2Vertex)
class L2Vertex(Vertex):
    """
    Example:
        >>> L2Vertex()(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[5.]])
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        square = (a - b).flatten(1).square().sum(1, keepdim=True)
        same = square == 0
        return square.masked_fill(same, 1.0).sqrt().masked_fill(same, 0.0)

    def feed_mask(
        self, masks: Sequence[Tensor | None], given: Sequence[Flow]
    ) -> Tensor | None:
        (mask, _), n = masks, given[0].x.shape[0]
        return mask if mask is not None and mask.numel() == n else None  # no steps left


@implements(config.L2NormalizeVertex)
class L2NormalizeVertex(Vertex):
    """
    Example:
        >>> L2NormalizeVertex()(torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """

    leaves = "same"

    def forward(self, x: Tensor) -> Tensor:
        axes = self.conf.dimension or tuple(range(1, x.dim()))
        square = x.square().sum(axes, keepdim=True)
        least = self.conf.eps**2
        return x / square.clamp(min=least or torch.finfo(x.dtype).tiny).sqrt()


@implements(config.ReshapeVertex)
class ReshapeVertex(Vertex):
    """
    Example:
        >>> ReshapeVertex((-1, 2, 2))(torch.zeros(3, 4)).shape
        torch.Size([3, 2, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.conf.new_shape
        whole = -1 in rest or math.prod(rest) == math.prod(x.shape[1:])
        if first > 0 and whole:  # of examples: graphs keep their number free
            first = x.shape[0]
        return x.reshape(first, *rest)

    def flow(self, given: Sequence[Flow], inputs: Mapping[str, Flow]) -> Flow:
        (g,) = given
        y = self(g.x)
        n = g.n if y.shape[0] == g.x.shape[0] else y.shape[0]
        return Flow(y, None if g.mask is None else self._mask(g.mask, y), n)

    def _mask(self, mask: Tensor, y: Tensor) -> Tensor:
        """The mask of the numbers of ``mask`` in the places that they have in ``y``."""
        if self.conf.mask_shape is not None:
            return mask.reshape(self.conf.mask_shape)
        n, wanted = y.shape[0], (y.shape[0], *y.shape[2:][: y.dim() == 3])
        if mask.numel() == math.prod(wanted):
            return mask if mask.dim() > 1 and mask.shape[0] == n else mask.view(wanted)
        if mask.numel() == n:  # of an example: of all its steps
            return mask.view(n, 1).expand(wanted)
        raise ValueError(
            f"ReshapeVertex: the mask {tuple(mask.shape)} does not fit what leaves, "
            f"{tuple(y.shape)}; give mask_shape=..."
        )


@implements(config.PreprocessorVertex)
class PreprocessorVertex(Vertex):
    """
    Example:
        >>> PreprocessorVertex(config.RnnToFeedForward())(torch.zeros(2, 3, 4)).shape
        torch.Size([8, 3])
    """

    def forward(self, x: Tensor, n: int | None = None) -> Tensor:
        done: Tensor = self.conf.preprocessor.apply(x, x.shape[0] if n is None else n)
        return done

    def flow(self, given: Sequence[Flow], inputs: Mapping[str, Flow]) -> Flow:
        (g,) = given
        mask = g.mask
        if mask is not None:
            mask = self.conf.preprocessor.feed_mask(mask, g.n)
        return Flow(self(g.x, g.n), mask, g.n)


@implements(config.PoolHelperVertex)
class PoolHelperVertex(Vertex):
    """
    Example:
        >>> PoolHelperVertex()(torch.zeros(1, 2, 3, 4)).shape
        torch.Size([1, 2, 2, 3])
    """

    leaves = "same"

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:, 1:]

    def feed_mask(
        self, masks: Sequence[Tensor | None], given: Sequence[Flow]
    ) -> Tensor | None:
        (mask,) = masks
        return mask if mask is None or mask.dim() < 4 else mask[:, :, 1:, 1:]


class _Timed(Vertex):
    """Base of vertices that look at the mask of a network input."""

    def flow(self, given: Sequence[Flow], inputs: Mapping[str, Flow]) -> Flow:
        name = self.conf.mask_input
        mask = None if name is None else inputs[name].mask
        (g,) = given
        return Flow(self(g.x, mask), self.feed_mask([g.mask], given), g.n)


@implements(config.LastTimeStepVertex)
class LastTimeStepVertex(_Timed):
    """
    Example:
        >>> x = torch.arange(6.0).view(1, 2, 3)
        >>> LastTimeStepVertex()(x, torch.tensor([[1, 1, 0]]))
        tensor([[1., 4.]])
    """

    leaves = "f"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return last_step(x, mask)

    def feed_mask(
        self, masks: Sequence[Tensor | None], given: Sequence[Flow]
    ) -> Tensor | None:
        return None


def last_step(x: Tensor, mask: Tensor | None) -> Tensor:
    """``[n, size]``: the last step of ``[n, size, time]`` whose mask is not 0."""
    if mask is None:
        return x[:, :, -1]
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = ((mask != 0) * steps).amax(1).clamp(min=1) - 1
    return x.gather(2, last.view(-1, 1, 1).expand(-1, x.shape[1], 1)).squeeze(2)


@implements(config.DuplicateToTimeSeriesVertex)
class DuplicateToTimeSeriesVertex(Vertex):
    """
    Example:
        >>> DuplicateToTimeSeriesVertex("in")(torch.zeros(2, 3), 5).shape
        torch.Size([2, 3, 5])
    """

    leaves = "f"

    def flow(self, given: Sequence[Flow], inputs: Mapping[str, Flow]) -> Flow:
        (g,), like = given, inputs[self.conf.input]
        return Flow(self(g.x, like.x.shape[2]), like.mask, g.n)

    def forward(self, x: Tensor, time: int) -> Tensor:
        return x.unsqueeze(2).expand(-1, -1, time)


@implements(config.ReverseTimeSeriesVertex)
class ReverseTimeSeriesVertex(_Timed):
    """
    Example:
        >>> x = torch.tensor([[[1.0, 2.0, 3.0]]])
        >>> ReverseTimeSeriesVertex()(x, torch.tensor([[1, 1, 0]]))
        tensor([[[2., 1., 0.]]])
    """

    leaves = "f"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return x.flip(2)
        shown = mask != 0
        # the k-th shown step from the front swaps with the k-th from the back
        rank = shown.cumsum(1)
        partner = rank[:, -1:] - rank  # shown steps behind this one
        order = torch.argsort((~shown).to(torch.int8), dim=1, stable=True)
        source = order.gather(1, partner.clamp(min=0, max=mask.shape[1] - 1))
        picked = x.gather(2, source.unsqueeze(1).expand_as(x))
        return picked.masked_fill(~shown.unsqueeze(1), 0.0)


@implements(config.FrozenVertex)
class FrozenVertex(Vertex):
    """
    Example:
        >>> FrozenVertex(config.ScaleVertex(2.0))(torch.ones(1, 2))
        tensor([[2., 2.]])
    """

    def build(self) -> None:
        inner = self.conf.underlying
        self.inner: Vertex = module_of(inner).from_config(inner, self.dl4j_exact)

    def draw(self, noise: Noise) -> None:
        self.inner.draw(noise)

    def follow(self, order: str) -> str:
        return self.inner.follow(order)

    def views(self) -> Iterator[View]:
        for view in self.inner.views():
            yield view.renamed(view.name, trained="never")

    def flow(self, given: Sequence[Flow], inputs: Mapping[str, Flow]) -> Flow:
        return self.inner.flow(given, inputs)

    def forward(self, *xs: Tensor) -> Tensor:
        y: Tensor = self.inner(*xs)
        return y
