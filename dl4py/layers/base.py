"""What every layer module has: its views in DL4J's layout, input noise, masks."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dl4py import weight_init
from dl4py.activations import Activation
from dl4py.clock import Clock
from dl4py.losses import Loss
from dl4py.noise import TORCH, Noise
from dl4py.registry import DROPOUTS


def _same(t: Tensor) -> Tensor:
    return t


@dataclass(frozen=True)
class View:
    """How DL4J sees one parameter or statistic of a layer.

    Args:
        name: DL4J's name of it, e.g. ``"W"``.
        tensor: the module's attribute that holds it.
        kind: ``"weight"``, ``"bias"``, ``"gain"``, ``"scale"`` or ``"statistic"``:
            decides updater, penalties and first value. Statistics are buffers.
        order: ``"c"`` or ``"f"``: how DL4J lays its array out in the flat vector.
        shaped: from the module's tensor to DL4J's array, as a view of the same memory.
        fans: (fan_in, fan_out) of the weight initialisation.
        first: the first value (a number, or a function of the tensor) where it is
            neither drawn nor ``bias_init``.
        init: the attribute with the weight initialisation.
    """

    name: str
    tensor: str
    kind: str = "weight"
    order: str = "c"
    shaped: Callable[[Tensor], Tensor] = _same
    fans: tuple[float, float] = (1.0, 1.0)
    first: float | Callable[[Tensor], Tensor] | None = None
    init: str = "weight_init"

    def flat(self, t: Tensor) -> Tensor:
        """``t`` (the tensor, or one like it) as DL4J's segment of the flat vector."""
        t = self.shaped(t)
        if self.order == "f":
            t = t.permute(*reversed(range(t.dim())))
        return t.reshape(-1)

    def fill(self, t: Tensor, segment: Tensor) -> None:
        """Write DL4J's ``segment`` into ``t``, in place."""
        target = self.shaped(t)
        if self.order == "f":
            target = target.permute(*reversed(range(target.dim())))
        target.copy_(segment.reshape(target.shape))


class Layer(nn.Module):
    """Base of all layer modules.

    ``forward(x, mask=None, state=None)`` returns the activations, or (activations,
    state) where ``recurrent`` is true. Shapes are DL4J's; masks are ``[n]`` or
    ``[n, 1]`` for rows, ``[n, time]`` for series, ``[n, 1, height, width]`` for images.

    Args:
        dropout: noise on the input while training: an instance of a class in
            ``dl4py.config``, or a number p for ``Dropout(p)``, p being the probability
            of **keeping** a value.
        dl4j_exact: whether DL4J's faults are reproduced too.
    """

    recurrent = False
    noise: Noise = TORCH

    def __init__(self, dropout: Any = None, dl4j_exact: bool = False) -> None:
        super().__init__()
        if isinstance(dropout, (int, float)) and dropout:
            dropout = DROPOUTS["dropout"](float(dropout))
        self.dropout = dropout or None
        self.dl4j_exact = dl4j_exact
        self.clock = Clock(dl4j_exact=dl4j_exact)
        self.pending: dict[str, Tensor] = {}  # statistic → DL4J's pseudo-gradient

    @classmethod
    def from_config(cls, conf: Any, dl4j_exact: bool = False) -> Any:
        """The module that a layer's configuration describes."""
        names = inspect.signature(cls).parameters
        known = {name: getattr(conf, name) for name in names if hasattr(conf, name)}
        return cls(**{**known, "dl4j_exact": dl4j_exact})

    def dl4j_views(self) -> Iterator[View]:
        """The parameters and statistics in the order of DL4J's flat vector."""
        return iter(())

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew, in DL4J's order."""
        for view in self.dl4j_views():
            t = getattr(self, view.tensor)
            if t.is_meta:
                continue  # nothing to draw into
            with torch.no_grad():
                if callable(view.first):
                    t.copy_(view.first(t))
                elif view.first is not None:
                    t.fill_(view.first)
                elif view.kind == "weight":
                    init = weight_init.get(getattr(self, view.init))
                    init(t, *view.fans, generator=generator)
                elif view.kind == "bias":
                    t.fill_(getattr(self, "bias_init", 0.0))
                elif view.kind == "gain":
                    t.fill_(getattr(self, "gain_init", 1.0))

    def disturb(self, x: Tensor) -> Tensor:
        """The input with its training noise."""
        if not self.training or self.dropout is None:
            return x
        noisy: Tensor = self.dropout.apply(x, self.noise, self.clock)
        return noisy

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        """The mask that goes on when ``mask`` and an input of ``shape`` come in."""
        return mask

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        """One line per way in which ``dl4j_exact`` changes what the layer computes."""
        parts = (m for m in self.modules() if isinstance(m, (Activation, Loss)))
        lines = [part.differs(dtype) for part in parts]
        return list(dict.fromkeys(line for line in lines if line))

    def predicts_differently(self, dtype: torch.dtype = torch.float64) -> list[str]:
        """Those of :meth:`differs` that show in test mode on ordinary data."""
        return [
            str(part.differs(dtype))
            for part in self.modules()
            if isinstance(part, Activation) and not _predicts_as_dl4j(part, dtype)
        ]

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}" if self.dropout else ""


def _predicts_as_dl4j(part: Activation, dtype: torch.dtype) -> bool:
    """Whether exact mode changes what an activation gives when testing."""
    if part.dl4j_exact or part.differs(dtype) is None:
        return True
    exact, plain = copy.deepcopy(part).eval(), copy.deepcopy(part).eval()
    exact.dl4j_exact = True
    x = torch.linspace(-4, 4, 81, dtype=dtype)
    return torch.equal(exact(x), plain(x))


def masked_rows(y: Tensor, mask: Tensor | None) -> Tensor:
    """Rows of ``y`` times their mask, as DL4J does in every layer on rows.

    Args:
        y: ``[n, size]``.
        mask: ``[n]``, ``[n, 1]``, or one number per output.
    """
    if mask is None:
        return y
    if mask.shape == y.shape:
        return y * mask.to(y.dtype)
    return y * mask.reshape(mask.shape[0], *(1,) * (y.dim() - 1)).to(y.dtype)
