"""Random draws of a network, all through one object: torch's, or ND4J's own."""

from dl4py.noise.base import TORCH, Noise, Source
from dl4py.noise.native import NativeRandom
from dl4py.noise.shuffles import permutation

__all__ = ["TORCH", "NativeRandom", "Noise", "Source", "permutation"]
