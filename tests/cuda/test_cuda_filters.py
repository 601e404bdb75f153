"""The filters of `nconv.ndimage` on arrays of a GPU, in the simulator."""

import numpy as np
import pytest

import nconv
from nconv import ndimage

rng = np.random.default_rng(0)
IMAGE = rng.standard_normal((6, 7))
WHOLE = (IMAGE * 9).astype("i2")
FILTERS = {
    "gaussian_filter": lambda f, x: f(x, 0.6, mode="wrap"), "gaussian_filter1d": lambda f, x: f(x, 0.6, 0, order=1),
    "uniform_filter": lambda f, x: f(x, 3), "uniform_filter1d": lambda f, x: f(x, 3, origin=1),
    "sobel": lambda f, x: f(x, 0), "prewitt": lambda f, x: f(x), "laplace": lambda f, x: f(x),
    "gaussian_laplace": lambda f, x: f(x, 0.5), "gaussian_gradient_magnitude": lambda f, x: f(x, 0.5),
    "generic_laplace": lambda f, x: f(x, ndimage.prewitt),
    "generic_gradient_magnitude": lambda f, x: f(x, ndimage.sobel),
}


def compare(result, expected):
    result = result.copy_to_host()
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 if expected.dtype.kind == "f" else 0)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_run_where_the_image_is(name):
    from numba import cuda

    assert set(FILTERS) == set(ndimage.__all__) - {"convolve", "convolve1d", "correlate", "correlate1d"}
    function = getattr(ndimage, name)
    for x in (IMAGE.astype("f4"), WHOLE):
        compare(FILTERS[name](function, cuda.to_device(x)), FILTERS[name](function, x))


def test_filters_of_float16():
    from numba import cuda

    x = IMAGE.astype("f2")
    for function in (ndimage.laplace, lambda a: ndimage.gaussian_gradient_magnitude(a, 0.5)):
        result, expected = function(cuda.to_device(x)).copy_to_host(), function(x)
        assert result.dtype == np.float16
        np.testing.assert_allclose(result, expected.astype("f4"), rtol=4e-3, atol=4e-3)


def test_filters_of_complex_and_unsigned_images():
    from numba import cuda

    for function, x in ((lambda a: ndimage.gaussian_gradient_magnitude(a, 0.5), IMAGE + 1j * IMAGE[::-1]),
                        (ndimage.sobel, WHOLE.astype("u8")), (ndimage.laplace, WHOLE.astype("u8"))):
        result, expected = function(cuda.to_device(x)).copy_to_host(), function(x)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 if x.dtype.kind == "c" else 0)


def test_filters_fill_the_callers_array():
    from numba import cuda

    x, out = cuda.to_device(WHOLE), cuda.to_device(np.zeros(IMAGE.shape))
    assert ndimage.laplace(x, out) is out
    compare(out, ndimage.laplace(WHOLE, "f8"))
    assert ndimage.gaussian_filter(x, 0, output=out) is out                # nothing to do along any axis
    compare(out, WHOLE.astype("f8"))
    compare(ndimage.uniform_filter(x, 1), WHOLE)
    with pytest.raises(nconv.DeviceError, match="output on the host"):
        ndimage.sobel(x, output=np.zeros(IMAGE.shape))


def test_integers_go_through_no_transform():
    from numba import cuda

    arrays = [cuda.to_device(a) for a in (WHOLE, WHOLE[:2, :3].copy())]
    assert nconv.choose_conv_method(*arrays) == "direct"
    assert nconv.choose_conv_method(*arrays, measure=True) == ("direct", {})
    compare(nconv.fftconvolve(*arrays), nconv.fftconvolve(WHOLE, WHOLE[:2, :3]))       # as float64, as SciPy does


@pytest.mark.parametrize("dtype", ["u8", "i8", "u1", "?"])
def test_floats_become_integers_as_scipy_has_it(dtype):
    from numba import cuda

    x = np.array([-3.7, -0.5, 0.0, 2.9, 200.0, 2.0**53, 2.0**63 if dtype == "u8" else 5.0])
    one = np.ones(1)
    compare(ndimage.correlate1d(cuda.to_device(x), cuda.to_device(one), output=dtype),
            ndimage.correlate1d(x, one, output=dtype))


def test_empty_arrays_stay_on_the_device():
    from numba import cuda

    image, none = cuda.to_device(IMAGE), cuda.to_device(np.zeros((0, 3)))
    result = nconv.fftconvolve(image, none)
    assert type(result) is type(image) and result.shape == nconv.fftconvolve(IMAGE, np.zeros((0, 3))).shape
    result = nconv.ndimage.correlate1d(none, cuda.to_device(np.ones(3)), 1)
    assert type(result) is type(image) and result.shape == (0, 3)
