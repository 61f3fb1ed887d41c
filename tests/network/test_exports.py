"""Networks in other people's runtimes; ``python -m tests.exports`` tries them all."""

from __future__ import annotations

import pytest

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
