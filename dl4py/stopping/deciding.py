"""The decisions of early stopping, in DL4J's order."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dl4py.network import Network
from dl4py.network.batch import unpacked
from dl4py.stopping.conditions import Condition
from dl4py.stopping.savers import MemorySaver
from dl4py.stopping.scores import Score


@dataclass
class Result:
    """How a training ended.

    Args:
        reason: DL4J's word: ``"EpochTerminationCondition"``,
            ``"IterationTerminationCondition"`` or ``"Error"``; empty: it did not, or
            something else ended it.
        details: the condition or the error.
        scores: epoch → its score, where it was evaluated.
        best_epoch, best_score: of the best network; -1 without one.
        total_epochs: how many epochs there were; one that was cut short does not count.
        best_model: the best network, if there is one.
    """

    reason: str
    details: str
    scores: Mapping[int, float]
    best_epoch: int
    best_score: float
    total_epochs: int
    best_model: Network | None


class EarlyStopping:
    """When to stop and what to keep, as DL4J's EarlyStoppingConfiguration decides it.

    :meth:`fit` trains with it; ``dl4py.lightning.EarlyStopping(stopping)`` is a
    callback that decides the same under a ``Trainer``.

    Args:
        score: how an epoch's network is judged.
        conditions: what ends training, at least one; the first that holds counts.
        evaluate_every: epochs from one evaluation to the next, >= 1; DL4J asks
            conditions on epochs in those only.
        saver: where the best network goes; default: memory.
        save_last: whether the latest one is kept too.

    Example:
        >>> import torch
        >>> from dl4py.config import NeuralNetConfiguration, Output
        >>> from dl4py.stopping import DataSetLoss, MaxEpochs
        >>> chain = NeuralNetConfiguration.builder().updater("sgd", lr=0.1)
        >>> net = chain.layer(Output(n_in=2, n_out=2)).build().module()
        >>> data = [(torch.eye(2), torch.eye(2))]
        >>> stopping = EarlyStopping(DataSetLoss(data), [MaxEpochs(3)])
        >>> result = stopping.fit(net, data)
        >>> result.reason, result.best_epoch, result.total_epochs
        ('EpochTerminationCondition', 2, 3)

    DL4J: org.deeplearning4j.earlystopping.EarlyStoppingConfiguration,
        org.deeplearning4j.earlystopping.trainer.EarlyStoppingTrainer
    """

    def __init__(
        self,
        score: Score,
        conditions: Sequence[Condition],
        evaluate_every: int = 1,
        saver: Any = None,
        save_last: bool = False,
    ) -> None:
        odd = [c for c in conditions if not isinstance(c, Condition)]
        if not conditions or odd:
            raise ValueError(
                "EarlyStopping(conditions=...): expected conditions such as "
                f"MaxEpochs(10), got {odd[0] if odd else list(conditions)!r}"
            )
        if not hasattr(score, "of") or not hasattr(score, "minimize"):
            raise TypeError(
                "EarlyStopping(score=...): expected a score such as DataSetLoss(data), "
                f"got {score!r}"
            )
        if not isinstance(evaluate_every, int) or evaluate_every < 1:
            raise ValueError(
                f"EarlyStopping(evaluate_every=...) must be >= 1, got {evaluate_every}"
            )
        self.score, self.conditions = score, tuple(conditions)
        self.evaluate_every, self.save_last = evaluate_every, save_last
        self.saver = MemorySaver() if saver is None else saver
        self.begin()

    def begin(self) -> None:
        """Begin a training."""
        self.epoch, self.scores = 0, dict[int, float]()
        self.best_epoch = -1
        self.best_score = math.inf if self.score.minimize else -math.inf
        self.reason = self.details = ""
        for condition in self.conditions:
            condition.begin()

    def after_iteration(self, score: float, network: Network) -> bool:
        """Whether training ends with this step."""
        if not self._ended(True, score):
            return False
        if self.save_last:
            self.saver.save("latest", network)
        return True

    def after_epoch(self, network: Network) -> bool:
        """Judge the network, keep it if it is the best, and say whether to end."""
        epoch, ended = self.epoch, False
        if epoch % self.evaluate_every == 0:
            score = self.score.of(network)
            self.scores[epoch] = score
            less = self.score.minimize
            better = score < self.best_score if less else score > self.best_score
            if better or (self.best_epoch == -1 and not math.isfinite(score)):
                self.best_score, self.best_epoch = score, epoch
                self.saver.save("best", network)
            if self.save_last:
                self.saver.save("latest", network)
            ended = self._ended(False, score)
        self.epoch += 1
        return ended

    def _ended(self, iteration: bool, score: float) -> bool:
        for condition in self.conditions:
            if condition.each_iteration == iteration and condition.ends(
                self.epoch, score, self.score.minimize
            ):
                word = "Iteration" if iteration else "Epoch"
                self.reason = f"{word}TerminationCondition"
                self.details = repr(condition)
                return True
        return False

    @property
    def result(self) -> Result:
        """How the training ended, or stands."""
        return Result(
            self.reason,
            self.details,
            dict(self.scores),
            self.best_epoch,
            self.best_score,
            self.epoch,
            self.saver.load("best"),
        )

    def fit(self, network: Network, loader: Iterable[Any]) -> Result:
        """Train until a condition holds; the network stays as the last step left it.

        An error in a step ends training too, as in DL4J: it is then in ``details``.
        """
        self.begin()
        while True:
            count = 0
            for batch in loader:
                count += 1
                try:
                    score = network.fit(*unpacked(batch))
                except FloatingPointError as error:
                    if not self.after_iteration(math.nan, network):
                        self.reason, self.details = "Error", str(error)
                    return self.result
                if self.after_iteration(score, network):
                    return self.result
            if not count:
                raise ValueError(
                    "fit(loader): expected at least one batch, got none; a generator "
                    "gives them once, a list or DataLoader every time"
                )
            network.end_epoch()
            if self.after_epoch(network):
                return self.result

    def state_dict(self) -> dict[str, Any]:
        """Where the decisions stand; the saver's networks are not in it."""
        names = ("epoch", "scores", "best_epoch", "best_score", "reason", "details")
        found = {name: copy.copy(getattr(self, name)) for name in names}
        return {**found, "conditions": [dict(vars(c)) for c in self.conditions]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict` of equal conditions."""
        rest = dict(state)
        for condition, own in zip(self.conditions, rest.pop("conditions"), strict=True):
            vars(condition).update(own)
        vars(self).update(rest)
