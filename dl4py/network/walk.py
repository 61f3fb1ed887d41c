"""The one way through a network: every computation on data reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dl4py.config.codec import brief
from dl4py.config.plan import Plan, Step
from dl4py.layers import Layer, Scored
from dl4py.layers.flow import Flow
from dl4py.layers.vertices import Vertex
from dl4py.losses.misfit import MaskMisfit
from dl4py.network.batch import Batch
from dl4py.network.door import at, check_shape


@dataclass(frozen=True)
class Node:
    """One step of a plan with its module.

    Args:
        step: name, configuration, inputs and preprocessor.
        layer: the module, of a layer or a vertex.
        output: which of the network's outputs it is, if it is one.
        read: whether another step reads it.
        last_read: names of steps and inputs that nothing reads after this one.
        behind: whether frozen layers keep every gradient from it.
    """

    step: Step
    layer: Layer | Vertex
    output: int | None = None
    read: bool = False
    last_read: tuple[str, ...] = ()
    behind: bool = False

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def conf(self) -> Any:
        """The configuration of the layer or vertex."""
        return self.step.conf

    @property
    def scored(self) -> Scored | None:
        """The module, if it is an output with a loss."""
        layer = self.layer
        known = self.output is not None and isinstance(layer, Scored)
        return layer if known and isinstance(layer, Scored) else None


def nodes_of(plan: Plan, modules: Sequence[Layer | Vertex]) -> tuple[Node, ...]:
    """The steps of ``plan`` with their modules."""
    last: dict[str, int] = {}
    for i, step in enumerate(plan.steps):
        last.update(dict.fromkeys(step.inputs, i))
    kept = {
        *plan.outputs,
        *(n for step in plan.steps for n in getattr(step.conf, "named_inputs", ())),
    }
    frees: dict[int, list[str]] = {}
    for name, i in last.items():
        if name not in kept:
            frees.setdefault(i, []).append(name)
    places = {name: i for i, name in enumerate(plan.outputs)}
    reached = set(plan.outputs)
    for step, module in reversed(list(zip(plan.steps, modules, strict=True))):
        if step.name in reached and not module.stops:
            reached.update(step.inputs)
    return tuple(
        Node(
            step,
            module,
            places.get(step.name),
            step.name in last,
            tuple(frees.get(i, ())),
            step.name not in reached,
        )
        for i, (step, module) in enumerate(zip(plan.steps, modules, strict=True))
    )


def walk(
    plan: Plan,
    nodes: Sequence[Node],
    batch: Batch,
    states: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, Flow]]:
    """(name, what leaves it) of every step, in order; what is read no more is let go.

    Outputs with a loss compute their score where the batch has labels, else their
    activations.

    Args:
        plan, nodes: of the network.
        batch: the data.
        states: name of a recurrent layer → the state that it starts from.
    """
    flows = {
        name: Flow(x, mask, x.shape[0])
        for name, x, mask in zip(
            plan.inputs, batch.inputs, batch.features_masks, strict=True
        )
    }
    inputs = dict(flows)
    for node in nodes:
        read = [flows[name] for name in node.step.inputs]
        if isinstance(node.layer, Vertex):
            flow = _vertex(node, node.layer, read, inputs)
        else:
            flow = _layer(
                node, node.layer, read[0], batch, (states or {}).get(node.name)
            )
        for name in node.last_read:
            del flows[name]
        if node.read:
            flows[node.name] = flow
        yield node.name, flow


def _vertex(
    node: Node, vertex: Vertex, read: list[Flow], inputs: Mapping[str, Flow]
) -> Flow:
    try:
        flow = vertex.flow(read, inputs)
        if vertex.noise.native:
            flow.order = vertex.follow(read[0].order)
        return flow
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, ValueError) as error:  # torch's words on shapes
        shapes = ", ".join(str(tuple(flow.x.shape)) for flow in read[:5])
        raise ValueError(
            f"vertex {node.name!r} ({type(node.conf).__name__}): got inputs of shape "
            f"{shapes}: {brief(error)}"
        ) from error


def _layer(node: Node, layer: Layer, flow: Flow, batch: Batch, state: Any) -> Flow:
    x, mask, n, order = flow.x, flow.mask, flow.n, flow.order
    before = node.step.preprocessor
    if before is not None:
        check_shape(node.step, x, before=True)
        mask = None if mask is None else before.feed_mask(mask, n)
        order, x = before.memory(order, x), before.apply(x, n)
    check_shape(node.step, x)
    if layer.noise.native:
        order = layer.follow(order)
    try:
        after = _called(node, layer, Flow(x, mask, n), batch, state)
        after.order = order
        return after
    except MaskMisfit as error:
        of_labels = node.scored and batch.labels_masks[node.output or 0] is not None
        name = "labels_mask" if of_labels else "features_mask"
        raise at(node.step, error.named(name)) from error
    except (ValueError, TypeError) as error:
        raise at(node.step, error) from error


def _called(node: Node, layer: Layer, flow: Flow, batch: Batch, state: Any) -> Flow:
    x, mask, n = flow.x, flow.mask, flow.n
    passed = layer.feed_mask(mask, x.shape)
    score = None
    if node.scored is not None:
        given = batch.labels_masks[node.output or 0]
        mask = node.scored.loss_mask(mask) if given is None else given
        if batch.labels:
            labels = batch.labels[node.output or 0]
            score = layer(x, mask, labels=labels, labels_mask=given)
            if not node.read:
                return Flow(score, None, n, score=score)
    y = layer(x, mask, state)
    after = None
    if layer.recurrent:
        y, after = y
    return Flow(y, passed, layer.count(n), after, score)
