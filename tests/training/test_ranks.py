"""A built network under a Trainer with two processes, beside ``fit`` in one."""

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py import NeuralNetConfiguration
from dl4py.commands.report.page import page
from dl4py.commands.report.run import Run
from dl4py.config import Dense, MaxNorm, Output
from dl4py.evaluation import Evaluation
from dl4py.lightning import Network

RANKS, EPOCHS = 2, 3


def network():
    chain = NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain = chain.updater("nesterovs", lr=0.1).l2(0.01).l1_bias(0.02)
    chain = chain.gradient_normalization("RenormalizeL2PerLayer")
    chain = chain.constrain_weights(MaxNorm(0.9))
    chain = chain.layer(Dense(n_in=4, n_out=7, activation="tanh"))
    return chain.layer(Output(n_out=3)).build().module()


def rows(seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 4, generator=g, dtype=torch.float64)
    return x, torch.eye(3, dtype=torch.float64)[torch.randint(3, (16,), generator=g)]


def dealt(rows, batch):
    """A rank's half of the rows; Lightning's own sampler would shuffle them."""
    mine = [t.chunk(RANKS)[torch.distributed.get_rank()] for t in rows]
    return DataLoader(TensorDataset(*mine), batch)


class Module(Network):
    """At the end every rank saves what it has."""

    folder = ""

    def train_dataloader(self):
        return dealt(rows(1), 4)

    def val_dataloader(self):
        return dealt(rows(2), 8)

    def on_validation_epoch_start(self):
        self.evaluation = Evaluation()

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.evaluation.update(self.network.output(batch[0]), batch[1])

    def on_validation_epoch_end(self):
        self.found = {"evaluation": float(self.evaluation.compute()["accuracy"])}

    def on_train_end(self):
        logged = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        found = {"params": self.network.params(), **self.found, **logged}
        torch.save(found, f"{self.folder}/rank{self.global_rank}.pt")


def test_equal_to_one_process(tmp_path):
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=RANKS,
        strategy=DDPStrategy(start_method="spawn", process_group_backend="gloo"),
        max_epochs=EPOCHS,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[dl4py.StatsCallback(every=1, folder=tmp_path, evaluation=False)],
    )
    module = Module(config=network())
    module.folder = str(tmp_path)
    trainer.fit(module)

    net = network()
    (x, y), (u, v) = rows(1), rows(2)
    # the ranks' batches of 4 together: rows i..i+3 of both halves
    halves = zip(*(t.chunk(RANKS) for t in (x, y)), strict=True)
    parts = [(a.split(4), b.split(4)) for a, b in halves]
    joined = [
        tuple(torch.cat([part[k][i] for part in parts]) for k in range(2))
        for i in range(2)
    ]
    net.fit(joined, epochs=EPOCHS)
    hits = net.output(u).argmax(1) == v.argmax(1)
    alone = {
        "params": net.params(),
        "val_loss": net.score(u, v),
        "val_accuracy": float(hits.double().mean()),
        "evaluation": float(hits.double().mean()),
    }
    for rank in range(RANKS):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        ours = {name: found[name] for name in alone}
        torch.testing.assert_close(ours, alone, rtol=0, atol=1e-11)

    run = Run.read(tmp_path)  # the first process's alone, which the page says
    assert run.model["ranks"] == RANKS and run.score[0] == list(range(2 * EPOCHS))
    assert f"Of the {RANKS} processes of this run the first one is shown" in page(run)
