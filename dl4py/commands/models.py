"""The model that a command is given: a file of a network, or of what one is made of."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from dl4py.config import NeuralNetConfiguration
from dl4py.formats import load
from dl4py.io.archive import CONFIGURATION
from dl4py.network import Network

TEXTS = (".yaml", ".yml", ".json")


def opened(path: str | Path, dl4j_exact: bool | None = None) -> Network:
    """A network from a model file of any kind; from a configuration a new one.

    Args:
        path: of the file.
        dl4j_exact: whether DL4J's faults are reproduced too; default: as the file says,
            and no for a configuration.

    Raises:
        DL4JFormatError, ConfigurationError: naming the file and the place in it.
    """
    if Path(path).suffix.lower() in TEXTS:
        net: Network = configured(path).module(bool(dl4j_exact))
        return net
    return load(path, dl4j_exact=dl4j_exact)


def is_zip(path: str | Path) -> bool:
    """Whether a file is a model zip of DL4J's, checkpoints being zips as well."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return CONFIGURATION in file.namelist()


def configured(path: str | Path) -> Any:
    """The configuration in a file: a builder's words or DL4J's keys, YAML or JSON.

    The file of ``dl4py fit`` counts too, by its ``model.network``.
    """
    from dl4py.config import yaml  # takes time to import

    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"))  # JSON is YAML
        inside = (content.get("model") or {}).get("network")
        return NeuralNetConfiguration.from_words(inside or content)
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from error
