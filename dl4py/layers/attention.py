"""Attention: between the series of a graph, and of a series on itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config
from dl4py.activations import gradient_of
from dl4py.layers.base import Layer
from dl4py.layers.flow import Flow
from dl4py.layers.part import implements
from dl4py.layers.recurrent import check_mask, check_series
from dl4py.layers.vertices import Vertex
from dl4py.layers.view import View


@implements(config.AttentionVertex)
class AttentionVertex(Vertex):
    """
    Shape:
        queries ``[n, n_in_queries, time]``, keys and values ``[n, size, steps]`` →
        ``[n, n_out, time]``; masks ``[n, time]`` and ``[n, steps]``.

    Example:
        >>> layer = AttentionVertex(n_in_queries=2, n_in_keys=2, n_in_values=2, n_out=2)
        >>> x = torch.tensor([[[1.0, 1.0], [0.0, 2.0]]])  # two steps of size 2
        >>> layer(x, x, x, key_mask=torch.tensor([[1.0, 0.0]]))
        tensor([[[1., 1.],
                 [0., 0.]]])
    """

    scores_penalties = False
    Wo: Tensor  # Wq, Wk and Wv are read by name

    def build(self) -> None:
        self.conf.check()
        for name, shape in self.conf.shapes().items():
            setattr(self, name, nn.Parameter(torch.empty(*shape)))

    def views(self) -> Iterator[View]:
        conf = self.conf
        fans = {
            "Wq": (conf.n_in_queries, conf.head_size),
            "Wk": (conf.n_in_keys, conf.head_size),
            "Wv": (conf.n_in_values, conf.head_size),
            "Wo": (conf.n_heads * conf.head_size, conf.n_out),
        }
        for name in conf.shapes():
            yield View(self, name, name, fans=fans[name])

    def flow(self, given: Sequence[Flow], inputs: Mapping[str, Flow]) -> Flow:
        y = self(*(flow.x for flow in given), *(flow.mask for flow in given))
        return Flow(y, given[0].mask, given[0].n)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
    ) -> Tensor:
        self.check(queries, keys, values, query_mask, key_mask, value_mask)
        hidden = _hidden(key_mask, value_mask, queries.dtype)
        q, k, v = (
            self._heads(x, name)
            for x, name in ((queries, "Wq"), (keys, "Wk"), (values, "Wv"))
        )
        y = F.scaled_dot_product_attention(q, k, v, hidden)
        y = y.transpose(1, 2).flatten(2)  # [n, time, heads · size]
        if self.conf.project_input:
            y = y @ self.Wo
        y = y.transpose(1, 2)
        if query_mask is not None:
            y = y * query_mask.unsqueeze(1).to(y.dtype)
        return gradient_of(2 * y, y) if self.dl4j_exact else y

    def check(self, *given: Tensor | None) -> None:
        """Refuse series and masks that do not go together."""
        series = [x for x in given[:3] if x is not None]
        masks = zip(("query_mask", "key_mask", "value_mask"), given[3:], strict=True)
        for role, x, (name, mask) in zip(self.conf.roles, series, masks, strict=True):
            check_series(x, getattr(self.conf, f"n_in_{role}"), name=role)
            check_mask(mask, x, name)
        queries, keys, values = series
        alike = all(x.shape[0] == keys.shape[0] for x in series)
        if not alike or keys.shape[2] != values.shape[2]:
            raise ValueError(
                "queries, keys, values: expected equally many examples, and keys and "
                f"values equally long, got {list(queries.shape)}, {list(keys.shape)}, "
                f"{list(values.shape)}"
            )

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return [*super().differs(dtype), *differences("AttentionVertex")]

    def _heads(self, x: Tensor, name: str) -> Tensor:
        return heads(x, getattr(self, name, None))


def differences(name: str) -> list[str]:
    """What DL4J does otherwise in all attention."""
    return [
        f"{name}: DL4J's gradient through it is twice the derivative",
        f"{name}: DL4J's score leaves out its penalties",
    ]


def heads(x: Tensor, w: Tensor | None) -> Tensor:
    """A series as ``[n, heads, time, size]``, times weights where there are any."""
    if w is None:
        return x.transpose(1, 2).unsqueeze(1)
    return torch.einsum("hdi,nit->nhtd", w, x)


def _hidden(
    key_mask: Tensor | None, value_mask: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """What is added before the softmax: 0 where a step is shown, else -1e9."""
    masks = [m.to(dtype) for m in (key_mask, value_mask) if m is not None]
    if not masks:
        return None
    shown = masks[0] if len(masks) == 1 else torch.minimum(*masks)
    least = max(-1e9, torch.finfo(dtype).min)  # where all is hidden nothing is, as DL4J
    return ((1 - shown) * least)[:, None, None, :]


Keys = tuple[Tensor, Tensor, Tensor | None]


class Attention(Layer):
    """Base of attention of a series on itself; parameters are called as in DL4J."""

    noisy = False
    scores_penalties = False
    Wo: Tensor  # the others are read by name

    def build(self) -> None:
        conf = self.conf
        conf.check()
        for name, shape in {**conf.weight_shapes(), **conf.bias_shapes()}.items():
            setattr(self, name, nn.Parameter(torch.empty(*shape)))

    def views(self) -> Iterator[View]:
        for name in self.conf.weight_shapes():
            yield View(self, name, name, fans=self.fans(name))
        for name in self.conf.bias_shapes():
            yield View(self, name, name, kind="bias", first=0.0)

    def fans(self, name: str) -> tuple[float, float]:
        """DL4J's (fan_in, fan_out): those of heads and of Wo are exchanged there."""
        conf = self.conf
        if name == "Wo":
            return conf.n_in, conf.head_size
        return conf.n_heads * conf.head_size, conf.n_out

    def keys(self, x: Tensor, mask: Tensor | None) -> Keys:
        """Keys and values of all steps, and what hides those that are masked."""
        check_mask(mask, x)
        k, v = (heads(x, getattr(self, name, None)) for name in ("Wk", "Wv"))
        return k, v, _hidden(mask, None, x.dtype)

    def attend(self, queries: Tensor, keys: Keys) -> Tensor:
        """What queries ``[n, size, time]`` see, ``[n, time, n_out]``."""
        q = heads(queries, getattr(self, "Wq", None))
        y = F.scaled_dot_product_attention(q, *keys)
        y = y.transpose(1, 2).flatten(2)  # [n, time, heads · size]
        return y @ self.Wo if self.conf.project_input else y

    def finish(self, y: Tensor) -> Tensor:
        return gradient_of(2 * y, y) if self.dl4j_exact else y

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return [*super().differs(dtype), *differences(type(self).__name__)]


@implements(config.SelfAttention)
class SelfAttention(Attention):
    """
    ``dropout`` is ignored, as DL4J does in this layer.

    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``

    Example:
        >>> layer = SelfAttention(n_in=2, n_out=2, project_input=False)
        >>> x = torch.tensor([[[1.0, 1.0], [0.0, 2.0]]])  # two steps of size 2
        >>> layer(x, torch.tensor([[1.0, 0.0]]))
        tensor([[[1., 1.],
                 [0., 0.]]])
    """

    neighbour = (
        "MultiheadAttention",
        "`[n, size, time]`, no biases; one head may do without weights",
    )

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.attend(x, self.keys(x, mask)).transpose(1, 2)


@implements(config.LearnedSelfAttention)
class LearnedSelfAttention(Attention):
    """
    ``dropout`` is ignored, as DL4J does in this layer.

    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, n_queries]``

    Example:
        >>> LearnedSelfAttention(3, 4, n_queries=2)(torch.zeros(1, 3, 5)).shape
        torch.Size([1, 4, 2])
    """

    neighbour = (
        "MultiheadAttention",
        "learned queries in place of the steps",
    )

    Q: Tensor

    def fans(self, name: str) -> tuple[float, float]:
        if name == "Q":
            return self.conf.n_in, self.conf.n_queries
        return super().fans(name)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        queries = self.Q.expand(x.shape[0], -1, -1)
        return self.attend(queries, self.keys(x, mask)).transpose(1, 2)

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return None


@implements(config.RecurrentAttention)
class RecurrentAttention(Attention):
    """
    ``dropout`` is ignored, as DL4J does in this layer.

    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time]``

    Example:
        >>> RecurrentAttention(3, 4, n_heads=2)(torch.zeros(1, 3, 5)).shape
        torch.Size([1, 4, 5])
    """

    neighbour = ("—", "a simple recurrent step that attends to the whole input")

    W: Tensor
    RW: Tensor
    b: Tensor

    def build(self) -> None:
        super().build()
        self.activation = activations.get(
            self.conf.activation, dl4j_exact=self.dl4j_exact
        )

    def fans(self, name: str) -> tuple[float, float]:
        if name in ("W", "RW"):
            return (self.conf.n_in if name == "W" else self.conf.n_out), self.conf.n_out
        return super().fans(name)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        keys = self.keys(x, mask)
        z = x.transpose(1, 2) @ self.W
        inputs = (z + self.b if self.conf.has_bias else z).unbind(1)
        h: Tensor | None = None
        outputs = []
        for z in inputs:
            if h is not None:
                z = z + self.attend(h.unsqueeze(2), keys)[:, 0] @ self.RW
            h = self.activation(z)
            outputs.append(h)
        if not outputs:
            return x.new_zeros(x.shape[0], self.conf.n_out, 0)
        return torch.stack(outputs, 2)
