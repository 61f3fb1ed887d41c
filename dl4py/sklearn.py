"""Networks as scikit-learn estimators, for pipelines, grids and cross-validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch

from dl4py.config import InputType, NeuralNetConfiguration
from dl4py.config.autoencoders import AutoEncoder
from dl4py.config.feedforward import Dense, Output
from dl4py.config.settings import NetworkConfiguration
from dl4py.extras import needed
from dl4py.network import Network

with needed("sklearn", "dl4py.sklearn makes estimators"):
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        RegressorMixin,
        TransformerMixin,
    )
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data

Conf = NetworkConfiguration | Callable[[int, int], NetworkConfiguration] | None


def one_hidden_layer(n_in: int, n_out: int, **output: Any) -> NetworkConfiguration:
    """n_in → 32 rectified units → n_out, by Adam at 0.01, in scikit-learn's float64."""
    chain = NeuralNetConfiguration.builder().data_type("double")
    chain = chain.updater("adam", lr=0.01)
    chain = chain.weight_init("xavier").layer(Dense(n_out=32, activation="relu"))
    chain = chain.layer(Output(n_out=n_out, **output))
    return chain.input_type(InputType.feed_forward(n_in)).build()


class Estimator(BaseEstimator):  # type: ignore[misc]
    """What all share: a network, trained on rows.

    Args:
        conf: a configuration, whose sizes must be the data's; or a function of
            (number of features, number of outputs) that makes one. Default: 32 hidden
            units, trained by Adam.
        epochs: how often training goes over the rows, >= 1.
        batch_size: rows a step, >= 1; the last batch of an epoch may be smaller.
        shuffle: whether each epoch takes the rows in another order.
        random_state: a seed or ``numpy.random.RandomState`` for order, initial
            parameters and noise; ``None``: numpy's global one.

    Attributes:
        net_: the network.
        loss_curve_: the mean score of each epoch's batches, each before its step.
        n_features_in_: width of the rows.
    """

    def __init__(
        self,
        conf: Conf = None,
        *,
        epochs: int = 100,
        batch_size: int = 32,
        shuffle: bool = True,
        random_state: Any = None,
    ) -> None:
        self.conf = conf
        self.epochs = epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.random_state = random_state

    _counts: ClassVar[tuple[str, ...]] = ("epochs", "batch_size")

    def _default(self, n_in: int, n_out: int) -> NetworkConfiguration:
        raise NotImplementedError

    def _check(self) -> None:
        for name in self._counts:
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or value < 1:
                raise ValueError(
                    f"{type(self).__name__}({name}=...) must be a whole number >= 1, "
                    f"got {value!r}"
                )

    def _network(self, n_in: int, n_out: int, random: Any) -> Network:
        """A new network, all of whose random numbers follow from ``random``."""
        seed = int(random.randint(2**31 - 1))
        conf = self.conf
        if not isinstance(conf, NetworkConfiguration):
            make = self._default if conf is None else conf
            conf = make(n_in, n_out) if callable(make) else make
        if not isinstance(conf, NetworkConfiguration):
            raise TypeError(
                f"{type(self).__name__}(conf=...): expected a configuration, or a "
                "function of (number of features, number of outputs) that makes one, "
                f"got {type(conf).__name__}"
            )
        net = dataclasses.replace(conf, seed=seed).module()
        net.set_noise(torch.Generator().manual_seed(seed))
        return net

    def _train(self, x: np.ndarray, y: np.ndarray) -> None:
        """A new network, trained on rows and their labels, both [n, width]."""
        random = check_random_state(self.random_state)
        net = self._network(x.shape[1], y.shape[1], random)
        dtype = next(net.parameters()).dtype
        features = torch.tensor(x, dtype=dtype)
        width = net.output(features[:1]).shape[-1]
        if width == 1 and y.shape[1] == 2 and isinstance(self, ClassifierMixin):
            y = y[:, 1:]  # one probability is of the second class
        labels = torch.tensor(y, dtype=dtype)
        curve = []
        for _ in range(self.epochs):
            scores = [net.fit(*b) for b in self._batches(features, labels, random)]
            net.end_epoch()
            curve.append(float(np.mean(scores)))
        self.net_, self.loss_curve_ = net, curve

    def _batches(
        self, x: torch.Tensor, y: torch.Tensor, random: Any
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.arange(len(x))
        if self.shuffle:
            order = torch.as_tensor(random.permutation(len(x)))
        for start in range(0, len(x), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield x[rows], y[rows]

    def _rows(self, x: Any) -> torch.Tensor:
        """Rows as the fitted network takes them."""
        check_is_fitted(self)
        rows = validate_data(self, x, reset=False)
        return torch.tensor(rows, dtype=next(self.net_.parameters()).dtype)

    def _output(self, x: Any) -> np.ndarray:
        rows = self._rows(x)  # which needs to be fitted
        return np.asarray(self.net_.output(rows), dtype=np.float64)


class Classifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """Rows to classes, of any labels that scikit-learn takes.

    The network's output has one value a class, or one in all: the probability of the
    second of two. Arguments and attributes are those of :class:`Estimator`;
    ``classes_`` are the labels in the order of the outputs.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> x, y = load_iris(return_X_y=True)
        >>> classifier = Classifier(epochs=20, random_state=0)
        >>> pipeline = make_pipeline(StandardScaler(), classifier)
        >>> pipeline.fit(x, y).score(x, y) > 0.95
        True
    """

    def _default(self, n_in: int, n_out: int) -> NetworkConfiguration:
        return one_hidden_layer(n_in, n_out)

    def fit(self, X: Any, y: Any) -> Classifier:
        """Train a new network."""
        self._check()
        rows, targets = validate_data(self, X, y)
        check_classification_targets(targets)
        self.classes_, indices = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__}.fit(X, y): needs at least 2 classes, got one "
                f"class, {self.classes_[0]!r}"
            )
        self._train(rows, np.eye(len(self.classes_))[indices])
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities, [n, classes]."""
        found = self._output(X)
        return np.hstack([1 - found, found]) if found.shape[1] == 1 else found

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        labels: np.ndarray = self.classes_[likeliest]
        return labels


class Regressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """Rows to numbers, one a row or several.

    Arguments and attributes are those of :class:`Estimator`.

    Example:
        >>> x = np.linspace(-1, 1, 50)[:, None]
        >>> Regressor(random_state=0).fit(x, x[:, 0] ** 2).score(x, x[:, 0] ** 2) > 0.9
        True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _default(self, n_in: int, n_out: int) -> NetworkConfiguration:
        return one_hidden_layer(n_in, n_out, activation="identity", loss="mse")

    def fit(self, X: Any, y: Any) -> Regressor:
        """Train a new network."""
        self._check()
        rows, targets = validate_data(self, X, y, multi_output=True, y_numeric=True)
        self._train(rows, targets.reshape(len(targets), -1))
        self._shape = targets.shape[1:]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The outputs, in the shape of the labels."""
        found = self._output(X)
        return found.reshape(len(found), *self._shape)


class Features(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    Estimator,
):
    """Rows to features that a network learned from rows alone.

    The network's AutoEncoder and VariationalAutoencoder layers are trained one after
    the other, as DL4J's ``pretrain``; what the last of them says are the features: of
    a VariationalAutoencoder the means of its code.

    Args:
        conf: as of :class:`Estimator`; a function gets the number of features and
            ``n_components``. Default: an autoencoder of that width, trained by Adam.
        n_components: how many features the default makes, >= 1.
        epochs, batch_size, shuffle, random_state: as of :class:`Estimator`; each layer
            is trained for so many epochs.

    Attributes:
        net_: the network.
        scores_: each trained layer's score on its last batch, by name.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> x = load_digits().data[:100] / 16
        >>> Features(n_components=5, epochs=2, random_state=0).fit_transform(x).shape
        (100, 5)
    """

    def __init__(
        self,
        conf: Conf = None,
        *,
        n_components: int = 16,
        epochs: int = 100,
        batch_size: int = 32,
        shuffle: bool = True,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            conf,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            random_state=random_state,
        )
        self.n_components = n_components

    _counts = (*Estimator._counts, "n_components")

    def _default(self, n_in: int, n_out: int) -> NetworkConfiguration:
        chain = NeuralNetConfiguration.builder().data_type("double")
        chain = chain.updater("adam", lr=0.01).weight_init("xavier")
        code = AutoEncoder(
            n_out=n_out, activation="sigmoid", loss="mse", corruption_level=0.1
        )
        return chain.layer(code).input_type(InputType.feed_forward(n_in)).build()

    def fit(self, X: Any, y: Any = None) -> Features:
        """Train a new network; labels are not looked at."""
        self._check()
        rows = validate_data(self, X)
        random = check_random_state(self.random_state)
        net = self._network(rows.shape[1], self.n_components, random)
        x = torch.tensor(rows, dtype=next(net.parameters()).dtype)
        self.scores_ = net.pretrain(_Shuffled(self, x, random), self.epochs)
        self.net_ = net
        self._n_features_out = self._codes(x[:1]).shape[1]
        return self

    def _codes(self, x: torch.Tensor) -> torch.Tensor:
        found = self.net_.feed_forward(x)
        names = [step.name for step in self.net_.plan.steps]
        last = list(self.scores_)[-1]
        codes = found[last] if isinstance(found, dict) else found[names.index(last)]
        flat: torch.Tensor = codes.reshape(len(x), -1)
        return flat

    def transform(self, X: Any) -> np.ndarray:
        """The features, [n, width of the code]."""
        return np.asarray(self._codes(self._rows(X)), dtype=np.float64)


class _Shuffled:
    """Batches of rows, in another order each time."""

    def __init__(self, estimator: Estimator, x: torch.Tensor, random: Any) -> None:
        self.estimator, self.x, self.random = estimator, x, random

    def __iter__(self) -> Iterator[torch.Tensor]:
        pairs = self.estimator._batches(self.x, self.x, self.random)
        return (x for x, _ in pairs)
