"""Training layer by layer on inputs alone, before the labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dl4py.clock import Clock
from dl4py.config.settings import NetworkConfiguration
from dl4py.layers.autoencoders import Pretrained
from dl4py.layers.view import View
from dl4py.network.batch import Batch, Given
from dl4py.network.optimizer import NetworkOptimizer
from dl4py.network.scores import check_score
from dl4py.network.walk import Node


class LayerWise(nn.Module):
    """What a network does to train layers on inputs alone; :class:`Network` has it.

    Every layer has an optimizer of its own for this, with counters of its own: as in
    DL4J, ``fit`` begins with fresh updaters.

    DL4J: ``pretrain`` and ``pretrainLayer`` in MultiLayerNetwork and ComputationGraph.
    """

    conf: NetworkConfiguration
    nodes: Sequence[Node]
    dl4j_exact: bool
    _views: tuple[View, ...]
    _batch: Any  # and these methods
    _kept: Any
    _mode: Any
    _walk: Any

    def __init__(self) -> None:
        super().__init__()
        self._pretraining: dict[str, NetworkOptimizer] = {}

    def pretrain(self, x: Any, epochs: int = 1) -> dict[str, float]:
        """Train every layer that can be on inputs alone, one after the other.

        Args:
            x: the inputs of a batch, or a loader of batches as :meth:`fit` takes them,
                whose labels are not looked at, or of inputs.
            epochs: passes over a loader for each layer, >= 1.

        Returns:
            the last score of each layer, by name.
        """
        names = [n.name for n in self.nodes if isinstance(n.layer, Pretrained)]
        if not names:
            raise ValueError(
                "pretrain: no layer is trained on inputs alone; add an AutoEncoder or "
                "a VariationalAutoencoder"
            )
        return {name: self.pretrain_layer(name, x, epochs) for name in names}

    def pretrain_layer(self, layer: int | str, x: Any, epochs: int = 1) -> float:
        """Train one layer on what the layers before it make of inputs, in test mode.

        Args:
            layer: its name, or its place in the network.
            x, epochs: as in :meth:`pretrain`.

        Returns:
            the score of the last batch before its step.

        Example:
            >>> from dl4py.config import AutoEncoder, NeuralNetConfiguration, Output
            >>> chain = NeuralNetConfiguration.builder().seed(1).updater("adam", lr=0.1)
            >>> chain = chain.layer(AutoEncoder(n_in=4, n_out=3, loss="MSE"))
            >>> net = chain.layer(Output(n_out=2)).build().module()
            >>> x = torch.eye(4)
            >>> first = net.pretrain_layer(0, x)
            >>> net.pretrain_layer(0, [x], epochs=50) < first
            True
        """
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(f"epochs: expected a whole number >= 1, got {epochs!r}")
        node, inside = self._pretrained(layer)
        alone = isinstance(x, (Tensor, Mapping, tuple)) or not isinstance(x, Iterable)
        if alone and epochs > 1:
            raise ValueError(
                f"pretrain(x, epochs={epochs}): a batch is one iteration of no epoch; "
                "write pretrain([x], epochs=...)"
            )
        score = None
        for _ in range(epochs):
            for batch in [x] if alone else x:
                score = self._pretrain_step(node, inside, batch)
            if not alone and not self.dl4j_exact:
                self.end_pretraining_epoch(node.name)
        if score is None:
            raise ValueError("pretrain(loader): expected at least one batch, got none")
        if not alone and self.dl4j_exact:  # DL4J counts all of them as one
            self.end_pretraining_epoch(node.name)
        return score

    def pretraining_optimizer(self, layer: int | str) -> NetworkOptimizer:
        """The optimizer of a layer's training on inputs alone, made at first use."""
        node, _ = self._pretrained(layer)
        if node.name not in self._pretraining:
            views = [view for view in self._views if view.node == node.name]
            clock = Clock(dl4j_exact=self.dl4j_exact)
            self._pretraining[node.name] = NetworkOptimizer(views, self.conf, clock)
        return self._pretraining[node.name]

    def pretraining_score(
        self, layer: int | str, x: Given, features_mask: Given = None
    ) -> Tensor:
        """What training of a layer on inputs alone makes small, with its graph.

        Its score over the number of examples, without penalties, in the current mode;
        masked examples count as 0.
        """
        node, inside = self._pretrained(layer)
        batch = self._batch(x, None, features_mask)
        given, mask = self._before(node, inside, batch)
        n = given.shape[0]
        if not n:
            raise ValueError(
                f"x: the batch is empty, shape {list(given.shape)}; a score and a step "
                "need at least one example"
            )
        if mask is not None and mask.numel() == n and not self.dl4j_exact:
            given = given[mask.reshape(-1) != 0]
        return inside.pretraining_score(given) / (n if self.conf.mini_batch else 1)

    def pretraining_penalty(self, layer: int | str) -> Tensor:
        """What l1, l2 and weight decay of a layer add to that score."""
        optimizer = self.pretraining_optimizer(layer)
        found = [
            r.score(track.view.tensor, optimizer.clock)
            for track in optimizer.tracks
            for r in track.view.penalties
            if not track.place
        ]
        first = optimizer.tracks[0].view.tensor
        return torch.stack(found).sum() if found else first.new_zeros(())

    def end_pretraining_epoch(self, layer: int | str) -> None:
        """Count an epoch of a layer's training on inputs alone."""
        optimizer = self.pretraining_optimizer(layer)
        optimizer.clock.epoch += 1
        optimizer.preview()

    def _pretrained(self, layer: int | str) -> tuple[Node, Pretrained]:
        named = {node.name: node for node in self.nodes}
        whole = isinstance(layer, int) and -len(self.nodes) <= layer < len(self.nodes)
        node = self.nodes[int(layer)] if whole else named.get(str(layer))
        if node is None or not isinstance(node.layer, Pretrained):
            names = [n.name for n in self.nodes if isinstance(n.layer, Pretrained)]
            raise ValueError(
                f"layer: expected one that is trained on inputs alone "
                f"({', '.join(names) or 'there is none'}), got {layer!r}"
            )
        return node, node.layer

    def _before(
        self, node: Node, inside: Pretrained, batch: Batch
    ) -> tuple[Tensor, Tensor | None]:
        """What comes in at a layer in test mode, and its mask."""
        seen: list[tuple[Any, ...]] = []
        hook = inside.register_forward_pre_hook(lambda _, given: seen.append(given))
        try:
            with self._kept(), self._mode(False), torch.no_grad():
                for name, _ in self._walk(batch):
                    if name == node.name:
                        break
        finally:
            hook.remove()
        return seen[-1][0], seen[-1][1]

    def _pretrain_step(self, node: Node, inside: Pretrained, batch: Any) -> float:
        optimizer = self.pretraining_optimizer(node.name)
        x, mask = inputs_of(batch)
        scores: list[float] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.pretraining_score(node.name, x, mask)
            penalty = self.pretraining_penalty(node.name)
            scores.append(float((loss + penalty).detach()))
            if len(scores) == 1:
                check_score(scores[0], optimizer.clock.iteration)
            whole = optimizer.solution is not None and not self.dl4j_exact
            loss = loss + penalty if whole else loss
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        with self._mode(True):
            optimizer.step(closure)  # type: ignore[arg-type]
            optimizer.zero_grad()
        return scores[0]


def inputs_of(batch: Any) -> tuple[Any, Any]:
    """(inputs, their mask) of a loader's batch, whose labels may be missing.

    >>> inputs_of((1, 2)), inputs_of((1, 2, 3, 4)), inputs_of({"x": 1}), inputs_of(5)
    ((1, None), (1, 3), (1, None), (5, None))
    """
    if isinstance(batch, Mapping) and "x" in batch:
        return batch["x"], batch.get("features_mask")
    if isinstance(batch, (tuple, list)) and 1 <= len(batch) <= 4:
        return batch[0], batch[2] if len(batch) > 2 else None
    return batch, None
