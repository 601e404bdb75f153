"""Conv1d to Conv3d and ConvTranspose1d to ConvTranspose3d: PyTorch's layers on the engine's convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import functional, grad
from ..boundary import index_map
from ..functional import PADDING_MODES, check_groups, pad_pairs, per_axis
from ..lowering import as_array, check_word
from .module import Module, Parameter, deliver
from .plans import Plans


class _Layer(Module):
    """What convolutions and transposed convolutions share."""

    _rank: int
    padding: Any
    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_channels, out_channels, kernel_size, stride, dilation, groups, bias, dtype, rng, transposed):
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a positive integer: {name}={value!r}")
        self.in_channels, self.out_channels = int(in_channels), int(out_channels)
        self.groups = check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        self.kernel_size = per_axis(kernel_size, "kernel_size", self._rank, 1)
        self.stride = per_axis(stride, "stride", self._rank, 1)
        self.dilation = per_axis(dilation, "dilation", self._rank, 1)
        first, second = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        # PyTorch's default: kaiming_uniform_(a=sqrt(5)) is uniform within 1 / sqrt(fan in), the bias likewise.
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        rng = np.random.default_rng(rng)
        self.weight = Parameter(rng.uniform(-bound, bound, shape), dtype)
        self.bias = Parameter(rng.uniform(-bound, bound, out_channels), dtype) if bias else None

    def _add_bias_gradient(self, grad_output: NDArray) -> None:
        if self.bias is not None:
            grad_output = as_array(grad_output, "grad_output", lists=False)
            channel = grad_output.ndim - self._rank - 1
            self.bias.accumulate(grad_output.sum(axis=tuple(a for a in range(grad_output.ndim) if a != channel)))

    def __repr__(self) -> str:
        return (f"{type(self).__name__}({self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}, padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, "
                f"bias={self.bias is not None})")


class _Conv(_Layer):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1, padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
                 bias: bool = True, padding_mode: str = "zeros", *, dtype: DTypeLike = "float32", rng: Any = None):
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, dtype, rng, False)
        self.padding = padding
        self.padding_mode = check_word(padding_mode, "padding_mode", tuple(PADDING_MODES))
        self._pairs(self.kernel_size)                    # refuses a wrong padding now
        self._plans = Plans(getattr(functional, f"conv{self._rank}d"), stride=self.stride, padding=padding,
                            dilation=self.dilation, groups=self.groups, padding_mode=self.padding_mode)

    def _pairs(self, size: Sequence[int]) -> tuple[tuple[int, int], ...]:
        return pad_pairs(self.padding, self._rank, size, self.kernel_size, self.stride, self.dilation)

    def forward(self, x: NDArray) -> NDArray:
        """The convolution of `x`, (N, C, ...) or (C, ...)."""
        x = as_array(x, "x", lists=False)
        y = self._plans(x, self.weight, self.bias)
        self._remember(x)
        return y

    def backward(self, grad_output: NDArray, *, input_gradient: bool = True) -> NDArray | None:
        """As `Module.backward`."""
        x = self._recall()
        pairs = self._pairs(x.shape[x.ndim - self._rank:])
        maps = None
        if self.padding_mode != "zeros" and any(map(any, pairs)):
            maps = [index_map(PADDING_MODES[self.padding_mode], n, low, n + low + high)
                    for n, (low, high) in zip(x.shape[x.ndim - self._rank:], pairs, strict=True)]
            for axis, chosen in enumerate(maps, start=x.ndim - self._rank):
                x = x.take(chosen, axis)
            pairs = ((0, 0),) * self._rank
        geometry = (self.stride, pairs, self.dilation, self.groups)
        self.weight.accumulate(getattr(grad, f"conv{self._rank}d_weight")(
            x, self.weight.shape, grad_output, *geometry))
        self._add_bias_gradient(grad_output)
        if not input_gradient:
            return None
        result = getattr(grad, f"conv{self._rank}d_input")(x.shape, self.weight.array, grad_output, *geometry)
        if maps is None:
            return result
        padded = as_array(result, "grad_output")
        return deliver(_fold(padded, maps, self._pairs(self._memory.shape[x.ndim - self._rank:])), padded)


def _fold(padded: NDArray, maps: Sequence[NDArray], pairs: Sequence[tuple[int, int]]) -> NDArray:
    """The adjoint of padding: what lies in the padding is added to the elements that it repeats."""
    for axis, (chosen, (low, high)) in enumerate(zip(maps, pairs, strict=True), start=padded.ndim - len(maps)):
        lines = np.moveaxis(padded, axis, 0)
        count = lines.shape[0]
        inner = lines[low:count - high].copy()
        for position in (*range(low), *range(count - high, count)):
            inner[chosen[position]] += lines[position]
        padded = np.moveaxis(inner, 0, axis)
    return padded


class _ConvTranspose(_Layer):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1, padding: Any = 0, output_padding: int | Sequence[int] = 0,
                 groups: int = 1, bias: bool = True, dilation: int | Sequence[int] = 1, padding_mode: str = "zeros", *,
                 dtype: DTypeLike = "float32", rng: Any = None):
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, dtype, rng, True)
        check_word(padding_mode, "padding_mode", ("zeros",))
        if isinstance(padding, str):
            raise ValueError(f"padding of a transposed convolution must be numbers: padding={padding!r}")
        self.padding = padding
        self._pairs = pad_pairs(padding, self._rank, self.kernel_size, self.kernel_size, self.stride, self.dilation)
        self.output_padding = per_axis(output_padding, "output_padding", self._rank, 0)
        self._plans = Plans(getattr(functional, f"conv_transpose{self._rank}d"), stride=self.stride, padding=padding,
                            output_padding=self.output_padding, groups=self.groups, dilation=self.dilation)

    def forward(self, x: NDArray) -> NDArray:
        """The transposed convolution of `x`, (N, C, ...) or (C, ...)."""
        x = as_array(x, "x", lists=False)
        y = self._plans(x, self.weight, self.bias)
        self._remember(x)
        return y

    def backward(self, grad_output: NDArray, *, input_gradient: bool = True) -> NDArray | None:
        """As `Module.backward`: the adjoint of the adjoint is the convolution itself."""
        x = self._recall()
        self._add_bias_gradient(grad_output)
        # Output padding takes back what padding cut at the high end; beyond that it added zeros that no tap reached.
        pairs: list[tuple[int, int]] = []
        inner: list[Any] = [...]
        for (low, high), extra in zip(self._pairs, self.output_padding, strict=True):
            pairs.append((low, max(high - extra, 0)))
            inner.append(slice(None, min(high - extra, 0) or None))
        reached = as_array(grad_output, "grad_output")[tuple(inner)]
        geometry = (self.stride, tuple(pairs), self.dilation, self.groups)
        self.weight.accumulate(getattr(grad, f"conv{self._rank}d_weight")(reached, self.weight.shape, x, *geometry))
        if not input_gradient:
            return None
        return getattr(functional, f"conv{self._rank}d")(reached, self.weight.array, None, *geometry)


class Conv1d(_Conv):
    """A layer that convolves over one axis: `nconv.conv1d` with a weight that can be trained.

    Input (N, C, W) or without N. A plan, with the weight packed, is kept for each shape of input.

    Parameters
    ----------
    in_channels, out_channels : int
        C and K.
    kernel_size : int or sequence of int
        One extent for all axes, or one for each.
    stride, dilation : int or sequence of int, default 1
    padding : int, sequence of int, sequence of (low, high), 'same' or 'valid', default 0
    groups : int, default 1
        Input and output channels fall into so many groups that do not see each other.
    bias : bool, default True
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}
    dtype : dtype, default float32
        Of weight and bias.
    rng : int or numpy.random.Generator, optional
        Where the first values come from: as in PyTorch uniform within 1 / sqrt(C / groups * taps).

    Attributes
    ----------
    weight : Parameter
        (K, C / groups, S).
    bias : Parameter or None
        (K,).

    Raises
    ------
    ValueError
        For wrong channels, groups, kernel size, stride, padding or dilation, now; for an input of the wrong shape, from
        the forward pass.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun 2015, Delving deep into rectifiers (arXiv 1502.01852), section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> layer = nn.Conv1d(1, 1, 2, bias=False)
    >>> layer.weight.data = [[[1.0, 10.0]]]
    >>> layer(np.array([[1.0, 2.0, 3.0]]))
    array([[21., 32.]])
    >>> layer.backward(np.array([[1.0, 0.0]]))
    array([[ 1., 10.,  0.]])
    >>> layer.weight.grad
    array([[[1., 2.]]], dtype=float32)
    """

    _rank = 1


class Conv2d(_Conv):
    """A layer that convolves over two axes: `nconv.conv2d` with a weight that can be trained.

    Input (N, C, H, W) or without N. A plan, with the weight packed, is kept for each shape of input.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype, rng
        As in `Conv1d`.

    Attributes
    ----------
    weight : Parameter
        (K, C / groups, R, S).
    bias : Parameter or None
        (K,).

    Raises
    ------
    ValueError
        As in `Conv1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> layer = nn.Conv2d(1, 1, (1, 2), bias=False)
    >>> layer.weight.data = [[[[1.0, 10.0]]]]
    >>> layer(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[21., 32.]]])
    """

    _rank = 2


class Conv3d(_Conv):
    """A layer that convolves over three axes: `nconv.conv3d` with a weight that can be trained.

    Input (N, C, D, H, W) or without N. A plan, with the weight packed, is kept for each shape of input.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype, rng
        As in `Conv1d`.

    Attributes
    ----------
    weight : Parameter
        (K, C / groups, T, R, S).
    bias : Parameter or None
        (K,).

    Raises
    ------
    ValueError
        As in `Conv1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> layer = nn.Conv3d(1, 1, (1, 1, 2), bias=False)
    >>> layer.weight.data = [[[[[1.0, 10.0]]]]]
    >>> layer(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[21., 32.]]]])
    """

    _rank = 3


class ConvTranspose1d(_ConvTranspose):
    """A layer of `nconv.conv_transpose1d`: the input gradient of a convolution, with a weight that can be trained.

    Input (N, C, W) or without N. A plan, with the weight packed, is kept for each shape of input.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, dilation, groups, bias, dtype, rng
        As in `Conv1d`; the order of the arguments is PyTorch's.
    padding : int, sequence of int, or sequence of (low, high), default 0
        So much is cut from the ends of the result.
    output_padding : int or sequence of int, default 0
        So many positions are added at the high end.
    padding_mode : {'zeros'}

    Attributes
    ----------
    weight : Parameter
        (C, K / groups, S).
    bias : Parameter or None
        (K,).

    Raises
    ------
    ValueError
        As in `Conv1d`.

    References
    ----------
    .. [1] Dumoulin, Visin 2016, A guide to convolution arithmetic for deep learning (arXiv 1603.07285), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> layer = nn.ConvTranspose1d(1, 1, 3, stride=2, bias=False)
    >>> layer.weight.data = [[[1.0, 10.0, 100.0]]]
    >>> layer(np.array([[1.0, 2.0]]))
    array([[  1.,  10., 102.,  20., 200.]])
    """

    _rank = 1


class ConvTranspose2d(_ConvTranspose):
    """A layer of `nconv.conv_transpose2d`: the input gradient of a convolution, with a weight that can be trained.

    Input (N, C, H, W) or without N. A plan, with the weight packed, is kept for each shape of input.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, \
dtype, rng
        As in `ConvTranspose1d`.

    Attributes
    ----------
    weight : Parameter
        (C, K / groups, R, S).
    bias : Parameter or None
        (K,).

    Raises
    ------
    ValueError
        As in `Conv1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> layer = nn.ConvTranspose2d(1, 1, (1, 3), stride=(1, 2), bias=False)
    >>> layer.weight.data = [[[[1.0, 10.0, 100.0]]]]
    >>> layer(np.array([[[1.0, 2.0]]]))
    array([[[  1.,  10., 102.,  20., 200.]]])
    """

    _rank = 2


class ConvTranspose3d(_ConvTranspose):
    """A layer of `nconv.conv_transpose3d`: the input gradient of a convolution, with a weight that can be trained.

    Input (N, C, D, H, W) or without N. A plan, with the weight packed, is kept for each shape of input.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, \
dtype, rng
        As in `ConvTranspose1d`.

    Attributes
    ----------
    weight : Parameter
        (C, K / groups, T, R, S).
    bias : Parameter or None
        (K,).

    Raises
    ------
    ValueError
        As in `Conv1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> layer = nn.ConvTranspose3d(1, 1, (1, 1, 3), stride=(1, 1, 2), bias=False)
    >>> layer.weight.data = [[[[[1.0, 10.0, 100.0]]]]]
    >>> layer(np.array([[[[1.0, 2.0]]]]))
    array([[[[  1.,  10., 102.,  20., 200.]]]])
    """

    _rank = 3
