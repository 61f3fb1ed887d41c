"""``dl4py predict`` and ``dl4py evaluate``: a model on files of data."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
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
from dl4py.network.classes import check_order
from dl4py.registry import Named, canonical, suggest
from dl4py.training.evaluated import Judge

_UNLABELLED = "no labels to compare with; name their columns with --labels"
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
    the numbers. Where they are NaN there is no class, and a warning counts them.
    Several outputs stand side by side, their names and a point before those of the
    columns. Images have their file's name before, sequences a row for every step that
    counts. A table goes through in batches, never whole in memory.
    """
    output.new_file(out, force)
    net = opened(model)
    check_order(how.class_names, net.classes, str(model))
    table = _Rows(net, how)
    with output.rows(out, force) as file:
        pieces = unlabelled(source, how)
        for piece, x, _, x_mask, y_mask in _batches(net, pieces, "predict", size):
            p = _several(_applied(net, source, x, x_mask, y_mask))
            files = piece.files if isinstance(piece, Images) else None
            if not table.count:
                file.writerow(table.head(p, files is not None))
            masks = _several(x_mask if y_mask is None else y_mask)
            file.writerows(table.rows(p, masks, files))
    if table.unknowns:
        shown = ", ".join(map(str, table.unknown))
        warnings.warn(
            f"{source}: of {table.unknowns:,} of {table.count:,} examples the "
            f"predictions are NaN, with no class (counted from 0: {shown}"
            f"{', ...' * (table.unknowns > len(table.unknown))}); are there NaN among "
            "their features?",
            stacklevel=2,
        )
    data = {
        "out": str(out),
        "examples": table.count,
        "unknown": table.unknowns,
        "columns": table.columns,
    }
    return Found(data, [f"{table.count:,} examples predicted: {out}"])


def evaluate(
    model: Path, source: Path, metric: str | None, how: Reading, size: int
) -> Found:
    """DL4J's table of a model on labelled data.

    Args:
        metric: a class of :mod:`dl4py.evaluation`; default: an Evaluation of a softmax,
            EvaluationBinary of sigmoids, else a RegressionEvaluation. Of several
            outputs each has its own, by ``"left=ROC,right=Evaluation"``.
    """
    net = opened(model)
    outputs = net.plan.outputs
    how = _by_its_classes(net, how, model)
    wanted = _wanted(metric, outputs)
    counts: dict[str, Any] = {}
    pieces = stream(source, how)
    for piece, x, y, x_mask, y_mask in _batches(net, pieces, "evaluate", size):
        if y is None:
            raise ValueError(f"{source}: {_UNLABELLED}")
        if len(_several(y)) != len(outputs):
            raise ValueError(
                f"{source}: labels: expected an array for each of the outputs "
                f"{', '.join(outputs)}, got {len(_several(y))}; a MultiDataSet of "
                "DL4J's (.bin) holds several"
            )
        found = _several(_applied(net, source, x, x_mask, y_mask))
        masks = _several(y_mask) or (None,) * len(outputs)
        for name, p, one in zip(outputs, found, _several(y), strict=True):
            if p.shape != one.shape:
                raise ValueError(f"{source}: {_unlike(name, p, one)}")
        counts = counts or {n: _metric(net, n, m, piece) for n, m in wanted.items()}
        for name, p, one, mask in zip(outputs, found, _several(y), masks, strict=True):
            try:
                counts[name].update(p, one, *(() if mask is None else (mask,)))
            except ValueError as error:
                raise ValueError(f"{source}: {name}: {error}") from error
    if not counts:
        raise ValueError(f"{source}: no rows")
    if len(outputs) == 1:
        return Found(_told(counts[outputs[0]]), [_text(counts[outputs[0]])])
    shown = [f"{name}\n{_text(one)}" for name, one in counts.items()]
    return Found({name: _told(one) for name, one in counts.items()}, shown)


def judged(model: Path, source: Path, how: Reading, size: int) -> dict[str, Any]:
    """What a report shows of a model of one output on labelled data."""
    net = opened(model)
    how = _by_its_classes(net, how, model)
    judge, classes = Judge(), None
    for piece, x, y, x_mask, y_mask in _batches(
        net, stream(source, how), "evaluate", size
    ):
        p = _applied(net, source, x, x_mask, y_mask)
        if y is None:
            raise ValueError(f"{source}: {_UNLABELLED}")
        if isinstance(p, tuple) or isinstance(y, tuple):
            names = ", ".join(net.plan.outputs)
            raise ValueError(
                f"{model}: a report shows one output, this has {names}; dl4py evaluate "
                "takes several"
            )
        if p.shape != y.shape:
            raise ValueError(f"{source}: {_unlike(net.plan.outputs[0], p, y)}")
        judge.update(p, y, y_mask)
        classes = piece.classes
    found = judge.result()
    if not found:
        raise ValueError(f"{source}: no rows")
    if classes and "classes" in found:
        found["classes"] = list(classes)
    return {**found, "of": f"{model} on {source}"}


def _told(counts: Any) -> dict[str, Any]:
    """A metric in plain types."""
    told = {
        "metric": type(counts).__name__,
        "result": json.loads(counts.to_json()),
    }
    scores = getattr(counts, "numbers", ())
    if scores and hasattr(counts, "score_for_metric"):
        told["scores"] = {s: counts.score_for_metric(s) for s in scores}
    return told


def _by_its_classes(net: Network, how: Reading, model: Path) -> Reading:
    """How labels are read: classes that are not given are the network's, in its order.

    The alphabetical order of those in a file need not be that of training.
    """
    check_order(how.class_names, net.classes, str(model))
    if how.classes is not None or not net.classes or len(several(how.labels)) != 1:
        return how
    return replace(how, classes=list(net.classes))


def _text(counts: Any) -> str:
    """A metric to read: DL4J's text, and the number where that has none."""
    text: str = counts.stats()
    if isinstance(counts, evaluation.EvaluationCalibration):
        text += f"\nExpected calibration error (class-wise): {counts.compute():.4f}"
    return text


def _unlike(name: str, p: Tensor, y: Tensor) -> str:
    """What is said of labels that do not fit an output."""
    if p.dim() != y.dim() or p.shape[2:] != y.shape[2:]:
        return f"labels: {name} gives {list(p.shape)}, the labels are {list(y.shape)}"
    said = (
        f"labels: the network gives {p.shape[1]} outputs, the data has {y.shape[1]} "
        "labels"
    )
    return said + (
        f"; for a column of class numbers or names give --classes {p.shape[1]} or "
        "all the names, in the order of training"
    )


def _wanted(metric: str | None, outputs: Sequence[str]) -> dict[str, str | None]:
    """Each output's metric by name: of ``ROC``, or ``left=ROC,right=Evaluation``."""
    if metric is None or "=" not in metric:
        return dict.fromkeys(outputs, metric)
    found: dict[str, str | None] = dict.fromkeys(outputs)
    for part in metric.split(","):
        output, _, name = (word.strip() for word in part.partition("="))
        if output not in found or not name:
            raise ValueError(
                f"--metric: expected OUTPUT=METRIC, the outputs being "
                f"{', '.join(outputs)}; got {part!r}"
            )
        found[output] = name
    return found


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


def _several(found: Any) -> tuple[Any, ...]:
    """One or many as a tuple."""
    if found is None:
        return ()
    return found if isinstance(found, tuple) else (found,)


def _activation(net: Network, output: str) -> str:
    """The name of what the layer of an output ends with."""
    node = next(n for n in net.nodes if n.name == output)
    conf = node.conf
    while getattr(conf, "activation", None) is None and hasattr(conf, "underlying"):
        conf = conf.underlying
    found = getattr(conf, "activation", None)
    return found.name if isinstance(found, Named) else ""


def _metric(net: Network, output: str, name: str | None, data: Examples) -> Any:
    if name is None:
        usual = {"softmax": "evaluation", "sigmoid": "evaluationbinary"}
        name = usual.get(_activation(net, output), "regressionevaluation")
    if canonical(name) not in METRICS:
        raise ValueError(
            f"--metric: unknown {name!r}: {suggest(canonical(name), METRICS)} "
            f"one of {', '.join(evaluation.__all__)}"
        )
    cls = METRICS[canonical(name)]
    if data.classes and cls not in (evaluation.ROC, evaluation.RegressionEvaluation):
        return cls(labels=list(data.classes))
    if cls is evaluation.RegressionEvaluation and data.labels and not data.classes:
        return cls(columns=list(data.labels))
    return cls()


class _Columns:
    """An output's part of a CSV.

    Attributes:
        names: of what is predicted.
    """

    def __init__(self, classified: bool, known: Sequence[Any], before: str) -> None:
        self.classified, self.known, self.before = classified, known, before
        self.names: list[str] = []

    def head(self, p: Tensor) -> list[str]:
        """The names of the columns, after a look at the first predictions."""
        fits = len(self.known) == p.shape[1]
        if self.classified and self.known and not fits:
            raise ValueError(
                f"classes: expected {p.shape[1]} names, one for each output of the "
                f"network, got {len(self.known)}: {', '.join(map(str, self.known))}"
            )
        self.names = [str(x) for x in (self.known if fits else range(p.shape[1]))]
        return [
            f"{self.before}{name}"
            for name in [*["class"] * self.classified, *self.names]
        ]

    def cells(self, p: Tensor) -> list[list[str]]:
        """Of rows ``[n, columns]``."""
        half = p.dtype in (torch.float16, torch.bfloat16)
        texts = output.shortest((p.float() if half else p).numpy())
        if not self.classified:
            return [list(text) for text in texts]
        names = [*self.names, ""]  # where nothing is known no class is the likeliest
        best = torch.where(p.isnan().any(1), -1, p.argmax(1)).tolist()
        return [[names[k], *text] for k, text in zip(best, texts, strict=True)]


class _Rows:
    """Predictions as the lines of a CSV.

    Attributes:
        count: the examples so far.
        columns: names of what is predicted.
        unknown: the examples with NaN among what is predicted, the first ones of them.
        unknowns: how many these are.
    """

    def __init__(self, net: Network, how: Reading) -> None:
        names = net.plan.outputs
        single = len(names) == 1
        self.outputs = []
        for name in names:
            classified = _activation(net, name) == "softmax"
            classes = how.class_names or net.classes
            known = classes if classified else several(how.labels)
            known = known if single and known else ()
            self.outputs.append(
                _Columns(classified, known, "" if single else f"{name}.")
            )
        self.count = self.unknowns = 0
        self.columns: list[str] = []
        self.unknown: list[int] = []

    def head(self, ps: Sequence[Tensor], images: bool) -> list[str]:
        """The first line, after a look at the first predictions."""
        shapes = [list(p.shape) for p in ps]
        if ps[0].dim() not in (2, 3):
            raise ValueError(f"predictions {shapes[0]} are no rows of a CSV")
        if len({(len(shape), *shape[2:]) for shape in shapes}) > 1:
            raise ValueError(f"predictions {shapes} are no rows of one CSV")
        heads = [one.head(p) for one, p in zip(self.outputs, ps, strict=True)]
        self.columns = [
            name
            for one, names in zip(self.outputs, heads, strict=True)
            for name in names[one.classified :]
        ]
        before = ["file"] if images else ["example", "step"] * (ps[0].dim() == 3)
        return [*before, *(name for names in heads for name in names)]

    def rows(
        self,
        ps: Sequence[Tensor],
        masks: Sequence[Tensor | None],
        files: Sequence[Path] | None,
    ) -> Iterator[list[Any]]:
        """A line for each example, or for each step of it that any mask counts."""
        series = ps[0].dim() == 3
        n, steps = len(ps[0]), ps[0].shape[2] if series else 1
        flat = [p.movedim(1, 2).reshape(-1, p.shape[1]) if series else p for p in ps]
        cells = [one.cells(p) for one, p in zip(self.outputs, flat, strict=True)]
        fits = [m for m in masks if m is not None and m.shape == (n, steps)]
        counts = torch.stack(fits).any(0) if series and fits else None
        self._look(flat, counts, steps)
        for i, parts in enumerate(zip(*cells, strict=True)):
            at, step = divmod(i, steps)
            if counts is not None and not counts[at, step]:
                continue
            place = [self.count + at, step] if series else []
            named = [] if files is None else [files[self.count + at]]
            yield [*place, *named, *(cell for part in parts for cell in part)]
        self.count += n

    def _look(self, flat: Sequence[Tensor], counts: Tensor | None, steps: int) -> None:
        """Count the examples of a batch of which something is NaN."""
        lost = torch.stack([p.isnan().any(1) for p in flat]).any(0)
        if counts is not None:
            lost &= counts.flatten().bool()
        at = sorted({self.count + i // steps for i in lost.nonzero()[:, 0].tolist()})
        self.unknown = [*self.unknown, *at][:3]
        self.unknowns += len(at)
