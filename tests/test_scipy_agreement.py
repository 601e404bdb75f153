"""Where SciPy's rules are easily missed: types, scalars, empty inputs, single elements, truncation, odd arguments."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

import nconv

DTYPES = ["?", "i1", "u2", "i4", "u8", "i8", "f4", "f8", "c8", "c16", ">i2", ">f4"]
SCALARS = [(3, 4), (True, False), (np.float32(2), 3), (1j, 2 - 3j), (np.float16(3), np.float16(2))]
SINGLES = [([3], [4]), ([[3]], [[4, 5, 6]]), ([True], [True, False]), ([[1], [2]], [[3, 4]])]
FUNCTIONS = ["convolve", "correlate", "fftconvolve", "oaconvolve"]


def same(result, expected, tolerance=0.0):
    assert type(result) is type(expected)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("second", DTYPES)
@pytest.mark.parametrize("first", DTYPES)
def test_result_types(first, second):
    a, b = np.array([3, 1, 2, 1]).astype(first), np.array([1, 2, 3]).astype(second)
    tolerance = 1e-5 if np.result_type(a, b).char in "fF" else 1e-12
    same(nconv.convolve(a, b), scipy.signal.convolve(a, b, method="direct"), tolerance)
    same(nconv.correlate(a, b), scipy.signal.correlate(a, b, method="direct"), tolerance)
    same(nconv.fftconvolve(a, b), scipy.signal.fftconvolve(a, b), 1e-5)     # SciPy transforms each in its own precision
    same(nconv.ndimage.correlate(a, b), scipy.ndimage.correlate(a, b), tolerance)
    same(nconv.ndimage.convolve1d(a, b), scipy.ndimage.convolve1d(a, b), tolerance)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("a", "b"), SCALARS)
def test_zero_dimensional_inputs_give_scalars(name, a, b):
    same(getattr(nconv, name)(a, b), getattr(scipy.signal, name)(a, b))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("a", "b"), SINGLES)
def test_single_elements_only_multiply(name, a, b):
    same(getattr(nconv, name)(a, b), getattr(scipy.signal, name)(a, b))


def outcome(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except ValueError:
        return None


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")     # SciPy's estimate of its FFT's cost
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("shapes", [((0,), (3,)), ((3,), (0,)), ((0,), (0,)), ((0, 3), (2, 2)), ((3, 3), (0, 3)),
                                    ((0, 3), (3, 3)), ((0, 3), (3, 0)), ((0, 3), (0, 3))], ids=str)
def test_empty_inputs(shapes, mode):
    a, b = map(np.ones, shapes)
    for name in ("convolve", "correlate", "fftconvolve", "oaconvolve", "convolve2d", "correlate2d"):
        result = outcome(getattr(nconv, name), a, b, mode)
        expected = outcome(getattr(scipy.signal, name), a, b, mode)
        assert (result is None) == (expected is None), name
        if expected is not None:
            same(result, expected)


@pytest.mark.parametrize(("shapes", "axes"), [(((1, 5), (3, 2)), None), (((1, 5), (3, 2)), 1), (((4, 5), (4, 2)), -1),
                                              (((4, 1), (1, 2)), 1), (((2, 1, 6), (2, 4, 3)), (2,))], ids=str)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_broadcast_axes_of_fftconvolve(shapes, axes, mode):
    rng = np.random.default_rng(1)
    a, b = map(rng.standard_normal, shapes)
    for name in ("fftconvolve", "oaconvolve"):
        same(getattr(nconv, name)(a, b, mode, axes), getattr(scipy.signal, name)(a, b, mode, axes), 1e-12)


def test_whole_results_survive_truncation():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (80, 90)).astype("u1")
    image[20:60, 20:60] = 255
    weights = np.full((32, 32), 1 / 1024)
    same(nconv.ndimage.convolve(image, weights), scipy.ndimage.convolve(image, weights))


def test_whole_number_weights_are_exact():
    image = np.array([0, 2**63 + 1, 7, 2**62 + 5], "u8")
    same(nconv.ndimage.correlate1d(image, [-1.0, 0.0, 1.0]), nconv.ndimage.correlate1d(image, [-1, 0, 1]))


def test_double_weights_keep_their_sum_on_float32_images():
    image = np.full((8, 8), 1e6, "f4")
    weights = np.full((3, 3), 1 / 9)
    same(nconv.ndimage.convolve(image, weights), scipy.ndimage.convolve(image, weights))


@pytest.mark.parametrize("axes", [(0, 2), (2, 0), (2, 1, 0)])
def test_origins_of_permuted_axes(axes):
    image = np.random.default_rng(3).standard_normal((5, 6, 7))
    weights = np.arange(1.0, 1 + 3 * 4 * 5)[:3 ** len(axes)].reshape((3,) * len(axes))
    origin = [1, -1, 0][:len(axes)]
    same(nconv.ndimage.correlate(image, weights, axes=axes, origin=origin),
         scipy.ndimage.correlate(image, weights, axes=axes, origin=origin), 1e-11)


@pytest.mark.parametrize("dtype", [">f4", ">i2", "u8", "?"])
def test_output_arrays_of_any_byte_order(dtype):
    result, expected = np.zeros(4, dtype), np.zeros(4, dtype)
    assert nconv.ndimage.correlate1d([1, 2, 3, 4], [1, 0, 1], output=result) is result
    scipy.ndimage.correlate1d([1, 2, 3, 4], [1, 0, 1], output=expected)
    same(result, expected)
