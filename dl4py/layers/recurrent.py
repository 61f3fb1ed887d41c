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
from dl4py.layers.part import implements
from dl4py.layers.view import View
from dl4py.losses.misfit import MaskMisfit
from dl4py.ops.recurrent import Act, rnn_steps, serves

State = tuple[Tensor, ...]
Weights = dict[str, Tensor]


class Recurrent(Layer):
    """Base of layers with a state: a kind states one step, :meth:`cell`.

    ``layer(x, mask=None, state=None)`` returns (activations, state). At masked steps
    activations and state are 0. In exact mode errors go back through the series as if
    it began with a state of 0, whatever ``state`` was, as DL4J's do.

    Attributes:
        back_length: how many steps errors go back from the end of a series; ``None``:
            through all of it. Exact mode does not heed it.
    """

    leaves = "f"

    recurrent = True
    states: tuple[str, ...] = ("prevAct",)  # DL4J's names of tensors [n, n_out]
    back_length: int | None = None
    sees_mask = True
    uses: tuple[str, ...] = (
        "recurrent_weight",
        "weight",
        "bias",
    )  # parameters, in order of noise

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        self.check(x)
        x = self.arrange(self.disturb(x))
        check_mask(mask, x)
        if state is not None:
            self.check_state(state, x.shape[0])
        weights = {name: self.param(name) for name in self.uses}
        y, state = self.piece(x.permute(2, 0, 1), self.seen(mask), state, weights)
        return self.as_given(y.permute(1, 2, 0)), state

    def check_state(self, state: State, n: int | None = None) -> None:
        """Refuse a state that is not this layer's, or not one of ``n`` examples."""
        found, size = [list(s.shape) for s in state], self.conf.n_out
        rows = n if n is not None else found[0][0] if found and found[0] else 0
        if found != [[rows, size]] * len(self.states):
            names = ", ".join(self.states)
            count = "n" if n is None else n
            raise ValueError(
                f"state: expected {names} of shape [{count}, {size}], got {found}; "
                "where the examples have changed call rnn_clear_previous_state()"
            )

    def piece(
        self, x: Tensor, mask: Tensor | None, state: State | None, weights: Weights
    ) -> tuple[Tensor, State]:
        """:meth:`run` of a piece of a series, which begins with ``state``."""
        zero = x.new_zeros(x.shape[1], self.conf.n_out)
        zeros = (zero,) * len(self.states)
        errors = torch.is_grad_enabled()
        if state is not None and errors and self.dl4j_exact:
            again, _ = self.run(x, mask, zeros, weights)
            with torch.no_grad():
                y, state = self.run(x, mask, state, weights)
            return activations.gradient_of(again, y), state
        state = zeros if state is None else state
        cut = 0 if self.back_length is None else x.shape[0] - self.back_length
        if cut <= 0 or not errors or self.dl4j_exact:
            return self.run(x, mask, state, weights)
        before, after = (None, None) if mask is None else mask.tensor_split((cut,), 1)
        with torch.no_grad():
            first, state = self.run(x[:cut], before, state, weights)
        y, state = self.run(x[cut:], after, state, weights)
        return torch.cat([first, y]), state

    def seen(self, mask: Tensor | None) -> Tensor | None:
        """The mask as the steps see it."""
        return mask if self.sees_mask else None

    def run(
        self, x: Tensor, mask: Tensor | None, state: State, weights: Weights
    ) -> tuple[Tensor, State]:
        """All steps of a series ``[time, n, size]``."""
        z = self.inputs(x, weights)
        half = z.itemsize < 4 and not self.dl4j_exact
        found = (self.widened if half else self.fused)(z, mask, state, weights)
        return self.loop(z, mask, state, weights) if found is None else found

    def widened(
        self, z: Tensor, mask: Tensor | None, state: State, weights: Weights
    ) -> tuple[Tensor, State] | None:
        """:meth:`fused` of half types: in float32, rounded at the end.

        DL4J rounds the state at each step, as the loop does in exact mode.
        """
        wide = {name: w.float() for name, w in weights.items()}
        found = self.fused(z.float(), mask, tuple(s.float() for s in state), wide)
        if found is None:
            return None
        y, state = found
        return y.to(z.dtype), tuple(s.to(z.dtype) for s in state)

    def fused(
        self, z: Tensor, mask: Tensor | None, state: State, weights: Weights
    ) -> tuple[Tensor, State] | None:
        """What :meth:`loop` gives by one kernel, or None where there is none."""
        return None

    def loop(
        self, z: Tensor, mask: Tensor | None, state: State, weights: Weights
    ) -> tuple[Tensor, State]:
        """The steps one by one, from what the input adds to them."""
        outputs = []
        for t in range(z.shape[0]):
            if mask is None:
                y, state = self.cell(z[t], state, weights)
            else:
                here = mask[:, t : t + 1].to(z.dtype)
                y, state = self.masked_cell(z[t], state, weights, here)
            outputs.append(y)
        empty = z.new_zeros(0, z.shape[1], self.conf.n_out)
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


def step_kernel(activation: Any, x: Tensor, rows: bool = False) -> Act | None:
    """The name of an activation in kernels for steps, where nobody has changed it.

    Args:
        rows: whether the kernel knows activations of whole rows too.
    """
    if not (rows or getattr(activation, "elementwise", False)):
        return None
    own = vars(type(activation))  # a subclass may compute something else
    if "forward" not in own or not ("kernel" in own or "in_steps" in own):
        return None
    if activation._forward_hooks or activation._forward_pre_hooks:
        return None
    found: Act | None = activation.in_steps(x)
    return found


def check_series(x: Tensor, size: int, name: str) -> None:
    """Refuse what is no series of ``size`` features."""
    if x.dim() != 3 or x.shape[1] != size:
        raise ValueError(f"{name}: expected [n, {size}, time], got {list(x.shape)}")


def check_mask(mask: Tensor | None, x: Tensor, name: str = "mask") -> None:
    """Refuse a mask that does not fit a series ``[n, size, time]``."""
    if mask is not None and tuple(mask.shape) != (x.shape[0], x.shape[2]):
        raise MaskMisfit(
            f"{name}: expected one entry per example and time step, "
            f"{[x.shape[0], x.shape[2]]}, got {list(mask.shape)}"
        )


def both_ways(
    fwd: Layer, bwd: Layer, x: Tensor, mask: Tensor | None, state: Any, time: int
) -> tuple[Tensor, Tensor, tuple[Any, Any]]:
    """What two layers with a state give, the second one from last to first.

    Args:
        state: a pair of those of both layers.
        time: the axis of ``x`` that is time.
    """
    first, second = (None, None) if state is None else state
    y, first = fwd(x, mask, first)
    z, second = bwd(x.flip(time), None if mask is None else mask.flip(1), second)
    return y, z.flip(time), (first, second)


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

    uses: tuple[str, ...] = ("weight", "recurrent_weight", "bias")
    neighbour = ("RNN", "`[n, size, time]`, one bias, any activation, masks")

    def build(self) -> None:
        n_in, n_out = self.conf.n_in, self.conf.n_out
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.recurrent_weight = nn.Parameter(torch.empty(n_out, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))
        if self.conf.has_layer_norm:
            self.gain = nn.Parameter(torch.empty(2 * n_out))
            self.uses = (*self.uses, "gain")
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
        z = layer_norm(F.linear(x, weights["weight"])) * weights["gain"].chunk(2)[0]
        return z + weights["bias"]

    def fused(
        self, z: Tensor, mask: Tensor | None, state: State, weights: Weights
    ) -> tuple[Tensor, State] | None:
        act, rw = step_kernel(self.activation, z, True), weights["recurrent_weight"]
        gains = weights.get("gain")
        if act is None or not serves(
            mask, z, *state, rw, *(() if gains is None else (gains,))
        ):
            return None
        gain = None if gains is None else gains.chunk(2)[1]

        def compose(
            z: Tensor, h: Tensor, rw: Tensor, gain: Tensor | None
        ) -> tuple[Tensor, ...]:
            used = {"recurrent_weight": rw}
            if gain is not None:
                used["gain"] = gain.repeat(2)  # only the second half is read
            return self.loop(z, mask, (h,), used)[:1]

        def steps(z: Tensor, h: Tensor, rw: Tensor) -> Tensor:
            return rnn_steps(z, h, rw, gain, mask, act, compose)

        y = self.product(steps, z, *state, rw)
        return y, (y[-1],)

    def cell(self, x: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
        z = F.linear(state[0], weights["recurrent_weight"])
        if self.conf.has_layer_norm:
            z = layer_norm(z) * weights["gain"].chunk(2)[1]
        h: Tensor = self.activation(x + z)
        return h, (h,)
