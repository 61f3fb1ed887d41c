"""What is looked at during one iteration of training, for its statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dl4py.layers import Scored
from dl4py.ops.register import uncompiled
from dl4py.training import statistics


class Watch:
    """What is looked at during one iteration.

    Nothing waits for the device before :meth:`found`.

    Args:
        module: whose parameters and activations.
        whole: whether numbers are kept for histograms, too.
        limit: of the numbers of a tensor, as in :func:`~statistics.chosen`.
    """

    def __init__(self, module: Any, whole: bool, limit: int | None) -> None:
        self.whole, self.limit = whole, limit
        self.watched = list(statistics.parameters(module))
        self.weights = {one.name for one in self.watched if one.weight}
        self.before = self._chosen()
        self.gradients: list[Tensor] = []
        self.activations: dict[str, Tensor] = {}
        self._hooks = [
            part.register_forward_hook(self._hook(name), with_kwargs=True)
            for name, part in statistics.layers_of(module)
        ]

    def _chosen(self) -> list[Tensor]:
        """The present numbers of the parameters."""
        return [statistics.chosen(one.tensor, self.limit) for one in self.watched]

    @property
    def names(self) -> list[str]:
        """Of the parameters."""
        return [one.name for one in self.watched]

    def _hook(self, name: str) -> Any:
        @uncompiled
        def hook(part: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
            if not torch.is_grad_enabled():
                return
            with torch.no_grad():
                if kwargs.get("labels") is not None and isinstance(part, Scored):
                    output = _activations(part, args)
                y = _first(output)
                if y is not None and y.numel():
                    self.activations[name] = statistics.chosen(y, self.limit)

        return hook

    def look_at_gradients(self) -> None:
        """Of the first evaluation; a solver has several."""
        if not self.gradients:
            self.gradients = [
                t.new_zeros(1) if g is None else statistics.chosen(g, self.limit)
                for g, t in (
                    (one.tensor.grad, t)
                    for one, t in zip(self.watched, self.before, strict=True)
                )
            ]

    def end(self) -> None:
        """Look at no activations any more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @torch.no_grad()
    def found(
        self, bins: int, scores: list[Tensor]
    ) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
        """Numbers by family, in the order of the names; histograms by kind and name."""
        after = self._chosen()
        updates = torch._foreach_sub(self.before, after) if after else []
        acts, count = list(self.activations.values()), len(updates)
        sizes = statistics.magnitudes([*after, *updates])
        means, deviations = statistics.moments([*updates, *self.gradients, *acts])
        rest = count + len(self.gradients)
        vectors = {
            "mean_magnitude/parameters": sizes[:count],
            "mean_magnitude/updates": sizes[count:],
            "std/updates": deviations[:count],
            "std/gradients": deviations[count:rest],
            "mean/activations": means[rest:],
            "std/activations": deviations[rest:],
            "score": torch.stack([s.reshape(()) for s in scores])
            if scores
            else means.new_zeros(0),
        }
        shapes: dict[str, dict[str, Any]] = {}
        kinds: dict[str, tuple[Any, Sequence[Tensor]]] = {
            "parameters": (self.names, after),
            "updates": (self.names, updates),
            "gradients": (self.names, self.gradients),
            "activations": (self.activations, acts),
        }
        for kind, (names, tensors) in kinds.items() if self.whole else ():
            samples = dict(zip(names, tensors, strict=False))
            shapes[kind] = statistics.histograms(samples, bins)
        return statistics.fetched(vectors), shapes


def _activations(part: Scored, args: Any) -> Any:
    """What an output layer predicts; in test mode, so that nothing is drawn anew."""
    training = part.training
    part.training = False
    try:
        return part.forward(*args[:2])
    finally:
        part.training = training


def _first(output: Any) -> Tensor | None:
    """The first floating-point tensor in what a module returned."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return next((t for o in output if (t := _first(o)) is not None), None)
    return None
