"""The kernels' own exp, log and kin against mpmath and float64."""

from __future__ import annotations

import pathlib

import mpmath
import numpy as np
import pytest

from tests.ops.test_library import has_compiler
from tests.ulp import CHUNK, FUNCTIONS, Probe, chunks, error, floats

pytestmark = pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler")
ISAS = ["default", "x86-64-v3", "x86-64-v4"]


def runs(isa: str) -> bool:
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    need = {"default": "sse2", "x86-64-v3": "avx2", "x86-64-v4": "avx512vl"}
    return need[isa] in flags


@pytest.fixture(scope="module", params=ISAS)
def probe(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Probe:
    if not runs(request.param):
        pytest.skip(f"this processor is not {request.param}")
    return Probe(tmp_path_factory.mktemp("probe"), request.param)


@pytest.mark.parametrize("name", FUNCTIONS)
class TestBounds:
    def test_floats(self, probe: Probe, name: str) -> None:
        f = FUNCTIONS[name]
        rng = np.random.default_rng(1)
        parts = [floats(f, k + rng.integers(900), k + CHUNK, 900) for k in chunks()]
        x = np.concatenate(parts)
        assert error(f, x, probe(name, x)).max() <= f.bound

    def test_ends(self, probe: Probe, name: str) -> None:
        f = FUNCTIONS[name]
        some = [0, 1e-45, 1e-40, 1.17549435e-38, 1e-30, 1, 88.72283, 88.72284, 88.8]
        some += [87.33654, 87.33655, 103.97, 104.0, 150, 3e38, np.inf, np.nan]
        x = np.array(some + [-v for v in some], dtype=np.float32)
        x = x[~((x < f.low) | (x > f.up))]
        assert error(f, x, probe(name, x)).max() <= f.bound

    def test_doubles(self, probe: Probe, name: str) -> None:
        f = FUNCTIONS[name]
        rng = np.random.default_rng(2)
        x = np.concatenate(
            [
                rng.normal(size=150),
                rng.normal(size=150) * 30,
                rng.normal(size=150) * 10.0 ** rng.uniform(-300, 3, 150),
                [0.0, 5e-324, 1e-310, 709.7, 709.79, -708.3, -745.0, -746.0, 1e300],
                np.array([np.inf, -np.inf, np.nan]),
            ]
        )
        x = np.concatenate([x, 1 + rng.normal(size=50) * 1e-3])
        x = x[~((x < f.low) | (x > f.up))]
        with mpmath.workprec(2200):
            scope = vars(mpmath)
            for v, y in zip(x.tolist(), probe(name, x).tolist(), strict=True):
                if not np.isfinite(v) or v == 0 or (name == "log" and v < 0):
                    continue  # as for floats
                exact = eval(f.high, scope, {"x": mpmath.mpf(v)})
                if y == 0 and abs(exact) < f.flushes * np.finfo(np.float64).tiny:
                    continue
                if exact > np.finfo(np.float64).max:
                    assert y == np.inf
                    continue
                _, exponent = mpmath.frexp(exact)
                unit = mpmath.ldexp(1, max(int(exponent) - 53, -1074))
                assert abs(y - exact) <= f.bound * unit, (v, y)

    def test_special_doubles(self, probe: Probe, name: str) -> None:
        f = FUNCTIONS[name]
        x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])
        x = x[~((x < f.low) | (x > f.up))]
        with np.errstate(all="ignore"):
            expected = f.exact(x)
        np.testing.assert_array_equal(probe(name, x), expected)
