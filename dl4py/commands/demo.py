"""The main job end to end: a network in DL4J's words, on real data, under a Trainer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from torch.utils.data import DataLoader, TensorDataset

from dl4py import data
from dl4py.commands.found import Found
from dl4py.config import Dense, MultiLayerConfiguration, NeuralNetConfiguration, Output
from dl4py.evaluation import Evaluation
from dl4py.lightning import Network

SEED = 42


def configuration() -> MultiLayerConfiguration:
    """Iris classifier: 4 - 10 rational tanh - 3 softmax."""
    return (
        NeuralNetConfiguration.builder()
        .seed(SEED)
        .updater("nesterovs", lr=0.05, momentum=0.9)
        .weight_init("xavier")
        .l2(1e-4)
        .list()
        .layer(0, Dense.builder().n_in(4).n_out(10).activation("RATIONALTANH").build())
        .layer(1, Output.builder("MCXENT").n_out(3).activation("SOFTMAX").build())
        .build()
    )


class Curve(lightning.Callback):
    """The score of every training step."""

    def __init__(self) -> None:
        self.scores: list[float] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.scores.append(float(trainer.callback_metrics["train_loss"]))


def run(out: Path, epochs: int) -> Found:
    """Train, evaluate, draw, save, load, and say what came out.

    Args:
        out: folder for the pictures and the checkpoint; made where it is missing.
        epochs: passes over the training rows, at least 1.
    """
    out.mkdir(parents=True, exist_ok=True)
    features, labels = data.iris()
    x_train, x_test, y_train, y_test = data.train_test_split(
        features, labels, test=0.2, seed=SEED
    )
    mean, std = x_train.mean(0), x_train.std(0)
    x_train, x_test = (x_train - mean) / std, (x_test - mean) / std
    loader = DataLoader(
        TensorDataset(x_train, y_train),
        batch_size=16,
        shuffle=True,
        generator=torch.Generator().manual_seed(SEED),
    )

    model = configuration().lightning(package="lightning")
    curve = Curve()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[curve, TQDMProgressBar(refresh_rate=len(loader))],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    with warnings.catch_warnings():  # 120 rows need no loader processes
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(model, loader)

    evaluation = Evaluation(num_classes=3, labels=list(data.IRIS_CLASSES))
    predictions = model.network.output(x_test)
    evaluation.update(predictions, y_test)
    print(evaluation.stats())

    checkpoint = out / "iris.ckpt"
    trainer.save_checkpoint(checkpoint)
    loaded = Network.load_from_checkpoint(checkpoint, weights_only=True)
    same = torch.equal(loaded.network.output(x_test), predictions)
    verdict = "equal" if same else "DIFFER"
    print(f"checkpoint {checkpoint}: loaded, predictions {verdict}")
    if not same:
        raise RuntimeError("the loaded checkpoint predicts something else")

    pictures = []
    for name, figure in (
        ("training-curve.png", _plot_curve(curve.scores)),
        ("confusion-matrix.png", evaluation.plot()[0]),
    ):
        figure.savefig(out / name, dpi=120, bbox_inches="tight")
        print(f"picture {out / name}")
        pictures.append(str(out / name))
    accuracy = float(evaluation.accuracy())
    return Found(
        {"accuracy": accuracy, "checkpoint": str(checkpoint), "pictures": pictures},
        [f"test accuracy {accuracy:.4f}"],
    )


def _plot_curve(scores: list[float]) -> Any:
    from matplotlib.figure import Figure  # an extra; without a window system

    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot()
    axes.plot(scores)
    axes.set(xlabel="iteration", ylabel="score", title="Iris, training")
    return figure
