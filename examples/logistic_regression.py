"""Logistic regression: XENT with SIGMOID, on breast cancer, beside scikit-learn's.

scikit-learn minimises ½·‖w‖² + C·Σ loss; with C = 1 that is DL4J's mean loss with an
l2 of 1/n. So both look for the same weights.

    pip install "dl4py[examples]"
    python examples/logistic_regression.py
"""

import argparse
from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, TensorDataset

from dl4py.config import NeuralNetConfiguration, Output
from dl4py.data import train_test_split
from dl4py.evaluation import Evaluation

SEED = 123


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Fit both; returns coefficients (the intercept last) and held-out accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300)
    options = parser.parse_args(arguments)

    features, benign = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        torch.tensor(features, dtype=torch.float32),
        torch.tensor(benign),
        test=0.2,
        seed=SEED,
    )
    mean, std = x_train.mean(0), x_train.std(0)
    x_train, x_test = (x_train - mean) / std, (x_test - mean) / std
    labels = y_train.float().unsqueeze(1)  # [n, 1]

    model = (
        NeuralNetConfiguration.builder()
        .seed(SEED)
        .updater("NESTEROVS", lr=0.3, momentum=0.95)
        .l2(1 / len(x_train))
        .list()
        .layer(Output.builder("XENT").n_in(30).n_out(1).activation("SIGMOID").build())
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
    data = TensorDataset(x_train, labels)
    trainer.fit(model, DataLoader(data, batch_size=len(data)))

    evaluation = Evaluation(labels=["malignant", "benign"])
    evaluation.update(model.network.output(x_test), y_test)
    print(evaluation.stats())
    peer = LogisticRegression(tol=1e-8).fit(x_train, y_train)
    result = {
        "coefficients": {
            "dl4py": model.network.params().numpy(),
            "scikit-learn": np.append(peer.coef_, peer.intercept_),
        },
        "accuracy": {
            "dl4py": float(evaluation.accuracy()),
            "scikit-learn": peer.score(x_test, y_test),
        },
    }
    for what, values in result.items():
        for name, value in values.items():
            print(f"{what} of {name}: {np.round(value, 4)}")
    return result


if __name__ == "__main__":
    main()
