"""Output layers with more in their score than a loss."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dl4py import activations, config
from dl4py.layers.base import masked
from dl4py.layers.feedforward import Affine
from dl4py.layers.output import Scored
from dl4py.layers.part import implements
from dl4py.layers.view import View


@implements(config.CenterLossOutput)
class CenterLossOutput(Scored, Affine):
    """
    A training forward with labels only stores where the centres are to go, in
    ``pending``; the network's optimizer moves them once a step.

    Shape:
        ``[n, n_in]`` → ``[n, n_out]``; with labels → the score, a single number.

    Example:
        >>> layer = CenterLossOutput(2, 2, lambda_=1.0, weight_init="zero")
        >>> x, y = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
        >>> layer(x, labels=y).item()  # ln 2 + 25/2
        13.193147659301758
    """

    neighbour = ("Linear", "as `Output`, and centres of classes that move")

    always_divides = True
    masks_inputs = True

    def build(self) -> None:
        super().build()
        conf = self.conf
        self.register_buffer("centers", torch.empty(conf.n_out, conf.n_in))

    def views(self) -> Iterator[View]:
        for view in super().views():  # DL4J has one updater for all of them
            yield dataclasses.replace(view, own_updater=False)
        yield View(self, "cL", "centers", kind="statistic", first=0.0)

    def judged(
        self, x: Tensor, z: Tensor, labels: Tensor, mask: Tensor | None
    ) -> Tensor:
        if labels.shape != z.shape:
            raise ValueError(
                f"CenterLossOutput: labels must be [n, n_out] = {list(z.shape)}, a "
                f"share of each class, got {list(labels.shape)}; of class indices "
                f"torch.nn.functional.one_hot(labels, {z.shape[1]})"
            )
        total = super().judged(x, z, labels, mask)
        y = labels.to(x.dtype)
        if mask is not None and not self.dl4j_exact:
            shown = mask.reshape(len(x), -1).to(x.dtype)
            y = y.masked_fill(shown == 0, 0) * shown
            x = x.masked_fill((shown == 0).all(1, keepdim=True), 0)
            weight = shown.amax(1, keepdim=True)
        else:
            weight = torch.ones_like(x[:, :1])
        centers: Tensor = self.get_buffer("centers")
        away = x - y @ centers
        if self.training:
            self._remember(away.detach(), y)
        pull: Tensor = 0.5 * self.conf.lambda_ * (weight * away.square()).sum()
        return total + pull

    def _remember(self, away: Tensor, y: Tensor) -> None:
        conf = self.conf
        step = -conf.alpha * (y.t() @ away)
        if conf.gradient_check:
            step = conf.lambda_ * step
        else:
            step = step / (1 + y.sum(0)).unsqueeze(1)
        # a gradient of the score is one of the mean; DL4J divides the rule too
        divides = self.mini_batch and (self.dl4j_exact or conf.gradient_check)
        self.pending_divisor = len(y) if divides else 1
        self.pending["centers"] = step / self.pending_divisor

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        lines = ["DL4J lets labels that are masked pull too"]
        if not self.conf.gradient_check:
            lines.append("DL4J divides the step of the centres by the batch size")
        name = type(self).__name__
        return [*super().differs(dtype), *(f"{name}: {line}" for line in lines)]


@implements(config.OCNNOutput)
class OCNNOutput(Scored):
    """
    Shape:
        ``[n, n_in]`` → z, ``[n, 1]``, in exact mode ``[n]``; with labels, ``[n, …]`` →
        the score, a single number.

    Example:
        >>> layer = OCNNOutput(3, 5, "sigmoid")
        >>> layer(torch.zeros(2, 3)).shape
        torch.Size([2, 1])
    """

    neighbour = ("—", "one score a row, and a loss without labels")

    additive = False
    warned = False

    def build(self) -> None:
        conf = self.conf
        self.activation = activations.get(conf.activation, dl4j_exact=self.dl4j_exact)
        self.weight = nn.Parameter(torch.empty(conf.hidden_size))
        self.hidden = nn.Parameter(torch.empty(conf.hidden_size, conf.n_in))
        self.r = nn.Parameter(torch.empty(1))

    def views(self) -> Iterator[View]:
        conf = self.conf
        # the score has penalties of its own; DL4J applies no others
        for name, attribute, options in (
            ("w", "weight", {"fans": (conf.hidden_size, 1)}),
            (
                "v",
                "hidden",
                {
                    "order": "f",
                    "shaped": Tensor.t,
                    "fans": (conf.n_in, conf.hidden_size),
                },
            ),
            ("r", "r", {"first": conf.initial_r_value}),
        ):
            yield View(self, name, attribute, penalised=False, **options)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if not self.dl4j_exact:
            return self._value(x)
        # DL4J sends 1 back to every input of a row with z < r, and 0 to the others
        z = self._value(x.detach())
        back = -len(x) * self.conf.nu * x.sum(1)
        return activations.gradient_of(z + back, z)

    def _value(self, x: Tensor) -> Tensor:
        z: Tensor = self.product(
            torch.matmul,
            self.activation(self.product(torch.matmul, x, self.param("hidden").t())),
            self.param("weight"),
        )
        return z

    def finish(self, y: Tensor) -> Tensor:
        return y if self.dl4j_exact else y.unsqueeze(1)

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        return y if self.dl4j_exact else masked(y, mask)

    def score_sum(
        self, z: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        if labels.dim() == 0 or len(labels) != len(z):
            raise ValueError(
                f"OCNNOutput: labels must be [{len(z)}, 1], one row per example, got "
                f"{list(labels.shape)}; their values are not used"
            )
        self._warn_of_epochs()
        conf = self.conf
        below = (self.r - z).relu()
        if mask is not None and not self.dl4j_exact:
            shown = mask.reshape(len(z), -1).amax(1).to(z.dtype)
            below = below.masked_fill(shown == 0, 0) * shown
        weights = self.weight.square().sum() + self.hidden.square().sum()
        score: Tensor = 0.5 * weights + below.mean() / conf.nu - self.r.sum()
        return score

    def _warn_of_epochs(self) -> None:
        """Once, where exact mode is not DL4J's: it is half broken there."""
        later = self.dl4j_exact and self.training and self.clock.epoch > 0
        if not later or self.warned or torch.compiler.is_compiling():
            return
        self.warned = True
        warnings.warn(
            "OCNNOutput: when an epoch has gone by DL4J sets r to a percentile of a "
            "window of outputs, or fails where the window is shorter than the batch or "
            "the network comes from a file; here r is trained on, exact mode included",
            stacklevel=2,
        )

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        lines = (
            "DL4J divides the score of the batch by its size again",
            "DL4J sends 1 back to all inputs of a row with z < r, not the gradient",
            "DL4J does not look at masks",
            "DL4J's output is [n], not [n, 1]",
        )
        return [*super().differs(dtype), *(f"OCNNOutput: {line}" for line in lines)]
