"""Learning without labels: k-means on learned codes, and a VAE that sees what is odd.

1,797 digits of 8 x 8 pixels. An autoencoder's codes and the pixels are clustered by the
same k-means, and both are compared with the digits (adjusted Rand index, 1: the same
groups, 0: chance); on images as small as these the codes have little to add. Then a
variational autoencoder learns all digits but one, and the probability that it gives to
an image says whether it is of the one it has never seen (area under the ROC curve).

    pip install "dl4py[examples]"
    python examples/unsupervised.py
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from dl4py import InputType, NeuralNetConfiguration
from dl4py.config import MultiLayerConfiguration, VariationalAutoencoder
from dl4py.evaluation import ROC
from dl4py.sklearn import Features

SEED, UNSEEN = 0, 7


def clusters(x: np.ndarray, digits: np.ndarray) -> float:
    """How well k-means finds the digits."""
    found = KMeans(10, n_init=10, random_state=SEED).fit_predict(x)
    return float(adjusted_rand_score(digits, found))


def variational(n_in: int, n_out: int) -> MultiLayerConfiguration:
    """64 pixels → 64 hidden units → the mean and deviation of 8 numbers, and back."""
    layer = (
        VariationalAutoencoder.builder()
        .nOut(n_out)
        .encoderLayerSizes(64)
        .decoderLayerSizes(64)
        .activation("LEAKYRELU")
        .distribution("bernoulli")
        .build()
    )
    chain = NeuralNetConfiguration.builder().updater("ADAM", lr=0.005).layer(layer)
    return chain.input_type(InputType.feed_forward(n_in)).build()


def odd_ones(x: np.ndarray, digits: np.ndarray, epochs: int) -> ROC:
    """The ROC of telling the unseen digit from held-out ones of the others."""
    known = np.flatnonzero(digits != UNSEEN)
    known = np.random.default_rng(SEED).permutation(known)
    train, held_out = known[300:], known[:300]
    vae = Features(variational, n_components=8, epochs=epochs, random_state=SEED)
    net = vae.fit(x[train]).net_
    asked = np.concatenate([held_out, np.flatnonzero(digits == UNSEEN)])
    torch.manual_seed(SEED)  # the probability is an estimate from samples
    layer = next(iter(net.layers.values()))
    with torch.no_grad():
        rows = torch.tensor(x[asked], dtype=torch.float32)
        surprise = -layer.reconstruction_log_probability(rows, num_samples=16)
    roc = ROC()  # exact: every value a threshold
    scores = (surprise - surprise.min()) / (surprise.max() - surprise.min())
    odd = torch.tensor(digits[asked] == UNSEEN, dtype=torch.float32)
    roc.update(scores.reshape(-1, 1), odd.reshape(-1, 1))
    return roc


def picture(codes: np.ndarray, digits: np.ndarray, roc: ROC, path: Path) -> None:
    """The codes in two dimensions, and the ROC."""
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    flat = PCA(2).fit_transform(codes)
    dots = left.scatter(*flat.T, c=digits, cmap="tab10", s=6)
    left.set(title="Codes of an autoencoder, first two principal components")
    left.legend(*dots.legend_elements(), title="digit", fontsize=7)
    roc.plot(ax=right)
    right.set(title=f"A VAE that has never seen a {UNSEEN}")
    pyplot.savefig(path)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train both; returns the two scores of k-means and the area under the ROC."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--picture", type=Path, help="where to draw, a PNG")
    options = parser.parse_args(arguments)
    x, digits = load_digits(return_X_y=True)
    x = x / 16
    learned = Features(n_components=32, epochs=options.epochs, random_state=SEED)
    codes = learned.fit_transform(x)
    roc = odd_ones(x, digits, options.epochs)
    result = {
        "k-means on pixels": clusters(x, digits),
        "k-means on codes": clusters(codes, digits),
        f"ROC of the unseen {UNSEEN}": float(roc.calculate_auc()),
    }
    for name, value in result.items():
        print(f"{name}: {value:.3f}")
    if options.picture:
        picture(codes, digits, roc, options.picture)
    return result


if __name__ == "__main__":
    main()
