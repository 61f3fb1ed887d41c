"""What is trained behind a layer's tensor: itself, or what it is computed from.

``torch.nn.utils.prune``, ``weight_norm``, ``spectral_norm`` and everything in
``torch.nn.utils.parametrize`` replace a parameter by others. Elsewhere in dl4py a
tensor of a layer is its present value; what an optimizer moves are its leaves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def leaves(layer: nn.Module, name: str) -> dict[str, Tensor]:
    """The parameters (or the statistic) behind ``layer.name``, by their names.

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    >>> {k: list(p.shape) for k, p in leaves(layer, "weight").items()}
    {'original0': [2, 1], 'original1': [2, 3]}
    """
    plain = own(layer, name)
    if plain is not None:
        return {name: plain}
    if parametrize.is_parametrized(layer, name):
        inside: Any = layer.parametrizations
        return dict(inside[name].named_parameters())
    # torch's older ways keep name_orig, or name_g and name_v, and a hook
    known = layer.named_parameters(recurse=False)
    return {key: p for key, p in known if key.startswith(f"{name}_")}


def own(layer: nn.Module, name: str) -> Tensor | None:
    """The parameter or statistic ``name``, unless it is computed from others."""
    found = layer._parameters.get(name)
    return layer._buffers.get(name) if found is None else found


def value(layer: nn.Module, name: str) -> Tensor:
    """``layer.name`` from its present leaves, with graph where gradients are on."""
    plain = own(layer, name)
    if plain is not None:
        return plain
    inside: Any = getattr(layer, "parametrizations", {})
    modules = [layer, *(inside[name].modules() if name in inside else ())]
    flags = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False  # in training spectral_norm moves on
        recompute(layer, name)
        tensor: Tensor = getattr(layer, name)
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
    return tensor


def recompute(layer: nn.Module, name: str) -> None:
    """What torch's older ways do before ``layer(...)``."""
    for hook in layer._forward_pre_hooks.values():
        if name in (getattr(hook, "_tensor_name", None), getattr(hook, "name", None)):
            hook(layer, ())


def write(layer: nn.Module, name: str, new: Tensor) -> None:
    """Make ``layer.name`` equal ``new``; of a pruned one what its mask lets through.

    Raises:
        ValueError: where its leaves do not follow from its value.
    """
    plain = own(layer, name)
    with torch.no_grad():
        if plain is not None:
            plain.copy_(new)
            return
        found = leaves(layer, name)
        if hasattr(layer, f"{name}_mask") and list(found) == [f"{name}_orig"]:
            found[f"{name}_orig"].copy_(new)
            recompute(layer, name)
            return
        try:
            if parametrize.is_parametrized(layer, name):
                setattr(layer, name, new)
                return
        except (NotImplementedError, RuntimeError) as error:
            reason: Exception | None = error
        else:
            reason = None
    raise ValueError(
        f"{name} of {type(layer).__name__} is computed from {', '.join(found)}, which "
        "do not follow from its value; make it a parameter again first, e.g. with "
        "torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm"
    ) from reason
