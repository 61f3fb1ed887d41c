"""scikit-learn's own checks of estimators, and what only networks have."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from dl4py import InputType, NeuralNetConfiguration
from dl4py.config import Dense, Output
from dl4py.sklearn import Classifier, Features, Regressor


@parametrize_with_checks(
    [Classifier(epochs=30), Regressor(epochs=30), Features(n_components=2, epochs=3)]
)
def test_passes_scikit_learns_checks(estimator, check):
    check(estimator)


def small(n_in, n_out, **output):
    chain = NeuralNetConfiguration.builder().updater("adam", lr=0.05).seed(5)
    chain = chain.layer(Dense(n_out=4, activation="tanh", dropout=0.9))
    return (
        chain.layer(Output(n_out=n_out, **output))
        .input_type(InputType.feed_forward(n_in))
        .build()
    )


def one_output(n_in, n_out):
    return small(n_in, 1, activation="sigmoid", loss="xent")


ROWS, CLASSES = load_iris(return_X_y=True)
ROWS = (ROWS - ROWS.mean(0)) / ROWS.std(0)
NAMES = np.array(["setosa", "versicolor", "virginica"])[CLASSES]


def test_configurations_and_functions_that_make_one():
    fits = [
        Classifier(conf, epochs=30, random_state=3).fit(ROWS, NAMES)
        for conf in (small, small(4, 3), dataclasses.replace(small(4, 3), seed=6))
    ]
    # the seed is the estimator's, for order, parameters and noise alike
    first, *others = [f.predict_proba(ROWS) for f in fits]
    assert all((other == first).all() for other in others)
    assert set(fits[0].predict(ROWS)) == set(NAMES)
    assert fits[0].score(ROWS, NAMES) > 0.9
    assert len(fits[0].loss_curve_) == 30
    assert fits[0].loss_curve_[-1] < fits[0].loss_curve_[0]
    copied = pickle.loads(pickle.dumps(fits[0]))
    assert (copied.predict_proba(ROWS) == first).all()


def test_it_trains_as_the_network_does():
    fitted = Classifier(small, epochs=2, shuffle=False, random_state=3)
    fitted.fit(ROWS, CLASSES)
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    net = dataclasses.replace(small(4, 3), seed=seed).module()
    net.set_noise(torch.Generator().manual_seed(seed))
    x, y = torch.tensor(ROWS).float(), torch.eye(3)[torch.tensor(CLASSES)]
    net.fit(list(zip(x.split(32), y.split(32), strict=True)), epochs=2)
    assert torch.equal(net.params(), fitted.net_.params())


def test_one_output_is_the_second_class():
    rows, names = ROWS[:100], NAMES[:100]
    fitted = Classifier(one_output, epochs=20, random_state=0).fit(rows, names)
    proba = fitted.predict_proba(rows)
    assert proba.shape == (100, 2)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    assert fitted.score(rows, names) > 0.95


def test_several_outputs():
    y = ROWS @ np.arange(8.0).reshape(4, 2)
    fitted = Regressor(epochs=40, random_state=0).fit(ROWS, y)
    assert fitted.predict(ROWS).shape == y.shape and fitted.score(ROWS, y) > 0.9


def test_in_a_grid():
    grid = GridSearchCV(
        Classifier(small, random_state=0), {"epochs": [1, 20]}, cv=2, refit=False
    ).fit(ROWS, CLASSES)
    assert grid.best_params_ == {"epochs": 20}


@pytest.mark.parametrize(
    "arguments, error, what",
    [
        ({"epochs": 0}, ValueError, "epochs=.*whole number >= 1, got 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size=.*whole number >= 1, got 2.5"),
        ({"conf": "mlp"}, TypeError, "expected a configuration.*got str"),
        ({"conf": lambda n, m: n}, TypeError, "expected a configuration.*got int"),
        ({"conf": small(5, 3)}, ValueError, "5"),
        ({"conf": small(4, 2)}, ValueError, "2"),
    ],
)
def test_bad_input(arguments, error, what):
    with pytest.raises(error, match=what):
        Classifier(**arguments).fit(ROWS, CLASSES)
