"""What a network is judged by after an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from dl4py.evaluation import (
    ROC,
    Evaluation,
    RegressionEvaluation,
    ROCBinary,
    ROCMultiClass,
)
from dl4py.network import Network
from dl4py.network.batch import unpacked
from dl4py.network.pretraining import inputs_of


@dataclass
class Score:
    """Base of what an epoch's network is judged by.

    Args:
        data: an iterable of batches, e.g. a ``DataLoader``, not a generator.

    Attributes:
        minimize: whether a smaller score is better.
    """

    data: Iterable[Any]

    @property
    def minimize(self) -> bool:
        return True

    def of(self, network: Network) -> float:
        """The network's score."""
        raise NotImplementedError


@dataclass
class DataSetLoss(Score):
    """The network's score, penalties included, over all examples: mean or sum."""

    average: bool = True

    def of(self, network: Network) -> float:
        total, count = 0.0, 0
        for batch in self.data:
            x, labels, *masks = unpacked(batch)
            n = network._batch(x, labels, *masks).inputs[0].shape[0]
            total, count = total + network.score(x, labels, *masks) * n, count + n
        return total / max(count, 1) if self.average else total


@dataclass
class ClassificationScore(Score):
    """One of ``Evaluation``'s numbers; larger is better.

    Args:
        metric: accuracy, f1, precision, recall, gmeasure or mcc.
    """

    metric: str = "accuracy"

    def __post_init__(self) -> None:
        Evaluation(metric=self.metric)

    @property
    def minimize(self) -> bool:
        return False

    def of(self, network: Network) -> float:
        found = network.evaluate(self.data, Evaluation())
        return float(found.score_for_metric(self.metric))


@dataclass
class RegressionScore(Score):
    """One of ``RegressionEvaluation``'s averages; of pc and r2 larger is better.

    Args:
        metric: mse, mae, rmse, rse, pc or r2.
    """

    metric: str = "mse"

    def __post_init__(self) -> None:
        RegressionEvaluation(metric=self.metric)

    @property
    def minimize(self) -> bool:
        return self.metric.lower() not in ("pc", "r2")

    def of(self, network: Network) -> float:
        found = network.evaluate(self.data, RegressionEvaluation())
        return float(found.score_for_metric(self.metric))


_CURVES: dict[str, Callable[[], Any]] = {
    "roc": ROC,
    "binary": ROCBinary,
    "multiclass": ROCMultiClass,
}


@dataclass
class ROCScore(Score):
    """The mean area under the curves; larger is better.

    Args:
        kind: ``"roc"``, ``"binary"`` or ``"multiclass"``.
        metric: ``"auc"``, or ``"aucpr"``: of precision and recall.
    """

    kind: str = "roc"
    metric: str = "auc"

    def __post_init__(self) -> None:
        for name, known in (("kind", tuple(_CURVES)), ("metric", ("auc", "aucpr"))):
            if getattr(self, name) not in known:
                got = getattr(self, name)
                raise ValueError(f"ROCScore({name}=...): one of {known}, got {got!r}")

    @property
    def minimize(self) -> bool:
        return False

    def of(self, network: Network) -> float:
        found = network.evaluate(self.data, _CURVES[self.kind]())
        whole = self.metric == "auc"
        area = found.calculate_average_auc if whole else found.calculate_average_aucpr
        return float(area())


@dataclass
class ReconstructionScore(Score):
    """How well a first layer gives back its input, the mean over the examples.

    An autoencoder's and a loss's error, smaller is better; of a variational
    autoencoder's distribution the mean of ln p(x), larger is better.

    Args:
        probability: whether it is the latter; ``num_samples``: draws for each example.
    """

    probability: bool = False
    num_samples: int = 1

    @property
    def minimize(self) -> bool:
        return not self.probability

    @torch.no_grad()
    def of(self, network: Network) -> float:
        layer: Any = network.nodes[0].layer
        if not hasattr(layer, "reconstruction_error"):
            raise ValueError(
                "ReconstructionScore: the first layer gives nothing back; expected an "
                f"AutoEncoder or a VariationalAutoencoder, got {type(layer).__name__}"
            )
        total, count = 0.0, 0
        with network._mode(False):
            for batch in self.data:
                x, _ = inputs_of(batch)
                if self.probability:
                    found = layer.reconstruction_log_probability(x, self.num_samples)
                else:
                    found = layer.reconstruction_error(x)
                total, count = total + float(found.sum()), count + len(x)
        return total / max(count, 1)
