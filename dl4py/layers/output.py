"""Layers that end in a loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, losses
from dl4py.layers.base import Layer, masked_rows
from dl4py.layers.feedforward import Affine
from dl4py.losses.cross_entropy import CrossEntropy
from dl4py.registry import MODULES


class Scored(nn.Module):
    """What layers with a loss share: from pre-activations and labels to a score.

    ``always_divides`` says that the score is divided by the number of examples even
    where the network's ``mini_batch`` is false, as DL4J's loss layers do.
    """

    always_divides = False
    criterion: losses.Loss
    activation: nn.Module

    def pre_output(self, x: Tensor) -> Tensor:
        """The values that go into the activation."""
        raise NotImplementedError

    def rows(self, t: Tensor, like: Tensor) -> Tensor:
        """Pre-activations, labels or mask as the rows the loss wants."""
        return t

    def unmasked_output(self, z: Tensor) -> Tensor:
        """The activations of pre-activations ``z``."""
        y: Tensor = self.activation(z)
        return y

    def score_sum(
        self, z: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The score of pre-activations ``z``: a sum over outputs, time and examples."""
        if mask is not None:
            mask = self.rows(mask, z)
        return self.criterion.score(
            self.rows(z, z), self.rows(labels, z), mask, average=False
        )


@MODULES.add("output")
class Output(Affine, Scored):
    """Dense layer with a loss.

    Args:
        n_in, n_out, weight_init, bias_init, has_bias: as in :class:`Dense`.
        activation: a name, a module or a function.
        loss: a name, a torch loss module or a function ``fn(output, labels)``.

    Shape:
        ``[n, n_in]`` → ``[n, n_out]``

    Example:
        >>> Output(4, 2)(torch.zeros(1, 4)).detach()
        tensor([[0.5000, 0.5000]])

    DL4J: org.deeplearning4j.nn.conf.layers.OutputLayer
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Any = "softmax",
        loss: Any = "mcxent",
        *,
        weight_init: Any = "xavier",
        bias_init: float = 0.0,
        has_bias: bool = True,
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(
            n_in, n_out, activation, weight_init=weight_init, bias_init=bias_init,
            has_bias=has_bias, dropout=dropout, dl4j_exact=dl4j_exact,
        )  # fmt: skip
        self.criterion = losses.get(
            loss, activation=self.activation, dl4j_exact=dl4j_exact
        )

    def pre_output(self, x: Tensor) -> Tensor:
        return F.linear(self.disturb(x), self.weight, self.bias)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        return masked_rows(self.unmasked_output(self.pre_output(x)), mask)


@MODULES.add("loss_layer")
class LossLayer(Layer, Scored):
    """A loss without weights: its input is the pre-activation.

    Args:
        activation: a name, a module or a function.
        loss: as in :class:`Output`.

    Shape:
        ``[n, size]`` in, the same out.

    Example:
        >>> LossLayer("softmax")(torch.zeros(1, 2))
        tensor([[0.5000, 0.5000]])

    DL4J: org.deeplearning4j.nn.conf.layers.LossLayer
    """

    always_divides = True

    def __init__(
        self,
        activation: Any = "identity",
        loss: Any = "mcxent",
        *,
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(dropout, dl4j_exact)
        self.activation = activations.get(activation, dl4j_exact=dl4j_exact)
        self.criterion = losses.get(
            loss, activation=self.activation, dl4j_exact=dl4j_exact
        )

    def pre_output(self, x: Tensor) -> Tensor:
        return self.disturb(x)

    def score_sum(
        self, z: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        total = super().score_sum(z, labels, mask)
        if self.training and self.dl4j_exact and self._overwrites:
            if total.requires_grad:  # DL4J reads the score of a step after its gradient
                (g,) = torch.autograd.grad(total, z, retain_graph=True)
                read = super().score_sum(g, labels, mask)
                finite = torch.where(read.isfinite(), read, total)
                return activations.gradient_of(total, finite)
        return total

    @property
    def _overwrites(self) -> bool:
        """Whether DL4J's back-propagation writes the gradient over its input."""
        kind, loss = self.activation, self.criterion
        if isinstance(kind, activations.ReLU):
            return bool(kind.threshold)
        if isinstance(kind, activations.Softmax):
            return not isinstance(loss, CrossEntropy)
        return not isinstance(kind, (activations.Identity, activations.Custom))

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        found = super().differs(dtype)
        if self._overwrites:
            found.append("LossLayer: DL4J's score of a step is the gradient's score")
        return found

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        return masked_rows(self.unmasked_output(self.pre_output(x)), mask)


@MODULES.add("rnn_output")
class RnnOutput(Output):
    """An output layer at every time step; the score is summed over time.

    Args:
        n_in, n_out, weight_init, bias_init, has_bias: as in :class:`Dense`.
        activation, loss: as in :class:`Output`.
        format: ``"NCW"`` for ``[n, size, time]``, ``"NWC"`` for ``[n, time, size]``.

    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``

    Example:
        >>> RnnOutput(4, 2)(torch.zeros(3, 4, 5)).shape
        torch.Size([3, 2, 5])

    DL4J: org.deeplearning4j.nn.conf.layers.RnnOutputLayer
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Any = "softmax",
        loss: Any = "mcxent",
        *,
        weight_init: Any = "xavier",
        bias_init: float = 0.0,
        has_bias: bool = True,
        format: str | None = "NCW",
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(
            n_in, n_out, activation, loss, weight_init=weight_init, bias_init=bias_init,
            has_bias=has_bias, dropout=dropout, dl4j_exact=dl4j_exact,
        )  # fmt: skip
        self.format = format or "NCW"

    def steps(self, t: Tensor) -> Tensor:
        """NCW arrays with their features last, and back; NWC as they are."""
        return t if self.format == "NWC" else t.transpose(1, 2)

    def pre_output(self, x: Tensor) -> Tensor:
        return self.steps(super().pre_output(self.steps(x)))

    def rows(self, t: Tensor, like: Tensor) -> Tensor:
        """One row per example and time step; masks ``[n, time]`` or like the labels."""
        if t.dim() == 2:
            return t.reshape(-1)
        return self.steps(t).flatten(0, 1)

    def unmasked_output(self, z: Tensor) -> Tensor:
        y: Tensor = self.activation(self.steps(z))
        return self.steps(y)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        return masked_steps(self.unmasked_output(self.pre_output(x)), mask, self.format)


def masked_steps(y: Tensor, mask: Tensor | None, format: str = "NCW") -> Tensor:
    """Time steps of ``y`` times their mask ``[n, time]`` (or a mask like ``y``)."""
    if mask is None:
        return y
    if mask.dim() == 2:
        mask = mask.unsqueeze(2 if format == "NWC" else 1)
    return y * mask.to(y.dtype)
