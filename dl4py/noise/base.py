"""What draws: torch's generators, and the interface of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

Like: TypeAlias = Tensor | int | Sequence[int]
Source: TypeAlias = "Noise | torch.Generator | None"  # where draws come from


class Noise:
    """Where random numbers come from: torch's generators, or one of one's own.

    A network hands one ``Noise`` to every module that draws, so that all its draws come
    from one stream in DL4J's order. A module used alone draws from torch's default
    generator. Methods that end in ``_`` fill a tensor in place; the others make one
    in shape, dtype and device of ``like``, or of a shape.

    Args:
        generator: a CPU or CUDA generator; ``None`` is torch's default one of the
            device.

    Attributes:
        native: whether the draws are ND4J's, in ND4J's order.

    Example:
        >>> a, b = (Noise(torch.Generator().manual_seed(1)) for _ in range(2))
        >>> bool((a.uniform(torch.empty(3)) == b.uniform(3)).all())
        True
    """

    native = False

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    @staticmethod
    def of(source: Source) -> Noise:
        """The noise of a generator, of ``None`` torch's default one, or itself."""
        if source is None:
            return TORCH
        if isinstance(source, Noise):
            return source
        if isinstance(source, torch.Generator):
            return Noise(source)
        raise TypeError(
            "expected a dl4py.NativeRandom, a torch.Generator or None as the source of "
            f"random numbers, got {source!r}; of a seed make "
            "dl4py.NativeRandom(seed) or torch.Generator().manual_seed(seed)"
        )

    @property
    def source(self) -> Source:
        """What weight initialisations take as their ``generator``."""
        return self.generator

    def torchs(self) -> torch.Generator | None:
        """A generator for torch's own functions."""
        return self.generator

    def uniform_(self, t: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        """U(low, high)."""
        return t.uniform_(low, high, generator=self.generator)

    def normal_(self, t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """N(mean, std²)."""
        return t.normal_(mean, std, generator=self.generator)

    def truncated_normal_(
        self, t: Tensor, mean: float = 0.0, std: float = 1.0
    ) -> Tensor:
        """N(mean, std²) cut off at mean ± 2·std."""
        nn.init.trunc_normal_(t, generator=self.generator)  # N(0, 1) within ±2
        return t.mul_(std).add_(mean)

    def log_normal_(self, t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """exp of N(mean, std²)."""
        return self.normal_(t, mean, std).exp_()

    def binomial_(self, t: Tensor, trials: int, p: float) -> Tensor:
        """How many of ``trials`` of probability ``p`` succeed."""
        n = torch.full_like(t, trials, dtype=torch.float64)
        drawn = torch.binomial(n, torch.full_like(n, p), generator=self.generator)
        return t.copy_(drawn)

    def orthogonal_(self, t: Tensor, gain: float = 1.0) -> Tensor:
        """Orthonormal columns, or rows where those are fewer, times ``gain``; 2-D."""
        return nn.init.orthogonal_(t, gain, generator=self.generator)

    def keep_(self, t: Tensor, p: float) -> Tensor:
        """1 with probability ``p``, else 0: what dropout multiplies by."""
        return t.bernoulli_(p, generator=self.generator)

    def bernoulli_(self, t: Tensor, p: float) -> Tensor:
        """1 with probability ``p``, else 0; ND4J draws it otherwise than ``keep_``."""
        return t.bernoulli_(p, generator=self.generator)

    def empty(self, like: Like, order: str = "c") -> Tensor:
        """Room for draws in shape, dtype and device of ``like``, or of a shape.

        Args:
            order: of ND4J's array: ``"c"`` or ``"f"``. torch's draws have none.
        """
        return torch.empty_like(like) if isinstance(like, Tensor) else torch.empty(like)

    def uniform(self, like: Like, low: float = 0.0, high: float = 1.0) -> Tensor:
        """U(low, high)."""
        return self.uniform_(self.empty(like), low, high)

    def normal(self, like: Like, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """N(mean, std²)."""
        return self.normal_(self.empty(like), mean, std)

    def truncated_normal(
        self, like: Like, mean: float = 0.0, std: float = 1.0
    ) -> Tensor:
        """N(mean, std²) cut off at mean ± 2·std."""
        return self.truncated_normal_(self.empty(like), mean, std)

    def log_normal(self, like: Like, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """exp of N(mean, std²)."""
        return self.log_normal_(self.empty(like), mean, std)

    def binomial(self, like: Like, trials: int, p: float) -> Tensor:
        """How many of ``trials`` of probability ``p`` succeed."""
        return self.binomial_(self.empty(like), trials, p)

    def keep(self, like: Like, p: float) -> Tensor:
        """1 with probability ``p``, else 0: what dropout multiplies by."""
        return self.keep_(self.empty(like), p)

    def bernoulli(self, like: Like, p: float) -> Tensor:
        """1 with probability ``p``, else 0."""
        return self.bernoulli_(self.empty(like), p)

    def ordered(self, order: str) -> Noise:
        """The same draws for arrays that ND4J holds in ``order``, "c" or "f"."""
        return self

    def seed(self, like: Tensor) -> Tensor:
        """A 0-d int64 seed for a random op, drawn on the device of ``like``."""
        top = 2**63 - 1
        return torch.randint(
            top, (), dtype=torch.int64, device=like.device, generator=self.generator
        )


TORCH = Noise()
