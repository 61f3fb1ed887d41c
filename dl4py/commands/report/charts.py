"""Charts as SVG inside HTML; colours are the page's, so that they follow its scheme."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

THIRD, HALF, WHOLE = (350, 240), (480, 290), (860, 290)  # sizes, by share of a row
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 42
POINTS = 600  # of a longer line each bucket keeps its extremes
COLOURS = 8  # then they begin again, dashed
DASHES = ("", "7 4", "2 3", "10 3 2 3")


@dataclass
class Line:
    """A curve; ``None`` interrupts it.

    Args:
        name: in the legend; a line without one is not there.
        xs, ys: its points.
        faint: drawn in the background.
        colour: the number of its colour, by default its place.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    faint: bool = False
    colour: int | None = None


@dataclass(frozen=True)
class Axis:
    """From numbers to places of the picture."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int) -> list[float]:
        """Round numbers on it."""
        if self.log:
            first, last = math.floor(self.low), math.floor(self.high + 1e-9)
            every = max(1, math.ceil((last - first) / (count + 1)))
            within = (1,) if last - first > 2 else (1, 2, 5)
            found = [m * 10.0**k for k in range(first, last + 1, every) for m in within]
            return [v for v in found if self.low <= math.log10(v) <= self.high]
        step = nice((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def nice(x: float) -> float:
    """The least of 1, 2, 5, 10 … that is not below ``x``.

    >>> nice(0.03), nice(70.0)
    (0.05, 100.0)
    """
    unit: float = 10.0 ** math.floor(math.log10(x))
    return next(m * unit for m in (1, 2, 5, 10) if m * unit >= x * (1 - 1e-9))


def short(x: float) -> str:
    """A number as people write it on an axis.

    >>> [short(v) for v in (0.0, 0.25, 1500.0, 2e-05, -3e7)]
    ['0', '0.25', '1,500', '2e-5', '-3e7']
    """
    if x == 0:
        return "0"
    if not 1e-3 <= abs(x) < 1e6:
        mantissa, exponent = f"{x:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{round(x):,}" if abs(x) >= 1000 else f"{x:.3g}"


def axis(values: Sequence[float], start: float, stop: float, log: bool = False) -> Axis:
    """One that shows all values, with some air around them."""
    if log:
        values = [math.log10(v) for v in values]
    low, high = min(values), max(values)
    if low == high:
        pad = abs(low) / 2 or 0.5
        low, high = low - pad, high + pad
    return Axis(low, high, start, stop, log)


def thinned(line: Line) -> list[tuple[float, float] | None]:
    """The points of a line; of a long one the extremes of each bucket."""
    points = [
        None if y is None else (x, y) for x, y in zip(line.xs, line.ys, strict=True)
    ]
    if len(points) <= POINTS:
        return points
    size = math.ceil(2 * len(points) / POINTS)
    found: list[tuple[float, float] | None] = []
    for i in range(0, len(points), size):
        bucket = [p for p in points[i : i + size] if p is not None]
        if bucket:
            ends = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
            found += sorted(ends)
        else:
            found.append(None)
    return found


def lines(
    title: str,
    curves: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    band: tuple[float, float, str] | None = None,
    unit: bool = False,
    zero: bool = False,
    size: tuple[int, int] = HALF,
) -> str:
    """A chart of lines with its legend; nothing if no line has a point.

    Args:
        log: decades upwards, if all values are above 0.
        band: (low, high, its name) of what is shaded.
        unit: both axes are [0, 1] and the diagonal is drawn.
        zero: upwards it begins at 0.
        size: its share of a row.
    """
    drawn = [(line, thinned(line)) for line in curves]
    drawn = [(line, points) for line, points in drawn if any(points)]
    if not drawn:
        return ""
    xs = [p[0] for _, points in drawn for p in points if p]
    ys = [p[1] for _, points in drawn for p in points if p]
    log = log and min(ys) > 0
    right, bottom = size[0] - RIGHT, size[1] - BOTTOM
    if unit:
        across, up = Axis(0, 1, LEFT, right), Axis(0, 1, bottom, TOP)
    else:
        across = axis(xs, LEFT, right)
        shown = [*ys, *(band[:2] if band else ()), *[0.0] * zero]
        up = axis(shown, bottom - 6 * (not zero), TOP + 6, log)
    parts = list(_frame(across, up, right, bottom, x_label, y_label))
    if band:
        top, low = up(band[1]), up(band[0])
        parts.append(
            f'<rect class="band" x="{LEFT}" y="{top:.1f}" width="{right - LEFT}" '
            f'height="{low - top:.1f}"/>'
        )
    if unit:
        parts.append(f'<path class="diagonal" d="M{LEFT} {bottom}L{right} {TOP}"/>')
    legend = []
    for place, (line, points) in enumerate(drawn):
        number = place if line.colour is None else line.colour
        dash = DASHES[number // COLOURS % len(DASHES)]
        look = f'class="line c{number % COLOURS}{" faint" if line.faint else ""}"'
        look += f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(
            f'<path {look} d="{_path(points, across, up)}">'
            f"<title>{escape(line.name)}</title></path>"
        )
        known = [p for p in points if p]
        if not line.faint and (len(known) == 1 or (unit and len(known) <= 12)):
            parts += [
                f'<circle class="dot c{number % COLOURS}" cx="{across(x):.1f}" '
                f'cy="{up(y):.1f}" r="3"><title>{escape(line.name)}: {short(x)}, '
                f"{short(y)}</title></circle>"
                for x, y in known
            ]
        if line.name:
            legend.append(_entry(f'<path {look} d="M1 4H21"/>', line.name))
    if band:
        swatch = '<rect class="band" x="1" width="20" height="8"/>'
        legend.append(_entry(swatch, band[2]))
    said = f"{title}: {len(drawn)} line{'s' * (len(drawn) > 1)}, "
    said += f"from {short(min(ys))} to {short(max(ys))}"
    return _figure(title, said, *size, parts, legend, size == WHOLE)


def _entry(swatch: str, name: str) -> str:
    """A line of a legend."""
    svg = f'<svg width="22" height="8" aria-hidden="true">{swatch}</svg>'
    return f"<li>{svg}{escape(name)}</li>"


def _frame(
    across: Axis, up: Axis, right: float, bottom: float, x_label: str, y_label: str
) -> Iterator[str]:
    """Grid, numbers and names of the axes."""
    for value in up.ticks(5):
        y = up(value)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>'
        yield (
            f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{short(value)}</text>"
        )
    for value in across.ticks(6):
        x = across(value)
        yield f'<path class="grid" d="M{x:.1f} {bottom}v5"/>'
        yield (
            f'<text class="tick" x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">'
            f"{short(value)}</text>"
        )
    yield f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>'
    yield (
        f'<text class="name" x="{(LEFT + right) / 2}" y="{bottom + BOTTOM - 6}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
    )
    middle = (TOP + bottom) / 2
    yield (
        f'<text class="name" x="14" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle})">{escape(y_label)}</text>'
    )


def _path(points: Sequence[tuple[float, float] | None], across: Axis, up: Axis) -> str:
    text, pen = "", "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        text += f"{pen}{across(point[0]):.1f} {up(point[1]):.1f}"
        pen = "L"
    return text


def _figure(
    title: str,
    said: str,
    width: float,
    height: float,
    parts: Sequence[str],
    legend: Sequence[str] = (),
    wide: bool = False,
) -> str:
    below = f'<ul class="legend">{"".join(legend)}</ul>' if len(legend) > 1 else ""
    return (
        f'<figure class="card{" wide" if wide else ""}">'
        f"<figcaption>{escape(title)}</figcaption>"
        f'<div class="frame"><svg class="chart" role="img" '
        f'aria-label="{escape(said)}" viewBox="0 0 {width:g} {height:g}">'
        f"{''.join(parts)}</svg></div>{below}</figure>"
    )


def bars(title: str, found: Mapping[str, Any]) -> str:
    """A small histogram with counts upwards."""
    width, height, bottom = 240, 130, 108
    low, high, counts = found["low"], found["high"], found["counts"]
    most = max(counts) or 1
    step = (width - 16) / len(counts)
    parts = [
        f'<rect class="bar" x="{8 + i * step:.1f}" '
        f'y="{bottom - (bottom - 8) * n / most:.1f}" width="{max(step - 1, 0.5):.1f}" '
        f'height="{(bottom - 8) * n / most:.1f}"><title>{n:,}</title></rect>'
        for i, n in enumerate(counts)
    ]
    if low < 0 < high:
        zero = 8 + (width - 16) * -low / (high - low)
        parts.append(f'<path class="zero" d="M{zero:.1f} 8V{bottom}"/>')
    parts.append(f'<path class="axis" d="M8 {bottom}H{width - 8}"/>')
    for x, value, anchor in ((8, low, "start"), (width - 8, high, "end")):
        parts.append(
            f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="{anchor}">'
            f"{short(value)}</text>"
        )
    said = f"Histogram of {title}: {sum(counts)} numbers, {short(low)} to {short(high)}"
    return _figure(title, said, width, height, parts)


def matrix(title: str, counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """A confusion matrix: a row an actual class, shaded by the share of its row."""
    k = len(counts)
    cell = min(96.0, 380 / k)
    left = 34 + min(130, 8 * max(map(len, names)))
    top, size = 24, cell * k
    parts = []
    every = math.ceil(k / 30)  # names of axes that do not run into each other
    steep = max(map(len, names)) * 8 > cell
    for i, row in enumerate(counts):
        total = sum(row) or 1
        y = top + i * cell
        for j, n in enumerate(row):
            x, share = left + j * cell, n / total
            parts.append(
                f'<rect class="{"hit" if i == j else "miss"}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{cell - 1:.1f}" height="{cell - 1:.1f}" '
                f'fill-opacity="{0.04 + 0.86 * share:.3f}">'
                f"<title>actual {escape(names[i])}, predicted {escape(names[j])}: "
                f"{n:,}</title></rect>"
            )
            if cell >= 26 and n:
                strong = " strong" if share > 0.5 else ""
                parts.append(
                    f'<text class="count{strong}" x="{x + (cell - 1) / 2:.1f}" '
                    f'y="{y + cell / 2 + 4:.1f}" text-anchor="middle">{n:,}</text>'
                )
        if i % every == 0:
            middle = y + cell / 2
            parts.append(
                f'<text class="tick" x="{left - 8}" y="{middle + 4:.1f}" '
                f'text-anchor="end">{escape(_cut(names[i]))}</text>'
            )
            x = left + i * cell + cell / 2
            turn = f'transform="rotate(-45 {x:.1f} {top + size + 16:.1f})" '
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{top + size + 16:.1f}" '
                f'{turn if steep else ""}text-anchor="{"end" if steep else "middle"}">'
                f"{escape(_cut(names[i]))}</text>"
            )
    below = top + size + (30 + min(90, 6 * max(map(len, names))) if steep else 40)
    parts.append(
        f'<text class="name" x="{left + size / 2:.1f}" y="{below:.1f}" '
        f'text-anchor="middle">predicted</text>'
        f'<text class="name" x="14" y="{top + size / 2:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {top + size / 2:.1f})">actual</text>'
    )
    right = sum(row[i] for i, row in enumerate(counts))
    said = f"{title}: {right} of {sum(map(sum, counts))} right, {k} classes"
    width = max(left + size + 12, HALF[0])
    return _figure(title, said, width, below + 10, parts)


def _cut(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"


def smoothed(ys: Sequence[float | None], weight: float) -> list[float | None]:
    """Exponential averages, begun without bias; gaps stay."""
    mean, share, found = 0.0, 0.0, list[float | None]()
    for y in ys:
        if y is not None:
            mean, share = weight * mean + (1 - weight) * y, weight * share + 1 - weight
        found.append(None if y is None else mean / share)
    return found
