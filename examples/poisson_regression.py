"""Regression of counts: EXPLL, DL4J's old name of POISSON, on top of exp.

EXPLL needs a positive output. DL4J has no exponential activation; a function may stand
wherever a name does, so ``torch.exp`` is one.

    pip install "dl4py[examples]"
    python examples/poisson_regression.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import mean_poisson_deviance
from torch.utils.data import DataLoader, TensorDataset

from dl4py.config import NeuralNetConfiguration, Output

SEED = 123


def counts(n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Features ``[n, 3]`` and counts of mean exp(0.6·x₁ - 0.4·x₂ + 0.2·x₃ + 1)."""
    rng = np.random.default_rng(SEED)
    features = rng.normal(size=(n, 3))
    return features, rng.poisson(np.exp(features @ [0.6, -0.4, 0.2] + 1.0))


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Fit both; returns coefficients (the intercept last) and mean deviances."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    options = parser.parse_args(arguments)

    features, events = counts()
    x = torch.tensor(features, dtype=torch.float32)
    y = torch.tensor(events, dtype=torch.float32).unsqueeze(1)  # [n, 1]

    model = (
        NeuralNetConfiguration.builder()
        .seed(SEED)
        .updater("ADAM", lr=0.05)
        .list()
        .layer(Output.builder("EXPLL").n_in(3).n_out(1).activation(torch.exp).build())
        .build()
        .lightning()
    )
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=len(x)))

    peer = PoissonRegressor(alpha=0, tol=1e-8, max_iter=1000).fit(features, events)
    mean = model.network.output(x).squeeze(1).numpy()
    result = {
        "coefficients": {
            "dl4py": model.network.params().numpy(),
            "scikit-learn": np.append(peer.coef_, peer.intercept_),
        },
        "deviance": {
            "dl4py": mean_poisson_deviance(events, mean),
            "scikit-learn": mean_poisson_deviance(events, peer.predict(features)),
        },
    }
    for what, values in result.items():
        for name, value in values.items():
            print(f"{what} of {name}: {np.round(value, 5)}")
    return result


if __name__ == "__main__":
    main()
