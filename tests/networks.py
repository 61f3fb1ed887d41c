"""What tests of networks share: a small one, and examples for it."""

import torch

from dl4py.config import Dense, NeuralNetConfiguration, Output


def builder(dtype="double"):
    return NeuralNetConfiguration.builder().seed(3).data_type(dtype)


def mlp(**settings):
    chain = builder().updater("adam", lr=0.05)
    for name, value in settings.items():
        chain = getattr(chain, name)(value)
    chain.layer(Dense(n_in=4, n_out=6, activation="tanh"))
    return chain.layer(Output(n_out=3)).build()


def examples():
    """12 of 4 features and one of 3 classes."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 4, generator=g, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[torch.randint(3, (12,), generator=g)]
    return x, y
