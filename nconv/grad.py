"""Gradients of conv1d, conv2d and conv3d with respect to input and weight (the names of torch.nn.grad).

The input gradient is the adjoint of the convolution. The weight gradient is a convolution too, of the input with the
output's gradient, in which batch and channels have changed places and stride and dilation as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import engine
from .functional import adjoint_problem, adjoint_weight, check_groups, layer_views, pad_pairs, per_axis, split_shape
from .geometry import out_size, product, span
from .lowering import Call, Route, as_array, check_device, lowered_by
from .problem import ConvProblem


def _sizes(value: Any, name: str, rank: int, optional_batch: bool) -> tuple[int, ...]:
    try:
        shape = tuple(int(n) for n in value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a shape: {name}={value!r}") from None
    lengths = (rank + 1, rank + 2) if optional_batch else (rank + 2,)
    if len(shape) not in lengths or any(n < 0 for n in shape):
        raise ValueError(f"{name} must have {' or '.join(map(str, lengths))} extents: {name}={value!r}")
    return shape


def _forward(x_shape, w_shape, grad_shape, stride, padding, dilation, groups):
    """Check the three shapes of a convolution against each other; (batched, N, sizes, outputs, padding pairs)."""
    rank = len(w_shape) - 2
    batch, channels, size = split_shape(x_shape, rank, "channels_first", "input_size")
    check_groups(groups, **{"input channels": channels, "output channels": w_shape[0]})
    if channels != w_shape[1] * groups:
        raise ValueError(f"input and weight disagree on channels: input has {channels}, weight {w_shape} with "
                         f"groups={groups} expects {w_shape[1] * groups}")
    pairs = pad_pairs(padding, rank, size, w_shape[2:], stride, dilation)
    out = tuple(out_size(n, k, s, d, low, high) for n, k, s, d, (low, high) in zip(
        size, w_shape[2:], stride, dilation, pairs, strict=True))
    expected = (w_shape[0], *out) if batch is None else (batch, w_shape[0], *out)
    if grad_shape != expected:
        raise ValueError("grad_output must have the shape of the convolution's output: "
                         f"grad_output.shape={grad_shape}, expected {expected}")
    return batch is not None, 1 if batch is None else batch, size, out, pairs


@lru_cache(maxsize=1024)
def _input_route(x_shape, w_shape, grad_shape, dtype, stride, padding, dilation, groups, device) -> Route:
    batched, N, size, out, pairs = _forward(x_shape, w_shape, grad_shape, stride, padding, dilation, groups)
    problem = adjoint_problem(N, groups, w_shape, out, size, stride, pairs, dilation, dtype, device=device)
    enter, leave, shape = layer_views(problem, batched)
    return Route(problem, enter, lambda w: adjoint_weight(w, groups), leave, shape, dtype)


@lru_cache(maxsize=1024)
def _weight_route(x_shape, w_shape, grad_shape, dtype, stride, padding, dilation, groups, device) -> Route:
    _, N, size, out, pairs = _forward(x_shape, w_shape, grad_shape, stride, padding, dilation, groups)
    C, K, kernel = w_shape[1], w_shape[0] // groups, w_shape[2:]
    # Positions are the weight's taps: only so many outputs are wanted, so the high padding is cut to fit.
    padding = tuple((low, span(o, s) + span(k, d) - 1 - n - low) for n, o, k, s, d, (low, _) in zip(
        size, out, kernel, stride, dilation, pairs, strict=True))
    problem = ConvProblem(N=C, groups=groups, C=N, K=K, size=size, kernel=out, stride=dilation, dilation=stride,
                          padding=padding, dtype=dtype, device=device)

    def enter(x):                # (N, groups C, ...) as (C, groups N, ...)
        return x.reshape(N, groups, C, *size).transpose(2, 1, 0, *range(3, 3 + len(size))).reshape(problem.x_shape)

    def weigh(grad):             # (N, groups K, ...) as (groups K, N, ...)
        return grad.reshape(N, groups * K, *out).swapaxes(0, 1)

    def leave(y):                # (C, groups K, *kernel)
        return y.swapaxes(0, 1)

    return Route(problem, enter, weigh, leave, w_shape, dtype)


def _geometry(rank, stride, dilation, groups, padding):
    return (per_axis(stride, "stride", rank, 1),
            tuple(tuple(p) if isinstance(p, (list, tuple)) else p for p in padding)
            if isinstance(padding, (list, tuple)) else padding,
            per_axis(dilation, "dilation", rank, 1), check_groups(groups))


def _lower_input(rank, input_size, weight, grad_output, stride=1, padding=0, dilation=1, groups=1) -> Call:
    weight = as_array(weight, "weight", lists=False)
    grad_output = as_array(grad_output, "grad_output", lists=False)
    shape = _sizes(input_size, "input_size", rank, True)
    device = check_device(None, weight=weight, grad_output=grad_output)
    route = _input_route(shape, _sizes(weight.shape, "weight.shape", rank, False), grad_output.shape,
                         np.result_type(weight.dtype, grad_output.dtype), *_geometry(
                             rank, stride, dilation, groups, padding), device)
    return Call(route, grad_output, weight)


def _lower_weight(rank, input, weight_size, grad_output, stride=1, padding=0, dilation=1, groups=1) -> Call:
    input = as_array(input, "input", lists=False)
    grad_output = as_array(grad_output, "grad_output", lists=False)
    shape = _sizes(weight_size, "weight_size", rank, False)
    device = check_device(None, input=input, grad_output=grad_output)
    route = _weight_route(input.shape, shape, grad_output.shape, np.result_type(input.dtype, grad_output.dtype),
                          *_geometry(rank, stride, dilation, groups, padding), device)
    return Call(route, input, grad_output)


def _run(call: Call) -> NDArray:
    """Run a gradient; without any output position the gradient is zero."""
    if product(call.weight.shape) == 0 or product(call.x.shape) == 0:
        return engine.empty_result(call)
    return engine.execute(call)


def _lower_conv1d_input(input_size, weight, grad_output, *args, **kwargs) -> Call:
    return _lower_input(1, input_size, weight, grad_output, *args, **kwargs)


@lowered_by(_lower_conv1d_input)
def conv1d_input(input_size: Sequence[int], weight: NDArray, grad_output: NDArray, stride: int | Sequence[int] = 1,
                 padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> NDArray:
    """Gradient of `nconv.conv1d` with respect to its input.

    ``grad_input[n, c, q * stride + s * dilation - padding] += weight[k, c, s] * grad_output[n, k, q]`` over all k, q
    and s, with 1 spatial axis.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the convolution's input, (N, C, W) or without N.
    weight : ndarray
        (K, C / groups, S).
    grad_output : ndarray
        Gradient of the convolution's output, of its shape.
    stride, padding, dilation, groups
        Those of the convolution.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ValueError
        If the shapes do not belong together.
    TypeError
        For what is not an array.

    References
    ----------
    .. [1] Goodfellow, Bengio, Courville 2016, Deep Learning, section 9.5.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> w, g = np.array([1.0, 10.0]).reshape(1, 1, 2), np.array([1.0, 2.0, 3.0]).reshape(1, 3)
    >>> nconv.grad.conv1d_input((1, 4), w, g).ravel()
    array([ 1., 12., 23., 30.])
    """
    return _run(_lower_input(1, input_size, weight, grad_output, stride, padding, dilation, groups))


def _lower_conv2d_input(input_size, weight, grad_output, *args, **kwargs) -> Call:
    return _lower_input(2, input_size, weight, grad_output, *args, **kwargs)


@lowered_by(_lower_conv2d_input)
def conv2d_input(input_size: Sequence[int], weight: NDArray, grad_output: NDArray, stride: int | Sequence[int] = 1,
                 padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> NDArray:
    """Gradient of `nconv.conv2d` with respect to its input.

    ``grad_input[n, c, q * stride + s * dilation - padding] += weight[k, c, s] * grad_output[n, k, q]`` over all k, q
    and s, with 2 spatial axes.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the convolution's input, (N, C, H, W) or without N.
    weight : ndarray
        (K, C / groups, R, S).
    grad_output : ndarray
        Gradient of the convolution's output, of its shape.
    stride, padding, dilation, groups
        Those of the convolution.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ValueError
        If the shapes do not belong together.
    TypeError
        For what is not an array.

    References
    ----------
    .. [1] Goodfellow, Bengio, Courville 2016, Deep Learning, section 9.5.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> w, g = np.array([1.0, 10.0]).reshape(1, 1, 1, 2), np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3)
    >>> nconv.grad.conv2d_input((1, 1, 4), w, g).ravel()
    array([ 1., 12., 23., 30.])
    """
    return _run(_lower_input(2, input_size, weight, grad_output, stride, padding, dilation, groups))


def _lower_conv3d_input(input_size, weight, grad_output, *args, **kwargs) -> Call:
    return _lower_input(3, input_size, weight, grad_output, *args, **kwargs)


@lowered_by(_lower_conv3d_input)
def conv3d_input(input_size: Sequence[int], weight: NDArray, grad_output: NDArray, stride: int | Sequence[int] = 1,
                 padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> NDArray:
    """Gradient of `nconv.conv3d` with respect to its input.

    ``grad_input[n, c, q * stride + s * dilation - padding] += weight[k, c, s] * grad_output[n, k, q]`` over all k, q
    and s, with 3 spatial axes.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the convolution's input, (N, C, D, H, W) or without N.
    weight : ndarray
        (K, C / groups, T, R, S).
    grad_output : ndarray
        Gradient of the convolution's output, of its shape.
    stride, padding, dilation, groups
        Those of the convolution.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ValueError
        If the shapes do not belong together.
    TypeError
        For what is not an array.

    References
    ----------
    .. [1] Goodfellow, Bengio, Courville 2016, Deep Learning, section 9.5.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> w, g = np.array([1.0, 10.0]).reshape(1, 1, 1, 1, 2), np.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    >>> nconv.grad.conv3d_input((1, 1, 1, 4), w, g).ravel()
    array([ 1., 12., 23., 30.])
    """
    return _run(_lower_input(3, input_size, weight, grad_output, stride, padding, dilation, groups))


def _lower_conv1d_weight(input, weight_size, grad_output, *args, **kwargs) -> Call:
    return _lower_weight(1, input, weight_size, grad_output, *args, **kwargs)


@lowered_by(_lower_conv1d_weight)
def conv1d_weight(input: NDArray, weight_size: Sequence[int], grad_output: NDArray, stride: int | Sequence[int] = 1,
                  padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> NDArray:
    """Gradient of `nconv.conv1d` with respect to its weight.

    ``grad_weight[k, c, s] = sum over n, q of grad_output[n, k, q] * input[n, c, q * stride + s * dilation - padding]``,
    with 1 spatial axis.

    Parameters
    ----------
    input : ndarray
        (N, C, W) or without N.
    weight_size : sequence of int
        Shape of the weight, (K, C / groups, S).
    grad_output : ndarray
        Gradient of the convolution's output, of its shape.
    stride, padding, dilation, groups
        Those of the convolution.

    Returns
    -------
    ndarray
        Of shape `weight_size`.

    Raises
    ------
    ValueError
        If the shapes do not belong together.
    TypeError
        For what is not an array.

    References
    ----------
    .. [1] Goodfellow, Bengio, Courville 2016, Deep Learning, section 9.5.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> x, g = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4), np.array([1.0, 10.0, 100.0]).reshape(1, 3)
    >>> nconv.grad.conv1d_weight(x, (1, 1, 2), g).ravel()
    array([321., 432.])
    """
    return _run(_lower_weight(1, input, weight_size, grad_output, stride, padding, dilation, groups))


def _lower_conv2d_weight(input, weight_size, grad_output, *args, **kwargs) -> Call:
    return _lower_weight(2, input, weight_size, grad_output, *args, **kwargs)


@lowered_by(_lower_conv2d_weight)
def conv2d_weight(input: NDArray, weight_size: Sequence[int], grad_output: NDArray, stride: int | Sequence[int] = 1,
                  padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> NDArray:
    """Gradient of `nconv.conv2d` with respect to its weight.

    ``grad_weight[k, c, s] = sum over n, q of grad_output[n, k, q] * input[n, c, q * stride + s * dilation - padding]``,
    with 2 spatial axes.

    Parameters
    ----------
    input : ndarray
        (N, C, H, W) or without N.
    weight_size : sequence of int
        Shape of the weight, (K, C / groups, R, S).
    grad_output : ndarray
        Gradient of the convolution's output, of its shape.
    stride, padding, dilation, groups
        Those of the convolution.

    Returns
    -------
    ndarray
        Of shape `weight_size`.

    Raises
    ------
    ValueError
        If the shapes do not belong together.
    TypeError
        For what is not an array.

    References
    ----------
    .. [1] Goodfellow, Bengio, Courville 2016, Deep Learning, section 9.5.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> x, g = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4), np.array([1.0, 10.0, 100.0]).reshape(1, 1, 3)
    >>> nconv.grad.conv2d_weight(x, (1, 1, 1, 2), g).ravel()
    array([321., 432.])
    """
    return _run(_lower_weight(2, input, weight_size, grad_output, stride, padding, dilation, groups))


def _lower_conv3d_weight(input, weight_size, grad_output, *args, **kwargs) -> Call:
    return _lower_weight(3, input, weight_size, grad_output, *args, **kwargs)


@lowered_by(_lower_conv3d_weight)
def conv3d_weight(input: NDArray, weight_size: Sequence[int], grad_output: NDArray, stride: int | Sequence[int] = 1,
                  padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> NDArray:
    """Gradient of `nconv.conv3d` with respect to its weight.

    ``grad_weight[k, c, s] = sum over n, q of grad_output[n, k, q] * input[n, c, q * stride + s * dilation - padding]``,
    with 3 spatial axes.

    Parameters
    ----------
    input : ndarray
        (N, C, D, H, W) or without N.
    weight_size : sequence of int
        Shape of the weight, (K, C / groups, T, R, S).
    grad_output : ndarray
        Gradient of the convolution's output, of its shape.
    stride, padding, dilation, groups
        Those of the convolution.

    Returns
    -------
    ndarray
        Of shape `weight_size`.

    Raises
    ------
    ValueError
        If the shapes do not belong together.
    TypeError
        For what is not an array.

    References
    ----------
    .. [1] Goodfellow, Bengio, Courville 2016, Deep Learning, section 9.5.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> x, g = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4), np.array([1.0, 10.0, 100.0]).reshape(1, 1, 1, 3)
    >>> nconv.grad.conv3d_weight(x, (1, 1, 1, 1, 2), g).ravel()
    array([321., 432.])
    """
    return _run(_lower_weight(3, input, weight_size, grad_output, stride, padding, dilation, groups))
