"""The door of a network: what a caller gives becomes one checked batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Given = Any  # a tensor; for several inputs or outputs a tuple or a dict by name
Tensors = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Batch:
    """What goes through a network at once; one entry per input or output.

    Args:
        inputs: the arrays at the network's inputs.
        labels: what is compared with the outputs; empty where nothing is.
        features_masks, labels_masks: masks, ``None`` where there is none.
    """

    inputs: tuple[Tensor, ...]
    labels: tuple[Tensor, ...] = ()
    features_masks: Tensors = ()
    labels_masks: Tensors = ()

    @classmethod
    def of(
        cls,
        inputs: Sequence[str],
        outputs: Sequence[str],
        x: Given,
        labels: Given = None,
        features_mask: Given = None,
        labels_mask: Given = None,
        scored: bool = False,
    ) -> Batch:
        """The batch that a caller gave to a network with such inputs and outputs.

        Args:
            scored: whether there must be labels.
        """
        known = labels is not None or scored
        return cls(
            inputs=_whole("x", inputs, x),
            labels=_whole("labels", outputs, labels) if known else (),
            features_masks=_each("features_mask", inputs, features_mask),
            labels_masks=_each("labels_mask", outputs, labels_mask),
        )


ARGUMENTS = ("x", "labels", "features_mask", "labels_mask")


def unpacked(batch: Any, labels: bool = True) -> tuple[Any, ...]:
    """A loader's ``batch`` as ``(x, labels)``, with or without the two masks.

    Args:
        batch: this as a tuple, a list, or a dict by the names of these four.
        labels: whether a dict without labels is refused.

    >>> unpacked({"labels": 2, "x": 1}), unpacked({"x": 1, "features_mask": 3}, False)
    ((1, 2), (1, None, 3, None))
    """
    if isinstance(batch, (tuple, list)) and 2 <= len(batch) <= 4:
        return tuple(batch)
    needed = ARGUMENTS[: 1 + labels]
    if isinstance(batch, Mapping) and set(needed) <= set(batch) <= set(ARGUMENTS):
        x, y, *masks = (batch.get(name) for name in ARGUMENTS)
        return (x, y, *masks) if any(m is not None for m in masks) else (x, y)
    raise TypeError(
        "batch: expected (x, labels) or (x, labels, features_mask, labels_mask), or a "
        f"dict with these keys, got {_came(batch)}"
    )


def _came(value: Any) -> str:
    """What came instead of a tensor or a batch, and the way out."""
    kind = type(value)
    name = kind.__name__
    if kind.__module__ == "numpy":
        return f"numpy.{name} of shape {list(value.shape)}: use torch.from_numpy(...)"
    if isinstance(value, Tensor):
        return f"one tensor of shape {list(value.shape)}: pair it with its labels"
    if isinstance(value, Mapping):
        return f"a {name} with keys {list(value)[:6]}: pass its tensors one by one"
    if isinstance(value, (tuple, list)):
        if any(isinstance(part, Tensor) for part in value):
            return f"a {name} of {len(value)}: pass the tensor that is meant, batch[0]"
        return f"a {name} of {len(value)}: use torch.tensor(...)"
    if value is None:
        return "None"
    return f"{kind.__module__}.{name}: make it a tensor with torch.as_tensor(...)"


def _each(argument: str, names: Sequence[str], given: Given) -> Tensors:
    """One entry per name."""
    if given is None:
        return (None,) * len(names)
    found: tuple[Any, ...]
    by_name = isinstance(given, Mapping)
    if by_name and all(key in names for key in given):
        found = tuple(given.get(name) for name in names)
    elif by_name and len(names) > 1:
        odd = next(key for key in given if key not in names)
        raise ValueError(
            f"{argument}: expected the names {', '.join(names)}, got {odd!r}"
        )
    elif isinstance(given, (tuple, list)) and all(
        part is None or isinstance(part, Tensor) for part in given
    ):
        if len(given) != len(names):
            out = "; pass the tensor that is meant, batch[0]" * (len(names) == 1)
            raise ValueError(
                f"{argument}: expected {_count(names)}, got a {type(given).__name__} "
                f"of {len(given)}{out}"
            )
        found = tuple(given)
    elif len(names) == 1:
        found = (given,)
    else:
        raise ValueError(
            f"{argument}: expected {_count(names)} in a tuple or a dict by name, got "
            f"{_came(given)}"
        )
    for value in found:
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{argument}: expected a torch.Tensor, got {_came(value)}")
    return found


def _count(names: Sequence[str]) -> str:
    if len(names) == 1:
        return "one tensor"
    return f"{len(names)} tensors ({', '.join(names)})"


def _whole(argument: str, names: Sequence[str], given: Given) -> tuple[Tensor, ...]:
    """As :func:`_each`, where nothing may be missing."""
    if given is None:
        wanted = "a torch.Tensor" if len(names) == 1 else _count(names)
        raise TypeError(f"{argument}: expected {wanted}, got None")
    whole = []
    for name, value in zip(names, _each(argument, names, given), strict=True):
        if value is None:
            raise ValueError(f"{argument}: nothing was given for {name!r}")
        whole.append(value)
    return tuple(whole)
