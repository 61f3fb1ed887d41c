"""``dl4py verify``: whether a model computes what was recorded, and where it does not.

Recorded are outputs, and with them, if wanted, what each layer gave: in one ``.npz``
with the keys ``in_0`` …, ``out_0`` …, ``fmask_0`` …, ``lmask_0`` … and
``layers/NAME``, or in files of their own.
"""

from __future__ import annotations

import argparse
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dl4py.commands.found import Found
from dl4py.table import Table

if TYPE_CHECKING:
    from dl4py.network import Network

Array = np.ndarray[Any, Any]
# how far arrays may be off, as a share of the largest entry
TOLERANCES = {"torch.float64": 1e-10, "torch.float32": 1e-5}
LOOSE = 2e-3  # half types
_FILES = {  # option → key in an .npz, and what it is
    "inputs": ("in", "a batch"),
    "outputs": ("out", "what was predicted for it"),
    "features_masks": ("fmask", "masks of the inputs"),
    "labels_masks": ("lmask", "masks of the outputs"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``dl4py verify`` understands."""
    parser.add_argument("model", type=Path, help="a zip, a checkpoint or safetensors")
    for word, (_, what) in _FILES.items():
        parser.add_argument(
            f"--{word.replace('_', '-')}",
            type=Path,
            default=[],
            action="extend",
            nargs="+",
            metavar="x.npy",
            help=f"{what}; of a graph with several one for each, in order",
        )
    parser.add_argument(
        "--layers",
        type=Path,
        metavar="l.npz",
        help="what each layer gave, by its name or number: where the first differs",
    )
    parser.add_argument(
        "--case",
        type=Path,
        metavar="c.npz",
        help="all of these in one file: in_0, out_0, fmask_0, lmask_0, layers/NAME",
    )


@dataclass(frozen=True)
class Compared:
    """An array beside the recorded one.

    Args:
        name, kind: of the layer or output.
        error, allowed: the largest difference, and the largest one allowed.
        at: where the largest one stands.
    """

    name: str
    kind: str
    error: float
    allowed: float
    at: tuple[int, ...]

    @property
    def fits(self) -> bool:
        return self.error <= self.allowed

    def __str__(self) -> str:
        place = f" at [{', '.join(map(str, self.at))}]" if self.error else ""
        return f"off by {self.error:.1e}{place}, allowed {self.allowed:.1e}"


def run(options: argparse.Namespace) -> Found:
    """Compare; the first layer that differs is named."""
    from dl4py.formats import load

    net = load(options.model)
    arrays = _recorded(options)
    outputs, layers = compare(net, arrays)
    off = [one for one in layers if not one.fits]
    worst = max(outputs or layers, key=lambda one: one.error / one.allowed)
    fits = worst.fits and not off
    line = f"{'ok' if fits else 'DIFFERS'}: off by {worst.error:.1e}, allowed "
    line += f"{worst.allowed:.1e}"
    shown: list[str | Table] = [line]
    if off:
        line += f"; first at {off[0].name} ({off[0].kind}): {off[0]}"
        line += f"; {len(off)} of {len(layers)} layers differ"
        shown = [line]
    elif layers and not fits:
        shown = [f"{line}; every layer that was recorded fits"]
    if layers:
        rows = [
            [one.name, one.kind, f"{one.error:.1e}", f"{one.allowed:.1e}", _word(one)]
            for one in layers
        ]
        shown.append(Table(rows, ["layer", "type", "off by", "allowed", ""]))
    data = {
        "fits": fits,
        "error": worst.error,
        "allowed": worst.allowed,
        "first": off[0].name if off else None,
        "outputs": [asdict(one) for one in outputs],
        "layers": [asdict(one) for one in layers],
    }
    return Found(data, shown, int(not fits))


def _word(one: Compared) -> str:
    return "" if one.fits else "DIFFERS"


def compare(
    net: Network, arrays: Mapping[str, Array]
) -> tuple[list[Compared], list[Compared]]:
    """Outputs, and layers in the order of evaluation, beside what was recorded.

    Args:
        net: the network.
        arrays: as in an ``.npz``; see the module.

    Raises:
        ValueError: where arrays are missing, or do not fit the network.
    """
    from dl4py.config.codec import brief

    layers = _by_step(net, arrays)
    names = (net.plan.inputs, net.plan.outputs, net.plan.inputs, net.plan.outputs)
    for (word, (key, _)), expected in zip(_FILES.items(), names, strict=True):
        optional = word not in ("inputs", "outputs") or (key == "out" and layers)
        _check_count(word, key, arrays, expected, bool(optional))
    x, *masks = (_tensors(net, k, arrays) for k in ("in", "fmask", "lmask"))
    try:
        steps: Any = net.feed_forward(x, *masks)
        found = net.output(x, *masks)
    except (ValueError, RuntimeError) as error:
        shapes = ", ".join(
            f"{key} of shape {list(array.shape)}"
            for key, array in arrays.items()
            if re.match("in|fmask|lmask", key)
        )
        raise ValueError(
            f"inputs: {shapes} does not fit the network: {brief(error)}"
        ) from error
    share = TOLERANCES.get(str(_dtype(net)), LOOSE)
    kinds = {node.name: type(node.conf).__name__ for node in net.nodes}
    if not isinstance(steps, dict):
        steps = dict(zip(kinds, steps, strict=True))
    ours = dict(
        zip(
            net.plan.outputs,
            found if isinstance(found, tuple) else (found,),
            strict=True,
        )
    )
    recorded = {n: arrays.get(f"out_{i}") for i, n in enumerate(net.plan.outputs)}
    return (
        [
            _compared(n, kinds[n], ours[n].double().numpy(), y, share, "outputs")
            for n, y in recorded.items()
            if y is not None
        ],
        [
            _compared(n, kinds[n], t.double().numpy(), layers[n], share, "layers")
            for n, t in steps.items()
            if n in layers
        ],
    )


def _check_count(
    word: str,
    key: str,
    arrays: Mapping[str, Array],
    names: Sequence[str],
    optional: bool,
) -> None:
    """Refuse arrays too many, or too few: of masks some may be missing, or all."""
    here = {k for k in arrays if re.fullmatch(rf"{key}_\d+", k)}
    wanted = {f"{key}_{i}" for i in range(len(names))}
    if here <= wanted and (here == wanted or (optional and "mask" in word)):
        return
    if optional and not here:
        return
    option = f"--{word.replace('_', '-')}"
    raise ValueError(
        f"{word}: expected {len(names)} files ({', '.join(names)}), got {len(here)}; "
        f"give {option} once for each, in this order"
    )


def _dtype(net: Network) -> Any:
    import torch

    first = next(net.parameters(), None)
    return torch.float32 if first is None else first.dtype


def _tensors(net: Network, key: str, arrays: Mapping[str, Array]) -> tuple[Any, ...]:
    """The arrays of a key, of inputs or outputs in order; what is missing as None."""
    import torch

    from dl4py.layers import Embedding

    looked_up = {
        name
        for node in net.nodes
        if isinstance(node.layer, Embedding)
        for name in node.step.inputs
    }
    names = net.plan.outputs if key == "lmask" else net.plan.inputs
    found: list[Any] = []
    for i, name in enumerate(names):
        array = arrays.get(f"{key}_{i}")
        x = None if array is None else torch.from_numpy(array)
        indices = key == "in" and name in looked_up
        if x is not None and (x.is_floating_point() or not indices):
            x = x.to(_dtype(net))
        found.append(x)
    return tuple(found)


def _by_step(net: Network, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The layers' arrays by the names of the network's steps."""
    from dl4py.config import ComputationGraphConfiguration

    names = [node.name for node in net.nodes]
    graph = isinstance(net.conf, ComputationGraphConfiguration)
    found = {}
    for key, array in arrays.items():
        if not key.startswith("layers/"):
            continue
        name = key.removeprefix("layers/")
        number = re.fullmatch(r"(\d+)(?:_(.*))?", name, re.DOTALL)
        if name not in names and number:
            # as DL4J's own order counts a chain, and tells a graph's names
            i = int(number[1])
            name = (number[2] or "") if graph else names[i] if i < len(names) else ""
        if name not in names:
            raise ValueError(
                f"layers: {key!r} is none of the network's: {', '.join(names)}"
            )
        found[name] = array
    return found


def _compared(
    name: str, kind: str, ours: Array, recorded: Array, share: float, word: str
) -> Compared:
    if ours.shape != recorded.shape:
        raise ValueError(
            f"{word}: the network gives {ours.shape} at {name} for this batch, "
            f"recorded is {recorded.shape}"
        )
    allowed = share * max(float(np.abs(recorded).max(initial=0.0)), 1e-30)
    gaps = np.abs(ours - recorded)
    gaps[np.isnan(ours) & np.isnan(recorded)] = 0.0
    if not gaps.size:
        return Compared(name, kind, 0.0, allowed, ())
    at = np.unravel_index(
        int(np.where(np.isnan(gaps), np.inf, gaps).argmax()), gaps.shape
    )
    error = float(gaps[at])
    worst = float("inf") if np.isnan(error) else error
    return Compared(name, kind, worst, allowed, tuple(map(int, at)))


def _recorded(options: argparse.Namespace) -> dict[str, Array]:
    """All arrays, by the keys of an ``.npz``."""
    found: dict[str, Array] = {}
    if options.case is not None:
        known = re.compile(r"(in|out|fmask|lmask)_\d+|layers/.*", re.DOTALL)
        case = _archive("case", options.case)
        found = {key: a for key, a in case.items() if known.fullmatch(key)}
    for word, (key, _) in _FILES.items():
        files: Sequence[Path] = getattr(options, word)
        for i, file in enumerate(files):
            found[f"{key}_{i}"] = _numbers(word, file)
    if options.layers is not None:
        layers = _archive("layers", options.layers)
        for key, array in layers.items():
            found[f"layers/{key.removeprefix('layers/')}"] = array
    return found


def _archive(word: str, file: Path) -> dict[str, Array]:
    content = _loaded(word, file)
    if isinstance(content, np.ndarray):
        raise ValueError(f"{word}: {file} must be an .npz with arrays by name")
    with content:
        return {
            key: _real(content[key], f"{word}: {os.fspath(file)}: {key}")
            for key in content.files
            if content[key].dtype.kind in "biufc"
        }


def _numbers(word: str, file: Path) -> Array:
    array = _loaded(word, file)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{word}: {file} must hold one array of real numbers (.npy)")
    return _real(array, f"{word}: {os.fspath(file)}")


def _loaded(word: str, file: Path) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{word}: {file}: expected numbers of NumPy's, an .npy or .npz file"
        ) from error


def _real(array: Array, place: str) -> Array:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{place} must hold one array of real numbers (.npy)")
    return array.astype(array.dtype.newbyteorder("="))
