"""Every layer, vertex and loss as ONNX: what ONNX Runtime makes of it, beside torch.

``python -m tests.exports [KIND ...]``

builds a network around each kind's example, default and exact, exports it by both of
torch's exporters with a free number of rows, and compares at two numbers of them.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.layers import test_every_layer as layers
from tests.layers import test_vertices as vertices
from tests.losses import test_losses as losses

Given = Tensor | tuple[Tensor, ...]
Made = tuple[nn.Module, Given]
TOLERANCE = 1e-5

# case → what torch's exporters or ONNX lack for it
REFUSED: dict[str, str] = {}


def layer(kind: str, exact: bool = False) -> Made:
    _, x = layers.made(kind, dtype=torch.float32)
    net = layers.network(kind).conf.module(dl4j_exact=exact)
    return net.float().eval(), x


def vertex(kind: str, example: vertices.Example, exact: bool = False) -> Made:
    torch.manual_seed(1)
    graph, xs = vertices.graph_around(kind, example)
    net = graph.build().module(dl4j_exact=exact).float().eval()
    return net, tuple(x.float() for x in xs)


class Judged(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, given: tuple[Tensor, Tensor]) -> Any:
        return self.loss(*given)


def loss(case: str, exact: bool = False) -> Made:
    made = losses.make(case, dl4j_exact=exact).float()
    return Judged(made), losses.data(case, torch.float32)


CASES: dict[str, Callable[..., Made]] = (
    {kind: lambda exact=False, kind=kind: layer(kind, exact) for kind in layers.KINDS}
    | {
        str(case.id): lambda exact=False, values=case.values: vertex(*values, exact)
        for case in vertices.SHAPED
    }
    | {
        f"loss-{case}": lambda exact=False, case=case: loss(case, exact)
        for case in losses.CASES
    }
)


def leaves(x: Given) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


def each(f: Callable[[Tensor], Any], x: Given) -> Any:
    return tuple(map(f, x)) if isinstance(x, tuple) else f(x)


def exported(model: nn.Module, x: Given, dynamo: bool, free: bool = False) -> bytes:
    """The model as an ONNX file; ``free``: for any number of rows."""
    file = io.BytesIO()
    names = [f"x{i}" for i in range(len(leaves(x)))]
    if dynamo:
        rows = (each(lambda _: {0: torch.export.Dim.DYNAMIC}, x),) if free else None
        program = torch.onnx.export(
            model, (x,), dynamo=True, verbose=False, dynamic_shapes=rows
        )
        program.save(file)
    else:
        axes = {name: {0: "rows"} for name in names} if free else None
        torch.onnx.export(
            model, (x,), file, dynamo=False, input_names=names, dynamic_axes=axes
        )
    return file.getvalue()


def session(file: bytes) -> Callable[[Given], Tensor]:
    """The first output that ONNX Runtime computes."""
    import onnxruntime  # not everyone who imports the cases has it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    made: Any = onnxruntime.InferenceSession(file, options)
    names = [given.name for given in made.get_inputs()]

    def run(x: Given) -> Tensor:
        arrays = (t.numpy() for t in leaves(x))
        return torch.from_numpy(
            made.run(None, dict(zip(names, arrays, strict=True)))[0]
        )

    return run


def off(case: str, dynamo: bool, exact: bool = False) -> float:
    """The largest error of the case's network, beside 1 + the size of what is right."""
    model, x = CASES[case](exact)
    run, worst = session(exported(model, x, dynamo, free=True)), 0.0
    for given in (x, each(lambda t: torch.cat([t.flip(0), t]), x)):
        with torch.no_grad():
            expected, found = model(given), run(given)
        assert found.shape == expected.shape, (found.shape, expected.shape)
        assert expected.count_nonzero(), "there is nothing to compare"
        error = (found - expected).abs() / (1 + expected.abs())
        worst = max(worst, error.max().item())
    return worst


def tried(case: str, dynamo: bool, exact: bool) -> str | None:
    """What is wrong with it, in one line."""
    try:
        error = off(case, dynamo, exact)
    except Exception as e:
        return " ".join(str(e).split()) or type(e).__name__
    return None if error <= TOLERANCE else f"off by {error:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.exports")
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="KIND")
    cases = parser.parse_args().cases
    if odd := [case for case in cases if case not in CASES]:
        parser.error(f"no case {', '.join(odd)}; expected some of {', '.join(CASES)}")
    warnings.simplefilter("ignore")
    failed = 0
    for case in cases:
        start, wrong = time.perf_counter(), []
        for dynamo, exact in itertools.product((True, False), (False, True)):
            if said := tried(case, dynamo, exact):
                wrong.append(f"dynamo={dynamo}, dl4j_exact={exact}: {said}")
        bad = bool(wrong) != (case in REFUSED)
        failed += bad
        result = "FAILED" if bad else "refused" if wrong else "equal"
        seconds = time.perf_counter() - start
        print(f"{case:36} {seconds:5.1f} s  {result}", *wrong, sep="\n    ", flush=True)
    print(f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
