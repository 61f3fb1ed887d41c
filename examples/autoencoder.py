"""A deep autoencoder by Hessian-free optimization, in an ordinary LightningModule.

784-400-200-100-50-25-6 logistic units and back, on generated images of smooth curves:
the problem of Martens (2010), that plain gradient descent does not get anywhere with.
Every unit starts with 15 connections. The loss is the cross-entropy of the pixels,
summed; what is returned is the squared error of an image.

    python examples/autoencoder.py
    python examples/autoencoder.py --images 5000 --epochs 300
"""

import argparse
from collections.abc import Sequence

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dl4py.lightning import QuietTrials
from dl4py.solvers import HessianFree

SIZES = [784, 400, 200, 100, 50, 25, 6]


def curves(count: int, seed: int = 0) -> Tensor:
    """Bézier curves of three to five control points, 28x28, a line 1.5 pixels wide."""
    random = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 1, 60)[:, None]
    grid = torch.stack(torch.meshgrid(*[torch.arange(28.0)] * 2, indexing="ij"), -1)
    images = []
    for i in range(count):
        line = torch.rand(3 + i % 3, 2, generator=random) * 22 + 3
        points = line.expand(60, -1, 2)
        while points.shape[1] > 1:  # de Casteljau
            points = torch.lerp(points[:, :-1], points[:, 1:], t[:, None])
        distance = torch.cdist(grid.reshape(-1, 2), points[:, 0]).amin(1)
        images.append((1.25 - distance).clamp(0, 1))
    return torch.stack(images)


def sparse(sizes: Sequence[int], seed: int) -> nn.Sequential:
    """Logistic layers there and back; 15 incoming weights N(0, 1) a unit, biases 0."""
    random = torch.Generator().manual_seed(seed)
    parts: list[nn.Module] = []
    widths = [*sizes, *sizes[-2::-1]]
    for a, b in zip(widths, widths[1:], strict=False):
        layer = nn.Linear(a, b)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        with torch.no_grad():
            for row in layer.weight:
                some = torch.randperm(a, generator=random)[:15]
                row[some] = torch.randn(len(some), generator=random)
        parts += [layer, nn.Sigmoid()]
    return nn.Sequential(*parts[:-1])


class Autoencoder(lightning.LightningModule):
    """Logits of the pixels."""

    def __init__(self, sizes: Sequence[int] = SIZES, seed: int = 0) -> None:
        super().__init__()
        self.body = sparse(sizes, seed)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (x,) = batch
        z = self(x)
        loss = F.binary_cross_entropy_with_logits(z, x, reduction="sum") / len(x)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return HessianFree(
            self.parameters(),
            damping=1.0,
            cg_max_iter=250,
            preconditioner="empirical",
            l2=2e-5,
        )

    @torch.no_grad()
    def error(self, x: Tensor) -> float:
        """The squared error of an image, mean over all."""
        return float((self(x).sigmoid() - x).square().sum() / len(x))


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train; returns the squared errors before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args(arguments)
    x = curves(options.images)
    model = Autoencoder()
    errors = {"before": model.error(x)}
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[QuietTrials()],
    )
    trainer.fit(model, DataLoader(TensorDataset(x), batch_size=len(x)))
    errors["after"] = model.error(x)
    print(f"squared error of an image: {errors['before']:.1f} → {errors['after']:.2f}")
    return errors


if __name__ == "__main__":
    main()
