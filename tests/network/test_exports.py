"""Networks in other people's runtimes; ``python -m tests.exports`` tries them all."""

from __future__ import annotations

import pytest
import torch

from dl4py import InputType, NeuralNetConfiguration
from dl4py.config import Convolution2D, Output
from tests import exports

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's exporters have many
SHARE = [  # of those that the slow exporter takes; the whole takes minutes
    "convolution2d",
    "lstm",
    "reshape_vertex-1",
    "loss-kld-softmax",
    "loss-mcxent-softmax",
]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("case", exports.CASES)
def test_traced(case: str, exact: bool) -> None:
    said = exports.tried(case, dynamo=False, exact=exact)
    assert bool(said) == (case in exports.REFUSED), said


@pytest.mark.parametrize("case", SHARE)
def test_exported(case: str) -> None:
    assert exports.tried(case, dynamo=True, exact=False) is None


@pytest.mark.parametrize("dynamo", [True, False])
def test_channels_last(dynamo: bool) -> None:
    chain = NeuralNetConfiguration.builder().seed(1)
    chain = chain.layer(Convolution2D(kernel_size=(3, 3), n_out=4, format="NHWC"))
    chain = chain.layer(Output(n_out=3))
    net = chain.input_type(InputType.convolutional(6, 5, 2, "NHWC")).build().module()
    x = torch.randn(4, 6, 5, 2, generator=torch.Generator().manual_seed(0))
    found = exports.session(exports.exported(net.eval(), x, dynamo))(x)
    torch.testing.assert_close(found, net.output(x), rtol=1e-5, atol=1e-6)
