"""Which compiled kernels serve a device: shipped in the wheel, built before or now.

``DL4PY_OPS=off`` loads none, ``TORCH_EXTENSIONS_DIR`` moves the cache of built ones,
what else ``build`` obeys chooses the compiler. Without one formulas in Python serve.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import re
import threading
from typing import Any

import torch

from dl4py.ops import build

PREBUILT = build.HERE / "_lib"
STATES = ("prebuilt", "built", "to build", "formulas")

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
            reason = build.reason(error)
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


def state(device: str) -> dict[str, Any]:
    """What serves a device type, or would: one of ``STATES``. Builds and loads nothing.

    ``path`` of the library, how it was ``made``, and what it ``needs`` to be there.
    """
    path, needs, made = None, None, None
    try:
        if _off():
            raise build.BuildError("DL4PY_OPS=off")
        if device == "cuda" and not torch.cuda.is_available():
            raise build.BuildError("needs a card, its driver and torch with CUDA")
        file = name(device)
        path = PREBUILT / file
        if made := build.note(path):
            found = "prebuilt"
        else:
            path = cache() / file
            made = build.note(path)
            found = "built" if made else "to build"
            if not made:
                build.check(device, path)
                needs = "compiled at first use"
    except build.BuildError as error:
        found, path, needs = "formulas", None, str(error)
    return {
        "state": found,
        "path": str(path) if path else None,
        "made": made,
        "needs": needs,
    }


def cache() -> pathlib.Path:
    """The folder of libraries built on this machine for this torch."""
    if not (root := os.environ.get("TORCH_EXTENSIONS_DIR")):
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        if home.startswith("~"):  # neither HOME nor the system knows one
            what = "no home folder to keep kernels in"
            raise build.BuildError(f"{what}: set TORCH_EXTENSIONS_DIR")
        root = os.path.join(home, "torch_extensions")
    return pathlib.Path(root, "dl4py", torch.__version__)


def name(device: str) -> str:
    """File name of a device's library here, for the cards that it serves."""
    return build.library_name(device, _archs() if device == "cuda" else "")


def _archs() -> str:
    """What torch compiles for: ``TORCH_CUDA_ARCH_LIST``, or the cards that are seen."""
    told = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    if told and told != "native":
        _check_serves(told, torch.cuda.get_device_capability())
        return "-" + re.sub(r"[^\w.+]+", "_", told)
    seen = {
        torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())
    }
    return ".".join(f"{major}{minor}" for major, minor in sorted(seen))


def _check_serves(told: str, card: tuple[int, int]) -> None:
    """Code runs on cards of its own generation from its number on, PTX on all later."""
    for entry in re.split(r"[ ;]+", told):
        found = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", entry)
        if not found:
            return  # a generation's name, which torch knows
        arch, only, ptx = (int(found[1]), int(found[2])), found[3], found[4]
        if arch == card or not only and arch <= card and (ptx or arch[0] == card[0]):
            return
    what = f"TORCH_CUDA_ARCH_LIST={told!r} has no code for this card"
    raise build.BuildError(f"{what} ({card[0]}.{card[1]})")


def _off() -> bool:
    return os.environ.get("DL4PY_OPS", "").lower() in ("off", "0", "false")


def _bring(device: str) -> tuple[str, pathlib.Path]:
    """Load the library and say whose it is."""
    if _off():
        raise build.BuildError("DL4PY_OPS=off")
    if device not in build.SUFFIX:
        raise build.BuildError(f"no kernels for {device}")
    load_library: Any = torch.ops.load_library  # untyped
    file = name(device)
    prebuilt = PREBUILT / file
    if build.whole(prebuilt):
        with contextlib.suppress(OSError):  # for another torch
            load_library(prebuilt)
            return "prebuilt", prebuilt
    elif prebuilt.exists():
        build.say(f"{prebuilt} is damaged")
    target = cache() / file
    try:
        if not build.whole(target) and build.build(device, target):
            return "jit", target
        load_library(target)
    except OSError:  # whole, but not for this system
        build.build(device, target, anew=True)
    return "jit", target
