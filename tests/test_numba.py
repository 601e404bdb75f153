"""nconv inside a user's own compiled code; results against SciPy, NumPy and the oracle."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points

import numba
import numpy as np
import pytest
import reference
import scipy.signal
from numba.core.errors import TypingError

import nconv
from nconv.interop.numba import init

init()                                                  # for an installation made before the entry point was


@numba.njit
def convolve(x, h, mode):
    return nconv.convolve(x, h, mode)


@numba.njit
def correlate(x, h, mode):
    return nconv.correlate(x, h, mode)


@numba.njit
def convolve_by_fft(x, h):
    return nconv.convolve(x, h, method="fft")


def draw(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "biu":
        return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def agree(result, expected):
    expected = np.asarray(expected)
    assert result.dtype == expected.dtype and result.shape == expected.shape
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(result, expected)
    else:
        bound = 100 * np.finfo(expected.dtype).eps * max(np.abs(expected).max(), 1)
        np.testing.assert_allclose(result, expected, rtol=0, atol=bound)


def test_an_import_is_enough():
    point, = entry_points(group="numba_extensions", name="init", module="nconv.interop.numba")
    assert point.load() is init


LINES = ((1, 1), (3, 3), (2, 7), (200, 9), (9, 200), (130, 120), (64, 64))


@pytest.mark.parametrize("dtypes", [("f8", "f8"), ("c8", "f4"), ("i2", "u1")])     # int16 sums wrap around
def test_lines(dtypes):
    for n, k in LINES:
        x, h = draw(n, dtypes[0]), draw(k, dtypes[1], 1)
        for mode in ("full", "same", "valid"):
            agree(convolve(x, h, mode), scipy.signal.convolve(x, h, mode, "direct"))


def test_lines_correlated():
    for n, k in LINES:
        x, h = draw(n, "f4"), draw(k, "c8", 1)
        for mode in ("full", "same", "valid"):
            agree(correlate(x, h, mode), scipy.signal.correlate(x, h, mode, "direct"))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_lines_by_fft(dtype):
    for n, k in ((1, 1), (40, 7), (3000, 900), (5000, 31), (700, 700)):
        x, h = draw(n, dtype), draw(k, dtype, 1)
        agree(convolve_by_fft(x, h), np.convolve(x.astype("f8"), h.astype("f8")).astype(dtype))


def test_auto_takes_an_fft_where_it_pays_and_keeps_nan_in_its_window():
    x, h = draw(20_000, "f8"), draw(2_000, "f8", 1)
    expected = np.convolve(x, h)
    assert not np.array_equal(convolve(x, h, "full"), expected)        # direct sums come in the same order
    agree(convolve(x, h, "full"), expected)
    x[5000], x[9000] = np.nan, np.inf
    result = convolve(x, h, "full")
    spoilt = np.zeros(expected.size, bool)
    spoilt[5000:7000] = spoilt[9000:11_000] = True
    np.testing.assert_array_equal(~np.isfinite(result), spoilt)
    agree(result[~spoilt], expected[~spoilt])
    loud = np.concatenate([np.full(100, 1e15), draw(3_000, "f8")])
    quiet = convolve_by_fft(loud, h[:50])[200:]
    agree(quiet, np.convolve(loud, h[:50])[200:])


@pytest.mark.parametrize("shapes", [((13, 17), (3, 4)), ((5, 4), (9, 8)), ((3, 40), (4, 5))])
def test_images(shapes):
    x, h = draw(shapes[0], "f8"), draw(shapes[1], "f8", 1)
    for mode in ("full", "same"):
        agree(correlate(x, h, mode), scipy.signal.correlate(x, h, mode, "direct"))
    if all(n >= k for n, k in zip(*shapes, strict=True)):
        agree(correlate(h, x, "valid"), scipy.signal.correlate(h, x, "valid", "direct"))
    agree(convolve_by_fft(x, h), scipy.signal.convolve(x, h, "full", "direct"))


def test_volumes():
    x, h = draw((5, 6, 7), "f8"), draw((3, 2, 3), "f8", 1)
    for mode in ("full", "same", "valid"):
        agree(convolve(x, h, mode), scipy.signal.convolve(x, h, mode, "direct"))
    agree(convolve_by_fft(x, h), scipy.signal.convolve(x, h, "full", "direct"))


def test_an_infinite_tap_meets_no_zero_beyond_the_edges():
    x, h = np.ones((4, 5)), np.ones((3, 3))
    h[0, 0] = np.inf
    result = convolve(x, h, "full")
    assert not np.isnan(result).any()
    np.testing.assert_array_equal(np.isinf(result), scipy.signal.convolve(x, np.isinf(h) * 1.0, method="direct") > 0)


def test_odd_memory():
    x, h = draw((40, 3), "f8"), draw(7, "f8", 1)
    h.flags.writeable = False
    agree(convolve(x[:, 1], h, "same"), np.convolve(x[:, 1], h, "same"))
    image = np.asfortranarray(draw((20, 30), "f8"))
    agree(convolve(image[:, ::-2], x[:3], "full"), scipy.signal.convolve(image[:, ::-2], x[:3]))


# ------------------------------------------------------------------------------------------------------ Layers


@numba.njit
def conv2d(x, weight, bias, stride, padding, dilation, groups):
    return nconv.conv2d(x, weight, bias, stride, padding, dilation, groups)


@numba.njit
def conv1d_same(x, weight, stride):
    return nconv.conv1d(x, weight, stride=stride, padding="SAME")


@numba.njit
def conv3d(x, weight):
    return nconv.conv3d(x, weight, padding=((0, 1), (2, 0), (1, 1)))


def oracle(function, x, weight, *args, **kwargs):
    problem = nconv.plan(function, x, weight, *args, **kwargs).problem
    bias = args[0] if args else None
    return reference.convolution(problem, x.reshape(problem.x_shape), weight.reshape(problem.weight_shape), bias)


@pytest.mark.parametrize("channels", [(1, 1, 1), (6, 5, 1), (6, 9, 3), (4, 4, 4)])
def test_conv2d(channels):
    C, K, groups = channels
    x, weight, bias = draw((2, C, 9, 11), "f4"), draw((K, C // groups, 3, 2), "f4", 1), draw(K, "f4", 2)
    for stride, padding, dilation in (((1, 1), (0, 0), (1, 1)), ((2, 3), (1, 2), (1, 1)), ((1, 2), (4, 0), (2, 3))):
        result = conv2d(x, weight, bias, stride, padding, dilation, groups)
        agree(result, oracle(nconv.conv2d, x, weight, bias, stride, padding, dilation, groups).astype("f4"))


def test_other_layers():
    x, weight = draw((3, 20), "c16"), draw((2, 3, 4), "c16", 1)
    for stride in (1, 3):
        agree(conv1d_same(x, weight, stride), oracle(nconv.conv1d, x, weight, stride=stride, padding="same")[0])
    x, weight = draw((1, 2, 4, 5, 6), "f8"), draw((3, 2, 2, 3, 3), "f8", 1)
    agree(conv3d(x, weight), oracle(nconv.conv3d, x, weight, padding=((0, 1), (2, 0), (1, 1))))


# -------------------------------------------------------------------------------------- Threads, caches, errors


@numba.njit(parallel=True)
def rows_in_parallel(x, h):
    out = np.empty((x.shape[0], x.shape[1] + h.size - 1))
    for i in numba.prange(x.shape[0]):
        out[i] = nconv.convolve(x[i], h)
    return out


@numba.njit(nogil=True)
def without_the_interpreter(x, h):
    return nconv.convolve(x, h)


def test_threads():
    x, h = draw((16, 3_000), "f8"), draw(800, "f8", 1)
    expected = np.stack([np.convolve(row, h) for row in x])
    agree(rows_in_parallel(x, h), expected)
    with ThreadPoolExecutor(4) as pool:
        agree(np.stack(list(pool.map(without_the_interpreter, x, [h] * 16))), expected)


def test_the_users_cache(tmp_path):
    (tmp_path / "user.py").write_text(textwrap.dedent("""
        import numba, numpy as np, nconv
        from nconv.interop.numba import init
        init()

        @numba.njit(cache=True)
        def smooth(x, h):
            return nconv.convolve(x, h, "same", "direct")

        print(smooth(np.arange(4.0), np.array([1.0, 10.0])).tolist(), sum(smooth.stats.cache_hits.values()))
    """))
    for hits in (0, 1):
        done = subprocess.run([sys.executable, tmp_path / "user.py"], capture_output=True, text=True, timeout=240,
                              env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")})
        assert done.stdout == f"[0.0, 1.0, 12.0, 23.0] {hits}\n", done.stderr


x, h, layer = np.ones(4), np.ones(3), np.ones((2, 4, 4))


@pytest.mark.parametrize("call, words", [
    (lambda: nconv.convolve(x, h, "full", "im2col"), "unknown method: method='im2col'"),
    (lambda: nconv.convolve(x, layer), "same dimensionality: in1.ndim=1, in2.ndim=3"),
    (lambda: nconv.convolve(x, [1.0, 2.0]), "in2 must be an array, not"),
    (lambda: nconv.convolve(x, h, axes=0), "axes cannot be given inside compiled code: axes=0"),
    (lambda: nconv.conv2d(layer, h), "weight must have 4 dimensions: weight.ndim=1"),
    (lambda: nconv.conv1d(layer, layer, padding_mode="reflect"), "padding_mode='reflect', expected one of 'zeros'"),
    (lambda: nconv.conv1d(layer, layer, stride=1.5), "stride must be an integer"),
])
def test_refused_while_compiling(call, words):
    with pytest.raises(TypingError) as caught:
        numba.njit(call)()
    assert words in str(caught.value)


def test_refused_at_run_time():
    with pytest.raises(ValueError, match="unknown mode"):
        convolve(x, h, "half")
    with pytest.raises(ValueError, match="must not be empty"):
        convolve(x[:0], h, "full")
    with pytest.raises(ValueError, match="one input must be at least as large"):
        convolve(np.ones((3, 9)), np.ones((4, 4)), "valid")
    weight, bias = np.ones((4, 2, 3, 3), "f4"), np.ones(4, "f4")
    images = np.ones((1, 4, 5, 5), "f4")
    for arguments, words in (((3, (1, 1), (0, 0)), "groups must divide"), ((1, (1, 1), (0, 0)), "disagree on channels"),
                             ((2, (0, 1), (0, 0)), "stride and dilation"), ((2, (1, 1), (-1, 0)), "padding must not")):
        groups, stride, padding = arguments
        with pytest.raises(ValueError, match=words):
            conv2d(images, weight, bias, stride, padding, (1, 1), groups)
    with pytest.raises(ValueError, match="weight is larger than the padded input"):
        conv2d(images[..., :2], weight, bias, (1, 1), (0, 0), (1, 1), 2)
    with pytest.raises(ValueError, match="bias must have one entry"):
        conv2d(images, weight, bias[:3], (1, 1), (0, 0), (1, 1), 2)
