"""The ``dl4py`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import dl4py


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``dl4py`` with ``arguments`` (default: the process's); the exit status."""
    parser = argparse.ArgumentParser(prog="dl4py", description=dl4py.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=dl4py.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="train, evaluate, save and load on Iris")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("dl4py-demo"),
        help="folder for pictures and checkpoint (default: %(default)s)",
    )
    demo.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {options.epochs}")
    from dl4py.demo import run  # Lightning takes seconds to import

    run(options.out, options.epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
