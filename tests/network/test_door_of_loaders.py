"""Bad batches of a loader: the same clear errors in ``fit`` and under a trainer."""

import itertools

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dl4py.config import (
    LSTM,
    RnnOutput,
)
from tests.network.refusing import network, refuses, zeros
from tests.networks import examples, mlp


class TestLoader:
    def test_no_batches(self, untouched):
        net = mlp().module()
        untouched(net)
        for loader in ([], iter(()), DataLoader([], batch_size=2)):
            refuses(
                ValueError,
                "at least one batch, got none in epoch 0",
                lambda given=loader: net.fit(given),
            )
        for epochs in (0, -1, 1.5):
            refuses(
                ValueError,
                r"fit\(loader, epochs=...\) must be a whole number >= 1",
                lambda e=epochs: net.fit([examples()], epochs=e),
            )

    def test_what_only_the_other_form_takes(self, untouched):
        net, (x, y) = mlp().module(), examples()
        untouched(net)
        batches, mask = [(x, y)], torch.ones(len(x))
        refuses(ValueError, r"a batch is one iter", lambda: net.fit(x, y, epochs=5))
        refuses(
            ValueError,
            "come with the batches",
            lambda: net.fit(batches, labels_mask=mask),
        )

    def test_a_generator_ends(self):
        net = mlp().module()
        once = itertools.repeat(examples(), 2)
        refuses(
            ValueError,
            "none in epoch 1; a generator gives them once",
            lambda: net.fit(once, epochs=3),
        )
        assert (net.clock.iteration, net.clock.epoch) == (2, 1)

    def test_an_empty_batch_among_others(self):
        net, (x, y) = mlp().module(), examples()
        refuses(ValueError, "batch is empty", lambda: net.fit([(x, y), (x[:0], y[:0])]))
        assert net.clock.iteration == 1 and net.params().isfinite().all()

    @pytest.mark.parametrize(
        "batch, message",
        [
            (examples()[0], r"one tensor of shape \[12, 4\]: pair it with its labels"),
            ({"x": 1, "y": 2}, r"a dict with keys \['x', 'y'\]"),
            (examples()[:1], "a tuple of 1"),
            ((*examples(), None, None, None), "a tuple of 5"),
            (np.zeros(3), "numpy.ndarray"),
        ],
        ids=["tensor", "dict", "one", "five", "numpy"],
    )
    def test_no_pair(self, batch, message, untouched):
        net = mlp().module()
        untouched(net)
        said = rf"batch: expected \(x, labels\) or .*, got {message}"
        refuses(TypeError, said, lambda: net.fit([batch]))
        model = net.lightning("lightning")
        refuses(
            TypeError,
            said,
            lambda: model.training_step(batch, 0),
            lambda: model.validation_step(batch, 0),
            lambda: model.test_step(batch, 0),
        )


class TestTrainer:
    def test_the_same_errors(self, untouched):
        x, y = examples()
        for bad, kind, message in (
            ((x.numpy(), y), TypeError, "use torch.from_numpy"),
            ((x[:, :3], y), ValueError, r"layer 'layer0' \(Dense\) expects \[n, 4\]"),
            ((x.float(), y), ValueError, "got torch.float32"),
            ((x[:0], y[:0]), ValueError, "batch is empty"),
            ((x, y[:5]), ValueError, "labels: expected one entry per example, 12"),
            ((x, y[:, :2]), ValueError, r"layer 'layer1' \(Output\): .*labels"),
            ((x, y, torch.ones(12, 2)), ValueError, r"features_mask: expected \[12\]"),
        ):
            net = mlp().module()
            untouched(net)
            model = net.lightning("lightning")
            refuses(kind, message, lambda m=model, b=bad: m.training_step(b, 0))
            refuses(kind, message, lambda m=model, b=bad: m.validation_step(b, 0))

    def test_under_a_trainer(self):
        x, y = examples()
        net = mlp().module()
        loader = DataLoader([(x[:, :3], y)], batch_size=None)
        trainer = lightning.Trainer(
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with (
            pytest.warns(UserWarning),
            pytest.raises(
                ValueError,
                match=r"layer 'layer0' \(Dense\) expects \[n, 4\], got \[12, 3\]",
            ),
        ):
            trainer.fit(net.lightning("lightning"), loader)

    def test_predictions_take_masks(self):
        net = network(LSTM(n_in=3, n_out=4), RnnOutput(n_out=2))
        x, y = torch.randn(6, 3, 5).double(), zeros(6, 2, 5)
        mask = torch.ones(6, 5)
        mask[2:, 3:] = 0
        model = net.lightning("lightning")
        for batch in ((x, y, mask), (x, y, mask, mask)):
            expected = net.output(x, *batch[2:])
            assert torch.equal(model.predict_step(batch, 0), expected)
        for batch in (x, (x,), [x, y]):
            assert torch.equal(model.predict_step(batch, 0), net.output(x))
        refuses(TypeError, "a dict", lambda: model.predict_step({"y": x}, 0))
