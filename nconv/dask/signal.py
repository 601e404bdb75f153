"""`nconv.convolve` and `nconv.correlate` on dask arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import dask.array as da
from numpy.typing import ArrayLike

from .. import signal
from ..lowering import lower
from . import overlap


def _block(block: Any, weight: Any, bias: None, pads: overlap.Pads, block_id: tuple[int, ...], *, name: str,
           method: str, axes: tuple[overlap.Axis, ...], starts: dict[int, tuple[int, ...]]) -> Any:
    """One block: where it ends with the array its full convolution, cut to what it owes."""
    if starts:                               # batches with kernels of their own
        rows: list = [slice(None)] * block.ndim
        for axis, first in starts.items():
            start = first[block_id[axis]]
            rows[axis] = slice(start, start + block.shape[axis])
        weight = weight[tuple(rows)]
    mode = "full" if any(map(any, pads)) else "valid"
    result = getattr(signal, name)(block, weight, mode, method, axes=[axis.number for axis in axes] or None)
    own = [(axis.span - 1,) * 2 if mode == "full" else (0, 0) for axis in axes]
    return overlap.cut(result, axes, tuple(own), pads)


def _run(name: str, in1: Any, in2: Any, mode: str, method: str, axes: int | Sequence[int] | None) -> da.Array:
    in1, in2 = overlap.check_input(in1, "in1"), overlap.as_weight(in2)
    call = lower(getattr(signal, name), overlap.spec(in1, "in1"), overlap.spec(in2, "in2"), mode, method, axes=axes)
    if 0 in (*in1.shape, *in2.shape):
        return da.zeros_like(in1, shape=call.route.shape, dtype=call.route.dtype)
    numbers = signal.normalize_axes(axes, in1.ndim)
    windows = overlap.axes_of(call, numbers) if numbers else ()
    batch = [a for a in range(in1.ndim) if a not in numbers]
    starts = {a: (0, *accumulate(in1.chunks[a])) for a in batch if in2.shape[a] == in1.shape[a] > 1}
    wider = {a: (in2.shape[a],) for a in batch if in2.shape[a] > in1.shape[a]}
    return overlap.run(in1, in2, None, call, windows,
                       partial(_block, name=name, method=method, axes=windows, starts=starts), chunks=wider)


def convolve(in1: da.Array, in2: ArrayLike | da.Array, mode: str = "full", method: str = "auto", *,
             axes: int | Sequence[int] | None = None) -> da.Array:
    """Convolve a dask array with a kernel: `nconv.convolve`, block by block.

    ``out[p] = sum over t of in1[t] in2[p - t]`` along `axes`, broadcast along the others.

    Parameters
    ----------
    in1 : dask array
        The signal, of any number of dimensions.
    in2 : array_like or dask array
        The kernel, with as many dimensions; every worker that needs it gets the whole of it.
    mode : {'full', 'same', 'valid'}
        As in `nconv.convolve`.
    method : str
        'auto', or an algorithm of `nconv.algorithms`; 'auto' chooses for the size of the blocks.
    axes : int or sequence of int, optional
        Convolve along these axes; along the others the inputs are broadcast. All axes by default.

    Returns
    -------
    dask array
        Of the shape and dtype of ``nconv.convolve(in1, in2)``. The chunks are those of `in1`, the last one longer or
        shorter by the kernel; a chunk that is too short to be its neighbour's halo is joined to it.

    Raises
    ------
    ValueError
        As `nconv.convolve`, and for chunks of unknown size.
    TypeError
        If `in1` is not a dask array; as `nconv.convolve`.

    References
    ----------
    .. [1] Oppenheim, Schafer: Discrete-Time Signal Processing, section 8.7 (overlap-save).

    Examples
    --------
    >>> import dask.array as da, numpy as np, nconv.dask
    >>> x = da.arange(1, 9, chunks=4)
    >>> y = nconv.dask.convolve(x, [0, 1, 10])
    >>> y.chunks
    ((4, 6),)
    >>> y.compute()
    array([ 0,  1, 12, 23, 34, 45, 56, 67, 78, 80])
    """
    return _run("convolve", in1, in2, mode, method, axes)


def correlate(in1: da.Array, in2: ArrayLike | da.Array, mode: str = "full", method: str = "auto", *,
              axes: int | Sequence[int] | None = None) -> da.Array:
    """Cross-correlate a dask array with a kernel: `nconv.correlate`, block by block.

    ``out[p] = sum over t of in1[p + t] conj(in2[t])``, p counted from 1 - n2 under 'full'.

    Parameters
    ----------
    in1, in2, mode, method, axes
        As in `convolve`.

    Returns
    -------
    dask array
        As from `convolve`.

    Raises
    ------
    ValueError, TypeError
        As in `convolve`.

    References
    ----------
    .. [1] Oppenheim, Schafer: Discrete-Time Signal Processing, section 8.7 (overlap-save).

    Examples
    --------
    >>> import dask.array as da, numpy as np, nconv.dask
    >>> x = da.arange(1, 9, chunks=4)
    >>> nconv.dask.correlate(x, [0, 1, 10], mode="valid").compute()
    array([32, 43, 54, 65, 76, 87])
    """
    return _run("correlate", in1, in2, mode, method, axes)
