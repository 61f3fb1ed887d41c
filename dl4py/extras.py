"""Packages that only some users need, and what installs them."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

EXTRAS = {
    "matplotlib": "plot",
    "pyarrow": "data",
    "PIL": "data",
    "jsonargparse": "commands",
    "rich": "commands",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "safetensors": "export",
    "tensorboard": "tensorboard",
    "sklearn": "sklearn",
    "uvicorn": "serve",
    "pyspark": "spark",
    "pandas": "spark",
}


def need(module: str, purpose: str) -> Any:
    """The module ``module``, which belongs to one of dl4py's extras.

    ``purpose`` begins the error's sentence: who needs it, and what for.

    Raises:
        ImportError: The package is not here; the message says what installs it.

    >>> need("matplotlib.pyplot", "ROC.plot() draws").__name__
    'matplotlib.pyplot'
    """
    package = module.partition(".")[0]
    with needed(package, purpose):
        importlib.import_module(package)
        return importlib.import_module(module)


@contextlib.contextmanager
def needed(package: str, purpose: str) -> Iterator[None]:
    """Around imports of ``package``: as :func:`need` where it is not here."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # something that the package itself lacks
        raise ImportError(
            f"{purpose} with {package}, which is not installed: "
            f"pip install 'dl4py[{EXTRAS[package]}]'",
            name=package,
        ) from error
