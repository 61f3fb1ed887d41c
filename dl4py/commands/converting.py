"""``dl4py convert``: its arguments, and what it says of the new file."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from dl4py.commands.found import Found


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``dl4py convert`` understands."""
    parser.add_argument("old", type=Path, help="a zip, a checkpoint or safetensors")
    parser.add_argument(
        "new",
        type=Path,
        help="what to write: .zip, .ckpt, .safetensors, .pt2, .onnx or .py",
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument(
        "--shape",
        type=shape,
        action="append",
        default=[],
        metavar="C,H,W",
        help="of an example, for .pt2 and .onnx where the model does not say it; an "
        "axis 'any' is of any length; once for each input",
    )
    parser.add_argument(
        "--labels",
        type=lambda text: text.split(","),
        default=[],
        metavar="A,B,C",
        help="names of the classes, which .pt2 and .onnx keep",
    )
    parser.add_argument(
        "--allow-difference",
        action="store_true",
        help="write a zip although DL4J would predict something else",
    )
    parser.add_argument(
        "--dl4j-exact",
        action=argparse.BooleanOptionalAction,
        help="whether DL4J's faults are reproduced; default: as the old file says",
    )


def shape(text: str) -> tuple[int | None, ...]:
    """The sizes in ``"3,28,any"``.

    >>> shape("3,28,any")
    (3, 28, None)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part == "any" or (part.isdigit() and int(part)) for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected whole numbers >= 1, or any, with commas between, got {text!r}"
        )
    return tuple(None if part == "any" else int(part) for part in parts)


def run(options: argparse.Namespace) -> Found:
    """Write the file; what it lacks is said."""
    from dl4py.formats import convert  # Lightning and torch's exporters

    done = convert(
        options.old,
        options.new,
        force=options.force,
        shapes=options.shape,
        labels=options.labels,
        allow_difference=options.allow_difference,
        dl4j_exact=options.dl4j_exact,
    )
    lines = [f"{options.new}: {done.written}, from a {done.read}"]
    for name, axes in done.about.get("inputs", {}).items():
        lines.append(f"input {name}: [{', '.join(map(str, axes))}]")
    if outputs := done.about.get("outputs"):
        lines.append(f"outputs: {', '.join(outputs)}")
    if done.about.get("checked") is False:
        lines.append("not compared with ONNX Runtime, which is not installed")
    lines += [f"left out: {line}" for line in done.left_out]
    data = {"new": str(options.new), **dataclasses.asdict(done)}
    return Found(data, ["\n".join(lines)])
