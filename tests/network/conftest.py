"""A fixture for tests of what is refused."""

import copy

import pytest
import torch


@pytest.fixture
def untouched():
    """Check that nothing of a network has changed: ``untouched(net)``, then a call."""
    kept = []

    def keep(net):
        net.optimizer  # noqa: B018  made before it is copied
        state = copy.deepcopy((net.state_dict(), net.optimizer.state_dict()))
        flags = [m.training for m in net.modules()]
        kept.append((net, state, flags))

    yield keep
    for net, (params, optimizer), flags in kept:
        assert all(torch.equal(v, params[k]) for k, v in net.state_dict().items())
        assert net.optimizer.state_dict()["clock"] == optimizer["clock"]
        assert str(net.optimizer.state_dict()) == str(optimizer)
        assert [m.training for m in net.modules()] == flags
        assert all(p.grad is None for p in net.parameters())
        assert not any(node.layer.pending for node in net.nodes)
