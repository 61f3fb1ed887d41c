"""From any model file to any other: :func:`convert`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

from dl4py.formats import checkpoint, code, program, tensors
from dl4py.formats.reading import kind_of, load
from dl4py.io.replacing import replacing
from dl4py.network import Network
from dl4py.serializer import save

_UNTRAINED = [
    "the updaters' state and the counters: it predicts, and is not trained on",
    "masks: every step of every example counts",
]


@dataclass(frozen=True)
class Options:
    """What only some formats heed.

    Args:
        shapes: of an example at each input, for ``.pt2`` and ``.onnx``, where the
            configuration does not say it; ``None``: an axis of any length.
        labels: the names of the classes, which ``.pt2`` and ``.onnx`` keep; default:
            those that the old file knows.
        allow_difference: write a zip although DL4J would predict something else.
    """

    shapes: Sequence[tuple[int | None, ...]] = ()
    labels: Sequence[str] = ()
    allow_difference: bool = False


@dataclass(frozen=True)
class Converted:
    """What became of a file.

    Args:
        read, written: the kinds of the two files.
        left_out: what the new file does not hold, a sentence each.
        about: what else is to know, e.g. the shapes of inputs.
    """

    read: str
    written: str
    left_out: list[str]
    about: dict[str, Any] = field(default_factory=dict)


def _zip(
    net: Network, file: IO[bytes], options: Options
) -> tuple[list[str], dict[str, Any]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        save(net, file, options.allow_difference)
    left = [str(w.message) for w in told]
    if not net.dl4j_exact:
        left.append("dl4j_exact=False: it is opened as DL4J computes, unless asked for")
    optimizer = net.optimizer
    foreign = {rule.name for rule in optimizer.rules if rule.inner is not None}
    if foreign:
        left.append(f"the state of {', '.join(sorted(foreign))}, which DL4J lacks")
    if optimizer.solution is not None:
        left.append("what the solver has learnt of the curvature")
    return left, {}


def _checkpoint(
    net: Network, file: IO[bytes], options: Options
) -> tuple[list[str], dict[str, Any]]:
    checkpoint.write(net, file)
    return [], {}


def _tensors(
    net: Network, file: IO[bytes], options: Options
) -> tuple[list[str], dict[str, Any]]:
    tensors.write(net, file)
    return [], {}


def _program(
    net: Network, file: IO[bytes], options: Options
) -> tuple[list[str], dict[str, Any]]:
    about = program.write_program(net, file, options.shapes, options.labels)
    return list(_UNTRAINED), about


def _onnx(
    net: Network, file: IO[bytes], options: Options
) -> tuple[list[str], dict[str, Any]]:
    type = net.conf.data_type
    about = program.write_onnx(net, file, options.shapes, options.labels)
    rounded = [f"the precision of {type}: it computes in FLOAT"] * (type != "FLOAT")
    return [*_UNTRAINED, *rounded], about


def _source(
    net: Network, file: IO[bytes], options: Options
) -> tuple[list[str], dict[str, Any]]:
    file.write(code.source(net.conf).encode())
    left = ["parameters and the updaters' state: it says how the network is built"]
    if net.normalizer is not None:
        left.append("the normalizer")
    if keys := code.unsaid(net.conf):
        left.append(f"keys of the JSON that change nothing here: {', '.join(keys)}")
    return left, {}


Writer = Callable[[Network, IO[bytes], Options], tuple[list[str], dict[str, Any]]]
WRITERS: dict[str, Writer] = {
    ".zip": _zip,
    ".ckpt": _checkpoint,
    ".safetensors": _tensors,
    ".pt2": _program,
    ".onnx": _onnx,
    ".py": _source,
}


def convert(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    force: bool = False,
    shapes: Sequence[tuple[int | None, ...]] = (),
    labels: Sequence[str] = (),
    allow_difference: bool = False,
    dl4j_exact: bool | None = None,
) -> Converted:
    """Write a model file anew, as another kind that the new name's ending says.

    ``.zip``, ``.ckpt`` (Lightning's) and ``.safetensors`` hold the network and can be
    read again: parameters, updaters' state, counters and normalizer bit for bit.
    ``.pt2`` (torch.export) and ``.onnx`` predict in programs without dl4py, from raw
    features and for any number of examples; ``.py`` is the code that builds the
    configuration.

    Args:
        old: a zip of DL4J's, a checkpoint or safetensors; its content says which.
        new: where to; it holds the old file or the whole new one.
        force: whether a file that is there is replaced.
        shapes, labels, allow_difference: as in :class:`Options`.
        dl4j_exact: as in :func:`load`.

    Raises:
        FileExistsError: where ``new`` is there, unless ``force``.
        ValueError: where the network cannot be written so; names the layer. Where the
            ending is none of these.
        DL4JFormatError: where ``old`` cannot be read.
    """
    target = os.fspath(new)
    ending = os.path.splitext(target)[1].lower()
    if ending not in WRITERS:
        raise ValueError(
            f"{target}: expected a name that ends in {', '.join(WRITERS)}; got "
            f"{ending or 'no ending'!r}"
        )
    if not force and os.path.lexists(target):
        raise FileExistsError(f"{target} exists; --force replaces it")
    options = Options(tuple(shapes), tuple(labels), allow_difference)
    kind = kind_of(os.fspath(old))
    net = load(old, dl4j_exact=dl4j_exact)
    options = replace(options, labels=options.labels or net.classes or ())
    with replacing(target, "convert(old, new)") as file:
        left, about = WRITERS[ending](net, file, options)
    if kind == "ckpt":
        left.append("what the Trainer's callbacks, loops and loggers had kept")
    return Converted(kind, ending[1:], left, about)
