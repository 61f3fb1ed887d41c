"""Layers around other layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dl4py import config
from dl4py.layers.base import Layer
from dl4py.layers.lstm import Gated
from dl4py.layers.part import implements, module_of
from dl4py.layers.recurrent import Recurrent, both_ways, check_mask
from dl4py.layers.vertices import last_step
from dl4py.layers.view import View
from dl4py.noise import Noise


class Wrapper(Layer):
    """Base of layers around one other, ``self.inner``."""

    noisy = False  # the layer inside has its own noise
    trained: str | None = None  # of the parameters inside, where not their own rule

    def build(self) -> None:
        self.inner = self._made(self.conf.inside)
        self.recurrent = self.inner.recurrent
        self.takes_indices = self.inner.takes_indices
        if self.trained is not None:
            self.inner.requires_grad_(False)

    def _made(self, conf: Any) -> Layer:
        layer: Layer = module_of(conf).from_config(conf, self.dl4j_exact)
        return layer

    def views(self) -> Iterator[View]:
        for view in self.inner.views():
            trained = self.trained or view.trained
            yield view.renamed(view.name, trained=trained)

    def draw(self, noise: Noise) -> None:
        self.inner.draw(noise)

    def follow(self, order: str) -> str:
        return self.inner.follow(order)

    def forward(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> Any:
        self.check(x)
        return self.inner(x, mask, state)

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return self.inner.feed_mask(mask, shape)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return self.inner.differs(dtype)

    def predicts_differently(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return self.inner.predicts_differently(dtype)


def hand_on_masks(layer: Layer) -> None:
    """Let recurrent layers inside ``layer`` see masks in exact mode too."""
    for module in layer.modules():
        if isinstance(module, Recurrent):
            module.sees_mask = True


@implements(config.Bidirectional)
class Bidirectional(Wrapper):
    """
    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``, twice ``n_out`` for ``"CONCAT"``;
        the state is a pair of those of both layers.

    Example:
        >>> layer = Bidirectional("CONCAT", config.LSTM(n_in=3, n_out=2))
        >>> y, _ = layer(torch.zeros(4, 3, 5))
        >>> y.shape
        torch.Size([4, 4, 5])
    """

    neighbour = (
        "LSTM(bidirectional=True)",
        "around any recurrent layer; adds, multiplies or averages too",
    )

    def build(self) -> None:
        self.fwd, self.bwd = self._made(self.conf.fwd), self._made(self.conf.bwd)
        self.recurrent = True

    def views(self) -> Iterator[View]:
        for letter, layer in (("f", self.fwd), ("b", self.bwd)):
            for view in layer.views():
                yield view.renamed(letter + view.name)

    def draw(self, noise: Noise) -> None:
        for _ in range(2 if noise.native else 1):  # DL4J: once more, all anew
            self.fwd.draw(noise)
            self.bwd.draw(noise)

    def follow(self, order: str) -> str:
        self.bwd.follow("f")  # DL4J: a turned copy
        return self.fwd.follow(order)

    def forward(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> Any:
        self.check(x)
        time = 1 if self.conf.format == "NWC" else 2
        y, z, state = both_ways(self.fwd, self.bwd, x, mask, state, time)
        mode = self.conf.mode
        if mode == "CONCAT":
            joined = torch.cat([y, z], 3 - time)
        elif mode == "MUL":
            joined = y * z
        else:
            joined = y + z if mode == "ADD" else (y + z) * 0.5
        return joined, state

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return mask

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return self.fwd.differs(dtype)

    def predicts_differently(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return self.fwd.predicts_differently(dtype)


@implements(config.LastTimeStep)
class LastTimeStep(Wrapper):
    """
    Shape:
        ``[n, n_in, time]`` → ``[n, n_out]``

    Example:
        >>> LastTimeStep(config.LSTM(n_in=3, n_out=2))(torch.zeros(4, 3, 5)).shape
        torch.Size([4, 2])
    """

    neighbour = ("—", "the last step that is not masked")

    def follow(self, order: str) -> str:
        self.inner.follow(order)
        return "f"

    def build(self) -> None:
        super().build()
        self.recurrent = False
        hand_on_masks(self.inner)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        self.check(x)
        y = self.inner(x, mask, state)
        y = y[0] if self.inner.recurrent else y
        return last_step(y.transpose(1, 2) if self.conf.format == "NWC" else y, mask)

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return None


@implements(config.TimeDistributed)
class TimeDistributed(Wrapper):
    """
    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``

    Example:
        >>> TimeDistributed(config.Dense(n_in=3, n_out=2))(torch.zeros(4, 3, 5)).shape
        torch.Size([4, 2, 5])
    """

    neighbour = ("—", "a layer on rows at every time step")

    def follow(self, order: str) -> str:
        return self.inner.follow("c")

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        self.check(x)
        x = self.arrange(x)
        check_mask(mask, x)
        x = x.transpose(1, 2)
        flat = None
        if mask is not None:
            # DL4J takes the mask's entries in another order than the steps
            flat = (mask.t() if self.dl4j_exact else mask).reshape(-1)
        y = self.inner(x.flatten(0, 1), flat).unflatten(0, x.shape[:2])
        return self.as_given(y.transpose(1, 2))

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return mask

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        line = "TimeDistributed: DL4J takes the mask's entries in another order"
        return [*super().differs(dtype), line]


@implements(config.MaskZero)
class MaskZero(Wrapper):
    """
    Shape:
        as the layer inside.

    Example:
        >>> y, _ = MaskZero(config.LSTM(n_in=3, n_out=2))(torch.zeros(4, 3, 5))
        >>> bool((y == 0).all())
        True
    """

    neighbour = ("—", "makes a mask of what stands for nothing")

    in_pieces = False  # whether the series comes in pieces: DL4J then masks nothing

    def build(self) -> None:
        super().build()
        hand_on_masks(self.inner)

    def forward(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> Any:
        self.check(x)
        features = 2 if self.conf.format == "NWC" else 1
        check_mask(mask, self.arrange(x))
        if self.dl4j_exact and self.in_pieces:
            return self.inner(x, None, state)
        shown = (x != self.conf.masking_value).any(features).to(x.dtype)
        if mask is not None and not self.dl4j_exact:  # DL4J knows its own only
            shown = shown * mask.to(x.dtype)
        return self.inner(x, shown, state)


class _Still(Wrapper):
    """Base of layers that are not trained and always work as in testing."""

    trained = "never"

    def build(self) -> None:
        super().build()
        self.inner.eval()

    def train(self, mode: bool = True) -> _Still:
        super().train(mode)
        self.inner.train(False)
        return self


@implements(config.Frozen)
class Frozen(_Still):
    """
    Shape:
        as the layer inside.

    Example:
        >>> Frozen(config.Dense(n_in=3, n_out=2))(torch.zeros(4, 3)).requires_grad
        False
    """

    neighbour = ("—", "requires_grad_(False) and eval(), as a layer")
    stops = True

    def forward(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> Any:
        self.check(x)
        # DL4J's windows of training find no state of an LSTM here
        lost = self.dl4j_exact and self.training and isinstance(self.inner, Gated)
        return self.inner(x.detach(), mask, None if lost else state)


@implements(config.FrozenWithBackprop)
class FrozenWithBackprop(_Still):
    """
    Shape:
        as the layer inside.

    Example:
        >>> layer = FrozenWithBackprop(config.Dense(n_in=3, n_out=2))
        >>> layer(torch.zeros(4, 3, requires_grad=True)).requires_grad
        True
    """

    neighbour = ("—", "the same, and gradients go through it")
    trained = "still"

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        found = super().differs(dtype)
        if any(view.penalties for view in self.views()):
            found.append("FrozenWithBackprop: DL4J's updater acts on its penalties")
        return found
