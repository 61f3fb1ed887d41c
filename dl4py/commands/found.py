"""How every command answers: JSON, a table on a terminal, or plain text."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dl4py.extras import EXTRAS
from dl4py.table import Table

T = TypeVar("T")
BAD_INPUT = 2


@dataclass(frozen=True)
class Found:
    """What a command found.

    Args:
        data: in plain types, for ``--json``; ``None``: nothing is told.
        shown: the same to read.
        status: 1 where something was found that should not be there.
    """

    data: Any
    shown: Sequence[str | Table]
    status: int = 0

    def show(self, as_json: bool) -> None:
        """Print it to standard output."""
        if self.data is None:
            return
        if as_json:
            print(json.dumps(_finite(self.data), indent=2))
            return
        console = _console(sys.stdout)
        for i, part in enumerate(self.shown):
            gap = "\n" * bool(i)
            if console is None or isinstance(part, str):
                print(f"{gap}{part}")
            else:
                console.print(gap, part.rich(sys.modules["rich"]), sep="", end="")


def answer(run: Callable[[], Found], name: str, as_json: bool, debug: bool) -> int:
    """The exit status of a command that ``run`` carries out; what it found is shown.

    What it prints on its way goes to standard error where that is for JSON alone. An
    error is one line, with its trace before it if ``debug``.
    """
    quiet = contextlib.redirect_stdout(sys.stderr) if as_json else None
    try:
        with quiet or contextlib.nullcontext(), _warning(name):
            found = run()
        found.show(as_json)
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"dl4py {name}: {_line(error)}", file=sys.stderr)
        return BAD_INPUT
    return found.status


def progress(batches: Iterable[T], what: str) -> Iterator[T]:
    """The same ``batches``, counted on a terminal from the first second on."""
    console = _console(sys.stderr)
    if console is None:
        yield from batches
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    counted = TextColumn("{task.completed:,} batches")
    columns = (TextColumn("{task.description}"), BarColumn(), counted)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task(what, total=None, visible=False)
        for batch in batches:
            yield batch
            late = (bar.tasks[0].elapsed or 0.0) > 1.0
            bar.update(task, advance=1, visible=late)


def _finite(data: Any) -> Any:
    """The same with ``None`` for NaN and infinities, which JSON has no words for."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


@contextlib.contextmanager
def _warning(name: str) -> Iterator[None]:
    """Warnings as one line each, without the line of code that gave them."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"dl4py {name}: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _line(error: Exception) -> str:
    expected = (OSError, ValueError, TypeError, ImportError, argparse.ArgumentError)
    text = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror.lower()}"  # without its number
    package = str(getattr(error, "name", "")).partition(".")[0]
    if isinstance(error, ImportError) and package in EXTRAS and "pip " not in text:
        text = f"{text}: pip install 'dl4py[{EXTRAS[package]}]'"  # another's import
    text = " ".join(text.split()) or "nothing more is known"
    kind = "" if isinstance(error, expected) else f"{type(error).__name__}: "
    return f"{kind}{text}" + ("" if not kind else " (--debug shows where)")


def _console(file: Any) -> Any:
    """rich's console, if ``file`` is a terminal and rich is here."""
    if not file.isatty():
        return None
    with contextlib.suppress(ImportError):
        import rich.console
        import rich.table
        import rich.text

        return rich.console.Console(file=file)
    return None
