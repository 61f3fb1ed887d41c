"""ROC, binary outputs and calibration against DL4J's own numbers, tables and JSON."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dl4py.evaluation import (
    ROC,
    EvaluationBinary,
    EvaluationCalibration,
    ROCBinary,
    ROCMultiClass,
    calibration,
    curves,
)
from dl4py.evaluation.curves import Histogram, PrecisionRecallCurve
from dl4py.io.arrays import read_ndarray
from tests import golden
from tests.evaluation.test_evaluation import same, tensor

GOLDEN = golden.load("evaluation")
INPUTS = {"labels", "predictions", "mask", "steps", "removeRedundantPts"}


def cases(kind: str) -> list[str]:
    return list(GOLDEN[kind])


def fed(e: Any, case: dict[str, Any]) -> Any:
    """The evaluation with the batch of a case, in two shards that are merged."""
    p, y, mask = (tensor(case.get(k)) for k in ("predictions", "labels", "mask"))
    e.reset()
    whole, cut = copy.deepcopy(e), len(p) // 3
    for rows in (slice(cut), slice(cut, None)):
        shard = copy.deepcopy(e)
        shard.update(p[rows], y[rows], None if mask is None else mask[rows])
        # torchmetrics puts what it is given before its own
        shard.merge_state(whole)
        whole = shard
    return whole


def exact_json(ours: str, theirs: str) -> bool:
    """Equal JSON, numbers to 1e-12, arrays in base64 by their elements."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"array"}:
            data = base64.b64decode(value["array"])
            array = read_ndarray(data)
            return {"type": str(array.dtype), "elements": array.tolist()}
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list) else value

    a, b = plain(json.loads(ours)), plain(json.loads(theirs))
    return list(a) == list(b) and same(a, b)


def curve_pair(e: Any, column: int) -> dict[str, Any]:
    """Both curves of a column as the golden cases have them."""
    roc, pr = e.curves(column)
    return {"roc": roc_of(roc), "pr": pr_of(pr)}


def roc_of(roc: Any) -> dict[str, Any]:
    points = {k: getattr(roc, k).tolist() for k in ("threshold", "fpr", "tpr")}
    return {**points, "toJson": json.loads(roc.to_json())}


def pr_of(pr: PrecisionRecallCurve) -> dict[str, Any]:
    names = ("threshold", "precision", "recall", "tp", "fp", "fn")
    found: dict[str, Any] = {k: getattr(pr, k).tolist() for k in names}
    found["total"] = pr.total
    found["pointAtThreshold0.5"] = point(pr.point_at_threshold(0.5))
    found["pointAtPrecision0.6"] = point(pr.point_at_precision(0.6))
    found["pointAtRecall0.6"] = point(pr.point_at_recall(0.6))
    c = pr.confusion_at_threshold(0.5)
    found["confusionAtThreshold0.5"] = (
        f"PrecisionRecallCurve.Confusion(point={point(c.point)}, tpCount={c.tp}, "
        f"fpCount={c.fp}, fnCount={c.fn}, tnCount={c.tn})"
    )
    return found


def point(p: Any) -> str:
    from dl4py.evaluation.java import double

    values = (double(v) for v in p[1:])
    names = ("threshold", "precision", "recall")
    pairs = ", ".join(f"{n}={v}" for n, v in zip(names, values, strict=True))
    return f"PrecisionRecallCurve.Point(idx={p.idx}, {pairs})"


def read(curve: dict[str, Any]) -> dict[str, Any]:
    """A golden curve; its JSON as data, NaN as a number."""
    found = dict(curve)
    if "toJson" in found:
        found["toJson"] = json.loads(found["toJson"])
        if found["toJson"]["auc"] is None:  # DL4J had not asked for it yet
            found["toJson"]["auc"] = trapezoid(curve["fpr"], curve["tpr"])
    return found


def trapezoid(x: list[float], y: list[float]) -> float:
    area = np.abs(np.trapezoid(y, x))
    return "NaN" if np.isnan(area) else area


class TestGolden:
    """All cases of DL4J, every key."""

    @pytest.mark.parametrize("name", cases("ROC"))
    def test_roc(self, name: str) -> None:
        case = GOLDEN["ROC"][name]
        e = fed(ROC(case["steps"], case["removeRedundantPts"]), case)
        got = {
            "AUC": e.calculate_auc(),
            "AUCPR": e.calculate_aucpr(),
            "positives": e.count_actual_positive(),
            "negatives": e.count_actual_negative(),
            "stats": e.stats(),
            **curve_pair(e, 0),
        }
        assert set(case) - INPUTS == {*got, "toJson"}
        for key, value in got.items():
            theirs = read(case[key]) if key in ("roc", "pr") else case[key]
            assert same(value, theirs), key
        assert exact_json(e.to_json(), case["toJson"])

    @pytest.mark.parametrize("name", cases("ROCBinary"))
    def test_binary_roc(self, name: str) -> None:
        case = GOLDEN["ROCBinary"][name]
        self.compare(fed(ROCBinary(case["steps"]), case), case, "per_output")

    @pytest.mark.parametrize("name", cases("ROCMultiClass"))
    def test_multi_class_roc(self, name: str) -> None:
        case = GOLDEN["ROCMultiClass"][name]
        self.compare(fed(ROCMultiClass(case["steps"]), case), case, "per_class")

    def compare(self, e: Any, case: dict[str, Any], columns: str) -> None:
        assert same(e.calculate_average_auc(), case["averageAUC"])
        assert same(e.calculate_average_aucpr(), case["averageAUCPR"])
        assert e.stats() == case["stats"]
        assert exact_json(e.to_json(), case["toJson"])
        averages = {"averageAUC", "averageAUCPR", "stats", "toJson"}
        assert set(case) - INPUTS == {*averages, columns}
        for c, theirs in enumerate(case[columns]):
            ours = {
                "AUC": e.calculate_auc(c),
                "AUCPR": e.calculate_aucpr(c),
                "positives": e.count_actual_positive(c),
                "negatives": e.count_actual_negative(c),
                **curve_pair(e, c),
            }
            for key, value in theirs.items():
                value = read(value) if isinstance(value, dict) else value
                assert same(ours[key], value), (c, key)

    @pytest.mark.parametrize("name", cases("EvaluationBinary"))
    def test_binary(self, name: str) -> None:
        case = GOLDEN["EvaluationBinary"][name]
        arguments = {
            "rocBins=30": {"roc_steps": 30},
            "thresholds .2,.5,.8": {"threshold": [0.2, 0.5, 0.8]},
        }
        e = fed(EvaluationBinary(**arguments.get(name, {})), case)
        averages = {
            "averageAccuracy": e.average_accuracy,
            "averagePrecision": e.average_precision,
            "averageRecall": e.average_recall,
            "averageF1": e.average_f1,
            "averageMatthewsCorrelation": e.average_matthews_correlation,
            "averageGMeasure": e.average_g_measure,
            "averageFalseAlarmRate": e.average_false_alarm_rate,
        }
        assert set(case) - INPUTS == {*averages, "per_output", "stats", "toJson"}
        for key, of in averages.items():
            assert same(of(), case[key]), key
        rates: dict[str, Callable[[int], float]] = {
            "total": e.total_count,
            "tp": e.true_positives,
            "fp": e.false_positives,
            "tn": e.true_negatives,
            "fn": e.false_negatives,
            "accuracy": e.accuracy,
            "precision": e.precision,
            "recall": e.recall,
            "f1": e.f1,
            "fBeta2": lambda c: e.f_beta(2.0, c),
            "gMeasure": e.g_measure,
            "matthewsCorrelation": e.matthews_correlation,
            "falsePositiveRate": e.false_positive_rate,
            "falseNegativeRate": e.false_negative_rate,
            "falseAlarmRate": e.false_alarm_rate,
        }
        for c, theirs in enumerate(case["per_output"]):
            ours = {key: of(c) for key, of in rates.items()}
            if e.threshold_steps is not None:
                ours |= {"AUC": e.calculate_auc(c), "AUCPR": e.calculate_aucpr(c)}
            for key, value in theirs.items():
                assert same(ours[key], value), (c, key)
        assert e.stats() == case["stats"]
        assert exact_json(e.to_json(), case["toJson"])

    @pytest.mark.parametrize("name", cases("EvaluationCalibration"))
    def test_calibration(self, name: str) -> None:
        case = GOLDEN["EvaluationCalibration"][name]
        arguments = {
            "default": (),
            "10 bins, 10 bins": (10, 10),
            "10 bins, 10 bins, keep empty": (10, 10, False),
            "5 bins, 7 bins, mask": (5, 7),
        }
        e = fed(EvaluationCalibration(None, *arguments[name]), case)
        assert e.label_counts_each_class() == case["labelCounts"]
        assert e.prediction_counts_each_class() == case["predictionCounts"]
        assert bars(e.residual_plot()) == case["residualPlotAll"]
        assert bars(e.probability_histogram()) == case["probabilityHistogramAll"]
        for c, theirs in enumerate(case["per_class"]):
            diagram = e.reliability_diagram(c)
            ours = {
                "title": diagram.title,
                "meanPredictedValueX": diagram.mean_predicted.tolist(),
                "fractionPositivesY": diagram.fraction_positive.tolist(),
            }
            assert same(ours, theirs["reliability"])
            assert bars(e.residual_plot(c)) == theirs["residualPlot"]
            found = bars(e.probability_histogram(c))
            assert found == theirs["probabilityHistogram"]
            assert len(theirs) == 3
        assert e.stats() == case["stats"]
        assert exact_json(e.to_json(), case["toJson"])


def bars(h: Histogram) -> dict[str, Any]:
    return {
        "lower": h.lower,
        "upper": h.upper,
        "counts": list(h.counts),
        "title": h.title,
    }


@given(st.integers(2, 40), st.integers(0, 2**31))
def test_areas_equal_counting(n: int, seed: int) -> None:
    """Without ties the area is the share of pairs in the right order."""
    rng = np.random.default_rng(seed)
    p, y = rng.permutation(n) / n, rng.integers(0, 2, n)
    e = ROC()
    e.update(torch.tensor(p), torch.tensor(y))
    high, low = p[y == 1], p[y == 0]
    if len(high) and len(low):
        share = np.mean(high[:, None] > low[None])
        assert e.calculate_auc() == pytest.approx(share, rel=1e-12, abs=1e-15)
    else:
        assert np.isnan(e.calculate_auc())


class TestMetric:
    """As torchmetrics has it: forms, masks, compute, errors, pictures."""

    P = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    Y = torch.tensor([[1, 0], [0, 1], [1, 0], [1, 0]])

    def every(self) -> list[Any]:
        return [
            ROC(),
            ROC(30),
            ROCBinary(),
            ROCBinary(10),
            ROCMultiClass(),
            ROCMultiClass(10),
            EvaluationBinary(roc_steps=0),
            EvaluationCalibration(),
        ]

    def test_half_of_a_series_may_be_masked_out(self) -> None:
        """What stands at masked steps, even NaN, changes nothing."""
        x, y = self.P.repeat(2, 1).T[None].clone(), self.Y.repeat(2, 1).T[None]
        x[:, :, 4:] = float("nan")
        mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]])
        for one, other in zip(self.every(), self.every(), strict=True):
            one.update(x, y, mask)
            other.update(self.P, self.Y)
            assert one.stats() == other.stats() and one.to_json() == other.to_json()

    def test_class_indices(self) -> None:
        index = self.Y.argmax(1)
        for cls in (ROC, ROCMultiClass):
            one, other = cls(), cls()
            one.update(self.P, index)
            other.update(self.P, self.Y)
            assert one.to_json() == other.to_json()

    def test_compute_collection_and_reset(self) -> None:
        for e in self.every():
            first = e(self.P, self.Y)
            values = e.compute()
            assert same(plain(first), plain(values))
            e.update(self.P, self.Y)
            e.reset()
            assert e.update(self.P, self.Y) is None and same(
                plain(e.compute()), plain(values)
            )
            both = type(e).collection(prefix="val_")
            both.update(self.P, self.Y)
            assert all(name.startswith("val_") for name in both.compute())

    def test_pictures(self) -> None:
        pytest.importorskip("matplotlib").use("Agg")
        from matplotlib import pyplot

        for e in self.every():
            e.update(self.P, self.Y)
            figure, ax = e.plot()
            assert len(ax.get_lines()) >= 2 and ax.get_legend() is not None
            assert e.plot(e.compute())[0] is not figure
        figure, ax = calibrated(self.P, self.Y).residual_plot().plot()
        assert len(ax.patches) == 50
        pyplot.close("all")

    @pytest.mark.parametrize(
        "make, text",
        [
            (
                lambda: ROC(-1),
                r"ROC\(threshold_steps=...\) must be a whole number >= 0",
            ),
            (lambda: ROC(metric="f1"), "must be one of auc, auprc, got 'f1'"),
            (lambda: ROCBinary(labels="ab"), "labels=...\\) must be names, got 'ab'"),
            (lambda: EvaluationBinary(threshold=[0.5, 2]), r"must be in \[0, 1\]"),
            (
                lambda: EvaluationBinary(2, threshold=[0.5]),
                "different numbers of outputs",
            ),
            (
                lambda: EvaluationCalibration(histogram_bins=0),
                "histogram_bins=...\\) must",
            ),
        ],
    )
    def test_arguments(self, make: Callable[[], Any], text: str) -> None:
        with pytest.raises((ValueError, TypeError), match=text):
            make()

    @pytest.mark.parametrize(
        "cls, p, y, text",
        [
            (ROC, [[0.1, 0.2, 0.7]], [[0, 0, 1]], "must have 1 or 2 columns"),
            (ROC, [0.5, float("nan")], [0, 1], "must be probabilities .* got nan"),
            (ROC, [0.5, 0.6], [0, 2], "labels must be 0 or 1 .* got 2"),
            (ROC, [0.5, 0.6], [0], "labels must have the shape"),
            (ROCMultiClass, [[0.5, 0.5]], [2], r"class indices in \[0, 2\), got 2"),
            (ROCMultiClass, [0.5], [1], "of 2 classes or more"),
            (ROCBinary, [[0.5, 0.5]], [[1]], "must have one shape"),
            (EvaluationBinary, [[1.5]], [[1]], r"in \[0, 1\].* got 1.5"),
            (EvaluationCalibration, [[0.5, -1.0]], [[1, 0]], r"in \[0, 1\].* got -1"),
        ],
    )
    def test_batches(self, cls: Any, p: Any, y: Any, text: str) -> None:
        e = cls()
        e.update(self.P, self.Y)
        before = e.to_json()
        with pytest.raises(ValueError, match=text):
            e.update(torch.tensor(p), torch.tensor(y))
        assert e.to_json() == before

    @pytest.mark.filterwarnings("ignore:The ``compute`` method")
    def test_nothing_evaluated(self) -> None:
        assert ROC().stats().startswith("ROC: No data available")
        for e in self.every()[2:7]:
            assert e.stats() == "\n-- No Data --\n"
        for e in self.every():
            assert all(np.isnan(v) for v in np.ravel(list(plain(e.compute()).values())))
        counts = json.loads(EvaluationBinary().to_json())
        assert counts["countTruePositive"] is counts["countFalseNegative"] is None
        with pytest.raises(RuntimeError, match="nothing is evaluated yet"):
            EvaluationCalibration().reliability_diagram(0)
        with pytest.raises(RuntimeError, match="nothing is evaluated yet"):
            ROCBinary().calculate_auc(0)


def calibrated(p: Tensor, y: Tensor) -> EvaluationCalibration:
    e = EvaluationCalibration()
    e.update(p, y)
    return e


def plain(value: Any) -> dict[str, float]:
    """A result of compute() as numbers."""
    pairs = value.items() if isinstance(value, dict) else [("value", value)]
    return {k: float(v) for k, v in pairs}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_bins_end_at_their_bounds(dtype: torch.dtype) -> None:
    """As comparing with every bound, which is DL4J's way, at and around them."""
    for count in (1, 2, 3, 7, 10, 11, 50, 64, 100):
        bounds = torch.tensor([i * (1.0 / count) for i in range(1, count)], dtype=dtype)
        around = [bounds, torch.rand(500).to(dtype), torch.tensor([0.0, 1.0]).to(dtype)]
        if dtype != torch.float16:  # which has no neighbours in ATen
            ends = torch.zeros(()).to(dtype), torch.ones(()).to(dtype)
            around += [bounds.nextafter(end) for end in ends]
        x = torch.cat(around)
        expected = (x[:, None] >= bounds).sum(1)
        assert torch.equal(calibration._bins(x, count).long(), expected), count


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_equal_scores_keep_their_order(dtype: torch.dtype) -> None:
    scores = torch.tensor([0.0, -0.0, 1, -2, float("inf"), -float("inf"), 0.5, 1e-30])
    scores = scores.to(dtype).repeat(40)
    labels = torch.randint(2, scores.shape, dtype=torch.uint8)
    order = scores.sort(descending=True, stable=True).indices
    found, marks = curves._falling(scores, labels)
    assert torch.equal(found, scores[order]) and torch.equal(marks, labels[order])
    assert found.dtype == dtype and marks.dtype == labels.dtype
