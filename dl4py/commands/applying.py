"""``dl4py predict`` and ``dl4py evaluate``: a model on files of data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dl4py import evaluation
from dl4py.commands import output
from dl4py.commands.found import Found, progress
from dl4py.commands.models import opened
from dl4py.config.yaml import load
from dl4py.data import Examples, Images, Reading, stream
from dl4py.data.columns import several
from dl4py.data.reading import unlabelled
from dl4py.network import Network
from dl4py.registry import Named, canonical, suggest

METRICS = {canonical(name): getattr(evaluation, name) for name in evaluation.__all__}


def reading(config: Path | None, given: Mapping[str, Any]) -> Reading:
    """How data is read: what ``fit``'s configuration says, and the command's own words.

    Args:
        config: the YAML of ``dl4py fit``, of which ``data.read`` counts.
        given: words of :class:`Reading`.
    """
    found: dict[str, Any] = {}
    if config is not None:
        try:
            content = load(config.read_text(encoding="utf-8"))
            found = dict(dict(content.get("data") or {}).get("read") or {})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{config}: data.read: {error}") from error
        known = {f.name for f in fields(Reading)}
        for name in found:
            if name not in known:
                hint = suggest(name, known)
                raise ValueError(f"{config}: data.read.{name}: unknown: {hint}")
    return Reading(**{**found, **given})


def predict(
    model: Path, source: Path, out: Path, force: bool, how: Reading, size: int
) -> Found:
    """Write a model's predictions for each row of ``source`` into a CSV.

    A row of a classifier's is the class and each class's probability; of a regression
    the numbers. Images have their file's name before, sequences a row for every step
    that counts. A table goes through in batches and is never whole in memory.
    """
    output.new_file(out, force)
    net = opened(model)
    table = _Rows(net, how)
    with output.rows(out, force) as file:
        pieces = unlabelled(source, how)
        for piece, x, _, x_mask, y_mask in _batches(net, pieces, "predict", size):
            p = _only(_applied(net, source, x, x_mask, y_mask))
            files = piece.files if isinstance(piece, Images) else None
            if not table.count:
                file.writerow(table.head(p, files is not None))
            mask = x_mask if y_mask is None else y_mask
            file.writerows(table.rows(p, mask, files))
    data = {"out": str(out), "examples": table.count, "columns": table.columns}
    return Found(data, [f"{table.count:,} examples predicted: {out}"])


def evaluate(
    model: Path, source: Path, metric: str | None, how: Reading, size: int
) -> Found:
    """DL4J's table of a model on labelled data.

    Args:
        metric: a class of :mod:`dl4py.evaluation`; default: an Evaluation of a softmax,
            EvaluationBinary of sigmoids, else a RegressionEvaluation.
    """
    net = opened(model)
    if len(net.plan.outputs) > 1:
        raise ValueError(
            f"{model}: has the outputs {', '.join(net.plan.outputs)}; evaluate takes "
            "one. Use net.evaluate(data, {name: metric})"
        )
    counts = None
    pieces = stream(source, how)
    for piece, x, y, x_mask, y_mask in _batches(net, pieces, "evaluate", size):
        if counts is None:
            counts = _metric(net, metric, piece)
        if y is None:
            raise ValueError(
                f"{source}: no labels to compare with; name their columns with --labels"
            )
        p = _only(_applied(net, source, x, x_mask, y_mask))
        if p.shape != y.shape:
            raise ValueError(
                f"{source}: labels: the network gives {p.shape[1]} outputs, the data "
                f"has {y.shape[1]} labels"
            )
        counts.update(p, y, *(() if y_mask is None else (y_mask,)))
    if counts is None:
        raise ValueError(f"{source}: no rows")
    name = type(counts).__name__
    told = {"metric": name, "result": json.loads(counts.to_json())}
    scores = getattr(counts, "numbers", ())
    if scores and hasattr(counts, "score_for_metric"):
        told["scores"] = {s: counts.score_for_metric(s) for s in scores}
    return Found(told, [counts.stats()])


def _batches(
    net: Network, pieces: Iterable[Examples], what: str, size: int
) -> Iterator[tuple[Any, ...]]:
    """(piece, x, labels, features mask, labels mask), in the network's dtype."""
    first = next(net.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    batches = ((piece, batch) for piece in pieces for batch in piece.loader(size))
    for piece, batch in progress(batches, what):
        parts = [*batch, None, None][:4]
        yield piece, *(_in(dtype, part) for part in parts)


def _in(dtype: torch.dtype, part: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(_in(dtype, p) for p in part)
    return None if part is None else part.to(dtype)


def _applied(net: Network, source: Path, x: Any, x_mask: Any, y_mask: Any) -> Any:
    try:
        return net.predict(x, x_mask, y_mask)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{source}: {error}") from error


def _only(found: Any) -> Tensor:
    if isinstance(found, tuple):
        raise ValueError(f"expected a network of one output, this has {len(found)}")
    return found  # type: ignore[no-any-return]


def _activation(net: Network) -> str:
    """The name of what the last layer ends with."""
    node = next(n for n in net.nodes if n.name == net.plan.outputs[0])
    conf = node.conf
    while getattr(conf, "activation", None) is None and hasattr(conf, "underlying"):
        conf = conf.underlying
    found = getattr(conf, "activation", None)
    return found.name if isinstance(found, Named) else ""


def _metric(net: Network, name: str | None, data: Examples) -> Any:
    if name is None:
        usual = {"softmax": "evaluation", "sigmoid": "evaluationbinary"}
        name = usual.get(_activation(net), "regressionevaluation")
    if canonical(name) not in METRICS:
        raise ValueError(
            f"--metric: unknown {name!r}: {suggest(canonical(name), METRICS)} "
            f"one of {', '.join(evaluation.__all__)}"
        )
    cls = METRICS[canonical(name)]
    if cls is evaluation.Evaluation and data.classes:
        return cls(labels=list(data.classes))
    if cls is evaluation.RegressionEvaluation and data.labels and not data.classes:
        return cls(columns=list(data.labels))
    return cls()


class _Rows:
    """Predictions as the lines of a CSV.

    Attributes:
        count: the examples so far.
        columns: names of what is predicted.
    """

    def __init__(self, net: Network, how: Reading) -> None:
        self.classified = _activation(net) == "softmax"
        self.known = how.class_names if self.classified else several(how.labels)
        self.count = 0
        self.columns: list[str] = []

    def head(self, p: Tensor, images: bool) -> list[str]:
        """The first line, after a look at the first predictions."""
        if p.dim() not in (2, 3):
            raise ValueError(f"predictions {list(p.shape)} are no rows of a CSV")
        fits = len(self.known or ()) == p.shape[1]
        self.columns = [
            str(x) for x in (self.known if fits else None) or range(p.shape[1])
        ]
        before = ["file"] if images else ["example", "step"] * (p.dim() == 3)
        return [*before, *["class"] * self.classified, *self.columns]

    def rows(
        self, p: Tensor, mask: Tensor | None, files: Sequence[Path] | None
    ) -> Iterator[list[Any]]:
        """A line for each example, or for each step of it that counts."""
        steps = 1 if p.dim() == 2 else p.shape[2]
        values = p if p.dim() == 2 else p.movedim(1, 2).reshape(-1, p.shape[1])
        best = values.argmax(1).tolist()
        half = values.dtype in (torch.float16, torch.bfloat16)
        texts = output.shortest((values.float() if half else values).numpy())
        for i, text in enumerate(texts):
            at, step = divmod(i, steps)
            if p.dim() == 3 and mask is not None and not mask[at, step]:
                continue
            place = [self.count + at, step] if p.dim() == 3 else []
            named = [] if files is None else [files[self.count + at]]
            told = [self.columns[best[i]]] if self.classified else []
            yield [*place, *named, *told, *text]
        self.count += len(p)
