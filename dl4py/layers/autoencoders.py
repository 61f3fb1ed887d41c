"""Layers that are also trained to give back their input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config, losses
from dl4py.layers.base import Layer, masked
from dl4py.layers.feedforward import Affine
from dl4py.layers.part import implements
from dl4py.layers.reconstruction import Reconstruction, distribution_of
from dl4py.layers.view import View


class Pretrained(Layer):
    """Base of layers that can be trained on inputs alone."""

    noisy = False

    def pretraining_score(self, x: Tensor) -> Tensor:
        """What training on inputs alone makes small, summed over the examples.

        Args:
            x: ``[n, n_in]``.
        """
        raise NotImplementedError

    def reconstruct(self, x: Tensor) -> Tensor:
        """What ``x`` is given back as."""
        raise NotImplementedError

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        return y if self.dl4j_exact else masked(y, mask)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        line = f"{type(self).__name__}: DL4J ignores a mask; by default rows are 0"
        return [*super().differs(dtype), line]


@implements(config.AutoEncoder)
class AutoEncoder(Pretrained, Affine):
    """
    Shape:
        ``[n, n_in]`` → ``[n, n_out]``; :meth:`decode` goes back.

    Example:
        >>> layer = AutoEncoder(4, 2, "identity", weight_init="zero")
        >>> layer.reconstruct(torch.ones(1, 4)).detach()
        tensor([[0., 0., 0., 0.]])
    """

    neighbour = ("Linear", "an activation, and a way back by the same weight")

    def build(self) -> None:
        super().build()
        self.visible_bias = nn.Parameter(torch.empty(self.conf.n_in))
        self.criterion = losses.get(
            self.conf.loss, activation=self.activation, dl4j_exact=self.dl4j_exact
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> Any:
        late = self.dl4j_exact and self.training and self.conf.dropout is not None
        if not late or not torch.is_grad_enabled():
            return super().forward(x, mask, state)
        w, b = self.param("weight"), self.param("bias")
        y: Tensor = _Late.apply(self, x, w, b)  # type: ignore[no-untyped-call]
        return y

    def encoded(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """act(x·W + b), ``[n, n_in]`` → ``[n, n_out]``."""
        y: Tensor = self.activation(self.product(F.linear, x, w, b))
        return y

    def views(self) -> Iterator[View]:
        yield from super().views()
        facts: dict[str, Any] = {"first": self.conf.visible_bias_init}
        facts["trained"] = "pretraining"
        # in DL4J's eyes no bias: bias_updater and penalties of biases are not for it
        yield View(self, "vb", "visible_bias", kind="scale", **facts)

    def decode(self, y: Tensor) -> Tensor:
        """act(y·Wᵀ + v), ``[n, n_out]`` → ``[n, n_in]``."""
        x: Tensor = self.activation(self._decoded(y))
        return x

    def _decoded(self, y: Tensor) -> Tensor:
        """What of :meth:`decode` goes into the activation."""
        w, b = self.param("weight"), self.param("visible_bias")
        x: Tensor = self.product(F.linear, y, w.t(), b)
        return x

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self(x))

    def reconstruction_error(self, x: Tensor) -> Tensor:
        """The loss between ``x`` and what it is given back as, ``[n]``."""
        return self.criterion.per_example(self._decoded(self(x)), x)

    def pretraining_score(self, x: Tensor) -> Tensor:
        level = self.conf.corruption_level
        # DL4J: counts of one trial
        seen = x * self.noise.binomial(x, 1, 1 - level) if level else x
        z = self.linear(seen)
        y = self.activation(z)
        if not self.dl4j_exact:
            return self.criterion.score(self._decoded(y), x, average=False)
        # whatever activation and loss are, DL4J subtracts the errors of a likelihood,
        # which leads uphill, and scores the activation of what is given back
        d = self._decoded(y.detach())
        back = self.activation(d).detach()
        error = x - back
        slope = y * (y - self.conf.sparsity if self.conf.sparsity else 1 - y)
        hidden = self.product(F.linear, error, self.weight) * slope
        along = (z * hidden.detach()).sum() + (d * error).sum()
        score = self.criterion.score(back, seen, average=False)
        return activations.gradient_of(along, score)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        lines = ["AutoEncoder: DL4J's pretraining goes uphill, sparsity is in it alone"]
        if self.conf.dropout is not None:
            late = (
                "in DL4J dropout disturbs gradients, not activations; by default none"
            )
            lines.append(f"AutoEncoder: {late}")
        return [*lines, *super().differs(dtype)]


class _Late(torch.autograd.Function):
    """An encoder whose input DL4J disturbs when errors come back, not before."""

    @staticmethod
    def forward(ctx: Any, layer: AutoEncoder, *tensors: Tensor) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(*tensors)
        return layer.encoded(*tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, error: Tensor) -> Any:
        layer, dropout = ctx.layer, ctx.layer.conf.dropout
        source = layer.noise.ordered(layer.order)
        with torch.enable_grad():
            x, w, b = (t.detach().requires_grad_() for t in ctx.saved_tensors)
            y = layer.encoded(dropout.apply(x, source, layer.clock), w, b)
        return None, *torch.autograd.grad(y, (x, w, b), error)


@implements(config.VariationalAutoencoder)
class VariationalAutoencoder(Pretrained):
    """
    Shape:
        ``[n, n_in]`` → the mean of z, ``[n, n_out]``.

    Example:
        >>> sizes = {"encoder_layer_sizes": 5, "decoder_layer_sizes": 5}
        >>> layer = VariationalAutoencoder(4, 2, distribution="bernoulli", **sizes)
        >>> x = torch.rand(3, 4).round()
        >>> layer(x).shape, layer.generate_at_mean(layer(x)).shape
        (torch.Size([3, 2]), torch.Size([3, 4]))
        >>> layer.reconstruction_log_probability(x, 2).shape
        torch.Size([3])
    """

    leaves = "f"

    neighbour = ("—", "the mean of z; decoder and probabilities by methods")

    distribution: Reconstruction

    def build(self) -> None:
        conf = self.conf
        for name, (fan_in, fan_out) in conf.affine.items():
            self.register_parameter(
                f"{name}W", nn.Parameter(torch.empty(fan_out, fan_in))
            )
            self.register_parameter(f"{name}b", nn.Parameter(torch.empty(fan_out)))
        exact = self.dl4j_exact
        self.activation = activations.get(conf.activation, dl4j_exact=exact)
        self.pzx_activation = activations.get(conf.pzx_activation, dl4j_exact=exact)
        self.distribution = distribution_of(conf.distribution, exact)

    def views(self) -> Iterator[View]:
        for name, fans in self.conf.affine.items():
            always = name[0] == "e" or name == "pZXMean"
            trained = "always" if always else "pretraining"
            w, b = f"{name}W", f"{name}b"
            yield View(
                self, w, w, order="f", shaped=Tensor.t, fans=fans, trained=trained
            )
            # DL4J: bias_init is not used here
            yield View(self, b, b, kind="bias", first=0.0, trained=trained)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        mean: Tensor = self.pzx_activation(self._affine("pZXMean", self._encoded(x)))
        return mean

    def _affine(self, name: str, x: Tensor) -> Tensor:
        w, b = self.param(f"{name}W"), self.param(f"{name}b")
        y: Tensor = self.product(F.linear, x, w, b)
        return y

    def _encoded(self, x: Tensor) -> Tensor:
        for i in range(len(self.conf.encoder_layer_sizes)):
            x = self.activation(self._affine(f"e{i}", x))
        return x

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and ln σ² of q(z|x), ``[n, n_out]`` each."""
        h = self._encoded(x)
        mean, log_var = (
            self.pzx_activation(self._affine(name, h))
            for name in ("pZXMean", "pZXLogStd2")
        )
        return mean, log_var

    def decode(self, z: Tensor) -> Tensor:
        """What the distribution of x is computed from, ``[n, width]``."""
        if z.dim() != 2 or z.shape[1] != self.conf.n_out:
            raise ValueError(
                f"z: expected [n, n_out] = [n, {self.conf.n_out}], got {list(z.shape)}"
            )
        for i in range(len(self.conf.decoder_layer_sizes)):
            z = self.activation(self._affine(f"d{i}", z))
        return self._affine("pXZ", z)

    def generate_at_mean(self, z: Tensor) -> Tensor:
        """The mean of x given z, ``[n, n_in]``."""
        return self.distribution.mean(self.decode(z))

    def generate_random(self, z: Tensor) -> Tensor:
        """A draw of x given z, ``[n, n_in]``."""
        return self.distribution.sample(self.decode(z), self.noise)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of x given the mean of z given ``x``."""
        return self.generate_at_mean(self(x))

    def pretraining_score(self, x: Tensor) -> Tensor:
        """KL(q(z|x) ‖ N(0, 1)) - E ln p(x|z), E by ``num_samples`` draws of z."""
        mean, log_var = self.encode(x)
        divergence = 0.5 * (log_var.exp() + mean.square() - 1 - log_var).sum()
        known = self._log_probability(x, mean, log_var, self.conf.num_samples)
        return divergence - known.sum()

    def reconstruction_log_probability(self, x: Tensor, num_samples: int = 1) -> Tensor:
        """The mean of ln p(x|z) over draws of z from q(z|x), ``[n]``.

        Args:
            x: ``[n, n_in]``.
            num_samples: the number of draws, >= 1.

        Reference: An and Cho, Variational Autoencoder based Anomaly Detection using
        Reconstruction Probability, 2015.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples: expected >= 1, got {num_samples}")
        if self.conf.distribution.has_loss:
            raise ValueError(
                "reconstruction_log_probability: a loss is no probability; use "
                "reconstruction_error(x), or a distribution such as 'gaussian'"
            )
        return self._log_probability(x, *self.encode(x), num_samples)

    def _log_probability(
        self, x: Tensor, mean: Tensor, log_var: Tensor, num_samples: int
    ) -> Tensor:
        std = (0.5 * log_var).exp()
        total = torch.zeros_like(mean[:, 0])
        for _ in range(num_samples):
            z = mean + std * self.noise.normal(mean)
            total = total + self.distribution.log_probability(x, self.decode(z))
        return total / num_samples

    def reconstruction_probability(self, x: Tensor, num_samples: int = 1) -> Tensor:
        """exp of :meth:`reconstruction_log_probability`, as DL4J defines it."""
        return self.reconstruction_log_probability(x, num_samples).exp()

    def reconstruction_error(self, x: Tensor) -> Tensor:
        """The loss between ``x`` and what it is given back as, ``[n]``."""
        if not self.conf.distribution.has_loss:
            raise ValueError(
                "reconstruction_error: the distribution has no loss; use "
                "reconstruction_log_probability(x), or LossReconstruction"
            )
        return self.distribution.error(x, self.reconstruct(x))

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        parts = (m for m in self.modules() if isinstance(m, Reconstruction))
        lines = (part.differs() for part in parts)
        name = type(self).__name__
        return [*super().differs(dtype), *(f"{name}: {line}" for line in lines if line)]
