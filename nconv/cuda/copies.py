"""Kernels that copy strided memory and change its type."""

from __future__ import annotations

import cmath
import math

from numba import int64, uint64

from .device import block_function, cuda, kernel


@block_function
def place(layout, rank, row, i):
    """Offset of element i in C order by the strides in row `row` of layout [extents, strides, strides]."""
    offset = int64(0)
    for b in range(rank):
        a = rank - 1 - b
        n = layout[a]
        offset += i % n * layout[row * rank + a]
        i //= n
    return offset


def _copier(change):
    def run(source, source_start, target, target_start, layout, count, low, mask):
        """target = change(source, low, mask), element by element. Shapes: any, by `layout`. Parallel over the elements.

        Race-free because no two elements of the target share memory.
        """
        rank = layout.size // 3
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            value = source[source_start + place(layout, rank, 1, i)]
            target[target_start + place(layout, rank, 2, i)] = change(value, low, mask)

    return kernel(run)


@block_function
def _wrap(value, low, mask):
    """A whole number modulo the target's size, `mask` + 1, from `low` on; 64 bits are all kept."""
    return ((int64(value) - low) & mask) + low


@block_function
def _unsigned(value, low, mask):
    """A float as uint64, negative ones modulo 2**64 as scipy.ndimage has them."""
    return uint64(value) if value >= 0 else uint64(int64(value))


copy_kernel = _copier(block_function(lambda value, low, mask: value))
bool_kernel = _copier(block_function(lambda value, low, mask: value != 0))
truncate_kernel = _copier(_wrap)
unsigned_kernel = _copier(_unsigned)
conjugate_kernel = _copier(block_function(lambda value, low, mask: value.conjugate()))
square_kernel = _copier(block_function(lambda value, low, mask: value * value))
root_kernel = _copier(block_function(lambda value, low, mask: math.sqrt(value)))
complex_root_kernel = _copier(block_function(lambda value, low, mask: cmath.sqrt(value)))


@kernel
def add_kernel(source, source_start, target, target_start, layout, count, low, mask):
    """target += source, element by element; see `_copier`."""
    rank = layout.size // 3
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        target[target_start + place(layout, rank, 2, i)] += source[source_start + place(layout, rank, 1, i)]
