"""Edges and curvature: Sobel, Prewitt, Laplace, and gradients of the smoothed image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .correlation import correlate1d, exact, normalize_axes, one_an_axis, output_of
from .passes import Step, as_axis, as_input, hand_over, run, seen, wing_of
from .smoothing import gaussian_filter


def _edges(input: Any, axis: Any, across: tuple[int, ...], output: Any, mode: Any, cval: float) -> np.ndarray:
    """A central difference along one axis, smoothed along all others."""
    x = as_input(input)
    axis = as_axis(axis, x.ndim)
    modes = one_an_axis(mode, "mode", x.ndim)
    others = [a for a in range(x.ndim) if a != axis]
    return run(x, [Step(a, np.array(w, np.float64), modes[a])
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
    x = as_input(input)
    dtype, target = output_of(output, x, x.dtype.kind == "c")
    axes = normalize_axes(axes, x.ndim)
    modes = one_an_axis(mode, "mode", len(axes))
    if not axes:
        return run(x, [], output, 0.0)
    total = seen(term(x, axes[0], dtype, modes[0]))
    for axis, word in zip(axes[1:], modes[1:], strict=True):
        total += seen(term(x, axis, dtype, word))
    return hand_over(finish(total).astype(dtype, copy=False), target, x)


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
        weights = exact(np.array([1.0, -2.0, 1.0]), x.dtype, dtype)
        return correlate1d(x, wing_of(x).beside(weights, x), axis, dtype, word, cval)

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
    array([ 0.197,  0.002, -0.399,  0.002,  0.197])
    """
    x = as_input(input)
    sigmas = dict(zip(normalize_axes(axes, x.ndim), one_an_axis(sigma, "sigma", len(normalize_axes(axes, x.ndim))),
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
        return np.square(seen(derivative(x, axis, dtype, word, cval, *extra_arguments, **(extra_keywords or {}))))

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
    array([0.095, 0.241, 0.   , 0.241, 0.095])
    """
    def term(x, axis, dtype, word):
        order = [int(a == axis) for a in range(x.ndim)]
        return np.square(seen(gaussian_filter(x, sigma, order, dtype, word, cval, **kwargs)))

    return _sum_over_axes(input, term, output, mode, axes, np.sqrt)
