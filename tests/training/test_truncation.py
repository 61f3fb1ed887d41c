"""Truncated back-propagation under a trainer."""

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

import dl4py
from dl4py.config import (
    NeuralNetConfiguration,
)
from tests.training.test_lightning import PACKAGES, SAFELY, trainer


class Resumed:
    """A loader that goes on after the batches which a run has seen."""

    def __init__(self, batches):
        self.batches, self.seen = batches, 0

    def __iter__(self):
        for i in range(self.seen % len(self.batches), len(self.batches)):
            self.seen = i + 1
            yield self.batches[i]

    def __len__(self):
        return len(self.batches)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def series():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 4, 7, generator=g, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[torch.randint(3, (12, 7), generator=g)]
    mask = (torch.rand(12, 7, generator=g) < 0.7).double()
    y = y.transpose(1, 2).contiguous()
    return [
        tuple(t[i : i + 4] for t in (x, y, torch.ones_like(mask), mask))
        for i in range(0, 12, 4)
    ]


def truncated(**settings):
    chain = NeuralNetConfiguration.builder().seed(5).updater("adam", lr=0.05).l2(1e-3)
    chain.data_type("double").backprop_type("TruncatedBPTT").tbptt_fwd_length(3)
    chain.tbptt_back_length(2)
    for name, value in settings.items():
        getattr(chain, name)(value)
    chain.layer(dl4py.config.LSTM(n_in=4, n_out=6, activation="tanh"))
    return chain.layer(dl4py.config.RnnOutput(n_out=3)).build()


class TestTruncatedBackPropagation:
    @pytest.mark.parametrize("name", list(PACKAGES))
    @pytest.mark.parametrize("algorithm", ["STOCHASTIC_GRADIENT_DESCENT", "LBFGS"])
    def test_equals_fit(self, name, algorithm, tmp_path):
        conf = truncated(optimization_algo=algorithm)
        module, net = conf.lightning(package=name), conf.module()
        t = trainer(PACKAGES[name], tmp_path)
        t.fit(module, DataLoader(series(), batch_size=None))
        score = net.fit(series(), epochs=2)
        assert torch.equal(module.network.params(), net.params())
        assert torch.equal(module.network.updater_state(), net.updater_state())
        assert vars(module.network.clock) == vars(net.clock)
        assert t.global_step == net.clock.iteration == 2 * 3 * 3
        assert float(t.callback_metrics["train_loss"]) == pytest.approx(score)
        assert module.network.rnn_get_previous_states() == {}

    @pytest.mark.filterwarnings(
        "ignore:Using ModelCheckpoint with manual optimization",
        "ignore:Be aware that when using `ckpt_path`",
    )
    def test_resumes_in_the_middle_of_an_epoch(self, tmp_path):
        keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=6, save_top_k=-1)
        whole, again = (
            truncated(seed=s, dropout=0.8)
            .module(noise=dl4py.NativeRandom(s))
            .lightning(package="lightning")
            for s in (5, 99)
        )
        options = {"enable_checkpointing": True, "callbacks": [keep]}
        trainer(lightning, tmp_path, **options).fit(whole, Resumed(series()))
        trainer(lightning, tmp_path).fit(
            again, Resumed(series()), ckpt_path=tmp_path / "step=6.ckpt", **SAFELY
        )
        assert torch.equal(again.network.params(), whole.network.params())
        assert again.network.clock.iteration == whole.network.clock.iteration == 18

    @pytest.mark.parametrize(
        "options, instead",
        [
            ({"gradient_clip_val": 1.0}, "gradient_normalization"),
            ({"accumulate_grad_batches": 2}, "larger batches"),
        ],
    )
    def test_what_a_trainer_does_around_a_step_is_refused(
        self, options, instead, tmp_path
    ):
        module = truncated().lightning(package="lightning")
        (name,) = options
        with pytest.raises(ValueError, match=rf"Trainer\({name}=.*{instead}"):
            trainer(lightning, tmp_path, **options).fit(
                module, DataLoader(series(), batch_size=None)
            )
        assert module.network.clock.iteration == 0

    def test_a_score_that_is_no_number_ends_training(self, tmp_path):
        module = truncated().lightning(package="lightning")
        (x, y, *_), *_ = series()
        with pytest.raises(FloatingPointError, match="score is nan at iteration 0"):
            trainer(lightning, tmp_path).fit(
                module, DataLoader([(x, y * float("nan"))], batch_size=None)
            )
        assert module.network.params().isfinite().all()
