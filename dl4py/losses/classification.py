"""Margins, rankings and counts: losses of classes that are no likelihood."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dl4py.activations.base import number
from dl4py.losses.base import Loss
from dl4py.losses.terms import times
from dl4py.ops.head import head
from dl4py.registry import LOSSES


@LOSSES.add("hinge", java="LossHinge")
class Hinge(Loss):
    """Hinge loss: score = max(0, 1 - y·a) with labels ±1.

    Args:
        activation: applied to the output first.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> Hinge()(torch.tensor([[0.25, 2.0]]), torch.tensor([[-1.0, 1.0]]))
        tensor(1.2500)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossHinge
    """

    def summand(self, k: int) -> tuple[str, float, float]:
        return "hinge", 0.0, 1.0

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return F.relu(1 - y * a)


@LOSSES.add("squared_hinge", java="LossSquaredHinge")
class SquaredHinge(Loss):
    """Squared hinge loss: score = max(0, 1 - y·a)² with labels ±1.

    Args:
        activation: applied to the output first.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> SquaredHinge()(torch.tensor([[0.5, 2.0]]), torch.tensor([[-1.0, 1.0]]))
        tensor(2.2500)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossSquaredHinge
    """

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return F.relu(1 - y * a) ** 2

    def summand(self, k: int) -> tuple[str, float, float]:
        return "squared_hinge", 0.0, 1.0

    def fused(
        self, z: Tensor, labels: Tensor, m: Tensor | None, reduction: str
    ) -> Tensor | None:
        squared = self.dl4j_exact and m is not None
        return None if squared else super().fused(z, labels, m, reduction)

    def exact_terms(
        self, z: Tensor, y: Tensor, w: Tensor | None, m: Tensor | None
    ) -> Tensor:
        return times(super().exact_terms(z, y, w, m), m)

    def fault(self) -> str | None:
        return "DL4J squares masks too"


@LOSSES.add("multi_label", java="LossMultiLabel")
class MultiLabel(Loss):
    """Pairwise ranking loss of label sets (BP-MLL).

    score = Σₖ yₖ·Σₗ exp(aₗ - aₖ) / (|N|·Σₖ yₖ), l in N = the outputs whose label is 0

    An example without labels, or without any l, has no score. A ``[n, K]`` mask masks
    the l.

    Args:
        activation: applied to the output first.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> MultiLabel()(torch.ones(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(1.)

    Reference: Zhang & Zhou, "Multilabel neural networks with applications to functional
        genomics and text categorization", 2006

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossMultiLabel
    """

    coupled = True

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        out = y == 0
        pairs = out.sum(1, keepdim=True) * y.sum(1, keepdim=True)
        # the least aₖ: then Σₖ is at least its yₖ, and no factor exceeds the score
        shift = a.detach().masked_fill(out, torch.inf).amin(1, keepdim=True)
        negative = (a - shift).masked_fill(~out, -torch.inf).exp()
        positive = (shift - a).masked_fill(out, -torch.inf).exp() * y
        total = positive.sum(1, keepdim=True) * negative
        return total / pairs.masked_fill(pairs == 0, 1)


@LOSSES.add("fmeasure", "f_measure", java="LossFMeasure")
class FMeasure(Loss):
    """1 - F_β of one binary decision over the whole batch.

    score = 1 - (1 + β²)·TP / ((1 + β²)·TP + β²·FN + FP), and 0 for 0/0

    TP = Σ y·p, FP = Σ (1 - y)·p, FN = Σ y·(1 - p), where p is the probability of "yes":
    the only output, or the second of two. It is one number of the batch, so ``average``
    changes nothing and there are no per-example scores; DL4J's networks divide it by n
    all the same, ours with ``dl4j_exact``.

    Args:
        activation: applied to the output first.
        beta: weight of recall, > 0.

    Shape:
        output and labels ``[n, 1]`` or ``[n, 2]``, mask ``[n]`` or ``[n, 1]``.

    Example:
        >>> FMeasure()(torch.tensor([[1.0], [0.5]]), torch.tensor([[1.0], [1.0]]))
        tensor(0.1429)

    Reference: Pastor-Pellicer et al., "F-measure as the error function to train neural
        networks", 2013

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossFMeasure
    """

    additive = False
    output_masks = False

    def __init__(
        self,
        activation: Any = "identity",
        *,
        beta: float = 1.0,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(activation, dl4j_exact=dl4j_exact)
        self.beta = number(self, "beta", beta, low=0)
        if self.beta == 0:
            raise ValueError("FMeasure(beta=...) must be > 0, got 0")

    def score(
        self,
        output: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        average: bool = True,
    ) -> Tensor:
        true, false, missed = head(self._terms, output, labels, mask).sum(0)
        square = self.beta**2
        numerator = (1 + square) * true
        denominator = numerator + square * missed + false
        empty = (numerator == 0) & (denominator == 0)
        score: Tensor = 1 - numerator / denominator.masked_fill(empty, 1)
        score = score.masked_fill(empty, 0)
        return self._narrowed(score, output) if average else score

    def per_example(
        self, output: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        raise NotImplementedError(
            "FMeasure is one number of the whole batch and has no scores per example: "
            "use score(...)"
        )

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        p, y = a[:, -1], y[:, -1]
        return torch.stack([y * p, (1 - y) * p, y * (1 - p)], dim=1)

    def exact_terms(
        self, z: Tensor, y: Tensor, w: Tensor | None, m: Tensor | None
    ) -> Tensor:
        return times(self.terms(z, y), m)

    def encode(self, labels: Tensor, z: Tensor) -> Tensor:
        if z.shape[1] > 2:
            raise ValueError(
                f"FMeasure: output must have 1 or 2 columns, got {list(z.shape)}: it "
                "measures one binary decision"
            )
        return super().encode(labels, z)

    def fault(self) -> str | None:
        return "inside a network DL4J divides by the number of examples again"
