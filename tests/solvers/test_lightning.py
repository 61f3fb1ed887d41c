"""Solvers under a Trainer whose LightningModule knows nothing of them."""

import lightning
import pytest
import pytorch_lightning
import torch
import torchmetrics
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dl4py.lightning
import dl4py.pytorch_lightning
from dl4py.config import (
    BatchNormalization,
    Dense,
    MaxNorm,
    NeuralNetConfiguration,
    Output,
)
from dl4py.solvers import LBFGS
from tests.solving import EVERY, SOLVERS


class Classifier(lightning.LightningModule):
    """As a user writes it."""

    def __init__(self, make=LBFGS, schedule=False, compiled=False):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4, 8),
            nn.BatchNorm1d(8),
            nn.Dropout(0.1),
            nn.Tanh(),
            nn.Linear(8, 3),
        )
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(3)
        self.make = make
        self.schedule = schedule
        self.run = (
            torch.compile(self.body, backend="aot_eager") if compiled else self.body
        )
        self.losses = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        z = self.run(x)
        loss = nn.functional.cross_entropy(z, y)
        self.accuracy.update(z, y)
        self.losses.append(loss.detach().item())
        self.log("loss", loss, on_step=False, on_epoch=True)
        self.log_dict({"size": float(len(x))}, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        if not self.schedule:
            return optimizer
        return [optimizer], [
            {"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
             "interval": "step"}
        ]  # fmt: skip


def loader(batch_size=15):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(3, (60,), generator=g)
    x = torch.randn(60, 4, generator=g) + 2 * nn.functional.one_hot(y, 4)
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


def trainer(folder, package=lightning, **options):
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "default_root_dir": folder,
        "max_epochs": 2,
    }
    return package.Trainer(**{**quiet, **options})


def flat(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach()


class TestAutomaticOptimization:
    @pytest.mark.parametrize("make", SOLVERS)
    def test_trains(self, make, tmp_path):
        module = Classifier(make, schedule=True)
        t = trainer(tmp_path, max_epochs=3)
        t.fit(module, loader())
        assert len(module.losses) > 12  # trials
        assert t.global_step == 12
        assert t.optimizers[0].param_groups[0]["lr"] == 0.5**12
        assert module.losses[-1] < 0.7 * module.losses[0]

    def test_bfloat16(self, tmp_path):
        module = Classifier()
        trainer(tmp_path, precision="bf16-mixed").fit(module, loader())
        assert module.losses[-1] < 0.7 * module.losses[0]

    def test_compiled(self, tmp_path):
        ends = []
        for compiled in (False, True):
            torch.manual_seed(3)
            module = Classifier(compiled=compiled)
            module.body[2].p = 0.0  # compiled dropout draws other numbers
            quiet = dl4py.lightning.QuietTrials()
            trainer(tmp_path, callbacks=[quiet], max_epochs=1).fit(module, loader())
            ends.append((flat(module), [b.clone() for b in module.body.buffers()]))
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-4)
        assert int(ends[1][1][-1]) == 4  # num_batches_tracked

    def test_clipping_is_left_to_the_search(self, tmp_path):
        ends = []
        for clip in (None, 1e-3):
            torch.manual_seed(3)
            module = Classifier()
            trainer(tmp_path, gradient_clip_val=clip).fit(module, loader())
            ends.append(flat(module))
        assert torch.equal(*ends)

    def test_statistics_count_once(self, tmp_path):
        module = Classifier()
        trainer(tmp_path).fit(module, loader())
        assert int(module.body[1].num_batches_tracked) == 8

    @pytest.mark.parametrize("make", SOLVERS)
    def test_resumes_from_a_checkpoint(self, make, tmp_path):
        def module():
            torch.manual_seed(1)
            m = Classifier(lambda p: make(p, max_iter=2))
            m.body[2].p = 0.0
            return m

        whole = module()
        trainer(tmp_path, max_epochs=4).fit(whole, loader())
        half, path = module(), tmp_path / "half.ckpt"
        t = trainer(tmp_path, max_epochs=2)
        t.fit(half, loader())
        t.save_checkpoint(path)
        torch.load(path, weights_only=True)
        rest = module()
        trainer(tmp_path, max_epochs=4).fit(rest, loader(), ckpt_path=path)
        assert torch.equal(flat(whole), flat(rest))


class Unfreezing(BaseFinetuning):
    """The first layer joins at the third epoch."""

    def freeze_before_training(self, module):
        self.freeze(module.body[0])

    def finetune_function(self, module, epoch, optimizer):
        if epoch == 2:
            self.unfreeze_and_add_param_group(module.body[0], optimizer)


@pytest.mark.parametrize("name", EVERY)
def test_unfreezing(name, tmp_path):
    class Module(Classifier):
        def configure_optimizers(self):
            free = [p for p in self.parameters() if p.requires_grad]
            return EVERY[name](free)

    def fit(module, epochs, **options):
        t = trainer(tmp_path, max_epochs=epochs, callbacks=[Unfreezing()])
        t.fit(module, loader(60), **options)
        return t

    torch.manual_seed(2)
    module = Module()
    before = flat(module.body[0]).clone()
    t = fit(module, 2)
    assert torch.equal(flat(module.body[0]), before)
    t.save_checkpoint(tmp_path / "half.ckpt")
    t = fit(module, 4, ckpt_path=tmp_path / "half.ckpt")
    assert not (module.body[0].weight.flatten() == before[:32]).any()
    assert [len(g["params"]) for g in t.optimizers[0].param_groups] == [4, 2]
    assert module.losses[-1] < 0.9 * module.losses[0]


class TestErrors:
    def test_accumulation(self, tmp_path):
        before = flat(module := Classifier()).clone()
        with pytest.raises(ValueError, match="accumulate_grad_batches=1"):
            trainer(tmp_path, accumulate_grad_batches=2).fit(module, loader())
        assert torch.equal(flat(module), before)

    def test_float16(self, tmp_path):
        # by the plugin, since a Trainer refuses '16-mixed' on a CPU
        scaler = torch.amp.GradScaler("cpu")
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        with pytest.raises(ValueError, match="precision='16-mixed'.*'bf16-mixed'"):
            trainer(tmp_path, plugins=[plugin]).fit(Classifier(), loader())

    def test_no_loss(self, tmp_path):
        class Nothing(Classifier):
            def training_step(self, batch, batch_idx):
                return None

        with (
            pytest.warns(UserWarning, match="returned `None`"),
            pytest.raises(ValueError, match="training_step that returns None"),
        ):
            trainer(tmp_path).fit(Nothing(), loader())

    def test_a_solver_is_no_updater(self):
        chain = NeuralNetConfiguration.builder().updater("lbfgs")
        net = chain.layer(Output(n_in=4, n_out=3)).build().module()
        with pytest.raises(ValueError, match=r"optimization_algo\('lbfgs'\)"):
            net.configure_optimizer()


class TestQuietTrials:
    def fit(self, quiet, folder):
        module = Classifier()
        callbacks = [dl4py.lightning.QuietTrials()] if quiet else []
        t = trainer(folder, callbacks=callbacks, max_epochs=1)
        first = []

        def step(batch, batch_idx, original=module.training_step):
            loss = original(batch, batch_idx)
            if not t.optimizers[0].is_trial:
                first.append(loss.item())
            return loss

        module.training_step = step
        t.fit(module, loader())
        return module, t, first

    def test_only_the_first_evaluation_is_seen(self, tmp_path):
        module, t, first = self.fit(True, tmp_path)
        assert len(first) == 4 < len(module.losses)
        logged = t.callback_metrics["loss"].item()
        assert logged == pytest.approx(sum(first) / 4, rel=1e-6)
        assert module.accuracy.tp.sum() + module.accuracy.fn.sum() == 60
        assert t.optimizers[0].trials == [] and "log" not in vars(module)

    def test_is_needed(self, tmp_path):
        module, t, first = self.fit(False, tmp_path)
        logged = t.callback_metrics["loss"].item()
        assert logged == pytest.approx(sum(module.losses) / len(module.losses))
        assert module.accuracy.tp.sum() + module.accuracy.fn.sum() > 60

    def test_leaves_after_an_error(self, tmp_path):
        class Broken(Classifier):
            def training_step(self, batch, batch_idx):
                if self.losses:
                    raise RuntimeError("broken")
                return super().training_step(batch, batch_idx)

        module = Broken()
        t = trainer(tmp_path, callbacks=[dl4py.lightning.QuietTrials()])
        with pytest.raises(RuntimeError, match="broken"):
            t.fit(module, loader())
        assert t.optimizers[0].trials == [] and "log" not in vars(module)

    def test_other_package(self, tmp_path):
        class Other(pytorch_lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(4, 3)

            def training_step(self, batch, batch_idx):
                loss = nn.functional.cross_entropy(self.body(batch[0]), batch[1])
                self.log("loss", loss, on_epoch=True)
                return loss

            def configure_optimizers(self):
                return LBFGS(self.parameters())

        quiet = dl4py.pytorch_lightning.QuietTrials()
        t = trainer(tmp_path, pytorch_lightning, callbacks=[quiet])
        t.fit(Other(), loader())
        assert t.callback_metrics["loss_epoch"] < 1.0


def configuration(algorithm, **settings):
    chain = NeuralNetConfiguration.builder().seed(5).data_type("double").l2(1e-3)
    chain.optimization_algo(algorithm).updater("sgd", lr=0.1)
    for name, value in settings.items():
        chain = getattr(chain, name)(value)
    chain.layer(Dense(n_in=4, n_out=6, activation="tanh"))
    return chain.layer(BatchNormalization()).layer(Output(n_out=3)).build()


def one_hot():
    x, y = loader().dataset.tensors
    labels = torch.eye(3, dtype=torch.float64)[y]
    return DataLoader(TensorDataset(x.double(), labels), batch_size=20)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    "algorithm", ["line_gradient_descent", "CONJUGATE_GRADIENT", "lbfgs"]
)
class TestNetworks:
    def test_lightning_equals_fit(self, algorithm, exact, tmp_path):
        conf = configuration(algorithm)
        module = conf.lightning(dl4j_exact=exact)
        t = trainer(tmp_path)
        t.fit(module, one_hot())
        net = conf.module(dl4j_exact=exact)
        net.fit(one_hot(), epochs=2)
        assert torch.equal(module.network.params(), net.params())
        assert (net.clock.iteration, net.clock.epoch) == (6, 2)

    def test_score_falls(self, algorithm, exact, tmp_path):
        net = configuration(algorithm).module(dl4j_exact=exact)
        (x, y), *_ = one_hot()
        before = net.score(x, y, training=True)
        scores = [net.fit(x, y) for _ in range(10)]
        assert net.score(x, y, training=True) < 0.9 * before
        if not exact:
            assert scores[0] == pytest.approx(before, rel=1e-12)  # penalties included
            assert scores == sorted(scores, reverse=True)

    def test_statistics_advance_once(self, algorithm, exact, tmp_path):
        net = configuration(algorithm).module(dl4j_exact=exact)
        (x, y), *_ = one_hot()
        layer = net.nodes[1].layer
        hidden = net.feed_forward(x)[0]
        before = layer.buffer("mean").clone()
        net.fit(x, y)
        if not exact:  # DL4J searches along them
            after = 0.9 * before + 0.1 * hidden.mean(0)
            torch.testing.assert_close(layer.buffer("mean"), after)
        assert layer.pending == {}

    def test_checkpoint(self, algorithm, exact, tmp_path):
        conf = configuration(algorithm)
        whole = conf.lightning(dl4j_exact=exact)
        trainer(tmp_path, max_epochs=3).fit(whole, one_hot())
        t = trainer(tmp_path, max_epochs=1)
        t.fit(conf.lightning(dl4j_exact=exact), one_hot())
        t.save_checkpoint(tmp_path / "a.ckpt")
        torch.load(tmp_path / "a.ckpt", weights_only=True)
        rest = conf.lightning(dl4j_exact=exact)
        t = trainer(tmp_path, max_epochs=3)
        t.fit(rest, one_hot(), ckpt_path=tmp_path / "a.ckpt")
        assert torch.equal(whole.network.params(), rest.network.params())


class TestSettings:
    def test_uphill(self):
        net = configuration("lbfgs", minimize=False).module()
        (x, y), *_ = one_hot()
        scores = [net.fit(x, y) for _ in range(3)]
        assert scores == sorted(scores)

    def test_constraints(self):
        conf = configuration("lbfgs", constrain_weights=MaxNorm(max_norm=0.3))
        net = conf.module()
        (x, y), *_ = one_hot()
        for _ in range(3):
            net.fit(x, y)
        assert net.nodes[0].layer.weight.norm(dim=1).max() <= 0.3 + 1e-12

    def test_state_of_another_algorithm(self):
        state = configuration("lbfgs").module().configure_optimizer().state_dict()
        sgd = configuration("STOCHASTIC_GRADIENT_DESCENT").module()
        with pytest.raises(ValueError, match="saved with optimization_algo STOCH"):
            sgd.configure_optimizer().load_state_dict(state)


@pytest.mark.parametrize(
    "name, option",
    [
        ("LBFGS", "line_search=armijo"),
        ("ConjugateGradient", "line_search=armijo"),
        ("LineGradientDescent", "line_search=armijo"),
        ("HessianFree", "cg_max_iter=20"),
    ],
)
def test_command_line(name, option, tmp_path, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own
    from lightning.pytorch.cli import LightningCLI

    class Module(Classifier):
        configure_optimizers = lightning.LightningModule.configure_optimizers

        def __init__(self):
            super().__init__()

        def train_dataloader(self):
            return loader()

    monkeypatch.chdir(tmp_path)
    arguments = [
        "script.py",
        "fit",
        f"--optimizer=dl4py.solvers.{name}",
        "--optimizer.lr=0.5",
        f"--optimizer.{option}",
        "--trainer.max_epochs=1",
        "--trainer.logger=false",
        "--trainer.accelerator=cpu",
        "--trainer.enable_checkpointing=false",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    cli = LightningCLI(Module, save_config_callback=None, seed_everything_default=1)
    (optimizer,) = cli.trainer.optimizers
    assert type(optimizer).__name__ == name and optimizer.defaults["lr"] == 0.5
    assert min(cli.model.losses[1:]) < cli.model.losses[0]
