"""Normalisation: over batches, and across channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.inputs import (
    Convolutional,
    Convolutional3D,
    InputType,
    Recurrent,
    Shape,
    arrays,
)
from dl4py.config.kinds import Real, field, flag
from dl4py.config.layer import ConfigurationError, FeedForwardLayer, Layer
from dl4py.config.sliding import NCHW, channels_of, in_format, spatial
from dl4py.registry import LAYERS


@LAYERS.add("batch_normalization", java="BatchNormalization")
@dataclass(frozen=True, kw_only=True)
class BatchNormalization(FeedForwardLayer):
    """Batch normalisation: γ·(x - μ)/√(σ² + ε) + β; the activation is not applied.

    Statistics are the batch's while training (population variance) and running means
    while testing: running ← decay·running + (1 - decay)·batch.

    Args:
        decay: in [0, 1]; torch's momentum is 1 - decay.
        eps: ε >= 0.
        gamma, beta: first values of γ and β, or their constant values when locked.
        lock_gamma_beta: γ and β are not parameters. DL4J then applies the constants
            only if γ ≠ 1 **and** β ≠ 0.
        use_log_std: the running variance is kept as log₁₀σ, as DL4J's new networks do.
        minibatch, cudnn_allow_fallback: kept for DL4J's files; they change nothing.
        format: as in :class:`Convolution2D`.

    Reference: Ioffe and Szegedy, Batch Normalization, 2015.
    DL4J: org.deeplearning4j.nn.conf.layers.BatchNormalization
    """

    decay: float = field(0.9, Real(0.0, 1.0))
    eps: float = field(1e-5, Real(0.0))
    gamma: float = field(1.0, Real())
    beta: float = field(0.0, Real())
    lock_gamma_beta: bool = field(False, flag)
    use_log_std: bool = field(True, flag)
    minibatch: bool = field(True, flag)
    cudnn_allow_fallback: bool = field(True, flag)
    format: str | None = field(None, NCHW, json="cnn2DFormat")

    leading: ClassVar[tuple[str, ...]] = ("n_out",)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_out=3), Convolutional(6, 5, 3)

    @property
    def variables(self) -> tuple[str, ...]:
        free = () if self.lock_gamma_beta else ("gamma", "beta")
        return (*free, "mean", "log10stdev" if self.use_log_std else "var")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        images = arrays("cnn", self.n_in, self.format)
        volumes = arrays("cnn3d", self.n_in, "NCDHW")
        return arrays("ff", self.n_in, None) + images + volumes

    def with_input(self, given: InputType) -> Any:
        if isinstance(given, Recurrent):
            raise ConfigurationError(
                "input: DL4J's batch normalisation takes rows, images or volumes, "
                "got a time series"
            )
        if isinstance(given, Convolutional3D) and given.format == "NDHWC":
            raise ConfigurationError(
                "input: DL4J's batch normalisation takes channels of volumes on axis 1 "
                f"(NCDHW), got {given}"
            )
        channels = channels_of(given)
        sized = replace(self.sized(channels), n_out=channels)
        return in_format(sized, given) if isinstance(given, Convolutional) else sized

    def output(self, given: InputType) -> InputType:
        return given

    def check(self) -> None:
        return None  # n_out follows from the input


@LAYERS.add("local_response_normalization", "lrn", java="LocalResponseNormalization")
@dataclass(frozen=True, kw_only=True)
class LocalResponseNormalization(Layer):
    """Normalisation across channels: x_c / (k + α·Σ x_j²)^β, j = c - ⌊n/2⌋ … c + ⌊n/2⌋.

    α is not divided by n, as torch does, and an even n counts n + 1 channels.

    Args:
        k, alpha, beta: k, α and β.
        n: how many channels are summed over, >= 1; DL4J rounds it down.
        cudnn_allow_fallback: kept for DL4J's files; it changes nothing.
        format: as in :class:`Convolution2D`.

    Reference: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural
    Networks, 2012.
    DL4J: org.deeplearning4j.nn.conf.layers.LocalResponseNormalization
    """

    n: float = field(5.0, Real(1.0))
    k: float = field(2.0, Real())
    alpha: float = field(1e-4, Real())
    beta: float = field(0.75, Real())
    cudnn_allow_fallback: bool = field(True, flag)
    format: str | None = field(None, NCHW, json="dataFormat")

    positional: ClassVar[tuple[str, ...]] = ("k", "n", "alpha", "beta")
    family: ClassVar[str] = "cnn"

    def with_input(self, given: InputType) -> Any:
        return in_format(self, spatial(given, 2))
