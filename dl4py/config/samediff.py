"""What layers have in common that DL4J computes by SameDiff: weights by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.kinds import Choice, Data, Item, Many, Real, field
from dl4py.config.layer import GRADIENT_NORMALIZATION, Layer
from dl4py.registry import REGULARIZATIONS, UPDATERS

# DL4J keeps the word of its enum here, which has no room for a distribution
INITS = Choice(
    *("ZERO", "ONES", "IDENTITY", "NORMAL", "UNIFORM", "SIGMOID_UNIFORM"),
    *("XAVIER", "XAVIER_UNIFORM", "XAVIER_FAN_IN", "XAVIER_LEGACY"),
    *("RELU", "RELU_UNIFORM", "LECUN_NORMAL", "LECUN_UNIFORM"),
    *(
        f"VAR_SCALING_{shape}_FAN_{fan}"
        for shape in ("NORMAL", "UNIFORM")
        for fan in ("IN", "OUT", "AVG")
    ),
)
# … and so here, where its asSameDiff() knows no others
ACTIVATIONS = Choice(
    *("CUBE", "ELU", "GELU", "HARDTANH", "IDENTITY", "LEAKYRELU", "RELU", "SIGMOID"),
    *("SOFTMAX", "SOFTPLUS", "SOFTSIGN", "TANH"),
)


@dataclass(frozen=True, kw_only=True)
class SameDiff(Layer):
    """Base of layers whose parameters DL4J lists by name and shape.

    Args:
        updater, bias_updater: a name, or a torch optimizer class; biases follow
            ``updater`` unless they have their own.
        regularization, regularization_bias: penalties on weights and on biases.
        weight_init: DL4J's word for it.
    """

    updater: Any = field(None, Item(UPDATERS), inherit=True, training=True)
    bias_updater: Any = field(None, Item(UPDATERS), inherit=True, training=True)
    regularization: Any = field(
        None, Many(Data(REGULARIZATIONS)), inherit=True, training=True
    )
    regularization_bias: Any = field(
        None, Many(Data(REGULARIZATIONS)), inherit=True, training=True
    )
    gradient_normalization: Any = field(
        None, GRADIENT_NORMALIZATION, inherit=True, training=True
    )
    gradient_normalization_threshold: Any = field(
        None, Real(0.0), inherit=True, training=True
    )
    weight_init: str = field("XAVIER", INITS)

    json_derived: ClassVar[tuple[str, ...]] = ("layerParams",)

    def weight_shapes(self) -> dict[str, list[Any]]:
        """DL4J's shapes of the weights by name, in order."""
        return {}

    def bias_shapes(self) -> dict[str, list[Any]]:
        """Those of the biases, which come after the weights."""
        return {}

    @property
    def weights(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.weight_shapes())

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.bias_shapes())

    def json_extra(self) -> dict[str, Any]:
        """What DL4J writes beside the fields."""
        shapes = {
            "biasParams": self.bias_shapes(),
            "weightParams": self.weight_shapes(),
        }
        return {"layerParams": shapes, "paramWeightInit": None}
