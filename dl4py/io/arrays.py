"""ND4J's binary arrays.

An array is two buffers, shape information and elements, each written as

    allocation mode  uint16 length + bytes
    length           int32 (DIRECT, HEAP, JAVACPP) or int64 (the later modes)
    element type     uint16 length + bytes
    elements         big-endian

Shape information of rank r holds r, the shape, the strides in elements, an offset or a
mask of type bits, the element-wise stride, and the order (99 'c', 102 'f'). All sizes
are checked against the bytes present before anything is allocated.
"""

from __future__ import annotations

import io
import math
import os
import struct
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from dl4py.config.codec import DL4JFormatError
from dl4py.io.replacing import replacing

_SHORT_LENGTH = ("DIRECT", "HEAP", "JAVACPP")
_LONG_LENGTH = ("LONG_SHAPE", "MIXED_DATA_TYPES")
_CHUNK = 1 << 20  # bytes read at once
_MAX_RANK = 32  # ND4J's own limit

# name → (NumPy type, its bit in MIXED_DATA_TYPES' mask)
TYPES: dict[str, tuple[str, int]] = {
    "DOUBLE": ("f8", 16384),
    "FLOAT": ("f4", 8192),
    "HALF": ("f2", 4096),
    "BFLOAT16": ("u2", 2048),  # widened to float32, which holds every value
    "LONG": ("i8", 262144),
    "INT": ("i4", 131072),
    "SHORT": ("i2", 65536),
    "BYTE": ("i1", 32768),
    "UBYTE": ("u1", 32768 | 8388608),
    "BOOL": ("?", 524288),
    "UINT16": ("u2", 65536 | 8388608),
    "UINT32": ("u4", 131072 | 8388608),
    "UINT64": ("u8", 262144 | 8388608),
}


@dataclass(frozen=True)
class Header:
    """What stands before the elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    order: str
    type: str
    length: int
    mode: str = "MIXED_DATA_TYPES"  # of allocation: it tells the era of an array

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type as NumPy's, big-endian."""
        return np.dtype(TYPES[self.type][0]).newbyteorder(">")

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        expected = 1
        for size, stride in zip(
            reversed(self.shape), reversed(self.strides), strict=True
        ):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return self.length == expected


class _Reader:
    """Bytes of one array, with the place for error messages."""

    def __init__(self, file: IO[bytes], size: int | None, where: str) -> None:
        self.file, self.left, self.where, self.at = file, size, where, 0

    def fail(self, message: str) -> DL4JFormatError:
        return DL4JFormatError(f"{self.where}: byte {self.at}: {message}")

    def need(self, count: int, what: str) -> None:
        if self.left is not None and count > self.left:
            raise self.fail(f"{what} takes {count} bytes, only {self.left} are left")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        data = self.file.read(count)
        if len(data) != count:
            raise self.fail(f"{what} takes {count} bytes, got {len(data)}")
        self.at += count
        if self.left is not None:
            self.left -= count
        return data

    def take_into(self, target: memoryview) -> None:
        self.need(len(target), "the elements")
        done = 0
        while done < len(target):
            count = self.file.readinto(target[done:])  # type: ignore[attr-defined]
            if not count:
                raise self.fail(
                    f"{len(target)} bytes wanted, the file ends after {done}"
                )
            done += count
        self.at += done
        if self.left is not None:
            self.left -= done

    def text(self, what: str) -> str:
        (count,) = struct.unpack(">H", self.take(2, f"length of {what}"))
        if count > 64:
            raise self.fail(f"{what} of {count} characters")
        try:
            return self.take(count, what).decode("ascii")
        except UnicodeDecodeError:
            raise self.fail(f"{what} is no ASCII text") from None

    def buffer(self, what: str) -> tuple[int, str, str]:
        """Length, element type and mode of the buffer that begins here."""
        mode = self.text(f"allocation mode of {what}")
        if mode in _SHORT_LENGTH:
            (length,) = struct.unpack(">i", self.take(4, f"length of {what}"))
        elif mode in _LONG_LENGTH:
            (length,) = struct.unpack(">q", self.take(8, f"length of {what}"))
        else:
            raise self.fail(f"unknown allocation mode {mode!r} of {what}")
        if length < 0:
            raise self.fail(f"length of {what} is {length}")
        return length, self.text(f"element type of {what}"), mode


def _size_left(file: IO[bytes]) -> int | None:
    try:
        here = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(here)
    except (OSError, AttributeError):
        return None
    return end - here


def _header(r: _Reader) -> Header:
    words, kind, _ = r.buffer("the shape information")
    if kind not in ("INT", "LONG"):
        raise r.fail(f"shape information of type {kind!r}")
    if not 4 <= words <= 2 * _MAX_RANK + 4:
        raise r.fail(f"shape information of {words} words")
    width = 4 if kind == "INT" else 8
    data = r.take(words * width, "the shape information")
    rank, *rest = struct.unpack(f">{words}{'i' if width == 4 else 'q'}", data)
    if words != 2 * rank + 4:
        raise r.fail(f"rank {rank} with shape information of {words} words")
    shape, strides = tuple(rest[:rank]), tuple(rest[rank : 2 * rank])
    code = rest[-1]
    if code not in (99, 102):
        raise r.fail(f"order {code}, expected 99 ('c') or 102 ('f')")
    if any(s < 0 for s in shape) or any(
        s < 0 for s, n in zip(strides, shape, strict=True) if n != 1
    ):
        raise r.fail(f"negative sizes: shape {shape}, strides {strides}")
    length, name, mode = r.buffer("the elements")
    if name not in TYPES:
        raise r.fail(f"elements of type {name!r} cannot be read")
    header = Header(shape, strides, chr(code), name, length, mode)
    count = math.prod(shape)
    if count > length:
        raise r.fail(f"shape {shape} needs {count} elements, the buffer has {length}")
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if n > 1)
    if count and last >= length:
        raise r.fail(f"strides {strides} reach element {last} of {length}")
    r.need(length * header.dtype.itemsize, f"{length} elements of type {name}")
    return header


def read_ndarray(
    source: str | os.PathLike[str] | IO[bytes] | bytes,
    *,
    size: int | None = None,
    where: str | None = None,
) -> np.ndarray[Any, Any]:
    """An ND4J array as NumPy's, in native byte order and C layout.

    Args:
        source: a path, bytes, or a binary file at the array's first byte.
        size: bytes that are left in a file that cannot seek.
        where: the place named in error messages.

    Returns:
        the array; BFLOAT16 as float32.

    Raises:
        DL4JFormatError: where the bytes are not what ND4J writes.

    Example:
        >>> data = write_ndarray(np.arange(6.0).reshape(2, 3))
        >>> read_ndarray(data)[1]
        array([3., 4., 5.])
    """
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return read_ndarray(file, where=where or os.fspath(source))
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    left = _size_left(source) if size is None else size
    r = _Reader(source, left, where or "array")
    header = _header(r)
    values = ArrayStream(r, header).take(header.length)
    if 0 in header.shape or header.contiguous:
        try:
            return values[: math.prod(header.shape)].reshape(header.shape)
        except ValueError as error:  # an empty array with axes beyond NumPy's
            raise r.fail(f"shape {header.shape}: {error}") from error
    pairs = zip(header.shape, header.strides, strict=True)
    strides = [0 if n == 1 else s * values.itemsize for n, s in pairs]
    view = np.lib.stride_tricks.as_strided(
        values, header.shape, strides, writeable=False
    )
    return np.ascontiguousarray(view)


class ArrayStream:
    """The elements of one array, taken piece by piece; nothing is held twice."""

    def __init__(self, reader: _Reader, header: Header) -> None:
        self.header = header
        self.left = header.length
        self._reader = reader

    @classmethod
    def open(cls, file: IO[bytes], *, size: int, where: str) -> ArrayStream:
        """The array at the position of ``file``, of which ``size`` bytes are left."""
        reader = _Reader(file, size, where)
        return cls(reader, _header(reader))

    def take(self, count: int) -> np.ndarray[Any, Any]:
        """The next ``count`` elements as a new array in native byte order."""
        if self._reader.left is None:  # nobody knows how much there is: do not trust
            values = self._grown(count)
        else:
            values = np.empty(count, self.header.dtype.newbyteorder("="))
            self.fill(values)
        if self.header.type == "BOOL":  # bytes other than 0 and 1 are no booleans
            return values.view(np.uint8) != 0  # type: ignore[no-any-return]
        if self.header.type == "BFLOAT16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values

    def fill(self, target: np.ndarray[Any, Any]) -> None:
        """Write the next elements into ``target``, a flat array of the file's type."""
        if target.size > self.left:
            raise self._reader.fail(f"{target.size} elements wanted, {self.left} left")
        self.left -= target.size
        raw = memoryview(target.view(np.uint8))  # type: ignore[arg-type]
        step = max(1, _CHUNK // target.itemsize)
        for start in range(0, target.size, step):
            part = target[start : start + step]
            self._reader.take_into(raw[start * part.itemsize :][: part.nbytes])
            if part.itemsize > 1:
                part.byteswap(inplace=True)

    def end(self) -> None:
        """Nothing may follow the last element."""
        if self.left or self._reader.left:
            over = self._reader.left or self.left
            raise self._reader.fail(
                f"{over} bytes or elements follow the expected ones"
            )

    def _grown(self, count: int) -> np.ndarray[Any, Any]:
        dtype = self.header.dtype
        parts = []
        missing = count * dtype.itemsize
        while missing:
            parts.append(self._reader.take(min(missing, _CHUNK), "the elements"))
            missing -= len(parts[-1])
        self.left -= count
        values = np.frombuffer(b"".join(parts), dtype)
        return values.astype(dtype.newbyteorder("="))


def header_bytes(
    shape: tuple[int, ...], type: str, strides: tuple[int, ...] | None = None
) -> bytes:
    """What M2.1 writes before the elements of a C-ordered array.

    Args:
        shape, type: of the array.
        strides: where they are not those of a contiguous array; those of axes of size 1
            are whatever DL4J left there.
    """
    if strides is None:
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    words = [len(shape), *shape, *strides, TYPES[type][1], 1, 99]
    count = math.prod(shape)
    mode = _text("MIXED_DATA_TYPES")
    return b"".join(
        (
            mode, struct.pack(">q", len(words)), _text("LONG"),
            struct.pack(f">{len(words)}q", *words),
            mode, struct.pack(">q", count), _text(type),
        )
    )  # fmt: skip


def _text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode("ascii")


def type_of(array: np.ndarray[Any, Any]) -> str:
    """ND4J's name of an array's element type."""
    for name, (kind, _) in TYPES.items():
        if name != "BFLOAT16" and np.dtype(kind) == array.dtype.newbyteorder("="):
            return name
    raise TypeError(
        f"write_ndarray(array): ND4J has no element type for {array.dtype}; convert "
        "with array.astype(...)"
    )


def write_ndarray(
    array: np.ndarray[Any, Any],
    target: str | os.PathLike[str] | IO[bytes] | None = None,
    *,
    type: str | None = None,
) -> bytes:
    """Write an array as ND4J 1.0.0-M2.1 does.

    Args:
        array: any array of one of ND4J's element types.
        target: a path or a binary file; without it the bytes are only returned.
        type: ``"BFLOAT16"`` for a float32 array, rounded to nearest even; else the
            array's own.

    Returns:
        the bytes, empty if ``target`` is given.
    """
    if isinstance(target, (str, os.PathLike)):
        with replacing(target, "write_ndarray(target)") as file:
            return write_ndarray(array, file, type=type)
    if type == "BFLOAT16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        even = 0x7FFF + ((bits >> 16) & 1)
        rounded = np.where(np.isnan(array), bits | 0x400000, bits + even) >> 16
        array, name = rounded.astype(np.uint16), type
    else:
        name = type_of(array)
    out = io.BytesIO() if target is None else target
    out.write(header_bytes(array.shape, name))
    write_elements(np.ascontiguousarray(array).reshape(-1), out)
    return out.getvalue() if isinstance(out, io.BytesIO) and target is None else b""


def write_elements(flat: np.ndarray[Any, Any], out: IO[bytes]) -> None:
    """The elements of a flat array, big-endian, without a second copy of it all."""
    step = max(1, _CHUNK // flat.itemsize)
    for start in range(0, flat.size, step):
        part = flat[start : start + step]
        out.write(part.astype(part.dtype.newbyteorder(">")).data)
