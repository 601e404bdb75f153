"""`nconv.ndimage.correlate` and its like on dask arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ... import ndimage
from ...lowering import lower
from .. import overlap
from .blocks import check_output


def _block(block: Any, weights: Any, bias: None, pads: overlap.Pads, block_id: tuple[int, ...], *, name: str,
           axes: tuple[overlap.Axis, ...], own: overlap.Pads, arguments: dict[str, Any]) -> Any:
    """One block, filtered with its halo as an array of its own, and cut to what it owes."""
    return overlap.cut(getattr(ndimage, name)(block, weights, **arguments), axes, own, pads)


def _run(name: str, input: Any, weights: Any, numbers: Sequence[int] | None, **arguments: Any) -> da.Array:
    """One filter, with all its arguments, along the axes `numbers` (None: all)."""
    input, weights = overlap.check_input(input, "input"), overlap.as_weight(weights)
    check_output(arguments["output"])
    call = lower(getattr(ndimage, name), overlap.spec(input, "input"), overlap.spec(weights, "weights"), **arguments)
    numbers = range(input.ndim) if numbers is None else sorted(int(a) % input.ndim for a in numbers)
    axes = overlap.axes_of(call, tuple(numbers)) if numbers else ()
    own = tuple(axis.padding for axis in axes)
    return overlap.run(input, weights, None, call, axes,
                       partial(_block, name=name, axes=axes, own=own, arguments=arguments))


def correlate(input: da.Array, weights: ArrayLike | da.Array, output: DTypeLike | None = None,
              mode: str | Sequence[str] = "reflect", cval: complex = 0.0, origin: int | Sequence[int] = 0, *,
              axes: int | Sequence[int] | None = None) -> da.Array:
    """Correlate an n-dimensional image with a window of weights: `nconv.ndimage.correlate`, block by block.

    ``out[p] = sum over t of weights[t] input[p + t - n // 2 - origin]``, complex weights conjugated.

    Parameters
    ----------
    input : dask array
        The image, of any number of dimensions.
    weights : array_like or dask array
        One dimension for each of `axes`.
    output : dtype, optional
        Of the result; by default the input's, complex where the weights are.
    mode, cval, origin, axes
        As in `nconv.ndimage.correlate`.

    Returns
    -------
    dask array
        Of the input's shape and chunks; a chunk that is too short to be its neighbour's halo is joined to it.

    Raises
    ------
    ValueError
        As `nconv.ndimage.correlate`, and for chunks of unknown size.
    TypeError
        If `input` is not a dask array or `output` is an array; as `nconv.ndimage.correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> image = da.arange(12, chunks=6).reshape(3, 4)
    >>> nconv.dask.ndimage.correlate(image, [[0, 1, 10]], mode="wrap").compute()
    array([[ 10,  21,  32,   3],
           [ 54,  65,  76,  47],
           [ 98, 109, 120,  91]])
    """
    numbers = (axes,) if isinstance(axes, (int, np.integer)) else axes
    return _run("correlate", input, weights, numbers, output=output, mode=mode, cval=cval, origin=origin, axes=axes)


def convolve(input: da.Array, weights: ArrayLike | da.Array, output: DTypeLike | None = None,
             mode: str | Sequence[str] = "reflect", cval: complex = 0.0, origin: int | Sequence[int] = 0, *,
             axes: int | Sequence[int] | None = None) -> da.Array:
    """Convolve an n-dimensional image with a window of weights: `nconv.ndimage.convolve`, block by block.

    ``out[p] = sum over t of weights[t] input[p - t + n // 2 - origin]``

    Parameters
    ----------
    input, weights, output, mode, cval, origin, axes
        As in `correlate`.

    Returns
    -------
    dask array
        As from `correlate`.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> image = da.arange(12, chunks=6).reshape(3, 4)
    >>> nconv.dask.ndimage.convolve(image, [[0, 1, 10]], mode="wrap").compute()
    array([[ 30,   1,  12,  23],
           [ 74,  45,  56,  67],
           [118,  89, 100, 111]])
    """
    numbers = (axes,) if isinstance(axes, (int, np.integer)) else axes
    return _run("convolve", input, weights, numbers, output=output, mode=mode, cval=cval, origin=origin, axes=axes)


def correlate1d(input: da.Array, weights: ArrayLike | da.Array, axis: int = -1, output: DTypeLike | None = None,
                mode: str = "reflect", cval: complex = 0.0, origin: int = 0) -> da.Array:
    """Correlate the lines of an array along one axis: `nconv.ndimage.correlate1d`, block by block.

    ``out[p] = sum over t of weights[t] input[p + t - n // 2 - origin]``

    Parameters
    ----------
    input : dask array
        The image, of any number of dimensions.
    weights : array_like or dask array
        One-dimensional.
    axis : int, default -1
        The axis to filter along.
    output, mode, cval, origin
        As in `correlate`.

    Returns
    -------
    dask array
        As from `correlate`.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> x = da.from_array([2, 8, 0, 4, 1, 9, 9, 0], chunks=3)
    >>> nconv.dask.ndimage.correlate1d(x, weights=[1, 3]).compute()
    array([ 8, 26,  8, 12,  7, 28, 36,  9])
    """
    return _run("correlate1d", input, weights, (axis,), axis=axis, output=output, mode=mode, cval=cval, origin=origin)


def convolve1d(input: da.Array, weights: ArrayLike | da.Array, axis: int = -1, output: DTypeLike | None = None,
               mode: str = "reflect", cval: complex = 0.0, origin: int = 0) -> da.Array:
    """Convolve the lines of an array along one axis: `nconv.ndimage.convolve1d`, block by block.

    ``out[p] = sum over t of weights[t] input[p - t + n // 2 - origin]``

    Parameters
    ----------
    input, weights, axis, output, mode, cval, origin
        As in `correlate1d`.

    Returns
    -------
    dask array
        As from `correlate`.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import dask.array as da, nconv.dask
    >>> x = da.from_array([2, 8, 0, 4, 1, 9, 9, 0], chunks=3)
    >>> nconv.dask.ndimage.convolve1d(x, weights=[1, 3]).compute()
    array([14, 24,  4, 13, 12, 36, 27,  0])
    """
    return _run("convolve1d", input, weights, (axis,), axis=axis, output=output, mode=mode, cval=cval, origin=origin)
