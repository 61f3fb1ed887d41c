"""Early stopping decides as DL4J 1.0.0-M2.1 did on the same scores and data."""

import math
from dataclasses import dataclass

import lightning
import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader

import dl4py
from dl4py.config import AutoEncoder, Dense, NeuralNetConfiguration, Output
from dl4py.stopping import (
    BestScore,
    ClassificationScore,
    Condition,
    DataSetLoss,
    EarlyStopping,
    FileSaver,
    InvalidScore,
    MaxEpochs,
    MaxScore,
    MaxTime,
    ReconstructionScore,
    RegressionScore,
    ROCScore,
    ScoreImprovement,
)

PACKAGES = {"lightning": lightning, "pytorch_lightning": pytorch_lightning}
NAN, INF = math.nan, math.inf
PARAMS = [  # of DL4J's network
    1.1287706330413048, 0.43379448888031574, 0.627192668736354, -0.5950722564597284,
    -0.9407889239796363, 0.5264506906433447, -0.27476845721573084, 0.18601121183561434,
    -1.3249009054493954, 0.1960010615374951, 0.7455869797898886, -0.006084946094425353,
    0.0, 0.0, 0.0, 0.20064361686695162, 0.03691318929844265, -1.346472844084485,
    -0.06967152173670021, 1.0672632862492868, 0.08977234989573417, 0.3362558036650983,
    0.5877776165576201, -0.21350560391733908, 0.0, 0.0, 0.0,
]  # fmt: skip
# scores, whether to minimise, evaluate_every, conditions → (which of them ended it,
# the best epoch, epochs, iterations of the best network), as DL4J's trainer answered
DECIDED = {
    "max_epochs": ((5, 4, 3, 2), True, 1, [MaxEpochs(3)], (0, 2, 3, 9)),
    "improvement": (
        (5, 4, 4, 4.5, 3, 3.5, 3.2, 3.1), True, 1,
        [ScoreImprovement(2), MaxEpochs(20)], (0, 1, 4, 6),
    ),
    "none": ((5, 4, 4, 3), True, 1, [ScoreImprovement(0), MaxEpochs(9)], (0, 1, 3, 6)),
    "least": (
        (5, 4.4, 4.2, 3.9, 3.5), True, 1,
        [ScoreImprovement(1, 0.5), MaxEpochs(20)], (0, 2, 3, 9),
    ),
    "maximised": (
        (0.1, 0.3, 0.3, 0.2, 0.1), False, 1,
        [ScoreImprovement(2), MaxEpochs(20)], (0, 1, 4, 6),
    ),
    "nan_first": (
        (NAN, 4, 3, 2, 1), True, 1, [ScoreImprovement(2), MaxEpochs(8)], (0, 0, 3, 3),
    ),
    "nan_later": (
        (5, NAN, 4, NAN, NAN, 3), True, 1,
        [ScoreImprovement(2), MaxEpochs(8)], (0, 2, 5, 9),
    ),
    "best": ((5, 3, 2.5, 1), True, 1, [BestScore(3), MaxEpochs(20)], (0, 2, 3, 9)),
    "best_of_more": (
        (0.5, 0.8, 0.8, 0.9), False, 1, [BestScore(0.8), MaxEpochs(20)], (0, 3, 4, 12),
    ),
    "every_3": ((5, 4, 3, 2, 1), True, 3, [MaxEpochs(5)], (0, 6, 7, 21)),
    "every_2": ((5, 4, 3, 2, 1), True, 2, [MaxEpochs(4)], (0, 4, 5, 15)),
    "every_2_improvement": (
        (5, 4, 4, 4, 4), True, 2, [ScoreImprovement(2), MaxEpochs(30)], (0, 2, 5, 9),
    ),
    "only_nan": ((NAN, NAN, NAN), True, 1, [MaxEpochs(3)], (0, 0, 3, 3)),
    "infinite": ((INF, 4, INF), True, 1, [MaxEpochs(3)], (0, 1, 3, 6)),
    "nan_maximised": ((NAN, 0.2, NAN), False, 1, [MaxEpochs(3)], (0, 0, 3, 3)),
    "not_reached": (
        (5, 4), True, 1, [MaxScore(50.0), InvalidScore(), MaxTime(1e6), MaxEpochs(2)],
        (3, 1, 2, 6),
    ),
}  # fmt: skip


@dataclass
class Told:
    """A score that is told."""

    scores: tuple
    minimize: bool
    asked: int = 0

    def of(self, network):
        self.asked += 1
        return self.scores[min(self.asked, len(self.scores)) - 1]


def network(**settings):
    chain = NeuralNetConfiguration.builder().seed(7).data_type("double")
    chain.updater("sgd", lr=settings.get("lr", 0.5))
    chain.layer(Dense(n_in=4, n_out=3, activation="tanh"))
    net = chain.layer(Output(n_out=3)).build().module(dl4j_exact=True)
    net.set_params(torch.tensor(PARAMS, dtype=torch.float64))
    return net


def batches():
    x = torch.linspace(-1, 1.2, 12, dtype=torch.float64).reshape(3, 4)
    return [(x + 0.1 * i, torch.eye(3, dtype=torch.float64)) for i in range(3)]


def under_trainer(name, stopping, net, folder):
    callback = getattr(dl4py, name).EarlyStopping(stopping)
    trainer = PACKAGES[name].Trainer(
        max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[callback],
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(net.lightning(name), DataLoader(batches(), batch_size=None))
    return callback.result


@pytest.mark.parametrize("name", DECIDED)
def test_decides_as_dl4j(name):
    scores, minimize, every, conditions, (ending, best, total, steps) = DECIDED[name]
    stopping = EarlyStopping(Told(scores, minimize), conditions, evaluate_every=every)
    result = stopping.fit(network(), batches())
    assert result.reason == "EpochTerminationCondition"
    assert result.details == repr(conditions[ending])
    assert (result.best_epoch, result.total_epochs) == (best, total)
    assert result.best_model.clock.iteration == steps
    assert list(result.scores) == list(range(0, total, every))


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("name", ["improvement", "nan_first", "every_3"])
def test_decides_the_same_under_a_trainer(name, package, tmp_path):
    scores, minimize, every, conditions, (ending, best, total, steps) = DECIDED[name]
    stopping = EarlyStopping(Told(scores, minimize), conditions, evaluate_every=every)
    net = network()
    result = under_trainer(package, stopping, net, tmp_path)
    assert result.details == repr(conditions[ending])
    assert (result.best_epoch, result.total_epochs) == (best, total)
    assert result.best_model.clock.iteration == steps
    assert net.clock.iteration == 3 * total


@pytest.mark.parametrize(
    "score, expected",
    [
        (DataSetLoss, (0.7100761549920674, 0.5297312344113126)),
        (
            lambda data: DataSetLoss(data, average=False),
            (6.390685394928607, 4.767581109701814),
        ),
        (RegressionScore, (0.13358044208174685, 0.09225590288347678)),
        (
            lambda data: RegressionScore(data, "r2"),
            (0.39888801063213924, 0.5848484370243545),
        ),
        (ClassificationScore, (1.0, 1.0)),
        (lambda data: ROCScore(data, "multiclass"), (1.0, 1.0)),
    ],
)
def test_scores_are_dl4js(score, expected):
    stopping = EarlyStopping(score(batches()), [MaxEpochs(2)])
    result = stopping.fit(network(), batches())
    assert tuple(result.scores.values()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("package", [None, *PACKAGES])
def test_a_step_ends_training_in_the_midst_of_an_epoch(package, tmp_path):
    stopping = EarlyStopping(DataSetLoss(batches()), [MaxScore(0.5), MaxEpochs(9)])
    net = network()
    if package is None:
        result = stopping.fit(net, batches())
    else:
        result = under_trainer(package, stopping, net, tmp_path)
    assert result.reason == "IterationTerminationCondition"
    assert result.details == "MaxScore(score=0.5)"
    assert (net.clock.iteration, result.total_epochs, result.best_epoch) == (1, 0, -1)
    assert result.best_model is None and not result.scores


def test_time_and_invalid_scores():
    late = EarlyStopping(DataSetLoss(batches()), [MaxTime(1e-9), MaxEpochs(9)])
    assert "MaxTime" in late.fit(network(), batches()).details
    x, y = batches()[0]
    broken = [(x, y), (x * NAN, y)]
    for conditions, reason in (
        ([InvalidScore(), MaxEpochs(2)], "IterationTerminationCondition"),
        ([MaxEpochs(2)], "Error"),
    ):
        net = network()
        result = EarlyStopping(DataSetLoss([(x, y)]), conditions).fit(net, broken)
        assert result.reason == reason and net.clock.iteration == 1
        assert net.params().isfinite().all()


@pytest.mark.parametrize(
    "conditions, reason",
    [([InvalidScore()], "IterationTerminationCondition"), ([MaxEpochs(2)], "Error")],
)
def test_invalid_scores_under_a_trainer(conditions, reason, tmp_path):
    x, y = batches()[0]
    stopping = EarlyStopping(DataSetLoss([(x, y)]), conditions)
    callback = dl4py.lightning.EarlyStopping(stopping)
    trainer = lightning.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    data = DataLoader([(x, y), (x * NAN, y), (x, y)], batch_size=None)
    trainer.fit(network().lightning(), data)
    assert callback.result.reason == reason and trainer.global_step == 2


def test_files_and_the_latest_network(tmp_path):
    saver = FileSaver(tmp_path)
    stopping = EarlyStopping(
        Told((1, 2, 3), True), [MaxEpochs(3)], saver=saver, save_last=True
    )
    net = network()
    best = stopping.fit(net, batches()).best_model
    assert {p.name for p in tmp_path.iterdir()} == {"bestModel.bin", "latestModel.bin"}
    assert best.clock.iteration == 3
    assert torch.equal(saver.load("latest").params(), net.params())
    again = network()
    again.fit(batches())
    assert torch.equal(best.params(), again.params())


def test_reconstruction():
    chain = NeuralNetConfiguration.builder().updater("adam", lr=0.1).data_type("double")
    net = chain.layer(AutoEncoder(n_in=4, n_out=3, loss="MSE")).layer(Output(n_out=3))
    net = net.build().module()
    x = batches()[0][0]
    score = ReconstructionScore([x, batches()[1]])
    before = score.of(net)
    net.pretrain([x], epochs=30)
    assert score.of(net) < before and score.minimize
    with pytest.raises(ValueError, match="gives nothing back"):
        score.of(network())


def test_decisions_go_on_from_a_state():
    scores, minimize, _, conditions, _ = DECIDED["improvement"]
    first, second = (
        EarlyStopping(Told(scores, minimize), [ScoreImprovement(2)]) for _ in "ab"
    )
    net = network()
    assert [first.after_epoch(net) for _ in range(3)] == [False] * 3
    second.load_state_dict(first.state_dict())
    second.score.asked = 3
    assert second.after_epoch(net) and second.result.best_epoch == 1


def test_bad_input_is_refused(tmp_path):
    told = Told((1,), True)
    for call, message in {
        lambda: EarlyStopping(told, []): r"such as MaxEpochs\(10\), got \[\]",
        lambda: EarlyStopping(told, ["max"]): "got 'max'",
        lambda: EarlyStopping(told, [MaxEpochs(1)], evaluate_every=0): "must be >= 1",
        lambda: MaxEpochs(0): r"MaxEpochs\(epochs=...\) must be a whole number >= 1",
        lambda: ScoreImprovement(-1): "must be a whole number >= 0",
        lambda: MaxTime(0): r"MaxTime\(seconds=...\) must be > 0",
        lambda: ROCScore([], "two"): r"ROCScore\(kind=...\)",
        lambda: ClassificationScore([], "speed"): "speed",
        lambda: FileSaver(tmp_path / "none"): "expected a folder",
        lambda: EarlyStopping(told, [MaxEpochs(1)]).fit(network(), []): "got none",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="expected a score such as DataSetLoss"):
        EarlyStopping(None, [MaxEpochs(1)])
    with pytest.raises(NotImplementedError):
        Condition().ends(0, 0.0, True)
