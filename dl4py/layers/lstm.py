"""Long short-term memory, with and without peepholes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config
from dl4py.layers.base import Layer
from dl4py.layers.part import implements
from dl4py.layers.recurrent import (
    Recurrent,
    State,
    Weights,
    both_ways,
    step_kernel,
)
from dl4py.layers.view import View
from dl4py.ops.recurrent import lstm_steps, serves


class Gated(Recurrent):
    """Base of LSTMs, whose kinds state one step by :meth:`memory`.

    Attributes:
        peepholes: rows of the recurrent weight after those of the four gates.
        masks_errors: in exact mode, whether masks multiply the errors of gates.
    """

    states = ("prevAct", "prevMem")
    peepholes = 0
    masks_errors = False

    def build(self) -> None:
        conf = self.conf
        # four blocks along the first axis, in DL4J's order: candidate, f, o, i
        rows = 4 * conf.n_out + self.peepholes
        self.weight = nn.Parameter(torch.empty(4 * conf.n_out, conf.n_in))
        self.recurrent_weight = nn.Parameter(torch.empty(rows, conf.n_out))
        self.bias = nn.Parameter(torch.empty(4 * conf.n_out))
        exact = self.dl4j_exact
        self.activation = activations.get(conf.activation, dl4j_exact=exact)
        self.gate_activation = activations.get(conf.gate_activation, dl4j_exact=exact)
        self.sees_mask = not exact  # wrappers that hand it on make DL4J see it too

    def views(self) -> Iterator[View]:
        n_in, n_out = self.conf.n_in, self.conf.n_out
        facts: dict[str, Any] = {"order": "f", "shaped": Tensor.t}
        facts["fans"] = (n_out, n_in + n_out)  # DL4J: of both matrices
        yield View(self, "W", "weight", **facts)
        yield View(
            self, "RW", "recurrent_weight", init="weight_init_recurrent", **facts
        )
        yield View(self, "b", "bias", kind="bias", first=self._first_bias)

    def _first_bias(self, b: Tensor) -> Tensor:
        n = self.conf.n_out
        first = torch.zeros_like(b)  # DL4J: bias_init does not count here
        first[n : 2 * n] = self.conf.forget_gate_bias_init
        return first

    def fused(
        self, z: Tensor, mask: Tensor | None, state: State, weights: Weights
    ) -> tuple[Tensor, State] | None:
        act = step_kernel(self.activation, z)
        gate, rw = step_kernel(self.gate_activation, z), weights["recurrent_weight"]
        errors = self.dl4j_exact and (2 if self.masks_errors else 1)
        if act is None or gate is None or not serves(mask, z, *state, rw):
            return None

        def compose(z: Tensor, h: Tensor, c: Tensor, rw: Tensor) -> tuple[Tensor, ...]:
            y, (_, c) = self.loop(z, mask, (h, c), {"recurrent_weight": rw})
            return y, c

        def steps(z: Tensor, h: Tensor, c: Tensor, rw: Tensor) -> Any:
            return lstm_steps(z, h, c, rw, mask, act, gate, compose, int(errors))

        y, c = self.product(steps, z, *state, rw)
        return y, (y[-1], c)

    def memory(
        self, x: Tensor, state: State, weights: Weights, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(c, o) of a step; with a mask the gradient is that of DL4J at that step."""
        raise NotImplementedError

    def cell(self, x: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
        c, o = self.memory(x, state, weights)
        h = o * self.activation(c)
        return h, (h, c)

    def masked_cell(
        self, x: Tensor, state: State, weights: Weights, mask: Tensor
    ) -> tuple[Tensor, State]:
        if not self.dl4j_exact:
            return super().masked_cell(x, state, weights, mask)
        # DL4J masks h and c forwards, but no error backwards; the output gate's error
        # sees the unmasked c
        unmasked, o = self.memory(x, state, weights, mask)
        c = activations.gradient_of(unmasked, unmasked * mask)
        seen = self.activation(unmasked).detach()
        errors = o * seen + o.detach() * self.activation(c)
        h = activations.gradient_of(errors, o * seen * mask)
        return h, (h, c)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        name = type(self).__name__
        line = f"{name}: DL4J ignores the features mask; by default h and c are 0 there"
        return [*super().differs(dtype), line]


@implements(config.LSTM)
class LSTM(Gated):
    """
    With tanh and sigmoid and without a mask the steps are torch's fused LSTM, else one
    kernel of ``csrc/recurrent.inl``. At masked steps h and c are 0; DL4J ignores the
    mask, and so does exact mode.

    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``, state (h, c) of ``[n, n_out]`` each.

    Example:
        >>> y, (h, c) = LSTM(3, 2)(torch.zeros(4, 3, 5))
        >>> y.shape, h.shape
        (torch.Size([4, 2, 5]), torch.Size([4, 2]))
    """

    neighbour = ("LSTM", "`[n, size, time]`, one bias, any activations, masks")

    def build(self) -> None:
        super().build()
        self.plain = isinstance(self.activation, activations.Tanh) and isinstance(
            self.gate_activation, activations.Sigmoid
        )

    def run(
        self, x: Tensor, mask: Tensor | None, state: State, weights: Weights
    ) -> tuple[Tensor, State]:
        # torch.compile does not differentiate torch's fused kernel
        compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        if not self.plain or mask is not None or compiling:
            return super().run(x, mask, state, weights)

        def gates(t: Tensor) -> Tensor:  # torch's order is i, f, candidate, o
            candidate, f, o, i = t.chunk(4)
            return torch.cat([i, f, candidate, o])

        named = [weights[name] for name in ("weight", "recurrent_weight", "bias")]
        params = [gates(w) for w in named]
        params.append(torch.zeros_like(self.bias))  # torch has a second bias
        h, c = (s.unsqueeze(0) for s in state)

        def run(x: Tensor, h: Tensor, c: Tensor, *params: Tensor) -> Any:
            return torch.lstm(
                x, [h, c], params, True, 1, 0.0, self.training, False, False
            )

        y, h, c = self.product(run, x, h, c, *params)
        return y, (h[0], c[0])

    def memory(
        self, x: Tensor, state: State, weights: Weights, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        h, c = state
        z = x + self.product(F.linear, h, weights["recurrent_weight"])
        candidate, f, o, i = z.chunk(4, dim=1)
        gate = self.gate_activation
        return gate(f) * c + gate(i) * self.activation(candidate), gate(o)


@implements(config.GravesLSTM)
class GravesLSTM(Gated):
    """
    At masked steps h and c are 0; DL4J ignores the mask, and so does exact mode.

    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``, state (h, c) of ``[n, n_out]`` each.

    Example:
        >>> y, (h, c) = GravesLSTM(3, 2)(torch.zeros(4, 3, 5))
        >>> y.shape, h.shape
        (torch.Size([4, 2, 5]), torch.Size([4, 2]))
    """

    neighbour = (
        "LSTM",
        "peepholes; `[n, size, time]`, one bias, any activations",
    )

    peepholes = 3
    masks_errors = True  # DL4J: here, but not in LSTM

    def memory(
        self, x: Tensor, state: State, weights: Weights, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        h, c = state
        both = weights["recurrent_weight"]
        matrix, (to_f, to_o, to_i) = both[:-3], both[-3:].unbind()
        z = x + self.product(F.linear, h, matrix)
        candidate, f, o, i = z.chunk(4, dim=1)
        f, i = f + c * to_f, i + c * to_i
        if mask is not None and self.masks_errors:
            f, i, o, candidate = (
                activations.gradient_of(z * mask, z) for z in (f, i, o, candidate)
            )
        gate = self.gate_activation
        c = gate(f) * c + gate(i) * self.activation(candidate)
        seen = c * to_o
        if mask is not None:  # DL4J: the peephole's error sees the masked c
            errors = c * to_o.detach() + (c * mask).detach() * to_o
            seen = activations.gradient_of(errors, seen)
        return c, gate(o + seen)


@implements(config.GravesBidirectionalLSTM)
class GravesBidirectionalLSTM(Layer):
    """
    At masked steps h and c are 0 in both directions.

    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``; the state is a pair of those of both
        directions.

    Example:
        >>> y, _ = GravesBidirectionalLSTM(3, 2)(torch.zeros(4, 3, 5))
        >>> y.shape
        torch.Size([4, 2, 5])
    """

    leaves = "f"

    neighbour = ("LSTM(bidirectional=True)", "peepholes; both ways are added")

    recurrent = True
    weights_noisy = False

    def build(self) -> None:
        self.fwd, self.bwd = (
            GravesLSTM.from_config(self.conf.one, self.dl4j_exact) for _ in range(2)
        )
        for layer in (self.fwd, self.bwd):
            layer.sees_mask = True
            layer.weights_noisy = self.weights_noisy
        self.noisy = not self.dl4j_exact

    def views(self) -> Iterator[View]:
        for letter, layer in (("F", self.fwd), ("B", self.bwd)):
            for view in layer.views():
                yield dataclasses.replace(view, name=view.name + letter)

    def forward(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> Any:
        self.check(x)
        time = 1 if self.channels_last else 2
        x = self.disturb(x)
        y, z, state = both_ways(self.fwd, self.bwd, x, mask, state, time)
        return y + z, state

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        name = type(self).__name__
        return [
            *super().differs(dtype),
            f"{name}: DL4J's errors cross masked steps along the cell",
            f"{name}: DL4J ignores dropout here",
        ]
