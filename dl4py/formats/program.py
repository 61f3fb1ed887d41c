"""Networks as graphs for programs without dl4py: torch.export and ONNX.

What such a file takes is raw features, what it gives are predictions as
``net.predict(x)``: the normalizer is in it. The number of examples is free.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import torch
from torch import Tensor, nn

from dl4py import ops
from dl4py.config.codec import brief
from dl4py.extras import need
from dl4py.layers import Embedding
from dl4py.network import Network
from dl4py.normalizers import Normalizer

Shape = tuple[int | None, ...]
ROWS = 6  # of the example: graphs may divide them by two or three
FREE = 5  # the example's length of an axis that may be of any
TOLERANCE = 1e-5  # of 1 + what is right


class _Predictor(nn.Module):
    """``net.predict`` as a module, or what one step of its network gives."""

    def __init__(self, net: Network, until: str | None = None) -> None:
        super().__init__()
        self.net, self.until = net, until
        self.scale = net.normalizer

    def forward(self, *xs: Tensor) -> Any:
        x: Any = xs if len(xs) > 1 else xs[0]
        if self.scale is not None:
            x = self.scale.transform(x)
        if self.until is not None:
            walk = self.net._walk(self.net._batch(x))
            return next(flow.x for name, flow in walk if name == self.until)
        found = self.net(x)
        return found if self.scale is None else self.scale.revert_labels(found)


def write_program(
    net: Network, file: IO[bytes], shapes: Sequence[Shape], labels: Sequence[str]
) -> dict[str, Any]:
    """A ``.pt2`` of ``torch.export``, of torch's own operations only."""
    program, about = _exported(net, shapes)
    about |= {"labels": list(labels)}
    extra = {"dl4py.json": json.dumps(about)}
    torch.export.save(program, file, extra_files=extra)
    return about


def write_onnx(
    net: Network, file: IO[bytes], shapes: Sequence[Shape], labels: Sequence[str]
) -> dict[str, Any]:
    """An ``.onnx``, in float32, which is what its runtimes have all operations for.

    Where ONNX Runtime is installed, what it computes is compared with ``net``.
    """
    for module in ("onnx", "onnxscript"):
        need(module, "dl4py writes .onnx")
    net.float()
    program, about = _exported(net, shapes)
    about |= {"labels": list(labels)}
    data = io.BytesIO()
    with _quiet():
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=list(net.plan.inputs),
            output_names=list(net.plan.outputs),
        )
        for key in ("inputs", "outputs", "labels"):
            made.model.metadata_props[key] = json.dumps(about[key])
        made.save(data)
    try:
        runtime: Any = need("onnxruntime", "dl4py checks .onnx")
    except ImportError:
        about["checked"] = False
    else:
        _check_onnx(net, data.getvalue(), runtime, about["inputs"])
        about["checked"] = True
    file.write(data.getvalue())
    return about


def _exported(net: Network, shapes: Sequence[Shape]) -> tuple[Any, dict[str, Any]]:
    """The program, and the shapes and names that it has."""
    if net.normalizer is not None and not isinstance(net.normalizer, Normalizer):
        raise ValueError(
            "the normalizer beside this network is a Java class of somebody's own, "
            "which has no graph; load the network, set net.normalizer and save it"
        )
    net.eval()
    sizes = _sizes(net, shapes)
    xs = _examples(net, sizes, ROWS)
    _refuse_noise(net, xs)
    try:
        program = _program(_Predictor(net), xs, sizes)
    except Exception as error:
        place = _culprit(net, xs, sizes)
        free = any(None in size for size in sizes)
        hint = "; give its lengths in place of any" * free
        raise ValueError(f"{place} cannot be exported{hint}: {brief(error)}") from error
    alike = program.module()
    for rows in (ROWS, 2 * ROWS):
        given = _examples(net, sizes, rows)
        _compare(net, given, alike(*given), "torch.export")
    names = [["n", *("any" if s is None else s for s in size)] for size in sizes]
    about = {
        "inputs": dict(zip(net.plan.inputs, names, strict=True)),
        "outputs": list(net.plan.outputs),
    }
    return program, about


def _refuse_noise(net: Network, xs: tuple[Tensor, ...]) -> None:
    """Refuse what draws in test mode too, as one of DL4J's faults is."""
    x = xs if len(xs) > 1 else xs[0]
    try:
        first, again = (net.feed_forward(x) for _ in range(2))
    except (ValueError, RuntimeError) as error:
        shapes = ", ".join(str(list(x.shape)) for x in xs)
        raise ValueError(
            f"shape: {shapes} does not fit the network: {brief(error)}"
        ) from error
    if not isinstance(first, dict):
        first, again = (dict(enumerate(found)) for found in (first, again))
    for node, a, b in zip(net.nodes, first.values(), again.values(), strict=True):
        if not torch.equal(a.nan_to_num(), b.nan_to_num()):
            raise ValueError(
                f"layer {node.name!r} ({type(node.conf).__name__}) cannot be exported: "
                "it draws noise in test mode too, as DL4J does; --no-dl4j-exact, or "
                "dl4j_exact=False, is without"
            )


def _program(model: nn.Module, xs: tuple[Tensor, ...], sizes: Sequence[Shape]) -> Any:
    free = tuple(
        {i: torch.export.Dim.DYNAMIC for i, s in enumerate((None, *size)) if s is None}
        for size in sizes
    )
    with torch.no_grad(), ops.alone(), _quiet():
        program = torch.export.export(
            model, xs, dynamic_shapes={"xs": free}, strict=False
        )
    foreign = {str(n.target) for n in program.graph.nodes if "dl4py" in str(n.target)}
    if foreign:
        raise ValueError(f"it needs {', '.join(sorted(foreign))}")
    return program


def _culprit(net: Network, xs: tuple[Tensor, ...], sizes: Sequence[Shape]) -> str:
    """The first step of the network with which it cannot be exported, by bisection."""
    low, high = 0, len(net.nodes) - 1
    while low < high:
        middle = (low + high) // 2
        try:
            _program(_Predictor(net, net.nodes[middle].name), xs, sizes)
            low = middle + 1
        except Exception:
            high = middle
    node = net.nodes[low]
    return f"layer {node.name!r} ({type(node.conf).__name__})"


def _sizes(net: Network, shapes: Sequence[Shape]) -> list[Shape]:
    """The axes of each input behind the first, as given, or as layers say."""
    names = net.plan.inputs
    if shapes:
        if len(shapes) != len(names):
            raise ValueError(
                f"shape: expected {len(names)}, one for each of {', '.join(names)}, "
                f"got {len(shapes)}"
            )
        return list(shapes)
    return [_implied(net, name) for name in names]


def _implied(net: Network, name: str) -> Shape:
    """What the layers that read an input say of it."""
    said: tuple[int | str, ...] = ()
    for node in net.nodes:
        for shape in node.step.shapes[0] if name in node.step.inputs else ():
            known = all(isinstance(size, int) for size in shape[1:])
            if known:
                return tuple(size for size in shape[1:] if isinstance(size, int))
            said = said or shape[1:]
    wanted = ",".join(map(str, said)) or "a,b,..."
    raise ValueError(
        f"shape: the configuration does not say how large the input {name!r} is; give "
        f"--shape {wanted} (without the number of examples; any: of any length)"
    )


def _examples(net: Network, sizes: Sequence[Shape], rows: int) -> tuple[Tensor, ...]:
    """Features of ``rows`` examples; what is looked up is of the first word."""
    generator = torch.Generator().manual_seed(rows)
    first = next(net.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    looked_up = {
        name
        for node in net.nodes
        if isinstance(node.layer, Embedding)
        for name in node.step.inputs
    }
    found = []
    for name, size in zip(net.plan.inputs, sizes, strict=True):
        shape = (rows, *(FREE if s is None else s for s in size))
        x = torch.rand(shape, generator=generator).to(dtype)
        found.append(x.floor() if name in looked_up else x)
    return tuple(found)


def _compare(net: Network, xs: tuple[Tensor, ...], found: Any, by: str) -> None:
    """Refuse what differs from ``net.predict``."""
    expected = net.predict(xs if len(xs) > 1 else xs[0])
    ours = expected if isinstance(expected, tuple) else (expected,)
    theirs = found if isinstance(found, (tuple, list)) else (found,)
    for name, a, b in zip(net.plan.outputs, ours, theirs, strict=True):
        b = torch.as_tensor(b)
        allowed = TOLERANCE if a.dtype in (torch.float32, torch.float64) else 1e-2
        close = a.shape == b.shape and torch.allclose(
            a, b.detach(), rtol=allowed, atol=allowed, equal_nan=True
        )
        if not close:
            raise ValueError(
                f"output {name!r}: what {by} made of the network computes something "
                "else; please report it"
            )


def _check_onnx(
    net: Network, data: bytes, runtime: Any, inputs: Mapping[str, list[Any]]
) -> None:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(data, options)
    sizes = [tuple(None if s == "any" else s for s in v[1:]) for v in inputs.values()]
    for rows in (ROWS, 2 * ROWS):
        xs = _examples(net, sizes, rows)
        given = {name: x.numpy() for name, x in zip(inputs, xs, strict=True)}
        _compare(net, xs, session.run(None, given), "ONNX Runtime")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters say of themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
