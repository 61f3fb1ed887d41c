"""Layers that end in a loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dl4py import activations, config, losses
from dl4py.config.preprocessors import order_of_rows
from dl4py.layers.base import Layer, masked
from dl4py.layers.feedforward import Affine
from dl4py.layers.part import implements
from dl4py.losses.cross_entropy import CrossEntropy


class Scored(Layer):
    """What layers with a loss share: from pre-activations and labels to a score.

    Called with ``labels`` such a layer returns its score, a sum over outputs, time and
    examples, else its activations. Without ``labels_mask`` a score takes ``mask``.

    Attributes:
        always_divides: the score is divided by the number of examples even where the
            network's ``mini_batch`` is false, as DL4J's loss layers do.
        masks_inputs: in exact mode a mask multiplies what goes into the activation too,
            though not for activations of series.
        in_graph, mini_batch: of the network that it stands in, which sets them.
    """

    always_divides = False
    masks_inputs = False
    in_graph = False
    mini_batch = True
    criterion: losses.Loss
    activation: Any

    def build(self) -> None:
        super().build()
        conf = self.conf
        self.activation = activations.get(conf.activation, dl4j_exact=self.dl4j_exact)
        self.criterion = losses.get(
            conf.loss, activation=self.activation, dl4j_exact=self.dl4j_exact
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: Any = None,
        labels: Tensor | None = None,
        labels_mask: Tensor | None = None,
    ) -> Tensor:
        self.check(x)
        x = self.arrange(self.disturb(x))
        z = self.as_given(self.pre_output(x))
        if labels is None:
            self.check_mask(mask, z)
            if mask is not None and z.dim() == 2 and self.dl4j_exact:
                z = self.criterion.covered(z, mask) if self.masks_inputs else z
            return self.cover(self.finish(z), mask)
        if labels_mask is not None or mask is None:
            return self.judged(x, z, labels, labels_mask)
        total = self.judged(x, z, labels, mask)
        if self.dl4j_exact and self.in_graph:
            return activations.gradient_of(total, self.judged(x, z, labels, None))
        return total

    @property
    def additive(self) -> bool:
        """Whether the score is a sum over examples."""
        return self.criterion.additive

    def judged(
        self, x: Tensor, z: Tensor, labels: Tensor, mask: Tensor | None
    ) -> Tensor:
        """The score, where it is not a matter of pre-activations ``z`` alone."""
        return self.score_sum(z, labels, mask)

    def pre_output(self, x: Tensor) -> Tensor:
        """The values that go into the activation, channels on axis 1."""
        return self.transform(x, None)

    def loss_mask(self, mask: Tensor | None) -> Tensor | None:
        """What stands for a labels mask where only a features mask comes in."""
        return mask

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        found = super().differs(dtype)
        if self.in_graph and type(self).loss_mask is Scored.loss_mask:
            found.append(
                "a graph's score, no gradient, ignores a features mask of rows"
            )
        return found

    def rows(self, t: Tensor, like: Tensor) -> Tensor:
        """Labels or mask as the rows the loss wants; ``like`` are pre-activations."""
        return t

    def finish(self, y: Tensor) -> Tensor:
        result: Tensor = self.activation(y)
        return result

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        return masked(y, mask, getattr(self.conf, "format", None))

    def score_sum(
        self, z: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The score of pre-activations ``z``: a sum over outputs, time and examples."""
        mask = None if mask is None else self.rows(mask, z)
        z, labels = self.rows(z, z), self.rows(labels, z)
        if mask is not None and self.dl4j_exact and self.masks_inputs:
            # DL4J: by its value; the loss itself masks the gradient
            z = activations.gradient_of(z, self.criterion.covered(z, mask))
        return self.criterion.score(z, labels, mask, average=False)


@implements(config.Output)
class Output(Scored, Affine):
    """
    Shape:
        ``[n, n_in]`` → ``[n, n_out]``; with labels → the score, a single number.

    Example:
        >>> layer = Output(4, 2)
        >>> layer(torch.zeros(1, 4)).detach()
        tensor([[0.5000, 0.5000]])
        >>> layer(torch.zeros(1, 4), labels=torch.tensor([[1.0, 0.0]])).item()
        0.6931471824645996
    """

    neighbour = ("Linear", "an activation, and a loss where labels come in")

    masks_inputs = True


@implements(config.LossLayer)
class LossLayer(Scored):
    """
    Shape:
        ``[n, size]`` in, the same out; with labels → the score, a single number.

    Example:
        >>> LossLayer("softmax")(torch.zeros(1, 2))
        tensor([[0.5000, 0.5000]])
    """

    neighbour = ("CrossEntropyLoss …", "an activation and any loss, as a layer")

    always_divides = True

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


class ScoredSeries(Scored):
    """What layers with a loss at every time step share."""

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return None

    def steps(self, t: Tensor) -> Tensor:
        """NCW arrays with their features last, and back; NWC as they are."""
        return t if self.channels_last else t.transpose(1, 2)

    def rows(self, t: Tensor, like: Tensor) -> Tensor:
        """One row per example and time step; masks ``[n, time]`` or like the labels."""
        given, n = list(t.shape), like.shape[0]
        time = like.shape[1 if self.channels_last else 2]
        t = self.steps(t) if t.dim() == 3 else t
        if t.dim() not in (2, 3) or t.shape[:2] != (n, time):
            raise ValueError(
                "labels and labels_mask: expected one entry per example and time step, "
                f"{list(like.shape)} or [{n}, {time}], got {given}"
            )
        return t.reshape(-1) if t.dim() == 2 else t.flatten(0, 1)

    def finish(self, y: Tensor) -> Tensor:
        result: Tensor = self.activation(self.steps(y))
        return self.steps(result)


@implements(config.RnnOutput)
class RnnOutput(ScoredSeries, Affine):
    """
    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``; with labels → the score, a single
        number.

    Example:
        >>> RnnOutput(4, 2)(torch.zeros(3, 4, 5)).shape
        torch.Size([3, 2, 5])
    """

    neighbour = ("Linear", "at every step of `[n, size, time]`; activation and loss")

    masks_inputs = True

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: Any = None,
        labels: Tensor | None = None,
        labels_mask: Tensor | None = None,
    ) -> Tensor:
        found = super().forward(x, mask, state, labels, labels_mask)
        if labels is None or not (self.dl4j_exact and self.training and self._noise):
            return found
        self.noisy = False
        try:  # DL4J reads the score of a step once more, where nothing is dropped
            again = super().forward(x, mask, state, labels, labels_mask)
        finally:
            del self.noisy
        return activations.gradient_of(found, again)

    @property
    def _noise(self) -> bool:
        return self.conf.dropout is not None or self.conf.weight_noise is not None

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        line = "RnnOutput: DL4J's score of a step is without dropout, by other noise"
        return super().differs(dtype) + [line] * self._noise

    def disturb(self, x: Tensor) -> Tensor:
        if not self.noise.native or x.dim() != 3:
            return super().disturb(x)
        before = self.order
        self.order = order_of_rows(before, x, self.conf.format)  # DL4J: of rows
        x = self.steps(super().disturb(self.steps(x)))
        self.order = before
        return x

    def loss_mask(self, mask: Tensor | None) -> Tensor | None:
        return None  # DL4J: the features mask of a series ends before a loss

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.linear(x.transpose(1, 2)).transpose(1, 2)


@implements(config.RnnLoss)
class RnnLoss(ScoredSeries):
    """
    Activations of masked steps are not 0. ``dropout`` is ignored, as DL4J does in this
    layer.

    Shape:
        ``[n, size, time]`` in, the same out; with labels → the score, a single number.

    Example:
        >>> RnnLoss("softmax")(torch.zeros(1, 2, 1))
        tensor([[[0.5000],
                 [0.5000]]])
    """

    neighbour = ("CrossEntropyLoss …", "activation and any loss at every time step")
    always_divides = True
    noisy = False

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        return y  # DL4J: the activations of masked steps stay
