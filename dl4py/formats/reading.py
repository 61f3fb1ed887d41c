"""A network from a model file of any kind."""

from __future__ import annotations

import dataclasses
import os
import zipfile

import torch

from dl4py.config.codec import DL4JFormatError, brief, replace
from dl4py.config.settings import data_type
from dl4py.formats import checkpoint, tensors
from dl4py.io.archive import CONFIGURATION
from dl4py.network import Network
from dl4py.network.build import DTYPES
from dl4py.serializer import restore


def load(
    path: str | os.PathLike[str],
    dtype: torch.dtype | str | None = None,
    dl4j_exact: bool | None = None,
) -> Network:
    """A network from a model file: DL4J's zip, a Lightning checkpoint, safetensors.

    What kind of file it is its content says. Parameters, running statistics, the
    updaters' state, the counters and the normalizer come along. Nothing is executed:
    checkpoints are read by torch's safe loader.

    Args:
        path: of the file.
        dtype: of the network; default: that of the file's parameters.
        dl4j_exact: whether DL4J's faults are reproduced too; default: as the file says,
            which for a zip of DL4J's is yes.

    Returns:
        the network in eval mode; ``net.normalizer`` is what scales raw features.

    Raises:
        DL4JFormatError: where the file is none of these, or damaged.
        ImportError: for safetensors without the extra ``export``.

    Example:
        >>> import os, tempfile
        >>> import dl4py
        >>> from dl4py.config import NeuralNetConfiguration, Output
        >>> chain = NeuralNetConfiguration.builder().layer(Output(n_in=4, n_out=3))
        >>> path = os.path.join(tempfile.mkdtemp(), "model.zip")
        >>> dl4py.save(chain.build().module(dl4j_exact=True), path)
        >>> dl4py.load(path).num_params()
        15
    """
    if dl4j_exact is not None and not isinstance(dl4j_exact, bool):
        raise TypeError(
            f"load(dl4j_exact=...): expected True, False or None, got {dl4j_exact!r}"
        )
    try:
        wanted = None if dtype is None else data_type(dtype)
    except ValueError as error:
        raise ValueError(f"load(dtype=...): {error}") from None
    name = os.fspath(path)
    where = os.path.basename(name)
    kind = kind_of(name)
    if kind == "zip":
        return restore(name, wanted, dl4j_exact is None or dl4j_exact)
    read = tensors.read if kind == "safetensors" else checkpoint.read
    parts = read(name, where)
    if dl4j_exact is not None:
        parts = dataclasses.replace(parts, dl4j_exact=dl4j_exact)
    net = parts.network(where)
    if wanted is not None:
        net.to(DTYPES[wanted])
        net.conf = replace(net.conf, data_type=wanted)
    return net


def kind_of(path: str) -> str:
    """``"zip"``, ``"ckpt"`` or ``"safetensors"``, by the file's content."""
    with open(path, "rb") as file:
        head = file.read(9)
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, ValueError, OSError, RuntimeError) as error:
            raise DL4JFormatError(
                f"{os.path.basename(path)}: not a zip file: {brief(error)}"
            ) from error
        pickled = any(n.endswith("/data.pkl") for n in names)
        return "ckpt" if pickled and CONFIGURATION not in names else "zip"
    if head[8:] == b"{":
        return "safetensors"
    raise DL4JFormatError(
        f"{os.path.basename(path)}: expected a zip of DL4J's, a Lightning checkpoint "
        "or safetensors"
    )
