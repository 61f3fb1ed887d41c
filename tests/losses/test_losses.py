"""Every loss against its formula, its derivatives and DL4J's own numbers."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from dl4py import losses
from dl4py.losses import Loss
from dl4py.registry import LOSSES, parameters
from tests.references import activations as activation_reference
from tests.references import losses as reference

TIGHT = {"rtol": 1e-6, "atol": 1e-8}  # the defaults let a 0.1 % error pass
WEIGHTS = [0.5, 1, 2, 0.25]  # of the rows named (weights)
LINKS = ("softmax", "sigmoid", "softplus")  # all outputs positive, for the logarithms
OWN = [key for key in LOSSES if LOSSES[key].__module__.startswith("dl4py")]
CASES = {
    f"{key}-{link}": (key, link, {"gaussians": 2, "labels": 2} if "mix" in key else {})
    for key in OWN
    for link in LINKS
} | {
    f"{key}-{link}-weights": (key, link, {"weights": WEIGHTS})
    for key in OWN
    if "weights" in parameters(LOSSES[key])
    for link in LINKS
}
N, K = 5, 4


def make(case: str, **more: Any) -> Loss:
    key, link, args = CASES[case]
    return losses.get(key, link, **args, **more)


def data(case: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Pre-activations and labels of the form that the loss wants."""
    key, _, args = CASES[case]
    generator = torch.Generator().manual_seed(7)
    width = {"fmeasure": 2, "mixture_density": 8}.get(key, K)
    z = torch.randn(N, width, generator=generator, dtype=torch.float64).to(dtype)
    soft = torch.rand(N, K, generator=generator, dtype=torch.float64)
    binary = torch.tensor(
        [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1] * 4, [0, 1, 0, 1]]
    )
    labels = {
        "fmeasure": F.one_hot(torch.tensor([0, 1, 1, 0, 1])),
        "mixture_density": soft[:, :2],
        "multi_label": binary,
        "sparse_mcxent": torch.tensor([3, 0, 1, 1, 2]),
    }
    y = labels.get(key, soft / soft.sum(1, keepdim=True))
    return z, y.to(dtype) if y.is_floating_point() else y


MASKS = {
    "none": None,
    "[n]": torch.tensor([1, 0, 1, 0.5, 1]),
    "[n, 1]": torch.tensor([[1], [1], [0], [0.25], [1]]),
    "[n, K]": torch.linspace(0, 1, N * K).reshape(N, K).round(decimals=2),
}


def masks(case: str) -> list[Tensor | None]:
    wide = LOSSES[CASES[case][0]].output_masks
    return [mask for name, mask in MASKS.items() if wide or name != "[n, K]"]


def gradient(loss: Loss, z: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    z = z.detach().requires_grad_()
    return torch.autograd.grad(loss.score(z, y, mask, average=False), z)[0]


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on all losses are composed of torch's ops."""
    for cls in {base for key in OWN for base in LOSSES[key].__mro__}:
        if "fused" in vars(cls):
            monkeypatch.setattr(cls, "fused", lambda *_: None)


@pytest.fixture(params=["kernels", "formulas"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "formulas":
        without_kernels(monkeypatch)
    return str(request.param)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestLoss:
    @pytest.mark.parametrize(
        "dtype, rtol", [(torch.float64, 1e-12), (torch.float32, 1e-6)]
    )
    def test_equals_reference(self, case: str, dtype: torch.dtype, rtol: float) -> None:
        key, link, args = CASES[case]
        loss = make(case)
        z, y = data(case, dtype)
        a = getattr(activation_reference, link)(z.double().numpy())
        labels = y.double().numpy()
        for mask in masks(case):
            m = None if mask is None else mask.double().numpy().reshape(N, -1)
            if not loss.additive:
                expected = np.array(reference.fmeasure(a, labels, mask=m))
                for average in (True, False):
                    ours = loss.score(z, y, mask, average=average)
                    np.testing.assert_allclose(ours.double().numpy(), expected, rtol)
                continue
            own = {k: v for k, v in args.items() if k != "weights"}
            own |= {"softmax": True} if (key, link) == ("xent", "softmax") else {}
            terms = getattr(reference, key)(a, labels, **own)
            terms = terms * np.array(args.get("weights", 1.0)) * (1 if m is None else m)
            atol = rtol * np.abs(terms).max()  # terms of both signs cancel
            each = loss.per_example(z, y, mask).double().numpy()
            np.testing.assert_allclose(each, terms.sum(1), rtol, atol)
            total = loss.score(z, y, mask, average=False)
            np.testing.assert_allclose(total.double().numpy(), terms.sum(), rtol, atol)
            mean = loss(z, y, mask).double().numpy()
            np.testing.assert_allclose(mean, terms.sum() / N, rtol, atol)

    def test_derivatives(self, case: str) -> None:
        loss = make(case)
        z, y = data(case)
        for mask in masks(case)[-1:]:
            score = lambda z, mask=mask: loss.score(z, y, mask, average=False)  # noqa: E731
            assert gradcheck(score, z.requires_grad_(), **TIGHT)
            assert gradgradcheck(score, z, **TIGHT)

    def test_saturated_gradients_are_finite(self, case: str) -> None:
        z, y = data(case)
        far = 30 if case == "multi_label-softplus" else 500  # its score overflows
        for exact in (False, True):
            for dtype in (torch.float64, torch.float32):
                slope = gradient(
                    make(case, dl4j_exact=exact), far * z.sign().to(dtype), y
                )
                assert slope.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_dtypes(self, case: str, dtype: torch.dtype) -> None:
        z, y = data(case)
        z = z.to(dtype)
        score = make(case)(z, y, torch.ones(N))
        assert score.dtype == dtype  # labels, weights and masks follow the output
        expected = make(case)(z.double(), y).float()
        rtol = 20 * torch.finfo(dtype).eps
        torch.testing.assert_close(score.float(), expected, rtol=rtol, atol=rtol)

    def test_autocast_runs_in_float32(self, case: str) -> None:
        z, y = data(case)
        low = z.bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            score = make(case)(low, y)
        assert score.dtype == torch.float32
        torch.testing.assert_close(score, make(case)(low.float(), y))

    def test_strided_and_empty(self, case: str) -> None:
        z, y = data(case)
        loss = make(case)
        expected = loss(z, y)
        strided = z.T.contiguous().T
        torch.testing.assert_close(loss(strided, y), expected, rtol=1e-14, atol=1e-15)
        wide = torch.cat([z, z], 1)[:, : z.shape[1]]
        torch.testing.assert_close(loss(wide, y), expected, rtol=1e-14, atol=1e-15)
        assert loss(z[:0], y[:0]) == 0
        if loss.additive:
            assert loss.per_example(z[:0], y[:0]).shape == (0,)

    @pytest.mark.filterwarnings("ignore:<class 'torch.autograd:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
    @pytest.mark.parametrize("exact", [False, True])
    def test_compile_and_transforms(self, case: str, exact: bool) -> None:
        loss = make(case, dl4j_exact=exact)
        z, y = data(case)
        m = MASKS["[n, 1]"].double()
        torch._dynamo.reset()
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        leaf = z.clone().requires_grad_()
        score = compiled(leaf, y, m)
        torch.testing.assert_close(score, loss(z, y, m))
        slope = gradient(loss, z, y, m) / (N if loss.additive else 1)
        torch.testing.assert_close(torch.autograd.grad(score, leaf)[0], slope)
        torch.testing.assert_close(torch.func.grad(loss)(z, y, m), slope)
        _, forward = torch.func.jvp(lambda z: loss(z, y, m), (z,), (z,))
        torch.testing.assert_close(forward, (slope * z).sum())
        twice = torch.func.vmap(loss)(*(torch.stack([t, t]) for t in (z, y, m)))
        torch.testing.assert_close(twice, loss(z, y, m).expand(2))

    def test_copies(self, case: str) -> None:
        loss = make(case, dl4j_exact=True)
        z, y = data(case)
        for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            assert repr(twin) == repr(loss)
            assert torch.equal(twin(z, y), loss(z, y))
        assert "dl4j_exact=True" in repr(loss) and not loss.state_dict()

    def test_differs_says_the_truth(self, case: str) -> None:
        plain, exact = make(case), make(case, dl4j_exact=True)
        z, y = data(case)
        ordinary = [MASKS["none"], MASKS["[n]"].ceil(), MASKS["[n, 1]"].ceil()]
        note = plain.differs()
        assert note is None or "\n" not in note
        if not plain.additive:
            # its own difference is the network's to make
            notes = plain.fault(), plain.activation.differs()
            assert note == "; ".join(filter(None, notes))
            assert all(same(plain, exact, z, y, mask) for mask in ordinary)
        elif note is None:
            assert all(same(plain, exact, 9 * z, y, mask) for mask in ordinary)
        elif plain.fault():  # what its activation changes has tests of its own
            fractional = MASKS["[n]"]
            odd = [(z, y, None), (9 * z, y, None), (z, y, fractional)]
            odd += [(99 * z, y, None), (-9 - z.abs(), y, None)]
            odd += [(z, 2 * y, None)] if y.is_floating_point() else []
            assert not all(same(plain, exact, *inputs) for inputs in odd)

    @pytest.mark.parametrize("exact", [False, True])
    def test_softmax_sees_differences_only(self, case: str, exact: bool) -> None:
        if "softmax" not in case:
            return
        loss = make(case, dl4j_exact=exact)
        z, y = data(case, torch.float32)
        z = (8 * z).round() / 8
        far = z + 2**20  # exactly
        assert torch.equal(loss(far, y), loss(z, y))
        assert torch.equal(gradient(loss, far, y), gradient(loss, z, y))
        by_formula = torch.func.grad_and_value(loss)
        for ours, expected in zip(by_formula(far, y), by_formula(z, y), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("exact", [False, True])
    @pytest.mark.parametrize("copies", [1, 600])
    def test_what_is_masked_may_be_anything(
        self, case: str, copies: int, exact: bool, by: str
    ) -> None:
        loss = make(case, dl4j_exact=exact)
        z, y = (torch.cat([t] * copies) for t in data(case))
        some = torch.tensor([1.0, 1, 0, 0.5, 0]).repeat(copies)
        each = some.unsqueeze(1).expand(z.shape).clone()
        each[1::N, 1:3] = 0
        for m in (some, each) if loss.output_masks else (some,):
            gone = m == 0 if m.ndim == 2 else (m == 0).unsqueeze(1).expand(z.shape)
            rows = gone.all(1, keepdim=True).expand(z.shape)
            apart = "softmax" not in case and not loss.coupled
            labels_apart = not loss.coupled and not (exact and "wass" in case)
            for junk in (math.nan, math.inf):
                bad_z = z.masked_fill(gone if apart else rows, junk)
                if y.is_floating_point() and y.shape == z.shape:
                    bad_y = y.masked_fill(gone if labels_apart else rows, -junk)
                else:
                    flat = rows[:, 0] if y.ndim == 1 else rows[:, : y.shape[1]]
                    bad_y = y.masked_fill(flat, junk if y.is_floating_point() else -100)
                assert torch.equal(loss(bad_z, bad_y, m), loss(z, y, m))
                slope = gradient(loss, bad_z, bad_y, m)
                assert torch.equal(slope, gradient(loss, z, y, m))
                assert not slope[rows].any()
                if loss.additive:
                    each_score = loss.per_example(bad_z, bad_y, m)
                    assert torch.equal(each_score, loss.per_example(z, y, m))

    def test_half_batches_do_not_overflow(self, case: str) -> None:
        z, y = (torch.cat([t] * 8000) for t in data(case))
        loss, half = make(case), (4 * z).half().requires_grad_()
        wide = half.detach().float().requires_grad_()
        mean, right = loss(half, y), loss(wide, y)
        assert mean.dtype == torch.float16
        torch.testing.assert_close(mean.float(), right, rtol=1e-3, atol=1e-3)
        total = loss.score(half, y, average=False)
        right = loss.score(wide, y, average=False)
        torch.testing.assert_close(total, right)
        (slope,), (expected,) = (
            torch.autograd.grad(*pair) for pair in ((total, half), (right, wide))
        )
        torch.testing.assert_close(slope.float(), expected, rtol=1e-3, atol=1e-3)

    def test_labels_and_masks_of_any_dtype(self, case: str) -> None:
        loss = make(case)
        z, _ = data(case)
        y = data(case)[1].round().long()
        for kind in (torch.int32, torch.uint8, torch.float32):
            assert torch.equal(loss(z, y.to(kind)), loss(z, y.double()))
        m = MASKS["[n]"].ceil()
        assert torch.equal(loss(z, y, m.bool()), loss(z, y, m.double()))


def same(plain: Loss, exact: Loss, z: Tensor, y: Tensor, mask: Tensor | None) -> bool:
    pairs = [(f(z, y, mask), gradient(f, z, y, mask)) for f in (plain, exact)]
    if plain.additive:
        pairs = [
            (*pair, f.per_example(z, y, mask))
            for pair, f in zip(pairs, (plain, exact), strict=True)
        ]
    close = {"rtol": 1e-10, "atol": 1e-12}
    return all(torch.allclose(a, b, **close) for a, b in zip(*pairs, strict=True))


class TestMasksAndWeights:
    def test_fractional_output_masks_enter_dl4j_gradients_twice(self) -> None:
        z, y, m = torch.randn(3, 2), torch.rand(3, 2), torch.rand(3, 2)
        plain, exact = (
            losses.get("mse", "sigmoid", dl4j_exact=e) for e in (False, True)
        )
        torch.testing.assert_close(plain(z, y, m), exact(z, y, m))
        slope = gradient(plain, z, y, m)
        torch.testing.assert_close(gradient(exact, z, y, m), m * slope)
        assert "masks" in plain.shared_difference

    @pytest.mark.parametrize("key", OWN)
    def test_weights_are_refused_where_dl4j_has_none(self, key: str) -> None:
        args = {"gaussians": 1, "labels": 1} if "mix" in key else {}
        if "weights" in parameters(LOSSES[key]):
            assert losses.get(key, weights=WEIGHTS).weights == tuple(WEIGHTS)
        else:
            with pytest.raises(
                ValueError, match="has no weights in DL4J, got weights="
            ):
                losses.get(key, weights=WEIGHTS, **args)


class TestItems:
    """What only one loss does."""

    def test_saturated_xent_keeps_its_gradient(self) -> None:
        z = torch.tensor([[-40.0, 40.0, 500.0]], dtype=torch.float64)
        y = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
        loss = losses.get("xent", "sigmoid")
        torch.testing.assert_close(loss(z, y), torch.tensor(80.0, dtype=torch.float64))
        slope = torch.tensor([[-1.0, 1.0, 0.0]], dtype=torch.float64)
        torch.testing.assert_close(gradient(loss, z, y), slope)
        exact = losses.get("xent", "sigmoid", dl4j_exact=True)
        capped = torch.tensor(-2 * math.log(1e-5) - math.log1p(-1e-5)).double()
        torch.testing.assert_close(exact(z, y), capped)

    def test_mcxent_of_labels_that_do_not_sum_to_one(self) -> None:
        z, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])
        assert gradient(losses.get("mcxent", "softmax"), z, y).tolist() == [[0, 0]]
        exact = losses.get("mcxent", "softmax", dl4j_exact=True)
        assert gradient(exact, z, y).tolist() == [[-0.5, -0.5]]

    @pytest.mark.parametrize("exact", [False, True])
    @pytest.mark.parametrize("key", ["mcxent", "poisson"])
    def test_zero_labels_need_no_logarithm(self, key: str, exact: bool) -> None:
        a, y = torch.tensor([[0.0, -1.0, 0.5]]), torch.tensor([[0.0, 0.0, 1.0]])
        loss = losses.get(key, dl4j_exact=exact)
        linear = a.sum() if key == "poisson" else 0.0
        torch.testing.assert_close(loss(a, y), linear - torch.tensor(0.5).log())
        slope = torch.tensor([[0.0, 0.0, -2.0]]) + (key == "poisson")
        assert torch.equal(gradient(loss, a, y), slope)

    def test_rankings_far_apart(self) -> None:
        loss = losses.get("multi_label")
        z = torch.tensor([[200.0, 190.0, 0.0, 0.0, 0.0, 0.0]])
        y = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
        expected = torch.tensor(math.exp(-10) / 5)
        torch.testing.assert_close(loss(z, y), expected)
        slope = gradient(loss, z, y)[0, :3] / expected
        torch.testing.assert_close(slope, torch.tensor([-1.0, 1.0, 0.0]))

    def test_mae_per_example(self) -> None:
        z, y = torch.zeros(1, 4), torch.ones(1, 4)
        assert losses.get("mae").per_example(z, y) == 1
        exact = losses.get("mae", dl4j_exact=True)
        assert exact.per_example(z, y) == 4 and exact(z, y) == 1

    def test_fmeasure_has_no_scores_per_example(self) -> None:
        loss = losses.get("fmeasure", beta=2)
        with pytest.raises(NotImplementedError, match="one number of the whole batch"):
            loss.per_example(torch.ones(2, 1), torch.ones(2, 1))
        assert loss(torch.zeros(2, 1), torch.zeros(2, 1)) == 0

    def test_sparse_labels(self) -> None:
        loss = losses.get("sparse_mcxent", "softmax")
        z = torch.randn(2, 3)
        expected = F.cross_entropy(z, torch.tensor([2, 0]))
        for labels in (torch.tensor([2, 0]), torch.tensor([[2.0], [0.0]])):
            torch.testing.assert_close(loss(z, labels), expected)
        for wrong in ([3, 0], [-1, 0], [1.5, 0]):
            with pytest.raises(ValueError, match=f"0 … 2, got {wrong[0]}"):
                loss(z, torch.tensor(wrong))

    def test_mixture_density_does_not_underflow(self) -> None:
        loss = losses.get("mixture_density", gaussians=2, labels=1)
        z = torch.zeros(1, 6)
        far = loss(z, torch.tensor([[100.0]]))
        torch.testing.assert_close(far, torch.tensor(5000 + math.log(2 * math.pi) / 2))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([case for case in CASES if "weights" not in case]),
    st.lists(st.booleans(), min_size=N, max_size=N),
    st.permutations(range(N)),
)
def test_sums_over_examples(case: str, keep: list[bool], order: list[int]) -> None:
    loss = make(case)
    z, y = data(case)
    chosen = torch.tensor(keep)
    left_out = loss.score(z, y, chosen, average=False)
    rest = loss.score(z[chosen], y[chosen], average=False)
    torch.testing.assert_close(left_out, rest, rtol=1e-12, atol=1e-14)
    permuted = loss(z[order], y[order])
    torch.testing.assert_close(permuted, loss(z, y), rtol=1e-12, atol=1e-14)
    if loss.additive:
        parts = loss.per_example(z, y).sum() / N
        torch.testing.assert_close(parts, loss(z, y), rtol=1e-12, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([case for case in CASES if "weights" in case]), st.floats(-3, 3))
def test_weights_are_linear(case: str, factor: float) -> None:
    key, link, _ = CASES[case]
    z, y = data(case)
    plain = losses.get(key, link)(z, y)
    ones = losses.get(key, link, weights=[1.0] * K)(z, y)
    torch.testing.assert_close(ones, plain, rtol=1e-14, atol=0)
    scaled = losses.get(key, link, weights=[factor] * K)(z, y)
    torch.testing.assert_close(scaled, factor * plain, rtol=1e-12, atol=1e-14)
