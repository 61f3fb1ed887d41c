"""Every loss against DL4J's own numbers."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import torch

from dl4py import losses
from dl4py.registry import LOSSES
from tests import golden
from tests.activations.test_activations import parse
from tests.losses.test_losses import WEIGHTS, by, gradient

__all__ = ["by"]  # a fixture

ROWS = golden.load("losses")
SIMPLE = {
    "score_sum": lambda loss, *inputs: loss.score(*inputs, average=False),
    "score_average": lambda loss, *inputs: loss(*inputs),
    "score_array": lambda loss, *inputs: loss.per_example(*inputs).unsqueeze(1),
    "gradient": lambda loss, *inputs: gradient(loss, *inputs),
}
INPUTS = {"loss", "activation", "labels_kind", "mask_kind", "class"} | {
    "labels", "preOutput", "mask",
}  # fmt: skip
CRASHES = {
    "Per output masking for MCXENT + softmax": "ours is the derivative of the score",
    "Expected column vector mask array": "a cosine's terms can be masked all the same",
    "Invalid mask array": "DL4J meant to mask the terms, so do we",
    "Cannot compute score array for FMeasure": "refused by us too",
}
NAMES = sorted({row["loss"] for row in ROWS})


def compare(row: dict[str, Any]) -> Counter[str]:
    name, args = parse(row["loss"])
    if "weights" in args:
        args["weights"] = WEIGHTS
    loss = losses.get(name, row["activation"], dl4j_exact=True, **args)
    assert str(LOSSES.entry(name).java).endswith("." + row["class"])
    inputs = [
        None if row[key] is None else torch.tensor(row[key], dtype=torch.float64)
        for key in ("preOutput", "labels", "mask")
    ]
    saturated = max(map(abs, itertools.chain(*row["preOutput"]))) > 20
    # 1 - tanh² has the absolute error of one rounding unit; a weight / clip_eps is the
    # largest factor on it
    rtol, noise = (1e-6, 2 / 1e-5) if saturated else (1e-9, 1)
    counts: Counter[str] = Counter()
    for key, compute in SIMPLE.items():
        if key not in row or row[key] is None:
            continue
        theirs = torch.tensor(row[key], dtype=torch.float64)
        ours = compute(loss, *inputs).detach()
        known = theirs.isfinite()
        largest = float(theirs[known].abs().max()) if known.any() else 0.0
        atol = torch.finfo(torch.float64).eps * max(noise, largest)
        torch.testing.assert_close(ours[known], theirs[known], rtol=rtol, atol=atol)
        counts["numbers"] += int(known.sum())
        counts["not finite in DL4J"] += int((~known).sum())
    for key in ("error", "score_array_error"):
        if key in row:
            (reason,) = [why for start, why in CRASHES.items() if start in row[key]]
            counts[reason] += 1
    assert set(row) <= INPUTS | set(SIMPLE) | {"error", "score_array_error"}
    if "error" in row:
        assert gradient(loss, *inputs).isfinite().all()
    return counts


class TestGolden:
    @pytest.mark.parametrize("name", NAMES)
    def test_rows(self, name: str, by: str) -> None:
        counts = sum((compare(row) for row in ROWS if row["loss"] == name), Counter())
        assert counts["numbers"]

    def test_every_row_is_there(self) -> None:
        assert len(ROWS) == 2820 and len(NAMES) == 27
        crashed = Counter(
            why for row in ROWS for start, why in CRASHES.items()
            if start in row.get("error", "") + row.get("score_array_error", "")
        )  # fmt: skip
        assert list(crashed[why] for why in CRASHES.values()) == [33, 39, 27, 24]
        with_error = [
            row for row in ROWS if "error" in row or "score_array_error" in row
        ]
        assert sum(crashed.values()) == len(with_error)
