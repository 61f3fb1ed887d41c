"""``dl4py predict`` and ``dl4py evaluate``: a model on files of data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dl4py import evaluation, serializer
from dl4py.commands import output
from dl4py.commands.found import Found, progress
from dl4py.config.yaml import load
from dl4py.data import Examples, Reading, stream
from dl4py.data.reading import unlabelled
from dl4py.network import Network
from dl4py.registry import Named, canonical, suggest

BATCH = 1024
METRICS = {canonical(name): getattr(evaluation, name) for name in evaluation.__all__}


def reading(config: Path | None, given: Mapping[str, Any]) -> Reading:
    """How data is read: what ``fit``'s configuration says, and the command's own words.

    Args:
        config: the YAML of ``dl4py fit``, of which ``data.read`` counts.
        given: words of :class:`Reading`.
    """
    found: dict[str, Any] = {}
    if config is not None:
        content = load(config.read_text(encoding="utf-8"))
        found = dict((content.get("data") or {}).get("read") or {})
        known = {f.name for f in fields(Reading)}
        for name in found:
            if name not in known:
                hint = suggest(name, known)
                raise ValueError(f"{config}: data.read.{name}: unknown: {hint}")
    return Reading(**{**found, **given})


def predict(model: Path, source: Path, out: Path, force: bool, how: Reading) -> Found:
    """Write a model's predictions for each row of ``source`` into a CSV.

    A row of a classifier's is the class and each class's probability; of a regression
    the numbers. Of a sequence every step that counts is a row of its own. Rows go
    through in batches; a table is never whole in memory.
    """
    output.new_file(out, force)
    net = _opened(model)
    head: list[str] = []
    count = 0
    names = how.class_names
    labels = how.labels if isinstance(how.labels, list) else [how.labels]
    with output.rows(out, force) as file:
        for x, _, x_mask, y_mask in _batches(net, unlabelled(source, how), "predict"):
            found = _applied(net, source, x, x_mask, y_mask)
            p = _only(found)
            if p.dim() not in (2, 3):
                raise ValueError(
                    f"{model}: predicts arrays {list(p.shape)}; a CSV holds rows"
                )
            if not head:
                classified = _classifies(net)
                outputs = _columns(p.shape[1], names if classified else labels)
                head = ["class"] * classified + outputs
                file.writerow(["example", "step"] * (p.dim() == 3) + head)
            file.writerows(
                _rows(
                    p, count, x_mask if y_mask is None else y_mask, outputs, classified
                )
            )
            count += len(p)
    data = {"out": str(out), "examples": count, "columns": head}
    return Found(data, [f"{count:,} examples predicted: {out}"])


def evaluate(model: Path, source: Path, metric: str | None, how: Reading) -> Found:
    """DL4J's table of a model on labelled data.

    Args:
        metric: a class of :mod:`dl4py.evaluation`; default: an Evaluation of a softmax,
            EvaluationBinary of sigmoids, else a RegressionEvaluation.
    """
    net = _opened(model)
    if len(net.plan.outputs) > 1:
        raise ValueError(
            f"{model}: has the outputs {', '.join(net.plan.outputs)}; evaluate takes "
            "one. Use net.evaluate(data, {name: metric})"
        )
    counts = None
    for piece in stream(source, how):
        if counts is None:
            counts = _metric(net, metric, piece)
        for x, y, x_mask, y_mask in _batches(net, [piece], "evaluate"):
            if y is None:
                raise ValueError(
                    f"{source}: no labels to compare with; name their columns with "
                    "--labels"
                )
            p = _only(_applied(net, source, x, x_mask, y_mask))
            if p.shape != y.shape:
                raise ValueError(
                    f"{source}: labels: the network gives {p.shape[1]} outputs, the "
                    f"data has {y.shape[1]} labels"
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


def _opened(model: Path) -> Network:
    return serializer.restore(model)


def _batches(net: Network, pieces: Any, what: str) -> Iterator[tuple[Any, ...]]:
    """(x, labels, features mask, labels mask), in the network's dtype."""
    first = next(net.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype

    def batches() -> Iterator[tuple[Any, ...]]:
        for piece in pieces:
            for batch in piece.loader(BATCH):
                parts = [*batch, None, None][:4]
                yield tuple(_in(dtype, part) for part in parts)

    return progress(batches(), what)


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


def _classifies(net: Network) -> bool:
    return _activation(net) in ("softmax", "logsoftmax")


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


def _columns(count: int, names: Any) -> list[str]:
    known = names is not None and len(names) == count and None not in names
    return [str(n) for n in names] if known else [str(i) for i in range(count)]


def _rows(
    p: Tensor, start: int, mask: Tensor | None, names: list[str], classified: bool
) -> Iterator[list[Any]]:
    """A line for each example, or for each step of it that counts."""
    rows = p if p.dim() == 2 else p.movedim(1, 2).reshape(-1, p.shape[1])
    texts = output.shortest(
        rows.float().numpy() if rows.dtype.itemsize < 4 else rows.numpy()
    )
    best = rows.argmax(1).tolist()
    steps = 1 if p.dim() == 2 else p.shape[2]
    for i, text in enumerate(texts):
        at, step = divmod(i, steps)
        if p.dim() == 3 and mask is not None and not mask[at, step]:
            continue
        place = [start + at, step] if p.dim() == 3 else []
        yield [*place, *([names[best[i]]] if classified else []), *text]
