"""What a served model takes, and whether a request fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dl4py.config.inputs import Shape

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


class Refused(Exception):
    """A request that is not answered with predictions.

    Args:
        status: of HTTP.
        message: what was expected, what came, the way out.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Input:
    """What goes in under one name.

    Args:
        shapes: arrays that fit, the rows first; none: any.
        whole: whether whole numbers are indices, and stay whole.
    """

    shapes: tuple[Shape, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class Spec:
    """What a model takes and gives.

    Args:
        inputs: name → what goes in there.
        outputs: names of what comes out.
        dtype: in which the model computes.
        normalizer: a line about what scales raw features, if something does.
        rows: how many rows each call must have; ``None``: any number.
        labels: names of the classes, where the file has them.
    """

    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]
    dtype: str
    normalizer: str | None = None
    rows: int | None = None
    labels: tuple[str, ...] = ()

    def taken(self, given: Arrays) -> dict[str, Array]:
        """``given`` in the model's order and type.

        Raises:
            Refused: 400, where names, numbers or shapes do not fit.

        Example:
            >>> spec = Spec({"input": Input((("n", 2),))}, ("output",), "float32")
            >>> spec.taken({"input": np.array([[1, 2]])})["input"].dtype
            dtype('float32')
            >>> spec.taken({"input": np.array([[1, 2, 3]])})
            Traceback (most recent call last):
            dl4py.serving.spec.Refused: (400, 'inputs: expected [n, 2], got [1, 3]')
        """
        if set(given) != set(self.inputs):
            raise Refused(
                400,
                f"inputs: expected {', '.join(self.inputs)}, got "
                f"{', '.join(map(str, given)) or 'none'}",
            )
        found = {
            name: self._input(name, into, given[name])
            for name, into in self.inputs.items()
        }
        counts = {name: len(array) for name, array in found.items()}
        if len(set(counts.values())) > 1:
            raise Refused(400, f"inputs: expected as many rows in each, got {counts}")
        return found

    def _input(self, name: str, into: Input, array: Array) -> Array:
        word = "inputs" if len(self.inputs) == 1 else f"inputs[{name!r}]"
        if array.dtype.kind not in "biuf":
            raise Refused(
                400,
                f"{word}: expected numbers in rows of equal length, got {array.dtype}",
            )
        fits = not into.shapes or any(_fits(array.shape, s) for s in into.shapes)
        if not fits or not array.ndim or not len(array):
            wanted = " or ".join(map(_told, into.shapes)) or "[n, ...]"
            raise Refused(
                400,
                f"{word}: expected {wanted}, n >= 1, got {list(array.shape)}"
                if fits
                else f"{word}: expected {wanted}, got {list(array.shape)}",
            )
        if self.rows is not None and len(array) != self.rows:
            raise Refused(
                400,
                f"{word}: this model was exported for {self.rows} rows, got "
                f"{len(array)}; export it with a dynamic first dimension",
            )
        if into.whole and array.dtype.kind in "iu":
            return array.astype(np.int64)
        with np.errstate(over="ignore"):  # told below
            number = array.astype(carried(self.dtype))
        # a sum is not finite if any part is not, or if it overflows: then look closer
        with np.errstate(all="ignore"):
            sure = bool(np.isfinite(number.sum()))
        if not sure and not bool(np.isfinite(number).all()):
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(number))[0])
            raise Refused(
                400,
                f"{word}: expected finite {self.dtype} numbers, got {array[at]} at "
                f"{list(at)}",
            )
        return number


def carried(dtype: str) -> str:
    """The type of NumPy's that carries numbers of torch's ``dtype``.

    >>> carried("bfloat16"), carried("float64")
    ('float32', 'float64')
    """
    return dtype if dtype in ("float64", "float16") else "float32"


def _fits(found: tuple[int, ...], shape: Shape) -> bool:
    return len(found) == len(shape) and all(
        isinstance(size, str) or size == here
        for size, here in zip(shape, found, strict=True)
    )


def _told(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"
