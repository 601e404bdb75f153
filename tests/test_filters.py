"""Filters of nconv.ndimage against SciPy's: names, arguments, dtypes, modes; and the choice of one call or several."""

import inspect

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

import nconv
from nconv.ndimage import passes

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((13, 11))
VOLUME = RNG.standard_normal((6, 7, 9))
PIXELS = RNG.integers(0, 256, (12, 14)).astype(np.uint8)
MODES = ["reflect", "grid-mirror", "constant", "grid-constant", "nearest", "mirror", "wrap", "grid-wrap"]
CALLS = [
    ("gaussian_filter1d", (1.3,), {}), ("gaussian_filter1d", (1.3,), {"axis": 0, "order": 1}),
    ("gaussian_filter1d", (0.7,), {"order": 3, "truncate": 6.0}), ("gaussian_filter1d", (2,), {"radius": 3}),
    ("gaussian_filter", (1.3,), {}), ("gaussian_filter", ((0.8, 1.7),), {"order": (0, 1)}),
    ("gaussian_filter", ((1.1, 0),), {}), ("gaussian_filter", (1.1,), {"axes": 0, "radius": 2}),
    ("gaussian_filter", (2.0,), {"radius": (1, 4), "mode": ("wrap", "nearest")}),
    ("uniform_filter1d", (5,), {}), ("uniform_filter1d", (4,), {"axis": 0, "origin": -1}),
    ("uniform_filter", (3,), {}), ("uniform_filter", ((4, 5),), {"origin": (1, -2)}), ("uniform_filter", ((1, 3),), {}),
    ("sobel", (), {}), ("sobel", (0,), {}), ("prewitt", (), {}), ("prewitt", (0,), {"mode": ("mirror", "wrap")}),
    ("laplace", (), {}), ("laplace", (), {"axes": (1,)}), ("gaussian_laplace", (1.2,), {}),
    ("gaussian_laplace", ((0.9,),), {"axes": (1,), "truncate": 3.0}), ("gaussian_gradient_magnitude", (1.2,), {}),
]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(CALLS)]


def both(name, *args, **kwargs):
    return getattr(nconv.ndimage, name)(*args, **kwargs), getattr(scipy.ndimage, name)(*args, **kwargs)


def agree(mine, theirs, tolerance=1e-12):
    assert mine.dtype == theirs.dtype
    assert mine.shape == theirs.shape
    if mine.dtype.kind in "iub":
        np.testing.assert_array_equal(mine, theirs)
    else:
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [n for n in nconv.ndimage.__all__ if "volve" not in n and "late" not in n])
def test_arguments_are_scipys(name):
    mine = inspect.signature(getattr(nconv.ndimage, name)).parameters
    theirs = inspect.signature(getattr(scipy.ndimage, name)).parameters
    assert list(mine) == list(theirs)
    for parameter in mine:
        assert mine[parameter].default == theirs[parameter].default, parameter
        assert mine[parameter].kind == theirs[parameter].kind, parameter


@pytest.mark.parametrize(("name", "args", "kwargs"), CALLS, ids=IDS)
def test_floats(name, args, kwargs):
    agree(*both(name, IMAGE, *args, **kwargs))


@pytest.mark.parametrize(("name", "args", "kwargs"), CALLS, ids=IDS)
def test_integers_are_truncated_axis_by_axis(name, args, kwargs):
    agree(*both(name, PIXELS, *args, **kwargs))
    agree(*both(name, PIXELS, *args, **kwargs, output=np.float64))
    agree(*both(name, IMAGE * 100, *args, **kwargs, output=np.int32))


@pytest.mark.parametrize("mode", MODES)
def test_modes_with_a_constant_outside(mode):
    for name, args in (("gaussian_filter", (1.0, 1)), ("gaussian_filter", (1.0,)), ("uniform_filter", (4,)),
                       ("sobel", ()), ("laplace", ())):
        agree(*both(name, IMAGE, *args, mode=mode, cval=2.5))


def test_single_precision_stays_single():
    for name, args in (("gaussian_filter", (1.5,)), ("uniform_filter", (5,)), ("sobel", ()),
                       ("gaussian_laplace", (1,))):
        agree(*both(name, VOLUME.astype("f4"), *args), 3e-6)
    agree(*both("gaussian_filter", VOLUME.astype("f4"), 1.5, output=np.float64))


def test_complex_numbers():
    z = VOLUME + 1j * VOLUME[::-1]
    agree(*both("gaussian_filter", z, 1.1))
    agree(*both("uniform_filter", z, 3))


def test_output_arrays_take_the_result():
    out = np.empty_like(IMAGE)
    assert nconv.ndimage.gaussian_filter(IMAGE, 1.0, output=out) is out
    np.testing.assert_allclose(out, scipy.ndimage.gaussian_filter(IMAGE, 1.0), rtol=1e-12)
    mine = IMAGE.copy()
    nconv.ndimage.uniform_filter(mine, 3, output=mine)          # in place
    np.testing.assert_allclose(mine, scipy.ndimage.uniform_filter(IMAGE, 3), rtol=1e-10)


def test_the_input_is_never_handed_back():
    for result in (nconv.ndimage.gaussian_filter(IMAGE, 0), nconv.ndimage.uniform_filter(IMAGE, 1)):
        assert not np.shares_memory(result, IMAGE)
        np.testing.assert_array_equal(result, IMAGE)


def test_generic_filters_call_the_derivative_as_scipy_does():
    def derivative(x, axis, output, mode, cval, factor, shift=0):
        return scipy.ndimage.correlate1d(x, [-factor, shift, factor], axis, output, mode, cval)

    for name in ("generic_laplace", "generic_gradient_magnitude"):
        agree(*both(name, IMAGE, derivative, extra_arguments=(2,), extra_keywords={"shift": 1}))
        agree(*both(name, IMAGE, derivative, extra_arguments=(2,), axes=(0,), mode="wrap"))


def test_one_nan_spoils_its_window_only():
    x = VOLUME.copy()
    x[3, 3, 4] = np.nan
    assert int(np.isnan(nconv.ndimage.uniform_filter(x, 3)).sum()) == 27
    assert int(np.isnan(nconv.ndimage.gaussian_filter(x, 1.0, radius=1)).sum()) == 27


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_windows_are_summed_in_pairs(axis):
    rng = np.random.default_rng(0)
    ones, constant, x = np.ones((9, 8)), np.full((9, 8), 0.1), rng.standard_normal((9, 8))
    for taps in 3, 9, 21:
        half = rng.random(taps // 2)
        even, odd = np.r_[half, 0.3, half[::-1]], np.r_[half, 0, -half[::-1]]
        for weights, sign in (even, 1), (odd, -1):
            assert nconv.plan(nconv.ndimage.correlate1d, x, weights, axis).method == "small"
            mine, theirs = both("correlate1d", ones, weights, axis)
            np.testing.assert_array_equal(mine, theirs)              # others' tests count on what SciPy makes of ones
            mirrored = nconv.ndimage.correlate1d(np.flip(x, axis), weights, axis)
            np.testing.assert_array_equal(np.flip(mirrored, axis), sign * nconv.ndimage.correlate1d(x, weights, axis))
        assert not nconv.ndimage.correlate1d(constant, odd, axis).any()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_mirrored_windows_that_are_not_finite(value):
    x, weights = np.array([2.0, 5.0, -1.0, -2.0, 0.0]), np.array([value, 1.0, value])
    small, direct = (nconv.convolve(x, weights, method=method) for method in ("small", "direct"))
    np.testing.assert_array_equal(small, direct)


def test_one_call_serves_all_axes_where_that_is_cheaper(monkeypatch):
    """Either way the result is the same; a window too large to be made is never made."""
    expected = scipy.ndimage.gaussian_filter(VOLUME, 1.0)
    for together in (True, False):
        monkeypatch.setattr(passes, "_together", lambda *_, together=together: together)
        np.testing.assert_allclose(nconv.ndimage.gaussian_filter(VOLUME, 1.0), expected, rtol=1e-12, atol=1e-13)
    monkeypatch.undo()
    assert not passes._together((50, 50, 50), np.dtype("f8"), np.dtype("f8"), (0, 1, 2), (99, 99, 99),
                                 ("reflect",) * 3, np.dtype("f8"))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.data())
def test_drawn_calls(shape, data):
    x = np.random.default_rng(1).standard_normal(shape)
    each = lambda strategy: [data.draw(strategy) for _ in shape]                       # noqa: E731
    mode, order = each(st.sampled_from(MODES)), each(st.integers(0, 2))
    sigma = each(st.sampled_from([0, 0.6, 1.0, 2.5]))
    agree(*both("gaussian_filter", x, sigma, order, mode=mode), 1e-11)
    agree(*both("uniform_filter", x, each(st.integers(1, 6)), mode=mode), 1e-11)


@pytest.mark.parametrize(("name", "args", "kwargs", "words"), [
    ("gaussian_filter", (-1,), {}, "sigma must be above 0: sigma=-1"),
    ("gaussian_filter1d", (0,), {}, "sigma must be above 0: sigma=0"),
    ("gaussian_filter", (1,), {"order": -1}, "order must be an integer of at least 0: order=-1"),
    ("gaussian_filter", (1,), {"radius": 1.5}, "radius must be an integer of at least 0: radius=1.5"),
    ("gaussian_filter", ((1, 2, 3),), {}, "sigma must be one value or one for each of 2 axes"),
    ("gaussian_filter", (1,), {"axes": (0, 0)}, "axes must be unique"),
    ("uniform_filter", (0,), {}, "size must be an integer of at least 1: size=0"),
    ("uniform_filter1d", (3,), {"origin": 2}, "origin must lie within the window"),
    ("sobel", (2,), {}, "axis must lie within the 2 dimensions of input: axis=2"),
    ("laplace", (), {"mode": "round"}, "unknown mode: mode='round'"),
])
def test_errors(name, args, kwargs, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
        getattr(nconv.ndimage, name)(IMAGE, *args, **kwargs)
