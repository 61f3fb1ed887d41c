"""Examples for a network: arrays in memory, split, batched, scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dl4py.normalizers import Normalizer

Masks = tuple[Tensor | None, ...]


class Examples(Dataset[Any]):
    """Base: a torch ``Dataset`` that gives batches as networks take them.

    Attributes:
        classes: names of the classes of one-hot labels, where they are known.
        features, labels: names of the columns, where there are any.
    """

    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, indices: Tensor) -> tuple[Any, ...]:
        """``(x, labels)`` or ``(x, labels, features_mask, labels_mask)`` of some.

        ``labels`` is ``None`` where the data has none.
        """
        raise NotImplementedError

    def only(self, indices: Tensor) -> Examples:
        """Some of the examples, in this order."""
        raise NotImplementedError

    def groups(self) -> Tensor | None:
        """The class of each example, if it has exactly one."""
        return None

    def __getitems__(self, indices: Sequence[int]) -> tuple[Any, ...]:
        """A batch at once: what a ``DataLoader`` asks for."""
        return self.batch(torch.as_tensor(indices, dtype=torch.int64))

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        whole = self.batch(torch.tensor([index % len(self)]))
        return tuple(_each(lambda t: t[0], part) for part in whole)

    def split(self, *shares: float, seed: int = 0) -> tuple[Examples, ...]:
        """What is left, and a part of the examples for each share.

        The parts are drawn by ``seed`` alone, and from each class alike where every
        example has one.

        Args:
            shares: of all examples, each in [0, 1), less than 1 together.
            seed: of the order in which examples are drawn.

        Example:
            >>> data = Arrays.of(torch.arange(10.0).reshape(5, 2), torch.zeros(5, 1))
            >>> [len(part) for part in data.split(0.2, 0.4)]
            [2, 1, 2]
        """
        if not all(0 <= share < 1 for share in shares) or not sum(shares) < 1:
            raise ValueError(
                "split(shares): expected numbers in [0, 1), less than 1 together, got "
                f"{shares}"
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        groups = self.groups()
        drawn = torch.zeros(len(self)) if groups is None else groups[order]
        part = torch.zeros(len(self), dtype=torch.int64)
        for group in set(drawn.tolist()):
            rows = (drawn == group).nonzero()[:, 0]
            start = 0
            for i, share in enumerate(shares):
                count = round(share * len(rows))
                part[rows[start : start + count]] = i + 1
                start += count
        return tuple(self.only(order[part == i]) for i in range(1 + len(shares)))

    def loader(
        self,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        normalizer: Normalizer | None = None,
        workers: int = 0,
    ) -> DataLoader[Any]:
        """A ``DataLoader`` of batches.

        Args:
            batch_size: examples in each but the last.
            shuffle: whether each epoch has an order of its own, drawn from ``seed``.
            normalizer: what scales the batches.
            workers: processes that prepare batches.
        """
        if not len(self):
            raise ValueError("loader(): there are no examples")
        return DataLoader(
            self,
            batch_size=batch_size,
            shuffle=shuffle,
            generator=torch.Generator().manual_seed(seed) if shuffle else None,
            collate_fn=Scaled(normalizer),  # type: ignore[arg-type]
            num_workers=workers,
        )


class Scaled:
    """Batches scaled by a normalizer, or as they are; worker processes take it."""

    def __init__(self, normalizer: Normalizer | None) -> None:
        self.normalizer = normalizer

    def __call__(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.normalizer is None:
            return batch
        x, y, *masks = batch
        x_mask, y_mask = masks or (None, None)
        x = self.normalizer.transform(x, x_mask)
        if y is not None:
            y = self.normalizer.transform_labels(y, y_mask)
        return (x, y, *masks)


@dataclass(frozen=True, eq=False)
class Arrays(Examples):
    """Examples that are in memory.

    Args:
        inputs, outputs: arrays in DL4J's shapes, examples first; labels may be missing.
        input_masks, output_masks: one for each, ``None`` where all counts.
        padded: whether steps behind the longest of a batch are cut off, as DL4J's
            iterators pad to the longest sequence of a batch, not of the data.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...] = ()
    input_masks: Masks = ()
    output_masks: Masks = ()
    features: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    padded: bool = False

    @classmethod
    def of(cls, x: Tensor, y: Tensor | None = None, **rest: Any) -> Arrays:
        """One input and at most one output."""
        outputs = () if y is None else (y,)
        masks = (rest.pop("features_mask", None), rest.pop("labels_mask", None))
        return cls((x,), outputs, masks[:1], masks[1:] * len(outputs), **rest)

    def __len__(self) -> int:
        return len(self.inputs[0])

    def groups(self) -> Tensor | None:
        if len(self.outputs) != 1 or self.outputs[0].dim() != 2:
            return None
        (y,) = self.outputs
        one_hot = y.shape[1] > 1 and bool(((y == 0) | (y == 1)).all())
        return y.argmax(1) if one_hot and bool((y.sum(1) == 1).all()) else None

    def only(self, indices: Tensor) -> Arrays:
        return self._mapped(lambda t: t[indices])

    def batch(self, indices: Tensor) -> tuple[Any, ...]:
        chosen = self.only(indices)
        masks = [*chosen.input_masks, *chosen.output_masks]
        if self.padded:
            last = torch.stack([m for m in masks if m is not None]).amax((0, 1))
            steps = int(last.nonzero().max()) + 1
            chosen = chosen._mapped(lambda t: t[..., :steps])
        x, y, x_mask, y_mask = map(
            _single,
            (
                chosen.inputs,
                chosen.outputs,
                self._kept(chosen.input_masks),
                self._kept(chosen.output_masks),
            ),
        )
        return (x, y) if x_mask is y_mask is None else (x, y, x_mask, y_mask)

    def _kept(self, masks: Masks) -> Masks:
        """The masks that hide something; what DL4J stored stays as it is."""
        if self.padded:
            masks = tuple(None if m is None or m.all() else m for m in masks)
        return masks if any(m is not None for m in masks) else ()

    def _mapped(self, f: Any) -> Arrays:
        parts = (self.inputs, self.outputs, self.input_masks, self.output_masks)
        names = ("inputs", "outputs", "input_masks", "output_masks")
        moved = [tuple(None if t is None else f(t) for t in ts) for ts in parts]
        changes: dict[str, Any] = dict(zip(names, moved, strict=True))
        return replace(self, **changes)


def joined(pieces: Sequence[Arrays]) -> Arrays:
    """Pieces of one shape, one behind the other."""
    first, *rest = pieces
    if not rest:
        return first

    def together(name: str) -> tuple[Any, ...]:
        columns = zip(*(getattr(p, name) for p in pieces), strict=True)
        return tuple(
            None if all(t is None for t in ts) else torch.cat(_masks(ts, pieces))
            for ts in columns
        )

    names = ("inputs", "outputs", "input_masks", "output_masks")
    changes: dict[str, Any] = {name: together(name) for name in names}
    return replace(first, **changes)


def _masks(ts: tuple[Tensor | None, ...], pieces: Sequence[Arrays]) -> list[Tensor]:
    """Where a piece has no mask all of it counts."""
    shape = next(t.shape[1:] for t in ts if t is not None)
    return [
        torch.ones(len(p), *shape) if t is None else t
        for t, p in zip(ts, pieces, strict=True)
    ]


def _single(parts: tuple[Any, ...]) -> Any:
    return parts[0] if len(parts) == 1 else (parts or None)


def _each(f: Any, part: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(_each(f, p) for p in part)
    return None if part is None else f(part)
