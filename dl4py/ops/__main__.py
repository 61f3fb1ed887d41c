"""``python -m dl4py.ops``: which kernels serve each device here.

``python -m dl4py.ops compile cpu`` compiles all sources and says how long that took;
``compile cuda 75 80`` for these architectures, by default for all from sm_75 to sm_120.
``--include FOLDER`` takes another torch's headers. None needs the device or that torch:
nothing is linked, loaded or kept.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time

import torch

from dl4py.ops import build, library


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dl4py.ops")
    commands = parser.add_subparsers(dest="command")
    command = commands.add_parser("compile", help="compile all sources, keep nothing")
    command.add_argument("device", choices=sorted(build.SUFFIX))
    command.add_argument("archs", nargs="*", help="CUDA architectures, e.g. 90")
    command.add_argument("--include", type=pathlib.Path, help="torch's headers")
    given = parser.parse_args()
    if given.command:
        compile_only(given.device, given.archs, given.include)
        return
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        print(f"{device}: {library.origin(device)}")


def compile_only(
    device: str, archs: list[str], include: pathlib.Path | None = None
) -> None:
    if device == "cuda":
        archs = archs or list(build.ARCHS)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        start = time.perf_counter()
        try:
            objects = build.compile_all(device, folder, folder / "log", archs, include)
        except build.BuildError as error:
            log = folder / "log"
            raise SystemExit(log.read_text() if log.exists() else str(error)) from None
        seconds = time.perf_counter() - start
        what = " ".join([device, *(f"sm_{arch}" for arch in archs)])
        print(f"{what}: {len(objects)} sources in {seconds:.1f} s")


if __name__ == "__main__":
    main()
