"""Numbers computed by the real DL4J, as plain Python objects.

``tests/data/golden`` holds compact copies of the golden files, so that a clone tests
itself. ``python -m tests.golden`` makes the copies anew from the folder
``DL4PY_SHARED`` points at.
"""

from __future__ import annotations

import functools
import json
import lzma
import os
import pathlib
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent
DATA = HERE / "data" / "golden"
SHARED = pathlib.Path(os.environ.get("DL4PY_SHARED", HERE.parent.parent / "shared"))

# file → the parts kept (None: all)
FILES: dict[str, tuple[str, ...] | None] = {
    "activations": None,
    "activations_float": None,
    "losses": None,
    "updaters": None,
    "schedules": None,
    "solvers": None,
    "evaluation": None,
    "normalizers": None,
    "random": None,
}
_FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}


def _revive(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _revive(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_revive(v) for v in value]
    return _FLOATS.get(value, value) if isinstance(value, str) else value


@functools.cache
def load(name: str) -> Any:
    """A golden file, with ``"NaN"`` and ``"Infinity"`` as floats."""
    return _revive(json.loads(lzma.decompress((DATA / f"{name}.json.xz").read_bytes())))


def make() -> None:
    """Write the copies anew from the whole files."""
    DATA.mkdir(parents=True, exist_ok=True)
    for name, parts in FILES.items():
        content = json.loads((SHARED / "golden" / f"{name}.json").read_text())
        if parts is not None:
            content = {part: content[part] for part in parts}
        text = json.dumps(content, separators=(",", ":")).encode()
        (DATA / f"{name}.json.xz").write_bytes(lzma.compress(text, preset=9))


if __name__ == "__main__":
    sys.exit(make())
