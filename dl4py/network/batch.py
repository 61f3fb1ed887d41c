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
    ) -> Batch:
        """The batch that a caller gave to a network with such inputs and outputs."""
        return cls(
            inputs=_whole("input", inputs, x),
            labels=() if labels is None else _whole("labels", outputs, labels),
            features_masks=_each("features_mask", inputs, features_mask),
            labels_masks=_each("labels_mask", outputs, labels_mask),
        )


def _each(argument: str, names: Sequence[str], given: Given) -> Tensors:
    """One entry per name."""
    if given is None:
        return (None,) * len(names)
    if isinstance(given, Mapping):
        odd = [k for k in given if k not in names]
        if odd:
            raise ValueError(
                f"{argument}: expected the names {', '.join(names)}, got {odd[0]!r}"
            )
        return tuple(given.get(name) for name in names)
    if isinstance(given, (tuple, list)):
        if len(given) != len(names):
            raise ValueError(
                f"{argument}: expected {_count(names)}, got a {type(given).__name__} "
                f"of {len(given)}"
            )
        found = tuple(given)
    elif len(names) == 1:
        found = (given,)
    else:
        raise ValueError(
            f"{argument}: expected {_count(names)} in a tuple or a dict by name, got "
            f"{type(given).__name__}"
        )
    for value in found:
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(
                f"{argument}: expected a tensor, got {type(value).__name__}; convert "
                "it with torch.as_tensor(...)"
            )
    return found


def _count(names: Sequence[str]) -> str:
    if len(names) == 1:
        return "one tensor"
    return f"{len(names)} tensors ({', '.join(names)})"


def _whole(argument: str, names: Sequence[str], given: Given) -> tuple[Tensor, ...]:
    """As :func:`_each`, where nothing may be missing."""
    whole = []
    for name, value in zip(names, _each(argument, names, given), strict=True):
        if value is None:
            raise ValueError(f"{argument}: nothing was given for {name!r}")
        whole.append(value)
    return tuple(whole)
