"""``dl4py serve``: its arguments, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from dl4py.commands.found import Found


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``dl4py serve`` understands."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="[NAME=]FILE",
        help="a model file; the name is the file's where none is given",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    for word, value, what in (
        ("port", 8000, "0: one that is free"),
        ("workers", 1, "processes a model; 0: the models run in this one"),
        ("batch", 32, "rows that go through a model at once; 1: each request alone"),
        ("queue", 256, "requests that may wait for a model; 429 beyond"),
        ("limit", 16 << 20, "bytes of a request's body"),
    ):
        parser.add_argument(
            f"--{word}", type=int, default=value, help=f"{what} (default: %(default)s)"
        )
    for word, seconds, what in (
        ("patience", 60.0, "seconds after which a silent worker is replaced"),
        ("grace", 30.0, "seconds to answer what was accepted, upon a signal"),
    ):
        parser.add_argument(
            f"--{word}",
            type=float,
            default=seconds,
            help=f"{what} (default: %(default)s)",
        )
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="[NAME=]A,B,C",
        help="names of a model's classes, for /info",
    )


def run(options: argparse.Namespace) -> Found:
    """Serve until a signal says stop."""
    from dl4py.serving import serve  # what only this command needs

    models: dict[str, str] = {}
    for given in options.models:
        name, known, path = given.partition("=")
        if not known:
            name, path = Path(given).stem, given
        if name in models:
            raise ValueError(f"two models have the name {name!r}: write NAME=FILE")
        models[name] = path
    labels = {}
    for given in options.labels:
        name, known, classes = given.partition("=")
        if not known:
            name, classes = next(iter(models)), given
        labels[name] = classes.split(",")
    words = ("host", "port", "workers", "batch", "queue", "limit", "patience", "grace")
    serve(models, labels=labels, **{word: getattr(options, word) for word in words})
    return Found({"stopped": list(models)}, ["stopped"])
