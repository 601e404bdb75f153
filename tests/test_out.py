"""Results that go into the caller's array: where it can be, straight from the kernels."""

import numpy as np
import pytest

import nconv
from nconv import shortcuts
from nconv.cpu import arrays

RNG = np.random.default_rng(0)
X, W, BIAS = RNG.standard_normal((2, 6, 13, 11)), RNG.standard_normal((8, 3, 3, 3)), RNG.standard_normal(8)
LAST = np.ascontiguousarray(np.moveaxis(X, 1, -1))
IMAGE, WINDOW = RNG.standard_normal((40, 37)), RNG.standard_normal((5, 4))
SIGNAL, TAPS = RNG.standard_normal(3000), RNG.standard_normal(70)
CALLS = {
    "layer": lambda **o: nconv.conv2d(X, W, BIAS, padding=1, groups=2, **o),
    "strided": lambda **o: nconv.conv2d(X, W, BIAS, stride=2, groups=2, **o),
    "channels last": lambda **o: nconv.conv2d(LAST, W, BIAS, padding=1, groups=2, layout="channels_last", **o),
    "transposed": lambda **o: nconv.conv_transpose2d(X, W[:6], stride=2, **o),
    "signal": lambda **o: nconv.convolve(SIGNAL, TAPS, "same", **o),
    "image": lambda **o: nconv.convolve(IMAGE, WINDOW, **o),
}
METHODS = ["direct", "im2col", "fft"]


@pytest.fixture
def lent(monkeypatch):
    """Whether each call's kernels wrote into the caller's memory, the long way or by a shortcut."""
    seen = []
    for module in (arrays, shortcuts):
        lend = module.lend
        monkeypatch.setattr(module, "lend", lambda *a, lend=lend: seen.append(lend(*a)) or seen[-1])
    return seen


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CALLS)
def test_kernels_write_into_out(name, method, lent):
    expected = CALLS[name](method=method)
    shortcuts.forget()
    for _ in range(3):
        out = np.full_like(expected, np.nan)
        assert CALLS[name](method=method, out=out) is out
        np.testing.assert_array_equal(out, expected)
        assert len(lent) == 1 and np.shares_memory(lent.pop(), out)


@pytest.mark.parametrize("method", METHODS)
def test_memory_that_lies_otherwise_gets_a_copy(method, lent):
    expected = nconv.convolve(IMAGE, WINDOW, method=method)
    for out in (np.empty_like(expected, order="F"), np.empty((2, *expected.shape))[:, ::-1][0]) * 2:
        nconv.convolve(IMAGE, WINDOW, method=method, out=out)
        np.testing.assert_array_equal(out, expected)
    assert lent == [None] * 4


@pytest.mark.parametrize("method", METHODS)
def test_out_may_be_an_input(method, lent):
    expected = nconv.convolve(SIGNAL, TAPS, "same", method=method)
    memory = np.zeros(SIGNAL.size + 5)
    x, out = memory[5:], memory[:-5]
    for _ in range(3):
        x[:] = SIGNAL
        nconv.convolve(x, TAPS, "same", method=method, out=out)
        np.testing.assert_array_equal(out, expected)
        assert lent.pop() is None
    w = RNG.standard_normal((4, 4, 3, 3))
    x = RNG.standard_normal((1, 4, 5, 5))
    expected = nconv.conv2d(x, w, method=method)
    nconv.conv2d(x, w, method=method, out=w.reshape(4, 4, 9)[:1, :, :].reshape(1, 4, 3, 3))
    np.testing.assert_array_equal(w[:1], expected)
    assert method != "im2col" or lent == [None]         # others are done with the weight by then


def test_a_plan_writes_into_out(lent):
    plan = nconv.plan(nconv.conv2d, X, W, padding=1, groups=2, method="direct")
    expected = plan(X)
    out = np.full_like(expected, np.nan)
    assert plan(X, out) is out
    np.testing.assert_array_equal(out, expected)
    assert np.shares_memory(lent[0], out)
    with pytest.raises(ValueError, match="wrong shape"):
        plan(X, out[:1])
