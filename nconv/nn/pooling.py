"""Max and average pooling over one to three axes. A mean over windows is a convolution, and runs as one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional, grad, registry
from ..functional import per_axis
from ..geometry import out_size, product, span
from ..lowering import as_array, check_device, on_gpu
from .module import Module, deliver


class _Pool(Module):
    """Windows over the last axes: the geometry that both kinds share."""

    _rank: int

    def __init__(self, kernel_size: Any, stride: Any, padding: Any, dilation: Any):
        self.kernel_size = per_axis(kernel_size, "kernel_size", self._rank, 1)
        self.stride = self.kernel_size if stride is None else per_axis(stride, "stride", self._rank, 1)
        self.padding = per_axis(padding, "padding", self._rank, 0)
        self.dilation = per_axis(dilation, "dilation", self._rank, 1)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(f"padding must be at most half of the window: padding={self.padding}, "
                             f"kernel_size={self.kernel_size}")

    def _checked(self, given: NDArray) -> Any:
        x: Any = as_array(given, "x", lists=False)
        if x.ndim not in (self._rank + 1, self._rank + 2):
            raise ValueError(f"x must have {self._rank + 2} dimensions, or {self._rank + 1} without a batch: "
                             f"x.shape={x.shape}")
        size = x.shape[x.ndim - self._rank:]
        for n, k, d, p in zip(size, self.kernel_size, self.dilation, self.padding, strict=True):
            if span(k, d) > n + 2 * p:
                raise ValueError(f"the window is larger than the padded input: kernel_size={self.kernel_size} with "
                                 f"dilation={self.dilation}, padding={self.padding}, x.shape={x.shape}")
        return x


class _MaxPool(_Pool):
    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1):
        super().__init__(kernel_size, stride, padding, dilation)

    def _padded(self, x: NDArray) -> NDArray:
        if not any(self.padding):
            return x
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min if x.dtype.kind in "iu" else False
        width = [(0, 0)] * (x.ndim - self._rank) + [(p, p) for p in self.padding]
        return np.pad(x, width, constant_values=lowest)

    def _taps(self, padded_shape: Sequence[int]) -> Iterator[tuple]:
        """For each tap of the window the index of its elements, one for each place: a view of the whole input."""
        out = [out_size(n, k, s, d, 0, 0) for n, k, s, d in zip(
            padded_shape[len(padded_shape) - self._rank:], self.kernel_size, self.stride, self.dilation, strict=True)]
        for tap in itertools.product(*map(range, self.kernel_size)):
            yield (..., *(slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, o, s in zip(
                tap, self.dilation, out, self.stride, strict=True)))

    def forward(self, x: NDArray) -> NDArray:
        """The largest element of every window; NaN where there is one."""
        checked = self._checked(x)
        if on_gpu(checked):
            from ..cuda import learning

            largest, memory = learning.max_pool(checked, self.kernel_size, self.stride, self.padding, self.dilation)
            self._remember(memory)
            return deliver(largest, checked)
        padded = self._padded(checked)
        taps = list(self._taps(padded.shape))
        y = padded[taps[0]].copy()
        for tap in taps[1:]:
            np.maximum(y, padded[tap], out=y)
        self._remember((padded, y))
        return y

    def backward(self, grad_output: NDArray, *, input_gradient: bool = True) -> NDArray | None:
        """As `Module.backward`: the gradient goes to the first element of a window that is its largest."""
        memory = self._recall()
        if not input_gradient:
            return None
        if len(memory) == 3:                             # a GPU's: it knows the element that each window chose
            from ..cuda import learning

            there: Any = as_array(grad_output, "grad_output")
            check_device(None, grad_output=there, x=memory[-1])
            return deliver(learning.max_pool_backward(memory, there), there)
        padded, y = memory
        gradient = np.zeros(padded.shape, grad_output.dtype)
        rest = np.array(grad_output)                     # what has not yet found its element
        size = (n - 2 * p for n, p in zip(padded.shape[-self._rank:], self.padding, strict=True))
        inside = self._padded(np.ones((*padded.shape[:-self._rank], *size), bool))    # the padding is no element
        for tap in self._taps(padded.shape):
            element = padded[tap]
            found = ((element == y) | ((element != element) & (y != y))) & inside[tap]
            gradient[tap] += np.where(found, rest, 0)
            rest[found] = 0
        inner: Any = (slice(p, n - p) for p, n in zip(self.padding, gradient.shape[-self._rank:], strict=True))
        return gradient[(..., *inner)]


class _AvgPool(_Pool):
    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0, count_include_pad: bool = True):
        super().__init__(kernel_size, stride, padding, 1)
        self.count_include_pad = count_include_pad

    def _weight(self, x: NDArray) -> NDArray:
        return np.full((1, 1, *self.kernel_size), 1 / product(self.kernel_size), np.result_type(x.dtype, 1.0))

    def _share(self, x: NDArray) -> Any:
        """What the mean over a whole window is divided by, where the padding does not count."""
        if self.count_include_pad or not any(self.padding):
            return 1
        return _beside(self._means(np.ones((1, 1, *x.shape[x.ndim - self._rank:]), x.dtype))[0], x)

    def _means(self, planes: NDArray) -> NDArray:
        """Every plane (n, 1, *size) by itself through the engine."""
        weight = _beside(self._weight(planes), planes)
        return as_array(getattr(functional, f"conv{self._rank}d")(planes, weight, None, self.stride, self.padding), "y")

    def forward(self, x: NDArray) -> NDArray:
        """The mean of every window."""
        x = self._checked(x)
        share = self._share(x)
        self._remember((x.shape, share))
        y = self._means(x.reshape(-1, 1, *x.shape[x.ndim - self._rank:]))
        y = y.reshape(*x.shape[:x.ndim - self._rank], *y.shape[2:])
        return deliver(y if isinstance(share, int) else y / share, x)

    def backward(self, grad_output: NDArray, *, input_gradient: bool = True) -> NDArray | None:
        """As `Module.backward`: every element of a window gets the same share."""
        shape, share = self._recall()
        if not input_gradient:
            return None
        grad_output = as_array(grad_output, "grad_output")
        planes = grad_output if isinstance(share, int) else grad_output / share
        planes = planes.reshape(-1, 1, *grad_output.shape[grad_output.ndim - self._rank:])
        size = (planes.shape[0], 1, *shape[len(shape) - self._rank:])
        gradient = getattr(grad, f"conv{self._rank}d_input")(
            size, _beside(self._weight(planes), planes), planes, self.stride, self.padding)
        return deliver(as_array(gradient, "gradient").reshape(shape), grad_output)


def _beside(array: NDArray, like: Any) -> Any:
    """An array of the layer's own where `like` lies."""
    return registry.arrays("cuda" if on_gpu(like) else "cpu").beside(array, like)


class MaxPool1d(_MaxPool):
    """The largest element of every window, over one axis.

    Input (N, C, W) or without N.

    Parameters
    ----------
    kernel_size : int or sequence of int
    stride : int or sequence of int, optional
        By default the window's extents: windows side by side.
    padding : int or sequence of int, default 0
        Padding never wins; at most half of the window.
    dilation : int or sequence of int, default 1
        Distance between the elements of a window.

    Raises
    ------
    ValueError
        For a wrong window, stride or padding, now; for an input that is too small, from the forward pass.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> nn.MaxPool1d(2)(np.array([[1.0, 7.0, 2.0, 4.0]]))
    array([[7., 4.]])
    """

    _rank = 1


class MaxPool2d(_MaxPool):
    """The largest element of every window, over two axes.

    Input (N, C, H, W) or without N.

    Parameters
    ----------
    kernel_size : int or sequence of int
    stride : int or sequence of int, optional
        By default the window's extents: windows side by side.
    padding : int or sequence of int, default 0
        Padding never wins; at most half of the window.
    dilation : int or sequence of int, default 1
        Distance between the elements of a window.

    Raises
    ------
    ValueError
        For a wrong window, stride or padding, now; for an input that is too small, from the forward pass.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> nn.MaxPool2d((1, 2))(np.array([[[1.0, 7.0, 2.0, 4.0]]]))
    array([[[7., 4.]]])
    """

    _rank = 2


class MaxPool3d(_MaxPool):
    """The largest element of every window, over three axes.

    Input (N, C, D, H, W) or without N.

    Parameters
    ----------
    kernel_size : int or sequence of int
    stride : int or sequence of int, optional
        By default the window's extents: windows side by side.
    padding : int or sequence of int, default 0
        Padding never wins; at most half of the window.
    dilation : int or sequence of int, default 1
        Distance between the elements of a window.

    Raises
    ------
    ValueError
        For a wrong window, stride or padding, now; for an input that is too small, from the forward pass.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> nn.MaxPool3d((1, 1, 2))(np.array([[[[1.0, 7.0, 2.0, 4.0]]]]))
    array([[[[7., 4.]]]])
    """

    _rank = 3


class AvgPool1d(_AvgPool):
    """The mean of every window, over one axis.

    Input (N, C, W) or without N.

    Parameters
    ----------
    kernel_size : int or sequence of int
    stride : int or sequence of int, optional
        By default the window's extents: windows side by side.
    padding : int or sequence of int, default 0
        Zeros; at most half of the window.
    count_include_pad : bool, default True
        Whether the zeros of the padding count in the mean.

    Raises
    ------
    ValueError
        For a wrong window, stride or padding, now; for an input that is too small, from the forward pass.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> nn.AvgPool1d(2)(np.array([[1.0, 7.0, 2.0, 4.0]]))
    array([[4., 3.]])
    """

    _rank = 1


class AvgPool2d(_AvgPool):
    """The mean of every window, over two axes.

    Input (N, C, H, W) or without N.

    Parameters
    ----------
    kernel_size : int or sequence of int
    stride : int or sequence of int, optional
        By default the window's extents: windows side by side.
    padding : int or sequence of int, default 0
        Zeros; at most half of the window.
    count_include_pad : bool, default True
        Whether the zeros of the padding count in the mean.

    Raises
    ------
    ValueError
        For a wrong window, stride or padding, now; for an input that is too small, from the forward pass.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> nn.AvgPool2d((1, 2))(np.array([[[1.0, 7.0, 2.0, 4.0]]]))
    array([[[4., 3.]]])
    """

    _rank = 2


class AvgPool3d(_AvgPool):
    """The mean of every window, over three axes.

    Input (N, C, D, H, W) or without N.

    Parameters
    ----------
    kernel_size : int or sequence of int
    stride : int or sequence of int, optional
        By default the window's extents: windows side by side.
    padding : int or sequence of int, default 0
        Zeros; at most half of the window.
    count_include_pad : bool, default True
        Whether the zeros of the padding count in the mean.

    Raises
    ------
    ValueError
        For a wrong window, stride or padding, now; for an input that is too small, from the forward pass.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> nn.AvgPool3d((1, 1, 2))(np.array([[[[1.0, 7.0, 2.0, 4.0]]]]))
    array([[[[4., 3.]]]])
    """

    _rank = 3
