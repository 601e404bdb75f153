"""Winograd's and Fourier's tiles: exact algebra, bounded rounding, and the inputs that tiles cannot hold."""

import numpy as np
import pytest
import reference
from cases import operands
from numpy.lib.stride_tricks import sliding_window_view

import nconv
from nconv import engine, registry
from nconv.cpu import simd
from nconv.cpu.tiled import choice
from nconv.cpu.tiled.winograd import points
from nconv.cpu.tiled.winograd.passes import Lines, forward_pass, inverse_pass
from nconv.jit import kernel
from nconv.problem import ConvProblem

ALGORITHMS = {a.NAME: a for a in registry.algorithms("cpu")}
TILED = ["winograd", "winograd_large", "fft_tiles"]
TILES = [(n, m) for n in points.POINTS for m in range(2, n - 1)]


def layer(**changes):
    return ConvProblem(**{"N": 1, "groups": 1, "C": 16, "K": 16, "size": (26, 23), "kernel": (3, 3), "stride": (1, 1),
                          "dilation": (1, 1), "padding": ((1, 1), (1, 1)), "dtype": np.dtype("f4"), **changes})


@pytest.mark.parametrize("n, m", TILES)
def test_matrices_give_a_correlation(n, m):
    At, G, Bt = points.matrices(n, m)
    rng = np.random.default_rng(0)
    d, w = rng.standard_normal(n), rng.standard_normal(n - m + 1)
    np.testing.assert_allclose(At @ ((G @ w) * (Bt @ d)), np.correlate(d, w, "valid"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n, m", TILES)
def test_passes_multiply_by_the_matrices(n, m):
    At, _, Bt = points.matrices(n, m)
    lanes = simd.lanes("f8")
    source = np.random.default_rng(0).standard_normal((3, n, lanes))
    by = Lines(0, lanes, n * lanes, 0)
    target = np.full((3, n, lanes), np.nan)
    forward_into(n, target.reshape(-1), by, source.reshape(-1), by)
    np.testing.assert_allclose(target, Bt @ source, rtol=1e-12, atol=1e-12)
    sums = np.full((3, m, lanes), np.nan)
    inverse_into(n, m, sums.reshape(-1), Lines(0, lanes, m * lanes, 0), source.reshape(-1), by, np.ones(lanes))
    np.testing.assert_allclose(sums, 1 + At @ source, rtol=1e-12, atol=1e-12)


@kernel
def forward_into(n, target, to, source, by):
    """`forward_pass`, which only kernels call."""
    forward_pass(n, target, to, source, by, 3, 1)


@kernel
def inverse_into(n, m, target, to, source, by, start):
    """`inverse_pass`, whose vector `start` Python cannot hold."""
    inverse_pass(n, m, target, to, source, by, 3, 1, simd.vload(start, 0))


@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("kernel", [(3,), (3, 3), (5, 5), (3, 3, 3)], ids=str)
@pytest.mark.parametrize("channels", [16, 64])
@pytest.mark.parametrize("name, times", [("winograd", 16), ("winograd_large", 64), ("fft_tiles", 4), ("fft", 4)])
def test_rounding_is_bounded(name, times, channels, kernel, offset):
    """Against the largest error of float32 sums that NumPy's matrix product adds in its blocks, as PyTorch's do."""
    rank = len(kernel)
    problem = layer(C=channels, size=(500, 26, 12)[rank - 1:rank] * rank, kernel=kernel, stride=(1,) * rank,
                    dilation=(1,) * rank, padding=((0, 0),) * rank)
    x, weight, _ = operands(problem)
    x = x + np.float32(offset)
    windows = sliding_window_view(x[0], kernel, tuple(range(1, rank + 1)))
    patches = np.moveaxis(windows, 0, rank).reshape(problem.positions, -1)
    matrix = weight.reshape(problem.K, -1).T
    exact = patches.astype("f8") @ matrix
    theirs = np.abs(patches @ matrix - exact).max()
    out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight)
    ours = np.abs(out[0].reshape(problem.K, -1).T - exact).max()
    assert ours <= times * theirs
    assert ours <= 2 * ALGORITHMS[name].error(problem) * theirs


@pytest.mark.parametrize("name", TILED)
def test_values_near_the_largest_do_not_overflow(name):
    problem = layer(C=2, K=3)
    x, weight, bias = operands(problem)
    x[0, 0, 9, 9] = 1e37
    out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight, bias)
    expected = reference.convolution(problem, x, weight, bias)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    with np.errstate(over="ignore"):
        out = engine.run_algorithm(ALGORITHMS[name], problem, x * 0 + 1e-3, weight * np.float32(1e37), bias)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("name", TILED)
def test_a_loud_pixel_does_not_drown_its_neighbours(name):
    problem = layer(C=2, K=3)
    x, weight, _ = operands(problem)
    x[0, :, 12, 12] = 1e9
    out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight)
    expected = reference.convolution(problem, x, weight)
    quiet = np.abs(expected) < 1e3
    assert quiet.sum() > 0.9 * quiet.size
    np.testing.assert_allclose(out[quiet], expected[quiet], atol=1e-4)


@pytest.mark.parametrize("name", ["winograd", "fft_tiles"])
def test_only_windows_that_are_quiet_all_over_are_summed_directly(name, monkeypatch):
    """Quiet samples beside loud ones are no reason, in whichever row or column of a tile they lie."""
    problem = layer(C=2, K=3, size=(30, 28))
    x, weight, _ = operands(problem)
    summed = []
    monkeypatch.setattr(choice.im2col, "run", lambda *args: summed.append(args))
    speckled = x.copy()
    speckled[0, :, ::2, ::2] *= 1e-9
    engine.run_algorithm(ALGORITHMS[name], problem, speckled, weight)
    assert not summed
    for row, column in (0, 0), (25, 22), (13, 11), (5, 20):
        quiet = x.copy()
        quiet[0, :, row:row + 3, column:column + 3] *= 1e-9
        engine.run_algorithm(ALGORITHMS[name], problem, quiet, weight)
        assert len(summed) == 1, (row, column)
        summed.clear()


@pytest.mark.parametrize("name", ["winograd", "fft_tiles"])
def test_one_bad_image_leaves_the_others_alone(name):
    problem = layer(N=3, size=(9, 9))                    # all three images lie in one block
    x, weight, bias = operands(problem)
    clean = engine.run_algorithm(ALGORITHMS[name], problem, x, weight, bias)
    x[1, 3, 4, 4] = np.nan
    out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight, bias)
    np.testing.assert_array_equal(out[[0, 2]], clean[[0, 2]])
    spoiled = np.isnan(out[1])
    assert spoiled[:, 3:6, 3:6].all() and spoiled.sum() == 9 * problem.K


@pytest.mark.parametrize("name", ["winograd", "fft_tiles"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(name, value):
    problem = layer()
    x, weight, _ = operands(problem)
    weight[3, 2, 1, 0] = value
    out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight)
    assert np.isfinite(out[:, np.arange(16) != 3]).all()
    assert not np.isfinite(out[:, 3, :, 1:]).any()


def test_auto_takes_it_within_the_error_limit():
    x, weight = nconv.ArraySpec((1, 128, 56, 56)), nconv.ArraySpec((128, 128, 3, 3))

    def method(limit):
        with nconv.set_error_limit(limit):
            return nconv.plan(nconv.conv2d, x, weight, padding=1).method

    assert method(8) == "winograd"
    assert method(64) == "winograd_large"
    assert method(1) in ("direct", "im2col")
    assert nconv.plan(nconv.conv2d, x, weight, padding=1, stride=2).method in ("direct", "im2col")
