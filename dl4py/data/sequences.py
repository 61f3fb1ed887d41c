"""Sequences of unequal length as arrays with masks, in DL4J's layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dl4py.data.columns import Array, runs
from dl4py.data.examples import Arrays

Steps = tuple[Array, Array | None]  # [time, features], [time, labels]


def grouped(
    parts: Sequence[tuple[Array, Array | None, list[str] | None]],
) -> list[Steps]:
    """The rows of a table by sequence, in the order in which these begin."""
    found: dict[str, tuple[list[Array], list[Array]]] = {}
    for x, y, keys in parts:
        for key, rows in runs(keys or []):
            xs, ys = found.setdefault(key, ([], []))
            xs.append(x[rows])
            if y is not None:
                ys.append(y[rows])
    return [
        (np.concatenate(xs), np.concatenate(ys) if ys else None)
        for xs, ys in found.values()
    ]


def padded(
    sequences: Sequence[Steps], align: str, names: Sequence[str], **about: Any
) -> Arrays:
    """Sequences ``[n, columns, time]``, with masks ``[n, time]`` that are 0 on padding.

    As in DL4J, ``start`` lays everything at step 0; with ``end`` the features and the
    labels of an example end together, at the last step of the longer of the two.

    Args:
        sequences: features, and labels if there are any, of each example.
        align: ``equal``, ``start`` or ``end``.
        names: of the sequences, for errors.
        about: further arguments of :class:`Arrays`.

    DL4J: SequenceRecordReaderDataSetIterator.AlignmentMode
    """
    for (x, y), name in zip(sequences, names, strict=True):
        if not len(x) or (y is not None and not len(y)):
            raise ValueError(f"{name}: a sequence without steps")
    longest = [max(len(x), 0 if y is None else len(y)) for x, y in sequences]
    steps = max(longest)
    if align == "equal":
        sizes = [size for pair in sequences for size in map(_length, pair) if size]
        if set(sizes) != {steps}:
            odd = next(i for i, pair in enumerate(sequences) if _odd(pair, steps))
            raise ValueError(
                f"{names[odd]}: expected {steps} steps as the others have, got "
                f"{' and '.join(str(n) for n in map(_length, sequences[odd]) if n)}; "
                "sequences of unequal length need align 'start' or 'end'"
            )
    sides: list[Any] = []
    for side in (0, 1):
        parts: list[Any] = [pair[side] for pair in sequences]
        if any(part is None for part in parts):
            sides.append((None, None))
            continue
        width = parts[0].shape[1]
        array = np.zeros((len(parts), width, steps), parts[0].dtype)
        mask = np.zeros((len(parts), steps), array.dtype)
        for i, part in enumerate(parts):
            size = _length(part)
            start = longest[i] - size if align == "end" else 0
            array[i, :, start : start + size] = part.T
            mask[i, start : start + size] = 1
        sides.append((torch.from_numpy(array), torch.from_numpy(mask)))
    (x, x_mask), (y, y_mask) = sides
    return Arrays.of(
        x, y, features_mask=x_mask, labels_mask=y_mask, padded=True, **about
    )


def _length(part: Array | None) -> int:
    return 0 if part is None else len(part)


def _odd(pair: Steps, steps: int) -> bool:
    return any(_length(part) not in (0, steps) for part in pair)
