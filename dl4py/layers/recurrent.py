"""Layers that carry a state through time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dl4py import activations
from dl4py.layers.base import Layer, View
from dl4py.registry import MODULES

State = tuple[Tensor, Tensor]


@MODULES.add("lstm")
class LSTM(Layer):
    """Long short-term memory without peepholes.

    c = f⊙c₋₁ + i⊙act(x·W_c + h₋₁·R_c + b_c), h = o⊙act(c), with gates f, o, i.

    With tanh and sigmoid and without a mask the steps are torch's fused LSTM, else they
    run one by one. At masked steps h and c are 0; DL4J ignores the mask, and so does
    exact mode.

    Args:
        n_in, n_out: features in and out.
        activation: of candidate and cell.
        gate_activation: of the three gates.
        weight_init: a name or a function ``init(tensor, fan_in, fan_out)``, for W.
        weight_init_recurrent: the same for R; default: as ``weight_init``.
        bias_init: first value of the biases but the forget gate's.
        forget_gate_bias_init: first value of the forget gate's bias.
        format: ``"NCW"`` for ``[n, size, time]``, ``"NWC"`` for ``[n, time, size]``.

    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``, state (h, c) of ``[n, n_out]`` each.

    Example:
        >>> y, (h, c) = LSTM(3, 2)(torch.zeros(4, 3, 5))
        >>> y.shape, h.shape
        (torch.Size([4, 2, 5]), torch.Size([4, 2]))

    Reference: Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; Gers et al.,
        Learning to Forget, 2000.
    DL4J: org.deeplearning4j.nn.conf.layers.LSTM
    """

    recurrent = True

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Any = "tanh",
        gate_activation: Any = "sigmoid",
        *,
        weight_init: Any = "xavier",
        weight_init_recurrent: Any = None,
        bias_init: float = 0.0,
        forget_gate_bias_init: float = 1.0,
        format: str | None = "NCW",
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(dropout, dl4j_exact)
        self.n_in, self.n_out, self.format = n_in, n_out, format or "NCW"
        self.weight_init, self.bias_init = weight_init, bias_init
        self.weight_init_recurrent = weight_init_recurrent or weight_init
        self.forget_gate_bias_init = forget_gate_bias_init
        # four blocks along the first axis, in DL4J's order: candidate, f, o, i
        self.weight = nn.Parameter(torch.empty(4 * n_out, n_in))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * n_out, n_out))
        self.bias = nn.Parameter(torch.empty(4 * n_out))
        self.activation = activations.get(activation, dl4j_exact=dl4j_exact)
        self.gate_activation = activations.get(gate_activation, dl4j_exact=dl4j_exact)
        self.fused = isinstance(self.activation, activations.Tanh) and isinstance(
            self.gate_activation, activations.Sigmoid
        )
        self.reset_parameters()

    def dl4j_views(self) -> Iterator[View]:
        fans = (self.n_out, self.n_in + self.n_out)  # DL4J: of both matrices
        yield View("W", "weight", order="f", shaped=Tensor.t, fans=fans)
        yield View(
            "RW",
            "recurrent_weight",
            order="f",
            shaped=Tensor.t,
            fans=fans,
            init="weight_init_recurrent",
        )
        yield View("b", "bias", kind="bias", first=self._first_bias)

    def _first_bias(self, b: Tensor) -> Tensor:
        first = torch.full_like(b, self.bias_init)
        first[self.n_out : 2 * self.n_out] = self.forget_gate_bias_init
        return first

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        x = self.disturb(x)
        steps = x.permute(1, 0, 2) if self.format == "NWC" else x.permute(2, 0, 1)
        if state is None:
            zero = x.new_zeros(x.shape[0], self.n_out)
            state = (zero, zero)
        if self.dl4j_exact:
            mask = None
        # torch.compile does not differentiate torch's fused kernel
        compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        fused = self.fused and mask is None and not compiling
        run = self._fused if fused else self._stepwise
        y, state = run(steps, mask, state)
        return y.permute(1, 0, 2) if self.format == "NWC" else y.permute(1, 2, 0), state

    def _fused(
        self, x: Tensor, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        def gates(t: Tensor) -> Tensor:  # torch's order is i, f, candidate, o
            candidate, f, o, i = t.chunk(4)
            return torch.cat([i, f, candidate, o])

        weights = [gates(p) for p in (self.weight, self.recurrent_weight, self.bias)]
        weights.append(torch.zeros_like(self.bias))  # torch has a second bias
        h, c = (s.unsqueeze(0) for s in state)
        y, h, c = torch.lstm(
            x, [h, c], weights, True, 1, 0.0, self.training, False, False
        )
        return y, (h[0], c[0])

    def _stepwise(
        self, x: Tensor, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        h, c = state
        act, gate = self.activation, self.gate_activation
        inputs = nn.functional.linear(x, self.weight, self.bias)
        outputs = []
        for t in range(x.shape[0]):
            z = inputs[t] + h @ self.recurrent_weight.t()
            candidate, f, o, i = z.chunk(4, dim=1)
            c = gate(f) * c + gate(i) * act(candidate)
            h = gate(o) * act(c)
            if mask is not None:
                here = mask[:, t : t + 1].to(h.dtype)
                h, c = h * here, c * here
            outputs.append(h)
        return torch.stack(outputs) if outputs else x.new_zeros(0, *h.shape), (h, c)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        line = "LSTM: DL4J ignores the features mask; by default h and c are 0 there"
        return [*super().differs(dtype), line]

    def extra_repr(self) -> str:
        return f"{self.n_in} → {self.n_out}"
