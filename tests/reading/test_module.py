"""Files under a Trainer: shares, normalizers, masks."""

import csv

import lightning
import pytest
import pytorch_lightning
import torch

import dl4py.lightning
import dl4py.pytorch_lightning
from dl4py import data
from dl4py.config import Dense, InputType, NeuralNetConfiguration, Output, RnnOutput
from dl4py.config import SimpleRnn as Rnn
from dl4py.data import Reading
from dl4py.normalizers import MinMaxScaler, Standardize

QUIET = {
    "max_epochs": 2,
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


@pytest.fixture
def iris(tmp_path):
    x, y = data.iris()
    with open(tmp_path / "iris.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*data.IRIS_FEATURES, "species"])
        for row, label in zip(x.tolist(), y.argmax(1).tolist(), strict=True):
            rows.writerow([*row, data.IRIS_CLASSES[label]])
    return str(tmp_path / "iris.csv")


def network(n_in=4):
    chain = NeuralNetConfiguration.builder().seed(1).updater("adam", lr=0.05)
    chain = chain.layer(Dense(n_in=n_in, n_out=5, activation="tanh"))
    return chain.layer(Output(n_out=3)).build()


def test_the_normalizer_learns_from_the_training_part_alone(iris):
    module = dl4py.lightning.DataModule(
        iris, 0.2, 0.1, read=Reading(labels="species"), normalizer="standardize"
    )
    module.setup()
    sizes = {name: len(part) for name, part in module.parts.items()}
    assert sizes == {"train": 105, "validation": 30, "test": 15}
    own = Standardize().fit(module.parts["train"].inputs[0])
    raw = module.parts["test"].batch(torch.arange(15))[0]
    (batch,) = module.test_dataloader()
    torch.testing.assert_close(batch[0], own(raw))
    assert not torch.allclose(batch[0], Standardize().fit(raw)(raw))
    assert len(module.train_dataloader()) == 4


@pytest.mark.parametrize("package", [lightning, pytorch_lightning])
def test_fit_hands_the_normalizer_on(iris, package):
    home = {"lightning": dl4py.lightning}.get(package.__name__, dl4py.pytorch_lightning)
    words = {"read": Reading(labels="species"), "normalizer": MinMaxScaler(-1, 1)}
    module = home.DataModule(iris, 0.2, **words, batch_size=16)
    model = network().lightning(package=package.__name__)
    trainer = package.Trainer(**QUIET)
    trainer.fit(model, datamodule=module)
    assert model.network.normalizer is module.normalizer
    trainer.validate(model, datamodule=module, verbose=False)
    x, y = data.read(iris, labels="species").batch(torch.arange(150))
    (predicted,) = trainer.predict(
        model,
        datamodule=home.DataModule(
            predict=iris, read=Reading(features=[0, 1, 2, 3]), batch_size=150
        ),
    )
    torch.testing.assert_close(predicted, model.network.predict(x))


def test_without_training_data_the_networks_normalizer_counts(iris):
    read = Reading(labels="species")
    net = network().module()
    x, y = data.read(iris, labels="species").batch(torch.arange(150))
    module = dl4py.lightning.DataModule(test=iris, read=read, normalizer="standardize")
    trainer = lightning.Trainer(**QUIET)
    with pytest.raises(ValueError, match="normalizer: has nothing to learn from"):
        trainer.test(net.lightning("lightning"), module, verbose=False)
    net.normalizer = Standardize().fit(x)
    (found,) = trainer.test(net.lightning("lightning"), module, verbose=False)
    expected = float((net.predict(x).argmax(1) == y.argmax(1)).float().mean())
    assert found["test_accuracy"] == pytest.approx(expected)


def test_the_order_is_that_of_the_seed(iris):
    def first(seed):
        module = dl4py.lightning.DataModule(
            iris, read=Reading(labels="species"), seed=seed
        )
        module.setup()
        return next(iter(module.train_dataloader()))[0]

    assert torch.equal(first(1), first(1)) and not torch.equal(first(1), first(2))


def test_sequences_train_with_their_masks(tmp_path):
    for i, length in enumerate((3, 5, 4)):
        rows = [f"{t},{t % 2}" for t in range(length)]
        (tmp_path / f"{i}.csv").write_text("\n".join(rows))
    chain = NeuralNetConfiguration.builder().input_type(InputType.recurrent(1))
    net = chain.layer(Rnn(n_out=3)).layer(RnnOutput(n_out=2)).build().module()
    options = Reading(per_file=True, labels=1, classes=2, features=[0])
    module = dl4py.lightning.DataModule(
        str(tmp_path), read=options, normalizer="standardize"
    )
    lightning.Trainer(**QUIET).fit(net.lightning("lightning"), datamodule=module)
    (batch,) = module.train_dataloader()
    assert batch[2].sum() == 12 and (batch[0][:, 0] * (1 - batch[2]) == 0).all()


@pytest.mark.parametrize(
    "words, says",
    [
        ({"validation": 0.2}, "validation: a share of train, but train names no file"),
        ({"train": "iris.csv", "batch_size": 0}, "batch_size must be a whole number"),
        ({"train": "none.csv"}, "none.csv: no such file"),
    ],
)
def test_what_does_not_fit(words, says):
    with pytest.raises((ValueError, OSError), match=says):
        dl4py.lightning.DataModule(**words).setup()


def test_classes_of_the_training_data_hold_for_the_rest(iris, tmp_path):
    (tmp_path / "more.csv").write_text("1,2,3,4,virginica\n1,2,3,4,rose\n")
    options = Reading(labels=4)
    module = dl4py.lightning.DataModule(
        iris, test=str(tmp_path / "more.csv"), read=options
    )
    with pytest.raises(ValueError, match="row 2, column '4': .* setosa.*got 'rose'"):
        module.setup()
