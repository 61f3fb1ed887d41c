"""The zip file that DL4J's ModelSerializer writes.

Entries are looked up by name and read as streams: nothing is extracted, unpickled or
executed, and an entry is never trusted about its size.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, cast

from dl4py.config.codec import DL4JFormatError, brief
from dl4py.io.arrays import ArrayStream, Header
from dl4py.io.replacing import replacing

CONFIGURATION = "configuration.json"
COEFFICIENTS = "coefficients.bin"
UPDATER_STATE = "updaterState.bin"
OWN_STATE = "dl4pyUpdaterState.bin"  # the same where DL4J could not load it
NO_PARAMS = "noParams.marker"
NORMALIZER = "normalizer.bin"
CLASSES = "dl4pyClasses.json"  # their names; DL4J looks up entries, and not this one
# Java objects, which are never read: entry, or folder → what is lost
JAVA_OBJECTS = {
    "updater.bin": "training goes on with a new updater",
    "preprocessor.bin": "data must be preprocessed by yourself",
    "objects/": "objects that somebody added",
}

_JAVA = b"\xac\xed\x00\x05"  # what a serialised Java object begins with

TEXT_LIMIT = 4 << 20  # bytes of what is read whole; a layer's JSON has about 3000
_TEXT_RATIO = 128  # or, if more, bytes for each one of a file, parameters included
_READ_LIMIT = 1 << 17  # bytes read at once while a zip's directory is looked up
_DEFLATE = 1032  # deflate's best ratio: more was never compressed into an entry
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same network gives the same file
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    UnicodeDecodeError,
    ValueError,
)


class ModelReader:
    """An open model zip.

    Args:
        source: a path, or a binary file that can seek.

    Raises:
        DL4JFormatError: where the file is not what DL4J writes.
    """

    def __init__(self, source: str | os.PathLike[str] | IO[bytes]) -> None:
        with ExitStack() as stack:
            if isinstance(source, (str, os.PathLike)):
                self.name = os.path.basename(os.fspath(source))
                source = stack.enter_context(open(source, "rb"))
            else:
                self.name = "model"
            if not _seeks(source):
                raise TypeError(
                    "restore(path): expected a path or a binary file that can seek, "
                    f"got {type(source).__name__}"
                )
            self._file = _Bounded(source)
            try:
                self._zip = zipfile.ZipFile(self._file)
                self._length = source.seek(0, os.SEEK_END)
            except _DAMAGED as error:
                raise DL4JFormatError(
                    f"{self.name}: not a zip file: {brief(error)}"
                ) from error
            self._file.limit = None
            self._check()
            self._stack = stack.pop_all()  # the file stays open

    def _check(self) -> None:
        counts = Counter(entry.filename for entry in self._zip.infolist())
        for name, count in counts.items():
            if count > 1:
                raise DL4JFormatError(f"{self.name}: entry {name!r} is there twice")
        if CONFIGURATION not in counts:
            raise DL4JFormatError(
                f"{self.name}: no {CONFIGURATION}: not a model written by DL4J"
            )

    def __enter__(self) -> ModelReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._stack.close()

    def __contains__(self, entry: str) -> bool:
        return entry in self._zip.namelist()

    def skipped(self) -> dict[str, str]:
        """Entries that hold Java objects → what is lost without them."""
        return {
            entry: lost
            for entry in self._zip.namelist()
            for name, lost in JAVA_OBJECTS.items()
            if entry == name or (name.endswith("/") and entry.startswith(name))
        }

    def size(self, entry: str) -> int:
        """The size that the archive states for an entry, 0 if there is none."""
        return self._zip.getinfo(entry).file_size if entry in self else 0

    def raw(self, entry: str) -> bytes:
        """The bytes of an entry that is no large array."""
        limit = max(TEXT_LIMIT, _TEXT_RATIO * self._length)
        with self._open(entry) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise DL4JFormatError(f"{self.name}:{entry}: more than {limit} bytes")
        return data

    def text(self) -> str:
        """The configuration."""
        try:
            return self.raw(CONFIGURATION).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DL4JFormatError(
                f"{self.name}:{CONFIGURATION}: {brief(error)}"
            ) from error

    def header(self, entry: str) -> Header:
        """What stands before the elements of an entry that holds one ND4J array."""
        where = f"{self.name}:{entry}"
        with self._open(entry) as file:
            return ArrayStream.open(file, size=self.size(entry), where=where).header

    @contextmanager
    def array(self, entry: str) -> Iterator[ArrayStream]:
        """The elements of an entry that holds one ND4J array."""
        where = f"{self.name}:{entry}"
        with self._open(entry) as file:
            stream = ArrayStream.open(file, size=self.size(entry), where=where)
            header = stream.header
            row = len(header.shape) == 1 or (
                len(header.shape) == 2 and header.shape[0] == 1
            )
            if not row or not header.contiguous:
                raise DL4JFormatError(
                    f"{where}: expected one row of numbers, got shape {header.shape} "
                    f"with strides {header.strides}"
                )
            yield stream
            stream.end()
            if file.read(1):
                raise DL4JFormatError(f"{where}: bytes follow the array")

    @contextmanager
    def _open(self, entry: str) -> Iterator[IO[bytes]]:
        self._check_size(self._zip.getinfo(entry))
        try:
            with self._zip.open(entry) as file:
                start = cast(zipfile.ZipExtFile, file).peek(len(_JAVA))
                if start[: len(_JAVA)] == _JAVA:
                    raise DL4JFormatError(
                        f"{self.name}:{entry}: a serialised Java object, which is "
                        "never read"
                    )
                yield file
        except DL4JFormatError:
            raise
        except _DAMAGED as error:
            raise DL4JFormatError(f"{self.name}:{entry}: {brief(error)}") from error

    def _check_size(self, entry: zipfile.ZipInfo) -> None:
        """A stated size that the bytes present cannot hold is a lie."""
        ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE}
        where = f"{self.name}:{entry.filename}"
        if entry.compress_type not in ratio:
            raise DL4JFormatError(
                f"{where}: compression method {entry.compress_type}, expected "
                "stored or deflated"
            )
        present = min(entry.compress_size, self._length - entry.header_offset)
        if entry.file_size > present * ratio[entry.compress_type]:
            raise DL4JFormatError(
                f"{where}: {entry.file_size} bytes stated, {present} compressed bytes "
                "cannot hold them"
            )


def _seeks(file: Any) -> bool:
    """Whether this is an open file that can be read anywhere."""
    return hasattr(file, "read") and hasattr(file, "seekable") and file.seekable()


class _Bounded:
    """A binary file that refuses large reads as long as there is a limit."""

    def __init__(self, file: IO[bytes]) -> None:
        self.limit: int | None = _READ_LIMIT
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        if self.limit is not None and count > self.limit:
            raise zipfile.BadZipFile(f"a directory of {count} bytes")
        return self._file.read(count)


Write = Callable[[IO[bytes]], Any]


def write_model(
    target: str | os.PathLike[str] | IO[bytes],
    configuration: dict[str, Any],
    arrays: dict[str, tuple[int, Write]],
) -> None:
    """Write a model zip; a path is replaced in one step, or left as it was.

    Args:
        target: a path or a binary file; see :func:`~dl4py.io.replacing.replacing`.
        configuration: DL4J's JSON.
        arrays: entry → (its size, a function that writes its bytes).
    """
    if not isinstance(target, (str, os.PathLike)):
        if not hasattr(target, "write"):
            raise TypeError(
                "save(model, path): expected a path or a binary file, got "
                f"{type(target).__name__}"
            )
        seekable = getattr(target, "seekable", None)
        if seekable is not None and seekable():
            _write(target, configuration, arrays)
            return
        # a zip written straight to a pipe has sizes after the data, which Java refuses
        with tempfile.TemporaryFile() as file:
            _write(file, configuration, arrays)
            file.seek(0)
            shutil.copyfileobj(file, target)
        return
    with replacing(target) as file:
        _write(file, configuration, arrays)


def _write(
    file: IO[bytes],
    configuration: dict[str, Any],
    arrays: dict[str, tuple[int, Write]],
) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        text = json.dumps(configuration, indent=2, ensure_ascii=False, allow_nan=False)
        info = zipfile.ZipInfo(CONFIGURATION, _EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, text.encode("utf-8"))
        for entry, (size, write) in arrays.items():
            info = zipfile.ZipInfo(entry, _EPOCH)
            info.compress_type = zipfile.ZIP_STORED  # weights do not compress
            with archive.open(info, "w", force_zip64=size >= 1 << 31) as stream:
                write(stream)
