"""Gradients on their way to the updaters: collected, normalised, penalised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dl4py.clock import Clock
from dl4py.network.tracks import Track

SMALL = 1e-5  # DL4J's stand-in for a norm of 0


def norm(g: Tensor) -> Tensor:
    """‖g‖ in float64.

    Where float32 costs no precision it is taken by rows, without a copy: on a CPU,
    where nothing waits for the look at what would have left its range.
    """
    rows = g.dim() > 1 and g.numel() >= 64 * g.shape[0]
    if rows and g.dtype == torch.float32 and g.is_cpu and type(g) is Tensor:
        by_rows = torch.linalg.vector_norm(g.flatten(1), dim=1)
        found: Tensor = torch.linalg.vector_norm(by_rows, dtype=torch.float64)
        if 1e-15 < float(found) < 1e18:
            return found
    whole: Tensor = torch.linalg.vector_norm(g, dtype=torch.float64)
    return whole


def normalised(
    grads: Sequence[Tensor],
    mode: str,
    threshold: float,
    rooms: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """The gradients of one layer after one of DL4J's five rules; θ is the threshold.

    RenormalizeL2PerLayer: g / ‖layer‖; RenormalizeL2PerParamType: g / ‖g‖;
    ClipElementWiseAbsoluteValue: clip(g, -θ, θ); ClipL2PerLayer: g·θ/‖layer‖ where
    ‖layer‖ > θ; ClipL2PerParamType: g·θ/‖g‖ where ‖g‖ > θ. A norm of 0 counts as 1e-5.
    What changes is written to ``rooms`` where they are given.

    >>> normalised([torch.tensor([3.0, 4.0])], "ClipL2PerLayer", 1.0)
    [tensor([0.6000, 0.8000])]
    """
    outs = [torch.empty_like(g) for g in grads] if rooms is None else rooms
    if mode == "ClipElementWiseAbsoluteValue":
        pairs = zip(grads, outs, strict=True)
        return [torch.clamp(g, -threshold, threshold, out=o) for g, o in pairs]
    norms = torch.stack([norm(g) for g in grads])
    if mode.endswith("PerLayer"):
        norms = norms.norm().expand(len(grads))
    renorm = mode.startswith("Renormalize")
    if not renorm and type(norms) is Tensor and norms.is_cpu:
        if not bool((norms > threshold).any()):  # nothing waits for this look either
            return list(grads)
    if renorm:
        scales = norms.masked_fill(norms == 0, SMALL).reciprocal()
    else:
        scales = torch.where(norms > threshold, threshold / norms, 1.0)
    triples = zip(grads, scales, outs, strict=True)
    return [torch.mul(g, scale.to(g.dtype), out=o) for g, scale, o in triples]


def collect(tracks: Iterable[Track]) -> None:
    """Take what ``backward()`` left, and the pseudo-gradients of statistics."""
    for track in tracks:
        view = track.view
        if track.is_statistic:
            track.grad = view.pending
        elif view.trained == "still" and not view.behind:
            # DL4J: a gradient of 0, and then its penalties
            track.grad = torch.zeros_like(track.tensor) if view.exact else None
        else:
            track.grad = None if track.group is None else track.tensor.grad


def fill(tracks: Sequence[Track], clock: Clock) -> None:
    """In exact mode DL4J's gradient where ``backward()`` left none: 0.

    Behind frozen layers DL4J's buffer holds what was in it, the updates of the step
    before, which it divides by the number of examples. Penalties and what the updater
    remembers come on top.
    """
    if not any(t.grad is not None and t.group is not None for t in tracks):
        return
    for track in tracks:
        view = track.view
        if track.grad is not None or track.group is None or not view.exact:
            continue
        trained = view.trained == "always" and track.tensor.requires_grad
        if not trained and view.trained != "still":
            continue
        if track.left is None:
            track.grad = torch.zeros_like(track.tensor)
        else:
            track.grad = track.left / clock.examples


def normalise(tracks: Iterable[Track]) -> None:
    """Bring the gradients of each layer to its rule, in DL4J those that come to it."""
    layers: dict[str, list[Track]] = {}
    for track in tracks:
        view = track.view
        if track.grad is not None and not (view.behind and view.exact):
            layers.setdefault(view.node, []).append(track)
    for found in layers.values():
        conf = found[0].view.conf
        mode = getattr(conf, "gradient_normalization", None) or "None"
        if mode == "None":
            continue
        grads = [track.grad for track in found if track.grad is not None]
        rooms = [track.room(g) for track, g in zip(found, grads, strict=True)]
        normed = normalised(grads, mode, conf.gradient_normalization_threshold, rooms)
        for track, grad in zip(found, normed, strict=True):
            track.grad = grad


def penalise(tracks: Iterable[Track], clock: Clock) -> None:
    """Add the gradients of l1 and l2."""
    for track in tracks:
        for r in track.view.penalties:
            if r.before_updater and track.grad is not None:
                track.grad = track.penalised(track.grad, r, clock)
