"""Every network that DL4J trained, as every kind of file, and back where there is one.

``python -m tests.formats [KIND ...] [--every N]``

``ckpt`` and ``safetensors`` must come back equal to the bit; ``pt2`` and ``onnx``
predict what the network does (they are compared before they are kept); ``py`` builds an
equal configuration. ``--every 10`` takes a tenth of the catalogue.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time
import warnings

import dl4py
from dl4py.config import DL4JFormatError
from dl4py.formats.converting import WRITERS, Options
from tests import catalogue
from tests.formats.test_load import assert_same

# case → what its layers lack in graphs that know only torch's own operations
REFUSED: dict[str, str] = {
    "ocnn": "DL4J's one-class output looks at a batch as a whole",
    "ocnn_sigmoid_window": "the same",
    "train_DropConnect_biases": "DL4J's noise on biases acts in test mode too",
    "train_WeightNoise_multiplicative": "the same",
}


def tried(name: str, kind: str, folder: pathlib.Path) -> str | None:
    """What is wrong with a case as a kind of file, in one line."""
    case = catalogue.load(name)
    file = case.file("trained.zip") or case.file("model.zip")
    assert file is not None
    try:
        net = dl4py.restore(file)
    except DL4JFormatError:
        return None  # named by the catalogue's own tests
    count = len(net.plan.inputs)
    shapes = tuple(case.arrays[f"in_{i}"].shape[1:] for i in range(count))
    path = folder / f"model.{kind}"
    try:
        with open(path, "wb") as target:
            WRITERS[path.suffix](net, target, Options(shapes, (), True))
        if kind in ("zip", "ckpt", "safetensors"):
            assert_same(dl4py.load(path), net)
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.formats")
    known = [ending[1:] for ending in WRITERS]
    parser.add_argument("kinds", nargs="*", default=known, metavar="KIND")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        for kind in options.kinds:
            start, cases = time.perf_counter(), catalogue.names()[:: options.every]
            for name in cases:
                said = tried(name, kind, pathlib.Path(place))
                expected = name in REFUSED and kind in ("pt2", "onnx")
                if bool(said) != expected:
                    failed += 1
                    print(f"{kind} {name}: {said or 'written'}", flush=True)
            seconds = time.perf_counter() - start
            print(f"{kind}: {len(cases)} cases, {seconds:.0f} s", flush=True)
    print(f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
