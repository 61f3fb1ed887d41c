"""Three lines of an existing LightningModule: dl4py's activation, loss and updater.

``Before`` is plain PyTorch. ``After`` is the same class with three lines changed; the
Trainer, the data and everything else stay as they are.

    python examples/drop_in.py
"""

import argparse
from collections.abc import Sequence

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py.data import iris, train_test_split

SEED = 123


class Before(lightning.LightningModule):
    """A classifier as its user wrote it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4, 10),
            nn.Tanh(),
            nn.Linear(10, 3),
        )
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.loss(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.NAdam(self.parameters(), lr=0.02)


class After(lightning.LightningModule):
    """The same in DL4J's definitions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4, 10),
            dl4py.activations.get("RATIONALTANH"),  # was nn.Tanh()
            nn.Linear(10, 3),
        )
        self.loss = dl4py.losses.get("MCXENT", activation="SOFTMAX")  # CrossEntropyLoss

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.loss(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        nadam = dl4py.updaters.get("NADAM")  # was torch.optim.NAdam
        return nadam(self.parameters(), lr=0.02)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train both on Iris; returns their accuracies on held-out flowers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args(arguments)

    features, labels = iris()
    features = (features - features.mean(0)) / features.std(0)
    x_train, x_test, y_train, y_test = train_test_split(features, labels, seed=SEED)

    accuracies = {}
    for cls in (Before, After):
        lightning.seed_everything(SEED)
        model = cls()
        loader = DataLoader(
            TensorDataset(x_train, y_train), batch_size=16, shuffle=True
        )
        trainer = lightning.Trainer(
            max_epochs=options.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            log_every_n_steps=1,
        )
        trainer.fit(model, loader)
        with torch.no_grad():
            hits = model(x_test).argmax(1) == y_test.argmax(1)
        accuracies[cls.__name__] = float(hits.float().mean())
        print(f"accuracy {cls.__name__}: {accuracies[cls.__name__]:.4f}")
    return accuracies


if __name__ == "__main__":
    main()
