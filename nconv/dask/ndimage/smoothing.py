"""`nconv.ndimage`'s smoothing filters on dask arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
from numpy.typing import DTypeLike

from ...ndimage.smoothing import radius_of
from .blocks import check, each, run


def smoothed(name: str, input: da.Array, numbers: Any, sigma: Any, mode: Any, truncate: float, radius: Any,
             **arguments: Any) -> da.Array:
    """A filter that smooths along the axes `numbers` (None: all); one with sigma 0 is left alone."""
    arguments |= {"sigma": sigma, "mode": mode, "truncate": truncate, "radius": radius}
    input = check(name, input, **arguments)
    sigmas, radii, words = each(input, numbers, sigma=sigma, radius=radius, mode=mode)
    taps = {a: 2 * radius_of(s, radii[a], truncate) + 1 for a, s in sigmas.items() if s > 1e-15}
    return run(name, input, taps, words, **arguments)


def gaussian_filter1d(input: da.Array, sigma: float, axis: int = -1, order: int = 0, output: DTypeLike | None = None,
                      mode: str = "reflect", cval: float = 0.0, truncate: float = 4.0, *,
                      radius: int | None = None) -> da.Array:
    """Smooth along one axis with a Gaussian or one of its derivatives: `nconv.ndimage.gaussian_filter1d` by blocks.

    Parameters
    ----------
    input, output
        As in `gaussian_filter`.
    sigma, axis, order, mode, cval, truncate, radius
        As in `nconv.ndimage.gaussian_filter1d`.

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
    .. [1] Lindeberg 1994, Scale-Space Theory in Computer Vision.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> x = da.from_array([0.0, 1.0, 2.0, 4.0, 8.0], chunks=4)
    >>> nconv.dask.ndimage.gaussian_filter1d(x, 0.5, order=1).compute().round(3)
    array([0.428, 0.86 , 1.294, 2.57 , 1.707])
    """
    return smoothed("gaussian_filter1d", input, axis, sigma, mode, truncate, radius, axis=axis, order=order,
                    output=output, cval=cval)


def gaussian_filter(input: da.Array, sigma: float | Sequence[float], order: int | Sequence[int] = 0,
                    output: DTypeLike | None = None, mode: str | Sequence[str] = "reflect", cval: float = 0.0,
                    truncate: float = 4.0, *, radius: int | Sequence[int] | None = None,
                    axes: int | Sequence[int] | None = None) -> da.Array:
    """Smooth an n-dimensional image with a Gaussian, or with one of its derivatives, block by block.

    Parameters
    ----------
    input : dask array
        The image, of any number of dimensions.
    output : dtype, optional
        Of the result; by default the input's.
    sigma, order, mode, cval, truncate, radius, axes
        As in `nconv.ndimage.gaussian_filter`.

    Returns
    -------
    dask array
        What `nconv.ndimage.gaussian_filter` gives of the whole array, in the input's chunks; a chunk that is too short
        to be its neighbour's halo is joined to it.

    Raises
    ------
    ValueError
        As `nconv.ndimage.gaussian_filter`, and for chunks of unknown size.
    TypeError
        If `input` is not a dask array or `output` is an array; as `nconv.ndimage.gaussian_filter`.

    References
    ----------
    .. [1] Lindeberg 1994, Scale-Space Theory in Computer Vision.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> image = da.from_array([[0.0, 0.0, 9.0], [0.0, 0.0, 0.0]], chunks=(1, 3))
    >>> nconv.dask.ndimage.gaussian_filter(image, sigma=(0.5, 0)).compute().round(3)
    array([[0.   , 0.   , 8.037],
           [0.   , 0.   , 0.963]])
    """
    return smoothed("gaussian_filter", input, axes, sigma, mode, truncate, radius, order=order, output=output,
                    cval=cval, axes=axes)


def uniform_filter1d(input: da.Array, size: int, axis: int = -1, output: DTypeLike | None = None,
                     mode: str = "reflect", cval: complex = 0.0, origin: int = 0) -> da.Array:
    """Average along one axis: `nconv.ndimage.uniform_filter1d`, block by block.

    Parameters
    ----------
    input, output
        As in `gaussian_filter`.
    size, axis, mode, cval, origin
        As in `nconv.ndimage.uniform_filter1d`.

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
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.5.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> x = da.from_array([2, 8, 0, 4, 1, 9, 9, 0], chunks=3)
    >>> nconv.dask.ndimage.uniform_filter1d(x, size=3).compute()
    array([4, 3, 4, 1, 4, 6, 6, 3])
    """
    arguments = dict(size=size, axis=axis, output=output, mode=mode, cval=cval, origin=origin)
    input = check("uniform_filter1d", input, **arguments)
    number = axis % input.ndim
    return run("uniform_filter1d", input, {number: size}, {number: mode}, {number: origin}, **arguments)


def uniform_filter(input: da.Array, size: int | Sequence[int] = 3, output: DTypeLike | None = None,
                   mode: str | Sequence[str] = "reflect", cval: complex = 0.0, origin: int | Sequence[int] = 0, *,
                   axes: int | Sequence[int] | None = None) -> da.Array:
    """Average over a box: `nconv.ndimage.uniform_filter`, block by block.

    Parameters
    ----------
    input, output
        As in `gaussian_filter`.
    size, mode, cval, origin, axes
        As in `nconv.ndimage.uniform_filter`.

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
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.5.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> image = da.from_array([[9.0, 0.0, 0.0], [0.0, 0.0, 18.0]], chunks=(1, 3))
    >>> nconv.dask.ndimage.uniform_filter(image, size=(1, 3)).compute()
    array([[ 6.,  3.,  0.],
           [ 0.,  6., 12.]])
    """
    arguments = dict(size=size, output=output, mode=mode, cval=cval, origin=origin, axes=axes)
    input = check("uniform_filter", input, **arguments)
    sizes, words, origins = each(input, axes, size=size, mode=mode, origin=origin)
    return run("uniform_filter", input, sizes, words, origins, **arguments)
