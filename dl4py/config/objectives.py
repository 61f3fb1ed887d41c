"""Output layers with more in their score than a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.feedforward import HasLoss, Output
from dl4py.config.inputs import FeedForward, InputType
from dl4py.config.kinds import Integer, Item, Real, field, flag
from dl4py.config.layer import FeedForwardLayer
from dl4py.registry import ACTIVATIONS, LAYERS


@LAYERS.add("center_loss_output", "center_loss", java="CenterLossOutputLayer")
@dataclass(frozen=True, kw_only=True)
class CenterLossOutput(Output):
    """Output layer that also pulls what comes in towards the centre of its class.

    score = loss + λ/2·Σ‖x - c_y‖², where c_y = labels · centres. The centres move once
    a step by -α·Σ(c - x)/(1 + count) over the examples of their class; no updater and
    no penalty acts on them.

    Args:
        alpha: α in [0, 1].
        lambda_: λ >= 0.
        gradient_check: the centres move by -α·λ·Σ(c - x) over the examples instead, the
            gradient of the score where α = 1.
        loss, activation, has_bias: as in :class:`Output`; labels are ``[n, n_out]``.

    Reference: Wen et al., A Discriminative Feature Learning Approach for Deep Face
    Recognition, 2016.
    DL4J: org.deeplearning4j.nn.conf.layers.CenterLossOutputLayer
    """

    alpha: float = field(0.05, Real(0.0, 1.0))
    lambda_: float = field(2e-4, Real(0.0), json="lambda")
    gradient_check: bool = field(False, flag)

    @property
    def variables(self) -> tuple[str, ...]:
        return (*super().variables, "cL")


@LAYERS.add(
    "ocnn_output", "ocnn", java="org.deeplearning4j.nn.conf.ocnn.OCNNOutputLayer"
)
@dataclass(frozen=True, kw_only=True)
class OCNNOutput(FeedForwardLayer, HasLoss):
    """One-class network for anomalies: z = act(x·V)·w, normal where z >= r.

    score = ½‖V‖² + ½‖w‖² + mean(max(0, r - z))/ν - r; labels are not used, but must be
    there, one row per example. r is trained as the others are. l1, l2 and weight decay
    do not act on this layer, as in DL4J.

    Args:
        hidden_size: the size of act(x·V), >= 1; DL4J's builder calls it
            ``hiddenLayerSize``.
        nu: ν in (0, 1], the share of the examples that count as anomalies.
        initial_r_value: first value of r.
        activation: DL4J's default is identity.
        window_size, configure_r: kept for DL4J's files. DL4J sets r anew from a window
            of outputs when epochs go by, and to its first value when it opens a file;
            here r is trained and kept.
        n_out: 1.

    Reference: Chalapathy, Menon and Chawla, Anomaly Detection using One-Class Neural
    Networks, 2018.
    DL4J: org.deeplearning4j.nn.conf.ocnn.OCNNOutputLayer
    """

    activation: Any = field("identity", Item(ACTIVATIONS), json="activationFn")
    n_out: int | None = field(1, Integer(1, bits=63), json="nout")
    hidden_size: int | None = field(None, Integer(1))
    nu: float = field(0.04, Real(0.0, 1.0))
    window_size: int = field(10000, Integer(1))
    initial_r_value: float = field(0.1, Real(), json="initialRValue")
    configure_r: bool = field(True, flag)
    has_bias: bool = field(True, flag)
    last_epoch: int = field(0, Integer(0), json="lastEpochSinceRUpdated", training=True)

    leading: ClassVar[tuple[str, ...]] = ("n_in", "hidden_size", "activation")
    family: ClassVar[str] = "ff"
    weights: ClassVar[tuple[str, ...]] = ("w", "v", "r")
    json_first: ClassVar[tuple[str, ...]] = (
        *("configureR", "hiddenSize", "initialRValue", "nu", "windowSize"),
    )

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_in=3, hidden_size=4), FeedForward(3)

    def check(self) -> None:
        if self.n_out != 1:
            raise ValueError(f"n_out: expected 1, one score a row, got {self.n_out}")
        if self.hidden_size is None:
            raise ValueError("hidden_size: expected a whole number >= 1, got nothing")
        if self.nu == 0:
            raise ValueError("nu: expected a share in (0, 1], got 0")
