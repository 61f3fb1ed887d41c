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
from dl4py.losses.misfit import MaskMisfit
from dl4py.losses.terms import (
    column,
    per_output,
    ratio,
    scale_gradient,
    times,
    times_log,
    whole,
)
from dl4py.ops.head import head
from dl4py.ops.sharding import beside
from dl4py.ops.sums import sum_loss

LINKS: dict[type, str] = {
    activations.Softmax: "softmax",
    activations.Sigmoid: "sigmoid",
}


class Loss(nn.Module):
    """Base of all losses; a subclass states ``scores(a, y)``, one number per element.

    score = Σⱼ mᵢⱼ·wⱼ·scores(aᵢ, yᵢ)ⱼ over outputs j, then the mean over examples i

    Args:
        activation: applied to the output first; see :func:`dl4py.activations.get`.
        dl4j_exact: DL4J's own finite numbers where they differ (see ``differs``). For
            every loss these include ``shared_difference``.

    Shape:
        output ``[n, K]``, labels ``[n, K]``, mask ``[n]``, ``[n, 1]`` or ``[n, K]``.
        What is masked may be anything, NaN included, in output and labels: it adds
        exactly 0 to score and gradient. (A masked output still takes part in what
        others depend on, as in softmax, unless its row is masked altogether; and a
        mask that has a gradient itself multiplies.)
        Half types are computed in float32, and so is what ``score`` returns of them
        with ``average=False``.

    Attributes:
        json: constructor argument → key in DL4J's JSON, where it is not the camelCase.
        additive: the score is a sum over examples.
        coupled: a label takes part in the terms of other outputs.
        output_masks: ``[n, K]`` masks have a meaning.
    """

    json: ClassVar[dict[str, str]] = {}
    additive: ClassVar[bool] = True
    coupled: ClassVar[bool] = False
    output_masks: ClassVar[bool] = True
    shared_difference: ClassVar[str] = (
        "per-output masks enter DL4J's gradient before and after the activation, and "
        "in output layers they multiply what goes into the activation"
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
        reduction = "mean" if average else "sum"
        score: Tensor = head(self._judged, output, labels, mask, reduction)
        half = average and output.itemsize < 4
        return self._narrowed(score, output) if half else score

    def per_example(
        self, output: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The score of each example, ``[n]``."""
        scores: Tensor = head(self._judged, output, labels, mask, "none")
        return self._narrowed(scores, output)

    def covered(self, output: Tensor, mask: Tensor) -> Tensor:
        """The output times the mask, 0 where that is 0."""
        m = self._mask(mask, output)
        return (output * m).masked_fill(m == 0, 0)

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

        The kernel computes ``terms`` or, with ``dl4j_exact``, ``exact_terms``.
        """
        return None

    def fused(
        self, z: Tensor, labels: Tensor, m: Tensor | None, reduction: str
    ) -> Tensor | None:
        """Scores of examples, their mean or sum, where one kernel does it."""
        # a subclass may have overridden what the kernel computes
        own = vars(self._f)
        f = own.get("kernel")
        if "exact_kernel" in own and self.activation.dl4j_exact:
            f = own["exact_kernel"]
        if f is None or "summand" not in vars(type(self)):
            return None
        found = self.summand(z.shape[1])
        if found is None or (self.dl4j_exact and per_output(m, z)):
            return None
        loss, p, by = found
        w = None if self.weights is None else self._weights(z)

        def compose(z: Tensor, y: Tensor) -> Tensor:
            return self._weighted(z, y, m).sum(1)

        y = self.encode(labels, z)
        return sum_loss(loss, f, z, y, w, column(m), compose, p, by, reduction)

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
        return labels if labels.dtype is z.dtype else labels.to(z.dtype)

    # what is the same for all of them

    @property
    def link(self) -> str | None:
        """``"softmax"`` or ``"sigmoid"``: their logarithms come from the logits."""
        return LINKS.get(type(self._modules["activation"]))

    @property
    def _f(self) -> type:
        return type(self._modules["activation"])  # faster than the attribute

    def logarithm(self, of: str) -> Callable[[Tensor], Tensor] | None:
        """The activation's own ``"log"``, ``"log_below"`` or ``"log_above"``, if any.

        See :class:`dl4py.activations.base.Activation`.
        """
        own = vars(self._f).get(of)  # a subclass may have overridden f
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

    def _judged(
        self, output: Tensor, labels: Tensor, mask: Tensor | None, reduction: str
    ) -> Tensor:
        """Scores of examples ``[n]``, or their ``"mean"`` or ``"sum"``."""
        z = self._output(output, labels)
        m = None if mask is None else self._mask(mask, z)
        # kernels know masks of examples that need no gradient
        if z.numel() and (m is None or (m.shape[1] == 1 and not m.requires_grad)):
            found = self.fused(z, labels, m, reduction)
            if found is not None:
                return found
        terms = self._weighted(z, labels, m)
        if reduction == "none":
            return terms.sum(1)
        total = terms.sum()
        return total / (z.size(0) or 1) if reduction == "mean" else total

    def _terms(self, output: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
        """Weighted and masked terms, ``[n, K]`` or ``[n, 1]``."""
        z = self._output(output, labels)
        m = None if mask is None else self._mask(mask, z)
        return self._weighted(z, labels, m)

    def _weighted(self, z: Tensor, labels: Tensor, m: Tensor | None) -> Tensor:
        gone = None if m is None or m.requires_grad else self._gone(m)
        if gone is not None:
            # 1 is known to every loss; and no gradient, NaN or not, comes through
            alone = self._alone and not self.coupled
            z = z.masked_fill(gone if alone else whole(gone), 1.0)
            labels = self._blank(labels, whole(gone) if self.coupled else gone)
        y = self.encode(labels, z)
        if m is not None and m.shape[1] not in (1, y.shape[1]):
            self._bad_mask(m.shape, z)
        w = None if self.weights is None else self._weights(z)
        if self.dl4j_exact:
            terms = self.exact_terms(z, y, w, m)
        else:
            terms = times(self.terms(z, y), w, m)
        return terms if gone is None else terms.masked_fill(gone, 0.0)

    @property
    def _alone(self) -> bool:
        """Whether an activation depends on its own pre-activation only."""
        return bool(getattr(self.activation, "elementwise", False))

    def _gone(self, m: Tensor) -> Tensor:
        """What the mask leaves nothing of."""
        return m == 0

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
        return output.float() if output.itemsize < 4 else output

    def _narrowed(self, score: Tensor, output: Tensor) -> Tensor:
        """In the dtype of the output, or in float32 under autocast."""
        if output.itemsize >= 4 or torch.is_autocast_enabled(output.device.type):
            return score
        return score.to(output.dtype)

    def _mask(self, mask: Tensor, z: Tensor) -> Tensor:
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
        raise MaskMisfit(
            f"{self._name}: mask must be [n] = [{n}], [n, 1]{wide}, got {list(shape)}"
        )

    def _blank(self, labels: Tensor, gone: Tensor) -> Tensor:
        """Labels with 1 where nothing counts."""
        fits = labels.ndim == 2 and labels.shape[0] == gone.shape[0]
        if not fits or gone.shape[1] not in (1, labels.shape[1]):
            return labels
        return labels.masked_fill(gone, 1)

    def _weights(self, z: Tensor) -> Tensor:
        assert self.weights is not None
        if len(self.weights) != z.shape[1]:
            raise ValueError(
                f"{self._name}: weights must have one entry per output "
                f"(K = {z.shape[1]}), got {len(self.weights)}"
            )
        return beside(z.new_tensor(self.weights), z)

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
