"""Deeplearning4j's activations, losses, updaters and layers as PyTorch objects.

Three ways in:

- ``dl4py.activations``, ``dl4py.losses``, ``dl4py.updaters``, ``dl4py.schedules``,
  ``dl4py.weight_init``, ``dl4py.layers``, ``dl4py.solvers``: single parts for an
  existing torch script;
- ``dl4py.NeuralNetConfiguration.builder()``: a network in DL4J's words, as a module
  or a LightningModule;
- ``dl4py.registry``: names for parts of one's own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dl4py import ops, registry

if TYPE_CHECKING:
    from dl4py import (
        activations,
        config,
        data,
        evaluation,
        io,
        layers,
        losses,
        normalizers,
        schedules,
        solvers,
        stopping,
        updaters,
        weight_init,
        zoo,
    )
    from dl4py.config import (
        ConfigurationError,
        DL4JFormatError,
        InputType,
        MultiLayerConfiguration,
        NeuralNetConfiguration,
    )
    from dl4py.evaluation import Evaluation, RegressionEvaluation
    from dl4py.formats import load
    from dl4py.lightning import StatsCallback
    from dl4py.network import Network
    from dl4py.noise import NativeRandom
    from dl4py.plain import regularize, with_dropout, with_weight_noise
    from dl4py.serializer import restore, save
    from dl4py.translation import from_torch
    from dl4py.tuning import TransferHelper, transfer

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "DL4JFormatError",
    "Evaluation",
    "InputType",
    "MultiLayerConfiguration",
    "NativeRandom",
    "Network",
    "NeuralNetConfiguration",
    "RegressionEvaluation",
    "StatsCallback",
    "TransferHelper",
    "activations",
    "config",
    "data",
    "evaluation",
    "from_torch",
    "io",
    "layers",
    "load",
    "losses",
    "normalizers",
    "ops",
    "registry",
    "regularize",
    "restore",
    "save",
    "schedules",
    "solvers",
    "stopping",
    "transfer",
    "updaters",
    "weight_init",
    "with_dropout",
    "with_weight_noise",
    "zoo",
]

# Imported when they are asked for: who takes an activation needs no layers. Programs of
# torch.export know the ops by name only, so these are there from the start.
_HOMES = {
    "ConfigurationError": "config",
    "DL4JFormatError": "config",
    "Evaluation": "evaluation",
    "InputType": "config",
    "MultiLayerConfiguration": "config",
    "NativeRandom": "noise",
    "Network": "network",
    "NeuralNetConfiguration": "config",
    "RegressionEvaluation": "evaluation",
    "StatsCallback": "training",
    "TransferHelper": "tuning",
    "from_torch": "translation",
    "load": "formats",
    "regularize": "plain",
    "restore": "serializer",
    "save": "serializer",
    "transfer": "tuning",
    "with_dropout": "plain",
    "with_weight_noise": "plain",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name, name)
    try:
        if name.startswith("_"):
            raise ModuleNotFoundError(name=f"dl4py.{name}")
        module = importlib.import_module(f"dl4py.{home}")
    except ModuleNotFoundError as error:
        if error.name != f"dl4py.{name}":
            raise
        message = f"module 'dl4py' has no attribute {name!r}"
        raise AttributeError(message) from None
    return getattr(module, name) if name in _HOMES else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
