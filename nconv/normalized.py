"""Convolution over gaps: NaN and masked samples take no part, and the others' weights are brought back to full sum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import engine, registry
from .lowering import as_array, check_device, check_word, lower, on_gpu
from .ndimage import convolve
from .problem import ArraySpec

_BOUNDARIES = {"fill": "constant", "wrap": "wrap", "extend": "nearest", "constant": "constant", "nearest": "nearest",
               "reflect": "reflect", "symm": "reflect", "mirror": "mirror"}
_ZERO_SUM = 1e-8               # a kernel whose sum is closer to zero cannot be normalised
_LITTLE = 1e4                  # eps: windows with less than this of the weight are summed directly


def normalized_convolve(x: ArrayLike, h: ArrayLike, *, mask: ArrayLike | None = None, boundary: str | None = "fill",
                        fill_value: float = 0.0, normalize_kernel: bool = True,
                        preserve_nan: bool = False) -> NDArray:
    """Convolve an image with gaps: each output is the mean, by the kernel's weights, of the samples that are there.

    ``y[p] = sum of h[t] x[p - t + n // 2] / sum of h[t]``, both over the t where the sample is neither NaN nor masked.
    Without gaps this is the convolution with the kernel divided by its sum.

    Parameters
    ----------
    x : array_like
        Real or complex, of any number of dimensions. NaN marks what is missing.
    h : array_like
        The kernel, with as many dimensions as x and an odd size along each.
    mask : array_like, optional
        True where x is missing, of the shape of x.
    boundary : {'fill', 'wrap', 'extend', None} or a mode of `nconv.ndimage.correlate`
        Beyond the edges: `fill_value`, the other end, the edge itself; None gives 0 where the kernel reaches beyond.
        'reflect' (also 'symm') and 'mirror' as in `nconv.ndimage.correlate`.
    fill_value : float, default 0.0
        What lies beyond the edges under 'fill'; it counts as a sample, unless it is NaN.
    normalize_kernel : bool, default True
        Divide the kernel by its sum. Otherwise the weights that are left are brought back to the kernel's own sum.
    preserve_nan : bool, default False
        Let what was NaN in x stay NaN.

    Returns
    -------
    ndarray
        Of the shape of x, float64 for integers, else of the dtype to which NumPy promotes x and h. NaN where no sample
        is in the window. Without gaps it takes one convolution, else two.

    Raises
    ------
    ValueError
        For a kernel of another number of dimensions, of an even size, not finite or with a sum near zero (where it must
        be normalised), a mask of another shape, or an unknown boundary.
    TypeError
        For objects, strings and dates.

    Notes
    -----
    The meaning is that of `astropy.convolution.convolve` with ``nan_treatment='interpolate'``.

    Arrays of a GPU are computed there, and the result is of their kind. The host waits once, for the values of h, of
    which the errors speak; it never looks at x, so gaps are always looked for, and a kernel with a sum near zero that
    is not to be normalised gives NaN beside them instead of an error.

    References
    ----------
    .. [1] Knutsson, Westin 1993, Normalized and Differential Convolution.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> nconv.normalized_convolve([1.0, np.nan, 3.0, 6.0], [1.0, 1.0, 1.0])
    array([0.5, 2. , 4.5, 3. ])
    >>> nconv.normalized_convolve([1.0, 5.0, 3.0, 6.0], [1.0, 2.0, 1.0], mask=[0, 1, 0, 0], boundary="extend")
    array([1. , 2. , 4. , 5.25])
    """
    device = check_device(None, x=x, h=h, mask=mask)
    image, kernel = as_array(x, "x"), as_array(h, "h")
    if isinstance(image, ArraySpec) or isinstance(kernel, ArraySpec):
        raise TypeError("x and h must be arrays, not an ArraySpec")
    if image.ndim != kernel.ndim or image.ndim == 0:
        raise ValueError(f"h must have as many dimensions as x, at least one: x.ndim={image.ndim}, "
                         f"h.ndim={kernel.ndim}")
    if any(n % 2 == 0 for n in kernel.shape):
        raise ValueError(f"h must have an odd size along every axis: h.shape={kernel.shape}")
    if on_gpu(kernel):
        kernel = registry.arrays(device).to_host(kernel)
    if kernel.dtype.kind in "fc" and not np.isfinite(kernel).all():
        raise ValueError("h must be finite: it has NaN or infinity")
    mode = "constant" if boundary is None else _BOUNDARIES[check_word(boundary, "boundary", tuple(_BOUNDARIES))]
    fill = 0.0 if boundary is None else float(fill_value)
    dtype = np.result_type(image.dtype, kernel.dtype, np.float32 if image.dtype.kind in "fc" else np.float64)
    result_dtype = np.result_type(image.dtype, kernel.dtype) if image.dtype.kind in "fc" else dtype
    image, kernel = image.astype(dtype, copy=False), kernel.astype(dtype)
    if device == "cuda":
        y = _there(image, kernel, mask, mode, fill, normalize_kernel, preserve_nan)
        _clear_edges(y, kernel.shape if boundary is None else ())
        return registry.arrays(device).deliver(y.astype(result_dtype, copy=False), image)

    nan = np.isnan(image)
    lost = nan | _mask(mask, image.shape) if mask is not None else nan
    gaps = bool(lost.any())
    outside = mode == "constant" and np.isnan(fill)      # what lies beyond the edges is missing too
    total = kernel.sum()
    if normalize_kernel or gaps or outside:
        _check_sum(total)
        kernel /= total
    if gaps or outside:
        y = _means(np.where(lost, 0, image).astype(dtype, copy=False) if gaps else image, ~lost, kernel, mode, fill)
        if not normalize_kernel:
            y *= total
    else:
        y = convolve(image, kernel, dtype, mode, fill)
    _clear_edges(y, kernel.shape if boundary is None else ())
    if preserve_nan:
        y[nan] = np.nan
    return y.astype(result_dtype, copy=False)


def _check_sum(total: Any) -> None:
    if abs(total) < _ZERO_SUM:
        raise ValueError(f"h cannot be normalised, its sum is near zero: h.sum()={total}")


def _clear_edges(y: Any, taps: tuple[int, ...]) -> None:
    """0 where a kernel of so many taps reaches beyond an edge."""
    for axis, n in enumerate(taps):
        count, before = y.shape[axis], (slice(None),) * axis
        y[(*before, slice(None, n // 2))] = 0
        y[(*before, slice(count - min(n // 2, count), None))] = 0


def _there(image: Any, kernel: np.ndarray, mask: Any, mode: str, fill: float, normalize: bool, preserve: bool) -> Any:
    """The same on a GPU, for a kernel that is not yet normalised."""
    from .cuda import gaps

    arrays = registry.arrays("cuda")
    mask = None if mask is None else _mask(mask, image.shape)
    total = kernel.sum()
    if normalize or (mode == "constant" and np.isnan(fill)):
        _check_sum(total)
    samples, there = gaps.split(image, mask)
    little = _LITTLE * np.finfo(kernel.dtype).eps
    if not normalize and abs(total) < max(_ZERO_SUM, little * np.abs(kernel).sum()):
        # No means, which rounding would drown; 0 / 0 puts NaN into the windows with gaps.
        return as_array(convolve(samples / there, arrays.beside(kernel, image), kernel.dtype, mode, fill), "y")
    taps = arrays.beside(kernel / total, image)
    outside = 0.0 if np.isnan(fill) else 1.0
    fill = fill if outside else 0.0
    call = lower(convolve, samples, taps, kernel.dtype, mode, fill)
    sums, weights = (as_array(y, "y") for y in (
        engine.execute(call), convolve(there, taps, kernel.dtype, mode, outside)))
    weight = call.route.weigh(kernel / total)
    return gaps.means(call.route.problem, weight, (sums, weights, samples, there), little, 1 if normalize else total,
                      outside, fill, image.copy() if preserve else None)


def _mask(mask: Any, shape: tuple[int, ...]) -> Any:
    mask = as_array(mask, "mask")
    if mask.shape != shape:
        raise ValueError(f"mask must have the shape of x: mask.shape={mask.shape}, x.shape={shape}")
    return mask.astype("?")


def _means(x: np.ndarray, there: np.ndarray, h: np.ndarray, mode: str, fill: float) -> np.ndarray:
    """Sums of weighted samples over sums of their weights; h has unit sum."""
    outside = 0.0 if np.isnan(fill) else 1.0
    there = there.astype(np.zeros(0, h.dtype).real.dtype)
    pairs = [(x, fill if outside else 0.0), (there, outside)]
    sums, weights = (convolve(array, h, h.dtype, mode, beyond) for array, beyond in pairs)
    # A transform rounds beside the largest weights: where little is left, or nothing, sums must be direct.
    if (np.abs(weights) < _LITTLE * np.finfo(h.dtype).eps).any():
        sums, weights = (engine.execute(replace(lower(convolve, array, h, h.dtype, mode, beyond), method="direct"))
                         for array, beyond in pairs)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weights == 0, np.nan, sums / weights).astype(h.dtype, copy=False)
