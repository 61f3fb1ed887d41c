"""What tests of bad input share."""

import pytest
import torch

from tests.networks import builder


def network(*layers, given=None, exact=False, dtype="double"):
    chain = builder(dtype).updater("adam", lr=0.05).list()
    for layer in layers:
        chain.layer(layer)
    return (chain.input_type(given) if given else chain).build().module(exact)


def zeros(*shape, dtype=torch.float64):
    return torch.zeros(shape, dtype=dtype)


def refuses(kind, message, *ways):
    for way in ways:
        with pytest.raises(kind, match=message) as caught:
            way()
        assert "mat1" not in str(caught.value)
