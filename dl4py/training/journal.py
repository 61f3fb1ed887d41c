"""Where statistics of a run are written: lines of JSON, and TensorBoard."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = "stats.jsonl"


class Journal:
    """A file of JSON lines, one a record; a run that is resumed goes on in it.

    Args:
        folder: made where it is missing.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise OSError(
                f"StatsCallback cannot write to {self.path}: {error.strerror}; give "
                "the logger, or StatsCallback(folder=...), a folder that can be written"
            ) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a record; what is not finite becomes null."""
        try:
            line = json.dumps(record, allow_nan=False)
        except ValueError:
            line = json.dumps(_finite(record))
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """No record comes any more."""
        self._file.close()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file; a last line that a killed process left half is dropped.

    Raises:
        ValueError: a line is no record of a :class:`Journal`.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines) and not line.endswith("\n"):
                break
            record = None
        if not isinstance(record, dict) or "kind" not in record:
            raise ValueError(f"{path}: line {number} is no record of a StatsCallback")
        records.append(record)
    return records


class Board:
    """A summary writer of TensorBoard's kind.

    Args:
        writer: with torch's ``add_scalar``, ``add_histogram_raw``,
            ``add_custom_scalars``.
    """

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """A point of each curve; what is not finite has none."""
        known = {tag: value for tag, value in values.items() if math.isfinite(value)}
        if type(self.writer).__module__.startswith("torch.utils.tensorboard"):
            # one event for all: an event each takes ten times as long
            kinds = importlib.import_module("tensorboard.compat.proto.summary_pb2")
            points = [
                kinds.Summary.Value(tag=tag, simple_value=value)
                for tag, value in known.items()
            ]
            self.writer.file_writer.add_summary(kinds.Summary(value=points), step)
            return
        for tag, value in known.items():
            self.writer.add_scalar(tag, value, step)

    def histogram(self, tag: str, found: Mapping[str, Any], step: int) -> None:
        """One histogram, as :func:`~dl4py.training.statistics.histograms` counts."""
        low, high, counts = found["low"], found["high"], found["counts"]
        width = (high - low) / len(counts) or 1e-12
        middles = [low + (i + 0.5) * width for i in range(len(counts))]
        self.writer.add_histogram_raw(
            tag,
            low,
            high,
            sum(counts),
            sum(c * x for c, x in zip(counts, middles, strict=True)),
            sum(c * x * x for c, x in zip(counts, middles, strict=True)),
            [low + (i + 1) * width for i in range(len(counts))],
            counts,
            step,
        )

    def layout(self, layers: Mapping[str, Iterable[str]], weights: list[str]) -> None:
        """Pages of the Custom Scalars tab: DL4J's Overview, and a Model page a layer.

        Args:
            layers: the names of the parameters of each layer.
            weights: those that the Overview shows, as DL4J's: without biases.
        """
        ratios = [_tag("update_ratio", name) for name in weights]
        pages: dict[str, dict[str, list[Any]]] = {
            "Overview": {
                "Score": ["Multiline", ["^score$"]],
                "log10 update:parameter ratios": ["Multiline", ratios],
                **{
                    f"Standard deviations: {kind}": ["Multiline", [f"^std/{kind}/"]]
                    for kind in ("activations", "gradients", "updates")
                },
                "Throughput": ["Multiline", ["^throughput/"]],
                "Memory, MB": ["Multiline", ["^memory/"]],
                "Learning rates": ["Multiline", ["^learning_rate/"]],
            }
        }
        for layer, names in layers.items():
            page: dict[str, list[Any]] = {}
            if names := list(names):
                mean = [
                    _tag(f"mean_magnitude/{kind}", name)
                    for kind in ("parameters", "updates")
                    for name in names
                ]
                page = {
                    "log10 update:parameter ratios": [
                        "Multiline",
                        [_tag("update_ratio", name) for name in names],
                    ],
                    "Mean magnitudes": ["Multiline", mean],
                    "Standard deviations": [
                        "Multiline",
                        [
                            _tag(f"std/{kind}", name)
                            for kind in ("gradients", "updates")
                            for name in names
                        ],
                    ],
                }
            page["Activations: mean and deviation"] = [
                "Multiline",
                [_tag("mean/activations", layer), _tag("std/activations", layer)],
            ]
            pages[f"Model: {layer}"] = page
        self.writer.add_custom_scalars(pages)


def _tag(family: str, name: str) -> str:
    """The regular expression of one tag, which is what TensorBoard asks for."""
    return f"^{re.escape(f'{family}/{name}')}$"
