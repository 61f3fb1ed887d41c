"""What all losses share: masks, weights, reductions, checks, DL4J's gradient rules."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dl4py import activations
from dl4py.activations.base import arguments, gradient_of
from dl4py.ops.head import head
from dl4py.ops.sums import sum_loss


class Loss(nn.Module):
    """Base of all losses; a subclass states ``scores(a, y)``, one number per element.

    score = Σⱼ mᵢⱼ·wⱼ·scores(aᵢ, yᵢ)ⱼ over outputs j, then the mean over examples i

    Args:
        activation: applied to the output first; see :func:`dl4py.activations.get`.
        dl4j_exact: DL4J's own finite numbers where they differ (see ``differs``). For
            every loss these include ``shared_difference``.

    Shape:
        output ``[n, K]``, labels ``[n, K]``, mask ``[n]``, ``[n, 1]`` or ``[n, K]``.
        Masked labels may be anything, NaN included (not with ``dl4j_exact``).

    Attributes:
        json: constructor argument → key in DL4J's JSON, where it is not the camelCase.
        additive: the score is a sum over examples.
        coupled: a label takes part in the terms of other outputs.
        output_masks: ``[n, K]`` masks have a meaning.
        fused_from: elements from which a kernel of ``summand`` is faster than its
            composition, forward and backward on one thread of a CPU.
    """

    json: ClassVar[dict[str, str]] = {}
    additive: ClassVar[bool] = True
    coupled: ClassVar[bool] = False
    output_masks: ClassVar[bool] = True
    fused_from: ClassVar[int] = 1 << 18
    shared_difference: ClassVar[str] = (
        "per-output masks enter DL4J's gradient before and after the activation"
    )
    weights: tuple[float, ...] | None = None
    activation: nn.Module
    dl4j_exact: bool

    def __init__(
        self, activation: Any = "identity", *, dl4j_exact: bool = False
    ) -> None:
        super().__init__()
        self.dl4j_exact = dl4j_exact
        self.activation = activations.get(activation, dl4j_exact=dl4j_exact)

    def forward(
        self, output: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return self.score(output, labels, mask)

    def score(
        self,
        output: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        average: bool = True,
    ) -> Tensor:
        """The mean over all examples, or their plain sum; differentiable."""
        parts: Tensor = head(self._parts, output, labels, mask, average)
        if parts.ndim == 0:
            return parts
        total = parts.sum()
        return total / max(output.shape[0], 1) if average else total

    def per_example(
        self, output: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The score of each example, ``[n]``."""
        parts: Tensor = head(self._parts, output, labels, mask)
        return parts if parts.ndim == 1 else parts.sum(1)

    def differs(self, dtype: torch.dtype = torch.float64) -> str | None:
        """What ``dl4j_exact`` changes beside ``shared_difference``, in one line."""
        inner = getattr(self.activation, "differs", None)
        notes = [self.fault(), inner(dtype) if inner else None]
        return "; ".join(note for note in notes if note) or None

    # what a loss states about itself

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        """DL4J's score of each element, from activations: ``[n, K]`` or ``[n, 1]``."""
        raise NotImplementedError(f"{type(self).__name__} must state scores(a, y)")

    def terms(self, z: Tensor, y: Tensor) -> Tensor:
        """The same from pre-activations, where that is more stable."""
        return self.scores(self.activation(z), y)

    def summand(self, k: int) -> tuple[str, float, float] | None:
        """Name, own number and factor of :func:`dl4py.ops.sums.sum_loss`, if any.

        The kernel computes ``scores`` and, with ``dl4j_exact``, ``slope``.
        """
        return None

    def fused(
        self, z: Tensor, labels: Tensor, m: Tensor | None, average: bool
    ) -> Tensor | None:
        """Scores of examples ``[n]``, or their mean, where one kernel does it."""
        # a subclass may have overridden what the kernel computes
        f = vars(type(self.activation)).get("kernel")
        if (
            f is None
            or "summand" not in vars(type(self))
            or z.numel() < self.fused_from
        ):
            return None
        found = self.summand(z.shape[1])
        if found is None or (self.dl4j_exact and per_output(m, z)):
            return None
        loss, p, by = found
        w = None if self.weights is None else self._weights(z)

        def compose(z: Tensor, y: Tensor) -> Tensor:
            return self._terms(z, y, m).sum(1)

        return sum_loss(
            loss, f, z, self.encode(labels, z), w, column(m, z), compose, p, by, average
        )

    def source(self, z: Tensor, y: Tensor) -> Tensor | None:
        """What has DL4J's gradient, where the score itself has another."""
        return None

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """DL4J's score of each element, as ``terms`` where that is not finite."""
        return self.scores(self.activation(z), y)

    def fault(self) -> str | None:
        """What ``dl4j_exact`` changes in this loss, without its activation's part."""
        return None

    def encode(self, labels: Tensor, z: Tensor) -> Tensor:
        """Labels as values ``[n, K]`` in the dtype of ``z``."""
        if labels.shape != z.shape:
            n, k = z.shape
            hint = "one row of values per example"
            if labels.numel() == n and k > 1:
                hint = (
                    "class indices need SPARSE_MCXENT, or "
                    f"torch.nn.functional.one_hot(labels, {k})"
                )
            elif labels.numel() == z.numel():
                hint = "use labels.reshape(output.shape)"
            raise ValueError(
                f"{self._name}: labels must be [n, K] = {list(z.shape)} as the output, "
                f"got {list(labels.shape)}: {hint}"
            )
        return labels.to(z.dtype)

    # what is the same for all of them

    @property
    def link(self) -> str | None:
        """``"softmax"`` or ``"sigmoid"``: their logarithms come from the logits."""
        return LINKS.get(type(self.activation))

    def logarithm(self, of: str) -> Callable[[Tensor], Tensor] | None:
        """The activation's own ``"log"``, ``"log_below"`` or ``"log_above"``, if any.

        See :class:`dl4py.activations.base.Activation`.
        """
        own = vars(type(self.activation)).get(of)  # a subclass may have overridden f
        return None if own is None else functools.partial(own, self.activation)

    def times_log(
        self, y: Tensor, z: Tensor, *, below: bool = False, eps: float = 0.0
    ) -> Tensor:
        """y·ln f(z), 0 where y = 0 whatever f(z) is, and finite where f underflows.

        Args:
            below: of 1 - f instead.
            eps: f, or 1 - f, is clipped to [eps, 1 - eps].
        """
        own = self.logarithm("log_below" if below else "log")
        if own is None:
            a: Tensor = self.activation(z)
            a = 1 - a if below else a
            return times_log(y, a.clamp(eps, 1 - eps) if eps else a)
        log = own(z)
        log = log.clamp(math.log(eps), math.log1p(-eps)) if eps else log
        return y * log.masked_fill((y == 0) & ~log.isfinite(), 0.0)

    def exact_times_log(self, y: Tensor, z: Tensor) -> Tensor:
        """A function with DL4J's gradient of y·ln f(z), but finite: y/f(z)·f'(z)."""
        y = y.detach()
        if self.logarithm("log"):
            return self.times_log(y, z)
        a: Tensor = self.activation(z)
        return a * ratio(y, a).detach()

    def exact_terms(
        self, z: Tensor, y: Tensor, w: Tensor | None, m: Tensor | None
    ) -> Tensor:
        """DL4J's weighted and masked terms, with DL4J's gradient."""
        if per_output(m, y):
            z = scale_gradient(z, m)
        value, source = times(self.value(z, y), w, m), self.source(z, y)
        return value if source is None else gradient_of(times(source, w, m), value)

    def _parts(
        self,
        output: Tensor,
        labels: Tensor,
        mask: Tensor | None,
        average: bool = False,
    ) -> Tensor:
        """Scores of examples ``[n]``, their mean if ``average``, or their terms."""
        z = self._output(output, labels)
        m = self._mask(mask, z)
        # kernels know masks of examples that need no gradient
        if z.numel() and (m is None or (m.shape[1] == 1 and not m.requires_grad)):
            wide = z.float() if z.itemsize < 4 else z
            scores = self.fused(wide, labels, m, average)
            if scores is not None:
                return scores.to(z.dtype)
        return self._terms(output, labels, mask)

    def _terms(self, output: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
        """Weighted and masked terms, ``[n, K]`` or ``[n, 1]``."""
        z = self._output(output, labels)
        m = self._mask(mask, z)
        if m is not None and not self.dl4j_exact:
            labels = self._blank(labels, m)
        y = self.encode(labels, z)
        if m is not None and m.shape[1] not in (1, y.shape[1]):
            self._bad_mask(m.shape, z)
        w = None if self.weights is None else self._weights(z)
        if self.dl4j_exact:
            return self.exact_terms(z, y, w, m)
        return times(self.terms(z, y), w, m)

    def _output(self, output: Tensor, labels: Tensor) -> Tensor:
        if output.ndim != 2:
            raise ValueError(
                f"{self._name}: output must be [n, K], got {list(output.shape)}: move "
                "time steps or pixels into the first axis"
            )
        if not output.is_floating_point():
            raise ValueError(
                f"{self._name}: output must be floating, got {output.dtype}"
            )
        if labels.device != output.device:
            raise ValueError(
                f"{self._name}: labels are on {labels.device}, the output is on "
                f"{output.device}: use labels.to(output.device)"
            )
        if output.itemsize < 4 and torch.is_autocast_enabled(output.device.type):
            return output.float()
        return output

    def _mask(self, mask: Tensor | None, z: Tensor) -> Tensor | None:
        if mask is None:
            return None
        if mask.device != z.device:
            raise ValueError(
                f"{self._name}: mask is on {mask.device}, the output is on {z.device}: "
                "use mask.to(output.device)"
            )
        column = mask.unsqueeze(1) if mask.ndim == 1 else mask
        widths = (1, z.shape[1]) if self.output_masks else (1,)
        if (
            column.ndim != 2
            or column.shape[0] != z.shape[0]
            or column.shape[1] not in widths
        ):
            self._bad_mask(mask.shape, z)
        return column.to(z.dtype)

    def _bad_mask(self, shape: torch.Size, z: Tensor) -> None:
        n, k = z.shape
        wide = f" or [n, K] = [{n}, {k}]" if self.output_masks else ""
        raise ValueError(
            f"{self._name}: mask must be [n] = [{n}], [n, 1]{wide}, got {list(shape)}"
        )

    def _blank(self, labels: Tensor, m: Tensor) -> Tensor:
        """Labels with 1, a value every loss knows, where nothing counts."""
        fits = labels.ndim == 2 and labels.shape[0] == m.shape[0]
        if not fits or (m.shape[1] > 1 and (self.coupled or m.shape != labels.shape)):
            return labels
        return torch.where(m == 0, torch.ones_like(labels), labels)

    def _weights(self, z: Tensor) -> Tensor:
        assert self.weights is not None
        if len(self.weights) != z.shape[1]:
            raise ValueError(
                f"{self._name}: weights must have one entry per output "
                f"(K = {z.shape[1]}), got {len(self.weights)}"
            )
        return z.new_tensor(self.weights)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        return arguments(self)


class WeightedLoss(Loss):
    """Base of the losses that DL4J gives weights.

    Args:
        activation: as in :class:`Loss`.
        weights: one factor per output, not normalised.
    """

    def __init__(
        self,
        activation: Any = "identity",
        weights: Iterable[float] | None = None,
        *,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(activation, dl4j_exact=dl4j_exact)
        self.weights = self._checked_weights(weights)

    def _checked_weights(
        self, weights: Iterable[float] | None
    ) -> tuple[float, ...] | None:
        if weights is None:
            return None
        values = tuple(float(weight) for weight in weights)
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(
                f"{self._name}(weights=...) must be finite numbers, one per output, "
                f"got {list(values)}"
            )
        return values


LINKS: dict[type, str] = {
    activations.Softmax: "softmax",
    activations.Sigmoid: "sigmoid",
}


def column(m: Tensor | None, z: Tensor) -> Tensor | None:
    """A mask of examples as kernels take it, ``[n]``."""
    return None if m is None else m.squeeze(1).to(z.dtype)


def times(t: Tensor, *factors: Tensor | None) -> Tensor:
    """The product of what is there."""
    for factor in factors:
        t = t if factor is None else t * factor
    return t


def times_log(y: Tensor, a: Tensor) -> Tensor:
    """y·ln a, 0 with gradient 0 where y = 0 whatever a is."""
    return y * a.masked_fill(y == 0, 1.0).log()


def ratio(y: Tensor, a: Tensor) -> Tensor:
    """y/a, finite for every a: DL4J's infinities and 0/0 are not imitated."""
    limits = torch.finfo(a.dtype)
    return (y / a).masked_fill(y == 0, 0.0).clamp(limits.min, limits.max)


def per_output(m: Tensor | None, y: Tensor) -> bool:
    """DL4J's test; a ``[n, 1]`` mask of ``[n, 1]`` labels counts as one per output."""
    return m is not None and m.shape == y.shape


def scale_gradient(z: Tensor, *factors: Tensor | None) -> Tensor:
    """``z``, whose gradient is multiplied by the factors."""
    return (
        gradient_of(times(z, *factors), z) if any(f is not None for f in factors) else z
    )
