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

from dl4py import (
    activations,
    config,
    layers,
    losses,
    ops,
    registry,
    schedules,
    solvers,
    updaters,
    weight_init,
)
from dl4py.config import (
    ConfigurationError,
    DL4JFormatError,
    InputType,
    MultiLayerConfiguration,
    NeuralNetConfiguration,
)
from dl4py.network import Network

if TYPE_CHECKING:
    from dl4py import data, evaluation, io, normalizers
    from dl4py.evaluation import Evaluation, RegressionEvaluation
    from dl4py.serializer import restore, save
    from dl4py.translation import from_torch

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "DL4JFormatError",
    "Evaluation",
    "InputType",
    "MultiLayerConfiguration",
    "Network",
    "NeuralNetConfiguration",
    "RegressionEvaluation",
    "activations",
    "config",
    "data",
    "evaluation",
    "from_torch",
    "io",
    "layers",
    "losses",
    "normalizers",
    "ops",
    "registry",
    "restore",
    "save",
    "schedules",
    "solvers",
    "updaters",
    "weight_init",
]

_LAZY = {  # slow to import, or seldom needed
    "data": "dl4py.data",
    "evaluation": "dl4py.evaluation",
    "from_torch": "dl4py.translation",
    "io": "dl4py.io",
    "normalizers": "dl4py.normalizers",
    "restore": "dl4py.serializer",
    "save": "dl4py.serializer",
    "Evaluation": "dl4py.evaluation",
    "RegressionEvaluation": "dl4py.evaluation",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'dl4py' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if module.__name__.endswith(f".{name}") else getattr(module, name)
