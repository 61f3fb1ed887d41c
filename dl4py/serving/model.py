"""A model file as something that answers requests."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

import dl4py.ops  # noqa: F401  # a program of torch's may call them
from dl4py.formats import load
from dl4py.network import Network
from dl4py.network.summary import normalizer_of
from dl4py.serving.spec import Array, Arrays, Input, Refused, Spec, carried


class Model(Protocol):
    """What answers: a network, or a program that torch exported."""

    spec: Spec

    def predict(self, given: Arrays) -> dict[str, Array]:
        """Outputs by name for arrays that went through ``spec.taken``."""


def open_model(path: str | os.PathLike[str]) -> Model:
    """The model in a file: DL4J's zip, a checkpoint, safetensors, or torch's ``.pt2``.

    Raises:
        OSError, ValueError: where there is no such file, or it is damaged.

    Example:
        >>> import os, tempfile, dl4py
        >>> from dl4py.config import NeuralNetConfiguration, Output
        >>> chain = NeuralNetConfiguration.builder().layer(Output(n_in=4, n_out=3))
        >>> path = os.path.join(tempfile.mkdtemp(), "model.zip")
        >>> dl4py.save(chain.build().module(dl4j_exact=True), path)
        >>> open_model(path).spec.inputs["input"].shapes
        (('n', 4),)
    """
    if _is_exported(path):
        return Exported(path)
    return Served(load(path))


def answers(
    model: Model, requests: Sequence[Arrays]
) -> list[dict[str, Array] | Refused]:
    """One answer for each request; all go through the model at once where they can.

    Where the model refuses the batch, or gives something else than a row for each,
    every request goes alone, so that one that is bad spoils none beside it.
    """
    if len(requests) > 1:
        with contextlib.suppress(Exception):  # told to the request it belongs to
            edges = np.cumsum([rows(given) for given in requests])
            found = model.predict(
                {
                    name: np.concatenate([r[name] for r in requests])
                    for name in requests[0]
                }
            )
            if all(len(array) == edges[-1] for array in found.values()):
                starts = [0, *edges[:-1]]
                return [
                    {name: array[a:b] for name, array in found.items()}
                    for a, b in zip(starts, edges, strict=True)
                ]
    return [_alone(model, given) for given in requests]


def rows(given: Arrays) -> int:
    """How many rows a request has."""
    return len(next(iter(given.values())))


def _alone(model: Model, given: Arrays) -> dict[str, Array] | Refused:
    try:
        return model.predict(given)
    except (ValueError, TypeError) as error:
        return Refused(400, f"inputs: {_line(error)}")
    except Exception as error:
        return Refused(500, f"the model failed: {type(error).__name__}: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


class Served:
    """A network of dl4py's; its normalizer is applied."""

    def __init__(self, net: Network) -> None:
        self.net = net
        first = next(net.parameters(), None)
        self.dtype = torch.float32 if first is None else first.dtype
        if isinstance(net.normalizer, bytes):
            raise ValueError(
                "serve: the normalizer in this file is a Java class of somebody's own; "
                "set net.normalizer to one of dl4py.normalizers and save it again"
            )
        self.spec = Spec(
            {name: self._input(name) for name in net.plan.inputs},
            net.plan.outputs,
            str(self.dtype).removeprefix("torch."),
            normalizer_of(net),
            labels=net.classes or (),
        )

    def _input(self, name: str) -> Input:
        readers = [step.shapes[0] for step in self.net.door.readers[name]]
        known = [shapes for shapes in readers if shapes]
        common = [s for s in (known or [()])[0] if all(s in more for more in known)]
        return Input(tuple(common), name in self.net.door.indices)

    def predict(self, given: Arrays) -> dict[str, Array]:
        x = tuple(_tensor(given[name], self.dtype) for name in self.spec.inputs)
        found = self.net.predict(x if len(x) > 1 else x[0])
        return _named(
            self.spec.outputs, found if isinstance(found, tuple) else (found,)
        )


class Exported:
    """A program of ``torch.export``'s, run as it is."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        kept = {"dl4py.json": ""}  # what `dl4py convert` tells of it
        try:
            program = torch.export.load(path, extra_files=kept)
            self.module = program.module()
            about = json.loads(kept["dl4py.json"] or "{}")
            given = tuple(map(str, about.get("inputs", ())))
            named = tuple(map(str, about.get("outputs", ())))
            labels = tuple(map(str, about.get("labels", ())))
        except OSError:
            raise
        except Exception as error:  # what is damaged fails in many ways
            raise ValueError(
                f"{os.path.basename(os.fspath(path))}: torch.export.load cannot read "
                f"it: {_line(error)}"
            ) from error
        names = set(program.graph_signature.user_inputs)
        inputs: dict[str, Input] = {}
        self.dtypes: list[torch.dtype] = []
        counts: set[int | None] = set()
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in names:
                value = node.meta.get("val")
                if not isinstance(value, Tensor):
                    raise ValueError(
                        f"{os.path.basename(os.fspath(path))}: input {node.name!r} is "
                        "no tensor; export a module whose arguments are tensors"
                    )
                fixed = [s if isinstance(s, int) else None for s in value.shape]
                counts.add(fixed[0] if fixed else None)
                words = [f"d{i}" if s is None else s for i, s in enumerate(fixed)]
                whole = not value.dtype.is_floating_point
                inputs[node.name] = Input((("n", *words[1:]),), whole)
                self.dtypes.append(value.dtype)
        floating = [d for d in self.dtypes if d.is_floating_point]
        dtype = floating[0] if floating else torch.float32
        count = len(program.graph_signature.user_outputs)
        outputs = (
            ("output",) if count == 1 else tuple(f"output{i}" for i in range(count))
        )
        if len(given) == len(inputs):  # in the order of the program's own
            inputs = dict(zip(given, inputs.values(), strict=True))
        if len(named) == count:
            outputs = named
        fixed_rows = next((c for c in counts if c is not None), None)
        name = str(dtype).removeprefix("torch.")
        self.spec = Spec(inputs, outputs, name, rows=fixed_rows, labels=labels)

    def predict(self, given: Arrays) -> dict[str, Array]:
        pairs = zip(self.spec.inputs, self.dtypes, strict=True)
        with torch.no_grad():
            found = self.module(*(_tensor(given[n], d, cast=True) for n, d in pairs))
        several = isinstance(found, (tuple, list))
        return _named(self.spec.outputs, tuple(found) if several else (found,))


def _tensor(array: Array, dtype: torch.dtype, cast: bool = False) -> Tensor:
    t = torch.from_numpy(np.ascontiguousarray(array))
    return t.to(dtype) if cast or t.is_floating_point() else t


def _named(names: Sequence[str], found: Sequence[Tensor]) -> dict[str, Array]:
    pairs = zip(names, found, strict=True)
    return {name: _array(t) for name, t in pairs}


def _array(t: Tensor) -> Array:
    kind = carried(str(t.dtype).removeprefix("torch."))
    whole = not t.is_floating_point()
    array: Array = (
        t.detach().numpy() if whole else t.detach().to(getattr(torch, kind)).numpy()
    )
    return array


def _is_exported(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            return False
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(
            name.rpartition("/")[2]
            in ("archive_format", "serialized_exported_program.json")
            for name in archive.namelist()
        )
    return False
