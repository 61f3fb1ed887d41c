"""Cross entropies between probabilities and classes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dl4py import ops
from dl4py.activations.base import float32, gradient_of, number
from dl4py.losses.base import Loss, WeightedLoss
from dl4py.losses.terms import (
    column,
    per_output,
    ratio,
    scale_gradient,
    times,
    times_log,
)
from dl4py.ops.sharding import beside
from dl4py.registry import LOSSES

SMALL = 8192  # elements below which ATen's own op costs less than a kernel's call
NO_CLASS = -(2**62)  # torch's -100 would pass as a label


@LOSSES.add(
    "xent",
    "binary_xent",
    java="LossBinaryXENT",
    near={
        "bce binary_crossentropy": "it sums over the outputs, the other is their mean",
        "bce_with_logits": "write activation='sigmoid'; it sums over the outputs",
        "binary_cross_entropy_with_logits": "write activation='sigmoid'; it sums",
    },
)
class XENT(WeightedLoss):
    """Binary cross entropy of each output.

    score = -w·(y·ln a + (1 - y)·ln(1 - a))

    Probabilities are clipped to [clip_eps, 1 - clip_eps]. With ``"sigmoid"`` there is
    nothing to clip, the logarithms are computed from the logits; only ``dl4j_exact``
    clips there. With ``"softmax"`` the score is -w·y·ln a, as DL4J reports it.

    Args:
        activation: applied to the output first, usually ``"sigmoid"``.
        weights: one factor per output.
        clip_eps: in [0, 0.5); 0 does not clip.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> XENT("sigmoid")(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
        tensor(1.3863)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossBinaryXENT
    """

    def __init__(
        self,
        activation: Any = "identity",
        weights: Iterable[float] | None = None,
        *,
        clip_eps: float = 1e-5,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(activation, weights, dl4j_exact=dl4j_exact)
        self.clip_eps = _clip(self, "clip_eps", clip_eps)

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        if self.link == "softmax":
            return -times_log(y, a)
        a = self._clipped(a)
        return -times_log(y, a) - times_log(1 - y, 1 - a)

    def terms(self, z: Tensor, y: Tensor) -> Tensor:
        if self.link == "softmax":
            return -self.times_log(y, z)
        # 1 - a is clipped itself: 1 - clip_eps would be rounded
        eps = 0.0 if self.link == "sigmoid" else self.clip_eps
        no = self.times_log(1 - y, z, below=True, eps=eps)
        return -self.times_log(y, z, eps=eps) - no

    def summand(self, k: int) -> tuple[str, float, float] | None:
        return ("binary", self.clip_eps, 1.0) if self._clips else None

    def fused(
        self, z: Tensor, labels: Tensor, m: Tensor | None, reduction: str
    ) -> Tensor | None:
        exact = self.dl4j_exact and (self.clip_eps > 0 or per_output(m, z))
        if exact or self.link != "sigmoid":
            return super().fused(z, labels, m, reduction)
        w = None if self.weights is None else self._weights(z)
        return ops.sigmoid_xent(z, self.encode(labels, z), w, column(m), reduction)

    def exact_terms(
        self, z: Tensor, y: Tensor, w: Tensor | None, m: Tensor | None
    ) -> Tensor:
        if not self._clips and self.link != "softmax":
            return super().exact_terms(z, y, w, m)
        a = self.activation(scale_gradient(z, w, m))
        clipped = self._clipped(a)
        slope = ratio(clipped - y, clipped * (1 - clipped))
        source = times(a, slope.detach(), m if per_output(m, y) else None)
        return gradient_of(source, times(self.value(z, y), w, m))

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return super().value(z, y) if self._clips else self.terms(z, y)

    @property
    def _clips(self) -> bool:
        """Whether this is DL4J's clipped score with its gradient."""
        return self.dl4j_exact and self.clip_eps > 0 and self.link != "softmax"

    def fault(self) -> str | None:
        if self.link == "softmax":
            return "with softmax DL4J's gradient is not that of its score"
        if self.clip_eps == 0:
            return None
        return f"DL4J clips probabilities at {self.clip_eps:g}, but not the gradient"

    def _clipped(self, a: Tensor) -> Tensor:
        return a.clamp(self.clip_eps, 1 - self.clip_eps) if self.clip_eps else a


class CrossEntropy(WeightedLoss):
    """Base of the cross entropies between classes.

    Args:
        activation: applied to the output first, usually ``"softmax"``.
        weights: one factor per class, not normalised.
        softmax_clip_eps: in [0, 0.5); where DL4J clips the probabilities of softmax.
    """

    soft_labels: ClassVar[bool] = True

    def __init__(
        self,
        activation: Any = "identity",
        weights: Iterable[float] | None = None,
        *,
        softmax_clip_eps: float = 1e-10,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(activation, weights, dl4j_exact=dl4j_exact)
        self.softmax_clip_eps = _clip(self, "softmax_clip_eps", softmax_clip_eps)

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        eps = self.softmax_clip_eps
        if self.link == "softmax" and eps:
            a = a.clamp(eps, 1 - eps)
        return -times_log(y, a)

    def terms(self, z: Tensor, y: Tensor) -> Tensor:
        return -self.times_log(y, z)

    def fused(
        self, z: Tensor, labels: Tensor, m: Tensor | None, reduction: str
    ) -> Tensor | None:
        if self.link != "softmax":
            return None
        w = None if self.weights is None else self._weights(z)
        y, low, high, unit = self.targets(labels, z, m), -math.inf, math.inf, False
        if self.dl4j_exact:
            if self.softmax_clip_eps:
                top = 1 - self.softmax_clip_eps
                low = math.log(self.softmax_clip_eps)
                high = math.log(float32(top) if z.dtype == torch.float32 else top)
            # DL4J: as if the labels summed to 1
            unit = w is None and not (m is not None and z.shape[1] == 1)
            y = y.detach() if unit else y
        return ops.softmax_xent(z, y, w, column(m), low, high, unit, reduction)

    def targets(self, labels: Tensor, z: Tensor, m: Tensor | None) -> Tensor:
        """Labels as the kernel takes them: values or classes."""
        return self.encode(labels, z)

    def exact_terms(
        self, z: Tensor, y: Tensor, w: Tensor | None, m: Tensor | None
    ) -> Tensor:
        if self.link != "softmax":
            source = -self.exact_times_log(y, scale_gradient(z, w, m))
            return gradient_of(source, times(self.terms(z, y), w, m))
        a = self.activation(z)
        if w is None and not per_output(m, y):
            source = times(z, (a - y).detach(), m)  # DL4J: as if the labels summed to 1
        else:  # DL4J has no gradient for [n, K] masks here: the right one
            source = times(self.terms(z, y), w, m)
        return gradient_of(source, times(self.scores(a, y), w, m))

    def fault(self) -> str | None:
        if self.link != "softmax":
            return None
        notes = []
        if self.weights is None and self.soft_labels:
            notes.append("DL4J's gradient takes labels to sum to 1")
        if self.softmax_clip_eps:
            notes.append(f"DL4J clips probabilities at {self.softmax_clip_eps:g}")
        return "; ".join(notes) or None


@LOSSES.add(
    "mcxent",
    java="LossMCXENT",
    near={
        "cross_entropy": "with activation='softmax'; for indices 'sparse_mcxent'",
        "categorical_crossentropy": "Keras divides by the probabilities' sum first",
    },
)
class MCXENT(CrossEntropy):
    """Multi-class cross entropy: score = -w·y·ln a with one-hot or soft labels.

    Args:
        activation: applied to the output first, usually ``"softmax"``.
        weights: one factor per class, not normalised.
        softmax_clip_eps: in [0, 0.5); where DL4J clips the probabilities of softmax.
            Only ``dl4j_exact`` clips: the logarithm is computed from the logits.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> MCXENT("softmax")(torch.zeros(1, 4), torch.eye(4)[:1])
        tensor(1.3863)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossMCXENT
    """


@LOSSES.add(
    "negativeloglikelihood",
    "nll",
    java="LossNegativeLogLikelihood",
    near={
        "nll_loss": "it takes probabilities and one-hot labels, torch's logarithms",
    },
)
class NegativeLogLikelihood(CrossEntropy):
    """Another name of MCXENT: score = -w·y·ln a; not ``torch.nn.NLLLoss``.

    Args:
        activation: applied to the output first, usually ``"softmax"``.
        weights: one factor per class, not normalised.
        softmax_clip_eps: as in :class:`MCXENT`.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> NegativeLogLikelihood("softmax")(torch.zeros(1, 4), torch.eye(4)[:1])
        tensor(1.3863)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossNegativeLogLikelihood
    """


@LOSSES.add(
    "sparse_mcxent",
    java="LossSparseMCXENT",
    near={
        "sparse_categorical_crossentropy": "Keras first clips probabilities at 1e-7",
    },
)
class SparseMCXENT(CrossEntropy):
    """MCXENT with class indices: score = -w·ln a at the label's class.

    Args:
        activation: applied to the output first, usually ``"softmax"``.
        weights: one factor per class, not normalised.
        softmax_clip_eps: as in :class:`MCXENT`.

    Shape:
        output ``[n, K]``; labels ``[n]`` or ``[n, 1]``, integers or whole floats in
        0 … K - 1. With ``dl4j_exact`` fractions are cut off, and a row whose class does
        not exist has no score.

    Example:
        >>> SparseMCXENT("softmax")(torch.zeros(1, 4), torch.tensor([3]))
        tensor(1.3863)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossSparseMCXENT
    """

    soft_labels = False

    def fused(
        self, z: Tensor, labels: Tensor, m: Tensor | None, reduction: str
    ) -> Tensor | None:
        if (
            z.numel() <= SMALL
            and labels.dtype is torch.int64
            and labels.shape == z.shape[:1]
            and z.is_cpu  # CUDA's is no more to be used once a class does not exist
            and m is None
            and self.weights is None
            and self.link == "softmax"
            and not self.dl4j_exact
        ):
            try:
                return F.cross_entropy(
                    z, labels, ignore_index=NO_CLASS, reduction=reduction
                )
            except IndexError:
                self._check_range(labels, z.shape[1])
                raise
        return super().fused(z, labels, m, reduction)

    def targets(self, labels: Tensor, z: Tensor, m: Tensor | None) -> Tensor:
        if m is not None:
            labels = self._blank(labels, m == 0)
        return self._classes(labels, z).reshape(z.shape[0])

    def encode(self, labels: Tensor, z: Tensor) -> Tensor:
        index = self._classes(labels, z)
        classes = beside(torch.arange(z.shape[1], device=z.device), z)
        return (index == classes).to(z.dtype)

    def _classes(self, labels: Tensor, z: Tensor) -> Tensor:
        """Whole numbers ``[n, 1]``; what is no class is outside 0 … K - 1."""
        n, k = z.shape
        if labels.shape not in ((n,), (n, 1)):
            raise ValueError(
                f"SparseMCXENT: labels must be class indices [n] = [{n}] or [n, 1], "
                f"got {list(labels.shape)}: one-hot labels need MCXENT"
            )
        index = labels.reshape(n, 1)
        if not self.dl4j_exact:
            if not torch.compiler.is_compiling() and index.device.type == "cpu":
                self._check_range(index, k)
            if index.is_floating_point():
                index = torch.where(index == index.trunc(), index, -1.0)
        return index.long()

    def _check_range(self, index: Tensor, k: int) -> None:
        if not index.numel():
            return
        try:
            low, high = (t.item() for t in torch.aminmax(index))
            whole = not index.is_floating_point() or bool(
                (index == index.trunc()).all()
            )
        except RuntimeError:  # inside torch.func.vmap there are no numbers to look at
            return
        if not (low >= 0 and high < k and whole):
            wrong = (index < 0) | (index >= k) | (index != index.long())
            raise ValueError(
                f"SparseMCXENT: labels must be whole numbers in 0 … {k - 1}, got "
                f"{index[wrong][0].item()}"
            )

    def _blank(self, labels: Tensor, gone: Tensor) -> Tensor:
        gone = gone.all(1)
        if labels.shape not in (gone.shape, (len(gone), 1)):
            return labels
        return labels.masked_fill(gone.reshape(labels.shape), 0)


@LOSSES.add(
    "kld",
    "kl_divergence",
    "reconstruction_crossentropy",
    java="LossKLD",
    near={
        "kl_div": "it takes probabilities, torch's their logarithms",
        "kullback_leibler_divergence": "it clips at 1e-5, Keras at 1e-7",
    },
)
class KLD(Loss):
    """Kullback–Leibler divergence; not ``torch.nn.KLDivLoss``.

    score = ŷ·ln(ŷ / â), both clipped to [10⁻⁵, 1]

    With ``"softmax"`` and ``"sigmoid"`` ln a is computed from the logits and only
    ``dl4j_exact`` clips a.

    Args:
        activation: applied to the output first.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> KLD()(torch.tensor([[0.25]]), torch.tensor([[0.5]]))
        tensor(0.3466)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossKLD
    """

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        y = y.clamp(1e-5, 1.0)
        return y * (y / a.clamp(1e-5, 1.0)).log()

    def terms(self, z: Tensor, y: Tensor) -> Tensor:
        if self.link is None:
            return super().terms(z, y)
        y = y.clamp(1e-5, 1.0)
        return y * y.log() - self.times_log(y, z)

    def summand(self, k: int) -> tuple[str, float, float] | None:
        if self.dl4j_exact:
            return "divergence", 1.0, 1.0
        return ("divergence", 0.0, 1.0) if self.link is None else None

    def source(self, z: Tensor, y: Tensor) -> Tensor:
        return -self.exact_times_log(y, z)

    def fault(self) -> str | None:
        return "DL4J clips at 1e-5 in the score, but not in the gradient"


def _clip(owner: object, name: str, value: float) -> float:
    eps = number(owner, name, value, low=0, high=0.5)
    if eps == 0.5:
        raise ValueError(f"{type(owner).__name__}({name}=...) must be < 0.5, got 0.5")
    return eps
