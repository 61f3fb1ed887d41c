"""The ``dl4py`` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import dl4py
from dl4py.commands import serving


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``dl4py`` with ``arguments`` (default: the process's); the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (OSError, ValueError) as error:
        print(f"dl4py {options.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
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
    demo.add_argument("--epochs", type=_positive, default=60)
    demo.set_defaults(run=_demo)

    env = commands.add_parser("env", help="versions, devices, kernels, what is needed")
    env.add_argument("--json", action="store_true", help="the same as JSON")
    env.set_defaults(run=_env)

    inspect = commands.add_parser("inspect", help="what is in a model zip of DL4J's")
    inspect.add_argument("model", type=Path)
    inspect.add_argument("--json", action="store_true", help="the same as JSON")
    inspect.set_defaults(run=_inspect)

    names = commands.add_parser("list", help="DL4J's classes and their names here")
    names.add_argument("kind", nargs="?", help="activation, layer … (default: all)")
    names.add_argument("--json", action="store_true", help="the same as JSON")
    names.set_defaults(run=_list)

    diff = commands.add_parser("diff", help="where two model zips differ")
    diff.add_argument("first", type=Path)
    diff.add_argument("second", type=Path)
    diff.add_argument("--json", action="store_true", help="the same as JSON")
    diff.set_defaults(run=_diff)

    verify = commands.add_parser("verify", help="whether a model zip predicts this")
    verify.add_argument("model", type=Path)
    for word, file in (("--inputs", "x.npy"), ("--outputs", "y.npy")):
        verify.add_argument(
            word,
            type=Path,
            required=True,
            action="extend",
            nargs="+",
            metavar=file,
            help="of a graph with several one for each, in order",
        )
    verify.set_defaults(run=_verify)

    serve = commands.add_parser("serve", help="answer requests for predictions (HTTP)")
    serving.arguments(serve)
    serve.set_defaults(run=serving.run)
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text}")
    return int(text)


def _demo(options: argparse.Namespace) -> int:
    from dl4py.commands.demo import run  # Lightning takes seconds to import

    run(options.out, options.epochs)
    return 0


def _env(options: argparse.Namespace) -> int:
    from dl4py.commands import environment

    if options.json:
        print(json.dumps(environment.describe(), indent=2))
    else:
        print(environment.table())
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from dl4py.network import summary

    net = dl4py.restore(options.model)
    if options.json:
        print(json.dumps(summary.describe(net), indent=2))
    else:
        print(summary.table(net))
    return 0


def _list(options: argparse.Namespace) -> int:
    from dl4py.commands import names

    found = names.rows(options.kind)
    print(json.dumps(found, indent=2) if options.json else names.table(options.kind))
    return 0


def _diff(options: argparse.Namespace) -> int:
    from dl4py.commands import inspection

    found = inspection.differences(options.first, options.second)
    print(json.dumps(found, indent=2) if options.json else inspection.report(found))
    return 1 if any(found.values()) else 0


def _verify(options: argparse.Namespace) -> int:
    from dl4py.commands import inspection

    error, allowed = inspection.verify(options.model, options.inputs, options.outputs)
    fits = error <= allowed
    print(f"{'ok' if fits else 'DIFFERS'}: off by {error:.1e}, allowed {allowed:.1e}")
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
