"""Numbers about many tensors, for which a device is waited for once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dl4py.config import MultiLayerConfiguration
from dl4py.network import Network
from dl4py.network.summary import layers

LINE = 16  # numbers that lie in one line of a processor's cache


@dataclass(frozen=True)
class Watched:
    """A parameter under its name.

    Args:
        name: ``"0_W"``, DL4J's, of a network of dl4py; else torch's.
        layer: the name of the layer that it belongs to.
        tensor: the live one.
        weight: whether it is a weight, and neither bias nor scale.
    """

    name: str
    layer: str
    tensor: Tensor
    weight: bool


def parameters(module: nn.Module) -> Iterator[Watched]:
    """What an optimizer changes in a module, a network of dl4py inside it or not."""
    net = network_of(module)
    if net is None:
        for name, p in module.named_parameters():
            if p.requires_grad and p.is_floating_point():
                layer = name.rpartition(".")[0] or type(module).__name__
                yield Watched(name, layer, p, p.dim() > 1)
        return
    chain = isinstance(net.conf, MultiLayerConfiguration)
    places = {
        node.name: str(i) if chain else node.name for i, node in enumerate(net.nodes)
    }
    for view in net.views():
        if view.kind == "statistic" or view.trained == "never":
            continue
        name = f"{places[view.node]}_{view.name}"
        for leaf, t in view.leaves.items():
            if t.requires_grad:
                own = f"{name}/{leaf}" if view.computed else name
                yield Watched(own, view.node, t, view.kind == "weight")


def layers_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of everything whose output is an activation to look at."""
    net = network_of(module)
    if net is not None:
        yield from ((node.name, node.layer) for node in net.nodes)
        return
    for name, part in module.named_modules():
        if not any(part.children()) and not type(part).__module__.startswith(
            "torchmetrics"
        ):
            yield name or type(part).__name__, part


def network_of(module: nn.Module) -> Network | None:
    """The network of dl4py that a LightningModule trains, if it is one."""
    if isinstance(module, Network):
        return module
    inside = getattr(module, "network", None)
    return inside if isinstance(inside, Network) else None


def table(module: nn.Module) -> list[dict[str, Any]]:
    """The layers of a module as plain types: name, type, sizes, parameters."""
    net = network_of(module)
    if net is not None:
        return layers(net)
    rows = []
    for name, part in layers_of(module):
        shapes = {k: list(p.shape) for k, p in part.named_parameters(recurse=False)}
        sizes = [
            next((v for k in keys if (v := getattr(part, k, None)) is not None), None)
            for keys in (
                ("in_features", "in_channels", "input_size", "num_embeddings"),
                ("out_features", "out_channels", "hidden_size", "embedding_dim"),
            )
        ]
        rows.append(
            {
                "name": name,
                "type": type(part).__name__,
                "n_in": sizes[0],
                "n_out": sizes[1],
                "parameters": shapes,
                "count": sum(p.numel() for p in part.parameters(recurse=False)),
            }
        )
    return rows


def chosen(t: Tensor, limit: int | None) -> Tensor:
    """The numbers of a tensor that count, without its graph, a copy as a vector.

    Args:
        limit: of more numbers than twice that, blocks of 16 in equal distances count,
            since memory is read in such lines; ``None``: all. Of a sharded tensor
            those that are here.
    """
    t = t.detach()
    shard = getattr(t, "to_local", None)
    flat = (t if shard is None else shard()).reshape(-1)
    step = 1 if limit is None else flat.numel() // limit
    if step <= 1:
        return flat.clone()
    step |= 1  # odd, so that it comes to all columns of a matrix of a power of two
    count = flat.numel() // (LINE * step)
    return flat[: count * LINE * step].view(count, -1)[:, :LINE].reshape(-1)


def magnitudes(tensors: Sequence[Tensor]) -> Tensor:
    """The mean of |x| of each tensor, as one vector."""
    if not tensors:
        return torch.zeros(0)
    norms = torch.stack(torch._foreach_norm(_wide(tensors), 1))
    return norms / norms.new_tensor([max(t.numel(), 1) for t in tensors])


def moments(tensors: Sequence[Tensor]) -> Tensor:
    """Mean and standard deviation (of n - 1, as ND4J's) of each, ``[2, tensors]``."""
    if not tensors:
        return torch.zeros(2, 0)
    wide = _wide(tensors)
    means = [t.mean() for t in wide]
    # twice as fast as torch.std_mean, and no less exact
    rests = torch._foreach_norm(torch._foreach_sub(wide, means), 2)
    norms, centres = torch.stack(rests), torch.stack(means)
    return torch.stack(
        [centres, norms / norms.new_tensor([t.numel() - 1 for t in wide]).sqrt()]
    )


def _wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    """In a type whose sums of squares do not overflow."""
    narrow = torch.float16, torch.bfloat16
    return [t.float() if t.dtype in narrow else t for t in tensors]


def fetched(vectors: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """The vectors as lists, copied from their device at once."""
    sizes = [v.numel() for v in vectors.values()]
    flat = (
        torch.cat([v.flatten() for v in vectors.values()]).tolist() if vectors else []
    )
    found, start = {}, 0
    for name, size in zip(vectors, sizes, strict=True):
        found[name] = flat[start : start + size]
        start += size
    return found


def histograms(samples: Mapping[str, Tensor], bins: int) -> dict[str, dict[str, Any]]:
    """Counts of each in ``bins`` equal steps from its least to its largest number.

    What is not finite is not counted; a tensor without anything else has no histogram.

    >>> histograms({"w": torch.tensor([0.0, 1.0, 1.0, 4.0])}, 2)
    {'w': {'low': 0.0, 'high': 4.0, 'counts': [3, 1]}}
    """
    if not samples:
        return {}
    ends = np.cumsum([s.numel() for s in samples.values()])[:-1]
    flat = torch.cat([s.float() for s in samples.values()]).cpu().numpy()
    found = {}
    for name, x in zip(samples, np.split(flat, ends), strict=True):
        x = x[np.isfinite(x)]
        if x.size:
            low, high = float(x.min()), float(x.max())
            counts, _ = np.histogram(x, bins, (low, high) if low < high else None)
            found[name] = {"low": low, "high": high, "counts": counts.tolist()}
    return found
