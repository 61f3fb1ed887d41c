"""A search over networks in DL4J's words with Optuna, which stops what learns slowly.

DL4J's Arbiter is gone; here a trial chooses layers, activation, updater and rate of a
builder, trains on Iris, and is pruned at the epoch where it falls behind the others.

    pip install "dl4py[examples]"
    python examples/optuna_search.py
    python examples/optuna_search.py --trials 60 --epochs 40
"""

import argparse
from collections.abc import Sequence
from typing import Any

import optuna
import torch

from dl4py import NeuralNetConfiguration, data
from dl4py.config import Dense, MultiLayerConfiguration, Output

SEED = 7


def configuration(trial: optuna.Trial) -> MultiLayerConfiguration:
    """The network of a trial."""
    chain = (
        NeuralNetConfiguration.builder()
        .seed(SEED)
        .weight_init(trial.suggest_categorical("weight_init", ["xavier", "relu"]))
        .updater(
            trial.suggest_categorical("updater", ["adam", "nesterovs", "rmsprop"]),
            lr=trial.suggest_float("lr", 1e-4, 0.3, log=True),
        )
        .l2(trial.suggest_float("l2", 1e-6, 1e-2, log=True))
        .activation(
            trial.suggest_categorical("activation", ["tanh", "relu", "rationaltanh"])
        )
    )
    width = 4
    for i in range(trial.suggest_int("layers", 1, 3)):
        n_out = trial.suggest_int(f"width{i}", 4, 32, log=True)
        chain.layer(Dense(n_in=width, n_out=n_out))
        width = n_out
    return chain.layer(Output(n_in=width, n_out=3, activation="softmax")).build()


def objective(trial: optuna.Trial, epochs: int) -> float:
    """The score on held-out rows after training, or an end before it."""
    x, y = data.iris()
    x = (x - x.mean(0)) / x.std(0)
    x_train, x_test, y_train, y_test = data.train_test_split(x, y, test=0.3, seed=SEED)
    net = configuration(trial).module()
    batches = list(zip(x_train.split(35), y_train.split(35), strict=True))
    score = float("inf")
    for epoch in range(epochs):
        net.fit(batches)
        score = net.score(x_test, y_test)
        trial.report(score, epoch)
        if not torch.tensor(score).isfinite() or trial.should_prune():
            raise optuna.TrialPruned
    return score


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Search; returns the best score, its choices, and how many trials were pruned."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--trials", type=int, default=30)
    options = parser.parse_args(arguments)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=SEED),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    )
    study.optimize(lambda trial: objective(trial, options.epochs), options.trials)
    pruned = [t for t in study.trials if t.state is optuna.trial.TrialState.PRUNED]
    print(f"{len(study.trials)} trials, {len(pruned)} pruned")
    print(f"best score {study.best_value:.4f} with {study.best_params}")
    print(configuration(optuna.trial.FixedTrial(study.best_params)).to_yaml())
    return {
        "score": study.best_value,
        "choices": study.best_params,
        "pruned": len(pruned),
    }


if __name__ == "__main__":
    main()
