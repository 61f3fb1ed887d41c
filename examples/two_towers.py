"""A graph: two towers on one input, two losses, saved as a zip that DL4J opens.

178 wines, 12 measurements each. One tower says which of three cultivars a wine is from
(MCXENT); the amount of alcohol (MSE) follows from both. The towers are narrow and the
training is short, since there are 118 wines to learn from. Beside them scikit-learn's
linear models, one for each question.

    pip install "dl4py[examples]"
    python examples/two_towers.py
"""

import argparse
import io
from collections.abc import Sequence

import lightning
import torch
from sklearn.datasets import load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch.utils.data import DataLoader, Dataset

import dl4py
from dl4py import InputType, NeuralNetConfiguration
from dl4py.config import Dense, MergeVertex, Output
from dl4py.evaluation import Evaluation, RegressionEvaluation

SEED, HELD_OUT = 7, 60


class Wines(Dataset):
    """Measurements and, for both outputs, what they are compared with."""

    def __init__(self, x: torch.Tensor, kind: torch.Tensor, alcohol: torch.Tensor):
        self.x, self.kind, self.alcohol = x, kind, alcohol

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.x[i], {"kind": self.kind[i], "alcohol": self.alcohol[i]}


def wines() -> tuple[Wines, Wines]:
    """Those to train on and those to test on, in units of standard deviations."""
    table, classes = load_wine(return_X_y=True)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(SEED))
    table = torch.tensor(table, dtype=torch.float32)[order]
    kind = torch.eye(3)[torch.tensor(classes)[order]]
    seen = table[HELD_OUT:]
    table = (table - seen.mean(0)) / seen.std(0)
    alcohol, x = table[:, :1], table[:, 1:]
    parts = slice(HELD_OUT, None), slice(HELD_OUT)
    train, test = (Wines(x[part], kind[part], alcohol[part]) for part in parts)
    return train, test


def configuration():
    """The graph in DL4J's words."""
    kind = Output.builder("MCXENT").nOut(3).activation("SOFTMAX").build()
    alcohol = Output.builder("MSE").nOut(1).activation("IDENTITY").build()
    return (
        NeuralNetConfiguration.builder()
        .seed(SEED)
        .updater("ADAM", lr=0.01)
        .l2(0.02)
        .activation("TANH")
        .graph_builder()
        .add_inputs("wine")
        .add_layer("first", Dense(n_out=4), "wine")
        .add_layer("second", Dense(n_out=4), "wine")
        .add_vertex("both", MergeVertex(), "first", "second")
        .add_layer("kind", kind, "first")
        .add_layer("alcohol", alcohol, "both")
        .set_outputs("kind", "alcohol")
        .set_input_types(InputType.feed_forward(12))
        .build()
    )


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Train; returns accuracy and R² on held-out wines, and of scikit-learn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args(arguments)
    train, test = wines()

    model = configuration().lightning(dl4j_exact=True)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, DataLoader(train, batch_size=32, shuffle=True))

    file = io.BytesIO()  # or a path: DL4J's ModelSerializer opens it
    dl4py.save(model, file)
    restored = dl4py.restore(file)
    kind, alcohol = restored.output(test.x)
    assert all(map(torch.equal, (kind, alcohol), model.network.output(test.x)))

    cultivars = Evaluation(labels=["cultivar 1", "cultivar 2", "cultivar 3"])
    cultivars.update(kind, test.kind)
    strength = RegressionEvaluation(["alcohol"])
    strength.update(alcohol, test.alcohol)
    print(cultivars.stats())
    print(strength.stats())
    logistic = LogisticRegression().fit(train.x, train.kind.argmax(1))
    linear = LinearRegression().fit(train.x, train.alcohol)
    result = {
        "accuracy": {
            "dl4py": cultivars.accuracy(),
            "scikit-learn": float(logistic.score(test.x, test.kind.argmax(1))),
        },
        "R²": {
            "dl4py": strength.r_squared(),
            "scikit-learn": float(linear.score(test.x, test.alcohol)),
        },
    }
    for measure, values in result.items():
        for name, value in values.items():
            print(f"{measure} of {name}: {value:.3f}")
    return result


if __name__ == "__main__":
    main()
