"""Updaters, and the optimizer of a built network, under Lightning's callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    Callback,
    LearningRateMonitor,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dl4py import updaters
from dl4py.config import Dense, NeuralNetConfiguration, Output
from dl4py.registry import parameters
from dl4py.schedules import Exponential, Map
from tests.updating import hyper

BATCHES, EPOCHS = 3, 4


def loader() -> DataLoader[Any]:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(4 * BATCHES, 4, generator=g)
    return DataLoader(TensorDataset(x, x[:, :2].softmax(1)), batch_size=4)


class Model(lightning.LightningModule):
    """As a user writes it."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)
        self.make, self.lr = make, 0.05

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.mse_loss(self.head(self.body(x)), y)

    def configure_optimizers(self) -> Any:
        return self.make([p for p in self.parameters() if p.requires_grad])

    def on_train_epoch_end(self) -> None:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        optimizer.epoch += 1


def network(name: str, **updater: Any) -> Any:
    chain = NeuralNetConfiguration.builder().seed(1).updater(name, **updater)
    chain.layer(Dense(n_in=4, n_out=3)).layer(Output(n_out=2))
    return chain.build().lightning()


class Rates(Callback):
    """What every step really used: parameters where all gradients are 1."""

    def __init__(self) -> None:
        self.moved: list[float] = []
        self.before = Tensor()

    def on_before_optimizer_step(
        self, trainer: Any, model: Any, optimizer: Any
    ) -> None:
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        self.before = next(model.parameters()).detach().clone()

    def on_train_batch_end(self, trainer: Any, model: Any, *args: Any) -> None:
        moved = self.before - next(model.parameters()).detach()
        self.moved.append(float(moved.double().mean()))


def trainer(folder: Path, *callbacks: Any, epochs: int = EPOCHS, **options: Any) -> Any:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"enable_checkpointing": False, **options},
    )


SCHEDULES = {
    "iteration": Exponential(0.5, 0.75),
    "epoch": Map({0: 0.5, 1: 0.25, 3: 0.125}, by="epoch"),
}


@pytest.mark.parametrize("by", SCHEDULES)
@pytest.mark.parametrize("kind", ["module", "network"])
def test_the_monitor_shows_what_is_used(kind: str, by: str, tmp_path: Path) -> None:
    if kind == "module":
        model: Any = Model(lambda params: updaters.Sgd(params, lr=SCHEDULES[by]))
    else:
        model = network("sgd", lr=SCHEDULES[by])
    monitor, used = LearningRateMonitor("step"), Rates()
    trainer(tmp_path, monitor, used).fit(model, loader())
    (shown, *_) = monitor.lrs.values()
    assert shown == pytest.approx(used.moved, rel=1e-5)
    assert len(set(shown)) == (3 if by == "epoch" else BATCHES * EPOCHS)


@pytest.mark.filterwarnings("ignore:.*some optimizers do not have momentum")
def test_the_monitor_knows_every_updater(cls: Any, tmp_path: Path) -> None:
    for model in (Model(cls), network(cls.__name__)):
        monitor = LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)
        trainer(tmp_path, monitor, epochs=1).fit(model, loader())
        for shown in monitor.lrs.values():
            assert shown == [parameters(cls).get("lr", 1.0)] * BATCHES
        for momentum in monitor.last_momentum_values.values():
            names = {"momentum", "beta1"} & parameters(cls).keys()
            assert momentum == (0.9 if names else 0)
        assert set(monitor.last_weight_decay_values.values()) == {0.0}


@pytest.mark.parametrize("kind", ["module", "network"])
def test_weight_averaging_takes_over_from_a_schedule(kind: str, tmp_path: Path) -> None:
    schedule = Map({0: 0.5}, by="epoch")
    if kind == "module":
        model: Any = Model(lambda params: updaters.Sgd(params, lr=schedule))
    else:
        model = network("sgd", lr=schedule)
    used = Rates()
    swa = StochasticWeightAveraging(
        0.01, swa_epoch_start=1, annealing_epochs=1, annealing_strategy="linear"
    )
    with pytest.warns(UserWarning, match="lr of a parameter group was changed"):
        trainer(tmp_path, swa, used).fit(model, loader())
    assert used.moved[-1] == pytest.approx(0.01, rel=1e-4)
    assert used.moved[0] == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("kind", ["module", "network"])
def test_a_rate_is_found(kind: str, cls: Any, tmp_path: Path) -> None:
    """``lr_find`` saves a state, attaches a scheduler, and loads the state again."""
    model: Any = Model(cls) if kind == "module" else network(cls.__name__)
    tuner = Tuner(trainer(tmp_path, epochs=6))
    before = [p.detach().clone() for p in model.parameters()]
    found: Any = tuner.lr_find(
        model, loader(), num_training=16, min_lr=1e-6, early_stop_threshold=None
    )
    rates = found.results["lr"]
    assert rates == sorted(rates) and rates[-1] > 1e4 * rates[0]
    assert all(map(torch.equal, before, model.parameters()))
    assert model.lr == found.suggestion() and model.lr in rates


class Unfreeze(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.body)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.body, optimizer)
        if epoch > 1:  # of a resumed run, which Lightning leaves frozen
            self.make_trainable(pl_module.body)


def test_finetuning(cls: Any, tmp_path: Path) -> None:
    """A group joins late, and a checkpoint of both goes on."""
    arguments = {**hyper(cls), "lr": Exponential(0.05, 0.9)}

    def make(params: Any) -> Any:
        return cls(params, **arguments)

    whole = Model(make)
    start = whole.body.weight.detach().clone()
    trainer(tmp_path, Unfreeze(), epochs=3).fit(whole, loader())
    assert not torch.equal(start, whole.body.weight)
    first, second = Model(make), Model(make)
    half = trainer(tmp_path, Unfreeze(), epochs=2)
    half.fit(first, loader())
    path = tmp_path / "half.ckpt"
    half.save_checkpoint(path)
    trainer(tmp_path, Unfreeze(), epochs=3).fit(second, loader(), ckpt_path=path)
    for p, q in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_network_goes_on_only_from_its_updater(tmp_path: Path) -> None:
    half = trainer(tmp_path, epochs=1)
    half.fit(network("adam"), loader())
    path = tmp_path / "adam.ckpt"
    half.save_checkpoint(path)
    with pytest.raises(ValueError, match="saved by Adam, not by Nadam"):
        trainer(tmp_path).fit(network("nadam"), loader(), ckpt_path=path)


def test_a_network_compares_its_groups_with_saved_ones() -> None:
    optimizer = network("adam").network.optimizer
    saved = optimizer.state_dict()
    saved["param_groups"].append({**saved["param_groups"][0], "params": []})
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(saved)


def test_a_network_cycles_its_momentum() -> None:
    for name, key in (("adam", "beta1"), ("nesterovs", "momentum")):
        net = network(name).network
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            net.optimizer, max_lr=0.1, total_steps=6
        )
        seen = []
        for x, y in loader():
            net.fit(x, y)
            scheduler.step()
            seen.append(net.optimizer.param_groups[-1][key])
        assert len(set(seen)) == BATCHES


def test_a_networks_groups_are_its_layers() -> None:
    """A late one would never be updated; torch's decay in one that is there acts."""
    x, y = next(iter(loader()))
    plain, decayed = (network("adam", lr=0.5).network for _ in "pd")
    with pytest.raises(ValueError, match="an optimizer of their own"):
        plain.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    before = plain.params()
    for group in decayed.optimizer.param_groups:
        group["weight_decay"] = 0.25
    plain.fit(x, y)
    decayed.fit(x, y)
    torch.testing.assert_close(
        decayed.params(), plain.params() - 0.125 * before, rtol=1e-5, atol=1e-6
    )


def test_a_networks_rate_where_dl4j_has_none() -> None:
    x, y = next(iter(loader()))
    whole, half = (network("adadelta").network for _ in "wh")
    before = whole.params()
    for group in half.optimizer.param_groups:
        group["lr"] = 0.5
    whole.fit(x, y)
    half.fit(x, y)
    torch.testing.assert_close(
        half.params() - before, (whole.params() - before) / 2, rtol=1e-3, atol=1e-7
    )


def test_a_compiled_step_of_a_network() -> None:
    eager, compiled = (network("adam").network for _ in "ec")
    step = torch.compile(compiled.optimizer.step, backend="aot_eager")
    for x, y in loader():
        eager.fit(x, y)
        compiled.train()
        compiled.optimizer.zero_grad()
        compiled.objective(x, y).backward()
        step()
    assert torch.equal(eager.params(), compiled.params())
