"""Networks with noise everywhere draw what DL4J drew, in its order and places.

``tests/data/noise.json.xz`` holds what DL4J computed after ``setSeed(123)``: gradient,
score and the generator's last state, of networks with dropout, or DropConnect, in every
layer. They say in which order a layer's array lies in ND4J: its random numbers follow.
Parameters, inputs and labels come from seeds here as they did there.
"""

from __future__ import annotations

import functools
import json
import lzma
from typing import Any

import pytest
import torch

from dl4py import NativeRandom, NeuralNetConfiguration
from tests.golden import HERE


@functools.cache
def cases() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        lzma.decompress((HERE / "data" / "noise.json.xz").read_bytes())
    )
    return found


def drawn(case: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (torch.empty(case[key], dtype=torch.float64) for key in "xy")
    return NativeRandom(7).normal(x), NativeRandom(8).uniform(y)


@pytest.mark.parametrize("name", cases())
def test_draws_in_dl4js_order(name: str) -> None:
    case = cases()[name]
    conf = NeuralNetConfiguration.from_json(json.dumps(case["conf"]))
    net = conf.module(dl4j_exact=True, noise=NativeRandom(conf.seed))
    random = NativeRandom(123)
    net.set_noise(random)
    gradient, score = net.gradient_and_score(*drawn(case))
    theirs = torch.tensor(case["gradient"], dtype=torch.float64)
    error = (gradient - theirs).abs().max() / theirs.abs().max()
    assert error < 1e-8  # the file has 9 digits
    assert score == pytest.approx(case["score"], rel=1e-10)
    assert random.node == case["node"]
