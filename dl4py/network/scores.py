"""Scores that training goes by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.parametrize import cached

from dl4py.activations import gradient_of
from dl4py.config.plan import Plan
from dl4py.config.settings import SGD, NetworkConfiguration
from dl4py.layers import Scored
from dl4py.network.batch import Batch, Given
from dl4py.network.parameters import Parameters
from dl4py.network.walk import Node

STILL = ("never", "still")  # what a layer around another says of its parameters


def check_score(score: float, iteration: int) -> None:
    """Refuse to step on a score that is no number.

    >>> check_score(1.5, 0)
    """
    if not math.isfinite(score):
        raise FloatingPointError(
            f"the score is {score} at iteration {iteration}; the parameters are those "
            "before this step: look for values in the batch that are not finite, lower "
            "the learning rate or set gradient_normalization(...)"
        )


class Scores(Parameters):
    """What a network says of losses, scores, gradients; :class:`Network` has it."""

    conf: NetworkConfiguration
    plan: Plan
    nodes: Sequence[Node]
    _batch: Any  # and these methods
    _kept: Any
    _mode: Any
    _untouched: Any
    _walk: Any

    @property
    def scored(self) -> tuple[Scored, ...]:
        """The output layers in order, each of which must have a loss."""
        by_name = {node.name: node for node in self.nodes}
        found = []
        for name in self.plan.outputs:
            layer = by_name[name].scored
            if layer is None:
                around = by_name[name].layer
                kind = type(around).__name__
                inner = getattr(around, "inner", None)
                if isinstance(inner, Scored) and around.trained in STILL:
                    raise ValueError(
                        f"the output {name!r}, {kind}, is frozen, and behind a frozen "
                        "output nothing is trained: freeze layers before it only"
                    )
                raise ValueError(
                    f"the output {name!r}, {kind}, has no loss: end the network with "
                    "Output, RnnOutput or LossLayer to train it"
                )
            found.append(layer)
        return tuple(found)

    def divisor(self, layer: Scored, n: int) -> int:
        """What an output's sum over ``n`` examples is divided by."""
        if not layer.additive and not self.dl4j_exact:
            return 1  # one number of the whole batch; DL4J divides it again
        return n if self.conf.mini_batch or layer.always_divides else 1

    def _scores(self, batch: Batch) -> list[tuple[Scored, Tensor, int]]:
        """(output layer, its score summed over examples without penalties, n) each."""
        layers = dict(zip(self.plan.outputs, self.scored, strict=True))
        if self._counts:
            self.clock.examples = batch.inputs[0].shape[0]
        with self._untouched():
            return [
                (layers[name], flow.score, flow.n)
                for name, flow in self._walk(batch)
                if flow.score is not None
            ]

    def _loss(self, scores: list[tuple[Scored, Tensor, int]]) -> Tensor:
        parts = []
        for layer, total, n in scores:
            part = total / self.divisor(layer, n)
            if self.dl4j_exact and self._undivided(layer):
                part = gradient_of(total, part)  # the value, with the sum's gradient
            parts.append(part)
        return sum(parts[1:], parts[0])

    def loss(
        self,
        x: Given,
        labels: Given,
        features_mask: Given = None,
        labels_mask: Given = None,
    ) -> Tensor:
        """The score without penalties, in the current mode, with its graph."""
        if labels is None:
            self._batch(x, labels, features_mask, labels_mask, scored=True)  # refuses
        loss: Tensor = self(x, features_mask, labels_mask, labels=labels)
        return loss

    def _undivided(self, layer: Any) -> bool:
        """Whether DL4J divides the score by the number of examples, but no gradient."""
        return getattr(layer, "always_divides", False) and not self.conf.mini_batch

    def objective(
        self,
        x: Given,
        labels: Given,
        features_mask: Given = None,
        labels_mask: Given = None,
    ) -> Tensor:
        """What ``backward()`` is called on: :meth:`loss`, with a solver the score.

        The optimizer adds the penalties' gradients after gradient normalisation; a
        solver needs them in what it minimises.

        Raises:
            ValueError: where no parameter takes a gradient; not of a network of frozen
                layers in exact mode, since DL4J's SGD then steps and moves nothing.
        """
        loss = self.loss(x, labels, features_mask, labels_mask)
        if torch.is_grad_enabled() and not loss.requires_grad:
            frozen = [n.name for n in self.nodes if any(True for _ in n.layer.views())]
            if frozen and self.dl4j_exact and self.conf.optimization_algo == SGD:
                return loss.requires_grad_()  # DL4J's step moves nothing, and counts
            told, out = "the network has no parameters", ""
            if frozen:
                told = f"no parameter takes a gradient ({', '.join(frozen)})"
                out = "leave a layer unfrozen, or "
            raise ValueError(
                f"there is nothing to train: {told}; {out}use score(x, labels)"
            )
        return loss + self.penalty(whole=True) if self.solved else loss

    @property
    def solved(self) -> bool:
        """Whether a solver trains the network, other than DL4J's own."""
        exact = self.dl4j_exact and self.conf.optimization_algo != "HESSIAN_FREE"
        return self.conf.optimization_algo != SGD and not exact

    def score(
        self,
        x: Given,
        labels: Given,
        features_mask: Given = None,
        labels_mask: Given = None,
        training: bool = False,
    ) -> float:
        """DL4J's score, (Σ over examples) / n plus penalties; it changes nothing.

        Args:
            training: whether noise and batch statistics are on.
        """
        with self._kept(), self._mode(training), torch.no_grad():
            loss = self.loss(x, labels, features_mask, labels_mask)
            return float(loss + self.penalty())

    def gradient_and_score(
        self,
        x: Given,
        labels: Given,
        features_mask: Given = None,
        labels_mask: Given = None,
    ) -> tuple[Tensor, float]:
        """DL4J's ``gradient()`` and ``score()`` of a batch, without a step.

        Returns:
            the flat gradient, **summed** over examples, before division by n,
            normalisation and penalties, batch-norm pseudo-gradients included; and the
            training-mode score. Flags, gradients and statistics stay as they were.
        """
        batch = self._batch(x, labels, features_mask, labels_mask, scored=True)
        # cached: what is parametrized is then the tensor that was used
        with cached(), self._kept(), self._mode(True), torch.enable_grad():
            scores = self._scores(batch)
            total = torch.stack([part for _, part, _ in scores]).sum()
            tensors = [view.used for view in self._views]
            free = [t for t in tensors if t.requires_grad]
            grads = torch.autograd.grad(total, free, allow_unused=True) if free else ()
            found = iter(grads)
            parts = []
            for view, t in zip(self._views, tensors, strict=True):
                g = next(found) if t.requires_grad else view.pseudo_gradient
                parts.append(view.flat(torch.zeros_like(t) if g is None else g))
            divided = sum(part / self.divisor(layer, n) for layer, part, n in scores)
            score = float((divided + self.penalty()).detach())
        return torch.cat(parts) if parts else torch.zeros(0), score
