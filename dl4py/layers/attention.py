"""Attention between the series of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import config
from dl4py.activations import gradient_of
from dl4py.layers.flow import Flow
from dl4py.layers.part import View, implements
from dl4py.layers.vertices import Vertex


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

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        line = "AttentionVertex: DL4J's gradient through it is twice the derivative"
        return [*super().differs(dtype), line]

    def _heads(self, x: Tensor, name: str) -> Tensor:
        """A series as ``[n, heads, time, size]``."""
        if not self.conf.project_input:
            return x.transpose(1, 2).unsqueeze(1)
        return torch.einsum("hdi,nit->nhtd", getattr(self, name), x)


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
