"""Layers without a convolution: ReLU, Flatten, Linear."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import functional, grad
from ..lowering import as_array, check_device, on_gpu
from .module import Module, Parameter, deliver
from .plans import Plans


class ReLU(Module):
    """max(x, 0), element by element.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> relu = nn.ReLU()
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    >>> relu.backward(np.array([10.0, 10.0]))
    array([ 0., 10.])
    """

    def forward(self, x: NDArray) -> NDArray:
        """The positive part of `x`."""
        x = as_array(x, "x")
        y = np.maximum(x, 0)
        self._remember(y)
        return deliver(y, x)

    def backward(self, grad_output: NDArray, *, input_gradient: bool = True) -> NDArray | None:
        """As `Module.backward`."""
        y = self._recall()
        if not input_gradient:
            return None
        grad_output = as_array(grad_output, "grad_output")
        check_device(None, grad_output=grad_output, x=y)
        return deliver(grad_output * (y > 0), grad_output)


class Flatten(Module):
    """Make one axis of all axes from `start_dim` on.

    Parameters
    ----------
    start_dim : int, default 1
        The axes before it are kept: 1 keeps the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> nn.Flatten()(np.array([[[1.0, 2.0], [3.0, 4.0]]]))
    array([[1., 2., 3., 4.]])
    """

    def __init__(self, start_dim: int = 1):
        self.start_dim = start_dim

    def forward(self, x: NDArray) -> NDArray:
        """`x` with fewer axes."""
        x = as_array(x, "x")
        self._remember(x.shape)
        return deliver(x.reshape(*x.shape[:self.start_dim], -1), x)

    def backward(self, grad_output: NDArray, *, input_gradient: bool = True) -> NDArray | None:
        """As `Module.backward`."""
        shape = self._recall()
        if not input_gradient:
            return None
        grad_output = as_array(grad_output, "grad_output")
        return deliver(grad_output.reshape(shape), grad_output)


class Linear(Module):
    """``y = x weight.T + bias``, over the last axis.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool, default True
    dtype : dtype, default float32
    rng : int or numpy.random.Generator, optional
        Where the first values come from: as in PyTorch uniform within 1 / sqrt(in_features).

    Attributes
    ----------
    weight : Parameter
        (out_features, in_features).
    bias : Parameter or None
        (out_features,).

    Raises
    ------
    ValueError
        If the input's last axis is not `in_features` long.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> layer = nn.Linear(2, 1)
    >>> layer.load_state_dict({"weight": [[1.0, 10.0]], "bias": [100.0]})
    >>> layer(np.array([[1.0, 2.0]]))
    array([[121.]])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: DTypeLike = "float32",
                 rng: Any = None):
        bound = 1 / math.sqrt(in_features)
        rng = np.random.default_rng(rng)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(rng.uniform(-bound, bound, (out_features, in_features)), dtype)
        self.bias = Parameter(rng.uniform(-bound, bound, out_features), dtype) if bias else None
        self._plans = Plans(functional.conv1d, ones=1)   # on a GPU: a window of one element

    def forward(self, x: NDArray) -> NDArray:
        """``x weight.T + bias``; x is (..., in_features)."""
        x = as_array(x, "x", lists=False)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"the last axis of x must be in_features={self.in_features} long: x.shape={x.shape}")
        self._remember(x)
        if on_gpu(x) or self.weight.device == "cuda":
            y = as_array(self._plans(x.reshape(-1, self.in_features, 1), self.weight, self.bias), "y")
            return deliver(y.reshape(*x.shape[:-1], self.out_features), x)
        y = x @ self.weight.data.T
        return y if self.bias is None else y + self.bias.data

    def backward(self, grad_output: NDArray, *, input_gradient: bool = True) -> NDArray | None:
        """As `Module.backward`."""
        x = self._recall()
        grad_output = as_array(grad_output, "grad_output")
        rows: Any = grad_output.reshape(-1, self.out_features)
        if self.bias is not None:
            self.bias.accumulate(rows.sum(axis=0))
        if on_gpu(x):
            seen, weight = x.reshape(-1, self.in_features, 1), self.weight.array
            rows = rows.reshape(-1, self.out_features, 1)
            change = as_array(grad.conv1d_weight(seen, (*self.weight.shape, 1), rows), "gradient")
            self.weight.accumulate(change.reshape(self.weight.shape))
            if not input_gradient:
                return None
            result = as_array(grad.conv1d_input(seen.shape, weight.reshape(*weight.shape, 1), rows), "gradient")
            return deliver(result.reshape(x.shape), grad_output)
        self.weight.accumulate(rows.T @ x.reshape(-1, self.in_features))
        return grad_output @ self.weight.data if input_gradient else None
