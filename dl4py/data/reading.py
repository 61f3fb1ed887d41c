"""Files and folders as examples, at once or piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from dl4py.config.codec import printable
from dl4py.data import columns
from dl4py.data.examples import Arrays, Examples, joined
from dl4py.data.images import SUFFIXES, Images, is_image
from dl4py.data.options import READERS, Reading, natural
from dl4py.data.sequences import grouped, padded
from dl4py.registry import canonical, suggest


def read(source: str | Path, options: Reading | None = None, **words: Any) -> Examples:
    """The examples in a file, or in a folder of files of one kind.

    Tables are read block by block; beside the examples' arrays, which are held once
    more while they are joined, memory does not grow with the file. Images stay in their
    files until a batch of them is asked for.

    Args:
        source: a file; or a folder, whose files follow each other by name, numbers by
            size; or a folder of images.
        options: what of it becomes what.
        words: these as keywords, see :class:`Reading`.

    Raises:
        ValueError: where something does not fit; names file, row and column, what was
            expected and what came.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "a.csv"
        >>> _ = path.write_text("size,kind\\n1.5,cat\\n4,dog\\n3,dog\\n")
        >>> data = read(path, labels="kind")
        >>> data.classes, *data.batch(torch.tensor([0, 2]))
        (('cat', 'dog'), tensor([[1.5000],
                [3.0000]]), tensor([[1., 0.],
                [0., 1.]]))
    """
    options = _options(options, words)
    path = _existing(source)
    if _has_images(path):
        return Images.of(path, options)
    if options.per_file or options.sequence is not None:
        return _sequences(path, options)
    pieces = [piece for piece in stream(path, options) if isinstance(piece, Arrays)]
    _same_width(pieces, path)
    return joined(pieces)


def stream(
    source: str | Path, options: Reading | None = None, **words: Any
) -> Iterator[Examples]:
    """As :func:`read`, in pieces of which one at a time is in memory.

    A table whose classes are not given is gone through twice. Sequences and images
    come as one piece, as do arrays that a file holds whole.
    """
    options = _options(options, words)
    path = _existing(source)
    if _has_images(path) or options.per_file or options.sequence is not None:
        yield read(path, options)
        return
    files = _files(path)
    classes = _classes(files, options)
    empty = True
    for file in files:
        for piece in _reader(file, options, classes).pieces():
            empty = False
            yield piece
    if empty:
        raise ValueError(f"{path}: no rows")


def _options(options: Reading | None, words: dict[str, Any]) -> Reading:
    known = {field.name for field in fields(Reading)}
    for word in words:
        if word not in known:
            hint = suggest(word, known)
            raise TypeError(f"{word}: unknown{': ' + hint if hint else ''}")
    return replace(options or Reading(), **words)


def _existing(source: str | Path) -> Path:
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return path


def _has_images(path: Path) -> bool:
    if path.is_dir():
        return any(is_image(file) for file in path.rglob("*"))
    return is_image(path)


def _files(path: Path) -> list[Path]:
    """The files of a source in order, all of them of kinds that are read."""
    if not path.is_dir():
        return [path]
    files = sorted((f for f in path.iterdir() if f.is_file()), key=natural)
    files = [f for f in files if not f.name.startswith(".")]
    if not files:
        raise ValueError(f"{path}: an empty folder")
    return files


def _reader(file: Path, options: Reading, classes: Sequence[str] | None = None) -> Any:
    ending = canonical(file.suffix.removeprefix("."))
    if ending not in READERS:
        known = [f".{name}" for key in READERS for name in READERS.entry(key).names]
        raise ValueError(
            f"{file}: expected a file that ends in {', '.join(known)}, or images "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    return READERS[ending](file, options, classes)


def _classes(files: Sequence[Path], options: Reading) -> Sequence[str] | None:
    """The classes that a label column of text names, in alphabetical order."""
    if options.classes is not None or len(columns.several(options.labels)) != 1:
        return options.class_names
    seen: set[str] = set()
    for file in files:
        reader = _reader(file, options)
        words = reader.words() if reader.table else None
        if words is None:
            return None
        seen |= words
    if len(seen) == 1:
        raise ValueError(
            f"{files[0]}: labels: {printable(min(seen))!r} is the only class "
            "that is there; name all of them, in the order of training, with classes"
        )
    return sorted(seen)


def _same_width(pieces: Sequence[Arrays], path: Path) -> None:
    """Files of one folder must fit."""
    shapes = {tuple(t.shape[1:] for t in (*p.inputs, *p.outputs)) for p in pieces}
    if len(shapes) > 1:
        a, b = sorted(shapes)[:2]
        raise ValueError(f"{path}: files of unequal shapes, {a} and {b}")


def _sequences(path: Path, options: Reading) -> Arrays:
    files = _files(path)
    if options.sequence is not None:
        readers = _readers(files, options)
        parts = [part for reader in readers for part in reader.parts()]
        keys = {key: None for _, _, ids in parts for key in ids}
        where = [f"{path}: sequence {key}" for key in keys]
        if not parts:
            raise ValueError(f"{path}: no rows")
        return padded(grouped(parts), options.align, where, **readers[0].about())
    if options.labels_from is None:
        found, about = _steps(files, options)
    else:
        found, about = _beside(files, options)
    return padded(found, options.align, [str(f) for f in files], **about)


def _readers(files: Sequence[Path], options: Reading) -> list[Any]:
    classes = _classes(files, options)
    readers = [_reader(file, options, classes) for file in files]
    for reader in readers:
        if not reader.table:
            raise ValueError(
                f"{reader.path}: sequences are read from tables, such as .csv"
            )
    return readers


def _steps(files: Sequence[Path], options: Reading) -> tuple[list[Any], dict[str, Any]]:
    """Each file as one sequence, and the names of columns and classes."""
    readers = _readers(files, options)
    found = []
    for reader in readers:
        parts = [(x, y, [""] * len(x)) for x, y, _ in reader.parts()]
        if not parts:
            raise ValueError(f"{reader.path}: no rows")
        found += grouped(parts)
        width, first = found[-1][0].shape[1], found[0][0].shape[1]
        if width != first:
            raise ValueError(
                f"{reader.path}: expected {first} features as in {files[0]}, got "
                f"{width}"
            )
    return found, readers[0].about()


def _beside(
    files: Sequence[Path], options: Reading
) -> tuple[list[Any], dict[str, Any]]:
    """As :func:`_steps`, with labels that lie in files of their own."""
    source = _existing(options.labels_from or "")
    others = _files(source)
    if len(others) != len(files):
        raise ValueError(
            f"{source}: expected {len(files)} files of labels, as there are of "
            f"features, got {len(others)}"
        )
    found, about = _steps(files, replace(options, labels=None, classes=None))
    labels = options.labels
    if labels is None:
        names = _reader(others[0], replace(options, features=None, classes=None)).names
        labels = list(range(len(names)))
    chosen = replace(options, features=[], labels=labels)
    beside, more = _steps(others, chosen)
    pairs = [(x, y) for (x, _), (_, y) in zip(found, beside, strict=True)]
    return pairs, {**more, "features": about["features"]}


def unlabelled(source: str | Path, options: Reading) -> Iterator[Examples]:
    """As :func:`stream` without the labels' columns, which need not be there."""
    path = _existing(source)
    plain = replace(options, labels=None, classes=None, labels_from=None)
    if not _has_images(path) and options.features is None:
        reader = _reader(_files(path)[0], plain)
        if reader.table:
            left = {str(c) for c in columns.several(options.labels)}
            left |= {reader.names[int(c)] for c in left if _numbered(c, reader.names)}
            left |= {str(options.sequence)}
            rest: Any = [i for i, name in enumerate(reader.names) if name not in left]
            plain = replace(plain, features=rest)
    return stream(path, plain)


def _numbered(column: str, names: Sequence[str]) -> bool:
    number = column.removeprefix("-").isdigit() and column not in names
    return number and -len(names) <= int(column) < len(names)
