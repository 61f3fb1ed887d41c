"""Linear regression: MSE with IDENTITY is the least-squares line of scikit-learn.

442 diabetes patients, 10 measurements each; the label is the progression of the
disease a year later.

    pip install "dl4py[examples]"
    python examples/regression.py
"""

import argparse
from collections.abc import Sequence

import lightning
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from torch.utils.data import DataLoader, TensorDataset

from dl4py.config import NeuralNetConfiguration, Output
from dl4py.evaluation import RegressionEvaluation

SEED = 123


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Fit both; returns R² of dl4py's and of scikit-learn's fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300)
    options = parser.parse_args(arguments)

    features, progression = load_diabetes(return_X_y=True)
    x = torch.tensor(features, dtype=torch.float32)
    y = torch.tensor(progression, dtype=torch.float32).unsqueeze(1)  # [n, 1]
    x = (x - x.mean(0)) / x.std(0)
    y = (y - y.mean()) / y.std()  # R² does not depend on the unit

    model = (
        NeuralNetConfiguration.builder()
        .seed(SEED)
        .updater("NESTEROVS", lr=0.1, momentum=0.9)
        .list()
        .layer(Output.builder("MSE").n_in(10).n_out(1).activation("IDENTITY").build())
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

    evaluation = RegressionEvaluation(["progression"])
    evaluation.update(model.network.output(x), y)
    print(evaluation.stats())
    peer = LinearRegression().fit(x, y)
    result = {"dl4py": evaluation.r_squared(), "scikit-learn": peer.score(x, y)}
    for name, r_squared in result.items():
        print(f"R² of {name}: {r_squared:.5f}")
    return result


if __name__ == "__main__":
    main()
