"""Evaluations as metrics: forms of input, errors, torchmetrics, Lightning, plot."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from dl4py.evaluation import Evaluation, RegressionEvaluation

P3 = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]])
Y3 = torch.tensor([0, 1, 2, 1])


class TestForms:
    """One meaning, many shapes."""

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_labels(self, dtype: torch.dtype) -> None:
        hot = torch.nn.functional.one_hot(Y3, 3)
        soft = 0.9 * hot + 0.1 / 3
        for labels in (Y3, Y3[:, None], Y3.float(), hot, hot.bool(), soft):
            e = Evaluation()
            e.update(P3.to(dtype), labels)
            assert e.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]

    def test_one_output(self) -> None:
        p, y = torch.tensor([0.5, 0.6, 0.2, 0.9]), torch.tensor([0, 0, 1, 1])
        for prediction in (p, p[:, None]):
            for labels in (y, y[:, None], y.float(), y * 0.8 + 0.1):
                e = Evaluation()
                e.update(prediction, labels)
                assert e.confusion.tolist() == [[1, 1], [1, 1]]

    @pytest.mark.parametrize("rest", [(2,), (2, 1)])
    def test_time_and_pixels(self, rest: tuple[int, ...]) -> None:
        p = P3.reshape(2, *rest, 3).movedim(-1, 1)
        y = Y3.reshape(2, *rest)
        hot = torch.nn.functional.one_hot(y, 3).movedim(-1, 1)
        flat = Evaluation()
        flat.update(P3[1:], Y3[1:])
        keep = torch.tensor([0.0, 1.0, 0.5, 1.0]).reshape(2, *rest)
        for labels in (y, y[:, None], hot):
            for mask in (keep, keep[:, None], keep.bool()):
                e = Evaluation()
                e.update(p, labels, mask)
                assert torch.equal(e.confusion, flat.confusion)

    def test_masked_rows_may_hold_anything(self) -> None:
        p, y = P3.clone(), Y3.clone()
        p[0], y[1] = math.nan, -100
        e = Evaluation(top_n=2)
        e.update(p, y, torch.tensor([0, 0, 1, 1]))
        assert e.accuracy() == e.top_n_accuracy() == 1
        r = RegressionEvaluation()
        r.update(p, P3, torch.tensor([0, 1, 1, 1]))
        assert r.mean_squared_error() == 0

    def test_all_masked_counts_nothing(self) -> None:
        for e in (Evaluation(), RegressionEvaluation()):
            e.update(P3, P3, torch.zeros(4))
            assert all(value.isnan() or value.isinf() for value in e.compute().values())
            assert e.to_json() and "No " in e.stats() or "NaN" in e.stats()

    def test_regression_masks(self) -> None:
        y = torch.zeros(2, 2, 2)
        p = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
        e = RegressionEvaluation()
        e.update(p, y, torch.tensor([[1, 0], [0, 1]]))
        assert [e.mean_absolute_error(i) for i in (0, 1)] == [3.5, 5.5]
        e.reset()
        e.update(p, y, torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 1]]]))
        assert [e.mean_absolute_error(i) for i in (0, 1)] == [1.5, 8]


BAD: dict[str, tuple[dict[str, Any], tuple[Any, ...], str]] = {
    "no tensor": ({}, ([[0.1, 0.9]], Y3), "predictions must be a tensor, got list"),
    "no dimension": ({}, (torch.tensor(0.5), Y3), r"predictions must be .* got \[\]"),
    "integers 2-D": ({}, (P3.long(), Y3), r"got \[4, 3\] of torch.int64"),
    "label shape": ({}, (P3, Y3[:3]), r"labels must be one-hot \[4, 3\] or .* \[3\]"),
    "label width": ({}, (P3, P3[:, :2]), r"got \[4, 2\]"),
    "NaN": ({}, (P3 / 0 * 0, Y3), "predictions must not hold NaN"),
    "NaN labels": ({}, (P3, P3 / 0 * 0), "labels must not hold NaN"),
    "out of range": ({}, (P3, Y3 + 1), r"labels must be in \[0, 2\], got 3"),
    "negative": ({}, (P3, Y3 - 1), r"labels must be in \[0, 2\], got -1"),
    "fraction": ({}, (P3, Y3 / 2), "labels must be whole class indices"),
    "one output": ({"num_classes": 2}, (P3[:, 0], Y3), r"labels must be in \[0, 1\]"),
    "index": ({"num_classes": 2}, (Y3, Y3 * 0), r"predictions must be in \[0, 1\]"),
    "indices": ({"top_n": 1}, (Y3, Y3), "need Evaluation.num_classes"),
    "classes": ({"num_classes": 4}, (P3, Y3), r"have 3 classes, this .* counts 4"),
    "threshold": ({"threshold": 0.3}, (P3, Y3), r"have 3 classes, this .* counts 2"),
    "top_n": ({"top_n": 2}, (P3[:, 0], Y3), "needs predictions .* per class"),
    "mask": ({}, (P3, Y3, Y3[:3]), r"mask must have the shape \[4\], .* got \[3\]"),
    "mask per class": ({}, (P3, Y3, P3), "mask must be one number per row"),
    "device": ({}, (P3, Y3.to("meta")), "tensors must be on one device"),
}


class TestBadInput:
    """One clear error each, and nothing has changed."""

    @pytest.mark.parametrize("name", BAD)
    @pytest.mark.parametrize("call", ["update", "forward"])
    def test_update(self, name: str, call: str) -> None:
        arguments, given_, message = BAD[name]
        e = Evaluation(**arguments)
        if not arguments:
            e.update(P3, Y3)
        before = e.confusion.clone()
        with pytest.raises((TypeError, ValueError), match=message):
            getattr(e, call)(*given_)
        assert torch.equal(e.confusion, before)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"num_classes": 1}, "num_classes=...\\) must be for 2 classes or more"),
            ({"num_classes": 2.0}, "num_classes=...\\) must be for 2 classes or more"),
            ({"labels": "ab"}, "labels=...\\) must be names, got 'ab'"),
            ({"labels": [0, 1]}, "labels=...\\) must be names"),
            ({"labels": ["a"]}, "labels=...\\) must be for 2 classes or more"),
            ({"num_classes": 3, "labels": ["a", "b"]}, "different numbers of classes"),
            ({"num_classes": 3, "threshold": 0.5}, "different numbers of classes"),
            ({"top_n": 0}, "top_n=...\\) must be a whole number >= 1, got 0"),
            ({"threshold": 1.5}, "threshold=...\\) must be in"),
            ({"threshold": math.nan}, "threshold=...\\) must be in"),
            ({"cost_array": [1, -1]}, "cost_array=...\\) must be finite and >= 0"),
            ({"cost_array": [1, 2], "threshold": 0.5}, "not both"),
            ({"positive": 2}, "positive=...\\) must be 0, 1 or None, got 2"),
        ],
    )
    def test_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises((TypeError, ValueError), match=message):
            Evaluation(**arguments)

    def test_methods(self) -> None:
        e = Evaluation()
        e.update(P3, Y3)
        for call, message in [
            (lambda: e.precision(3), r"cls must be in \[0, 3\), got 3"),
            (lambda: e.recall(0, "macro"), "give cls or average, not both"),
            (lambda: e.f1(average="weighted"), "average must be 'macro' or 'micro'"),
            (lambda: e.score_for_metric("AUC"), "metric must be one of ACCURACY"),
        ]:
            with pytest.raises(ValueError, match=message):
                call()

    def test_regression(self) -> None:
        e = RegressionEvaluation(3)
        e.update(P3, P3)
        before = e.sums.clone()
        for given_, message in [
            ((P3, P3[:3]), r"one shape .* got \[4, 3\] and \[3, 3\]"),
            ((P3[:, :2], P3[:, :2]), r"have 2 columns, this .* has 3"),
            ((P3, P3, Y3[:3]), "mask must have the shape"),
        ]:
            for call in (e.update, e.forward):
                with pytest.raises(ValueError, match=message):
                    call(*given_)
            assert torch.equal(e.sums, before)
        for columns in (0, "ab", [], [1, 2]):
            with pytest.raises(ValueError, match="columns=...\\) must be a number"):
                RegressionEvaluation(columns)
        with pytest.raises(ValueError, match="precision=...\\) must be a whole number"):
            RegressionEvaluation(3, precision=-1)
        with pytest.raises(ValueError, match=r"column must be in \[0, 3\), got 3"):
            e.r_squared(3)
        with pytest.raises(ValueError, match="metric must be one of MSE"):
            e.score_for_metric("MAPE")
        with pytest.raises(RuntimeError, match="nothing is evaluated yet"):
            RegressionEvaluation().r_squared()


METRICS = {
    "inferred": lambda **kw: Evaluation(top_n=2, **kw),
    "given": lambda **kw: Evaluation(3, top_n=2, **kw),
    "regression": lambda **kw: RegressionEvaluation(**kw),
    "regression given": lambda **kw: RegressionEvaluation(3, **kw),
}


@pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)
class TestMetric:
    """What torchmetrics and Lightning ask of a metric."""

    def whole(self, make: Callable[..., Any]) -> Any:
        e = make()
        e.update(P3, torch.nn.functional.one_hot(Y3, 3))
        return e

    def halves(self, make: Callable[..., Any]) -> tuple[Any, Any]:
        parts = make(), make()
        for e, rows in zip(parts, (slice(2), slice(2, None)), strict=True):
            e.update(P3[rows], torch.nn.functional.one_hot(Y3[rows], 3))
        return parts

    def test_forward_accumulates(self, make: Callable[..., Any]) -> None:
        e, parts = make(), self.halves(make)
        for part, rows in zip(parts, (slice(2), slice(2, None)), strict=True):
            batch = e(P3[rows], torch.nn.functional.one_hot(Y3[rows], 3))
            assert same_values(batch, part.compute())
        assert e.stats() == self.whole(make).stats()

    def test_merge(self, make: Callable[..., Any]) -> None:
        for first in (make(), self.halves(make)[0]):
            second = self.halves(make)[1]
            expected = self.whole(make) if first.update_called else second.clone()
            first.merge_state(second)
            assert first.stats() == expected.stats()

    def test_processes(self, make: Callable[..., Any]) -> None:
        """Two processes: what the other one holds comes from a gathering function."""
        first, second = self.halves(make)
        others = {n: getattr(second, n) for n in second._reductions}
        names = iter(list(others) * 2)  # compute() and sync_context() gather once each

        def gather(state: Tensor, group: object = None) -> list[Tensor]:
            return [state, others[next(names)]]

        e = make(dist_sync_fn=gather, distributed_available_fn=lambda: True)
        e.load_state_dict(first.state_dict())
        e.update(P3[:2], torch.nn.functional.one_hot(Y3[:2], 3))
        assert same_values(e.compute(), self.whole(make).compute())
        assert e.stats() == first.stats()
        with e.sync_context(dist_sync_fn=gather):
            assert e.stats() == self.whole(make).stats()
        assert e.stats() == first.stats()

    def test_copies(self, make: Callable[..., Any]) -> None:
        e = self.whole(make)
        for other in (e.clone(), pickle.loads(pickle.dumps(e)), copy.deepcopy(e)):
            assert other.stats() == e.stats()
            other.reset()
            assert other.stats() == make().stats() != e.stats()

    def test_state_dict(self, make: Callable[..., Any]) -> None:
        e, other = self.whole(make), make()
        e.persistent(True)
        other.persistent(True)
        other.load_state_dict(e.state_dict())
        assert other.stats() == e.stats()

    def test_precision_plugins(self, make: Callable[..., Any]) -> None:
        e = torch.nn.ModuleList([make()]).to(torch.bfloat16)[0]
        e.update(P3, torch.nn.functional.one_hot(Y3, 3))
        assert e.stats() == self.whole(make).stats()

    def test_keeps_no_graph(self, make: Callable[..., Any]) -> None:
        e = make()
        values = e(P3.clone().requires_grad_(), torch.nn.functional.one_hot(Y3, 3))
        assert not any(value.requires_grad for value in values.values())
        assert not any(getattr(e, name).requires_grad for name in e._reductions)

    def test_collection(self, make: Callable[..., Any]) -> None:
        collection = MetricCollection({"a": make(), "b": make()}, prefix="val_")
        values = collection(P3, torch.nn.functional.one_hot(Y3, 3))
        own = self.whole(make).compute()
        assert same_values(values, {f"val_{n}_{k}": own[k] for n in "ab" for k in own})

    def test_one_number(self, make: Callable[..., Any]) -> None:
        values = self.whole(make).compute()
        for name in (*values, *make().numbers):
            e = self.whole(lambda name=name, **kw: make(metric=name.upper(), **kw))
            value = e.compute()
            assert value.shape == () and value.dtype == torch.float32
            expected = values.get(name, torch.tensor(e.score_for_metric(name)))
            torch.testing.assert_close(value, expected)
            assert e.higher_is_better == (name not in ("mse", "mae", "rmse", "rse"))
        with pytest.raises(
            ValueError, match="metric=...\\) must be one of .*got 'AUC'"
        ):
            make(metric="AUC")

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_cuda(self, make: Callable[..., Any]) -> None:
        e = make().cuda()
        e(P3.cuda(), torch.nn.functional.one_hot(Y3, 3).cuda())
        assert e.stats() == self.whole(make).stats()
        assert same_values(e.cpu().compute(), self.whole(make).compute())


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_lightning_logs_it() -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.evaluation = Evaluation(3)

        def validation_step(self, batch: list[Tensor], _: int) -> None:
            self.evaluation.update(*batch)

        def on_validation_epoch_end(self) -> None:
            self.log_dict(self.evaluation.compute())
            self.evaluation.reset()

    quiet = dict.fromkeys(
        ["logger", "enable_progress_bar", "enable_model_summary"], False
    )
    trainer = lightning.Trainer(accelerator="cpu", **quiet)
    data = torch.utils.data.TensorDataset(P3, Y3)
    loader = torch.utils.data.DataLoader(data, batch_size=3)
    for _ in range(2):
        (logged,) = trainer.validate(Module(), loader, verbose=False)
        assert logged["accuracy"] == 0.75 and logged["precision"] == pytest.approx(
            5 / 6
        )


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_lightning_logs_a_collection() -> None:
    """Without compute() and reset(): log_dict takes metrics that give one number."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.scores = MetricCollection(
                [
                    Evaluation.collection(3, prefix="val_"),
                    RegressionEvaluation.collection(3, postfix="_val"),
                ]
            )

        def validation_step(self, batch: list[Tensor], _: int) -> None:
            self.scores.update(batch[0], torch.nn.functional.one_hot(batch[1], 3))
            self.log_dict(self.scores)

    quiet = dict.fromkeys(
        ["logger", "enable_progress_bar", "enable_model_summary"], False
    )
    trainer = lightning.Trainer(accelerator="cpu", **quiet)
    data = torch.utils.data.TensorDataset(P3, Y3)
    loader = torch.utils.data.DataLoader(data, batch_size=3)
    module, e, r = Module(), Evaluation(), RegressionEvaluation()
    e.update(P3, Y3)
    r.update(P3, torch.nn.functional.one_hot(Y3, 3))
    expected = {f"val_{k}": float(v) for k, v in e.compute().items()}
    expected |= {f"{k}_val": float(v) for k, v in r.compute().items()}
    for _ in range(2):  # the second time the counts have gone
        (logged,) = trainer.validate(module, loader, verbose=False)
        assert logged == pytest.approx(expected)


@pytest.mark.parametrize("make", [Evaluation, RegressionEvaluation])
def test_log_dict_of_the_metric_itself_names_the_way(make: Callable[..., Any]) -> None:
    import lightning

    with pytest.raises(TypeError, match=rf"no dict.* {make.__name__}\.collection\("):
        lightning.LightningModule().log_dict(make())


def same_values(got: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return got.keys() == expected.keys() and all(
        torch.equal(got[k].nan_to_num(9), v.nan_to_num(9)) for k, v in expected.items()
    )


class TestPlot:
    def test_draws_every_count(self) -> None:
        pytest.importorskip("matplotlib").use("Agg")
        from matplotlib import pyplot

        e = Evaluation(labels=["red", "green", "blue"])
        e.update(P3, Y3)
        figure, ax = e.plot()
        assert [
            int(text.get_text()) for text in ax.texts
        ] == e.confusion.flatten().tolist()
        assert [t.get_text() for t in ax.get_xticklabels()] == ["red", "green", "blue"]
        assert ax.get_xlabel() == "Predicted" and ax.get_ylabel() == "Actual"
        pyplot.close(figure)
        other, own = pyplot.subplots()
        assert e.plot(ax=own) == e.plot(None, own) == (other, own)
        assert e.plot(torch.eye(3).long(), ax=own) == (
            other,
            own,
        )  # torchmetrics' order
        with pytest.raises(TypeError, match="got Axes; axes go to ax="):
            e.plot(own)
        pyplot.close(other)

    def test_draws_numbers(self) -> None:
        pytest.importorskip("matplotlib").use("Agg")
        from matplotlib import pyplot

        for e in (Evaluation(), RegressionEvaluation(), RegressionEvaluation(3)):
            values = e(P3, torch.nn.functional.one_hot(Y3, 3))
            for val in (None, values, [values, values]):
                if val is None and isinstance(e, Evaluation):
                    continue
                figure, ax = e.plot(val)
                legend = [t.get_text() for t in ax.get_legend().get_texts()]
                assert all(any(name in text for text in legend) for name in values)
                assert e.plot(val, ax) == (figure, ax)
            pyplot.close("all")
        with pytest.raises(RuntimeError, match="nothing is evaluated yet"):
            Evaluation().plot()

    def test_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        for e in (Evaluation(3), RegressionEvaluation(3)):
            with pytest.raises(ImportError, match=r"pip install 'dl4py\[plot\]'"):
                e.plot()
