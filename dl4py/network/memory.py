"""What recurrent layers remember between pieces of a series."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dl4py.config.plan import Plan
from dl4py.config.settings import SGD, NetworkConfiguration
from dl4py.layers import Flow, Layer
from dl4py.layers.part import Part
from dl4py.layers.recurrent import Recurrent
from dl4py.network.batch import Batch, Given
from dl4py.network.door import Door, at
from dl4py.network.truncation import Window, windows
from dl4py.network.walk import Node

States = dict[str, Any]  # name of a step → the tensors of its state


class Memory:
    """The states of a network's recurrent layers; a walk may start from them.

    Attributes:
        states: what the next piece of a series starts from.
        given: the states of the walk in hand; ``None``: it starts from zero, and what
            it ends with is not kept.
        ended: what that walk has ended with.
    """

    def __init__(self) -> None:
        self.states: States = {}
        self.given: States | None = None
        self.ended: States = {}

    def watched(self, flows: Iterator[tuple[str, Flow]]) -> Iterator[tuple[str, Flow]]:
        """``flows``, whose states are kept where pieces come in."""
        return flows if self.given is None else self._watched(flows)

    def _watched(self, flows: Iterator[tuple[str, Flow]]) -> Iterator[tuple[str, Flow]]:
        for name, flow in flows:
            if flow.state is not None:
                self.ended.setdefault(name, tuple(s.detach() for s in flow.state))
            yield name, flow

    def advance(self) -> None:
        """Let the next piece start from what the last walk ended with."""
        self.states = {**self.states, **self.ended}
        self.given = None if self.given is None else self.states
        self.ended = {}


class TimeSteps(nn.Module):
    """What a network does with pieces of series; :class:`Network` has it.

    DL4J: ``rnnTimeStep`` and what belongs to it, in MultiLayerNetwork and
        ComputationGraph.
    """

    conf: NetworkConfiguration
    dl4j_exact: bool
    plan: Plan
    nodes: Sequence[Node]
    door: Door
    memory: Memory
    scored: Any
    _batch: Any  # and these methods
    _mode: Any

    def rnn_time_step(self, x: Given, features_mask: Given = None) -> Any:
        """:meth:`output` of the next piece of a series; the states are kept.

        Recurrent layers start from where the last call left them, so that calls with
        the parts of a series give the parts of its output. Where every input is one
        step, ``[n, size]``, the output is one too.

        Args:
            x: the next steps, any number of them.
            features_mask: ``[n, time]``.

        Raises:
            ValueError: where a layer needs a series whole, or where the states are of
                other examples; they stay what they were.

        Example:
            >>> from dl4py.config import LSTM, NeuralNetConfiguration, RnnOutput
            >>> chain = NeuralNetConfiguration.builder().layer(LSTM(n_in=2, n_out=3))
            >>> net = chain.layer(RnnOutput(n_out=4)).build().module()
            >>> x = torch.zeros(1, 2, 5)
            >>> first = net.rnn_time_step(x[..., :4])
            >>> last = net.output(x)[..., 4]
            >>> bool(torch.allclose(net.rnn_time_step(x[..., 4]), last))
            True
            >>> list(net.rnn_get_previous_state("layer0"))
            ['prevAct', 'prevMem']
        """
        self.plan.check_pieces("rnn_time_step", ("all", "steps"))
        batch = Batch.of(self.plan.inputs, (), x, None, features_mask)
        pairs = list(zip(self.plan.inputs, batch.inputs, strict=True))
        series = tuple(self._series(name, t) for name, t in pairs)
        with self._mode(False), torch.no_grad(), self.pieces(self.memory.states):
            found = self(series, batch.features_masks)
            self.memory.advance()
        if any(t.dim() != 2 for t in batch.inputs):
            return found
        results = found if isinstance(found, tuple) else (found,)
        steps = tuple(
            self._step(name, y)
            for name, y in zip(self.plan.outputs, results, strict=True)
        )
        return steps if len(steps) > 1 else steps[0]

    def _series(self, name: str, x: Tensor) -> Tensor:
        """A single step as a series, where an input takes only series."""
        readers = self.door.readers[name]
        shapes = [shape for step in readers for shape in step.shapes[0]]
        if x.dim() != 2 or not shapes or any(len(shape) != 3 for shape in shapes):
            return x
        return x.unsqueeze(2 if shapes[0][2] == "time" else 1)

    def _step(self, name: str, y: Tensor) -> Tensor:
        """A series of one step as that step."""
        node = next(node for node in self.nodes if node.name == name)
        time = 1 if getattr(node.conf, "format", None) == "NWC" else 2
        return y.squeeze(time) if y.dim() == 3 and y.shape[time] == 1 else y

    @contextlib.contextmanager
    def pieces(self, states: States, back_length: int | None = None) -> Iterator[None]:
        """Let walks start from ``states``, and keep what they end with."""
        parts = [part for part in self.modules() if isinstance(part, Part)]
        wraps: list[Any] = [part for part in parts if hasattr(part, "in_pieces")]
        steps = [part for part in parts if isinstance(part, Recurrent)]
        self.memory.given, self.memory.ended = states, {}
        for part in wraps:
            part.in_pieces = True
        for part in steps:
            part.back_length = back_length
        try:
            yield
        finally:
            self.memory.given, self.memory.ended = None, {}
            for part in wraps:
                del part.in_pieces
            for part in steps:
                del part.back_length

    def rnn_clear_previous_state(self) -> None:
        """Let the next :meth:`rnn_time_step` begin a series."""
        self.memory.states = {}

    def rnn_get_previous_state(self, layer: int | str) -> dict[str, Tensor]:
        """A recurrent layer's state by DL4J's names, copies; empty before a series.

        Args:
            layer: its name, or its place among the layers.
        """
        node, inside = self._remembering(layer)
        state = self.memory.states.get(node.name, ())
        pairs = zip(inside.states, state, strict=False)
        return {name: value.clone() for name, value in pairs}

    def rnn_set_previous_state(
        self, layer: int | str, state: Mapping[str, Tensor]
    ) -> None:
        """Let the next :meth:`rnn_time_step` start from this state of a layer.

        Args:
            layer: as in :meth:`rnn_get_previous_state`.
            state: what that gave, ``[n, n_out]`` each; empty: it starts from zero.
        """
        node, inside = self._remembering(layer)
        states = {k: v for k, v in self.memory.states.items() if k != node.name}
        if state:
            if set(state) != set(inside.states):
                raise ValueError(
                    f"rnn_set_previous_state: {node.name!r} has {inside.states}, got "
                    f"{tuple(state)}"
                )
            for name, value in state.items():
                if not isinstance(value, Tensor):
                    raise TypeError(
                        f"rnn_set_previous_state: {name!r} of {node.name!r}: expected "
                        f"a torch.Tensor [n, n_out], got {type(value).__name__}"
                    )
            like = next(inside.parameters())
            values = tuple(
                state[name].detach().to(like.device, like.dtype, copy=True)
                for name in inside.states
            )
            try:
                inside.check_state(values)
            except ValueError as error:
                raise at(node.step, error) from error
            states[node.name] = values
        self.memory.states = states

    def rnn_get_previous_states(self) -> dict[str, dict[str, Tensor]]:
        """:meth:`rnn_get_previous_state` of every layer that has a state."""
        return {n: self.rnn_get_previous_state(n) for n in self.memory.states}

    def rnn_set_previous_states(
        self, states: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        """:meth:`rnn_set_previous_state` of several layers."""
        before = self.memory.states
        try:
            for name, state in states.items():
                self.rnn_set_previous_state(name, state)
        except BaseException:
            self.memory.states = before
            raise

    def _remembering(self, layer: int | str) -> tuple[Node, Recurrent]:
        """A step with a state, and the recurrent layer inside."""
        layers = [node for node in self.nodes if isinstance(node.layer, Layer)]
        known = {node.name: node for node in layers}
        if isinstance(layer, int) and -len(layers) <= layer < len(layers):
            found: Node | None = layers[layer]
        else:
            found = known.get(str(layer))
        parts = () if found is None else found.layer.modules()
        inside = [part for part in parts if isinstance(part, Recurrent)]
        if found is None or len(inside) != 1 or found.conf.pieces == "no":
            names = [n.name for n in layers if getattr(n.layer, "recurrent", False)]
            raise ValueError(
                f"expected a recurrent layer that keeps a state ({', '.join(names)}), "
                f"got {layer!r}"
            )
        return found, inside[0]

    def windows(
        self,
        x: Given,
        labels: Given,
        features_mask: Given = None,
        labels_mask: Given = None,
    ) -> Generator[Window]:
        """The pieces of a batch for truncated back-propagation, one step each.

        The states of recurrent layers begin at zero, go from piece to piece, and are
        forgotten at the end, those of :meth:`rnn_time_step` too.

        Raises:
            ValueError: where the batch does not fit the network or cannot be cut.
        """
        self.plan.check_truncation()
        if self.dl4j_exact and self.conf.optimization_algo not in (SGD, "HESSIAN_FREE"):
            raise ValueError(
                f"optimization_algo {self.conf.optimization_algo}: what DL4J's own "
                "solvers do with states between windows is not reproduced; build with "
                "dl4j_exact=False, or use backprop_type('Standard')"
            )
        batch = self._batch(x, labels, features_mask, labels_mask, scored=True)
        length, exact = self.conf.tbptt_fwd_length, self.dl4j_exact
        found = list(windows(batch, self.door, self.scored, length, exact))
        self.rnn_clear_previous_state()
        try:
            with self.pieces({}, self.conf.tbptt_back_length):
                for window in found:
                    yield window
                    self.memory.advance()
        finally:
            self.rnn_clear_previous_state()
