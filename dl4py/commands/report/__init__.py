"""One page of HTML about a run, from what a ``StatsCallback`` wrote."""

from __future__ import annotations

import os
from pathlib import Path

from dl4py.commands.output import new_file
from dl4py.commands.report.page import page
from dl4py.commands.report.run import Run
from dl4py.io.replacing import replacing

NAME = "report.html"


def report(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Path:
    """Write the page of a run; returns where.

    It needs no other file: styles and pictures are inside, and nothing is loaded.

    Args:
        folder: of the run, or one above it.
        out: the page's file; default: ``report.html`` beside the run's statistics.
        force: whether a file that is there is replaced.

    Raises:
        FileNotFoundError: there is no run.
        FileExistsError: the file is there already, without ``force``.
        ValueError: there are several runs, or the file of one is damaged.
    """
    run = Run.read(Path(folder))
    path = run.folder / NAME if out is None else Path(out)
    new_file(path, force)
    text = page(run)
    with replacing(path, "report(folder, out)") as file:
        file.write(text.encode())
    return path
