"""DL4J's model zips ↔ networks: :func:`restore` and :func:`save`."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from dl4py.config import NeuralNetConfiguration
from dl4py.config.codec import DL4JFormatError, at, parse, replace
from dl4py.config.eras import TODAY, Era, recognise
from dl4py.config.settings import data_type
from dl4py.io.archive import (
    CLASSES,
    COEFFICIENTS,
    CONFIGURATION,
    NO_PARAMS,
    NORMALIZER,
    OWN_STATE,
    UPDATER_STATE,
    ModelReader,
    write_model,
)
from dl4py.io.arrays import TYPES, ArrayStream, header_bytes, write_elements
from dl4py.layers import Convolution1D, View
from dl4py.layers.convolutional import as_it_is
from dl4py.network import Network, classes
from dl4py.network.build import DTYPES, build
from dl4py.network.tracks import Track
from dl4py.normalizers import Normalizer, read_normalizer, write_normalizer
from dl4py.normalizers.files import is_custom

_TORCH = {  # element types that parameters may have
    "DOUBLE": torch.float64,
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BFLOAT16": torch.bfloat16,
}


def restore(
    path: str | os.PathLike[str] | IO[bytes],
    dtype: torch.dtype | str | None = None,
    dl4j_exact: bool = True,
    release: str | None = None,
) -> Network:
    """A network from a model zip that DL4J 0.5.0 to 1.0.0-M2.1 wrote.

    It predicts what Java predicted, and ``fit`` goes on as Java would: parameters,
    running statistics, updater state, iteration and epoch come from the file.

    Args:
        path: a path, or a binary file that can seek.
        dtype: of the network; default: that of the file's parameters.
        dl4j_exact: whether DL4J's faults are reproduced too.
        release: that of DL4J which wrote the file, e.g. ``"1.0.0-M1"``; needed only
            where the file does not tell how kernels of :class:`Convolution1D` lie,
            which a warning says: beta7 wrote them otherwise than M1.

    Returns:
        the network in eval mode.

    What old releases wrote is read as M2.1 reads it, and what M2.1 drops is kept:
    ``dl4py inspect`` says what. Java objects in a file are never read; a warning names
    them.

    Raises:
        DL4JFormatError: where the file is not what DL4J writes, or has a layer that is
            a class of somebody's own without a twin here; names entry and place.
        TypeError, ValueError: where an argument is none of these.

    DL4J: org.deeplearning4j.util.ModelSerializer
    """
    if not isinstance(dl4j_exact, bool):
        raise TypeError(
            f"restore(dl4j_exact=...): expected True or False, got {dl4j_exact!r}"
        )
    try:
        wanted = None if dtype is None else data_type(dtype)
    except ValueError as error:
        raise ValueError(f"restore(dtype=...): {error}") from None
    with ModelReader(path) as reader:
        era, net = _planned(reader, dl4j_exact)  # counts and shapes, no memory yet
        _warn_of_objects(reader)
        with era.assumed():
            if NORMALIZER in reader:
                net.normalizer = _normalizer(reader)
            if CLASSES in reader:
                where = f"{reader.name}:{CLASSES}"
                net.classes = classes.names(reader.raw(CLASSES), where)
            count = net.num_params()
            if not count:
                _expect_empty(reader)
                return net.to_empty(device="cpu").eval()
            if reader.size(COEFFICIENTS) == 0:
                raise DL4JFormatError(
                    f"{reader.name}:{COEFFICIENTS}: missing, the network has {count} "
                    "parameters"
                )
            with reader.array(COEFFICIENTS) as stream:
                _check(stream, reader, COEFFICIENTS, count)
                torch_first = _kernels_of(net, era, stream, release, reader.name)
                net.conf = replace(net.conf, data_type=wanted or stream.header.type)
                net.to(DTYPES[net.conf.data_type]).to_empty(device="cpu")
                for view in net.views():
                    _fill(stream, view, view.tensor, torch_first)
            with at(f"{reader.name}:{CONFIGURATION}: $"):
                optimizer = net.optimizer  # once: it looks at all layers each time
                segments = _as_written(list(optimizer.segments()), era)
            entry = next(
                (e for e in (UPDATER_STATE, OWN_STATE) if reader.size(e)), None
            )
            if entry is not None:
                with reader.array(entry) as stream:
                    numbers = sum(track.view.size for _, track in segments)
                    _check(stream, reader, entry, numbers)
                    for name, track in segments:
                        state = optimizer.state[track.tensor][name]
                        _fill(stream, track.view, state, torch_first)
    return net.eval()


def _normalizer(reader: ModelReader) -> Normalizer | bytes:
    """The normalizer of the file; of a Java class of somebody's own the bytes."""
    data = reader.raw(NORMALIZER)
    if is_custom(data):
        return data
    return read_normalizer(data, f"{reader.name}:{NORMALIZER}")


def _planned(reader: ModelReader, dl4j_exact: bool) -> tuple[Era, Network]:
    """The era of the file, and the network on the meta device."""
    text = reader.text()
    try:
        content = parse(text)
        conf = NeuralNetConfiguration.from_dict(content)
        era = recognise(content)
        with era.assumed(), at("$"):
            return era, build(conf, dl4j_exact, draw=False)
    except DL4JFormatError as error:
        where = f"{reader.name}:{CONFIGURATION}"
        raise DL4JFormatError(f"{where}: {error}") from error


RELEASES = ("beta7", "M1", "M1.1", "M2", "M2.1")  # that state formats of 1-D layers


def _kernels_of(
    net: Network, era: Era, stream: ArrayStream, release: str | None, name: str
) -> bool:
    """Whether kernels of one axis lie as torch's: up to beta7, later time comes first.

    M2 was the first to write vectors; of a row that states formats nothing tells.
    """
    word = None if release is None else release.removeprefix("1.0.0-")
    if word is not None and word not in RELEASES:
        raise ValueError(
            f"restore(release=...): expected one of {', '.join(RELEASES)}, got "
            f"{release!r}; older files tell it themselves"
        )
    kernels = [node for node in net.nodes if isinstance(node.layer, Convolution1D)]
    if not kernels or era.releases != TODAY:
        return bool(kernels)
    if word is not None or len(stream.header.shape) == 1:
        return word == "beta7"
    warnings.warn(
        f"{name}: the kernels of {kernels[0].name} are read as 1.0.0-beta7 wrote them; "
        "the file could be of M1 or M1.1, which wrote them otherwise: "
        "restore(..., release='1.0.0-M1'), or '1.0.0-beta7' to be sure of it",
        stacklevel=3,
    )
    return True


def _as_written(segments: list[tuple[str, Track]], era: Era) -> list[tuple[str, Track]]:
    """The updater's state in the file's order: up to 0.8.0 one parameter at a time."""
    if not era.state_by_parameter:
        return segments
    places = {id(track): i for i, (_, track) in reversed([*enumerate(segments)])}
    return sorted(segments, key=lambda segment: places[id(segment[1])])


def _warn_of_objects(reader: ModelReader) -> None:
    found = [f"{entry} ({lost})" for entry, lost in reader.skipped().items()]
    if found:
        warnings.warn(
            f"{reader.name}: Java objects are never read, left out: {'; '.join(found)}",
            stacklevel=3,
        )


def _check(stream: ArrayStream, reader: ModelReader, entry: str, count: int) -> None:
    where = f"{reader.name}:{entry}"
    if stream.header.type not in _TORCH:
        raise DL4JFormatError(f"{where}: parameters of type {stream.header.type}")
    if stream.header.length != count:
        raise DL4JFormatError(
            f"{where}: {stream.header.length} numbers, the configuration implies "
            f"{count}"
        )


def _expect_empty(reader: ModelReader) -> None:
    if reader.size(COEFFICIENTS):
        with reader.array(COEFFICIENTS) as stream:
            _check(stream, reader, COEFFICIENTS, 0)


def _in_place(view: View, t: Tensor) -> bool:
    """Whether the tensor's own memory is DL4J's segment."""
    whole = t.is_contiguous() and view.part is None
    return whole and view.flat(t).data_ptr() == t.data_ptr()


def _fill(stream: ArrayStream, view: View, t: Tensor, torch_first: bool) -> None:
    t = t.detach()
    if torch_first and isinstance(view.owner, Convolution1D) and t.dim() == 3:
        view = dataclasses.replace(view, shaped=as_it_is)
    same = t.dtype == _TORCH[stream.header.type] and t.dtype != torch.bfloat16
    if same and t.device.type == "cpu" and _in_place(view, t):
        stream.fill(t.view(-1).numpy())
    else:
        values = torch.from_numpy(stream.take(view.size))
        view.fill(values.to(device=t.device, dtype=t.dtype), t)


def save(
    model: Any,
    path: str | os.PathLike[str] | IO[bytes],
    allow_difference: bool = False,
) -> None:
    """Write a network as a model zip that DL4J 1.0.0-M2.1 opens and trains on.

    Args:
        model: a :class:`~dl4py.network.Network`, restored or built, or a
            LightningModule around one. Of what is pruned or parametrized the present
            value is written, a plain parameter for DL4J, and a warning says so.
        path: a path, which is replaced in one step or left as it was; or a binary file.
            A file that is replaced hands on its permissions, and owner and group where
            the process may set them; a new one gets those of any new file. Links are
            followed; other hard links keep the old content.
        allow_difference: write also where DL4J's predictions would differ.

    Raises:
        ValueError: where DL4J's predictions on ordinary data would differ; names the
            items. Where the path is a folder, a device or a pipe.
        FileNotFoundError: where the path's folder does not exist.

    DL4J: org.deeplearning4j.util.ModelSerializer
    """
    net = getattr(model, "network", model)
    if not isinstance(net, Network):
        raise TypeError(
            "save(model, path): expected a network of dl4py, got "
            f"{type(model).__name__}"
        )
    _warn_of_differences(net, allow_difference)
    _warn_of_leaves(net)
    conf = replace(
        net.conf,
        iteration_count=net.clock.iteration,
        epoch_count=net.clock.epoch,
        data_type=_data_type(net),
    )
    content = conf.to_dict()
    arrays: dict[str, tuple[int, Any]] = {}
    rules = net.optimizer.rules
    in_java = all(getattr(rule.updater, "java_state", True) for rule in rules)
    for entry, segments in (
        (COEFFICIENTS, [(view, view.tensor) for view in net.views()]),
        (UPDATER_STATE if in_java else OWN_STATE, _state(net)),
    ):
        if segments:
            arrays[entry] = _entry(segments, conf.data_type)
    if not net.num_params():
        arrays = {COEFFICIENTS: (0, _nothing), NO_PARAMS: (0, _nothing)}
    if net.normalizer is not None:
        given = net.normalizer
        data = given if isinstance(given, bytes) else write_normalizer(given)
        arrays[NORMALIZER] = (len(data), lambda file: file.write(data))
    if net.classes:
        text = classes.written(net.classes).encode()
        arrays[CLASSES] = (len(text), lambda file: file.write(text))
    write_model(path, content, arrays)


def _nothing(file: IO[bytes]) -> None:
    return None


def _state(net: Network) -> list[tuple[View, Tensor]]:
    optimizer = net.optimizer
    return [
        (track.view, optimizer.state[track.tensor][name])
        for name, track in optimizer.segments()
    ]


def _data_type(net: Network) -> str:
    first = next(net.parameters(), None)
    if first is None:
        return str(net.conf.data_type)
    return next(name for name, dtype in DTYPES.items() if dtype == first.dtype)


def _entry(segments: list[tuple[View, Tensor]], type: str) -> tuple[int, Any]:
    count = sum(view.size for view, _ in segments)
    header = header_bytes((count,), type)

    def write(file: IO[bytes]) -> None:
        file.write(header)
        for part in _parts(segments, _TORCH[type]):
            write_elements(part, file)

    return len(header) + count * np.dtype(TYPES[type][0]).itemsize, write


def _parts(
    segments: list[tuple[View, Tensor]], dtype: torch.dtype
) -> Iterator[np.ndarray[Any, Any]]:
    for view, t in segments:
        # of half types the state is float32: DL4J's has the network's dtype
        flat = view.flat(t.detach()).to("cpu", dtype)
        bits = flat.view(torch.uint16) if flat.dtype == torch.bfloat16 else flat
        yield bits.contiguous().numpy()


def _warn_of_leaves(net: Network) -> None:
    found = [
        f"{view.node}.{view.attribute} ({', '.join(view.leaves)})"
        for view in net.views()
        if view.computed
    ]
    if found:
        warnings.warn(
            "DL4J knows no pruned or parametrized tensors: the file holds the present "
            f"values as plain parameters of {'; '.join(found)}",
            stacklevel=3,
        )


def _warn_of_differences(net: Network, allow: bool) -> None:
    if net.dl4j_exact:
        return
    first = next(net.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    predictions = [
        f"{node.name}: {line}"
        for node in net.nodes
        for line in node.layer.predicts_differently(dtype)
    ]
    if predictions and not allow:
        raise ValueError(
            "save(model, path): DL4J would predict something else: "
            f"{'; '.join(predictions)}. Build the network with dl4j_exact=True, or "
            "pass allow_difference=True"
        )
    if rest := net.differs():
        warnings.warn(
            f"DL4J will differ from this network in: {'; '.join(rest)}", stacklevel=3
        )
