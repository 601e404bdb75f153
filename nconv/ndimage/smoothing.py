"""Gaussian and uniform filters, and the derivatives of a Gaussian along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .correlation import correlate1d, normalize_axes, one_an_axis, output_of, truncated
from .passes import Step, as_axis, as_input, hand_over, run, seen, wing_of


def radius_of(sigma: float, radius: Any, truncate: float) -> int:
    """The radius of a Gaussian window, given or where it is truncated."""
    radius = int(truncate * float(sigma) + 0.5) if radius is None else radius
    if isinstance(radius, bool) or not isinstance(radius, (int, np.integer)) or radius < 0:
        raise ValueError(f"radius must be an integer of at least 0: radius={radius!r}")
    return int(radius)


def _gaussian(sigma: float, order: int, radius: Any, truncate: float) -> np.ndarray:
    """Weights of a correlation with the derivative of a Gaussian of unit sum, at -radius..radius.

    The n-th derivative is a polynomial times the Gaussian: q_0 = 1, q_{n+1} = q_n' - x q_n / sigma^2.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0: sigma={sigma!r}")
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 0:
        raise ValueError(f"order must be an integer of at least 0: order={order!r}")
    radius = radius_of(sigma, radius, truncate)
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
    array([0.   , 0.106, 0.787, 0.106, 0.   ])
    >>> nconv.ndimage.gaussian_filter1d([0.0, 1.0, 2.0, 4.0, 8.0], 0.5, order=1).round(3)
    array([0.428, 0.86 , 1.294, 2.57 , 1.707])
    """
    x = as_input(input)
    return run(x, [Step(as_axis(axis, x.ndim), _gaussian(sigma, order, radius, truncate), mode)], output, cval)


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
    x = as_input(input)
    axes = normalize_axes(axes, x.ndim)
    each = zip(axes, *(one_an_axis(v, name, len(axes)) for v, name in (
        (sigma, "sigma"), (order, "order"), (mode, "mode"), (radius, "radius"))), strict=True)
    return run(x, [Step(a, _gaussian(s, o, r, truncate), m) for a, s, o, m, r in each if not 0 <= s <= 1e-15],
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
    x = as_input(input)
    return _averages(x, [(as_axis(axis, x.ndim), size, mode, origin)], output, cval)


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
    x = as_input(input)
    axes = normalize_axes(axes, x.ndim)
    each = zip(axes, *(one_an_axis(v, name, len(axes)) for v, name in (
        (size, "size"), (mode, "mode"), (origin, "origin"))), strict=True)
    return _averages(x, [step for step in each if step[1] != 1], output, cval)


def _averages(x: np.ndarray, boxes: Sequence[tuple[int, int, str, int]], output: Any, cval: complex) -> np.ndarray:
    """Averages along (axis, size, mode, origin), one after the other."""
    for _, size, _, _ in boxes:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"size must be an integer of at least 1: size={size!r}")
    dtype, target = output_of(output, x, x.dtype.kind == "c")
    if not boxes or (x.dtype.kind in "fc" and dtype.kind in "fc"):
        return run(x, [Step(a, np.full(n, 1 / n), m, o) for a, n, m, o in boxes], output, cval)
    # What is truncated must be exact: whole sums first, divided once, 3 / 3 and not 3 times 0.333.
    result, wing = x, wing_of(x)
    for axis, size, mode, origin in boxes:
        sums = seen(correlate1d(result, wing.beside(np.ones(size), x), axis, np.float64, mode, cval, origin))
        result = wing.narrow(sums / size, dtype, truncated)
    return hand_over(result, target, x)
