"""From a configuration to a network."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

import torch

from dl4py.config.codec import brief
from dl4py.config.settings import NetworkConfiguration
from dl4py.layers import Scored, module_of
from dl4py.network.network import Network
from dl4py.noise import Noise, Source

DTYPES = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "HALF": torch.float16,
    "BFLOAT16": torch.bfloat16,
}


def build(
    conf: NetworkConfiguration,
    dl4j_exact: bool = False,
    draw: bool = True,
    noise: Source = None,
) -> Network:
    """The network that ``conf`` describes, its parameters drawn from ``conf.seed``.

    Args:
        conf: what ``NeuralNetConfiguration.builder()`` builds.
        dl4j_exact: whether DL4J's faults are reproduced too.
        draw: whether parameters get values; else the network is on the meta device and
            takes no memory until ``to_empty(device=...)``.
        noise: where all random numbers come from; ``None`` is torch's generators.
    """
    Noise.of(noise)  # refuses what is none
    if not isinstance(dl4j_exact, bool):
        raise TypeError(f"dl4j_exact must be True or False, got {dl4j_exact!r}")
    modules = []
    for i, step in enumerate(conf.plan().steps):
        try:
            with contextlib.nullcontext() if draw else torch.device("meta"):
                module = module_of(step.conf).from_config(step.conf, dl4j_exact)
        except RuntimeError as error:
            if draw:
                raise
            # on the meta device: sizes whose product is beyond any memory
            kind = type(step.conf).__name__
            raise ValueError(f"{step.name} ({kind}): {brief(error)}") from error
        if isinstance(module, Scored) and conf.divides(i, step.name):
            module.always_divides = True
        modules.append(module.to(DTYPES[conf.data_type]))
    network = Network(conf, modules, dl4j_exact)
    if draw:
        network.reset_parameters(noise)
    if noise is not None:
        network.set_noise(noise)
    return network


def lightning(
    conf: NetworkConfiguration, dl4j_exact: bool = False, package: str | None = None
) -> Any:
    """The network that ``conf`` describes as a LightningModule.

    Args:
        conf, dl4j_exact: as in :func:`build`.
        package: ``"lightning"`` or ``"pytorch_lightning"``; default: the one that is
            imported already, else ``"lightning"``.
    """
    return trainers(package).Network(config=conf, dl4j_exact=dl4j_exact)


def wrap(network: Network, package: str | None = None) -> Any:
    """An existing network as a LightningModule; ``package`` as in :func:`lightning`."""
    return trainers(package).Network(config=network)


def trainers(package: str | None = None) -> Any:
    """dl4py's classes for Lightning; ``package`` as in :func:`lightning`."""
    # by name, since the trainers' floor is above this one
    known = ("lightning", "pytorch_lightning")
    if package is not None and package not in known:
        raise ValueError(f"package must be one of {known}, got {package!r}")
    imported = [name for name in known if sys.modules.get(name)]
    chosen = package or (imported[0] if imported else "lightning")
    return importlib.import_module(f"dl4py.{chosen}")
