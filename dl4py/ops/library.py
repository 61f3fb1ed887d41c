"""Which compiled kernels serve a device: shipped in the wheel, built before or now.

``DL4PY_OPS=off`` loads none, ``TORCH_EXTENSIONS_DIR`` moves the cache of built ones,
``CXX`` and ``CUDA_HOME`` choose the compiler. Without one the formulas in Python serve.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import threading
from typing import Any

import torch

from dl4py.ops import build

PREBUILT = build.HERE / "_lib"

_log = logging.getLogger("dl4py")
_lock = threading.Lock()
_origin: dict[str, str] = {}


def load(device: str) -> bool:
    """Get the kernels of a device type; true for the one call that brought them."""
    if device in _origin:
        return False
    with _lock:
        if device in _origin:
            return False
        try:
            found = _bring(device)
        except (build.BuildError, OSError) as error:
            reason = error.__cause__ or error  # torch hides what the loader said
            _origin[device] = f"fallback: {reason}"
            if device in build.SUFFIX and not _off():
                _log.warning("dl4py computes %s ops by formula: %s", device, reason)
            return False
        _origin[device] = ": ".join(map(str, found))
        return True


def origin(device: str = "cpu") -> str:
    """``prebuilt: path``, ``jit: path`` or ``fallback: reason``."""
    load(device)
    return _origin[device]


def compiled(device: str) -> bool:
    """Whether kernels of a library serve a device type, not the formulas."""
    return not origin(device).startswith("fallback")


def cache() -> pathlib.Path:
    """The folder of libraries built on this machine for this torch."""
    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(root or pathlib.Path(home, "torch_extensions"))
    return folder / "dl4py" / torch.__version__


def _off() -> bool:
    return os.environ.get("DL4PY_OPS", "").lower() in ("off", "0", "false")


def _bring(device: str) -> tuple[str, pathlib.Path]:
    """Load the library and say whose it is."""
    if _off():
        raise build.BuildError("DL4PY_OPS=off")
    if device not in build.SUFFIX:
        raise build.BuildError(f"no kernels for {device}")
    load_library: Any = torch.ops.load_library  # untyped
    arch = ""
    if device == "cuda":
        arch = "".join(map(str, torch.cuda.get_device_capability()))
    name = build.library_name(device, arch)
    prebuilt, target = PREBUILT / name, cache() / name
    with contextlib.suppress(OSError):  # not there, or for another torch
        load_library(prebuilt)
        return "prebuilt", prebuilt
    try:
        if not build.whole(target):
            build.build(device, target, arch)
        load_library(target)
    except OSError:  # whole, but not for this system
        build.build(device, target, arch, anew=True)
        load_library(target)
    return "jit", target
