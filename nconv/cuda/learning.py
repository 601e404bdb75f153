"""What layers need on a GPU that is no convolution and no plain arithmetic: largest elements of windows, a loss."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import int64

from ..geometry import out_size, product
from .arrays import three
from .device import cuda, kernel, launch_over
from .elements import compute_type
from .views import DeviceArray, convert, empty, follow


class PoolLayout(NamedTuple):
    """Windows over the last three axes, 0 to 2; all before them are planes."""

    planes: int
    size0: int
    size1: int
    size2: int
    out0: int
    out1: int
    out2: int
    kernel0: int
    kernel1: int
    kernel2: int
    stride0: int
    stride1: int
    stride2: int
    dilation0: int
    dilation1: int
    dilation2: int
    padding0: int
    padding1: int
    padding2: int


def max_pool(x: DeviceArray, kernel_size: tuple, stride: tuple, padding: tuple, dilation: tuple) -> tuple[
        DeviceArray, Any]:
    """(the largest element of every window, what `max_pool_backward` needs)."""
    rank = len(kernel_size)
    lead, size = x.shape[:x.ndim - rank], x.shape[x.ndim - rank:]
    out = tuple(out_size(n, k, s, d, p, p) for n, k, s, d, p in zip(
        size, kernel_size, stride, dilation, padding, strict=True))
    layout = PoolLayout(product(lead), *three(size), *three(out), *three(kernel_size), *three(stride),
                        *three(dilation), *three(padding, 0))
    whole = x.astype("u1") if x.dtype.kind == "b" else x
    dense = whole if whole.contiguous else convert(whole, whole.dtype)
    y, chosen = empty((*lead, *out), dense.dtype, dense), empty((*lead, *out), np.dtype("i4"), dense)
    name = compute_type(dense.dtype)
    lowest = -np.inf if name.startswith("float") else np.iinfo(dense.dtype).min
    launch_over(max_pool_kernel(name), y.size, y.stream, layout, dense.memory(), np.dtype(name).type(lowest),
                y.memory(), chosen.memory())
    return y.astype(x.dtype, copy=False), (layout, x.shape, chosen)


def max_pool_backward(memory: Any, grad_output: DeviceArray) -> DeviceArray:
    """The gradient of the input: what a window got goes to the element that it chose."""
    layout, shape, chosen = memory
    dense = grad_output if grad_output.contiguous else convert(grad_output, grad_output.dtype)
    gradient = empty(shape, dense.dtype, dense)
    follow(gradient.stream, chosen)
    launch_over(max_pool_backward_kernel(compute_type(dense.dtype)), gradient.size, gradient.stream, layout,
                chosen.memory(), dense.memory(), gradient.memory())
    return gradient


def cross_entropy(logits: DeviceArray, target: DeviceArray) -> tuple[DeviceArray, DeviceArray]:
    """(the mean loss, without axes; log softmax)."""
    follow(logits.stream, target)
    dense = logits if logits.contiguous else convert(logits, logits.dtype)
    whole = convert(target, np.dtype("i8"))
    log_softmax, losses = empty(dense.shape, dense.dtype, dense), empty(dense.shape[:1], dense.dtype, dense)
    follow(dense.stream, whole)
    rows = dense.shape[0]
    launch_over(cross_entropy_kernel(compute_type(dense.dtype)), rows, dense.stream, dense.memory(), whole.memory(),
                log_softmax.memory(), losses.memory(), rows, dense.shape[1])
    return losses.sum() / rows, log_softmax


def cross_entropy_backward(log_softmax: DeviceArray, target: DeviceArray) -> DeviceArray:
    """``(softmax - one_hot(target)) / N``."""
    whole = convert(target, np.dtype("i8"))
    gradient = empty(log_softmax.shape, log_softmax.dtype, log_softmax)
    follow(gradient.stream, whole)
    rows, classes = gradient.shape
    launch_over(cross_entropy_backward_kernel(compute_type(gradient.dtype)), gradient.size, gradient.stream,
                log_softmax.memory(), whole.memory(), gradient.memory(), rows, classes)
    return gradient


# ------------------------------------------------------------------------------------------------ The kernels


@cache
def max_pool_kernel(dtype_name: str):
    """The kernel for one type."""
    dtype = getattr(numba, dtype_name)

    @kernel
    def max_pool_kernel(layout, x, lowest, y, chosen):
        """The largest element of every window, NaN where there is one, and its index in the plane; the first of equals.

        Shapes: x [planes, *size], y and chosen [planes, *out]; padding never wins. Parallel over the outputs. Race-free
        because each is one thread's.
        """
        for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
            q2 = i % layout.out2
            q1 = i // layout.out2 % layout.out1
            q0 = i // layout.out2 // layout.out1 % layout.out0
            plane = i // layout.out2 // layout.out1 // layout.out0
            best = lowest
            place = int64(-1)
            for r0 in range(layout.kernel0):
                u0 = q0 * layout.stride0 + r0 * layout.dilation0 - layout.padding0
                for r1 in range(layout.kernel1):
                    u1 = q1 * layout.stride1 + r1 * layout.dilation1 - layout.padding1
                    for r2 in range(layout.kernel2):
                        u2 = q2 * layout.stride2 + r2 * layout.dilation2 - layout.padding2
                        if 0 <= u0 < layout.size0 and 0 <= u1 < layout.size1 and 0 <= u2 < layout.size2:
                            at = (u0 * layout.size1 + u1) * layout.size2 + u2
                            value = dtype(x[plane * layout.size0 * layout.size1 * layout.size2 + at])
                            if place < 0 or value > best or (value != value and best == best):
                                best = value
                                place = at
            y[i] = best
            chosen[i] = place

    return max_pool_kernel


@cache
def max_pool_backward_kernel(dtype_name: str):
    """The kernel for one type."""
    dtype = getattr(numba, dtype_name)

    @kernel
    def max_pool_backward_kernel(layout, chosen, grad_output, gradient):
        """gradient[u] = the sum of grad_output over the windows that chose u.

        Shapes: chosen and grad_output [planes, *out], gradient [planes, *size]. Parallel over the input's elements.
        Race-free because each is one thread's, which looks at every window that could have chosen it.
        """
        for i in range(cuda.grid(1), gradient.size, cuda.gridsize(1)):
            u2 = i % layout.size2
            u1 = i // layout.size2 % layout.size1
            u0 = i // layout.size2 // layout.size1 % layout.size0
            plane = i // layout.size2 // layout.size1 // layout.size0
            at = (u0 * layout.size1 + u1) * layout.size2 + u2
            total = dtype(0)
            for r0 in range(layout.kernel0):
                t0 = u0 + layout.padding0 - r0 * layout.dilation0
                q0 = t0 // layout.stride0
                for r1 in range(layout.kernel1):
                    t1 = u1 + layout.padding1 - r1 * layout.dilation1
                    q1 = t1 // layout.stride1
                    for r2 in range(layout.kernel2):
                        t2 = u2 + layout.padding2 - r2 * layout.dilation2
                        q2 = t2 // layout.stride2
                        there = q0 * layout.stride0 == t0 and q1 * layout.stride1 == t1 and q2 * layout.stride2 == t2
                        if there and 0 <= q0 < layout.out0 and 0 <= q1 < layout.out1 and 0 <= q2 < layout.out2:
                            window = ((plane * layout.out0 + q0) * layout.out1 + q1) * layout.out2 + q2
                            if chosen[window] == at:
                                total += dtype(grad_output[window])
            gradient[i] = total

    return max_pool_backward_kernel


@cache
def cross_entropy_kernel(dtype_name: str):
    """The kernel for one type."""
    dtype = getattr(numba, dtype_name)

    @kernel
    def cross_entropy_kernel(logits, target, log_softmax, losses, rows, classes):
        """log_softmax = log softmax(logits), losses = -log_softmax[target]; NaN for a target that is no class.

        Shapes: logits and log_softmax [rows, classes], target and losses [rows]. Parallel over the rows. Race-free
        because each is one thread's.
        """
        for row in range(cuda.grid(1), rows, cuda.gridsize(1)):
            base = row * classes
            largest = dtype(logits[base])
            for c in range(1, classes):
                largest = max(largest, dtype(logits[base + c]))
            total = dtype(0)
            for c in range(classes):
                total += math.exp(dtype(logits[base + c]) - largest)
            share = largest + math.log(total)
            for c in range(classes):
                log_softmax[base + c] = dtype(logits[base + c]) - share
            chosen = target[row]
            losses[row] = share - dtype(logits[base + chosen]) if 0 <= chosen < classes else dtype(math.nan)

    return cross_entropy_kernel


@cache
def cross_entropy_backward_kernel(dtype_name: str):
    """The kernel for one type."""
    dtype = getattr(numba, dtype_name)

    @kernel
    def cross_entropy_backward_kernel(log_softmax, target, gradient, rows, classes):
        """gradient = (exp(log_softmax) - 1 at the target) / rows. Parallel over the elements; each is one thread's."""
        for i in range(cuda.grid(1), gradient.size, cuda.gridsize(1)):
            share = math.exp(dtype(log_softmax[i]))
            if i % classes == target[i // classes]:
                share -= dtype(1)
            gradient[i] = share / dtype(rows)

    return cross_entropy_backward_kernel
