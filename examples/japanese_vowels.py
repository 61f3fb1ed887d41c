"""Series of unequal length: which of nine men says a vowel, by an LSTM and masks.

640 utterances of 7 to 29 frames of 12 numbers each; the network sees them padded, with
a mask that says where each one ends. What stands behind a mask has no part in anything:
noise in place of the padding gives the same answers.

    python examples/japanese_vowels.py

The data are M. Kudo, J. Toyama and M. Shimbo's (Pattern Recognition Letters 20, 1999),
from the UCI Machine Learning Repository, Japanese Vowels, CC BY 4.0; here with all
their decimals, in millionths, frame after frame.
"""

import argparse
import pathlib
from collections.abc import Sequence

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from dl4py import InputType, NeuralNetConfiguration
from dl4py.config import LSTM, GlobalPooling, MultiLayerConfiguration, Output
from dl4py.evaluation import Evaluation
from dl4py.normalizers import Standardize

FILE = pathlib.Path(__file__).with_suffix(".npz")


def utterances(part: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(features [n, 12, 29], labels [n, 9], mask [n, 29]) of "train" or "test"."""
    with np.load(FILE) as data:
        frames = torch.tensor(data[part] / 1e6, dtype=torch.float32)
        lengths = data[f"{part}_lengths"].tolist()
        speakers = torch.tensor(data[f"{part}_speakers"], dtype=torch.int64)
    padded = torch.nn.utils.rnn.pad_sequence(frames.split(lengths), batch_first=True)
    padded = torch.nn.functional.pad(padded, (0, 0, 0, 29 - padded.shape[1]))
    mask = (torch.arange(29) < torch.tensor(lengths)[:, None]).float()
    return padded.transpose(1, 2), torch.eye(9)[speakers], mask


def configuration() -> MultiLayerConfiguration:
    """An LSTM, the mean of what it says at all frames, a softmax."""
    return (
        NeuralNetConfiguration.builder()
        .seed(1)
        .updater("ADAM", lr=0.01)
        .list()
        .layer(LSTM.builder().nOut(64).activation("TANH").dropout(0.8).build())
        .layer(GlobalPooling.builder("AVG").build())
        .layer(Output.builder("MCXENT").nOut(9).activation("SOFTMAX").build())
        .input_type(InputType.recurrent(12))
        .build()
    )


def main(arguments: Sequence[str] | None = None) -> float:
    """Train; returns the accuracy on the 370 test utterances."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args(arguments)
    x, y, mask = utterances("train")
    scale = Standardize().fit([(x, y, mask)])

    model = configuration().lightning()
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    rows = TensorDataset(scale.transform(x, mask), y, mask)
    trainer.fit(model, DataLoader(rows, batch_size=32, shuffle=True))

    net = model.network
    net.normalizer = scale
    x, y, mask = utterances("test")
    answers = net.predict(x, mask)
    noise = torch.where(mask[:, None] > 0, x, torch.full_like(x, torch.nan))
    assert torch.equal(net.predict(noise, mask), answers)
    speakers = Evaluation(labels=[f"speaker {i}" for i in range(1, 10)])
    speakers.update(answers, y)
    print(speakers.stats())
    return float(speakers.accuracy())


if __name__ == "__main__":
    torch.manual_seed(0)  # the order of the utterances
    main()
