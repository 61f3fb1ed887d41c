"""Evaluations against DL4J's own numbers and tables and against NumPy formulas."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dl4py.evaluation import Evaluation, RegressionEvaluation
from tests import golden
from tests.references import evaluation as reference

CASES = golden.load("evaluation")["Evaluation"]
REGRESSIONS = golden.load("evaluation")["RegressionEvaluation"]

# what a case's name says of the constructor
ARGUMENTS: dict[str, dict[str, Any]] = {
    "(labels)": {"labels": ["red", "green", "blue"]},
    "(topN=2)": {"top_n": 2},
    "(topN=3)": {"top_n": 3},
    "(numClasses=2)": {"num_classes": 2},
    "(positive=0)": {"num_classes": 2, "positive": 0},
    "(positive=null)": {"num_classes": 2, "positive": None},
    "(threshold=0.3)": {"threshold": 0.3},
    "(cost=1,2,3)": {"cost_array": [1, 2, 3]},
    "ties": {"top_n": 2},
    "eval(pred,actual)": {"num_classes": 3},
}
# averages and classes: golden key → (method, leading arguments)
RATES: dict[str, tuple[str, tuple[float, ...]]] = {
    "precision": ("precision", ()),
    "recall": ("recall", ()),
    "f1": ("f1", ()),
    "fBeta0.5": ("f_beta", (0.5,)),
    "fBeta2": ("f_beta", (2.0,)),
    "gMeasure": ("g_measure", ()),
    "matthewsCorrelation": ("matthews_correlation", ()),
    "falsePositiveRate": ("false_positive_rate", ()),
    "falseNegativeRate": ("false_negative_rate", ()),
}
PLAIN: dict[str, Callable[[Evaluation], Any]] = {
    "accuracy": lambda e: e.accuracy(),
    "topNAccuracy": lambda e: e.top_n_accuracy(),
    "topNCorrectCount": lambda e: e.top_n_correct_count(),
    "topNTotalCount": lambda e: e.top_n_total_count(),
    "numRowCounter": lambda e: e.num_row_counter(),
    "precision": lambda e: e.precision(),
    "recall": lambda e: e.recall(),
    "f1": lambda e: e.f1(),
    "falseAlarmRate": lambda e: e.false_alarm_rate(),
    "falsePositiveRate": lambda e: e.false_positive_rate(),
    "falseNegativeRate": lambda e: e.false_negative_rate(),
    "Macro": lambda e: averaged(e, "macro"),
    "Micro": lambda e: averaged(e, "micro"),
    "averagePrecisionNumClassesExcluded": (
        lambda e: e.average_precision_num_classes_excluded()
    ),
    "averageRecallNumClassesExcluded": (
        lambda e: e.average_recall_num_classes_excluded()
    ),
    "averageF1NumClassesExcluded": lambda e: e.average_f1_num_classes_excluded(),
    "averageFBetaNumClassesExcluded": (
        lambda e: e.average_f_beta_num_classes_excluded()
    ),
    "per_class": lambda e: [one_class(e, c) for c in range(e.num_classes)],
    "truePositives": lambda e: e.true_positives(),
    "falsePositives": lambda e: e.false_positives(),
    "trueNegatives": lambda e: e.true_negatives(),
    "falseNegatives": lambda e: e.false_negatives(),
    "positive": lambda e: e.positive(),
    "negative": lambda e: e.negative(),
    "confusion": lambda e: e.confusion.tolist() if e.num_classes else [],
    "confusionToString": lambda e: e.confusion_to_string(),
    "confusionMatrix": lambda e: e.confusion_matrix(),
    "stats": lambda e: e.stats(),
    "stats(suppressWarnings)": lambda e: e.stats(True),
    "stats(false,true)": lambda e: e.stats(False, True),
    **{
        f"scoreForMetric.{name}": lambda e, name=name: e.score_for_metric(name)
        for name in ("ACCURACY", "F1", "PRECISION", "RECALL", "GMEASURE", "MCC")
    },
}
INPUTS = {"labels", "predictions", "mask", "split"}
LEFT_OUT = {
    "toJson": "compared by test_json",
    "toYaml": "DL4J writes its JSON there",
    "confusion_csv": "of DL4J's ConfusionMatrix class; confusion is a tensor here",
    "confusion_html": "plot() takes its place",
}


def averaged(e: Evaluation, average: str) -> dict[str, float]:
    return {
        key: attempt(functools.partial(getattr(e, name), *args, average=average))
        for key, (name, args) in RATES.items()
    }


def one_class(e: Evaluation, c: int) -> dict[str, float]:
    rates = {key: getattr(e, name)(*args, c) for key, (name, args) in RATES.items()}
    return {
        **rates,
        "precision_edge_-1": e.precision(c, edge=-1),
        "recall_edge_-1": e.recall(c, edge=-1),
        "classCount": e.class_count(c),
    }


def attempt(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RuntimeError as error:
        return {"error": str(error)}


def same(got: Any, expected: Any) -> bool:
    """Equal, floats to 1e-12 and NaN to NaN; DL4J refuses where nothing is counted."""
    if isinstance(expected, dict) and "error" in expected:
        return isinstance(got, dict) and "nothing is evaluated" in got["error"]
    if isinstance(expected, dict) and isinstance(got, list):
        got = {str(i): v for i, v in enumerate(got)}
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(
            same(got[k], v) for k, v in expected.items()
        )
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, float):
        return bool(got == pytest.approx(expected, rel=1e-12, abs=1e-15, nan_ok=True))
    return bool(got == expected)


def counted(value: Any) -> Any:
    """JSON of an evaluation without counts of 0."""
    if isinstance(value, dict):
        found = {k: counted(v) for k, v in value.items()}
        if "map" in found:
            found["map"] = {k: v for k, v in found["map"].items() if v}
        if "matrix" in found:
            pairs = {k: zip(*v, strict=True) for k, v in found["matrix"].items()}
            found["matrix"] = {k: {i: n for i, n in v if n} for k, v in pairs.items()}
        return found
    return value


def same_json(ours: str, theirs: str) -> bool:
    """Equal JSON, numbers as in :func:`same`."""
    return same(json.loads(ours), json.loads(theirs))


def tensor(value: Any) -> Tensor | None:
    return None if value is None else torch.tensor(value, dtype=torch.float64)


def evaluated(name: str, dtype: torch.dtype = torch.float64) -> Evaluation:
    """The evaluation that a golden case is about."""
    arguments = [kw for key, kw in ARGUMENTS.items() if key in name]
    e = Evaluation(**(arguments[0] if arguments else {}))
    case = CASES[name]
    if name.startswith("eval(pred,actual)"):
        e.update(torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 2, 1]))
    elif "split" in case:
        p, y, n = tensor(case["predictions"]), tensor(case["labels"]), case["split"]
        other = copy.deepcopy(e)
        e.update(p[:n].to(dtype), y[:n])
        other.update(p[n:].to(dtype), y[n:])
        e.merge_state(other)
    elif "predictions" in case:
        p, y, mask = (tensor(case[k]) for k in ("predictions", "labels", "mask"))
        e.update(p.to(dtype), y.to(dtype), mask)
    return e


class TestGolden:
    """All cases of DL4J, every key or a reason."""

    def test_counts(self) -> None:
        assert len(CASES) == 26 and len(REGRESSIONS) == 8

    @pytest.mark.parametrize("name", CASES)
    def test_every_key_has_a_method_or_a_reason(self, name: str) -> None:
        assert set(CASES[name]) - INPUTS == set(PLAIN) | set(LEFT_OUT)

    @pytest.mark.parametrize("name", CASES)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_equals_dl4j(self, name: str, dtype: torch.dtype) -> None:
        e = evaluated(name, dtype)
        for key, of in PLAIN.items():
            got = attempt(lambda of=of: of(e))
            assert same(got, CASES[name][key]), f"{key}: {got} {CASES[name][key]}"

    @pytest.mark.parametrize("name", CASES)
    def test_json(self, name: str) -> None:
        ours, theirs = evaluated(name).to_json(), CASES[name]["toJson"]
        if (
            "threshold" in name
        ):  # DL4J then writes counts of 0, which it leaves out else
            assert counted(json.loads(ours)) == counted(json.loads(theirs))
        else:
            assert ours == theirs

    @pytest.mark.parametrize("name", REGRESSIONS)
    def test_regression_equals_dl4j(self, name: str) -> None:
        case = REGRESSIONS[name]
        p, y, mask = (tensor(case[k]) for k in ("predictions", "labels", "mask"))
        e = RegressionEvaluation()
        for rows in (slice(7), slice(7, None)) if "two" in name else (slice(None),):
            e.update(p[rows], y[rows], None if mask is None else mask[rows])
        measures: dict[str, Callable[..., float]] = {
            "MSE": e.mean_squared_error,
            "MAE": e.mean_absolute_error,
            "RMSE": e.root_mean_squared_error,
            "RSE": e.relative_squared_error,
            "PC": e.pearson_correlation,
            "R2": e.r_squared,
            "correlationR2": e.correlation_r2,
        }
        got = {
            "averageMeanSquaredError": e.mean_squared_error(),
            "averageMeanAbsoluteError": e.mean_absolute_error(),
            "averagerootMeanSquaredError": e.root_mean_squared_error(),
            "averagerelativeSquaredError": e.relative_squared_error(),
            "averagePearsonCorrelation": e.pearson_correlation(),
            "averageRSquared": e.r_squared(),
            "averagecorrelationR2": e.correlation_r2(),
            "per_column": [
                {key: of(column) for key, of in measures.items()}
                for column in range(e.num_columns())
            ],
            "stats": e.stats(),
            **{
                f"scoreForMetric.{key}": e.score_for_metric(key)
                for key in measures
                if key != "correlationR2"
            },
        }
        assert set(case) - INPUTS == {*got, "toJson"}
        assert same_json(e.to_json(), case["toJson"])
        for key, value in got.items():
            assert same(value, case[key]), f"{key}: {value} {case[key]}"


class TestTables:
    """Texts that the golden cases do not show, as DL4J 1.0.0-M2.1 printed them."""

    def test_many_classes(self) -> None:
        e = Evaluation(21)
        p, y = [0] + 9 * [1] + [0], [0] + 9 * [1] + [2]
        e.update(torch.tensor(p), torch.tensor(y))
        assert e.stats() == (
            "\n\n========================Evaluation Metrics========================\n"
            " # of classes:    21\n"
            " Accuracy:        0.9091\n"
            " Precision:       0.7500\t(19 classes excluded from average)\n"
            " Recall:          0.6667\t(18 classes excluded from average)\n"
            " F1 Score:        0.8333\t(19 classes excluded from average)\n"
            "Precision, recall & F1: macro-averaged (equally weighted avg. of 21 "
            "classes)\n\n"
            "Warning: 19 classes were never predicted by the model and were excluded "
            "from average precision"
            "Warning: 18 classes were never predicted by the model and were excluded "
            "from average recall\n\n"
            "Note: Confusion matrix not generated due to space requirements for 21 "
            "classes.\nUse stats(false,true) to generate anyway\n"
            "=================================================================="
        )
        assert "\n=========================Confusion Matrix====" in e.stats(False, True)
        assert e.stats(True, False).endswith(f"21 classes)\n\n\n{66 * '='}")

    def test_up_to_20_classes_show_the_matrix(self) -> None:
        e = Evaluation(20)
        e.update(torch.arange(20), torch.arange(20))
        assert e.confusion_matrix() in e.stats()

    def test_up_to_16_classes_are_listed(self) -> None:
        e = Evaluation(18)
        e.update(torch.tensor([0, 0]), torch.tensor([0, 2]))
        listed = ", ".join(str(i) for i in range(1, 18) if i != 2)
        assert e.stats(include_confusion=False).endswith(
            "from average precisionWarning: 16 classes were never predicted by the "
            "model and were excluded from average recall\n"
            f"Classes excluded from average recall: [{listed}]\n\n{66 * '='}"
        )

    @pytest.mark.parametrize(
        "rows, line", [(100, "100  0  0 | 0 = 0"), (1000, "1000   0   0 | 0 = 0")]
    )
    def test_powers_of_ten_are_not_padded(self, rows: int, line: str) -> None:
        e = Evaluation(3)
        e.update(torch.zeros(rows, dtype=torch.long), torch.zeros(rows))
        assert e.confusion_matrix().splitlines()[2] == line

    def test_exact_ties_go_to_even_digits(self) -> None:
        e = Evaluation(2)
        e.update(torch.zeros(32, dtype=torch.long), torch.tensor([0] + 31 * [1]))
        assert " Accuracy:        0.0312\n" in e.stats()

    def test_undefined_f1_prints_as_nan(self) -> None:
        e = Evaluation(3)
        e.update(torch.tensor([0]), torch.tensor([1]))
        assert " F1 Score:        NaN\t(3 classes excluded from average)" in e.stats()

    def test_long_names(self) -> None:
        e = Evaluation(labels=["negative", "a very long label name"])
        e.update(torch.tensor([0]), torch.tensor([1]))
        assert e.confusion_to_string() == (
            "   Predicted:                          0      1\n"
            "   Actual:\n"
            "0  negative                    |       0      0\n"
            "1  a very long label name      |       1      0\n"
        )

    def test_java_numbers(self) -> None:
        half = torch.tensor([[0.5, 0.5]])
        for threshold, text in [(1e-4, "1.0E-4"), (0.001, "0.001"), (0.0, "0.0")]:
            e = Evaluation(threshold=threshold)
            e.update(half, torch.tensor([1]))
            assert f"\nBinary decision threshold: {text}\n" in e.stats()
        e = Evaluation(cost_array=[0.1, 1e-4, 12345678.0, 3e9])
        e.update(torch.tensor([[0.5, 0.5, 0, 0]]), torch.tensor([1]))
        assert "\nCost array: [0.1, 1.0E-4, 1.2345678E7, 3.0E9]\n" in e.stats()

    def test_nothing_evaluated(self) -> None:
        assert RegressionEvaluation().stats() == "RegressionEvaluation: No Data"
        assert Evaluation(3).confusion_matrix().startswith(" 0 1 2\n-------\n 0 0 0 |")
        nan, inf = f"{'NaN':<15}", f"{'Infinity':<15}"
        row = f"a     {nan * 3}{inf}{nan * 2}\n"
        assert RegressionEvaluation(["a"]).stats().endswith(row)

    @pytest.mark.parametrize(
        "error, mse, mae",
        [
            (1.000425, "1.00085e+00", "1.00043e+00"),
            (1.000015, "1.00003e+00", "1.00002e+00"),
            (9.999995, "9.99999e+01", "1.00000e+01"),
            (0.1234565, "1.52415e-02", "1.23457e-01"),
            (2.5e-101, "6.25000e-202", "2.50000e-101"),
        ],
    )
    def test_regression_rounds_shortest_decimals_half_up(
        self, error: float, mse: str, mae: str
    ) -> None:
        e = RegressionEvaluation(1)
        zero = torch.zeros(1, 1, dtype=torch.float64)
        e.update(zero + error, zero)
        assert e.stats().splitlines()[1].split()[1:3] == [mse, mae]

    def test_labels_of_hardly_any_spread(self) -> None:
        e = RegressionEvaluation()
        e.update(torch.tensor([0.0, 0.5]), torch.tensor([0.0, 0.001]))
        assert e.relative_squared_error() == math.inf and e.r_squared() < -1e5

    def test_regression_precision(self) -> None:
        e = RegressionEvaluation(1, precision=3)
        e.update(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]))
        cells = ["1.000e+00"] * 3 + ["4.000e+00", "1.000e+00", "-3.000e+00"]
        header, row = (
            "".join(f"{cell:<13}" for cell in line)
            for line in (["MSE", "MAE", "RMSE", "RSE", "PC", "R^2"], cells)
        )
        assert e.stats() == f"Column    {header}\ncol_0     {row}\n"


@given(st.integers(2, 5), st.integers(1, 30), st.randoms(use_true_random=False))
def test_rates_equal_numpy(k: int, n: int, random: Any) -> None:
    predicted, actual = ([random.randrange(k) for _ in range(n)] for _ in "pa")
    table = reference.confusion(predicted, actual, k)
    e = Evaluation(k)
    e.update(torch.tensor(predicted), torch.tensor(actual))
    assert e.confusion.tolist() == table.tolist()
    assert e.accuracy() == pytest.approx(np.trace(table) / n, rel=1e-12)
    for name, values in reference.per_class(table).items():
        rate = getattr(e, name)
        edge = np.nan if "matthews" in name else 0.0
        expected = np.where(np.isnan(values), edge, values)
        assert same([rate(c) for c in range(k)], expected.tolist()), name
        if not (k == 2 and name == "f1"):  # class 1's: the golden cases show it
            assert same(rate(average="macro"), reference.macro(name, values)), name
    if k > 2:
        for name in ("precision", "recall", "f1", "g_measure"):
            assert same(getattr(e, name)(average="micro"), e.accuracy()), name


@given(st.integers(5, 40), st.integers(1, 3), st.integers(0, 2**31))
def test_regression_equals_numpy(n: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, columns)) + 3
    p = y + rng.normal(size=(n, columns))
    cut = int(rng.integers(0, n + 1))
    e = RegressionEvaluation()
    for rows in (slice(cut), slice(cut, None)):
        e.update(torch.tensor(p[rows]), torch.tensor(y[rows]))
    for name, expected in reference.regression(p, y).items():
        got = [getattr(e, name)(column) for column in range(columns)]
        # one pass: Σy² - nȳ² loses the digits that the mean has over the spread
        assert got == pytest.approx(expected.tolist(), rel=1e-10, abs=1e-10), name
