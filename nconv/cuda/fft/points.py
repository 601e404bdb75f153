"""What a thread does with its points of a block: gathers and looks at them, multiplies spectra, writes outputs.

Each function is made for one shape of block, so that what belongs to which register is known when a kernel compiles.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import int32, int64

from ...geometry import product
from ..device import SIMULATED, block_function, cuda
from ..division import over
from ..ptx import behind, fields, load, magnitude, store, warp_max
from .boxes import Lengths, butterfly_of, held, in_turn, passes_of, transform_box
from .loudness import SILENT, fraction_of
from .passes import divide
from .registers import add_products, multiply, pull, push
from .samples import nowhere, outside, sample

_CELL = 4                      # points of a thread that are one cell with those of its warp
_WARP = 1 if SIMULATED else 32
_TOGETHER = 16                 # bytes of a spectrum's real parts a thread multiplies at once: more have no registers


class BlockLayout(NamedTuple):
    """A block's shape and where everything lies; three axes, 0 to 2."""

    groups: int
    channels: int              # of one group
    out_channels: int
    second: int                # what the imaginary part is: 0 nothing, 1 the rider, 2 of a complex number
    valid0: int                # outputs of a block, and the shift from one block to the next
    valid1: int
    valid2: int
    chunk0: int                # taps of a part of the window
    chunk1: int
    chunk2: int
    pieces0: int               # parts of the window
    pieces1: int
    pieces2: int
    grid0: int                 # blocks of the output; the riders' half of them along axis 2
    grid1: int
    grid2: int
    ride: int                  # outputs along axis 2 from a block to its rider
    kernel0: int
    kernel1: int
    kernel2: int
    dilation0: int
    dilation1: int
    dilation2: int
    stride0: int
    stride1: int
    stride2: int
    over0: int                 # see `division.divisor`
    shift0: int
    over1: int
    shift1: int
    over2: int
    shift2: int
    dense0: int                # outputs before the stride
    dense1: int
    dense2: int
    map1: int                  # where the maps of axes 1 and 2 begin
    map2: int
    loud: int                  # see `loudness`; the last two count exponents from 0
    large: int
    small: int
    ends: int                  # see `ConvProblem`
    x_start: int = 0
    x_batch: int = 0
    x_channel: int = 0
    x_part: int = 0
    out_start: int = 0
    out_batch: int = 0
    out_channel: int = 0
    out_part: int = 0
    out_stride0: int = 0
    out_stride1: int = 0
    out_stride2: int = 0
    bias_size: int = 0


layout_of = fields(BlockLayout)


def threads_of(lengths: Lengths, itemsize: int) -> int:
    """Threads of a block."""
    return product(lengths) // held(lengths, itemsize)


def resident(lengths: Lengths, itemsize: int, index: str = "int32", strided: bool = False) -> int:
    """Blocks that a multiprocessor's registers must suffice for: at 80 a thread, 128 for twice as many bytes.

    Places of 64 bits and strides need more.
    """
    wide = held(lengths, itemsize) * itemsize > 64
    each = (168 if wide else 128) if strided or index == "int64" else 128 if wide else 80
    return max(1, 65536 // (each * threads_of(lengths, itemsize)))


@block_function
def to_of(at, stride, factor, shift):
    """Index of the output at a place before the stride; -1 where there is none."""
    quotient = over(at, factor, shift)
    return quotient if int32(quotient * int32(stride)) == at else int32(-1)


@block_function
def same(at, stride, factor, shift):
    """`to_of` for a stride of 1."""
    return at


@block_function
def block_of(layout, block):
    """(n, output channel of all groups, block along axis 0, 1, 2)."""
    rest, b2 = divide(block, layout.grid2)
    rest, b1 = divide(rest, layout.grid1)
    rest, b0 = divide(rest, layout.grid0)
    n, k_all = divide(rest, layout.groups * layout.out_channels)
    return n, k_all, b0, b1, b2


@block_function
def x_block_of(layout, block):
    """(n, input channel of all groups, block along axis 0, 1, 2)."""
    rest, b2 = divide(block, layout.grid2 + layout.pieces2 - 1)
    rest, b1 = divide(rest, layout.grid1 + layout.pieces1 - 1)
    rest, b0 = divide(rest, layout.grid0 + layout.pieces0 - 1)
    n, c = divide(rest, layout.groups * layout.channels)
    return n, c, b0, b1, b2


@cache
def gather_of(lengths: Lengths, dtype_name: str, index: str):
    """The function that fills a thread's `values` with points of a block and its rider, those of the first pass."""
    dtype, place = getattr(numba, dtype_name), getattr(numba, index)
    most = held(lengths, dtype.bitwidth // 8)
    axis, radix, apart, inner, _ = passes_of(lengths, most)[0]
    along, NOWHERE, OUTSIDE = apart // inner, nowhere(index), outside(index)
    length1, length2 = lengths[1:]

    def of(k):
        butterfly, first_point = butterfly_of(lengths, most, 0, k), k * radix

        @block_function
        def gather(values, layout, x, maps, fill, base, b0, b1, b2, thread):
            second, ride = int32(layout.second), int32(layout.ride)
            fill_re = fill[0]
            fill_im = fill[1] if second == 2 else fill_re
            re, im = behind(x, base), behind(x, base + layout.x_part * (second == 2))
            rest, u2 = divide(butterfly(thread)[0], length2)
            u0, u1 = divide(rest, length1)
            at0 = int32(b0 * int32(layout.valid0) + u0)
            at1 = int32(int32(layout.map1) + b1 * int32(layout.valid1) + u1)
            at2 = int32(int32(layout.map2) + b2 * int32(layout.valid2) + u2)
            here, there = place(0), place(NOWHERE)             # but for what lies along the axis of the pass
            if axis != 0:
                here = place(here + load(maps, at0))
            if axis != 1:
                here = place(here + load(maps, at1))
            if axis == 2:
                there = here if second > 0 else there
                ones, others = behind(maps, int64(at2)), behind(maps, int64(at2 + ride))
            else:
                if second > 0:
                    there = place(here + load(maps, int32(at2 + ride)))
                here = place(here + load(maps, at2))
                ones = behind(maps, int64(at0 if axis == 0 else at1))
                others = ones
            for q in range(radix):
                i = 2 * (first_point + q)
                values[i] = sample(re, place(here + load(ones, q * along)), fill_re, dtype(0), OUTSIDE)
                values[i + 1] = sample(im, place(there + load(others, q * along)), fill_im, dtype(0), OUTSIDE)

        return gather

    return in_turn([of(k) for k in range(most // radix)])


@block_function
def reset(extremes, thread):
    """Begin with no sample seen: [largest magnitude, that of the quietest cell, loud samples]. Ends with a barrier."""
    if thread == 0:
        extremes[0] = 0
        extremes[1] = SILENT
        extremes[2] = 0
    cuda.syncthreads()


@cache
def is_uneven_in(lengths: Lengths, dtype_name: str):
    """The function that tells whether a transform cannot hold a block, or its rider; see `loudness`.

    A cell is what a warp's threads have of up to four points that follow one another in the first pass: that many
    pieces of 32 samples side by side. One piece alone could have a single sample, at an edge, and be quiet by chance.
    """
    dtype = np.dtype(dtype_name)
    most = held(lengths, dtype.itemsize)
    radix, points, fraction = passes_of(lengths, most)[0].radix, product(lengths), fraction_of(dtype)
    cell = min(_CELL, radix)

    @block_function
    def is_uneven(layout, values, extremes, thread):
        """The same for all threads; begins behind a barrier that followed `reset`, ends with one."""
        high, low = int32(0), int32(SILENT)
        for number in range(most // cell):
            for part in range(2):
                peak = int32(0)
                for i in range(cell):
                    peak = max(peak, magnitude(values[2 * (number * cell + i) + part]))
                peak = warp_max(peak)
                high = max(high, peak)
                low = min(low, peak if peak > 0 else int32(SILENT))
        if thread % _WARP == 0:
            cuda.atomic.max(extremes, 0, high)
            cuda.atomic.min(extremes, 1, low)
        cuda.syncthreads()
        loudest = extremes[0] >> fraction
        quiet = extremes[1] >> fraction
        if loudest - quiet > layout.loud:
            count = int32(0)
            for i in range(2 * most):
                count += int32((magnitude(values[i]) >> fraction) > quiet + layout.loud)
            cuda.atomic.add(extremes, 2, count)
            cuda.syncthreads()
            if extremes[2] <= points // 8:
                return True
        return loudest > layout.large or (loudest < layout.small and extremes[0] > 0)

    return is_uneven


@cache
def read_of(lengths: Lengths, dtype_name: str, index: str):
    """The function that fills a thread's `values` and marks what a transform cannot hold; all threads call it."""
    gather, is_uneven = gather_of(lengths, dtype_name, index), is_uneven_in(lengths, dtype_name)

    @block_function
    def read(values, layout, x, maps, fill, base, b0, b1, b2, strange, thread):
        extremes = cuda.shared.array(3, int32)
        reset(extremes, thread)
        gather(values, layout, x, maps, fill, base, b0, b1, b2, thread)
        odd = is_uneven(layout, values, extremes, thread)
        if thread == 0:
            strange[cuda.blockIdx.x] = 1 if odd else 0

    return read


@cache
def put_of(lengths: Lengths, dtype_name: str, index: str, strided: bool):
    """The function that writes what did not wrap around of a thread's points of a block and its rider."""
    dtype, place = getattr(numba, dtype_name), getattr(numba, index)
    most = held(lengths, dtype.bitwidth // 8)
    axis, radix, apart, inner, _ = passes_of(lengths, most)[0]
    along, scale, to = apart // inner, 1 / product(lengths), to_of if strided else same
    length1, length2 = lengths[1:]

    def of(k):
        butterfly, first_point = butterfly_of(lengths, most, 0, k), k * radix

        @block_function
        def put(values, layout, bias, out, thread):
            n, k_all, b0, b1, b2 = block_of(layout, cuda.blockIdx.x)
            base = layout.out_start + n * layout.out_batch + k_all * layout.out_channel
            second, ride = int32(layout.second), int32(layout.ride)
            parts = 1 + (second == 2)
            plus_re = bias[divide(k_all * parts, layout.bias_size)[1]]
            plus_im = bias[divide(k_all * parts + parts - 1, layout.bias_size)[1]]
            re, im = behind(out, base), behind(out, base + layout.out_part * (second == 2))
            rest, i2 = divide(butterfly(thread)[0], length2)
            i0, i1 = divide(rest, length1)
            v0 = int32(b0 * int32(layout.valid0))
            v1 = int32(b1 * int32(layout.valid1))
            v2 = int32(b2 * int32(layout.valid2))
            end0 = min(int32(layout.valid0), int32(int32(layout.dense0) - v0))
            end1 = min(int32(layout.valid1), int32(int32(layout.dense1) - v1))
            end2 = min(int32(layout.valid2), int32(int32(layout.dense2) - v2))
            rider_end = min(int32(layout.valid2), int32(int32(layout.dense2) - v2 - ride)) if second > 0 else int32(0)
            step0, step1, step2 = place(layout.out_stride0), place(layout.out_stride1), place(layout.out_stride2)
            for q in range(radix):
                u0 = int32(i0 + q * along) if axis == 0 else i0
                u1 = int32(i1 + q * along) if axis == 1 else i1
                u2 = int32(i2 + q * along) if axis == 2 else i2
                q0 = to(int32(v0 + u0), layout.stride0, layout.over0, layout.shift0)
                q1 = to(int32(v1 + u1), layout.stride1, layout.over1, layout.shift1)
                here = to(int32(v2 + u2), layout.stride2, layout.over2, layout.shift2)
                there = to(int32(v2 + u2 + ride), layout.stride2, layout.over2, layout.shift2)
                inside = u0 < end0 and u1 < end1 and (not strided or (q0 >= 0 and q1 >= 0))
                row = place(q0 * step0 + q1 * step1)
                i = 2 * (first_point + q)
                if inside and u2 < end2 and (not strided or here >= 0):
                    store(re, place(row + here * step2), values[i] * dtype(scale) + plus_re)
                if inside and u2 < rider_end and (not strided or there >= 0):
                    store(im, place(row + there * step2), values[i + 1] * dtype(scale) + plus_im)

        return put

    return in_turn([of(k) for k in range(most // radix)])


class Block(NamedTuple):
    """What the kernels of one type and one shape of block share."""

    dtype: Any                 # Numba's
    points: int
    threads: int
    numbers: int               # of a thread: its points, real and imaginary parts
    forward: Any               # see `boxes.transform_box`
    back: Any
    keep: Any                  # function: write the thread's points of the last pass behind those of `at` blocks
    times: Any                 # function: multiply them by those that `keep` wrote
    add: Any                   # function: add products of such ones


@cache
def block_functions(dtype_name: str, lengths: Lengths) -> Block:
    """A thread's points of the last pass lie `threads` apart in a spectrum, so that lanes meet neighbours."""
    dtype = getattr(numba, dtype_name)
    itemsize, points = dtype.bitwidth // 8, product(lengths)
    most, threads = held(lengths, itemsize), threads_of(lengths, itemsize)
    few = min(most, _TOGETHER // itemsize)
    pull_, push_, multiply_, add_ = pull(few), push(few), multiply(few), add_products(few)
    pull_all, push_all = pull(most), push(most)

    @block_function
    def keep(values, spectra, at, thread):
        push_all(spectra, int64(at) * points + thread, threads, pull_all(values, 0, 1))

    def times(first):
        @block_function
        def times(values, spectra, at, thread):
            factors = pull_(spectra, int64(at) * points + (first * threads + thread), threads)
            push_(values, first, 1, multiply_(pull_(values, first, 1), factors))

        return times

    def add(first):
        @block_function
        def add(values, spectra, at, kernels, at_k, thread):
            here = first * threads + thread
            one = pull_(spectra, int64(at) * points + here, threads)
            other = pull_(kernels, int64(at_k) * points + here, threads)
            push_(values, first, 1, add_(pull_(values, first, 1), one, other))

        return add

    parts = range(0, most, few)
    return Block(dtype, points, threads, 2 * most, transform_box(lengths, most, False),
                 transform_box(lengths, most, True), keep, in_turn([*map(times, parts)]), in_turn([*map(add, parts)]))


@cache
def take_of(lengths: Lengths, most: int):
    """The function that reads a thread's points of the first pass where they lie side by side."""
    _, radix, apart, _, _ = passes_of(lengths, most)[0]
    pull_, push_ = pull(radix), push(radix)

    def of(k):
        butterfly, here = butterfly_of(lengths, most, 0, k), k * radix

        @block_function
        def take(values, shared, thread):
            push_(values, here, 1, pull_(shared, butterfly(thread)[0], apart))

        return take

    return in_turn([of(k) for k in range(most // radix)])
