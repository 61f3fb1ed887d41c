"""Random draws of a network, all through one object."""

from __future__ import annotations

import torch
from torch import Tensor


class Noise:
    """Where random numbers come from: torch's generators, or one of one's own.

    A network hands one ``Noise`` to every module that draws, so that all its draws come
    from one stream in DL4J's order. A module used alone draws from torch's default
    generator.

    Args:
        generator: a CPU or CUDA generator; ``None`` is torch's default one of the
            device.

    Example:
        >>> a, b = (Noise(torch.Generator().manual_seed(1)) for _ in range(2))
        >>> bool((a.uniform(torch.empty(3)) == b.uniform(torch.empty(3))).all())
        True
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def uniform(self, like: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        """U(low, high) in the shape, dtype and device of ``like``."""
        return torch.empty_like(like).uniform_(low, high, generator=self.generator)

    def normal(self, like: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """N(mean, std²) in the shape, dtype and device of ``like``."""
        return torch.empty_like(like).normal_(mean, std, generator=self.generator)

    def keep(self, like: Tensor, p: float) -> Tensor:
        """1 with probability ``p``, else 0, in shape, dtype and device of ``like``."""
        return torch.empty_like(like).bernoulli_(p, generator=self.generator)

    def empty(self, like: Tensor) -> Tensor:
        """Room for draws in the shape, dtype and device of ``like``."""
        return torch.empty_like(like)

    def seed(self, like: Tensor) -> Tensor:
        """A 0-d int64 seed for a random op, drawn on the device of ``like``."""
        top = 2**63 - 1
        return torch.randint(
            top, (), dtype=torch.int64, device=like.device, generator=self.generator
        )


TORCH = Noise()
