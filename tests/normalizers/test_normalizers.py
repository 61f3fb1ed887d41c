"""Normalizers against DL4J's numbers and files, and as modules of torch."""

from __future__ import annotations

import copy
import pickle
import struct
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py.normalizers import (
    VGG16,
    ImageScaler,
    MinMaxScaler,
    MultiHybrid,
    MultiMinMaxScaler,
    MultiStandardize,
    Normalizer,
    Range,
    Standard,
    Standardize,
    read_normalizer,
    write_normalizer,
)
from tests import golden

CASES = golden.load("normalizers")
FITTED = [name for name, case in CASES.items() if "transformed_features" in case]
TOLERANCES = {"DOUBLE": 1e-9, "FLOAT": 1e-5}
ITERATOR = 1e-5  # DL4J's own running sums lose digits: 2 becomes 2.0000000037
DTYPES = {"DOUBLE": torch.float64, "FLOAT": torch.float32}
SINGLE = {
    "NormalizerStandardize": Standardize,
    "NormalizerMinMaxScaler": MinMaxScaler,
    "MultiNormalizerStandardize": MultiStandardize,
    "MultiNormalizerMinMaxScaler": MultiMinMaxScaler,
}


def tensors(value: Any, dtype: torch.dtype, several: bool) -> Any:
    if value is None:
        return None
    if several:
        return tuple(tensors(v, dtype, False) for v in value)
    return torch.tensor(value, dtype=dtype)


def made(name: str, case: dict[str, Any]) -> Normalizer:
    """The normalizer that a golden case is about, not fitted."""
    kind, labels = case["class"], case["fitLabel"]
    if kind == "VGG16ImagePreProcessor":
        return VGG16()
    if kind == "ImagePreProcessingScaler":
        low = -1.0 if "(-1,1" in name else 0.0
        return ImageScaler(low, 1.0, 4 if "bits=4" in name else 8, labels)
    if kind == "MultiNormalizerHybrid":
        if "all standardize" in name:
            return MultiHybrid(Standard(), Standard() if labels else None)
        if "only input 0" in name:
            return MultiHybrid(per_input={0: Range()})
        return MultiHybrid(Range(), Standard(), {1: Standard()}, {1: Range(-1, 1)})
    cls = SINGLE[kind]
    bounds = (-1.0, 1.0) if "(-1,1)" in name else ()
    return cls(*bounds, fit_labels=labels)


def close(ours: Any, theirs: Any, case: dict[str, Any], what: str) -> None:
    tolerance = TOLERANCES[case["dtype"]]
    if case.get("fit", "").startswith("iterator"):
        tolerance = ITERATOR
    if isinstance(ours, tuple):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            close(a, b, case, f"{what} {i}")
        return
    expected = np.array(theirs, dtype=float)
    assert ours.dtype == DTYPES[case["dtype"]] and ours.shape == expected.shape, what
    scale = np.abs(expected).max(initial=1e-30)
    assert np.abs(ours.numpy() - expected).max() <= tolerance * scale, what


class TestGolden:
    """All cases of DL4J: statistics, both ways, and files to the byte."""

    @pytest.mark.parametrize("name", FITTED)
    def test_equals_dl4j(self, name: str) -> None:
        case = CASES[name]
        several = case["class"].startswith("Multi")
        dtype = DTYPES[case["dtype"]]
        x, y = (tensors(case[k], dtype, several) for k in ("features", "labels"))
        mask = tensors(case["masks" if several else "mask"], dtype, several)
        e = made(name, case)
        if "iterator" in name:
            e.fit(DataLoader(TensorDataset(x, y), batch_size=3))
        else:
            e.fit((x, y, mask, mask))
        given = copy.deepcopy((x, y))
        forward = e.transform(x, mask), e.transform_labels(y, mask)
        close(forward[0], case["transformed_features"], case, "features")
        close(forward[1], case["transformed_labels"], case, "labels")
        back = e.revert(forward[0], mask), e.revert_labels(forward[1], mask)
        features = case["reverted_features"]
        if isinstance(features, dict):  # DL4J: labels of rank 2 are no images
            features = case["reverted_features_only"]
        else:
            close(back[1], case["reverted_labels"], case, "reverted labels")
        close(back[0], features, case, "reverted features")
        flat = [*given[0], *given[1]] if several else list(given)
        assert all(map(torch.equal, [*x, *y] if several else [x, y], flat))

    @pytest.mark.parametrize("name", [n for n in FITTED if "file" in CASES[n]])
    def test_files(self, name: str) -> None:
        case = CASES[name]
        data = bytes.fromhex(case["bytes"])
        e = read_normalizer(data)
        assert write_normalizer(e) == data
        assert type(e).__name__ == type(made(name, case)).__name__
        several = case["class"].startswith("Multi")
        x = tensors(case["features"], DTYPES[case["dtype"]], several)
        mask = tensors(case["masks" if several else "mask"], torch.float32, several)
        close(e.transform(x, mask), case["transformed_features"], case, "features")

    @pytest.mark.parametrize("name", FITTED)
    def test_what_is_fitted_is_written_as_dl4j_does(self, name: str) -> None:
        case = CASES[name]
        theirs = case.get("bytes_before_transform", case["bytes"])
        several = case["class"].startswith("Multi")
        dtype = DTYPES[case["dtype"]]
        x, y = (tensors(case[k], dtype, several) for k in ("features", "labels"))
        mask = tensors(case["masks" if several else "mask"], dtype, several)
        e = made(name, case).fit((x, y, mask, mask))
        if isinstance(theirs, dict):
            with pytest.raises(ValueError, match="DL4J has no file for VGG16"):
                write_normalizer(e)
            return
        ours, read = write_normalizer(e), read_normalizer(bytes.fromhex(theirs))
        assert len(ours) == len(bytes.fromhex(theirs))
        pairs = zip(e.state_dict().items(), read.state_dict().items(), strict=True)
        for (a, mine), (b, other) in pairs:
            assert a == b and mine.dtype == other.dtype
            # where DL4J has used it before it wrote, a σ of 1e-5 is 1 already
            used = (other == 1) & (mine <= 1e-5)
            tolerance = ITERATOR if "iterator" in name else TOLERANCES[case["dtype"]]
            assert torch.allclose(mine.where(~used, other), other, rtol=tolerance)


@given(st.integers(1, 6), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_one_pass_equals_all_at_once(batches: int, seed: int) -> None:
    """Any cut into batches, with an offset that would cost a plain sum its digits."""
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=(40, 3)) + 1e6)
    cuts = sorted(rng.integers(0, 41, batches - 1).tolist())
    parts = [p for p in torch.tensor_split(x, cuts) if len(p)]
    whole, streamed = Standardize().fit(x), Standardize().fit(iter(parts))
    expected = (x.numpy() - x.numpy().mean(0)) / x.numpy().std(0)
    for e in (whole, streamed):
        assert np.allclose(e(x).numpy(), expected, rtol=0, atol=1e-8)
    low, high = x.amin(0), x.amax(0)
    ranged = MinMaxScaler(-2, 3).fit(iter(parts))
    assert torch.allclose(ranged(x), (x - low) / (high - low) * 5 - 2, atol=1e-12)


class TestModule:
    """As modules: states, copies, sequences, networks, files."""

    X = torch.tensor([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0]])
    Y = torch.tensor([[100.0], [200.0], [600.0]])

    def every(self) -> list[Any]:
        return [
            Standardize(fit_labels=True),
            MinMaxScaler(-1, 1, fit_labels=True),
            MultiStandardize(fit_labels=True),
            MultiMinMaxScaler(fit_labels=True),
            MultiHybrid(Standard(), Range(0, 2)),
        ]

    def test_states_travel_into_what_is_not_fitted(self) -> None:
        fresh = zip(self.every(), self.every(), self.every(), strict=True)
        for e, other, narrow in fresh:
            e.fit((self.X, self.Y))
            other.load_state_dict(e.state_dict())
            for same in (other, copy.deepcopy(e), pickle.loads(pickle.dumps(e))):
                assert torch.equal(same(self.X), e(self.X))
                y = e.transform_labels(self.Y)
                assert torch.equal(same.revert_labels(y), e.revert_labels(y))
                assert write_normalizer(same) == write_normalizer(e)
            narrow.fit((self.X[:, :1], self.Y))
            narrow.load_state_dict(e.state_dict())
            assert torch.equal(narrow(self.X), e(self.X))
            assert "columns" in repr(e) and "columns" in e.describe()

    def test_stands_in_a_sequence(self) -> None:
        e = Standardize().fit(self.X)
        net = torch.nn.Sequential(e, torch.nn.Linear(2, 1))
        assert torch.equal(net(self.X), net[1](e(self.X)))
        assert sum(p.numel() for p in e.parameters()) == 0
        program = torch.export.export(net, (self.X,))
        assert torch.equal(program.module()(self.X), net(self.X))

    def network(self) -> dl4py.Network:
        from dl4py.config import Dense, Output

        conf = dl4py.NeuralNetConfiguration.builder().seed(1).data_type("float")
        chain = conf.list().layer(Dense(n_in=2, n_out=3, activation="softsign"))
        chain = chain.layer(Output(n_out=1, loss="mse", activation="identity"))
        return chain.build().module()

    def test_a_network_predicts_from_raw_features(self, tmp_path: Any) -> None:
        net = self.network()
        assert torch.equal(net.predict(self.X), net.output(self.X))
        e = Standardize(fit_labels=True).fit((self.X, self.Y))
        net.normalizer = e
        names = set(net.state_dict())
        assert not any("normalizer" in name for name in names)
        expected = e.revert_labels(net.output(e(self.X)))
        assert torch.equal(net.predict(self.X), expected)
        dl4py.save(net, tmp_path / "model.zip")
        again = dl4py.restore(tmp_path / "model.zip")
        assert torch.equal(again.predict(self.X), expected)
        assert again.summary().endswith(
            "normalizer: Standardize: features of 2 columns, labels of 1"
        )

    def test_travels_in_checkpoints(self, tmp_path: Any) -> None:
        net = self.network()
        net.normalizer = MinMaxScaler().fit(self.X)
        model = net.lightning()
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = TensorDataset(net.normalizer(self.X), self.Y)
        trainer.fit(model, DataLoader(data, batch_size=3))
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        again = type(model).load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
        expected = model.network.predict(self.X)
        assert torch.equal(again.network.predict(self.X), expected)
        assert isinstance(again.network.normalizer, MinMaxScaler)


class TestInput:
    """One clear error, and nothing changed."""

    X = torch.tensor([[1.0, 2.0], [3.0, 5.0]])

    @pytest.mark.parametrize(
        "call, error, text",
        [
            (lambda e, x: e(x[:, :1]), ValueError, r"expected an array \[n, 2, ...\]"),
            (lambda e, x: e(x[0]), ValueError, r"expected an array \[n, 2, ...\]"),
            (
                lambda e, x: e(x, torch.ones(3)),
                ValueError,
                r"a mask \[3\] does not fit",
            ),
            (lambda e, x: e.fit([]), ValueError, "the data has no rows"),
            (lambda e, x: e.fit(x.long()), TypeError, "features as float tensors"),
            (lambda e, x: e.fit(x / 0), ValueError, "numbers must be finite"),
            (lambda e, x: e.fit(3), TypeError, "expected a tensor, a tuple"),
            (
                lambda e, x: e.fit([x, x[:, :1]]),
                ValueError,
                "batches of 2 columns, then",
            ),
        ],
    )
    def test_arrays(self, call: Any, error: Any, text: str) -> None:
        e = Standardize().fit(self.X)
        before = write_normalizer(e)
        with pytest.raises(error, match=text):
            call(e, self.X)
        assert write_normalizer(e) == before

    def test_arguments(self) -> None:
        with pytest.raises(ValueError, match="expected low < high, got 1, 0"):
            MinMaxScaler(1, 0)
        with pytest.raises(TypeError, match="expected True or False, got 'yes'"):
            Standardize("yes")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"in \[1, 53\], got 0"):
            ImageScaler(bits=0)
        with pytest.raises(TypeError, match=r"expected Standard\(\), Range"):
            MultiHybrid("standardize")  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="no statistics yet; call fit"):
            Standardize()(self.X)
        with pytest.raises(ValueError, match="has no statistics; call fit first"):
            write_normalizer(Standardize())
        with pytest.raises(ValueError, match="the data has no labels"):
            Standardize(fit_labels=True).fit(self.X)
        with pytest.raises(ValueError, match=r"images \[n, 3, height, width\]"):
            VGG16()(self.X)

    def test_damaged_files(self) -> None:
        """Every prefix, and every byte changed, is read whole or refused."""
        hybrid = MultiHybrid(Standard(), Range(0, 2), {1: Range(1, 2)})
        hybrid.fit(((self.X, self.X + 1), (self.X, self.X)))
        for e in (Standardize().fit(self.X), hybrid, ImageScaler()):
            data = write_normalizer(e)
            for n in range(len(data)):
                with pytest.raises(dl4py.DL4JFormatError):
                    read_normalizer(data[:n])
            for n in range(len(data)):
                for value in (0, 127, 255):
                    changed = data[:n] + bytes([value]) + data[n + 1 :]
                    try:
                        read_normalizer(changed)
                    except dl4py.DL4JFormatError:
                        continue
        with pytest.raises(dl4py.DL4JFormatError, match="are Java classes"):
            text = b"\0\6CUSTOM"
            read_normalizer(b"\0\nNORMALIZER" + struct.pack(">i", 1) + text)
        with pytest.raises(dl4py.DL4JFormatError, match="bytes follow"):
            read_normalizer(write_normalizer(ImageScaler()) + b"x")


def test_a_masked_step_counts_for_nothing() -> None:
    x = torch.randn(3, 2, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    wild = x.masked_fill(~mask.bool()[:, None], torch.nan)
    for cls in (Standardize, MinMaxScaler):
        e = cls().fit((wild, None, mask))
        shown: Tensor = x.movedim(1, -1)[mask.bool()]
        other = cls().fit(shown)
        assert torch.equal(e(wild, mask), e(x, mask))
        assert torch.allclose(e(wild, mask).movedim(1, -1)[mask.bool()], other(shown))
        assert not e(wild, mask).movedim(1, -1)[~mask.bool()].any()
