"""DL4J's five rules of gradient normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 1e-5  # DL4J's stand-in for a norm of 0


def normalised(grads: list[Tensor], mode: str, threshold: float) -> list[Tensor]:
    """The gradients of one layer after one of DL4J's five rules; θ is the threshold.

    RenormalizeL2PerLayer: g / ‖layer‖; RenormalizeL2PerParamType: g / ‖g‖;
    ClipElementWiseAbsoluteValue: clip(g, -θ, θ); ClipL2PerLayer: g·θ/‖layer‖ where
    ‖layer‖ > θ; ClipL2PerParamType: g·θ/‖g‖ where ‖g‖ > θ. A norm of 0 counts as 1e-5.

    >>> normalised([torch.tensor([3.0, 4.0])], "ClipL2PerLayer", 1.0)
    [tensor([0.6000, 0.8000])]
    """
    if mode == "ClipElementWiseAbsoluteValue":
        return [g.clamp(-threshold, threshold) for g in grads]
    norms = torch.stack([g.double().norm() for g in grads])
    if mode.endswith("PerLayer"):
        norms = norms.norm().expand(len(grads))
    if mode.startswith("Renormalize"):
        scales = norms.masked_fill(norms == 0, SMALL).reciprocal()
    else:
        scales = torch.where(norms > threshold, threshold / norms, 1.0)
    return [g * scale.to(g.dtype) for g, scale in zip(grads, scales, strict=True)]
