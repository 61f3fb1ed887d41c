"""Every scheme and distribution: what it draws, repeats and refuses."""

from __future__ import annotations

import copy
import functools
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from dl4py import weight_init
from dl4py.registry import DISTRIBUTIONS, WEIGHT_INITS, parameters
from tests.references import weight_init as reference

SHAPE = (300, 200)
FANS = (170.0, 410.0)  # neither of the axes: a scheme must look at the right one
ARGUMENTS = {
    "value": 0.3,
    "distribution": weight_init.UniformDistribution(-0.5, 0.25),
    "mean": 0.1,
    "std": 0.5,
    "lower": -0.3,
    "upper": 0.8,
    "number_of_trials": 7,
    "probability_of_success": 0.3,
    "gain": 1.3,
}


def arguments(item):
    return {k: ARGUMENTS[k] for k in parameters(item) if k in ARGUMENTS}


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def assert_drawn_from(sample, law):
    """Moments, bounds and shape of 60,000 draws or more."""
    x = sample.double().numpy().ravel()
    n = x.size
    assert n >= 60_000
    assert x.mean() == pytest.approx(law.mean(), abs=5 * law.std() / math.sqrt(n))
    assert x.std() == pytest.approx(law.std(), rel=0.015)
    low, high = law.support()
    if math.isfinite(low) and math.isfinite(high):
        assert low <= x.min() and x.max() <= high
        assert x.max() - x.min() > 0.999 * (high - low)
    if hasattr(law.dist, "pdf"):
        assert stats.kstest(x, law.cdf).pvalue > 1e-3
    else:
        seen = np.array([(x == k).mean() for k in np.arange(low, high + 1)])
        np.testing.assert_allclose(seen, law.pmf(np.arange(low, high + 1)), atol=0.01)


@pytest.mark.parametrize("name", list(WEIGHT_INITS))
class TestWeightInit:
    @pytest.fixture
    def init(self, name):
        return weight_init.get(name, **arguments(WEIGHT_INITS[name]))

    @pytest.fixture
    def shape(self, name):
        return (250, 250) if name == "identity" else SHAPE

    def test_draws_the_law(self, name, init):
        law = getattr(reference, name, None)
        if law is None:
            pytest.skip("not random, or with a test of its own below")
        tensor = torch.empty(SHAPE, dtype=torch.float64)
        assert init(tensor, *FANS, generator=seeded()) is tensor
        assert_drawn_from(tensor, law(*FANS, SHAPE))

    def test_draws_the_law_of_a_convolution(self, name, init):
        law = getattr(reference, name, None)
        if law is None:
            pytest.skip("not random, or with a test of its own below")
        shape = (60, 50, 5, 4)
        tensor = init(torch.empty(shape), *FANS, generator=seeded())
        assert_drawn_from(tensor, law(*FANS, shape))

    def test_scale(self, name):
        item = WEIGHT_INITS[name]
        if "scale" not in parameters(item) or name == "identity":
            pytest.skip("takes no scale")
        law = getattr(reference, name)(*FANS, SHAPE, scale=2.5)
        init = weight_init.get(name, scale=2.5)
        assert_drawn_from(init(torch.empty(SHAPE), *FANS, generator=seeded()), law)

    def test_generator_decides(self, init, shape):
        def draw(seed):
            return init(torch.empty(shape), *FANS, generator=seeded(seed))

        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = draw(1)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(first, draw(1))
        random = first.unique().numel() > 2
        assert torch.equal(first, draw(2)) != random

    @pytest.mark.parametrize(
        "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    )
    def test_dtypes_and_strides(self, init, shape, dtype):
        base = torch.full((shape[1], 2 * shape[0]), math.nan, dtype=dtype)
        view = base.t()[::2]
        init(view, *FANS)
        assert view.dtype == dtype and view.isfinite().all()
        assert base.isnan().sum() == view.numel()

    def test_parameters_of_modules(self, init, shape):
        weight = torch.nn.Parameter(torch.empty(shape))
        assert init(weight, *FANS) is weight
        assert weight.requires_grad and weight.grad_fn is None

    def test_is_plain_data(self, name, init):
        for twin in (pickle.loads(pickle.dumps(init)), copy.deepcopy(init)):
            assert twin == init and hash(twin) == hash(init)
        assert eval(repr(init), vars(weight_init)) == init
        assert weight_init.get(init) is init
        assert weight_init.get(name.upper(), **arguments(WEIGHT_INITS[name])) == init

    @pytest.mark.parametrize("fans", [(0, 1), (1, -2), (math.nan, 1), (1, math.inf)])
    def test_refuses_fans(self, init, shape, fans):
        tensor = torch.zeros(shape)
        with pytest.raises(ValueError, match="fan_(in|out) must be a number > 0"):
            init(tensor, *fans)
        assert not tensor.any()

    @pytest.mark.parametrize("bad", [torch.zeros(2, 2, dtype=torch.int64), None, [1.0]])
    def test_refuses_tensors(self, init, bad):
        with pytest.raises(TypeError, match="fills floating-point tensors, got"):
            init(bad, 1, 1)


@pytest.mark.parametrize("name", list(DISTRIBUTIONS))
class TestDistribution:
    def test_draws_the_law(self, name):
        distribution = DISTRIBUTIONS[name](**arguments(DISTRIBUTIONS[name]))
        law = reference.DISTRIBUTIONS.get(name)
        if law is None:
            pytest.skip("with a test of its own below")
        for dtype in (torch.float64, torch.float32):
            tensor = torch.empty(SHAPE, dtype=dtype)
            assert distribution.sample_(tensor, seeded(3)) is tensor
            assert_drawn_from(tensor, law(**arguments(DISTRIBUTIONS[name])))

    def test_as_weight_init(self, name):
        distribution = DISTRIBUTIONS[name](**arguments(DISTRIBUTIONS[name]))
        init = weight_init.get(distribution)
        assert init == weight_init.get("distribution", distribution=distribution)
        drawn = init(torch.empty(4, 3), 1, 1, generator=seeded())
        assert torch.equal(drawn, distribution.sample_(torch.empty(4, 3), seeded()))

    @pytest.mark.parametrize("bad", [math.nan, math.inf, "1", None, True])
    def test_refuses(self, name, bad):
        item = DISTRIBUTIONS[name]
        for argument in arguments(item):
            with pytest.raises(ValueError, match=rf"\({argument}=...\) must be .* got"):
                item(**{**arguments(item), argument: bad})


class TestItems:
    @pytest.mark.parametrize("name, value", [("zero", 0.0), ("ones", 1.0)])
    def test_constants(self, name, value):
        init = weight_init.get(name)
        assert init == weight_init.Constant(value)
        assert (init(torch.empty(3, 2), 2, 3) == value).all()

    def test_identity_of_a_matrix(self):
        out = weight_init.Identity(2.0)(torch.full((3, 3), 7.0), 3, 3)
        assert torch.equal(out, 2 * torch.eye(3))

    @pytest.mark.parametrize("kernel", [(3,), (3, 5), (1, 3, 3)])
    def test_identity_of_a_convolution(self, kernel):
        weight = weight_init.Identity()(torch.full((4, 4, *kernel), 7.0), 4, 4)
        conv = [None, torch.conv1d, torch.conv2d, torch.conv3d][len(kernel)]
        x = torch.randn(2, 4, *(k + 3 for k in kernel), generator=seeded())
        pad = [k // 2 for k in kernel]
        assert torch.equal(conv(x, weight, padding=pad), x)

    @pytest.mark.parametrize("shape", [(3, 4), (4, 4, 2), (2, 4, 3, 3), (3,)])
    def test_identity_refuses(self, shape):
        with pytest.raises(ValueError, match="IDENTITY needs a square matrix"):
            weight_init.Identity()(torch.empty(shape), 1, 1)

    @pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50), (3, 4, 5, 2)])
    def test_orthogonal(self, shape):
        draw = weight_init.OrthogonalDistribution(1.5).sample_
        tensor = draw(torch.empty(shape, dtype=torch.float64), seeded())
        q = tensor.reshape(-1, shape[-1]) / 1.5
        small = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
        torch.testing.assert_close(small, torch.eye(len(small), dtype=q.dtype))

    def test_orthogonal_refuses_vectors(self):
        with pytest.raises(ValueError, match="at least 2 axes"):
            weight_init.OrthogonalDistribution().sample_(torch.empty(3))

    @pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0)])
    def test_uniform_refuses_bounds(self, bounds):
        with pytest.raises(ValueError, match="lower must be less than"):
            weight_init.UniformDistribution(*bounds)

    def test_ranges(self):
        with pytest.raises(ValueError, match=r"value=...\) must be a finite number"):
            weight_init.Constant(10**400)
        with pytest.raises(ValueError, match=r"std=...\) must be .* >= 0"):
            weight_init.NormalDistribution(0.0, -1.0)
        with pytest.raises(ValueError, match=r"probability_of_success=.* in \[0, 1\]"):
            weight_init.BinomialDistribution(3, 1.5)
        with pytest.raises(ValueError, match="number_of_trials=.* whole number >= 1"):
            weight_init.BinomialDistribution(2.5, 0.5)
        with pytest.raises(ValueError, match="scale=.* >= 0"):
            weight_init.get("var_scaling_normal_fan_in", scale=-1)

    def test_functions_of_the_tensor(self):
        torch_init = torch.nn.init.xavier_normal_
        ours = weight_init.get(torch_init)(torch.empty(4, 3), 9, 9, generator=seeded())
        assert torch.equal(ours, torch_init(torch.empty(4, 3), generator=seeded()))
        half = functools.partial(torch.nn.init.constant_, val=0.5)
        assert (weight_init.get(half)(torch.empty(2), 1, 1) == 0.5).all()
        fresh = weight_init.get(lambda t: torch.ones_like(t) * 3)
        assert (fresh(torch.empty(2), 1, 1) == 3).all()

    def test_functions_of_the_fans(self):
        def by_fans(tensor, fan_in, fan_out, generator=None):
            return tensor.fill_(fan_in / fan_out)

        assert weight_init.get(by_fans) is by_fans
        assert isinstance(weight_init.get(weight_init.Xavier), weight_init.Xavier)

    @pytest.mark.parametrize(
        "make, message",
        [
            (lambda: weight_init.get("xavior"), "did you mean 'xavier'"),
            (lambda: weight_init.get("constant", valu=1), "did you mean 'value'"),
            (lambda: weight_init.get(torch.nn.init.ones_, value=1), "need a name"),
            (lambda: weight_init.get(0.5), "expected a weight init"),
            (lambda: weight_init.get("distribution", distribution=1), "Normal"),
        ],
    )
    def test_errors_name_the_way_out(self, make, message):
        with pytest.raises((TypeError, ValueError), match=message):
            make()
