"""What training needs beside layers: a loss and two optimisers, PyTorch's formulas and defaults."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..lowering import as_array, check_device, on_gpu
from .module import Parameter, deliver


class CrossEntropyLoss:
    """Mean over the batch of -log softmax(logits)[target].

    The call gives the loss, `backward` the gradient of the logits:
    ``(softmax(logits) - one_hot(target)) / N``. On a GPU the loss is an array without axes, of the caller's kind, and
    nobody looks at the targets: one that is no class makes it NaN.

    Raises
    ------
    ValueError
        If logits are not (N, classes), or targets not N integers below the number of classes.

    References
    ----------
    .. [1] Goodfellow, Bengio, Courville 2016, Deep Learning, section 6.2.2.3.

    Examples
    --------
    >>> import numpy as np
    >>> from nconv import nn
    >>> loss = nn.CrossEntropyLoss()
    >>> round(loss(np.log([[1.0, 3.0], [1.0, 1.0]]), [1, 0]), 4)
    0.4904
    >>> loss.backward()
    array([[ 0.125, -0.125],
           [-0.25 ,  0.25 ]])
    """

    _memory: Any = None

    def __call__(self, logits: NDArray, target: ArrayLike) -> Any:
        """The loss; logits (N, classes), target (N,) integers."""
        return self._loss(as_array(logits, "logits"), as_array(target, "target"))

    def _loss(self, logits: Any, target: Any) -> Any:
        check_device(None, logits=logits, target=target)
        if logits.ndim != 2 or target.shape != logits.shape[:1] or target.dtype.kind not in "iu" or logits.size == 0:
            raise ValueError("logits must be (N, classes) and target N integers: "
                             f"logits.shape={logits.shape}, target.shape={target.shape}, target.dtype={target.dtype}")
        if on_gpu(logits):
            from ..cuda import learning

            loss, log_softmax = learning.cross_entropy(logits, target)
            self._memory = log_softmax, target, logits
            return deliver(loss, logits)
        if target.min() < 0 or target.max() >= logits.shape[1]:
            raise ValueError(f"target must be from 0 to {logits.shape[1] - 1}: it holds {target.min()} to "
                             f"{target.max()}")
        shifted = logits - logits.max(axis=1, keepdims=True)     # exp must not overflow
        log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        self._memory = log_softmax, target, logits
        return float(-log_softmax[np.arange(len(target)), target].mean())

    def backward(self) -> NDArray:
        """Gradient of the last loss by its logits."""
        if self._memory is None:
            raise RuntimeError("CrossEntropyLoss.backward needs a loss before it")
        log_softmax, target, logits = self._memory
        if on_gpu(logits):
            from ..cuda import learning

            return deliver(learning.cross_entropy_backward(log_softmax, target), logits)
        gradient = np.exp(log_softmax)
        gradient[np.arange(len(target)), target] -= 1
        return gradient / len(target)


class _Optimiser:
    def __init__(self, parameters: Iterable[Parameter], lr: float, weight_decay: float):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("parameters is empty: there is nothing to train")
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative: {name}={value!r}")
        self.lr, self.weight_decay = lr, weight_decay

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _gradients(self) -> Iterable[tuple[int, Parameter, NDArray]]:
        """(position, parameter, gradient with weight decay) of the parameters that have one."""
        for i, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                decay = self.weight_decay * parameter.array if self.weight_decay else 0
                yield i, parameter, as_array(parameter.grad, "grad") + decay


class SGD(_Optimiser):
    """Stochastic gradient descent with momentum.

    ``v = momentum v + g``, ``p = p - lr v``; with `nesterov` ``p = p - lr (g + momentum v)``.

    Parameters
    ----------
    parameters : iterable of Parameter
    lr : float, default 1e-3
        May be changed between steps.
    momentum, weight_decay : float, default 0
    nesterov : bool, default False

    Raises
    ------
    ValueError
        Without parameters, or for a negative number.

    References
    ----------
    .. [1] Sutskever, Martens, Dahl, Hinton 2013, On the importance of initialization and momentum in deep learning.

    Examples
    --------
    >>> from nconv import nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimiser = nn.SGD([p], lr=0.1)
    >>> p.accumulate([10.0, 0.0])
    >>> optimiser.step()
    >>> p.data
    array([0., 2.])
    """

    def __init__(self, parameters: Iterable[Parameter], lr: float = 1e-3, momentum: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False):
        super().__init__(parameters, lr, weight_decay)
        if not momentum >= 0:
            raise ValueError(f"momentum must not be negative: momentum={momentum!r}")
        self.momentum, self.nesterov = momentum, nesterov
        self._velocity: dict[int, NDArray] = {}

    def step(self) -> None:
        """Change the parameters that have a gradient."""
        for i, parameter, gradient in self._gradients():
            if self.momentum:
                before = self._velocity.get(i)
                velocity = gradient if before is None else self.momentum * before + gradient
                self._velocity[i] = velocity
                gradient = gradient + self.momentum * velocity if self.nesterov else velocity
            parameter.add(-self.lr * gradient)


class Adam(_Optimiser):
    """Adam: steps by the ratio of the gradient's running mean to the root of its running square.

    Parameters
    ----------
    parameters : iterable of Parameter
    lr : float, default 1e-3
        May be changed between steps.
    betas : (float, float), default (0.9, 0.999)
        How much of the two running means is kept.
    eps : float, default 1e-8
    weight_decay : float, default 0

    Raises
    ------
    ValueError
        Without parameters, for a negative number, or betas not in [0, 1).

    References
    ----------
    .. [1] Kingma, Ba 2015, Adam: a method for stochastic optimization (arXiv 1412.6980), algorithm 1.

    Examples
    --------
    >>> from nconv import nn
    >>> p = nn.Parameter([1.0, 2.0])
    >>> optimiser = nn.Adam([p], lr=0.5)
    >>> p.accumulate([10.0, 0.0])
    >>> optimiser.step()
    >>> p.data
    array([0.5, 2. ])
    """

    def __init__(self, parameters: Iterable[Parameter], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0):
        super().__init__(parameters, lr, weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1): betas={betas!r}")
        self.betas, self.eps = betas, eps
        self._state: dict[int, tuple[int, Any, Any]] = {}

    def step(self) -> None:
        """Change the parameters that have a gradient."""
        for i, parameter, gradient in self._gradients():
            steps, mean, square = self._state.get(i, (0, 0.0, 0.0))
            steps += 1
            mean = self.betas[0] * mean + (1 - self.betas[0]) * gradient
            square = self.betas[1] * square + (1 - self.betas[1]) * np.square(gradient)
            self._state[i] = steps, mean, square
            unbiased = np.sqrt(square / (1 - self.betas[1]**steps)) + self.eps
            parameter.add(-self.lr / (1 - self.betas[0]**steps) * mean / unbiased)
