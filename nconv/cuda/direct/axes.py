"""What the kernels of tiles and rows share: three axes, their maps, division by multiplication."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int32, uint64

from ...boundary import FILL
from ...geometry import ceil_div
from ...problem import ConvProblem
from ..arrays import OUTSIDE, three
from ..device import block_function, device_cache, upload

NARROW = 1 << 29               # elements of an image up to which its places are numbers of 32 bits


def three_axes(problem: ConvProblem, values: tuple, one: Any = 1) -> tuple:
    """Entries of up to three axes as those of three. A signal's samples are rows where its channels are neighbours."""
    return (one, *values, one) if problem.rank == 1 and problem.channels_last else three(values, one)


@device_cache(256)
def axis_maps(problem: ConvProblem, strides: tuple[int, ...]) -> tuple[Any, int, str]:
    """(the maps of three axes times their strides on the device, what to add to the input's start, type of the maps).

    No place lies below 0, and those outside so far below that no sum over two axes rises above it: kernels look at the
    sign.
    """
    least = [min(0, (n - 1) * step) for n, step in zip(problem.size, strides, strict=True)]
    extent = sum(n * abs(step) for n, step in zip(problem.size, strides, strict=True))
    index = "int32" if extent < NARROW else "int64"
    maps = [np.where(m == FILL, -(1 << 30) if index == "int32" else OUTSIDE, m * step - low)
            for m, step, low in zip(problem.index_maps(), strides, least, strict=True)]
    return upload(np.concatenate(three_axes(problem, tuple(maps), np.zeros(1))).astype(index)), sum(least), index


def divisor(n: int) -> tuple[int, int]:
    """(factor, shift): a // n is (a * factor) >> shift for 0 <= a < 2**31, in two instructions instead of twenty.

    The factor is 2**shift / n rounded up, by less than 1, so the quotient is too large by less than a / 2**shift <
    2**-bits <= 1 / n, which does not reach the next whole number.
    """
    bits = (n - 1).bit_length()
    return ceil_div(1 << 31 + bits, n), 31 + bits


@block_function
def over(a, factor, shift):
    """a // n; see `divisor`."""
    return int32((uint64(a) * uint64(factor)) >> uint64(shift))
