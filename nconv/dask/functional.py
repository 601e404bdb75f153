"""`nconv.conv1d` to `nconv.conv3d` on dask arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import dask.array as da
from numpy.typing import NDArray

from .. import functional
from ..lowering import check_word, lower
from . import overlap


def _block(block: Any, weight: Any, bias: Any, pads: overlap.Pads, block_id: tuple[int, ...], *, name: str,
           arguments: dict[str, Any]) -> Any:
    """One block of a layer, all its channels."""
    return getattr(functional, name)(block, weight, bias, padding=pads, **arguments)


def _run(rank: int, input: Any, weight: Any, bias: Any, padding: Any, layout: str, **arguments: Any) -> da.Array:
    name = f"conv{rank}d"
    input = overlap.check_input(input, "input")
    arrays = (overlap.spec(input, "input"), overlap.spec(weight, "weight"),
              None if bias is None else overlap.spec(bias, "bias"))
    layout = check_word(layout, "layout", functional.LAYOUTS)
    call = lower(getattr(functional, name), *arrays, padding=padding, layout=layout, **arguments)
    last = layout == "channels_last"
    spatial = range(input.ndim - rank - last, input.ndim - last)
    channels = input.ndim - 1 if last else input.ndim - rank - 1
    return overlap.run(input, weight, bias, call, overlap.axes_of(call, spatial),
                       partial(_block, name=name, arguments=arguments | {"layout": layout}),
                       whole=(channels,), chunks={channels: (call.route.shape[channels],)})


def conv1d(input: da.Array, weight: NDArray | da.Array, bias: NDArray | da.Array | None = None,
           stride: int | Sequence[int] = 1, padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1, *,
           padding_mode: str = "zeros", layout: str = "channels_first", method: str = "auto") -> da.Array:
    """Convolve a batch of one-dimensional layers: `nconv.conv1d`, block by block.

    Parameters
    ----------
    input, weight, bias, stride, padding, dilation, groups, padding_mode, layout, method
        As in `conv2d`, with one spatial axis: `input` is (N, C, W) or (C, W), `weight` (K, C / groups, S).

    Returns
    -------
    dask array
        As from `conv2d`.

    Raises
    ------
    ValueError, TypeError
        As in `conv2d`.

    References
    ----------
    .. [1] Dumoulin, Visin: A guide to convolution arithmetic for deep learning. arXiv:1603.07285, section 2.

    Examples
    --------
    >>> import dask.array as da, numpy as np, nconv.dask
    >>> x = da.arange(1.0, 9.0, chunks=8).reshape(1, 1, 8)
    >>> nconv.dask.conv1d(x, np.array([[[0.0, 1.0, 10.0]]]), stride=2).compute()
    array([[[32., 54., 76.]]])
    """
    return _run(1, input, weight, bias, padding, layout, stride=stride, dilation=dilation, groups=groups,
                padding_mode=padding_mode, method=method)


def conv2d(input: da.Array, weight: NDArray | da.Array, bias: NDArray | da.Array | None = None,
           stride: int | Sequence[int] = 1, padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1, *,
           padding_mode: str = "zeros", layout: str = "channels_first", method: str = "auto") -> da.Array:
    """Convolve a batch of images with channels: `nconv.conv2d`, block by block.

    ``out[n, k, p, q] = bias[k] + sum over c, r, s of weight[k, c, r, s] * input[n, c, p * stride + r * dilation -
    padding, q * stride + s * dilation - padding]``, c running over the channels of k's group.

    Parameters
    ----------
    input : dask array
        (N, C, H, W), or (C, H, W) without a batch; with layout 'channels_last' C stands last. All channels of a block
        are brought together.
    weight : ndarray or dask array
        (K, C / groups, R, S).
    bias : ndarray or dask array, optional
        (K,).
    stride, padding, dilation, groups, padding_mode, layout, method
        As in `nconv.conv2d`.

    Returns
    -------
    dask array
        Of the shape and dtype of `nconv.conv2d`'s result; the output channels of a block are one chunk. A chunk that
        is too short to be its neighbour's halo is joined to it, and with a stride chunks begin where a window does.

    Raises
    ------
    ValueError
        As `nconv.conv2d`, and for chunks of unknown size.
    TypeError
        If `input` is not a dask array; as `nconv.conv2d`.

    References
    ----------
    .. [1] Dumoulin, Visin: A guide to convolution arithmetic for deep learning. arXiv:1603.07285, section 2.

    Examples
    --------
    >>> import dask.array as da, numpy as np, nconv.dask
    >>> x = da.arange(12.0, chunks=6).reshape(1, 1, 3, 4)
    >>> nconv.dask.conv2d(x, np.array([[[[0.0, 1.0, 10.0]]]]), bias=np.array([0.5])).compute()
    array([[[[ 21.5,  32.5],
             [ 65.5,  76.5],
             [109.5, 120.5]]]])
    """
    return _run(2, input, weight, bias, padding, layout, stride=stride, dilation=dilation, groups=groups,
                padding_mode=padding_mode, method=method)


def conv3d(input: da.Array, weight: NDArray | da.Array, bias: NDArray | da.Array | None = None,
           stride: int | Sequence[int] = 1, padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1, *,
           padding_mode: str = "zeros", layout: str = "channels_first", method: str = "auto") -> da.Array:
    """Convolve a batch of volumes with channels: `nconv.conv3d`, block by block.

    Parameters
    ----------
    input, weight, bias, stride, padding, dilation, groups, padding_mode, layout, method
        As in `conv2d`, with three spatial axes: `input` is (N, C, D, H, W) or (C, D, H, W), `weight`
        (K, C / groups, T, R, S).

    Returns
    -------
    dask array
        As from `conv2d`.

    Raises
    ------
    ValueError, TypeError
        As in `conv2d`.

    References
    ----------
    .. [1] Dumoulin, Visin: A guide to convolution arithmetic for deep learning. arXiv:1603.07285, section 2.

    Examples
    --------
    >>> import dask.array as da, numpy as np, nconv.dask
    >>> x = da.arange(1.0, 9.0, chunks=8).reshape(1, 1, 1, 2, 4)
    >>> nconv.dask.conv3d(x, np.array([[[[[0.0, 1.0, 10.0]]]]])).compute()
    array([[[[[32., 43.],
              [76., 87.]]]]])
    """
    return _run(3, input, weight, bias, padding, layout, stride=stride, dilation=dilation, groups=groups,
                padding_mode=padding_mode, method=method)
