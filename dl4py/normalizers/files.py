"""``normalizer.bin``: normalizers as DL4J's NormalizerSerializer writes them."""

from __future__ import annotations

import io
import math
import os
import struct
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from dl4py.config import DL4JFormatError
from dl4py.io.arrays import header_bytes, read_ndarray, type_of, write_elements
from dl4py.io.replacing import replacing
from dl4py.normalizers.base import (
    Fitted,
    ImageScaler,
    MinMaxScaler,
    MultiHybrid,
    MultiMinMaxScaler,
    MultiStandardize,
    Normalizer,
    Standardize,
)
from dl4py.normalizers.scales import Range, Scale, Standard

HEADER = "NORMALIZER"
MOST = 4096  # inputs or outputs of one normalizer
STRATEGIES = {Standard: 1, Range: 2}  # 0: none


def read_normalizer(
    source: str | os.PathLike[str] | bytes, where: str | None = None
) -> Normalizer:
    """The normalizer of a file that DL4J wrote, or of its bytes.

    Args:
        source: a path or the bytes.
        where: the place named in error messages.

    Raises:
        DL4JFormatError: where the bytes are not what DL4J writes; for a custom
            normalizer, which is a Java class.

    DL4J: org.nd4j.linalg.dataset.api.preprocessor.serializer.NormalizerSerializer
    """
    if not isinstance(source, bytes):
        with open(source, "rb") as file:
            return read_normalizer(file.read(), where or os.fspath(source))
    r = _In(source, where or "normalizer")
    if r.text() != HEADER:
        raise r.fail(f"not a normalizer of DL4J: it does not begin with {HEADER}")
    if (version := r.number(">i")) != 1:
        raise r.fail(f"version {version}, expected 1")
    code = r.text()
    if code not in _READERS:
        raise r.fail(
            f"a normalizer of type {code!r}, expected {', '.join(_READERS)}; others "
            "are Java classes of somebody's own"
        )
    found: Normalizer = _READERS[code](r)
    if r.file.read(1):
        raise r.fail("bytes follow the normalizer")
    return found


def write_normalizer(
    normalizer: Normalizer, target: str | os.PathLike[str] | None = None
) -> bytes:
    """A fitted normalizer as DL4J writes it.

    Args:
        normalizer: any but VGG16, which DL4J cannot write either.
        target: a path; without it the bytes are only returned.

    Raises:
        ValueError: where it is not fitted, or DL4J has no file for it.
    """
    if not isinstance(normalizer, Normalizer):
        raise TypeError(
            "write_normalizer(normalizer): expected a normalizer of dl4py, got "
            f"{type(normalizer).__name__}"
        )
    writer = _WRITERS.get(normalizer.code)
    name = type(normalizer).__name__
    if writer is None:
        raise ValueError(f"write_normalizer: DL4J has no file for {name}")
    if isinstance(normalizer, Fitted) and not len(normalizer.inputs):
        raise ValueError(f"write_normalizer: {name} has no statistics; call fit first")
    out = io.BytesIO()
    out.write(_text(HEADER) + struct.pack(">i", 1) + _text(normalizer.code))
    writer(normalizer, out)
    if target is not None:
        with replacing(target, "write_normalizer(target)") as file:
            file.write(out.getvalue())
    return out.getvalue()


def is_custom(data: bytes) -> bool:
    """Whether the bytes are of a normalizer that is a Java class of somebody's own."""
    start = _text(HEADER) + struct.pack(">i", 1)
    return data.startswith(start + _text("CUSTOM"))


class _In:
    """Bytes of a normalizer, with the place for error messages."""

    def __init__(self, data: bytes, where: str) -> None:
        self.file, self.where = io.BytesIO(data), where

    def fail(self, message: str) -> DL4JFormatError:
        return DL4JFormatError(f"{self.where}: byte {self.file.tell()}: {message}")

    def number(self, form: str) -> Any:
        size = struct.calcsize(form)
        data = self.file.read(size)
        if len(data) != size:
            raise self.fail(f"{size} bytes wanted, the file ends after {len(data)}")
        return struct.unpack(form, data)[0]

    def text(self) -> str:
        count = self.number(">H")
        if count > 64:
            raise self.fail(f"a word of {count} characters")
        try:
            return self.file.read(count).decode("ascii")
        except UnicodeDecodeError:
            raise self.fail("a word that is no ASCII text") from None

    def flag(self) -> bool:
        value = self.number(">b")
        if value not in (0, 1):
            raise self.fail(f"expected 0 or 1, got {value}")
        return bool(value)

    def count(self) -> int:
        value: int = self.number(">i")
        if not 0 <= value <= MOST:
            raise self.fail(f"expected a number of arrays in [0, {MOST}], got {value}")
        return value

    def row(self) -> Tensor:
        """One row of numbers."""
        array = read_ndarray(self.file, where=self.where)
        if array.dtype not in (np.float32, np.float64) or array.size != array.shape[-1]:
            raise self.fail(
                f"expected one row of FLOAT or DOUBLE, got {array.dtype} {array.shape}"
            )
        if not np.isfinite(array).all():
            raise self.fail("statistics must be finite")
        return torch.from_numpy(array.reshape(-1).copy())

    def into(self, scale: Scale) -> Scale:
        first, second = self.row(), self.row()
        if len(first) != len(second) or not len(first):
            raise self.fail(f"statistics of {len(first)} and {len(second)} columns")
        scale.put(first, second)
        return scale

    def range(self) -> tuple[float, float]:
        low, high = self.number(">d"), self.number(">d")
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise self.fail(f"a range from {low} to {high}")
        return low, high

    def rule(self) -> Scale | None:
        """A strategy of a hybrid."""
        kind = self.number(">i")
        if kind not in (0, 1, 2):
            raise self.fail(f"expected a strategy 0, 1 or 2, got {kind}")
        return None if not kind else Standard() if kind == 1 else Range(*self.range())


def _text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode("ascii")


def _rows(scale: Any, out: IO[bytes]) -> None:
    for values in scale.statistics():
        array = values.detach().cpu().numpy()
        out.write(header_bytes((1, array.size), type_of(array), (1, 1)))
        write_elements(array, out)


def _read_one(r: _In, ranged: bool) -> Fitted:
    labels = r.flag()
    low, high = r.range() if ranged else (0.0, 1.0)
    found: Fitted = Standardize(labels)
    if ranged:
        found = MinMaxScaler(low, high, labels)
    for side in ("inputs", "outputs")[: 1 + labels]:
        scale = found.scale(side, 0)
        assert scale is not None
        getattr(found, side).append(r.into(scale))
    return found


def _write_one(normalizer: Any, out: IO[bytes]) -> None:
    out.write(struct.pack(">b", normalizer.fit_labels))
    if isinstance(normalizer, MinMaxScaler):
        out.write(struct.pack(">dd", normalizer.range.low, normalizer.range.high))
    for scale in (*normalizer.inputs, *normalizer.outputs):
        _rows(scale, out)


def _read_multi(r: _In, ranged: bool) -> Fitted:
    labels, inputs, outputs = r.flag(), r.count(), r.number(">i")
    if outputs != -1 if not labels else not 0 <= outputs <= MOST:
        raise r.fail(f"{outputs} outputs where fitLabels is {labels}")
    low, high = r.range() if ranged else (0.0, 1.0)
    found: Fitted = MultiStandardize(labels)
    if ranged:
        found = MultiMinMaxScaler(low, high, labels)
    for side, count in (("inputs", inputs), ("outputs", max(outputs, 0))):
        for i in range(count):
            scale = found.scale(side, i)
            assert scale is not None
            getattr(found, side).append(r.into(scale))
    return found


def _write_multi(normalizer: Any, out: IO[bytes]) -> None:
    labels = normalizer.fit_labels
    outputs = len(normalizer.outputs) if labels else -1
    out.write(struct.pack(">bii", labels, len(normalizer.inputs), outputs))
    if isinstance(normalizer, MinMaxScaler):
        out.write(struct.pack(">dd", normalizer.range.low, normalizer.range.high))
    for scale in (*normalizer.inputs, *normalizer.outputs):
        _rows(scale, out)


def _read_hybrid(r: _In) -> Fitted:
    sides: list[dict[int, Scale]] = []
    for _ in range(2):
        found: dict[int, Scale] = {}
        for _ in range(r.count()):
            index, kind = r.count(), r.number(">i")
            if kind not in (1, 2):
                raise r.fail(f"expected a strategy 1 or 2, got {kind}")
            found[index] = r.into(Standard() if kind == 1 else Range())
        sides.append(found)
    rules = r.rule(), r.rule()
    own = [{r.count(): r.rule() for _ in range(r.count())} for _ in range(2)]
    per = [{i: s for i, s in table.items() if s is not None} for table in own]
    hybrid = MultiHybrid(rules[0], rules[1], per[0], per[1])
    for side, found in zip(("inputs", "outputs"), sides, strict=True):
        made: list[Scale | None] = []
        for i in range(max(found, default=-1) + 1):
            scale = hybrid.scale(side, i)
            if (scale is None) != (i not in found) or not isinstance(
                found.get(i), type(scale)
            ):
                raise r.fail(f"statistics of {side} that its strategies do not have")
            if scale is not None:
                scale.put(*found[i].statistics())
            made.append(scale)
        setattr(hybrid, side, hybrid._list(made))
    return hybrid


def _write_hybrid(normalizer: Any, out: IO[bytes]) -> None:
    sides = ("inputs", "outputs")
    for side in sides:
        scales = [
            (i, s)
            for i, s in enumerate(getattr(normalizer, side))
            if isinstance(s, Scale)
        ]
        out.write(struct.pack(">i", len(scales)))
        for i, scale in scales:
            out.write(struct.pack(">ii", i, STRATEGIES[type(scale)]))
            _rows(scale, out)
    for side in sides:
        _write_rule(normalizer.rules[side][0], out)
    for side in sides:
        own = normalizer.rules[side][1]
        out.write(struct.pack(">i", len(own)))
        for i, scale in own.items():
            out.write(struct.pack(">i", i))
            _write_rule(scale, out)


def _write_rule(scale: Scale | None, out: IO[bytes]) -> None:
    out.write(struct.pack(">i", 0 if scale is None else STRATEGIES[type(scale)]))
    if isinstance(scale, Range):
        out.write(struct.pack(">dd", scale.low, scale.high))


def _read_image(r: _In) -> ImageScaler:
    low, high = r.range()
    largest = r.number(">d")
    bits = math.log2(largest + 1) if largest > 0 else 0.0
    if not bits.is_integer() or not 1 <= bits <= 53:
        raise r.fail(f"a largest pixel of {largest}, expected 2^bits - 1")
    return ImageScaler(low, high, int(bits))


def _write_image(normalizer: Any, out: IO[bytes]) -> None:
    numbers = (normalizer.low, normalizer.high, normalizer.largest)
    out.write(struct.pack(">ddd", *numbers))


_READERS: dict[str, Any] = {
    "STANDARDIZE": lambda r: _read_one(r, ranged=False),
    "MIN_MAX": lambda r: _read_one(r, ranged=True),
    "MULTI_STANDARDIZE": lambda r: _read_multi(r, ranged=False),
    "MULTI_MIN_MAX": lambda r: _read_multi(r, ranged=True),
    "MULTI_HYBRID": _read_hybrid,
    "IMAGE_MIN_MAX": _read_image,
}
_WRITERS: dict[str, Any] = {
    "STANDARDIZE": _write_one,
    "MIN_MAX": _write_one,
    "MULTI_STANDARDIZE": _write_multi,
    "MULTI_MIN_MAX": _write_multi,
    "MULTI_HYBRID": _write_hybrid,
    "IMAGE_MIN_MAX": _write_image,
}
