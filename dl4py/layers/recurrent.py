"""Layers that carry a state through time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config
from dl4py.layers.base import Layer
from dl4py.layers.feedforward import layer_norm
from dl4py.layers.part import View, implements

State = tuple[Tensor, ...]
Weights = dict[str, Tensor]


class Recurrent(Layer):
    """Base of layers with a state: a kind states one step, :meth:`cell`.

    ``layer(x, mask=None, state=None)`` returns (activations, state). At masked steps
    activations and state are 0.
    """

    recurrent = True
    states = 1  # how many tensors [n, n_out] the state has
    sees_mask = True
    uses = ("recurrent_weight", "weight", "bias")  # parameters, in order of noise

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        x = self.arrange(self.disturb(x))
        if state is None:
            zero = x.new_zeros(x.shape[0], self.conf.n_out)
            state = (zero,) * self.states
        weights = {name: self.param(name) for name in self.uses}
        y, state = self.run(x.permute(2, 0, 1), self.seen(mask), state, weights)
        return self.as_given(y.permute(1, 2, 0)), state

    def seen(self, mask: Tensor | None) -> Tensor | None:
        """The mask as the steps see it."""
        return mask if self.sees_mask else None

    def run(
        self, x: Tensor, mask: Tensor | None, state: State, weights: Weights
    ) -> tuple[Tensor, State]:
        """All steps of a series ``[time, n, size]``; a kind may offer a fused form."""
        outputs = []
        inputs = self.inputs(x, weights)
        for t in range(x.shape[0]):
            if mask is None:
                y, state = self.cell(inputs[t], state, weights)
            else:
                here = mask[:, t : t + 1].to(x.dtype)
                y, state = self.masked_cell(inputs[t], state, weights, here)
            outputs.append(y)
        n = x.shape[1]
        empty = x.new_zeros(0, n, self.conf.n_out)
        return torch.stack(outputs) if outputs else empty, state

    def inputs(self, x: Tensor, weights: Weights) -> Tensor:
        """What the steps need of the input, for all of them at once: x·W + b."""
        y: Tensor = self.product(F.linear, x, weights["weight"], weights["bias"])
        return y

    def cell(self, x: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
        """(activations, state) of one step, from one row of :meth:`inputs`."""
        raise NotImplementedError

    def masked_cell(
        self, x: Tensor, state: State, weights: Weights, mask: Tensor
    ) -> tuple[Tensor, State]:
        """As :meth:`cell`, where rows of the step have a mask ``[n, 1]``."""
        y, state = self.cell(x, state, weights)
        return y * mask, tuple(s * mask for s in state)


@implements(config.SimpleRnn)
class SimpleRnn(Recurrent):
    """
    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``, state (h,) of ``[n, n_out]``.

    Example:
        >>> y, (h,) = SimpleRnn(3, 2)(torch.zeros(4, 3, 5))
        >>> y.shape, h.shape
        (torch.Size([4, 2, 5]), torch.Size([4, 2]))
    """

    neighbour = ("RNN", "`[n, size, time]`, one bias, any activation, masks")

    def build(self) -> None:
        n_in, n_out = self.conf.n_in, self.conf.n_out
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.recurrent_weight = nn.Parameter(torch.empty(n_out, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))
        if self.conf.has_layer_norm:
            self.gain = nn.Parameter(torch.empty(2 * n_out))
        self.activation = activations.get(
            self.conf.activation, dl4j_exact=self.dl4j_exact
        )

    def views(self) -> Iterator[View]:
        n_in, n_out = self.conf.n_in, self.conf.n_out
        facts: dict[str, Any] = {"order": "f", "shaped": Tensor.t}
        yield View(self, "W", "weight", fans=(n_in, n_out), **facts)
        facts.update(fans=(n_out, n_out), init="weight_init_recurrent")
        yield View(self, "RW", "recurrent_weight", **facts)
        yield View(self, "b", "bias", kind="bias")
        if self.conf.has_layer_norm:
            yield View(self, "g", "gain", kind="gain")

    def inputs(self, x: Tensor, weights: Weights) -> Tensor:
        if not self.conf.has_layer_norm:
            return super().inputs(x, weights)
        z = layer_norm(F.linear(x, weights["weight"])) * self.gain.chunk(2)[0]
        return z + weights["bias"]

    def cell(self, x: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
        z = F.linear(state[0], weights["recurrent_weight"])
        if self.conf.has_layer_norm:
            z = layer_norm(z) * self.gain.chunk(2)[1]
        h: Tensor = self.activation(x + z)
        return h, (h,)


@implements(config.LSTM)
class LSTM(Recurrent):
    """
    With tanh and sigmoid and without a mask the steps are torch's fused LSTM, else they
    run one by one. At masked steps h and c are 0; DL4J ignores the mask, and so does
    exact mode.

    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``, state (h, c) of ``[n, n_out]`` each.

    Example:
        >>> y, (h, c) = LSTM(3, 2)(torch.zeros(4, 3, 5))
        >>> y.shape, h.shape
        (torch.Size([4, 2, 5]), torch.Size([4, 2]))
    """

    neighbour = ("LSTM", "`[n, size, time]`, one bias, any activations, masks")

    states = 2

    def build(self) -> None:
        conf = self.conf
        # four blocks along the first axis, in DL4J's order: candidate, f, o, i
        self.weight = nn.Parameter(torch.empty(4 * conf.n_out, conf.n_in))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * conf.n_out, conf.n_out))
        self.bias = nn.Parameter(torch.empty(4 * conf.n_out))
        exact = self.dl4j_exact
        self.activation = activations.get(conf.activation, dl4j_exact=exact)
        self.gate_activation = activations.get(conf.gate_activation, dl4j_exact=exact)
        self.sees_mask = not exact  # wrappers that hand it on make DL4J see it too
        self.fused = isinstance(self.activation, activations.Tanh) and isinstance(
            self.gate_activation, activations.Sigmoid
        )

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
        first = torch.full_like(b, self.conf.bias_init)
        first[n : 2 * n] = self.conf.forget_gate_bias_init
        return first

    def run(
        self, x: Tensor, mask: Tensor | None, state: State, weights: Weights
    ) -> tuple[Tensor, State]:
        # torch.compile does not differentiate torch's fused kernel
        compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        if not self.fused or mask is not None or compiling:
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

    def masked_cell(
        self, x: Tensor, state: State, weights: Weights, mask: Tensor
    ) -> tuple[Tensor, State]:
        if not self.dl4j_exact:
            return super().masked_cell(x, state, weights, mask)
        # DL4J masks h and c forwards, but no error backwards; the output gate's error
        # sees the unmasked c
        h, c = state
        candidate, f, o, i = self._gates(x, h, weights)
        unmasked = f * c + i * candidate
        c = activations.gradient_of(unmasked, unmasked * mask)
        seen = self.activation(unmasked).detach()
        errors = o * seen + o.detach() * self.activation(c)
        h = activations.gradient_of(errors, o * seen * mask)
        return h, (h, c)

    def cell(self, x: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
        h, c = state
        candidate, f, o, i = self._gates(x, h, weights)
        c = f * c + i * candidate
        h = o * self.activation(c)
        return h, (h, c)

    def _gates(self, x: Tensor, h: Tensor, weights: Weights) -> tuple[Tensor, ...]:
        """Candidate, f, o and i of a step."""
        z = x + self.product(F.linear, h, weights["recurrent_weight"])
        candidate, f, o, i = z.chunk(4, dim=1)
        gate = self.gate_activation
        return self.activation(candidate), gate(f), gate(o), gate(i)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        line = "LSTM: DL4J ignores the features mask; by default h and c are 0 there"
        return [*super().differs(dtype), line]
