"""The oracle itself, against answers worked by hand, NumPy and SciPy."""

import numpy as np
import pytest
import reference
import scipy.ndimage
import scipy.signal

from nconv.problem import ConvProblem


def problem(size, kernel, **changes):
    rank = len(size)
    return ConvProblem(**{
        "N": 1, "groups": 1, "C": 1, "K": 1, "size": size, "kernel": kernel, "stride": (1,) * rank,
        "dilation": (1,) * rank, "padding": ((0, 0),) * rank, "dtype": np.dtype("f8"), **changes})


def test_by_hand():
    x, w = np.array([1.0, 2, 3, 4]).reshape(1, 1, 4), np.array([1.0, 10]).reshape(1, 1, 2)
    assert reference.convolution(problem((4,), (2,)), x, w).ravel().tolist() == [21, 32, 43]
    assert reference.convolution(problem((4,), (2,), dilation=(2,)), x, w).ravel().tolist() == [31, 42]
    assert reference.convolution(problem((4,), (2,), stride=(2,)), x, w).ravel().tolist() == [21, 43]
    assert reference.convolution(problem((4,), (2,), padding=((1, 0),), fill=5), x, w).ravel().tolist() == [
        15, 21, 32, 43]
    up = problem((2,), (2,), upsample=(3,), padding=((1, 1),))
    assert reference.convolution(up, x[..., :2], w).ravel().tolist() == [10, 1, 0, 20, 2]


def test_numpy_and_scipy():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(9), rng.standard_normal(4)
    mine = reference.convolution(problem((9,), (4,), padding=((3, 3),)), x.reshape(1, 1, -1), w[::-1].reshape(1, 1, -1))
    np.testing.assert_allclose(mine.ravel(), np.convolve(x, w))
    x, w = rng.standard_normal((5, 6)), rng.standard_normal((2, 3))
    mine = reference.convolution(problem((5, 6), (2, 3), padding=((1, 1), (2, 2))), x[None, None], w[None, None])
    np.testing.assert_allclose(mine[0, 0], scipy.signal.correlate2d(x, w))


@pytest.mark.parametrize(("mode", "theirs"), [
    ("symmetric", "reflect"), ("reflect", "mirror"), ("edge", "nearest"), ("wrap", "grid-wrap"),
    ("constant", "constant")])
def test_boundaries(mode, theirs):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(4), rng.standard_normal(9)
    mine = reference.convolution(problem((4,), (9,), padding=((4, 4),), boundary=(mode,), fill=3.0),
                                 x.reshape(1, 1, -1), w.reshape(1, 1, -1))
    np.testing.assert_allclose(mine.ravel(), scipy.ndimage.correlate1d(x, w, mode=theirs, cval=3.0))
