"""Arithmetic on device arrays, element by element or summed over axes: NumPy's meaning, broadcasting and types.

Numba has no functions for arithmetic in float16 that need no further library: it is done in float32 and rounded once.
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np
from numba import int64

from .copies import place
from .device import block_function, block_size, cuda, kernel

SUM_THREADS = block_size(256)


@block_function
def _larger(a, b):
    """The larger one, NaN where either is."""
    return a if a >= b or a != a else b


_OPERATIONS = {
    "add": block_function(lambda a, b: a + b), "subtract": block_function(lambda a, b: a - b),
    "multiply": block_function(lambda a, b: a * b), "true_divide": block_function(lambda a, b: a / b),
    "maximum": _larger, "greater": block_function(lambda a, b: a > b)}
OPERATIONS = {getattr(np, name): name for name in _OPERATIONS}
"""The functions of NumPy with two arguments that run on device arrays."""


def compute_type(dtype: np.dtype) -> str:
    """Name of the type in which values of `dtype` are combined."""
    return "float32" if dtype.char == "e" else dtype.name


@cache
def combine_kernel(name: str, dtype_name: str):
    """The kernel of one operation, computed in one type."""
    dtype, operation = getattr(numba, dtype_name), _OPERATIONS[name]

    @kernel
    def combine_kernel(first, first_start, second, second_start, target, layout, count):
        """target = operation(first, second), element by element.

        Shapes: target dense, first and second by layout [extents, strides, strides]. Parallel over the elements.
        Race-free because each is written by one thread.
        """
        rank = layout.size // 3
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            target[i] = operation(dtype(first[first_start + place(layout, rank, 1, i)]),
                                  dtype(second[second_start + place(layout, rank, 2, i)]))

    return combine_kernel


@cache
def number_kernel(name: str, dtype_name: str, first: bool):
    """The kernel of one operation with a number, which stands on the left where `first` says so."""
    dtype, operation = getattr(numba, dtype_name), _OPERATIONS[name]

    @kernel
    def number_kernel(source, start, target, layout, count, number):
        """target = operation(source, number), or of both the other way round.

        Shapes: target dense, source by layout [extents, strides]. Parallel over the elements. Race-free because each
        is written by one thread.
        """
        rank = layout.size // 2
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            value = dtype(source[start + place(layout, rank, 1, i)])
            target[i] = operation(number, value) if first else operation(value, number)

    return number_kernel


@cache
def sum_kernel(dtype_name: str):
    """The kernel of sums in one type."""
    dtype = getattr(numba, dtype_name)

    @kernel
    def sum_kernel(source, start, target, kept, summed, count, terms):
        """target = the sums of source over some axes.

        Shapes: target dense; source by kept and summed, each [extents, strides] of its axes. Parallel over the sums, a
        block each. Race-free because a block's partial sums are added between barriers and written by one thread.
        """
        partial = cuda.shared.array(SUM_THREADS, dtype)
        thread = cuda.threadIdx.x
        for unit in range(cuda.blockIdx.x, count, cuda.gridDim.x):
            base = start + place(kept, kept.size // 2, 1, unit)
            total = dtype(0)
            for i in range(thread, terms, cuda.blockDim.x):
                total += dtype(source[base + place(summed, summed.size // 2, 1, int64(i))])
            partial[thread] = total
            cuda.syncthreads()
            half = cuda.blockDim.x // 2
            while half > 0:
                if thread < half:
                    partial[thread] += partial[thread + half]
                cuda.syncthreads()
                half //= 2
            if thread == 0:
                target[unit] = partial[0]
            cuda.syncthreads()

    return sum_kernel
