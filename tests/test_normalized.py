"""Convolution over gaps against astropy's, and against the definition in more dimensions than astropy takes."""

import warnings
from itertools import product

import astropy.convolution as astropy
import numpy as np
import pytest

import nconv

RNG = np.random.default_rng(0)


def theirs(x, h, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                  # of NaN that remain where no sample is in the window
        return astropy.convolve(x, h, nan_treatment="interpolate", **kwargs)


def agree(mine, expected, tolerance=1e-12):
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(expected))
    np.testing.assert_allclose(mine, expected, rtol=tolerance, atol=tolerance)


def gappy(shape, share=0.2):
    x = RNG.standard_normal(shape)
    x[RNG.random(shape) < share] = np.nan
    return x


@pytest.mark.parametrize("boundary", ["fill", "wrap", "extend", None])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("shape", "kernel"), [((31,), (5,)), ((14, 17), (3, 7)), ((8, 9, 7), (3, 5, 3))])
def test_astropys_meaning(shape, kernel, normalize, boundary):
    h = RNG.random(kernel) + 0.1
    for x, preserve in product((gappy(shape), RNG.standard_normal(shape), gappy(shape, 0.9)), (True, False)):
        kwargs = dict(boundary=boundary, normalize_kernel=normalize, preserve_nan=preserve, fill_value=1.5)
        agree(nconv.normalized_convolve(x, h, **kwargs), theirs(x, h, **kwargs))


# The cases of astropy's own tests (test_convolve.py): the arrays there, asked of both.
@pytest.mark.parametrize("boundary", ["fill", "wrap", "extend", None])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("preserve", [True, False])
@pytest.mark.parametrize(("x", "h"), [
    ([1.0, 4.0, 5.0, 6.0, 5.0, 7.0, 8.0], [0.2, 0.6, 0.2]), ([1.0, 0.0, 3.0], [0.0]), ([1.0, 0.0, 3.0], [1.0]),
    ([1.0, 0.0, 3.0], [0.0, 1.0, 0.0]), ([1.0, 0.0, 3.0], [1.0, 1.0, 1.0]), ([1.0, np.nan, 3.0], [0.0, 1.0, 0.0]),
    ([1.0, np.nan, 3.0], [1.0, 1.0, 1.0]), ([np.nan] * 3, [1.0, 1.0, 1.0]), ([1, 2, 3], [1, 2, 1]),
    ([[0.0, 0.0, 3.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], np.ones((3, 3))),
    ([[0.0, np.nan, 3.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], np.ones((3, 3))),
    ([[0.0, np.nan, 3.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], np.eye(3)[::-1]),
    (np.where(np.arange(27).reshape(3, 3, 3) == 4, np.nan, np.arange(27.0).reshape(3, 3, 3)), np.ones((3, 3, 3))),
], ids=str)
def test_astropys_own_cases(x, h, boundary, normalize, preserve):
    kwargs = dict(boundary=boundary, normalize_kernel=normalize, preserve_nan=preserve)
    if not np.any(h) and (normalize or np.isnan(x).any()):
        for function in (nconv.normalized_convolve, theirs):
            with pytest.raises(ValueError, match="can(not|'t) be normali[sz]ed"):
                function(x, h, **kwargs)
        return
    agree(nconv.normalized_convolve(x, h, **kwargs), theirs(np.asarray(x), np.asarray(h), **kwargs))


def test_masks_and_infinite_samples():
    x, mask, h = gappy((15, 12)), RNG.random((15, 12)) < 0.2, np.ones((3, 3))
    agree(nconv.normalized_convolve(x, h, mask=mask), theirs(x, h, mask=mask))
    x[4, 5] = np.inf
    agree(nconv.normalized_convolve(x, h), theirs(x, h))
    full = np.nan_to_num(x, posinf=3)
    agree(nconv.normalized_convolve(full, h, mask=mask), theirs(full, h, mask=mask))
    agree(nconv.normalized_convolve(full, h, mask=mask, preserve_nan=True),       # a mask is no NaN of x
          theirs(full, h, mask=mask, preserve_nan=False))


def test_nothing_beyond_the_edges():
    x = gappy((20,))
    agree(nconv.normalized_convolve(x, np.ones(5), fill_value=np.nan), theirs(x, np.ones(5), fill_value=np.nan))
    x = np.arange(6.0)
    np.testing.assert_allclose(nconv.normalized_convolve(x, [1, 1, 1], fill_value=np.nan), [0.5, 1, 2, 3, 4, 4.5])


def test_holes_as_large_as_the_window_through_a_transform():
    """The transform's rounding must not pass for weight where no sample is, nor drown the little that there is."""
    x = RNG.standard_normal(4_000)
    x[1_000:2_600] = np.nan
    h = np.exp(-np.linspace(-6, 6, 1001) ** 2)
    assert nconv.plan(nconv.ndimage.convolve, x, h).method == "fft"
    agree(nconv.normalized_convolve(x, h), theirs(x, h), 1e-9)
    agree(nconv.normalized_convolve(np.nan_to_num(x), h), theirs(np.nan_to_num(x), h), 1e-12)


@pytest.mark.parametrize("mode", ["reflect", "mirror", "symm", "nearest", "constant"])
def test_more_boundaries_in_four_dimensions(mode):
    x, h = gappy((4, 5, 3, 6)), RNG.random((3, 1, 3, 3))
    modes = {"reflect": "symmetric", "symm": "symmetric", "mirror": "reflect", "nearest": "edge",
             "constant": "constant"}
    padded = np.pad(x, [(n // 2, n // 2) for n in h.shape], mode=modes[mode])
    windows = np.lib.stride_tricks.sliding_window_view(padded, h.shape)
    weights = np.where(np.isnan(windows), 0, np.flip(h))
    expected = (np.nan_to_num(windows) * weights).sum((4, 5, 6, 7)) / weights.sum((4, 5, 6, 7))
    agree(nconv.normalized_convolve(x, h, boundary=mode), expected)


def test_dtypes():
    x, h = gappy((30,)), np.array([1.0, 2.0, 1.0])
    single = nconv.normalized_convolve(x.astype("f4"), h.astype("f4"))
    assert single.dtype == np.float32
    agree(single, theirs(x, h), 1e-5)
    half = nconv.normalized_convolve(x.astype("f2"), h.astype("f2"))
    assert half.dtype == np.float16
    assert nconv.normalized_convolve([1, 2, 3], [1, 1, 1]).dtype == np.float64
    z = nconv.normalized_convolve(x + 2j * x, h)
    agree(z.imag, 2 * z.real)


def test_the_inputs_stay_as_they_are():
    x, h = gappy((30,)), np.ones(3)
    before = x.copy()
    nconv.normalized_convolve(x, h, preserve_nan=True)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(h, 1)


@pytest.mark.parametrize(("h", "kwargs", "words"), [
    (np.ones((3, 3)), {}, "h must have as many dimensions as x"), (np.ones(4), {}, "h must have an odd size"),
    ([1, np.nan, 1], {}, "h must be finite"), ([1, -2, 1], {}, "h cannot be normalised, its sum is near zero"),
    (np.ones(3), {"boundary": "round"}, "unknown boundary"),
    (np.ones(3), {"mask": [True]}, r"mask must have the shape of x: mask.shape=\(1,\), x.shape=\(9,\)"),
])
def test_errors(h, kwargs, words):
    with pytest.raises(ValueError, match=words):
        nconv.normalized_convolve(np.ones(9), h, **kwargs)
