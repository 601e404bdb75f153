"""What every layer is: parameters with gradients, a state that is saved and loaded, modes of training and of use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import registry
from ..lowering import as_array, check_device, check_word, on_gpu
from .safetensors import load_safetensors


def deliver(result: Any, like: Any) -> Any:
    """A layer's result in the kind of the array that came in."""
    return registry.arrays("cuda" if on_gpu(like) else "cpu").deliver(result, like)


class Parameter:
    """An array that training changes, and its gradient.

    The values are read through `data`, which is read-only, and changed by assignment, ``parameter.data = values``, or
    by `add`. So a layer knows when the weight that it has packed is no longer the weight. On a GPU (`to`) values and
    gradients are device arrays, and what `data` gives is a copy.

    Parameters
    ----------
    data : array_like
        The first values; they are copied.
    dtype : dtype, optional
        By default that of `data`.

    Attributes
    ----------
    grad : ndarray or None
        The gradients added since `zero_grad`, of the shape and dtype of `data`; None where there are none.
    version : int
        Counts the changes of `data`.
    device : {'cpu', 'cuda'}
        Where the values lie.

    Examples
    --------
    >>> from nconv import nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> p.add([10.0, 20.0])
    >>> p.data
    array([11., 22.])
    >>> p.accumulate([1.0, 0.0])
    >>> p.accumulate([1.0, 5.0])
    >>> p.grad
    array([2., 5.])
    """

    def __init__(self, data: ArrayLike, dtype: DTypeLike | None = None):
        self._data: Any = np.array(data, dtype)
        self.grad: NDArray | None = None
        self.version = 0

    @property
    def data(self) -> NDArray:
        """The values, read-only."""
        if self.device == "cuda":
            return deliver(self._data.copy(), self._data)
        view = self._data.view()
        view.flags.writeable = False
        return view

    @data.setter
    def data(self, values: ArrayLike) -> None:
        array = as_array(values, "data")
        if array.shape != self.shape:
            raise ValueError(f"a parameter keeps its shape: data.shape={array.shape}, expected {self.shape}")
        if self.device == "cpu":
            check_device("cpu", data=array)
            self._data[...] = array
        else:
            self._settle(array.copy() if on_gpu(array) else registry.arrays("cuda").from_host(array))
        self.version += 1

    @property
    def array(self) -> Any:
        """The values as the engine takes them, without a copy."""
        return self._data if self.device == "cuda" else self.data

    @property
    def device(self) -> str:
        """Where the values lie."""
        return "cuda" if on_gpu(self._data) else "cpu"

    def to(self, device: str) -> Parameter:
        """Bring values and gradient to a device, 'cpu' or 'cuda'; returns the parameter."""
        if check_word(device, "device", registry.devices()) != self.device:
            arrays = registry.arrays("cuda")
            if device == "cuda":
                arrays.check_usable()
                self._settle(arrays.from_host(self._data))
                self.grad = None if self.grad is None else arrays.deliver(arrays.from_host(self.grad), self._data)
            else:
                self._data, self.grad = self._host(), to_host(self.grad)
            self.version += 1
        return self

    def _settle(self, values: Any) -> None:
        """Take other values on the GPU: memory of their own, which is never written to again, for readers everywhere.

        So no stream that still reads the values before has to be waited for.
        """
        self._data = registry.arrays("cuda").keep(values.astype(self.dtype, copy=False))

    def _host(self) -> NDArray:
        """The values in host memory of their own."""
        return np.array(to_host(self._data))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self._data.dtype

    def add(self, change: ArrayLike) -> None:
        """Add to the values in place."""
        change = as_array(change, "change")
        check_device(None if self.device == "cuda" else "cpu", parameter=self._data, change=change)
        if self.device == "cuda":
            self._settle(self._data + change)
        else:
            np.add(self._data, change, out=self._data, casting="same_kind")
        self.version += 1

    def accumulate(self, gradient: ArrayLike) -> None:
        """Add to the gradient."""
        array = as_array(gradient, "gradient")
        check_device(None if self.device == "cuda" else "cpu", parameter=self._data, gradient=array)
        total = array.astype(self.dtype)
        if self.grad is not None:
            total = as_array(self.grad, "grad") + total
        self.grad = deliver(total, array)

    def __getstate__(self) -> dict[str, Any]:
        """A copied or pickled parameter is made anew where this one lies."""
        return {**vars(self), "_data": self._host(), "grad": to_host(self.grad), "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        device = state.pop("device")
        vars(self).update(state)
        self.to(device)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        if self.device == "cuda":
            raise TypeError("a parameter on a GPU is not copied to the host silently: to('cpu') brings it there")
        return np.array(self._data, dtype, copy=copy) if copy else np.asarray(self.data, dtype)

    def __repr__(self) -> str:
        where = ", device='cuda'" if self.device == "cuda" else ""
        return f"Parameter(shape={self.shape}, dtype={self.dtype}{where})"


def to_host(value: Any) -> Any:
    """A device array as a NumPy array; anything else as it is."""
    return registry.arrays("cuda").to_host(as_array(value, "value")) if value is not None and on_gpu(value) else value


class Module:
    """Base of layers and of networks: finds the parameters of its attributes and of theirs, by PyTorch's names.

    A network of one's own sets layers as attributes and writes `forward` and `backward`.

    Attributes
    ----------
    training : bool
        Whether a forward pass remembers what `backward` needs; see `train`.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> class Residual(nn.Module):
    ...     def __init__(self):
    ...         self.conv = nn.Conv1d(1, 1, 3, padding=1)
    ...     def forward(self, x):
    ...         return x + self.conv(x)
    ...     def backward(self, grad_output, *, input_gradient=True):
    ...         return grad_output + self.conv.backward(grad_output)
    >>> block = Residual()
    >>> list(block.state_dict())
    ['conv.weight', 'conv.bias']
    >>> block.load_state_dict({"conv.weight": [[[0.0, 0.0, 10.0]]], "conv.bias": [0.0]})
    >>> block(np.array([[1.0, 2.0, 3.0]]))
    array([[21., 32.,  3.]])
    >>> block.backward(np.array([[1.0, 0.0, 0.0]]))
    array([[ 1., 10.,  0.]])
    """

    training = True

    def __call__(self, x: NDArray) -> NDArray:
        """Forward."""
        return self.forward(x)

    def forward(self, x: NDArray) -> NDArray:
        """The layer's output."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad_output: NDArray, *, input_gradient: bool = True) -> NDArray | None:
        """Add the parameters' gradients to their `grad`; the gradient of the last input.

        Parameters
        ----------
        grad_output : ndarray
            Gradient of the loss by the last forward pass's output, of its shape.
        input_gradient : bool, default True
            False saves the work where the gradient of the input is not needed, as in the first layer; the result is
            then None.

        Raises
        ------
        RuntimeError
            Without a forward pass in training mode before.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    # ------------------------------------------------------------------------------------------- What it holds

    def _members(self) -> Iterator[tuple[str, Any]]:
        """(name, value) of what may hold parameters."""
        yield from vars(self).items()

    def _children(self) -> Iterator[tuple[str, Module]]:
        return ((name, value) for name, value in self._members() if isinstance(value, Module))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(name, parameter), names joined by dots: ``conv.weight``."""
        for name, value in self._members():
            if isinstance(value, Parameter):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value.named_parameters(f"{prefix}{name}.")

    def parameters(self) -> list[Parameter]:
        """Every parameter, for an optimiser."""
        return [parameter for _, parameter in self.named_parameters()]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, device: str) -> Self:
        """Bring all parameters and their gradients to a device; returns the module.

        Layers take arrays from where their parameters lie: NumPy arrays on the CPU; those of CuPy, PyTorch or Numba on
        a GPU, where everything is computed and results are of the caller's kind.

        Parameters
        ----------
        device : {'cpu', 'cuda'}

        Raises
        ------
        ValueError
            For another word.
        nconv.DeviceError
            If no GPU can be used.
        """
        for parameter in self.parameters():
            parameter.to(device)
        return self

    def train(self, mode: bool = True) -> Module:
        """Remember in forward passes what `backward` needs; returns the module."""
        self.training = mode
        for _, child in self._children():
            child.train(mode)
        return self

    def eval(self) -> Module:
        """Remember nothing in forward passes; returns the module."""
        return self.train(False)

    # --------------------------------------------------------------------------------------------------- State

    def state_dict(self) -> dict[str, NDArray]:
        """Copies of all parameters by name, PyTorch's names, as NumPy arrays wherever they lie."""
        return {name: parameter._host() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any] | str | os.PathLike, strict: bool = True) -> None:
        """Take the parameters of a state dict; nothing is changed if one of them does not fit.

        Parameters
        ----------
        state : mapping, or path of a safetensors file
            By name: NumPy arrays, PyTorch tensors, anything that NumPy can read.
        strict : bool, default True
            Refuse missing and unknown names.

        Raises
        ------
        KeyError
            For missing or unknown names, if strict.
        ValueError
            For shapes that differ.
        """
        if isinstance(state, (str, os.PathLike)):
            state = load_safetensors(state)
        own = dict(self.named_parameters())
        missing, unknown = [n for n in own if n not in state], [n for n in state if n not in own]
        if strict and (missing or unknown):
            raise KeyError(f"the state does not fit {type(self).__name__}: missing {missing}, unknown {unknown}")
        values = {name: state[name] if on_gpu(state[name]) and own[name].device == "cuda" else _host_array(state[name])
                  for name in own if name in state}
        for name, value in values.items():
            if value.shape != own[name].shape:
                raise ValueError(f"{name} has the wrong shape: {value.shape}, expected {own[name].shape}")
        for name, value in values.items():
            own[name].data = value

    # ------------------------------------------------------------------------------------------------ Backward

    _memory: Any = None

    def _remember(self, value: Any) -> None:
        """Keep what `backward` needs, in training."""
        self._memory = value if self.training else None

    def _recall(self) -> Any:
        if self._memory is None:
            raise RuntimeError(f"{type(self).__name__}.backward needs a forward pass in training mode before it")
        return self._memory


def _host_array(value: Any) -> NDArray:
    """A PyTorch tensor, on any device, another array of a GPU, or whatever NumPy reads, as an array."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else to_host(value))


class Sequential(Module):
    """Layers one after the other.

    Parameters
    ----------
    *layers : Module
        Their parameters are named by position: ``0.weight``.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    >>> list(net.state_dict())
    ['0.weight', '0.bias', '3.weight', '3.bias']
    >>> net(np.zeros((5, 1, 6), "float32")).shape
    (5, 3)
    """

    def __init__(self, *layers: Module):
        self.layers = layers

    def _members(self) -> Iterator[tuple[str, Any]]:
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)

    def forward(self, x: NDArray) -> NDArray:
        """Every layer's output is the next one's input."""
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, grad_output: NDArray, *, input_gradient: bool = True) -> NDArray | None:
        """As `Module.backward`, from the last layer to the first."""
        gradient: Any = grad_output
        for position in range(len(self.layers) - 1, -1, -1):
            gradient = self.layers[position].backward(gradient, input_gradient=input_gradient or position > 0)
        return gradient
