"""Networks as safetensors: every tensor by its name, all else in the metadata.

Tensors are the network's state dict, and under ``optimizer.`` the updaters' state. In
the metadata stand ``configuration`` (DL4J's JSON), ``dl4j_exact``, ``optimizer`` (its
state dict, a tensor in it by its name), ``normalizer`` (``normalizer.bin``, base64) and
``classes`` (their names as JSON).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import IO, Any

from torch import Tensor

from dl4py.config.codec import DL4JFormatError, brief
from dl4py.extras import need
from dl4py.formats.parts import Parts
from dl4py.network import Network

OPTIMIZER = "optimizer."
_NEEDS = "dl4py reads and writes .safetensors"


def read(path: str, where: str) -> Parts:
    """What a file holds."""
    safetensors = need("safetensors", _NEEDS)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError:
        raise
    except Exception as error:
        raise DL4JFormatError(f"{where}: not safetensors: {brief(error)}") from error
    if "configuration" not in about:
        raise DL4JFormatError(
            f"{where}: no configuration in its metadata: not written by dl4py"
        )
    optimizer = about.get("optimizer")
    try:
        return Parts(
            json.loads(about["configuration"]),
            json.loads(about.get("dl4j_exact", "false")) is True,
            {k: t for k, t in tensors.items() if not k.startswith(OPTIMIZER)},
            None if optimizer is None else _joined(json.loads(optimizer), tensors),
            base64.b64decode(about["normalizer"], validate=True)
            if "normalizer" in about
            else None,
            about.get("classes"),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DL4JFormatError(f"{where}: its metadata: {brief(error)}") from error


def write(net: Network, file: IO[bytes]) -> None:
    """The network in a file, all of it."""
    need("safetensors", _NEEDS)
    torch = need("safetensors.torch", _NEEDS)
    parts = Parts.of(net)
    tensors = dict(parts.parameters)
    optimizer = _apart(parts.optimizer, OPTIMIZER[:-1], tensors)
    about = {
        "format": "pt",
        "configuration": json.dumps(parts.conf),
        "dl4j_exact": json.dumps(parts.dl4j_exact),
        "optimizer": json.dumps(optimizer),
    }
    if parts.normalizer is not None:
        about["normalizer"] = base64.b64encode(parts.normalizer).decode()
    if parts.classes is not None:
        about["classes"] = parts.classes
    # copies: what shares memory, or has a layout of its own, is refused
    own = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
    file.write(torch.save(own, about))


def _apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON; its tensors go into ``tensors`` and leave their names."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {
            "dict": [[k, _apart(v, f"{name}.{k}", tensors)] for k, v in value.items()]
        }
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        parts = [_apart(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
        return {kind: parts}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{name}: a {type(value).__name__}, which .safetensors has no place for; "
        "write a .ckpt"
    )


def _joined(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What :func:`_apart` took apart."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: _joined(v, tensors) for k, v in content}
    parts = [_joined(v, tensors) for v in content]
    return parts if kind == "list" else tuple(parts)
