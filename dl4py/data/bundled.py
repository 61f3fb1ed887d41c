"""Small data sets that come with the package."""

from __future__ import annotations

import csv
from importlib import resources

import torch
from torch import Tensor

IRIS_FEATURES = ("sepal length", "sepal width", "petal length", "petal width")
IRIS_CLASSES = ("setosa", "versicolor", "virginica")


def iris(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Iris flowers: features ``[150, 4]`` in cm, one-hot labels ``[150, 3]``.

    The first 50 rows are setosa, then 50 versicolor, then 50 virginica. Rows 35 and 38
    are as in Fisher's paper, from which the file of the UCI repository differs.

    Args:
        dtype: a floating dtype.

    Example:
        >>> features, labels = iris()
        >>> features[0], IRIS_CLASSES[labels[0].argmax()]
        (tensor([5.1000, 3.5000, 1.4000, 0.2000]), 'setosa')

    Reference: R. A. Fisher, The use of multiple measurements in taxonomic problems,
    1936; measured by E. Anderson, 1935; UCI Machine Learning Repository, data set 53.
    """
    text = (
        resources.files("dl4py.data").joinpath("iris.csv").read_text(encoding="ascii")
    )
    _, *rows = csv.reader(text.splitlines())
    features = torch.tensor([[float(x) for x in row[:4]] for row in rows], dtype=dtype)
    species = torch.tensor([IRIS_CLASSES.index(row[4]) for row in rows])
    labels = torch.nn.functional.one_hot(species, len(IRIS_CLASSES))
    return features, labels.to(dtype)


def train_test_split(
    x: Tensor, y: Tensor, test: float = 0.2, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shuffled ``x_train, x_test, y_train, y_test``, each class split alike.

    Args:
        y: one-hot ``[n, K]`` or class indices ``[n]``.
        test: the share of the test rows of each class, in (0, 1).

    Example:
        >>> _, _, train, test = train_test_split(*iris())
        >>> train.sum(0), test.sum(0)
        (tensor([40., 40., 40.]), tensor([10., 10., 10.]))
    """
    if not 0 < test < 1:
        raise ValueError(f"train_test_split(test=...) must be in (0, 1), got {test}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    classes = (y.argmax(1) if y.ndim == 2 else y)[order]
    held = torch.zeros(len(x), dtype=torch.bool)
    for cls in set(classes.tolist()):
        rows = (classes == cls).nonzero()[:, 0]
        held[rows[: round(test * len(rows))]] = True
    train, tested = order[~held], order[held]
    return x[train], x[tested], y[train], y[tested]
