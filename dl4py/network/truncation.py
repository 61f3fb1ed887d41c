"""Truncated back-propagation through time: a batch of series in windows of time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from torch import Tensor

from dl4py.layers import Scored
from dl4py.layers.output import ScoredSeries
from dl4py.network.batch import Batch, Tensors
from dl4py.network.door import Door

Window = tuple[Tensors, Tensors, Tensors, Tensors]


def windows(
    batch: Batch, door: Door, outputs: Sequence[Scored], length: int, exact: bool
) -> Iterator[Window]:
    """(inputs, labels, features masks, labels masks) of every window of ``length``.

    What is no series (rows beside a series, in graphs) is in every window whole. The
    last window is as long as what is left.

    Args:
        batch: checked by the door.
        door: knows which axis of an input is time.
        outputs: the layers whose labels they are.
        length: time steps of a window.
        exact: as DL4J, which lets a window be longer than the series and takes the
            features of NWC series for time: there is one window where sizes of inputs
            and labels are equal, else none, with a warning.

    Raises:
        ValueError: where there is no series, where lengths differ, and where a mask is
            not as long as its series.
    """
    inputs = [
        _of_input(door, name, x)
        for name, x in zip(door.plan.inputs, batch.inputs, strict=True)
    ]
    labels = [
        _of_labels(layer, y) for layer, y in zip(outputs, batch.labels, strict=True)
    ]
    tensors, axes = (*batch.inputs, *batch.labels), (*inputs, *labels)
    lengths = [
        t.shape[axis] for t, axis in zip(tensors, axes, strict=True) if axis is not None
    ]
    if not lengths or (door.chain and None in axes):
        shapes = [str(list(t.shape)) for t in tensors]
        raise ValueError(
            "truncated back-propagation: expected x and labels that are series, "
            f"[n, size, time], got {' and '.join(shapes)}; use "
            "backprop_type('Standard') for what has no time"
        )
    time = lengths[0]
    if len(set(lengths)) > 1:
        raise ValueError(
            "truncated back-propagation: expected x and labels of one length, got "
            f"{lengths} time steps; pad the shorter ones and mask what is padded"
        )
    if time < length and not exact:
        raise ValueError(
            f"tbptt_fwd_length: windows of {length} steps are longer than the series "
            f"of {time}; shorten them, or use backprop_type('Standard')"
        )
    pairs_of_axes = zip(tensors, axes, strict=True)
    series = [(t, axis) for t, axis in pairs_of_axes if axis and t.dim() == 3]
    if exact and any(axis == 1 for _, axis in series):
        sizes = [t.shape[2] for t, _ in series]
        if len(set(sizes)) > 1:
            warnings.warn(
                "truncated back-propagation: DL4J takes the features of NWC series for "
                f"time, and trains nothing where their numbers differ, {sizes}; build "
                "with dl4j_exact=False, or use NCW series",
                stacklevel=2,
            )
            return
        length = time if sizes[0] <= length else length
    features_axes = [None if axis is None else 1 for axis in inputs]
    pairs = zip(labels, batch.labels_masks, batch.labels, strict=True)
    labels_axes = [
        axis if axis is None or m is None or m.dim() == y.dim() else 1
        for axis, m, y in pairs
    ]
    _check(batch.labels_masks, labels_axes, time)
    for start in range(0, time, length):
        size = min(length, time - start)
        yield (
            _cut(batch.inputs, inputs, start, size),
            _cut(batch.labels, labels, start, size),
            _cut(batch.features_masks, features_axes, start, size),
            _cut(batch.labels_masks, labels_axes, start, size),
        )


def _of_input(door: Door, name: str, x: Tensor) -> int | None:
    """The axis of an input that is time, if it has one."""
    if x.dim() == 3:
        return 1 if door.layout(name, x) == "NWC" else 2
    return 1 if x.dim() == 2 and door.takes(name, ("n", "time")) else None


def _of_labels(layer: Scored, labels: Tensor) -> int | None:
    """The axis of an output's labels that is time, if it has one."""
    if not isinstance(layer, ScoredSeries) or labels.dim() not in (2, 3):
        return None
    return 1 if labels.dim() == 2 or layer.channels_last else 2


def _check(masks: Tensors, axes: Sequence[int | None], time: int) -> None:
    for mask, axis in zip(masks, axes, strict=True):
        if mask is None or axis is None:
            continue
        if mask.dim() <= axis or mask.shape[axis] != time:
            raise ValueError(
                "labels_mask: expected one entry per example and time step, "
                f"[n, {time}], got {list(mask.shape)}"
            )


def _cut(
    tensors: Sequence[Tensor | None],
    axes: Sequence[int | None],
    start: int,
    size: int,
) -> tuple[Tensor | None, ...]:
    return tuple(
        t if t is None or axis is None else t.narrow(axis, start, size)
        for t, axis in zip(tensors, axes, strict=True)
    )
