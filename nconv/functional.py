"""PyTorch's convolutions of layers on NumPy arrays: cross-correlations with channels, groups, stride and dilation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import engine, registry
from .geometry import same_padding, span
from .lowering import Call, Route, as_array, check_device, check_word, lowered_by
from .problem import ArraySpec, ConvProblem

PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
LAYOUTS = ("channels_first", "channels_last")

# --------------------------------------------------------------------------------------------------- Arguments


def per_axis(value: Any, name: str, rank: int, least: int) -> tuple[int, ...]:
    """One integer of at least `least` for each axis, from one for all or one for each."""
    values = (value,) * rank if isinstance(value, (int, np.integer)) else value
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)) or len(values) != rank or any(
            isinstance(v, (bool, np.bool_)) or not isinstance(v, (int, np.integer)) or v < least for v in values):
        raise ValueError(f"{name} must be an integer of at least {least} or {rank} of them: {name}={value!r}")
    return tuple(map(int, values))


def pad_pairs(value: Any, rank: int, sizes: Sequence[int], taps: Sequence[int], stride: Sequence[int],
              dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(low, high) for each axis, from an integer, integers, pairs, 'same' or 'valid'."""
    if isinstance(value, str):
        word = check_word(value, "padding", ("same", "valid"))
        if word == "valid":
            return ((0, 0),) * rank
        return tuple(map(same_padding, sizes, taps, stride, dilation))
    values = (value,) * rank if isinstance(value, (int, np.integer)) else value
    try:
        pairs = [(v, v) if isinstance(v, (int, np.integer)) else tuple(v) for v in values]
    except TypeError:
        pairs = []
    if len(pairs) != rank or any(len(pair) != 2 or not all(
            isinstance(v, (int, np.integer)) and not isinstance(v, (bool, np.bool_)) and v >= 0 for v in pair)
            for pair in pairs):
        raise ValueError(f"padding must be an integer of at least 0, {rank} of them, {rank} pairs (low, high), 'same' "
                         f"or 'valid': padding={value!r}")
    return tuple((int(low), int(high)) for low, high in pairs)


def check_groups(groups: Any, **channels: int) -> int:
    """`groups` where it is a positive integer that divides every number of channels."""
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ValueError(f"groups must be a positive integer: groups={groups!r}")
    for name, count in channels.items():
        if count % groups:
            raise ValueError(f"groups must divide {name}: groups={groups}, {name}={count}")
    return int(groups)


def split_shape(shape: tuple[int, ...], rank: int, layout: str, name: str = "input") -> tuple[int | None, int, tuple]:
    """(N or None where unbatched, C, spatial extents) of an input's shape."""
    if len(shape) not in (rank + 1, rank + 2):
        raise ValueError(f"{name} must have {rank + 2} dimensions, or {rank + 1} without a batch: "
                         f"{name}.ndim={len(shape)}, {name}.shape={shape}")
    batch = shape[0] if len(shape) == rank + 2 else None
    rest = shape[len(shape) - rank - 1:]
    return (batch, rest[-1], rest[:-1]) if layout == "channels_last" else (batch, rest[0], rest[1:])


def layer_views(problem: ConvProblem, batched: bool) -> tuple[Callable, Callable, tuple[int, ...]]:
    """(enter, leave, shape of the result) between a layer's arrays and the engine's order."""
    N, K, *out = problem.out_shape
    shape = (*out, K) if problem.channels_last else (K, *out)

    def enter(x):
        x = x if batched else x[np.newaxis]
        return np.moveaxis(x, -1, 1) if problem.channels_last else x

    def leave(y):
        y = np.moveaxis(y, 1, -1) if problem.channels_last else y
        return y if batched else y[0]

    return enter, leave, (N, *shape) if batched else shape


def _check_fits(problem: ConvProblem) -> None:
    for a, (n, k, d, (low, high)) in enumerate(zip(
            problem.size, problem.kernel, problem.dilation, problem.padding, strict=True)):
        if span(k, d) > n + low + high:
            raise ValueError(f"weight is larger than the padded input along axis {a}: kernel {k} with dilation {d} "
                             f"spans {span(k, d)}, input {n} with padding ({low}, {high}) has {n + low + high}")


def _check_weight(shape: tuple[int, ...], rank: int) -> None:
    if len(shape) != rank + 2:
        raise ValueError(f"weight must have {rank + 2} dimensions: weight.ndim={len(shape)}, weight.shape={shape}")
    if 0 in shape:
        raise ValueError(f"weight must not be empty: weight.shape={shape}")


def _check_bias(bias: Any, channels: int) -> Any:
    if bias is None:
        return None
    bias = as_array(bias, "bias", lists=False)
    if bias.shape != (channels,):
        raise ValueError(f"bias must have one entry for each of the {channels} output channels: "
                         f"bias.shape={bias.shape}")
    return bias


# ---------------------------------------------------------------------------------------------------- Lowering


@lru_cache(maxsize=1024)
def _conv_route(x_shape, w_shape, dtype, stride, padding, dilation, groups, padding_mode, layout, device) -> Route:
    rank = len(w_shape) - 2
    batch, channels, size = split_shape(x_shape, rank, layout)
    groups = check_groups(groups, **{"input channels": channels, "output channels": w_shape[0]})
    if channels != w_shape[1] * groups:
        raise ValueError(f"input and weight disagree on channels: input has {channels}, weight.shape={w_shape} with "
                         f"groups={groups} expects {w_shape[1] * groups}")
    kernel = w_shape[2:]
    problem = ConvProblem(
        N=1 if batch is None else batch, groups=groups, C=w_shape[1], K=w_shape[0] // groups, size=size, kernel=kernel,
        stride=stride, dilation=dilation, padding=pad_pairs(padding, rank, size, kernel, stride, dilation), dtype=dtype,
        boundary=(PADDING_MODES[padding_mode],) * rank, channels_last=layout == "channels_last",
        device=device)
    if padding_mode != "zeros" and 0 in size:
        raise ValueError(f"padding_mode={padding_mode!r} needs a non-empty input: input.shape={x_shape}")
    _check_fits(problem)
    enter, leave, shape = layer_views(problem, batch is not None)
    line = _as_line(problem)
    return Route(line, lambda x: enter(x).reshape(line.x_shape), lambda w: w.reshape(line.weight_shape),
                 lambda y: leave(y.reshape(problem.out_shape)), shape, problem.dtype)


def _as_line(problem: ConvProblem) -> ConvProblem:
    """The same problem with one axis where windows of one element look at each position by itself."""
    if (problem.positions == 0 or problem.rank == 1 or set(problem.kernel + problem.stride) != {1}
            or any(map(any, problem.padding))):
        return problem
    return problem.replace(size=(problem.positions,), kernel=(1,), stride=(1,), dilation=(1,), padding=((0, 0),),
                           boundary=problem.boundary[:1], upsample=())


def _lower_conv(rank, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                layout="channels_first", method="auto", out=None, device=None) -> Call:
    input, weight = as_array(input, "input", lists=False), as_array(weight, "weight", lists=False)
    layout = check_word(layout, "layout", LAYOUTS)
    padding_mode = check_word(padding_mode, "padding_mode", tuple(PADDING_MODES))
    method = check_word(method, "method", ("auto", *registry.names()))
    _check_weight(weight.shape, rank)
    bias = _check_bias(bias, weight.shape[0])
    device = check_device(device, input=input, weight=weight, bias=bias)
    route = _conv_route(input.shape, weight.shape, _promote(input, weight, bias), per_axis(stride, "stride", rank, 1),
                        _hashable(padding), per_axis(dilation, "dilation", rank, 1), groups, padding_mode, layout,
                        device)
    return Call(route, input, weight, bias, method, out)


@lru_cache(maxsize=1024)
def _transpose_route(x_shape, w_shape, dtype, stride, padding, output_padding, groups, dilation, layout,
                     device) -> Route:
    rank = len(w_shape) - 2
    batch, channels, size = split_shape(x_shape, rank, layout)
    groups = check_groups(groups, **{"input channels": channels})
    if channels != w_shape[0]:
        raise ValueError(f"input and weight disagree on channels: input has {channels}, weight.shape={w_shape} expects "
                         f"{w_shape[0]}")
    kernel = w_shape[2:]
    if isinstance(padding, str):
        raise ValueError(f"padding of a transposed convolution must be numbers: padding={padding!r}")
    pairs = pad_pairs(padding, rank, size, kernel, stride, dilation)
    for a, (extra, s, d) in enumerate(zip(output_padding, stride, dilation, strict=True)):
        if extra >= max(s, d):
            raise ValueError(f"output_padding must be smaller than stride or dilation: output_padding={extra}, "
                             f"stride={s}, dilation={d} along axis {a}")
    out = [(n - 1) * s - low - high + span(k, d) + extra for n, s, (low, high), k, d, extra in zip(
        size, stride, pairs, kernel, dilation, output_padding, strict=True)]
    if any(n < 1 for n in out):
        raise ValueError(f"padding leaves no output: output size {tuple(out)} for input.shape={x_shape}, "
                         f"weight.shape={w_shape}, padding={padding!r}")
    problem = adjoint_problem(1 if batch is None else batch, groups, w_shape, size, out, stride, pairs, dilation, dtype,
                              layout, device)
    enter, leave, shape = layer_views(problem, batch is not None)
    return Route(problem, enter, lambda w: adjoint_weight(w, groups), leave, shape, problem.dtype)


def adjoint_problem(N, groups, w_shape, size, out, stride, padding, dilation, dtype, layout="channels_first",
                    device="cpu"):
    """The adjoint of a convolution with this weight, as a problem: from its output extents `size` to its input's `out`.

    A position of the adjoint's output gathers from every `stride`-th position of an input with zeros between; taps run
    backwards.
    """
    kernel = w_shape[2:]
    pairs = []
    for n, o, s, (low, _), k, d in zip(size, out, stride, padding, kernel, dilation, strict=True):
        before = span(k, d) - 1 - low
        pairs.append((before, o + span(k, d) - 1 - ((n - 1) * s + 1 if n else 0) - before))
    return ConvProblem(
        N=N, groups=groups, C=w_shape[0] // groups, K=w_shape[1], size=tuple(size), kernel=kernel,
        stride=(1,) * len(kernel), dilation=dilation, padding=tuple(pairs), dtype=dtype, upsample=stride,
        channels_last=layout == "channels_last", device=device)


def adjoint_weight(weight: np.ndarray, groups: int) -> np.ndarray:
    """(C, K/groups, *kernel) as (K, C/groups, *kernel reversed)."""
    C, K, *kernel = weight.shape
    exchanged = weight.reshape(groups, C // groups, K, *kernel).swapaxes(1, 2).reshape(groups * K, C // groups, *kernel)
    return exchanged[(slice(None), slice(None), *(slice(None, None, -1) for _ in kernel))]


def _lower_transpose(rank, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *,
                     layout="channels_first", method="auto", out=None, device=None) -> Call:
    input, weight = as_array(input, "input", lists=False), as_array(weight, "weight", lists=False)
    layout = check_word(layout, "layout", LAYOUTS)
    method = check_word(method, "method", ("auto", *registry.names()))
    _check_weight(weight.shape, rank)
    groups = check_groups(groups)
    bias = _check_bias(bias, weight.shape[1] * groups)
    device = check_device(device, input=input, weight=weight, bias=bias)
    route = _transpose_route(
        input.shape, weight.shape, _promote(input, weight, bias), per_axis(stride, "stride", rank, 1),
        _hashable(padding), per_axis(output_padding, "output_padding", rank, 0), groups,
        per_axis(dilation, "dilation", rank, 1), layout, device)
    return Call(route, input, weight, bias, method, out)


def _conv(rank, input, weight, bias, stride, padding, dilation, groups, padding_mode, layout, method, out, device):
    """The result of conv1d to conv3d."""
    return engine.answer(
        (input, weight, bias),
        ("conv", rank, stride, padding, dilation, groups, padding_mode, layout, method, device), out,
        lambda: _lower_conv(rank, input, weight, bias, stride, padding, dilation, groups, padding_mode=padding_mode,
                            layout=layout, method=method, out=out, device=device))


def _conv_transpose(rank, input, weight, bias, stride, padding, output_padding, groups, dilation, layout, method, out,
                    device):
    """The result of conv_transpose1d to conv_transpose3d."""
    return engine.answer(
        (input, weight, bias),
        ("transpose", rank, stride, padding, output_padding, groups, dilation, layout, method, device), out,
        lambda: _lower_transpose(rank, input, weight, bias, stride, padding, output_padding, groups, dilation,
                                 layout=layout, method=method, out=out, device=device))


def _promote(*arrays: Any) -> np.dtype:
    return np.result_type(*(a.dtype for a in arrays if a is not None))


def _hashable(value: Any) -> Any:
    """Nested lists as tuples, so that they can be the key of a cache."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return tuple(_hashable(v) for v in value)
    return value


# ------------------------------------------------------------------------------------------------ Public names


def _lower_conv1d(input, weight, *args, **kwargs) -> Call:
    return _lower_conv(1, input, weight, *args, **kwargs)


@lowered_by(_lower_conv1d)
def conv1d(input: NDArray | ArraySpec, weight: NDArray, bias: NDArray | None = None, stride: int | Sequence[int] = 1,
           padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1, *, padding_mode: str = "zeros",
           layout: str = "channels_first", method: str = "auto", out: NDArray | None = None,
           device: str | None = None) -> NDArray:
    """Convolve a batch of one-dimensional layers, in PyTorch's meaning: a cross-correlation.

    ``out[n, k, q] = bias[k] + sum over c, s of weight[k, c, s] * input[n, c, q * stride + s * dilation - padding]``,
    c running over the channels of k's group.

    Parameters
    ----------
    input : ndarray
        (N, C, W), or (C, W) without a batch; with layout 'channels_last' (N, W, C) or (W, C).
    weight : ndarray
        (K, C / groups, S).
    bias : ndarray, optional
        (K,).
    stride, dilation : int or sequence of int, default 1
        One for all axes, or one for each.
    padding : int, sequence of int, sequence of (low, high), 'same' or 'valid', default 0
        'same' gives ceil(size / stride) outputs, the odd element high; 'valid' is 0.
    groups : int, default 1
        Input and output channels fall into so many groups that do not see each other.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}
        What the padding holds.
    layout : {'channels_first', 'channels_last'}
        Where the channels of input and output lie.
    method : str
        'auto', or an algorithm of `nconv.algorithms`: 'direct', 'depthwise', 'im2col', 'winograd', 'fft_tiles', ...
    out : ndarray, optional
        Takes the result; must have its shape and dtype.
    device : {'cpu', 'cuda'}, optional
        Where to compute; by default where the arrays are.

    Returns
    -------
    ndarray
        (N, K, Q), or without N, or channels last as the input; of the dtype to which NumPy promotes the arguments'.
        float16 is computed in float32.

    Raises
    ------
    ValueError
        For wrong dimensions, channels, groups, stride, padding, dilation, a weight larger than the padded input, an
        unknown word, or `out` of the wrong shape.
    TypeError
        For what is not an array, unsupported dtypes, or `out` of the wrong dtype.
    MemoryError
        If no algorithm fits the workspace limit.
    nconv.DeviceError
        If the device cannot be used.

    References
    ----------
    .. [1] Dumoulin, Visin 2016, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), section 2.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> x = np.array([[1.0, 2.0, 3.0, 4.0]])
    >>> nconv.conv1d(x, np.array([[[1.0, 10.0, 100.0]]]), padding="same")
    array([[210., 321., 432.,  43.]])
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups, padding_mode, layout, method, out, device)


def _lower_conv2d(input, weight, *args, **kwargs) -> Call:
    return _lower_conv(2, input, weight, *args, **kwargs)


@lowered_by(_lower_conv2d)
def conv2d(input: NDArray | ArraySpec, weight: NDArray, bias: NDArray | None = None, stride: int | Sequence[int] = 1,
           padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1, *, padding_mode: str = "zeros",
           layout: str = "channels_first", method: str = "auto", out: NDArray | None = None,
           device: str | None = None) -> NDArray:
    """Convolve a batch of two-dimensional layers, in PyTorch's meaning: a cross-correlation.

    ``out[n, k, p, q] = bias[k] + sum over c, r, s of weight[k, c, r, s] * input[n, c, p * stride + r * dilation -
    padding, q * stride + s * dilation - padding]``, c running over the channels of k's group.

    Parameters
    ----------
    input : ndarray
        (N, C, H, W), or (C, H, W) without a batch; with layout 'channels_last' (N, H, W, C) or (H, W, C).
    weight : ndarray
        (K, C / groups, R, S).
    bias, stride, padding, dilation, groups, padding_mode, layout, method, out, device
        As in `conv1d`.

    Returns
    -------
    ndarray
        (N, K, P, Q), or without N, or channels last as the input.

    Raises
    ------
    ValueError, TypeError, MemoryError, nconv.DeviceError
        As in `conv1d`.

    References
    ----------
    .. [1] Dumoulin, Visin 2016, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), section 2.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> x = np.arange(9.0).reshape(1, 3, 3)
    >>> nconv.conv2d(x, np.array([[[[1.0, 0.0], [0.0, 10.0]]]]))
    array([[[40., 51.],
            [73., 84.]]])
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups, padding_mode, layout, method, out, device)


def _lower_conv3d(input, weight, *args, **kwargs) -> Call:
    return _lower_conv(3, input, weight, *args, **kwargs)


@lowered_by(_lower_conv3d)
def conv3d(input: NDArray | ArraySpec, weight: NDArray, bias: NDArray | None = None, stride: int | Sequence[int] = 1,
           padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1, *, padding_mode: str = "zeros",
           layout: str = "channels_first", method: str = "auto", out: NDArray | None = None,
           device: str | None = None) -> NDArray:
    """Convolve a batch of three-dimensional layers, in PyTorch's meaning: a cross-correlation.

    As `conv2d` with one more axis: ``out[n, k, o, p, q] = bias[k] + sum over c, t, r, s of weight[k, c, t, r, s] *
    input[n, c, o * stride + t * dilation - padding, ...]``.

    Parameters
    ----------
    input : ndarray
        (N, C, D, H, W), or (C, D, H, W) without a batch; with layout 'channels_last' C comes last.
    weight : ndarray
        (K, C / groups, T, R, S).
    bias, stride, padding, dilation, groups, padding_mode, layout, method, out, device
        As in `conv1d`.

    Returns
    -------
    ndarray
        (N, K, O, P, Q), or without N, or channels last as the input.

    Raises
    ------
    ValueError, TypeError, MemoryError, nconv.DeviceError
        As in `conv1d`.

    References
    ----------
    .. [1] Dumoulin, Visin 2016, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), section 2.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> x = np.arange(8.0).reshape(1, 2, 2, 2)
    >>> nconv.conv3d(x, np.array([1.0, 10.0]).reshape(1, 1, 2, 1, 1))
    array([[[[40., 51.],
             [62., 73.]]]])
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups, padding_mode, layout, method, out, device)


def _lower_conv_transpose1d(input, weight, *args, **kwargs) -> Call:
    return _lower_transpose(1, input, weight, *args, **kwargs)


@lowered_by(_lower_conv_transpose1d)
def conv_transpose1d(input: NDArray | ArraySpec, weight: NDArray, bias: NDArray | None = None,
                     stride: int | Sequence[int] = 1, padding: Any = 0, output_padding: int | Sequence[int] = 0,
                     groups: int = 1, dilation: int | Sequence[int] = 1, *, layout: str = "channels_first",
                     method: str = "auto", out: NDArray | None = None, device: str | None = None) -> NDArray:
    """Transposed convolution of a batch of one-dimensional layers: the input gradient of `conv1d`.

    ``out[n, k, q * stride + s * dilation - padding] += weight[c, k, s] * input[n, c, q]`` over all c, q and s, plus
    bias[k].

    Parameters
    ----------
    input : ndarray
        (N, C, W), or (C, W) without a batch; with layout 'channels_last' C comes last.
    weight : ndarray
        (C, K / groups, S).
    bias : ndarray, optional
        (K,).
    stride, dilation : int or sequence of int, default 1
    padding : int, sequence of int, or sequence of (low, high), default 0
        So much is cut from the ends of the result.
    output_padding : int or sequence of int, default 0
        So many positions are added at the high end; smaller than stride or dilation.
    groups, layout, method, out, device
        As in `conv1d`.

    Returns
    -------
    ndarray
        (N, K, Q) with Q = (W - 1) * stride - 2 * padding + dilation * (S - 1) + output_padding + 1.

    Raises
    ------
    ValueError, TypeError, MemoryError, nconv.DeviceError
        As in `conv1d`; ValueError also for an output_padding that is too large.

    References
    ----------
    .. [1] Dumoulin, Visin 2016, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), section 4.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> nconv.conv_transpose1d(np.array([[1.0, 2.0]]), np.array([[[1.0, 10.0, 100.0]]]), stride=2)
    array([[  1.,  10., 102.,  20., 200.]])
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation, layout, method,
                           out, device)


def _lower_conv_transpose2d(input, weight, *args, **kwargs) -> Call:
    return _lower_transpose(2, input, weight, *args, **kwargs)


@lowered_by(_lower_conv_transpose2d)
def conv_transpose2d(input: NDArray | ArraySpec, weight: NDArray, bias: NDArray | None = None,
                     stride: int | Sequence[int] = 1, padding: Any = 0, output_padding: int | Sequence[int] = 0,
                     groups: int = 1, dilation: int | Sequence[int] = 1, *, layout: str = "channels_first",
                     method: str = "auto", out: NDArray | None = None, device: str | None = None) -> NDArray:
    """Transposed convolution of a batch of two-dimensional layers: the input gradient of `conv2d`.

    As `conv_transpose1d` with two axes.

    Parameters
    ----------
    input : ndarray
        (N, C, H, W), or without N; with layout 'channels_last' C comes last.
    weight : ndarray
        (C, K / groups, R, S).
    bias, stride, padding, output_padding, groups, dilation, layout, method, out, device
        As in `conv_transpose1d`.

    Returns
    -------
    ndarray
        (N, K, P, Q), or without N, or channels last as the input.

    Raises
    ------
    ValueError, TypeError, MemoryError, nconv.DeviceError
        As in `conv_transpose1d`.

    References
    ----------
    .. [1] Dumoulin, Visin 2016, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), section 4.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> x = np.array([1.0, 2.0]).reshape(1, 1, 2)
    >>> nconv.conv_transpose2d(x, np.array([1.0, 10.0]).reshape(1, 1, 1, 2), stride=2).ravel()
    array([ 1., 10.,  2., 20.])
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation, layout, method,
                           out, device)


def _lower_conv_transpose3d(input, weight, *args, **kwargs) -> Call:
    return _lower_transpose(3, input, weight, *args, **kwargs)


@lowered_by(_lower_conv_transpose3d)
def conv_transpose3d(input: NDArray | ArraySpec, weight: NDArray, bias: NDArray | None = None,
                     stride: int | Sequence[int] = 1, padding: Any = 0, output_padding: int | Sequence[int] = 0,
                     groups: int = 1, dilation: int | Sequence[int] = 1, *, layout: str = "channels_first",
                     method: str = "auto", out: NDArray | None = None, device: str | None = None) -> NDArray:
    """Transposed convolution of a batch of three-dimensional layers: the input gradient of `conv3d`.

    As `conv_transpose1d` with three axes.

    Parameters
    ----------
    input : ndarray
        (N, C, D, H, W), or without N; with layout 'channels_last' C comes last.
    weight : ndarray
        (C, K / groups, T, R, S).
    bias, stride, padding, output_padding, groups, dilation, layout, method, out, device
        As in `conv_transpose1d`.

    Returns
    -------
    ndarray
        (N, K, O, P, Q), or without N, or channels last as the input.

    Raises
    ------
    ValueError, TypeError, MemoryError, nconv.DeviceError
        As in `conv_transpose1d`.

    References
    ----------
    .. [1] Dumoulin, Visin 2016, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), section 4.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> x = np.array([1.0, 2.0]).reshape(1, 1, 1, 2)
    >>> nconv.conv_transpose3d(x, np.array([1.0, 10.0]).reshape(1, 1, 1, 1, 2), stride=2).ravel()
    array([ 1., 10.,  2., 20.])
    """
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation, layout, method,
                           out, device)
