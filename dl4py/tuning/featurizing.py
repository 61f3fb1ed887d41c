"""What a frozen part makes of data once, and the training of the rest on that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from dl4py.config import ComputationGraphConfiguration, MultiLayerConfiguration
from dl4py.config.plan import Step
from dl4py.config.settings import NetworkConfiguration
from dl4py.layers.wrappers import Frozen
from dl4py.network import Network
from dl4py.network.batch import unpacked
from dl4py.tuning.transferring import transfer


class TransferHelper:
    """A network in two parts: what is frozen, and ``unfrozen``, which is trained.

    Batches go through the frozen part once, by :meth:`featurize`;
    :meth:`fit_featurized` then trains the rest, as often as it takes, as ``fit`` of the
    whole network would. Its parameters go back into ``network`` after every call.

    Args:
        network: one with frozen layers, which is trained in place; or with ``until``
            any, which stays as it is.
        until: layers to freeze, as in ``transfer(network).freeze_until(...)``.

    Attributes:
        network: the whole network.
        unfrozen: what of it is not frozen, a network of its own.

    Example:
        >>> from dl4py.config import Dense, NeuralNetConfiguration, Output
        >>> chain = NeuralNetConfiguration.builder().layer(Dense(n_in=4, n_out=5))
        >>> net = chain.layer(Output(n_out=3)).build().module()
        >>> helper, x = TransferHelper(net, 0), torch.rand(2, 4)
        >>> features, labels = helper.featurize((x, torch.eye(3)[:2]))
        >>> _ = helper.fit_featurized(features, labels)
        >>> found = helper.output_from_featurized(features)
        >>> bool(torch.equal(found, helper.network.output(x)))
        True

    DL4J: org.deeplearning4j.nn.transferlearning.TransferLearningHelper
    """

    def __init__(self, network: Network, *until: int | str) -> None:
        if until:
            network = transfer(network).freeze_until(*until).build()
        self.network = network
        steps = network.plan.steps
        held = _held(network)
        if not held:
            raise ValueError(
                "TransferHelper(network): no layer is frozen; name those to freeze: "
                "TransferHelper(network, 'layer2')"
            )
        rest = [step for step in steps if step.name not in held]
        read = dict.fromkeys(name for step in rest for name in step.inputs)
        self.features = tuple(n for n in read if n not in {s.name for s in rest})
        self.unfrozen = _rest(network, rest, self.features).module(network.dl4j_exact)
        self._pairs = [
            view for view in network.views() if view.node in {s.name for s in rest}
        ]
        self._copy(self._pairs, list(self.unfrozen.views()))

    def featurize(self, data: Any) -> Any:
        """What the frozen part makes of inputs, in test mode without gradient.

        Args:
            data: a batch as a tuple or dict, as ``fit`` takes them from a loader, or
                such a loader.

        Returns:
            the batch with the features in place of the inputs; of a loader a list of
            them.
        """
        if not isinstance(data, (tuple, Mapping)) and isinstance(data, Iterable):
            return [self.featurize(batch) for batch in data]
        x, labels, *masks = unpacked(data)
        net, given = self.network, (*masks, None, None)
        batch = net._batch(x, None, given[0])
        inputs = zip(net.plan.inputs, batch.inputs, batch.features_masks, strict=True)
        found = {name: (t, mask) for name, t, mask in inputs if name in self.features}
        with net._mode(False), torch.no_grad():
            for name, flow in net._walk(batch):
                if name in self.features:
                    found[name] = flow.x, flow.mask
                if len(found) == len(self.features):
                    break
        features = [found[name][0] for name in self.features]
        own = [found[name][1] for name in self.features]
        mask = None if all(m is None for m in own) else _as_given(own)
        rest = (mask, given[1])
        every = (_as_given(features), labels, *rest)
        return every if any(m is not None for m in rest) else every[:2]

    def fit_featurized(
        self,
        x: Any,
        labels: Any = None,
        features_mask: Any = None,
        labels_mask: Any = None,
        epochs: int = 1,
    ) -> float:
        """``unfrozen.fit`` on what :meth:`featurize` gave; ``network`` follows."""
        score = self.unfrozen.fit(x, labels, features_mask, labels_mask, epochs)
        self._copy(list(self.unfrozen.views()), self._pairs)
        return score

    def output_from_featurized(
        self, x: Any, features_mask: Any = None, labels_mask: Any = None
    ) -> Any:
        """``network.output`` of the inputs whose features these are."""
        return self.unfrozen.output(x, features_mask, labels_mask)

    @torch.no_grad()
    def _copy(self, sources: list[Any], targets: list[Any]) -> None:
        for source, target in zip(sources, targets, strict=True):
            target.fill(source.flat())


def _held(network: Network) -> set[str]:
    """Names of the frozen layers and of all that they read."""
    reads = {step.name: step.inputs for step in network.plan.steps}
    nodes = network.nodes
    waiting = [node.name for node in nodes if isinstance(node.layer, Frozen)]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in reads and name not in found:
            found.add(name)
            waiting += reads[name]
    return found


def _rest(
    network: Network, rest: list[Step], features: tuple[str, ...]
) -> NetworkConfiguration:
    """The configuration of what is not frozen."""
    conf = network.conf
    names = {f.name for f in dataclasses.fields(NetworkConfiguration)}
    values = {name: getattr(conf, name) for name in names}
    values["extra"] = {k: v for k, v in values["extra"].items() if k != "confs"}
    values.update(
        iteration_count=network.clock.iteration, epoch_count=network.clock.epoch
    )
    if isinstance(conf, ComputationGraphConfiguration):
        return ComputationGraphConfiguration(
            vertices={s.name: s.conf for s in rest},
            vertex_inputs={s.name: s.inputs for s in rest},
            network_inputs=features,
            network_outputs=conf.network_outputs,
            preprocessors={
                s.name: s.preprocessor for s in rest if s.preprocessor is not None
            },
            **values,
        )
    return MultiLayerConfiguration(
        layers=tuple(s.conf for s in rest),
        preprocessors={
            i: s.preprocessor for i, s in enumerate(rest) if s.preprocessor is not None
        },
        **values,
    )


def _as_given(tensors: list[Any]) -> Any | Tensor:
    return tensors[0] if len(tensors) == 1 else tuple(tensors)
