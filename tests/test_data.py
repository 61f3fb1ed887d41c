"""The data sets that come with the package."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_iris

from dl4py.data import IRIS_CLASSES, IRIS_FEATURES, iris, train_test_split


class TestIris:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_equals_scikit_learn(self, dtype: torch.dtype) -> None:
        features, labels = iris(dtype)
        expected = load_iris()
        assert torch.equal(features, torch.tensor(expected.data, dtype=dtype))
        assert labels.argmax(1).tolist() == expected.target.tolist()
        assert labels.dtype == dtype and labels.sum(1).tolist() == [1.0] * 150
        assert list(IRIS_CLASSES) == expected.target_names.tolist()
        assert [f"{name} (cm)" for name in IRIS_FEATURES] == expected.feature_names

    def test_is_fishers_version(self) -> None:
        features, _ = iris(torch.float64)
        assert features[34].tolist() == [4.9, 3.1, 1.5, 0.2]
        assert features[37].tolist() == [4.9, 3.6, 1.4, 0.1]


class TestSplit:
    @pytest.mark.parametrize("one_hot", [True, False])
    def test_keeps_rows_and_shares(self, one_hot: bool) -> None:
        x = torch.arange(100)
        y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
        labels = torch.nn.functional.one_hot(y) if one_hot else y
        x_train, x_test, y_train, y_test = train_test_split(x, labels, 0.3)
        assert sorted([*x_train.tolist(), *x_test.tolist()]) == x.tolist()
        assert y[x_test].bincount().tolist() == [18, 9, 3]
        assert torch.equal(y_train, labels[x_train])
        assert torch.equal(y_test, labels[x_test])
        assert x_train.tolist() != sorted(x_train.tolist())

    def test_seed(self) -> None:
        first, again, other = (train_test_split(*iris(), seed=s) for s in (1, 1, 2))
        assert torch.equal(first[0], again[0])
        assert not torch.equal(first[0], other[0])

    @pytest.mark.parametrize("test", [0, 1, -0.1, float("nan")])
    def test_bad_share(self, test: float) -> None:
        with pytest.raises(ValueError, match="test=...\\) must be in"):
            train_test_split(*iris(), test=test)
