"""Layers that are also trained to give back their input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.inputs import FeedForward, InputType
from dl4py.config.kinds import Choice, Data, Integer, Item, Many, Real, field
from dl4py.config.layer import FeedForwardLayer
from dl4py.config.reconstruction import CompositeReconstruction, GaussianReconstruction
from dl4py.registry import ACTIVATIONS, LAYERS, RECONSTRUCTIONS

# DL4J keeps the word of its enum here
LOSS_WORDS = Choice(
    *("MSE", "L1", "XENT", "MCXENT", "SPARSE_MCXENT", "SQUARED_LOSS"),
    *("RECONSTRUCTION_CROSSENTROPY", "NEGATIVELOGLIKELIHOOD", "COSINE_PROXIMITY"),
    *("HINGE", "SQUARED_HINGE", "KL_DIVERGENCE", "MEAN_ABSOLUTE_ERROR", "L2"),
    *("MEAN_ABSOLUTE_PERCENTAGE_ERROR", "MEAN_SQUARED_LOGARITHMIC_ERROR"),
    *("POISSON", "WASSERSTEIN"),
)


@dataclass(frozen=True, kw_only=True)
class Pretrained(FeedForwardLayer):
    """Base of layers that can be trained on inputs alone.

    Args:
        loss: DL4J's word for what that training makes small.
        visible_bias_init: first value of the bias of the reconstruction.
    """

    loss: str = field("RECONSTRUCTION_CROSSENTROPY", LOSS_WORDS, json="lossFunction")
    visible_bias_init: float = field(0.0, Real())

    family: ClassVar[str] = "ff"


@LAYERS.add("auto_encoder", java="AutoEncoder")
@dataclass(frozen=True, kw_only=True)
class AutoEncoder(Pretrained):
    """Denoising autoencoder: y = act(x·W + b); it gives back act(y·Wᵀ + v).

    In a network it is a dense layer; v is trained by pretraining only. ``dropout`` is
    ignored: in DL4J, and in exact mode, it disturbs gradients alone.

    Args:
        loss, visible_bias_init: as in :class:`Pretrained`; v starts with the latter.
        corruption_level: the probability of setting an input to 0 in pretraining.
        sparsity: >= 0, which the hidden values are drawn to in DL4J's pretraining, and
            in exact mode; its gradient is that of no score, so that it does nothing by
            default.

    Reference: Vincent et al., Extracting and Composing Robust Features with Denoising
    Autoencoders, 2008.
    DL4J: org.deeplearning4j.nn.conf.layers.AutoEncoder
    """

    corruption_level: float = field(0.30000001192092896, Real(0.0, 1.0))
    sparsity: float = field(0.0, Real(0.0))

    positional: ClassVar[tuple[str, ...]] = ("corruption_level", "sparsity")
    weights: ClassVar[tuple[str, ...]] = ("W",)
    biases: ClassVar[tuple[str, ...]] = ("b", "vb")


@LAYERS.add("variational_autoencoder", "vae", java="variational.VariationalAutoencoder")
@dataclass(frozen=True, kw_only=True)
class VariationalAutoencoder(Pretrained):
    """Variational autoencoder; in a network it gives the mean of z.

    h = act(… act(x·W₀ + b₀) …), q(z|x) = N(f(h·Wμ + bμ), exp f(h·Wσ + bσ)), and
    p(x|z) is ``distribution`` of act(… act(z·V₀ + c₀) …)·V + c. What stands behind the
    mean of z is trained by pretraining only. As in DL4J, ``dropout`` is ignored.

    Args:
        n_out: the size of z.
        encoder_layer_sizes, decoder_layer_sizes: of the hidden layers, >= 1 each.
        distribution: of the input, a name or one of the ``…Reconstruction`` classes;
            DL4J's default is a Gaussian with tanh.
        pzx_activation: f; DL4J's default is identity.
        num_samples: draws of z for each example in pretraining, >= 1.
        loss, visible_bias_init: kept for DL4J's files; they change nothing.

    Reference: Kingma and Welling, Auto-Encoding Variational Bayes, 2013.
    DL4J: org.deeplearning4j.nn.conf.layers.variational.VariationalAutoencoder
    """

    encoder_layer_sizes: tuple[int, ...] = field((100,), Many(Integer(1), 1))
    decoder_layer_sizes: tuple[int, ...] = field((100,), Many(Integer(1), 1))
    distribution: Any = field(
        GaussianReconstruction(activation="tanh"),
        Data(RECONSTRUCTIONS),
        json="outputDistribution",
    )
    pzx_activation: Any = field("identity", Item(ACTIVATIONS), json="pzxActivationFn")
    num_samples: int = field(1, Integer(1))

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        parts = ("gaussian", "bernoulli")
        conf = cls(
            n_in=3,
            n_out=2,
            encoder_layer_sizes=(4,),
            decoder_layer_sizes=(3, 4),
            distribution=CompositeReconstruction(sizes=(1, 2), parts=parts),
        )
        return conf, FeedForward(3)

    @property
    def affine(self) -> dict[str, tuple[int, int]]:
        """Name of each affine map → its sizes, in DL4J's order."""
        assert self.n_in is not None and self.n_out is not None
        found = {}
        last = self.n_in
        for i, size in enumerate(self.encoder_layer_sizes):
            found[f"e{i}"], last = (last, size), size
        found["pZXMean"] = found["pZXLogStd2"] = (last, self.n_out)
        last = self.n_out
        for i, size in enumerate(self.decoder_layer_sizes):
            found[f"d{i}"], last = (last, size), size
        return {**found, "pXZ": (last, self.distribution.width(self.n_in))}

    @property
    def _names(self) -> tuple[str, ...]:
        encoders = (f"e{i}" for i in range(len(self.encoder_layer_sizes)))
        decoders = (f"d{i}" for i in range(len(self.decoder_layer_sizes)))
        return (*encoders, "pZXMean", "pZXLogStd2", *decoders, "pXZ")

    @property
    def weights(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"{name}W" for name in self._names)

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"{name}b" for name in self._names)

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(f"{name}{letter}" for name in self._names for letter in "Wb")

    def with_input(self, given: InputType) -> Any:
        layer = super().with_input(given)
        layer.check()
        return layer

    def check(self) -> None:
        super().check()
        if self.n_in is not None:
            self.distribution.check(self.n_in)
