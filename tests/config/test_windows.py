"""Windows of any rank against walking over the cells."""

import itertools

import pytest

from dl4py.config import ConfigurationError
from dl4py.config.windows import Window

MODES = ("Truncate", "Same", "Causal")


def starts(size, kernel, stride, padding, dilation, mode):
    """(cells before, cells after, first cell of every window), by trying each."""
    spread = (kernel - 1) * dilation + 1
    if mode == "Truncate":
        before = after = padding
    else:
        count = len(range(0, size, stride))
        total = max(0, (count - 1) * stride + spread - size)
        before = spread - 1 if mode == "Causal" else total // 2
        after = 0 if mode == "Causal" else total - before
    cells = range(-before, size + after)
    first = [i for i in cells[::stride] if i + spread - 1 <= cells[-1]]
    return before, after, first


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_sizes_and_margins(rank, mode):
    if mode == "Causal" and rank > 1:
        pytest.skip("time has one axis")
    options = list(itertools.product((5, 8), (1, 2, 3), (1, 2), (0, 1), (1, 2)))
    for i in range(0, len(options) - rank, rank):
        axes = options[i : i + rank]
        sizes, kernel, stride, padding, dilation = zip(*axes, strict=True)
        window = Window(kernel, stride, padding, dilation, mode)
        walked = [starts(*axis, mode) for axis in axes]
        assert window.sizes(sizes) == tuple(len(first) for *_, first in walked)
        assert window.margins(sizes) == tuple((b, a) for b, a, _ in walked)


def test_strict_refuses_a_remainder():
    window = Window((2, 3, 2), (2, 1, 2), (0, 0, 0), (1, 1, 1), "Strict")
    assert window.sizes((4, 5, 6)) == (2, 3, 3)
    with pytest.raises(ConfigurationError, match=r"\(5 \+ 2·0 - 2\) / 2; use"):
        window.sizes((4, 5, 5))


def test_windows_that_do_not_fit():
    with pytest.raises(ConfigurationError, match="window of 7 does not fit an input"):
        Window((4,), (1,), (0,), (2,)).sizes((5,))
    with pytest.raises(ConfigurationError, match="Causal is for one-dimensional"):
        Window((2, 2), (1, 1), (0, 0), (1, 1), "Causal").check()
