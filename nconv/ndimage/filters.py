"""scipy.ndimage's smoothing and derivative filters: sequences of one-dimensional windows, one for each axis.

In floating types the windows of all axes are one call where the engine's model finds that cheaper: their outer product
is run as passes within the cache. In integers each axis is a call, for SciPy truncates what each axis gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import planner
from ..geometry import product
from ..lowering import as_array, lower
from ..problem import ArraySpec
from .correlation import _normalize_axes, _one_an_axis, _output, _truncate, correlate, correlate1d

_LARGEST_WINDOW = 1 << 15      # taps of an outer product: to make more would cost as much as a pass


class _Step(NamedTuple):
    """What happens along one axis."""

    axis: int
    weights: np.ndarray        # float64, or integers
    mode: str
    origin: int = 0


def _run(input: np.ndarray, steps: Sequence[_Step], output: Any, cval: complex) -> np.ndarray:
    """Correlate along one axis after the other."""
    dtype, target = _output(output, input, input.dtype.kind == "c")
    if not steps:
        result = _truncate(input, dtype)
    elif input.dtype.kind in "fc" and dtype.kind in "fc":
        result = _in_floats(input, steps, dtype, cval)
    else:
        result = input
        for step in steps:
            result = correlate1d(result, step.weights, step.axis, dtype, step.mode, cval, step.origin)
    if target is None:
        return result.copy() if result is input else result
    target[...] = result
    return target


def _in_floats(x: np.ndarray, steps: Sequence[_Step], dtype: np.dtype, cval: complex) -> np.ndarray:
    """All axes in one call, or one after the other, whichever the engine's model prefers."""
    single = np.result_type(x.dtype, dtype, np.float32).char in "fF"
    steps = [s._replace(weights=s.weights.astype(np.float32 if single else np.float64)) for s in steps]
    # What an axis makes of a constant outside is the next one's input; a window of the whole sees the constant itself.
    alike = cval == 0 or not {"constant", "grid-constant"} & {s.mode for s in steps}
    axes, windows, modes, origins = zip(*sorted(steps, key=lambda s: s.axis), strict=True)
    taps = tuple(w.size for w in windows)
    if alike and _together(x.shape, x.dtype, dtype, axes, taps, modes, windows[0].dtype):
        return correlate(x, reduce(np.multiply.outer, windows), dtype, modes, cval, origins, axes=axes)
    for step in steps:
        x = correlate1d(x, step.weights, step.axis, dtype, step.mode, cval, step.origin)
    return x


@lru_cache(maxsize=256)
def _together(shape, dtype, out_dtype, axes, taps, modes, weight_dtype) -> bool:
    """Whether one call with the outer product of all windows is predicted to take no longer than one for each axis."""
    if len(axes) < 2 or product(taps) > _LARGEST_WINDOW or 0 in shape:
        return False
    x = ArraySpec(shape, dtype)
    whole = lower(correlate, x, ArraySpec(taps, weight_dtype), out_dtype, modes, axes=axes).route.problem
    single = [lower(correlate1d, x, ArraySpec((n,), weight_dtype), axis, out_dtype, mode).route.problem
              for axis, n, mode in zip(axes, taps, modes, strict=True)]
    return planner.seconds(whole.replace(separable=True)) <= sum(map(planner.seconds, single))


def _array(input: Any) -> np.ndarray:
    array = as_array(input, "input")
    if isinstance(array, ArraySpec):
        raise TypeError("input must be an array, not an ArraySpec")
    return array


def _axis(axis: Any, ndim: int) -> int:
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -ndim <= axis < ndim:
        raise ValueError(f"axis must lie within the {ndim} dimensions of input: axis={axis!r}")
    return int(axis) % ndim


# ------------------------------------------------------------------------------------------------- Smoothing


def _gaussian(sigma: float, order: int, radius: Any, truncate: float) -> np.ndarray:
    """Weights of a correlation with the derivative of a Gaussian of unit sum, at -radius..radius.

    The n-th derivative is a polynomial times the Gaussian: q_0 = 1, q_{n+1} = q_n' - x q_n / sigma^2.
    """
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 0:
        raise ValueError(f"order must be an integer of at least 0: order={order!r}")
    radius = int(truncate * float(sigma) + 0.5) if radius is None else radius
    if isinstance(radius, bool) or not isinstance(radius, (int, np.integer)) or radius < 0:
        raise ValueError(f"radius must be an integer of at least 0: radius={radius!r}")
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0: sigma={sigma!r}")
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    weights = np.exp(-0.5 * (x / sigma) ** 2)
    weights /= weights.sum()
    q = np.polynomial.Polynomial([1.0])
    for _ in range(order):
        q = q.deriv() - np.polynomial.Polynomial([0.0, 1 / sigma**2]) * q
    return (q(x) * weights)[::-1]


def gaussian_filter1d(input: ArrayLike, sigma: float, axis: int = -1, order: int = 0,
                      output: NDArray | DTypeLike | None = None, mode: str = "reflect", cval: float = 0.0,
                      truncate: float = 4.0, *, radius: int | None = None) -> NDArray:
    """Smooth along one axis with a Gaussian, or with one of its derivatives.

    ``out[p] = sum over t of g[t] input[p - t]``, g being the `order`-th derivative of a Gaussian whose samples at
    -radius..radius sum to 1.

    Parameters
    ----------
    input : array_like
        Of any number of dimensions.
    sigma : float
        Standard deviation in samples, above 0.
    axis : int, default -1
        The axis to filter along.
    order : int, default 0
        0 smooths, 1 gives the smoothed first derivative, and so on.
    output, mode, cval
        As in `correlate`.
    truncate : float, default 4.0
        The window ends at so many standard deviations.
    radius : int, optional
        The window's radius, in place of `truncate`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError
        For a sigma that is not above 0, a negative order or radius, an unknown mode, or `output` of the wrong shape.
    TypeError
        For objects, strings and dates.

    References
    ----------
    .. [1] Lindeberg 1994, Scale-Space Theory in Computer Vision.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.gaussian_filter1d([0.0, 0.0, 1.0, 0.0, 0.0], 0.5).round(3)
    array([0.   , 0.107, 0.787, 0.107, 0.   ])
    >>> nconv.ndimage.gaussian_filter1d([0.0, 1.0, 2.0, 4.0, 8.0], 0.5, order=1).round(3)
    array([0.426, 0.852, 1.278, 2.555, 1.702])
    """
    x = _array(input)
    return _run(x, [_Step(_axis(axis, x.ndim), _gaussian(sigma, order, radius, truncate), mode)], output, cval)


def gaussian_filter(input: ArrayLike, sigma: float | Sequence[float], order: int | Sequence[int] = 0,
                    output: NDArray | DTypeLike | None = None, mode: str | Sequence[str] = "reflect",
                    cval: float = 0.0, truncate: float = 4.0, *, radius: int | Sequence[int] | None = None,
                    axes: int | Sequence[int] | None = None) -> NDArray:
    """Smooth an n-dimensional image with a Gaussian, or with one of its derivatives.

    ``out[p] = sum over t of g[t] input[p - t]``, g being the product of one `gaussian_filter1d` window for each axis.

    Parameters
    ----------
    input : array_like
        Of any number of dimensions.
    sigma : float or sequence of float
        Standard deviation for all axes or for each; an axis with 0 is left alone.
    order : int or sequence of int, default 0
        Order of the derivative along each axis.
    output, mode, cval, axes
        As in `correlate`.
    truncate, radius
        As in `gaussian_filter1d`; `radius` for all axes or for each.

    Returns
    -------
    ndarray
        Of the input's shape. In integers, what each axis gives is truncated, as in SciPy.

    Raises
    ------
    ValueError, TypeError
        As in `gaussian_filter1d`.

    References
    ----------
    .. [1] Lindeberg 1994, Scale-Space Theory in Computer Vision.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> image = np.zeros((3, 4))
    >>> image[1, 1] = 16
    >>> nconv.ndimage.gaussian_filter(image, (0.5, 1), radius=1).round(2)
    array([[0.47, 0.77, 0.47, 0.  ],
           [3.45, 5.69, 3.45, 0.  ],
           [0.47, 0.77, 0.47, 0.  ]])
    """
    x = _array(input)
    axes = _normalize_axes(axes, x.ndim)
    each = zip(axes, *(_one_an_axis(v, name, len(axes)) for v, name in (
        (sigma, "sigma"), (order, "order"), (mode, "mode"), (radius, "radius"))), strict=True)
    return _run(x, [_Step(a, _gaussian(s, o, r, truncate), m) for a, s, o, m, r in each if not 0 <= s <= 1e-15],
                output, cval)


def uniform_filter1d(input: ArrayLike, size: int, axis: int = -1, output: NDArray | DTypeLike | None = None,
                     mode: str = "reflect", cval: complex = 0.0, origin: int = 0) -> NDArray:
    """Average along one axis.

    ``out[p] = 1 / size sum over t < size of input[p + t - size // 2 - origin]``

    Parameters
    ----------
    input : array_like
        Of any number of dimensions.
    size : int
        Samples to average, at least 1.
    axis : int, default -1
        The axis to filter along.
    output, mode, cval, origin
        As in `correlate`.

    Returns
    -------
    ndarray
        Of the input's shape. Every average is a sum of its own, so neither rounding nor a NaN runs along the line as
        in SciPy's running sums; means of integers are truncated.

    Raises
    ------
    ValueError
        For a size below 1, an origin outside of the window, an unknown mode, or `output` of the wrong shape.
    TypeError
        For objects, strings and dates.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.5.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.uniform_filter1d([2, 8, 0, 4, 1, 9, 9, 0], size=3)
    array([4, 3, 4, 1, 4, 6, 6, 3])
    """
    x = _array(input)
    return _averages(x, [(_axis(axis, x.ndim), size, mode, origin)], output, cval)


def uniform_filter(input: ArrayLike, size: int | Sequence[int] = 3, output: NDArray | DTypeLike | None = None,
                   mode: str | Sequence[str] = "reflect", cval: complex = 0.0, origin: int | Sequence[int] = 0, *,
                   axes: int | Sequence[int] | None = None) -> NDArray:
    """Average over a box.

    ``out[p] = mean over t in the box of input[p + t - size // 2 - origin]``

    Parameters
    ----------
    input : array_like
        Of any number of dimensions.
    size : int or sequence of int, default 3
        Extent of the box along all axes or along each; 1 leaves an axis alone.
    output, mode, cval, origin, axes
        As in `correlate`.

    Returns
    -------
    ndarray
        Of the input's shape; see `uniform_filter1d`.

    Raises
    ------
    ValueError, TypeError
        As in `uniform_filter1d`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.5.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.uniform_filter([[9.0, 0.0, 0.0], [0.0, 0.0, 18.0]], size=(1, 3))
    array([[ 6.,  3.,  0.],
           [ 0.,  6., 12.]])
    """
    x = _array(input)
    axes = _normalize_axes(axes, x.ndim)
    each = zip(axes, *(_one_an_axis(v, name, len(axes)) for v, name in (
        (size, "size"), (mode, "mode"), (origin, "origin"))), strict=True)
    return _averages(x, [step for step in each if step[1] != 1], output, cval)


def _averages(x: np.ndarray, boxes: Sequence[tuple[int, int, str, int]], output: Any, cval: complex) -> np.ndarray:
    """Averages along (axis, size, mode, origin), one after the other."""
    for _, size, _, _ in boxes:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"size must be an integer of at least 1: size={size!r}")
    dtype, target = _output(output, x, x.dtype.kind == "c")
    if not boxes or (x.dtype.kind in "fc" and dtype.kind in "fc"):
        return _run(x, [_Step(a, np.full(n, 1 / n), m, o) for a, n, m, o in boxes], output, cval)
    # What is truncated must be exact: whole sums first, divided once, 3 / 3 and not 3 times 0.333.
    result = x
    for axis, size, mode, origin in boxes:
        sums = correlate1d(result, np.ones(size), axis, np.float64, mode, cval, origin)
        result = _truncate(sums / size, dtype)
    if target is None:
        return result
    target[...] = result
    return target


# ----------------------------------------------------------------------------------------------- Derivatives


def _edges(input: Any, axis: Any, across: tuple[int, ...], output: Any, mode: Any, cval: float) -> np.ndarray:
    """A central difference along one axis, smoothed along all others."""
    x = _array(input)
    axis = _axis(axis, x.ndim)
    modes = _one_an_axis(mode, "mode", x.ndim)
    others = [a for a in range(x.ndim) if a != axis]
    return _run(x, [_Step(a, np.array(w, np.float64), modes[a])
                    for a, w in [(axis, (-1, 0, 1)), *((a, across) for a in others)]], output, cval)


def sobel(input: ArrayLike, axis: int = -1, output: NDArray | DTypeLike | None = None,
          mode: str | Sequence[str] = "reflect", cval: float = 0.0) -> NDArray:
    """Differentiate along one axis with Sobel's window: -1, 0, 1 along it, 1, 2, 1 along all others.

    Parameters
    ----------
    input : array_like
        Of any number of dimensions.
    axis : int, default -1
        The axis to differentiate along.
    output, mode, cval
        As in `correlate`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 10.2.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.sobel([[1, 2, 4], [1, 2, 4], [0, 0, 8]])
    array([[ 4, 12,  8],
           [ 3, 17, 14],
           [ 1, 27, 26]])
    """
    return _edges(input, axis, (1, 2, 1), output, mode, cval)


def prewitt(input: ArrayLike, axis: int = -1, output: NDArray | DTypeLike | None = None,
            mode: str | Sequence[str] = "reflect", cval: float = 0.0) -> NDArray:
    """Differentiate along one axis with Prewitt's window: -1, 0, 1 along it, 1, 1, 1 along all others.

    Parameters
    ----------
    input, axis, output, mode, cval
        As in `sobel`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 10.2.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.prewitt([[1, 2, 4], [1, 2, 4], [0, 0, 8]])
    array([[ 3,  9,  6],
           [ 2, 14, 12],
           [ 1, 19, 18]])
    """
    return _edges(input, axis, (1, 1, 1), output, mode, cval)


def _sum_over_axes(input: Any, term: Callable[..., np.ndarray], output: Any, mode: Any, axes: Any,
                   finish: Callable[[np.ndarray], np.ndarray] = lambda total: total) -> np.ndarray:
    """finish(the sum over axes of term(input, axis, dtype, mode)), in the output's type."""
    x = _array(input)
    dtype, target = _output(output, x, x.dtype.kind == "c")
    axes = _normalize_axes(axes, x.ndim)
    modes = _one_an_axis(mode, "mode", len(axes))
    if not axes:
        return _run(x, [], output, 0.0)
    total = term(x, axes[0], dtype, modes[0])
    for axis, word in zip(axes[1:], modes[1:], strict=True):
        total += term(x, axis, dtype, word)
    total = finish(total).astype(dtype, copy=False)
    if target is None:
        return total
    target[...] = total
    return target


def generic_laplace(input: ArrayLike, derivative2: Callable[..., Any], output: NDArray | DTypeLike | None = None,
                    mode: str | Sequence[str] = "reflect", cval: float = 0.0, extra_arguments: Sequence[Any] = (),
                    extra_keywords: Mapping[str, Any] | None = None, *,
                    axes: int | Sequence[int] | None = None) -> NDArray:
    """Sum the second derivatives along all axes, given a function for one.

    Parameters
    ----------
    input : array_like
        Of any number of dimensions.
    derivative2 : callable
        ``derivative2(input, axis, output, mode, cval, *extra_arguments, **extra_keywords)``; `output` is a dtype.
    output, mode, cval, axes
        As in `correlate`.
    extra_arguments, extra_keywords
        Handed on to `derivative2`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.6.

    Examples
    --------
    >>> import nconv
    >>> def second(x, axis, output, mode, cval):
    ...     return nconv.ndimage.correlate1d(x, [1, -2, 1], axis, output, mode, cval)
    >>> nconv.ndimage.generic_laplace([1, 2, 4, 8], second)
    array([ 1,  1,  2, -4])
    """
    def term(x, axis, dtype, word):
        return derivative2(x, axis, dtype, word, cval, *extra_arguments, **(extra_keywords or {}))

    return _sum_over_axes(input, term, output, mode, axes)


def laplace(input: ArrayLike, output: NDArray | DTypeLike | None = None, mode: str | Sequence[str] = "reflect",
            cval: float = 0.0, *, axes: int | Sequence[int] | None = None) -> NDArray:
    """Sum the second differences 1, -2, 1 along all axes.

    Parameters
    ----------
    input, output, mode, cval, axes
        As in `correlate`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.6.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.laplace([[1, 2, 4], [1, 2, 9]])
    array([[ 1,  1,  3],
           [ 1,  6, -12]])
    """
    def term(x, axis, dtype, word):
        return correlate1d(x, np.array([1.0, -2.0, 1.0]), axis, dtype, word, cval)

    return _sum_over_axes(input, term, output, mode, axes)


def gaussian_laplace(input: ArrayLike, sigma: float | Sequence[float], output: NDArray | DTypeLike | None = None,
                     mode: str | Sequence[str] = "reflect", cval: float = 0.0, *,
                     axes: int | Sequence[int] | None = None, **kwargs: Any) -> NDArray:
    """Sum the second derivatives of the image smoothed with a Gaussian.

    Parameters
    ----------
    input : array_like
        Of any number of dimensions.
    sigma : float or sequence of float
        As in `gaussian_filter`.
    output, mode, cval, axes
        As in `correlate`.
    **kwargs
        `truncate` and `radius` of `gaussian_filter`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `gaussian_filter`.

    References
    ----------
    .. [1] Marr, Hildreth 1980, Theory of Edge Detection.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.gaussian_laplace([0.0, 0.0, 1.0, 0.0, 0.0], 1).round(3)
    array([ 0.167, -0.006, -0.396, -0.006,  0.167])
    """
    x = _array(input)
    sigmas = dict(zip(_normalize_axes(axes, x.ndim), _one_an_axis(sigma, "sigma", len(_normalize_axes(axes, x.ndim))),
                      strict=True))

    def term(x, axis, dtype, word):
        return gaussian_filter(x, list(sigmas.values()), [2 * (a == axis) for a in sigmas], dtype, word, cval,
                               axes=tuple(sigmas), **kwargs)

    return _sum_over_axes(x, term, output, mode, axes)


def generic_gradient_magnitude(input: ArrayLike, derivative: Callable[..., Any],
                               output: NDArray | DTypeLike | None = None, mode: str | Sequence[str] = "reflect",
                               cval: float = 0.0, extra_arguments: Sequence[Any] = (),
                               extra_keywords: Mapping[str, Any] | None = None, *,
                               axes: int | Sequence[int] | None = None) -> NDArray:
    """Root of the sum of the squared derivatives along all axes, given a function for one.

    Parameters
    ----------
    input : array_like
        Of any number of dimensions.
    derivative : callable
        ``derivative(input, axis, output, mode, cval, *extra_arguments, **extra_keywords)``; `output` is a dtype.
    output, mode, cval, axes
        As in `correlate`.
    extra_arguments, extra_keywords
        Handed on to `derivative`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 10.2.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.generic_gradient_magnitude([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]], nconv.ndimage.sobel)
    array([[ 4., 12.,  8.],
           [ 4., 12.,  8.]])
    """
    def term(x, axis, dtype, word):
        return np.square(derivative(x, axis, dtype, word, cval, *extra_arguments, **(extra_keywords or {})))

    return _sum_over_axes(input, term, output, mode, axes, np.sqrt)


def gaussian_gradient_magnitude(input: ArrayLike, sigma: float | Sequence[float],
                                output: NDArray | DTypeLike | None = None, mode: str | Sequence[str] = "reflect",
                                cval: float = 0.0, *, axes: int | Sequence[int] | None = None,
                                **kwargs: Any) -> NDArray:
    """Magnitude of the gradient of the image smoothed with a Gaussian.

    Parameters
    ----------
    input : array_like
        Of any number of dimensions.
    sigma : float or sequence of float
        As in `gaussian_filter`, for all axes of the input, which are all smoothed.
    output, mode, cval
        As in `correlate`.
    axes : int or sequence of int, optional
        The derivatives that count; all by default.
    **kwargs
        `truncate` and `radius` of `gaussian_filter`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `gaussian_filter`.

    References
    ----------
    .. [1] Canny 1986, A Computational Approach to Edge Detection.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.gaussian_gradient_magnitude([0.0, 0.0, 1.0, 0.0, 0.0], 1).round(3)
    array([0.  , 0.242, 0.  , 0.242, 0.   ])
    """
    def term(x, axis, dtype, word):
        return np.square(gaussian_filter(x, sigma, [int(a == axis) for a in range(x.ndim)], dtype, word, cval,
                                         **kwargs))

    return _sum_over_axes(input, term, output, mode, axes, np.sqrt)
