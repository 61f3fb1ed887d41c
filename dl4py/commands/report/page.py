"""The page: what is known of a run in sections, what is not in a sentence each."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from html import escape
from pathlib import Path

from dl4py.commands.report.charts import (
    THIRD,
    WHOLE,
    Line,
    bars,
    lines,
    matrix,
    short,
    smoothed,
)
from dl4py.commands.report.run import Run

STYLE = Path(__file__).with_name("page.css")
SHOWN = 36  # histograms at most
BAND = (-4.0, -2.0, "DL4J's advice: -4 … -2")
STEP = "iteration"


def page(run: Run) -> str:
    """The HTML of a run's report."""
    name = escape(f"{run.model.get('model', 'Run')} · {run.folder.resolve().name}")
    sections = [
        ("Score", _score(run)),
        ("Update to parameter ratios", _ratios(run)),
        ("Activations, gradients, updates", _deviations(run)),
        ("Evaluation", _evaluation(run)),
        ("ROC and calibration", _probabilities(run)),
        ("Layers", _layers(run)),
        ("Weights", _histograms(run, "parameters")),
        ("Learning rates and speed", _speed(run)),
    ]
    body = "".join(
        f'<section id="{_anchor(title)}"><h2>{title}</h2>{"".join(parts)}</section>'
        for title, parts in ((title, list(parts)) for title, parts in sections)
    )
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title, _ in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<link rel="icon" href="data:,">'  # else a browser asks for one
        f"<title>{name}</title><style>{STYLE.read_text()}</style></head><body>"
        f'<header><p class="what">Training report</p><h1>{name}</h1>'
        f'{_begun(run)}{_ranks(run)}<dl class="tiles">{"".join(_tiles(run))}</dl>'
        f'<nav aria-label="Sections">{links}</nav></header>'
        f"<main>{body}</main><footer>Made by <code>dl4py report</code></footer>"
        "</body></html>\n"
    )


def _anchor(title: str) -> str:
    return title.lower().replace(",", "").replace(" ", "-")


def _tiles(run: Run) -> Iterator[str]:
    scores = [y for y in run.score[1] if y is not None]
    found = {}
    if scores:
        found["last score"] = short(scores[-1])
    if "accuracy" in run.evaluation:
        found["accuracy"] = f"{100 * run.evaluation['accuracy']:.2f} %"
    found["iterations"] = f"{len(run.score[0]):,}"
    if run.epochs:
        found["epochs"] = f"{run.epochs:,}"
    if run.model:
        found["parameters"] = f"{run.model['parameters']:,}"
    speed = _values(run, "throughput", "examples_per_second")
    if speed:
        found["examples / s"] = short(round(statistics.median(speed)))
    start, end = run.times
    if end > start:
        found["duration"] = _duration(end - start)
    for name, value in found.items():
        yield f"<div><dt>{name}</dt><dd>{value}</dd></div>"


def _begun(run: Run) -> str:
    if not run.times[0]:
        return ""
    begun = datetime.fromtimestamp(run.times[0], timezone.utc)
    return f'<p class="begun">Begun {begun:%Y-%m-%d %H:%M} UTC</p>'


def _ranks(run: Run) -> str:
    ranks = run.model.get("ranks", 1)
    if ranks == 1:
        return ""
    return (
        f'<p class="begun">Of the {ranks} processes of this run the first one is '
        "shown: its scores, activations and examples per second</p>"
    )


def _values(run: Run, family: str, name: str) -> list[float]:
    _, ys = run.families.get(family, {}).get(name, ((), ()))
    return [y for y in ys if y is not None]


def _duration(seconds: float) -> str:
    """
    >>> _duration(3.21), _duration(62.0), _duration(7500.0)
    ('3.2 s', '1 min 2 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _grid(charts: Sequence[str], kind: str = "grid") -> str:
    return f'<div class="{kind}">{"".join(charts)}</div>' if any(charts) else ""


def _none(text: str) -> str:
    return f'<p class="none">{text}</p>'


def _curves(
    run: Run, family: str, only: Sequence[str] | None = None, shorten: str = ""
) -> list[Line]:
    found = run.families.get(family, {})
    return [
        Line(name.removesuffix(shorten), *curve)
        for name, curve in found.items()
        if only is None or name in only
    ]


def _score(run: Run) -> Iterator[str]:
    xs, ys = run.score
    if not xs:
        yield _none("No iteration has a score.")
        return
    curves = [Line("score", xs, ys, colour=0)]
    if len(xs) >= 50:
        curves[0].faint = True
        weight = 1 - 1 / max(5, len(xs) / 50)
        curves.append(Line("smoothed", xs, smoothed(ys, weight), colour=0))
    positive = [y for y in ys if y is not None and y > 0]
    wide = len(positive) == len(ys) and max(positive) > 100 * min(positive)
    yield _grid(
        [lines("Score by iteration", curves, STEP, "score", log=wide, size=WHOLE)]
    )


def _ratios(run: Run) -> Iterator[str]:
    weights = run.model.get("weights", ())
    chart = lines(
        "log10 of mean |update| / mean |parameter|",
        _curves(run, "update_ratio", weights),
        STEP,
        "log10 ratio",
        band=BAND,
        size=WHOLE,
    )
    if not chart:
        yield _none("No parameter has been updated.")
        return
    yield _grid([chart])
    if run.advice:
        lines_ = "".join(f"<li>{escape(text)}</li>" for text in run.advice.values())
        yield f'<ul class="advice">{lines_}</ul>'
    else:
        yield (
            "<p>A step should change a weight by about a thousandth of its size; no "
            "weight stayed outside of 10<sup>-4</sup> … 10<sup>-2</sup> for ten "
            "reports.</p>"
        )


def _deviations(run: Run) -> Iterator[str]:
    weights = run.model.get("weights", ())
    charts = [
        lines(
            f"Standard deviations: {kind}",
            _curves(run, f"std/{kind}", None if kind == "activations" else weights),
            STEP,
            "deviation",
            log=True,
            size=THIRD,
        )
        for kind in ("activations", "gradients", "updates")
    ]
    yield _grid(charts, "grid three") or _none("No deviations are in this run.")


def _evaluation(run: Run) -> Iterator[str]:
    found = run.evaluation
    if "of" in found:
        yield f"<p>{escape(found['of'])}</p>"
    if "confusion" in found:
        picture = matrix("Confusion matrix", found["confusion"], found["classes"])
        beside = _text(found["stats"]) + _classes(run)
        yield _grid([picture, f'<div class="stack">{beside}</div>'])
    elif "regression" in found:
        yield _text(found["regression"])
    else:
        yield _none(
            "No evaluation is in this run: give the Trainer validation data, and let "
            "<code>validation_step</code> return predictions and labels."
        )


def _text(table: str) -> str:
    return f'<pre class="card" tabindex="0">{escape(table.strip())}</pre>'


def _classes(run: Run) -> str:
    """Precision and recall of each class."""
    counts, names = run.evaluation["confusion"], run.evaluation["classes"]
    rows = []
    for i, name in enumerate(names):
        hit, actual = counts[i][i], sum(counts[i])
        guessed = sum(row[i] for row in counts)
        shares = (hit, guessed), (hit, actual), (2 * hit, guessed + actual)
        rates = [f"{part / n:.4f}" if n else "–" for part, n in shares]
        cells = "".join(f'<td class="number">{v}</td>' for v in [*rates, f"{actual:,}"])
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    head = ["class", "precision", "recall", "F1", "rows"]
    return _table("Classes", head, rows)


def _table(label: str, head: Sequence[str], rows: Sequence[str]) -> str:
    numbers = "precision", "recall", "F1", "rows", "count"
    cells = "".join(
        f'<th scope="col"{" class=number" * (name in numbers)}>{name}</th>'
        for name in head
    )
    return (
        f'<div class="card table" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div>"
    )


def _names(run: Run, count: int) -> list[str]:
    classes = run.evaluation.get("classes", ())
    if count == len(classes):
        return [str(name) for name in classes]
    return [""] if count == 1 else [str(i) for i in range(count)]


def _probabilities(run: Run) -> Iterator[str]:
    found = run.evaluation.get("roc", ())
    names = _names(run, len(found))
    curves = [
        Line(f"{name} (AUC {short(one['area'] or 0)})".strip(), one["x"], one["y"])
        for name, one in zip(names, found, strict=True)
    ]
    rates = "false positive rate", "true positive rate"
    title = "ROC" + ": each class against the others" * (len(found) > 1)
    pictures = [lines(title, curves, *rates, unit=True)]
    single = run.evaluation.get("calibration", ())
    if single:
        curves = [
            Line("a class" if i == 0 else "", one["x"], one["y"], faint=True, colour=6)
            for i, one in enumerate(single)
        ]
        whole = run.evaluation["calibration_of_all"]
        curves.append(Line("all classes", whole["x"], whole["y"], colour=0))
        labels = "mean predicted probability", "share that came true"
        pictures.append(lines("Reliability diagram", curves, *labels, unit=True))
    yield _grid(pictures)
    if not found:
        yield _none("No probabilities were evaluated, from which ROC curves are drawn.")
    if not single:
        yield _none(
            "No probabilities of classes were evaluated, whose calibration could be "
            "seen."
        )
    else:
        error = run.evaluation["calibration_error"]
        yield (
            "<p>On the diagonal what is predicted with 70 % comes true 7 times in 10. "
            f"Class-wise expected calibration error: {short(error)}.</p>"
        )


def _layers(run: Run) -> Iterator[str]:
    rows = run.model.get("layers", ())
    if not rows:
        yield _none("The run says nothing about its layers.")
        return
    ours = any("updater" in row for row in rows)
    head = ["layer", "type", "in → out", "parameters", "count"]
    head += ["activation", "updater"] * ours
    body = []
    for row in rows:
        sizes = (row["n_in"], row["n_out"])
        known = sizes != (None, None)
        shapes = ", ".join(
            f"{name} {'×'.join(map(str, shape)) or '1'}"
            for name, shape in row["parameters"].items()
        )
        values = [
            row["type"],
            " → ".join("" if s is None else str(s) for s in sizes) if known else "",
            shapes,
        ]
        values = [f"<td>{escape(str(v))}</td>" for v in values]
        values.append(f'<td class="number">{row["count"]:,}</td>')
        if ours:
            more = (row.get("activation") or "", row.get("updater") or "")
            values += [f'<td class="long">{escape(v)}</td>' for v in more]
        name = f'<th scope="row">{escape(row["name"])}</th>'
        body.append(f"<tr>{name}{''.join(values)}</tr>")
    total = sum(row["count"] for row in rows)
    yield _table("Layers", head, body)
    yield (f"<p>{total:,} parameters and statistics in {len(rows)} layers.</p>")


def _histograms(run: Run, kind: str) -> Iterator[str]:
    found = run.histograms.get(kind, {})
    if not found:
        yield _none("No histograms are in this run.")
        return
    charts = [bars(name, one) for name, one in list(found.items())[:SHOWN]]
    yield _grid(charts, "small")
    last = max(one["iteration"] for one in found.values())
    more = f" {len(found) - SHOWN} more are left out." * (len(found) > SHOWN)
    yield (
        f"<p>How often each size occurs after {last:,} iterations; large arrays are "
        f"sampled.{more}</p>"
    )


def _speed(run: Run) -> Iterator[str]:
    rates = _curves(run, "learning_rate")
    same: dict[tuple[tuple[float, ...], tuple[float | None, ...]], list[Line]] = {}
    for one in rates:  # one line for all that are equal
        same.setdefault((tuple(one.xs), tuple(one.ys)), []).append(one)
    merged = [
        Line(
            group[0].name
            if len(group) == 1
            else f"{group[0].name} and {len(group) - 1} more",
            group[0].xs,
            group[0].ys,
        )
        for group in same.values()
    ]
    charts = [
        lines("Learning rates", merged, STEP, "learning rate", size=THIRD),
        lines(
            "Throughput",
            _curves(run, "throughput", ["examples_per_second"]),
            STEP,
            "examples per second",
            zero=True,
            size=THIRD,
        ),
        lines("Memory", _curves(run, "memory"), STEP, "MB", zero=True, size=THIRD),
    ]
    yield _grid(charts, "grid three") or _none(
        "Neither rates nor speed are in this run."
    )
