"""The ``dl4py`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dl4py
from dl4py.commands import converting, serving, verifying
from dl4py.commands.found import Found, answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``dl4py`` with ``arguments`` (default: the process's); the exit status.

    0 is well, 1 a finding (files that differ), 2 bad input, told in one line.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    name, as_json = options.command, options.json
    return answer(lambda: options.run(options), name, as_json, options.debug)


class _Parser(argparse.ArgumentParser):
    """A command's parser; what takes long to import is asked once it is this command's.

    Attributes:
        later: adds further arguments.
    """

    later: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.later is not None:
            later, self.later = self.later, None
            later(self)
        return super().parse_known_args(args, namespace)


class _Commands:
    """The parsers of the commands, all with what every command understands."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parsers = parser.add_subparsers(
            dest="command", required=True, metavar="COMMAND", parser_class=_Parser
        )

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], Found],
        what: str,
        passes_on: bool = False,
    ) -> _Parser:
        """The parser of a command.

        Args:
            run: what it does; imports what is heavy by itself.
            what: the line of help.
            passes_on: whether ``run`` reads arguments that are unknown here, and help.
        """
        parser: _Parser = self.parsers.add_parser(
            name, help=what, add_help=not passes_on, allow_abbrev=not passes_on
        )
        parser.add_argument("--json", action="store_true", help="the result as JSON")
        parser.add_argument("--debug", action="store_true", help="an error's trace too")
        parser.set_defaults(run=run, passes_on=passes_on)
        return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dl4py", description=dl4py.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=dl4py.__version__)
    commands = _Commands(parser)

    demo = commands.add("demo", _demo, "train, evaluate, save and load on Iris")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("dl4py-demo"),
        help="folder for pictures and checkpoint (default: %(default)s)",
    )
    demo.add_argument("--epochs", type=_positive, default=60)

    commands.add("env", _env, "versions, devices, kernels, what is needed")

    fit = commands.add("fit", _fit, "train by a YAML file (--help tells more)", True)
    fit.add_argument(
        "--out",
        type=Path,
        default=Path("model.zip"),
        help="the model zip to write (default: %(default)s)",
    )
    fit.add_argument("--force", action="store_true", help="replace what is there")
    fit.add_argument(
        "--ckpt-path",
        metavar="FILE",
        help="a checkpoint to go on from; last: the newest of the run's folder",
    )

    predict = commands.add("predict", _predict, "a model's outputs for a file of data")
    evaluate = commands.add("evaluate", _evaluate, "DL4J's table of a model on data")
    for command in (predict, evaluate):
        command.add_argument("model", type=Path, help="a model file")
        command.add_argument("data", type=Path, help="a file, or a folder of them")
    predict.add_argument("--out", type=Path, required=True, help="a CSV to write")
    predict.add_argument("--force", action="store_true", help="replace what is there")
    for command in (predict, evaluate):
        command.add_argument("--batch-size", type=_positive, default=256)
    evaluate.add_argument(
        "--metric",
        help="a class of dl4py.evaluation, such as ROC; of several outputs a=ROC,b=…",
    )
    for command in (predict, evaluate):
        command.later = _add_reading

    for name in ("inspect", "summary"):
        shown = commands.add(name, _inspect, "layers, sizes and updaters of a model")
        shown.add_argument("model", type=Path, help="a model file, or a configuration")

    names = commands.add("list", _list, "DL4J's classes and their names here")
    names.add_argument("kind", nargs="?", help="activation, layer … (default: all)")

    diff = commands.add("diff", _diff, "where two model zips differ")
    diff.add_argument("first", type=Path)
    diff.add_argument("second", type=Path)

    report = commands.add("report", _report, "a page of HTML about a training run")
    report.add_argument("folder", type=Path, metavar="RUN", help="of a StatsCallback")
    report.add_argument("--out", type=Path, help="default: report.html in the run")
    report.add_argument("--force", action="store_true", help="replace a file")
    report.add_argument("--model", type=Path, help="evaluate this, on --data")
    report.add_argument("--data", type=Path, help="a file, or a folder of them")
    report.add_argument("--batch-size", type=_positive, default=256)
    report.later = _add_reading

    verify = commands.add("verify", verifying.run, "whether a model predicts this")
    verifying.arguments(verify)

    convert = commands.add("convert", converting.run, "a model file as another kind")
    converting.arguments(convert)

    serve = commands.add("serve", serving.run, "answer requests for predictions (HTTP)")
    serving.arguments(serve)
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text}")
    return int(text)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """The words of ``Reading``, each as an option."""
    from dl4py.data.options import words  # with all of dl4py.config

    parser.add_argument("--config", type=Path, help="dl4py fit's: its data.read counts")
    group = parser.add_argument_group("how the data is read")
    for name, (kind, what) in words().items():
        flag = f"--{name.replace('_', '-')}"
        if kind is bool:
            action = argparse.BooleanOptionalAction
            group.add_argument(flag, action=action, default=None, help=what)
        else:
            group.add_argument(flag, type=kind, help=what)


def _reading(given: argparse.Namespace) -> Any:
    from dl4py.commands.applying import reading

    return reading(given.config, _words(given))


def _words(given: argparse.Namespace) -> dict[str, Any]:
    """Those of ``Reading`` that are given."""
    from dl4py.data.options import words

    found = {name: getattr(given, name) for name in words()}
    return {name: value for name, value in found.items() if value is not None}


def _fit(options: argparse.Namespace) -> Found:
    from dl4py.commands.fitting import run  # Lightning takes seconds to import

    return run(options.rest, options.out, options.force, options.ckpt_path)


def _predict(options: argparse.Namespace) -> Found:
    from dl4py.commands.applying import predict

    place = (options.data, options.out, options.force)
    return predict(options.model, *place, _reading(options), options.batch_size)


def _evaluate(options: argparse.Namespace) -> Found:
    from dl4py.commands.applying import evaluate

    given = (options.model, options.data, options.metric)
    return evaluate(*given, _reading(options), options.batch_size)


def _demo(options: argparse.Namespace) -> Found:
    from dl4py.commands.demo import run  # Lightning takes seconds to import

    return run(options.out, options.epochs)


def _env(options: argparse.Namespace) -> Found:
    from dl4py.commands import environment

    return Found(environment.describe(), [environment.table()])


def _inspect(options: argparse.Namespace) -> Found:
    from dl4py.commands import inspection, models
    from dl4py.network import summary

    net = models.opened(options.model)
    found, table = summary.describe(net), summary.table(net)
    if not models.is_zip(options.model):
        return Found(found, [table])
    file = inspection.origin(options.model)
    return Found({**found, "file": file}, [table, inspection.origin_lines(file)])


def _list(options: argparse.Namespace) -> Found:
    from dl4py.commands import names

    return Found(names.rows(options.kind), names.tables(options.kind))


def _diff(options: argparse.Namespace) -> Found:
    from dl4py.commands import inspection

    found = inspection.differences(options.first, options.second)
    return Found(found, [inspection.report(found)], int(any(found.values())))


def _report(options: argparse.Namespace) -> Found:
    from dl4py.commands.report import report

    model, data = options.model, options.data
    if (model is None) != (data is None):
        raise ValueError("--model and --data: expected both or none")
    if model is None and (options.config or _words(options)):
        raise ValueError("--model and --data: expected, there is no data to read")

    def evaluate() -> dict[str, Any]:
        from dl4py.commands.applying import judged

        return judged(model, data, _reading(options), options.batch_size)

    place = (options.folder, options.out, options.force)
    written = report(*place, None if model is None else evaluate)
    return Found({"out": str(written)}, [str(written)])


if __name__ == "__main__":
    sys.exit(main())
