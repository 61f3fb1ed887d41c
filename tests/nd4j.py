"""ND4J's own random numbers, where their generator is at hand."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.golden import SHARED

PROGRAM = SHARED / "reference" / "nd4j_random.py"


def at_hand() -> bool:
    """Whether the generator is here."""
    return PROGRAM.exists()


@functools.cache
def _module() -> Any:
    spec = importlib.util.spec_from_file_location("nd4j_random", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Noise:
    """What stands for :class:`dl4py.noise.Noise` with ND4J's draws from ``seed``."""

    def __init__(self, seed: int) -> None:
        self._random = _module().Nd4jRandom(seed)

    def _shaped(self, drawn: np.ndarray, like: Tensor) -> Tensor:
        return torch.from_numpy(drawn.reshape(like.shape)).to(like.dtype)

    def normal(self, like: Tensor) -> Tensor:
        """N(0, 1) in the shape and dtype of ``like``."""
        return self._shaped(self._random.randn(like.numel(), np.float64), like)

    def uniform(self, like: Tensor) -> Tensor:
        """U(0, 1) in the shape and dtype of ``like``."""
        return self._shaped(self._random.rand(like.numel(), np.float64), like)

    def keep(self, like: Tensor, p: float) -> Tensor:
        """1 with probability ``p``, else 0: ND4J's binomial of one trial."""
        drawn = self._random.binomial(like.numel(), 1, p, np.float64)
        return self._shaped(drawn, like)
