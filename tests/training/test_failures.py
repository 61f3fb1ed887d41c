"""What is left, and goes on, when a process or a disk fails."""

import importlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import dl4py
from dl4py.commands import cli

ROOT = Path(__file__).parent.parent.parent
YAML = """
model:
  network:
    seed: 1
    updater: {adam: {lr: 0.05}}
    layers: [{dense: {n_in: 4, n_out: 5, activation: tanh}}, {output: {n_out: 3}}]
data:
  train: rows.csv
  read: {labels: species}
  batch_size: 15
trainer:
  max_epochs: 4
  accelerator: cpu
  logger: false
"""


class Killer(lightning.Callback):
    """The process of one rank ends in the middle of the third epoch."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.global_rank, trainer.current_epoch, batch_idx) == (1, 2, 2):
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fit.yaml").write_text(YAML)
    text = (Path(dl4py.__file__).parent / "data" / "iris.csv").read_text()
    Path("rows.csv").write_text(text)
    return tmp_path


def fit(*words):
    """``dl4py fit`` in processes of its own: status, standard error and output."""
    command = [sys.executable, "-m", "dl4py.commands.cli", "fit", "--config=fit.yaml"]
    command += ["--trainer.devices=2", "--trainer.strategy=ddp"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, env=env, timeout=300
    )
    return done.returncode, done.stderr, done.stdout


def test_a_killed_rank_ends_the_run_and_the_last_checkpoint_goes_on(folder):
    status, _, shown = fit("--out=whole.zip")
    assert status == 0 and shown.count("whole.zip") == 1, shown
    for file in Path("checkpoints").iterdir():
        file.unlink()
    kill = f"--trainer.callbacks={__name__}.Killer"
    status, told, _ = fit("--out=killed.zip", kill)
    ended = time.time()
    (line,) = [line for line in told.splitlines() if "Error" in line]
    assert status != 0 and ended - Path("killed").stat().st_mtime < 30
    assert "one of the 2 processes of this run ended" in line
    assert not Path("killed.zip").exists()
    (kept,) = Path("checkpoints").iterdir()
    assert kept.name == "epoch=1-step=10.ckpt"
    status, told, _ = fit("--out=on.zip", "--ckpt-path=last")
    assert status == 0, told
    whole, on = (dl4py.restore(name) for name in ("whole.zip", "on.zip"))
    assert (on.clock.iteration, on.clock.epoch) == (20, 4)
    for word in ("params", "updater_state"):
        torch.testing.assert_close(
            getattr(on, word)(), getattr(whole, word)(), rtol=0, atol=1e-7
        )


class Full(lightning.Callback):
    """From the third epoch on no file can grow beyond some bytes."""

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))


class Last(ModelCheckpoint):
    """The same file after every epoch."""

    def __init__(self):
        super().__init__(filename="only", enable_version_counter=False)


@pytest.mark.filterwarnings("ignore")
def test_a_full_disk_keeps_the_last_good_checkpoint(folder, capsys):
    words = ["fit", "--config=fit.yaml", "--out=a.zip"]
    callbacks = [f"--trainer.callbacks+={__name__}.{name}" for name in ("Full", "Last")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        status = cli.main([*words, *callbacks])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status != 0 and "File too large" in capsys.readouterr().err
    (kept,) = Path("checkpoints").iterdir()  # and nothing beside it
    assert torch.load(kept, weights_only=True)["epoch"] == 1
    assert cli.main([*words, "--ckpt-path=last"]) == 0
    assert dl4py.restore("a.zip").clock.epoch == 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", ["lightning", "pytorch_lightning"])
def test_a_trainer_of_ones_own_keeps_the_last_good_checkpoint(package, tmp_path):
    trainers = pytest.importorskip(package)
    ours = importlib.import_module(f"dl4py.{package}")
    kept, lost = tmp_path / "kept.ckpt", tmp_path / "lost.ckpt"
    trainer = trainers.Trainer(
        plugins=[ours.CheckpointIO()], logger=False, accelerator="cpu"
    )
    trainer.strategy.checkpoint_io.save_checkpoint({"epoch": 1}, kept)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        for path in (kept, lost):
            with pytest.raises(OSError, match="File too large"):
                trainer.strategy.checkpoint_io.save_checkpoint(
                    {"w": torch.zeros(9999)}, path
                )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.load(kept) == {"epoch": 1} and list(tmp_path.iterdir()) == [kept]


def test_no_checkpoint_to_go_on_from_is_told_of(folder, capsys):
    for given, says in (("last", "no checkpoint below"), ("a.ckpt", "no such file")):
        assert cli.main(["fit", "--config=fit.yaml", f"--ckpt-path={given}"]) != 0
        assert says in capsys.readouterr().err
