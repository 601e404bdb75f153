"""`nconv.ndimage`'s derivative filters on dask arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
from numpy.typing import DTypeLike

from .blocks import check, each, run
from .smoothing import smoothed


def _one_mode(mode: Any) -> None:
    """Refuse one mode for each axis where each term of a sum would apply its own to all axes."""
    if not isinstance(mode, str):
        raise ValueError(f"mode must be one word for all axes here: mode={mode!r}")


def _differences(name: str, input: da.Array, numbers: Any, mode: Any, **arguments: Any) -> da.Array:
    """A filter whose windows have three taps along the axes `numbers` (None: all)."""
    input = check(name, input, mode=mode, **arguments)
    taps, words = each(input, numbers, taps=3, mode=mode)
    return run(name, input, taps, words, mode=mode, **arguments)


def sobel(input: da.Array, axis: int = -1, output: DTypeLike | None = None, mode: str | Sequence[str] = "reflect",
          cval: float = 0.0) -> da.Array:
    """Differentiate along one axis with Sobel's window: `nconv.ndimage.sobel`, block by block.

    Parameters
    ----------
    input, output
        As in `gaussian_filter`.
    axis, mode, cval
        As in `nconv.ndimage.sobel`.

    Returns
    -------
    dask array
        As from `gaussian_filter`.

    Raises
    ------
    ValueError, TypeError
        As in `gaussian_filter`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 10.2.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> nconv.dask.ndimage.sobel(da.from_array([[1, 2, 4], [1, 2, 4], [0, 0, 8]], chunks=(2, 3))).compute()
    array([[ 4, 12,  8],
           [ 3, 17, 14],
           [ 1, 27, 26]])
    """
    return _differences("sobel", input, None, mode, axis=axis, output=output, cval=cval)


def prewitt(input: da.Array, axis: int = -1, output: DTypeLike | None = None, mode: str | Sequence[str] = "reflect",
            cval: float = 0.0) -> da.Array:
    """Differentiate along one axis with Prewitt's window: `nconv.ndimage.prewitt`, block by block.

    Parameters
    ----------
    input, axis, output, mode, cval
        As in `sobel`.

    Returns
    -------
    dask array
        As from `gaussian_filter`.

    Raises
    ------
    ValueError, TypeError
        As in `gaussian_filter`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 10.2.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> nconv.dask.ndimage.prewitt(da.from_array([[1, 2, 4], [1, 2, 4], [0, 0, 8]], chunks=(2, 3))).compute()
    array([[ 3,  9,  6],
           [ 2, 14, 12],
           [ 1, 19, 18]])
    """
    return _differences("prewitt", input, None, mode, axis=axis, output=output, cval=cval)


def laplace(input: da.Array, output: DTypeLike | None = None, mode: str | Sequence[str] = "reflect",
            cval: float = 0.0, *, axes: int | Sequence[int] | None = None) -> da.Array:
    """Sum the second differences along all axes: `nconv.ndimage.laplace`, block by block.

    Parameters
    ----------
    input, output
        As in `gaussian_filter`.
    mode, cval, axes
        As in `nconv.ndimage.laplace`.

    Returns
    -------
    dask array
        As from `gaussian_filter`.

    Raises
    ------
    ValueError, TypeError
        As in `gaussian_filter`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.6.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> nconv.dask.ndimage.laplace(da.from_array([[1, 2, 4], [1, 2, 9]], chunks=(2, 2))).compute()
    array([[ 1,  1,  3],
           [ 1,  6, -12]])
    """
    return _differences("laplace", input, axes, mode, output=output, cval=cval, axes=axes)


def gaussian_laplace(input: da.Array, sigma: float | Sequence[float], output: DTypeLike | None = None,
                     mode: str = "reflect", cval: float = 0.0, *,
                     axes: int | Sequence[int] | None = None, truncate: float = 4.0,
                     radius: int | Sequence[int] | None = None) -> da.Array:
    """Sum the second derivatives of the smoothed image: `nconv.ndimage.gaussian_laplace`, block by block.

    Parameters
    ----------
    input, output, truncate, radius
        As in `gaussian_filter`.
    sigma, mode, cval, axes
        As in `nconv.ndimage.gaussian_laplace`; one mode for all axes.

    Returns
    -------
    dask array
        As from `gaussian_filter`.

    Raises
    ------
    ValueError, TypeError
        As in `gaussian_filter`.

    References
    ----------
    .. [1] Marr, Hildreth 1980, Theory of Edge Detection.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> x = da.from_array([0.0, 0.0, 1.0, 0.0, 0.0], chunks=5)
    >>> nconv.dask.ndimage.gaussian_laplace(x, 1).compute().round(3)
    array([ 0.197,  0.002, -0.399,  0.002,  0.197])
    """
    _one_mode(mode)
    return smoothed("gaussian_laplace", input, axes, sigma, mode, truncate, radius, output=output, cval=cval,
                    axes=axes)


def gaussian_gradient_magnitude(input: da.Array, sigma: float | Sequence[float], output: DTypeLike | None = None,
                                mode: str = "reflect", cval: float = 0.0, *,
                                axes: int | Sequence[int] | None = None, truncate: float = 4.0,
                                radius: int | Sequence[int] | None = None) -> da.Array:
    """Magnitude of the gradient of the smoothed image: `nconv.ndimage.gaussian_gradient_magnitude` by blocks.

    Parameters
    ----------
    input, output, truncate, radius
        As in `gaussian_filter`.
    sigma, mode, cval, axes
        As in `nconv.ndimage.gaussian_gradient_magnitude`; one mode for all axes.

    Returns
    -------
    dask array
        As from `gaussian_filter`.

    Raises
    ------
    ValueError, TypeError
        As in `gaussian_filter`.

    References
    ----------
    .. [1] Canny 1986, A Computational Approach to Edge Detection.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> x = da.from_array([0.0, 0.0, 1.0, 0.0, 0.0], chunks=5)
    >>> nconv.dask.ndimage.gaussian_gradient_magnitude(x, 1).compute().round(3)
    array([0.095, 0.241, 0.   , 0.241, 0.095])
    """
    _one_mode(mode)
    return smoothed("gaussian_gradient_magnitude", input, None, sigma, mode, truncate, radius, output=output,
                    cval=cval, axes=axes)
