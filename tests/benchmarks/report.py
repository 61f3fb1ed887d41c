"""What the tables' rows look like: Markdown, pictures, the machine they are from."""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tests.benchmarks import harness
from tests.benchmarks.harness import Row, Table

HEAD = """# Measured

Written by `python -m tests.benchmarks`. Each cell is 1 thread / 2 threads; a ratio is
the peer's time divided by ours (above 1 we are faster), medians of one interleaved run.
"""
CPUINFO = pathlib.Path("/proc/cpuinfo")


def machine(device: str = "cpu") -> dict[str, str | int | None]:
    text = CPUINFO.read_text() if CPUINFO.exists() else ""
    models = [line.split(": ")[1] for line in text.splitlines() if "model name" in line]
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def shown(rows: list[Row]) -> str:
    """As Markdown: one line a case, ratios of each number of threads in one cell."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row.ratios))
    threads = sorted({row.threads for row in rows})
    cells: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        cells.setdefault((row.name, row.label), {})[row.threads] = row
    lines = []
    for (name, label), by_threads in cells.items():
        found = [by_threads[t] for t in threads if t in by_threads]
        line = [name, label, " / ".join(f"{row.seconds * 1e6:.3g}" for row in found)]
        for peer in peers:
            ratios = [row.ratios.get(peer) for row in found]
            known = any(ratio is not None for ratio in ratios)
            line.append(
                " / ".join("-" if r is None else f"{r:.2f}" for r in ratios)
                if known
                else "-"
            )
        lines.append(line)
    return harness.markdown(["", "size", "us", *peers], lines)


def document(results: Mapping[str, Any], tables: Mapping[str, Table]) -> str:
    """All tables of ``results.json`` as one Markdown file, with the floors missed."""
    parts = [HEAD]
    for name, result in results.items():
        rows = [Row(**row) for row in result["rows"]]
        parts += [
            f"## {result['title']} (`{name}{' --quick' * result.get('quick', False)}`)",
            _place(result["machine"]),
            shown(rows),
            *_apart(result.get("apart", {})),
        ]
        if missed := list(_missed(rows, tables[name])):
            parts.append(f"Missed: {'; '.join(missed)}.")
    return "\n\n".join(map(str.strip, parts)) + "\n"


def _apart(machines: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Where rows are from that were measured later than their table."""
    rows: dict[str, list[str]] = {}
    for row, of in machines.items():
        rows.setdefault(_place(of), []).append(row)
    for place, names in rows.items():
        yield f"{', '.join(names)}: {place}."


def _place(of: Mapping[str, Any]) -> str:
    device = of.get("device", "cpu")
    card = "" if device == "cpu" else f"{device}, "
    cores = f"{of['cores']} core{'s' * (of['cores'] != 1)}"
    return f"{card}{of['processor']}, {cores}, torch {of['torch']}, {of['date']}"


def _missed(rows: list[Row], table: Table) -> Iterator[str]:
    for row in rows:
        for peer, least, ratio in harness.misses(table.floors, row):
            where = f"{row.name} {row.label} on {row.threads}"
            yield f"{where} {peer} {ratio:.2f} of {least:.2f}"


def draw(table: Table, rows: list[Row], path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row.name for row in rows))
    peers = list(dict.fromkeys(peer for row in rows for peer in row.ratios))
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(3.6 * columns, 2.7 * lines + 0.8),
        squeeze=False,
        layout="constrained",
    )
    for ax, name in zip(axes.flat, names, strict=False):
        for k, peer in enumerate(peers):
            for threads, style in ((1, "-"), (2, "--")):
                points = sorted(
                    (row.size, row.ratios[peer])
                    for row in rows
                    if row.name == name and row.threads == threads
                    if peer in row.ratios
                )
                if points:
                    x, y = zip(*points, strict=True)
                    label = peer if style == "-" else None
                    ax.plot(x, y, style, color=f"C{k}", marker=".", label=label)
        ax.axhline(1, color="gray", linewidth=0.8)
        ax.set(xscale="log", yscale="log", title=name)
        if len({row.size for row in rows}) > 1:
            ax.set_xscale("log", base=2)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    handles = {}
    for ax in axes.flat:
        found, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=9)
    figure.suptitle(f"{table.title}: their time / ours", x=0.01, ha="left")
    figure.supxlabel(f"{table.axis}; solid 1 thread, dashed 2")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def save(figure: Any, axes: Any, title: str, path: pathlib.Path) -> None:
    """One picture of curves."""
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
