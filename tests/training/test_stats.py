"""StatsCallback: DL4J's numbers, for any module, in TensorBoard and for the report."""

import json
import logging
import math

import lightning
import lightning.pytorch.loggers
import pytest
import pytorch_lightning
import pytorch_lightning.loggers
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dl4py
import dl4py.lightning
import dl4py.pytorch_lightning
from dl4py.config import LSTM, BatchNormalization, Dense, InputType, RnnOutput
from dl4py.training import journal, statistics
from dl4py.training.evaluated import Judge
from tests.networks import builder, examples, mlp

PACKAGES = {"lightning": lightning, "pytorch_lightning": pytorch_lightning}


def loader(dtype=torch.float64, size=4):
    x, y = examples()
    return DataLoader(TensorDataset(x.to(dtype), y.to(dtype)), batch_size=size)


def fit(model, stats, folder=None, package=lightning, epochs=2, **options):
    """Train under a Trainer with TensorBoard in ``folder``, if there is one."""
    loggers = package.pytorch.loggers if package is lightning else package.loggers
    quiet = {
        "logger": loggers.TensorBoardLogger(folder) if folder else False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
        "max_epochs": epochs,
        "accelerator": "cpu",
        "callbacks": [stats],
    }
    trainer = package.Trainer(**{**quiet, **options})
    trainer.fit(model, loader(next(model.parameters()).dtype))
    return trainer


def records(folder, kind=None):
    (file,) = folder.rglob(journal.FILE)
    return [r for r in journal.read(file) if kind in (None, r["kind"])]


class Plain(lightning.LightningModule):
    """As a user writes it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.grads = []

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.body(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        p = self.body(batch[0]).softmax(1)
        return {"predictions": p, "labels": batch[1].argmax(1)}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("package", PACKAGES)
def test_numbers_are_dl4js(package, tmp_path):
    net = mlp().module()
    parameters = {v.name + str(i // 2): v for i, v in enumerate(net.views())}
    before = {k: v.tensor.detach().clone() for k, v in parameters.items()}
    twin = mlp().module()
    updates, grads = {}, {}
    twin.optimizer.listeners.append(
        lambda stage, values: (updates if stage == "updates" else grads).update(values)
    )
    x, y = examples()
    score = twin.fit(x[:4], y[:4])
    hidden, output = twin.feed_forward(x[:4])

    callback = getattr(dl4py, package).StatsCallback(every=1)
    fit(net.lightning(package), callback, tmp_path, PACKAGES[package], epochs=1)
    first, second, third = records(tmp_path, "report")
    assert [r["iteration"] for r in (first, second, third)] == [0, 1, 2]
    assert first["scores"] == [[0, pytest.approx(score)]]
    for i, node in enumerate(["layer0", "layer1"]):
        for name in "Wb":
            ours, update = f"{i}_{name}", updates[f"{node}/{name}"]
            after = before[name + str(i)] - update
            sizes = update.abs().mean(), after.abs().mean()
            got = first["mean_magnitude/updates"], first["mean_magnitude/parameters"]
            assert [g[ours] for g in got] == pytest.approx([float(s) for s in sizes])
            ratio = first["update_ratio"][ours]
            assert ratio == pytest.approx(math.log10(sizes[0] / sizes[1]))
            for kind, values in (
                ("updates", update),
                ("gradients", grads[f"{node}/{name}"]),
            ):
                found = first[f"std/{kind}"][ours]
                assert found == pytest.approx(float(values.std()), rel=1e-6)
    # of the first iteration, before the step: the twin's layers have moved on
    fresh = mlp().module()
    for name, values in zip(
        ("layer0", "layer1"), fresh.feed_forward(x[:4]), strict=True
    ):
        assert first["std/activations"][name] == pytest.approx(float(values.std()))
        assert first["mean/activations"][name] == pytest.approx(float(values.mean()))
    assert first["learning_rate"]["layer0/weight"] == 0.05
    assert first["throughput"]["examples_per_second"] > 0 < first["memory"]["process"]
    counts = first["histograms"]["updates"]["0_W"]["counts"]
    assert len(counts) == 20 and sum(counts) == 24
    assert "histograms" not in second


def test_training_is_as_without_it(tmp_path):
    """Noise is drawn, and statistics move, exactly as often."""

    def trained(callbacks):
        chain = builder().updater("adam", lr=0.05).dropout(0.5)
        chain.layer(Dense(n_in=4, n_out=6, activation="tanh")).layer(
            BatchNormalization()
        )
        conf = chain.layer(dl4py.config.Output(n_out=3, dropout=0.5)).build()
        torch.manual_seed(4)
        net = conf.module()
        model = net.lightning("lightning")
        fit(model, dl4py.lightning.QuietTrials(), epochs=3, callbacks=callbacks)
        return net.params()

    stats = dl4py.lightning.StatsCallback(every=1, folder=tmp_path / "run")
    torch.testing.assert_close(trained([stats]), trained([]), rtol=0, atol=0)


def test_tensorboard_has_dl4js_pages(tmp_path):
    fit(
        mlp().lightning(package="lightning"),
        dl4py.lightning.StatsCallback(every=2),
        tmp_path,
    )
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    (folder,) = {p.parent for p in tmp_path.rglob("events*")}
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    assert {
        "score",
        "update_ratio/0_W",
        "std/activations/layer1",
        "std/gradients/1_b",
        "std/updates/1_W",
        "learning_rate/layer0/bias",
        "throughput/batches_per_second",
        "memory/process",
    } <= set(tags["scalars"])
    assert [e.step for e in events.Scalars("score")] == [0, 2, 4]
    assert [e.step for e in events.Scalars("update_ratio/0_W")] == [0, 2, 4]
    assert "parameters/0_W" in tags["histograms"]
    from tensorboard.plugins.custom_scalar import layout_pb2

    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [c.title for c in layout.category] == [
        "Overview",
        "Model: layer0",
        "Model: layer1",
    ]
    import re

    charts = [c for category in layout.category for c in category.chart]
    for chart in charts:  # every one shows something
        for tag in chart.multiline.tag:
            assert any(re.search(tag, known) for known in tags["scalars"]), tag
    shown = charts[1].multiline.tag
    assert [re.search(t, "update_ratio/0_W") is not None for t in shown] == [
        True,
        False,
    ]


def test_any_module_and_its_evaluation(tmp_path):
    torch.manual_seed(0)
    model = Plain()
    trainer = lightning.Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=2,
        accumulate_grad_batches=2,
        callbacks=[dl4py.lightning.StatsCallback(every=1, folder=tmp_path)],
    )
    batches = loader(torch.float32)
    trainer.fit(model, batches, batches)
    found = records(tmp_path, "report")
    # 3 batches are 2 steps, and a report is of one that stepped
    assert [r["iteration"] for r in found] == [0, 1, 2, 3]
    assert set(found[0]["update_ratio"]) == {
        f"body.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")
    }
    assert set(found[0]["std/activations"]) == {"body.0", "body.1", "body.2"}
    evaluation = records(tmp_path, "evaluation")[-1]
    assert sum(map(sum, evaluation["confusion"])) == 12
    assert len(evaluation["roc"]) == len(evaluation["calibration"]) == 3
    (model,) = records(tmp_path, "model")
    assert model["layers"][0]["n_in"] == 4 and model["parameters"] == 43


def test_recurrent_networks_and_solvers(tmp_path):
    chain = builder().optimization_algo("lbfgs").input_type(InputType.recurrent(4, 5))
    net = chain.layer(LSTM(n_out=3)).layer(RnnOutput(n_out=2)).build().module()
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    y = torch.eye(2, dtype=torch.float64)[torch.randint(2, (6, 5))].transpose(1, 2)
    stats = dl4py.lightning.StatsCallback(every=1, folder=tmp_path)
    trainer = lightning.Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=3,
        callbacks=[stats],
    )
    batches = DataLoader(TensorDataset(x, y), batch_size=6)
    trainer.fit(net.lightning("lightning"), batches, batches)
    found = records(tmp_path, "report")
    scores = [score for r in found for _, score in r["scores"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert set(found[0]["update_ratio"]) == {"0_W", "0_RW", "0_b", "1_W"} | {
        "1_b"
    } & set(found[0]["update_ratio"])
    assert records(tmp_path, "evaluation")[-1]["accuracy"] > 0


def test_advice_comes_once(tmp_path, caplog):
    stats = dl4py.lightning.StatsCallback(every=1, folder=tmp_path)
    conf = builder().updater("sgd", lr=1e-9).layer(Dense(n_in=4, n_out=6))
    model = (
        conf.layer(dl4py.config.Output(n_out=3)).build().lightning(package="lightning")
    )
    with caplog.at_level(logging.WARNING, "dl4py"):
        fit(model, stats, epochs=8)
    assert sorted(stats.advice) == ["0_W", "1_W"]
    assert len(caplog.messages) == 2 and "below -4" in caplog.messages[0]
    (said,) = [r["advice"] for r in records(tmp_path, "report") if "advice" in r]
    assert said == stats.advice


def test_nothing_to_write_to_is_one_error(tmp_path):
    model = mlp().lightning(package="lightning")
    with pytest.raises(ValueError, match="it has no logger: use Trainer.logger="):
        fit(model, dl4py.lightning.StatsCallback())
    csv = lightning.pytorch.loggers.CSVLogger(tmp_path)
    with pytest.raises(ValueError, match="its loggers are CSVLogger: use"):
        fit(model, dl4py.lightning.StatsCallback(), logger=csv)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="StatsCallback cannot write to .*file"):
        fit(model, dl4py.lightning.StatsCallback(folder=tmp_path / "file"))
    # Lightning opens its logger before any callback is asked
    with pytest.raises(OSError, match="/file/lightning_logs'$"):
        fit(model, dl4py.lightning.StatsCallback(), tmp_path / "file")
    assert model.network.clock.iteration == 0


@pytest.mark.parametrize(
    "name, value", [("every", 0), ("bins", 2.5), ("histograms", -1)]
)
def test_arguments_are_checked(name, value):
    with pytest.raises(ValueError, match=rf"StatsCallback\({name}=...\) must be"):
        dl4py.StatsCallback(**{name: value})


def test_it_is_of_the_package_that_is_there():
    assert issubclass(dl4py.StatsCallback, lightning.Callback)
    other = dl4py.pytorch_lightning.StatsCallback
    assert issubclass(other, pytorch_lightning.Callback)


def test_moments_of_large_and_small_tensors():
    g = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(n, generator=g) * scale + 1 for n, scale in ((7, 2), (60_000, 0.5))
    ]
    tensors += [torch.ones(1), torch.randn(5000, generator=g).half()]
    means, deviations = statistics.moments(tensors)
    for t, mean, deviation in zip(tensors, means, deviations, strict=True):
        assert mean == pytest.approx(float(t.double().mean()), rel=1e-4, abs=1e-6)
        if t.numel() > 1:
            assert deviation == pytest.approx(float(t.double().std()), rel=1e-4)
    assert deviations[2].isnan()


def test_of_a_large_tensor_a_sample_counts():
    t = torch.arange(2**20, dtype=torch.float32).reshape(1024, 1024)
    some = statistics.chosen(t, 2**14)
    assert 2**13 < len(some) <= 2**14 and len(set((some % 1024).tolist())) == 1024
    assert (
        statistics.chosen(t, 2**19 + 1).numel()
        == 2**20
        == len(statistics.chosen(t, None))
    )
    found = statistics.histograms({"t": some, "none": torch.tensor([math.nan])}, 4)
    counts = found.pop("t")["counts"]
    assert not found and max(counts) - min(counts) <= 2


def test_a_sample_hardly_moves_a_ratio(tmp_path):
    def ratios(folder, sample):
        chain = builder().updater("adam", lr=0.05).layer(Dense(n_in=4, n_out=4000))
        conf = chain.layer(dl4py.config.Output(n_out=3)).build()
        stats = dl4py.lightning.StatsCallback(folder=folder, sample=sample)
        fit(conf.lightning(package="lightning"), stats, epochs=1)
        return records(folder, "report")[0]["update_ratio"]

    exact, sampled = ratios(tmp_path / "a", None), ratios(tmp_path / "b", 1000)
    assert exact != sampled
    assert all(abs(exact[name] - sampled[name]) < 0.05 for name in ("0_W", "1_W"))


PROBABILITIES = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
COLUMN = torch.tensor([[0.9], [0.2]])


@pytest.mark.parametrize(
    "p, y, parts",
    [
        (PROBABILITIES, torch.eye(2), {"roc", "calibration", "confusion"}),
        (PROBABILITIES, torch.tensor([0, 1]), {"roc", "calibration", "confusion"}),
        (PROBABILITIES.log(), torch.tensor([0, 1]), {"confusion"}),
        (COLUMN, torch.tensor([[1.0], [0.0]]), {"roc", "confusion"}),
        (COLUMN, torch.tensor([[1.5], [0.0]]), {"regression"}),
    ],
)
def test_evaluations_fit_what_is_predicted(p, y, parts):
    judge = Judge()
    judge.update(p, y)
    found = judge.result()
    assert parts == {"roc", "calibration", "confusion", "regression"} & set(found)
    json.dumps(found)


def test_a_journal_says_which_line_is_broken(tmp_path):
    file = tmp_path / journal.FILE
    file.write_text('{"kind": "model"}\n{"kind": "rep')
    assert journal.read(file) == [{"kind": "model"}]  # killed while it wrote
    file.write_text('{"kind": "model"}\n[1]\n')
    with pytest.raises(ValueError, match="line 2 is no record of a StatsCallback"):
        journal.read(file)
