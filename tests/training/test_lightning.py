"""Networks under a Trainer: equal to ``fit``, checkpoints, packages, interruptions."""

import inspect
import json
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import lightning
import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py.config import (
    BatchNormalization,
    Dense,
    NeuralNetConfiguration,
    Output,
)
from tests import catalogue
from tests.models.test_catalogue import DTYPES

# Lightning 2.4 reads every checkpoint that it resumes from whole
HAS_SAFE_FIT = "weights_only" in inspect.signature(lightning.Trainer.fit).parameters
SAFELY = {"weights_only": True} if HAS_SAFE_FIT else {}

PACKAGES = {"lightning": lightning, "pytorch_lightning": pytorch_lightning}


def configuration(**settings):
    step = dl4py.schedules.get("step", initial_value=0.05, decay_rate=0.5, step=3)
    chain = NeuralNetConfiguration.builder().seed(5).updater("adam", lr=step).l2(1e-3)
    chain.gradient_normalization("ClipL2PerLayer").data_type("double")
    for name, value in settings.items():
        chain = getattr(chain, name)(value)
    chain.layer(Dense(n_in=4, n_out=6, activation="rationaltanh"))
    return chain.layer(BatchNormalization()).layer(Output(n_out=3)).build()


def loader(batch_size=10):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=g, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[torch.randint(3, (30,), generator=g)]
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


def trainer(package, folder, **options):
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "default_root_dir": folder,
    }
    return package.Trainer(**{**quiet, "max_epochs": 2, **options})


class FromTheCommandLine(lightning.LightningModule):
    """What LightningCLI makes from class paths."""

    def __init__(self, loss: torch.nn.Module, activation: torch.nn.Module) -> None:
        super().__init__()
        self.loss, self.layers = (
            loss,
            torch.nn.Sequential(torch.nn.Linear(4, 3), activation),
        )

    def training_step(self, batch, batch_idx):
        return self.loss(self.layers(batch[0]), batch[1])

    def train_dataloader(self):
        x, y = loader().dataset.tensors
        return DataLoader(TensorDataset(x.float(), y.float()), batch_size=10)


def test_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own
    from lightning.pytorch.cli import LightningCLI

    config = tmp_path / "config.yaml"
    loss = {"class_path": "dl4py.losses.MCXENT", "init_args": {"activation": "softmax"}}
    activation = {"class_path": "dl4py.activations.ELU", "init_args": {"alpha": 0.5}}
    config.write_text(json.dumps({"model": {"loss": loss, "activation": activation}}))
    arguments = [
        "script.py",
        "fit",
        f"--config={config}",
        "--optimizer=dl4py.updaters.Adam",
        "--trainer.max_epochs=1",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_checkpointing=false",
        "--trainer.accelerator=cpu",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    cli = LightningCLI(
        FromTheCommandLine, save_config_callback=None, seed_everything_default=1
    )
    assert type(cli.model.loss) is dl4py.losses.MCXENT
    assert isinstance(cli.model.loss.activation, dl4py.activations.Softmax)
    assert cli.model.layers[1].alpha == 0.5 and cli.trainer.global_step == 3


@pytest.mark.parametrize("name", list(PACKAGES))
class TestBothPackages:
    def test_equals_fit(self, name, tmp_path):
        module = configuration().lightning(package=name)
        assert isinstance(module, PACKAGES[name].LightningModule)
        trainer(PACKAGES[name], tmp_path).fit(module, loader())
        net = configuration().module()
        net.fit(loader(), epochs=2)
        assert torch.equal(module.network.params(), net.params())
        assert torch.equal(module.network.updater_state(), net.updater_state())
        assert (net.clock.iteration, net.clock.epoch) == (6, 2)
        assert vars(module.network.clock) == vars(net.clock)

    def test_checkpoint_loads_with_weights_only(self, name, tmp_path):
        module = configuration().lightning(package=name)
        t = trainer(PACKAGES[name], tmp_path)
        t.fit(module, loader())
        t.save_checkpoint(tmp_path / "a.ckpt")
        saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
        assert json.loads(json.dumps(saved["hyper_parameters"]["conf"]))
        again = type(module).load_from_checkpoint(
            tmp_path / "a.ckpt", weights_only=True
        )
        x, _ = next(iter(loader()))
        assert torch.equal(again.network.output(x), module.network.output(x))
        assert again.network.conf == module.network.conf

    def test_resumes_where_it_stopped(self, name, tmp_path):
        package = PACKAGES[name]
        whole = configuration().lightning(package=name)
        trainer(package, tmp_path, max_epochs=4).fit(whole, loader())
        first = configuration().lightning(package=name)
        t = trainer(package, tmp_path)
        t.fit(first, loader())
        t.save_checkpoint(tmp_path / "a.ckpt")
        second = configuration(seed=99).lightning(package=name)
        trainer(package, tmp_path, max_epochs=4).fit(
            second, loader(), ckpt_path=tmp_path / "a.ckpt", **SAFELY
        )
        assert torch.equal(second.network.params(), whole.network.params())
        assert second.network.clock.iteration == 12


def test_logs_scores_and_accuracy(tmp_path):
    module = configuration().lightning(package="lightning")
    t = trainer(lightning, tmp_path, max_epochs=1)
    t.fit(module, loader(), loader())
    x, y = loader().dataset.tensors
    logged = t.callback_metrics
    assert {"train_loss", "val_loss", "val_accuracy"} <= set(logged)
    assert float(logged["val_loss"]) == pytest.approx(module.network.score(x, y))
    hits = module.network.output(x).argmax(1) == y.argmax(1)
    assert float(logged["val_accuracy"]) == pytest.approx(hits.float().mean().item())
    predictions = t.predict(module, loader())
    assert torch.equal(torch.cat(predictions), module.network.output(x))


@pytest.mark.parametrize("name", list(PACKAGES))
def test_several_loaders(name, tmp_path):
    module = configuration().lightning(package=name)
    t = trainer(PACKAGES[name], tmp_path, max_epochs=1)
    t.fit(module, loader(), [loader(), loader(15)])
    score = module.network.score(*loader().dataset.tensors)
    for stage in ("val", "test"):
        for i in range(2):
            logged = t.callback_metrics[f"{stage}_loss/dataloader_idx_{i}"]
            assert float(logged) == pytest.approx(score)
        t.test(module, [loader(), loader(15)], verbose=False)
    sizes = [[len(p) for p in of] for of in t.predict(module, [loader(), loader(15)])]
    assert sizes == [[10] * 3, [15] * 2]


def test_batches_may_be_dicts(tmp_path):
    """With the names of the arguments that tuples give by place."""
    batches = [{"labels": y, "x": x} for x, y in loader()]
    data = DataLoader(batches, batch_size=None)
    module, same = (configuration().lightning(package="lightning") for _ in "ab")
    t = trainer(lightning, tmp_path, max_epochs=1)
    t.fit(module, data, data)
    trainer(lightning, tmp_path, max_epochs=1).fit(same, loader(), loader())
    assert torch.equal(module.network.params(), same.network.params())
    assert {"train_loss", "val_loss", "val_accuracy"} <= set(t.callback_metrics)
    net = configuration().module()
    net.fit(data)
    x, y = loader().dataset.tensors
    assert torch.equal(net.params(), module.network.params())
    alone = [{"x": batch["x"]} for batch in batches]
    for given in (data, DataLoader(alone, batch_size=None)):
        found = t.predict(module, given)
        assert torch.equal(torch.cat(found), net.output(x))
    masks = {"labels_mask": torch.ones(10), "features_mask": None}
    other = configuration().module()
    other.fit([{**batch, **masks} for batch in batches])
    assert torch.equal(other.params(), net.params())
    with pytest.raises(TypeError, match=r"dict with these keys, got a dict with keys"):
        module.training_step({"input_ids": x, "labels": y}, 0)


def test_inputs_by_name_are_no_batch_in_a_dict():
    graph = NeuralNetConfiguration.builder().data_type("double").graph_builder()
    graph.add_inputs("x", "y").add_layer("a", Dense(n_in=8, n_out=3), "x", "y")
    graph.add_layer("out", Output(n_in=3, n_out=3), "a").set_outputs("out")
    module = graph.build().lightning(package="lightning")
    x, labels = loader().dataset.tensors
    named = {"x": x, "y": x + 1}
    expected = module.network.output((x, x + 1))
    for batch in (named, {"x": named, "labels": labels}):
        assert torch.equal(module.predict_step(batch, 0), expected)


def test_a_network_at_hand_is_trained_in_place(tmp_path):
    net = configuration().module()
    before = net.params()
    trainer(lightning, tmp_path).fit(net.lightning("lightning"), loader())
    assert not torch.equal(before, net.params())
    net.fit(loader())  # goes on with the same optimizer
    assert net.clock.iteration == 9


def test_unregistered_functions_train_but_need_config_to_load(tmp_path):
    chain = NeuralNetConfiguration.builder().seed(1).data_type("double")
    chain.layer(Dense(n_in=4, n_out=6, activation=torch.sin)).layer(Output(n_out=3))
    conf = chain.build()
    module = conf.lightning(package="lightning")
    t = trainer(lightning, tmp_path)
    t.fit(module, loader())
    t.save_checkpoint(tmp_path / "a.ckpt")
    load = type(module).load_from_checkpoint
    with pytest.raises(ValueError, match="load_from_checkpoint"):
        load(tmp_path / "a.ckpt", weights_only=True)
    again = load(tmp_path / "a.ckpt", config=conf, weights_only=True)
    assert torch.equal(again.network.params(), module.network.params())


def test_package_names():
    with pytest.raises(ValueError, match="package must be one of"):
        configuration().lightning(package="ignite")


@pytest.mark.parametrize(
    "imported, expected",
    [
        ("", "lightning"),
        ("import pytorch_lightning", "pytorch_lightning"),
        ("import pytorch_lightning, lightning", "lightning"),
    ],
)
def test_takes_the_package_that_is_imported(imported, expected):
    code = f"""
    {imported}
    from dl4py.config import *
    chain = NeuralNetConfiguration.builder().layer(Dense(n_in=2, n_out=2))
    module = chain.layer(Output(n_out=2)).build().lightning()
    print(type(module).__module__)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert run.stdout.strip() == f"dl4py.{expected}", run.stderr


RESTORED = re.compile("updater_|schedule_|lenet|lstm_[a-z]*$|batchnorm_ff|gradnorm_")


@pytest.mark.parametrize("name", [*filter(RESTORED.match, catalogue.copied())])
def test_what_java_trained_goes_on_under_a_trainer(name, tmp_path):
    case = catalogue.load(name)
    file = case.file("trained.zip") or case.file("model.zip")
    dtype = DTYPES[case.meta["dtype"]]
    batch = (torch.from_numpy(case.arrays[k]).to(dtype) for k in ("in_0", "labels_0"))
    batches = DataLoader(TensorDataset(*batch), batch_size=len(case.arrays["in_0"]))
    net, module = dl4py.restore(file), dl4py.restore(file).lightning("lightning")
    net.fit(batches, epochs=2)
    trainer(lightning, tmp_path).fit(module, batches)
    assert torch.equal(module.network.params(), net.params())
    assert torch.equal(module.network.updater_state(), net.updater_state())
    assert vars(module.network.clock) == vars(net.clock)


KILLED = """
import signal, sys, lightning, warnings
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
warnings.simplefilter("ignore")
sys.path.insert(0, {root!r})
from tests.training.test_lightning import configuration, loader
from lightning.pytorch.callbacks import ModelCheckpoint
model = configuration().lightning(package="lightning")
keep = ModelCheckpoint({folder!r}, save_last=True, every_n_train_steps=1)
t = lightning.Trainer(max_epochs=100000, accelerator="cpu", callbacks=[keep],
                      logger=False, enable_progress_bar=False,
                      enable_model_summary=False)
t.fit(model, loader())
"""


@pytest.mark.filterwarnings(
    "ignore:Be aware that when using `ckpt_path`",
    "ignore:You're resuming from a checkpoint that ended before",
)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_leaves_the_last_checkpoint_whole(how, tmp_path):
    root = str(pathlib.Path(__file__).parents[2])
    code = KILLED.format(root=root, folder=str(tmp_path))
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    last = tmp_path / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    run.send_signal(how)
    try:
        run.wait(60)
    finally:
        run.kill()
    saved = torch.load(last, weights_only=True)
    assert saved["optimizer_states"][0]["clock"]["iteration"] >= 1
    model = configuration().lightning(package="lightning")
    more = saved["epoch"] + 2
    trainer(lightning, tmp_path, max_epochs=more).fit(
        model, loader(), ckpt_path=last, **SAFELY
    )
    assert model.network.clock.iteration > saved["global_step"]


@pytest.mark.parametrize("algorithm", ["STOCHASTIC_GRADIENT_DESCENT", "LBFGS"])
def test_a_score_that_is_no_number_ends_training_before_its_step(algorithm, tmp_path):
    module = configuration(optimization_algo=algorithm).lightning(package="lightning")
    x, y = next(iter(loader()))
    batches = [(x, y), (x * float("nan"), y)]
    with pytest.raises(FloatingPointError, match="score is nan at iteration 1"):
        trainer(lightning, tmp_path).fit(module, DataLoader(batches, batch_size=None))
    assert module.network.params().isfinite().all()
