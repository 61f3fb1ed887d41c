"""Gauss-Newton products against explicit JᵀHJ."""

import functools

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from dl4py.solvers.curvature import GaussNewton

Y = torch.tensor([0, 2, 1, 0, -100])
LOSSES = {
    "squares": None,  # against fixed numbers
    "classes": lambda z: F.cross_entropy(z, Y, label_smoothing=0.1),
    "two": lambda z: F.cross_entropy(z, Y) + z.pow(4).mean(),
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_equals_the_explicit_product(name):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Tanh(),
        nn.Linear(5, 3),
    ).double()  # fmt: skip
    x = torch.randn(5, 3, dtype=torch.float64)
    names, params = zip(*net.named_parameters(), strict=True)
    z = net(x)
    fixed = LOSSES[name]
    if name == "squares":
        target = z.detach().roll(1)
        fixed = functools.partial(F.mse_loss, target=target)
    jacobian = torch.autograd.functional.jacobian(
        lambda *p: functional_call(net, dict(zip(names, p, strict=True)), x), params
    )
    j = torch.cat([t.reshape(z.numel(), -1) for t in jacobian], 1)
    h = torch.autograd.functional.hessian(fixed, z.detach())
    g = j.T @ h.reshape(z.numel(), -1) @ j
    product = GaussNewton(fixed(z), [z], params)
    v = [torch.randn_like(p) for p in params]
    ours = nn.utils.parameters_to_vector(product(v))
    expected = g @ nn.utils.parameters_to_vector(v)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    assert expected.norm() > 1e-3
