"""Blocks that a transform cannot hold: what is loud would drown what is quiet, or products leave the type's range.

A transform rounds relative to its largest sample. Where few samples are so much louder than the quietest part of a
block that their rounding reaches it, the block is summed by the definition instead; so are blocks of extreme magnitude.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import int32

from ..device import block_function, cuda


class Limits(NamedTuple):
    """Powers of two."""

    loud: int                  # the loudest over the quietest cell: less than 1 / sqrt(eps)
    large: int                 # no sample and no tap above it
    small: int                 # no block wholly below it


def limits_of(dtype: np.dtype) -> Limits:
    """The limits for float32 or float64: products of two spectra of 4,096 points and their sums stay in range."""
    return Limits(10, 40, -80) if dtype == np.float32 else Limits(25, 400, -800)


SILENT = -(1 << 20)


@block_function
def reset(extremes):
    """Begin with no cell seen: [largest exponent, least exponent, loud samples]. By one thread, before a barrier."""
    extremes[0] = SILENT
    extremes[1] = -SILENT
    extremes[2] = 0


@block_function
def is_uneven(re, im, points, extremes, peaks, row, loud, large, small, thread, threads):
    """Whether a block, or its rider, must be summed by the definition; the same for all threads, with barriers.

    A cell is the samples of four threads: side by side along the last axis, of which a line has `row` threads, one
    below the other; silent ones do not count. A cell of fewer samples, such as one at an edge whose other samples are
    padding, would be quiet by chance too often. Where more than an eighth is loud there is no quiet part to protect,
    only a slope.
    """
    cell = points // threads
    first = thread * cell
    skew = first >> 5                          # so that the lanes of a warp read 32 banks
    row = min(row, threads // 4)
    for part in range(2):
        peak = abs(re[first]) if part == 0 else abs(im[first])
        for i in range(cell):
            at = first + ((i + skew) & (cell - 1))
            peak = max(peak, abs(re[at]) if part == 0 else abs(im[at]))
        peaks[thread] = int32(math.floor(math.log2(peak))) if peak > 0 else int32(SILENT)
        cuda.syncthreads()
        exponent = max(max(peaks[thread], peaks[thread ^ row]), max(peaks[thread ^ 2 * row], peaks[thread ^ 3 * row]))
        if exponent > SILENT:
            cuda.atomic.max(extremes, 0, exponent)
            cuda.atomic.min(extremes, 1, exponent)
        cuda.syncthreads()
    largest, quiet = extremes[0], extremes[1]
    if largest - quiet > loud:
        threshold = 2.0 ** (quiet + loud + 1)
        count = 0
        for i in range(cell):
            at = first + ((i + skew) & (cell - 1))
            count += (abs(re[at]) > threshold) + (abs(im[at]) > threshold)
        cuda.atomic.add(extremes, 2, int32(count))
        cuda.syncthreads()
        if extremes[2] <= points // 8:
            return True
    return largest > large or (largest < small and largest >= quiet)
