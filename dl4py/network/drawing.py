"""Where a network's random numbers come from, and how they are saved with it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import Tensor, nn

from dl4py.layers import Layer, Vertex
from dl4py.noise import NativeRandom, Noise

STATE = "noise"  # the key in a network's state dict


def share(network: nn.Module, noise: Noise) -> None:
    """Let every module of a network that draws draw from ``noise``."""
    for module in network.modules():
        if module is not network and hasattr(module, "noise"):
            # by name: layers and activations draw, and share no base that says so
            setattr(module, "noise", noise)  # noqa: B010


def draw(
    layers: Mapping[str, Layer | Vertex], added: Mapping[str, Any], noise: Noise
) -> None:
    """Give all parameters their first values, in DL4J's order.

    Args:
        layers: the modules by name, in the order of flat vectors.
        added: a graph's vertices, as they were added: DL4J's order of draws.
        noise: where they come from.
    """
    for name in dict.fromkeys([*(added if noise.native else ()), *layers]):
        layers[name].draw(noise)


def keep(network: Any) -> None:
    """Let state dicts hold the state of ND4J's generator, where it is the network's."""
    network.register_state_dict_post_hook(_save)
    network.register_load_state_dict_pre_hook(_load)


def _save(
    network: Any, state: MutableMapping[str, Tensor], prefix: str, metadata: Any
) -> None:
    if isinstance(network.noise, NativeRandom):
        state[prefix + STATE] = network.noise.get_state()


def _load(
    network: Any, state: MutableMapping[str, Tensor], prefix: str, *rest: Any
) -> None:
    found = state.pop(prefix + STATE, None)
    if found is None:
        return
    if isinstance(network.noise, NativeRandom):
        network.noise.set_state(found)
    else:
        network.set_noise(NativeRandom.from_state(found))
