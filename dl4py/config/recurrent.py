"""Layers that carry a state through time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from dl4py.config.feedforward import NCW, as_series, in_format
from dl4py.config.inputs import InputType
from dl4py.config.kinds import Item, Real, field, flag
from dl4py.config.layer import WEIGHT_INIT, FeedForwardLayer
from dl4py.registry import ACTIVATIONS, LAYERS


@dataclass(frozen=True, kw_only=True)
class Recurrent(FeedForwardLayer):
    """Base of recurrent layers.

    Args:
        weight_init_recurrent: of the recurrent weight; default: as ``weight_init``.
        format: ``"NCW"`` for ``[n, size, time]``, ``"NWC"`` for ``[n, time, size]``;
            default: that of the input.
    """

    weight_init_recurrent: Any = field(None, WEIGHT_INIT, json="weightInitFnRecurrent")
    format: str | None = field(None, NCW, json="rnnDataFormat")

    family: ClassVar[str] = "rnn"
    weights: ClassVar[tuple[str, ...]] = ("W", "RW")
    biases: ClassVar[tuple[str, ...]] = ("b",)

    def with_input(self, given: InputType) -> Any:
        return in_format(super().with_input(given), given)

    def output(self, given: InputType) -> InputType:
        return as_series(self.n_out, given)


@LAYERS.add("simple_rnn", java="recurrent.SimpleRnn")
@dataclass(frozen=True, kw_only=True)
class SimpleRnn(Recurrent):
    """The plain recurrent layer: h = act(x·W + h₋₁·R + b).

    With layer normalisation h = act(LN(x·W)·g₁ + LN(h₋₁·R)·g₂ + b), which DL4J itself
    cannot run.

    Args:
        has_layer_norm: whether both products are normalised over the outputs.

    Reference: Elman, Finding Structure in Time, 1990.
    DL4J: org.deeplearning4j.nn.conf.layers.recurrent.SimpleRnn
    """

    has_layer_norm: bool = field(False, flag)

    alone: ClassVar[Mapping[str, Any]] = {"activation": "tanh"}

    @property
    def variables(self) -> tuple[str, ...]:
        return ("W", "RW", "b", *["g"] * self.has_layer_norm)


@dataclass(frozen=True, kw_only=True)
class _Gated(Recurrent):
    """Base of LSTMs; see :class:`LSTM`."""

    gate_activation: Any = field("sigmoid", Item(ACTIVATIONS), json="gateActivationFn")
    forget_gate_bias_init: float = field(1.0, Real())
    helper_allow_fallback: bool = field(True, flag)

    leading: ClassVar[tuple[str, ...]] = (
        "n_in",
        "n_out",
        "activation",
        "gate_activation",
    )
    alone: ClassVar[Mapping[str, Any]] = {"activation": "tanh"}


@LAYERS.add("lstm", java="LSTM")
@dataclass(frozen=True, kw_only=True)
class LSTM(_Gated):
    """Long short-term memory without peepholes.

    c = f⊙c₋₁ + i⊙act(x·W_c + h₋₁·R_c + b_c), h = o⊙act(c), with gates f, o, i.

    Args:
        activation: of candidate and cell; the network's global one by default (DL4J's
            global default is sigmoid, so set tanh for the textbook cell).
        gate_activation: of the three gates.
        forget_gate_bias_init: first value of the forget gate's bias; the others' are 0,
            whatever ``bias_init`` is.
        helper_allow_fallback: kept for DL4J's files; it changes nothing.

    Reference: Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; Gers et al.,
        Learning to Forget, 2000.
    DL4J: org.deeplearning4j.nn.conf.layers.LSTM
    """


@LAYERS.add("graves_lstm", java="GravesLSTM")
@dataclass(frozen=True, kw_only=True)
class GravesLSTM(_Gated):
    """Long short-term memory with peepholes: the gates see the cell.

    f and i = gate(x·W + h₋₁·R + b + p⊙c₋₁), o = gate(x·W_o + h₋₁·R_o + b_o + p_o⊙c),
    c and h as in :class:`LSTM`. The peepholes p are the last three columns of RW: those
    of f, o and i.

    Args:
        activation, gate_activation, forget_gate_bias_init, helper_allow_fallback: as in
            :class:`LSTM`.

    Reference: Graves, Supervised Sequence Labelling with Recurrent Neural Networks,
        2012; Gers and Schmidhuber, Recurrent Nets that Time and Count, 2000.
    DL4J: org.deeplearning4j.nn.conf.layers.GravesLSTM
    """


@LAYERS.add("graves_bidirectional_lstm", java="GravesBidirectionalLSTM")
@dataclass(frozen=True, kw_only=True)
class GravesBidirectionalLSTM(_Gated):
    """One LSTM with peepholes forwards and one backwards in time; their sum.

    Args:
        activation, gate_activation, forget_gate_bias_init, helper_allow_fallback: as in
            :class:`LSTM`.

    Reference: Graves and Schmidhuber, Framewise Phoneme Classification with
        Bidirectional LSTM, 2005.
    DL4J: org.deeplearning4j.nn.conf.layers.GravesBidirectionalLSTM
    """

    pieces: ClassVar[str] = "no"
    weights: ClassVar[tuple[str, ...]] = ("WF", "RWF", "WB", "RWB")
    biases: ClassVar[tuple[str, ...]] = ("bF", "bB")

    @property
    def variables(self) -> tuple[str, ...]:
        return ("WF", "RWF", "bF", "WB", "RWB", "bB")

    @property
    def one(self) -> GravesLSTM:
        """The layer in either direction."""
        values = {f.name: getattr(self, f.name) for f in fields(GravesLSTM)}
        return GravesLSTM(**{**values, "dropout": None})
