"""Windows that are outer products: recognised by value, run where it pays, exact where sums are exact."""

from functools import reduce

import numpy as np
import pytest
import scipy.signal

import nconv
from nconv import choice
from nconv.factors import outer_factors

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((300, 310))
ROW, COLUMN = RNG.standard_normal(15), RNG.standard_normal(13)


def outer(*vectors):
    return reduce(np.multiply.outer, vectors)


def method(x, w, **kwargs):
    return nconv.plan(nconv.convolve, x, w, mode="same", **kwargs).method


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_factors_give_the_window_back(dtype):
    vectors = [RNG.standard_normal(n) * scale for n, scale in ((5, 1e-3), (1, 1), (7, 1e4))]
    if np.dtype(dtype).kind == "c":
        vectors = [v * np.exp(1j * np.arange(len(v))) for v in vectors]
    window = outer(*vectors).astype(dtype)
    found = outer_factors(window)
    np.testing.assert_allclose(outer(*found), window, rtol=8 * np.finfo(dtype).eps)
    assert all(np.abs(v).sum() <= 1 for v in found[:-1])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_gaussian_by_its_formula_is_a_product(dtype):
    for radius, sigma in ((3, 0.6), (10, 2.0), (40, 9.0)):
        r = np.arange(-radius, radius + 1)
        square = sum(np.meshgrid(*[r.astype(dtype) ** 2] * 2))
        window = np.exp(-square / np.dtype(dtype).type(2 * sigma**2))
        assert outer_factors(window / window.sum()) is not None


@pytest.mark.parametrize("window", [
    RNG.standard_normal((5, 5)), np.eye(4), np.array([[1.0, np.nan]]), np.array([[np.inf, 1.0], [1.0, 1.0]]),
    outer(ROW, ROW) + 1e-9 * np.eye(15), np.array([[1, 2], [2, 5]]), np.array([[0, 2], [3, 4]]),
], ids=lambda w: f"{w.dtype}-{w.shape}")
def test_what_is_no_product(window):
    assert outer_factors(window) is None


def test_integers_are_exact_products():
    for vectors in (([2, 4], [3, -9, 6]), ([1, 2, 1], [-1, 0, 1]), ([5], [7, 7]), ([0, 0], [1, 2])):
        window = outer(*map(np.array, vectors))
        np.testing.assert_array_equal(outer(*outer_factors(window)), window)


def test_a_plan_says_so(cheap_passes):
    w = outer(ROW, COLUMN)
    plan = nconv.plan(nconv.convolve, IMAGE, w, mode="same")
    assert plan.method == "separable"
    assert "*separable" in str(plan).replace("* ", "*")
    np.testing.assert_allclose(plan(IMAGE), scipy.signal.convolve(IMAGE, w, "same", "direct"), atol=1e-11)


def test_only_values_tell(cheap_passes):
    w = outer(ROW, COLUMN)
    assert method(IMAGE, w) == "separable"
    for other in (RNG.standard_normal(w.shape), nconv.ArraySpec(w.shape, "f8")):
        plan = nconv.plan(nconv.convolve, IMAGE, other, mode="same")
        assert plan.method != "separable"
        assert "not known to be an outer product" in next(c.refused for c in plan.candidates if c.name == "separable")
    with pytest.raises(ValueError, match="method='separable' does not support this problem: the weight is not known"):
        nconv.convolve(IMAGE, RNG.standard_normal(w.shape), method="separable")
    with nconv.set_error_limit(1):
        assert method(IMAGE, w) != "separable"


def test_nobody_looks_where_nothing_is_to_gain(monkeypatch):
    monkeypatch.setattr(choice, "outer_factors", lambda _: pytest.fail("looked at the values"))
    nconv.convolve(RNG.standard_normal(5000), ROW)                       # one axis
    nconv.convolve(RNG.standard_normal((8, 8)), outer([1.0, 2.0], [1.0, 3.0]))
    nconv.convolve(IMAGE, outer(ROW, COLUMN), method="direct")


@pytest.mark.parametrize(("x", "w"), [("i4", "i4"), ("u1", "i2"), ("i8", "i8"), ("?", "?")])
def test_integers_agree_to_the_last_bit(x, w):
    image = RNG.integers(0, 200, (40, 50)).astype(x)
    window = outer(np.array([1, 2, 3, 2, 1]), np.array([1, 0, 1, 4, 1, 1])).astype(w)
    mine = nconv.convolve(image, window, method="separable")
    theirs = nconv.convolve(image, window, method="direct")
    assert mine.dtype == theirs.dtype
    np.testing.assert_array_equal(mine, theirs)


def test_each_channel_its_own_product():
    x, w = RNG.standard_normal((2, 5, 60, 70)), np.stack([outer(RNG.standard_normal(9), RNG.standard_normal(11))
                                                          for _ in range(5)])[:, np.newaxis]
    mine = nconv.conv2d(x, w, groups=5, padding=4, method="separable")
    np.testing.assert_allclose(mine, nconv.conv2d(x, w, groups=5, padding=4, method="direct"), atol=1e-11)
    w[3, 0, 2, 2] += 1
    with pytest.raises(ValueError, match="not known to be an outer product"):
        nconv.conv2d(x, w, groups=5, padding=4, method="separable")


def test_large_values_do_not_overflow_between_the_passes():
    x = np.full((20, 20), 1e300)
    w = outer(np.full(5, 1e5), np.full(7, 1e-8))
    mine = nconv.convolve(x, w, "valid", method="separable")
    np.testing.assert_allclose(mine, 1e300 * w.sum(), rtol=1e-14)
