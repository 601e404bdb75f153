"""Transforms of whole axes by passes over memory, where a window is long against a block of shared memory.

A plane is a matrix of complex points in memory: an image, or a signal cut into rows, whose transform needs one factor
more between columns and rows (four steps). Three kernels: columns of padded input forward; rows forward, times the
window's spectrum, and back; columns back into the output. Two real blocks ride as one complex one, see `blocks`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numba
from numba import int32, int64

from ..device import block_function, cuda, kernel
from ..ptx import behind, fields, load, load_where, magnitude, store
from .loudness import SILENT
from .passes import RADICES, divide, line_of, middle, passes_of
from .registers import multiply, pull, push, transform, turn
from .samples import nowhere, outside, sample

OUTSIDE, NOWHERE = outside("int32"), nowhere("int32")
WATCH_STEPS = 16                # samples of a thread in a cell
FINE = 10                      # logarithm of the turns that one table holds


class WholeLayout(NamedTuple):
    """A plane and where everything lies; axes 1 and 2, of a signal axis 2 alone."""

    groups: int
    out_channels: int          # of one group; each has one input channel
    rows: int                  # of a plane
    columns: int
    second: int                # what the imaginary part is: 0 nothing, 1 the rider, 2 of a complex number
    grid1: int                 # blocks of the output; the riders' half of them along axis 2
    grid2: int
    ride: int                  # outputs from a block to its rider
    valid1: int                # outputs of a block
    valid2: int
    size1: int                 # samples
    size2: int
    map2: int                  # where the map of axis 2 begins
    dense1: int                # outputs before the stride
    dense2: int
    stride1: int
    stride2: int
    over1: int                 # see `division.divisor`
    shift1: int
    over2: int
    shift2: int
    lanes: int                 # of the watch: threads of a team
    steps: int                 # samples of each thread, and where it goes from one to the next
    down: int
    across: int
    cell1: int                 # extent of a cell
    cell2: int
    cells1: int                # of one image
    cells2: int
    cells: int                 # of all
    fraction: int              # bits of a magnitude below its exponent
    loudest: int               # magnitude of the fill value
    loud: int                  # see `loudness`; the last two count exponents from 0
    large: int
    small: int
    x_start: int = 0
    x_lowest: int = 0          # of the first image, to which maps count
    x_batch: int = 0
    x_channel: int = 0
    x_part: int = 0
    x_step1: int = 0
    x_step2: int = 0
    out_start: int = 0
    out_batch: int = 0
    out_channel: int = 0
    out_part: int = 0
    out_step1: int = 0
    out_step2: int = 0
    bias_size: int = 0


layout_of = fields(WholeLayout)


def resident(dtype_name: str, threads: int) -> int:
    """Blocks that a multiprocessor's registers must suffice for: at 64 a thread, or 128 where a number takes two."""
    return max(2, 1024 // threads) if dtype_name == "float32" else max(1, 512 // threads)


@block_function
def block_of(layout, plane):
    """(channel, block along axis 1, along axis 2) of a plane."""
    if layout.grid1 * layout.grid2 == 1:
        return plane, int32(0), int32(0)
    rest, b2 = divide(plane, layout.grid2)
    channel, b1 = divide(rest, layout.grid1)
    return channel, b1, b2


@cache
def _watch(threads: int):
    """The function for blocks of so many threads."""

    @block_function
    def watch(layout, x, seen, block, thread):
        """seen[block] = (magnitude of the loudest sample, that of the quietest cell that is not silent).

        A cell is at most half a window along each axis. A team of threads reads one, and then the one that lies behind
        those of all blocks that watch.
        """
        cells = cuda.shared.array(threads, int32)
        ends = cuda.shared.array(2, int32)
        if thread == 0:
            ends[0] = int32(0)
            ends[1] = int32(SILENT)
        lanes = int32(layout.lanes)
        teams = divide(threads, lanes)[0]
        team, lane = divide(thread, lanes)
        step_at = layout.down * layout.x_step1 + layout.across * layout.x_step2
        for first in range(block * teams, layout.cells, seen.size // 2 * teams):
            cells[thread] = 0
            cuda.syncthreads()
            cell = int32(first + team)
            if team < teams and cell < layout.cells:
                rest, c2 = divide(cell, layout.cells2)
                channel, c1 = divide(rest, layout.cells1)
                n, g = divide(channel, layout.groups)
                # The last one is whole, too, where it can be.
                at1 = int32(max(0, min(c1 * layout.cell1, layout.size1 - layout.cell1)))
                at2 = int32(max(0, min(c2 * layout.cell2, layout.size2 - layout.cell2)) + lane)
                base = layout.x_start + n * layout.x_batch + g * layout.x_channel
                base += at1 * layout.x_step1 + at2 * layout.x_step2
                peak = int32(0)
                for part in range(layout.second // 2 + 1):
                    for step in range(WATCH_STEPS):
                        inside = step < layout.steps and at1 + step * layout.down < layout.size1 and (
                            at2 + step * layout.across < layout.size2)
                        value = magnitude(load_where(x, base + step * step_at + part * layout.x_part, inside, x, 0))
                        peak = max(peak, value if inside else int32(0))
                cuda.atomic.max(cells, team, peak)
            cuda.syncthreads()
            if cells[thread] > 0:
                cuda.atomic.max(ends, 0, cells[thread])
                cuda.atomic.min(ends, 1, cells[thread])
            cuda.syncthreads()
        if thread == 0:
            seen[2 * block] = ends[0]
            seen[2 * block + 1] = ends[1]

    return watch


@block_function
def decide(layout, seen, strange, asked, thread, threads):
    """asked[0] = whether the input, or a filter, is such that a transform of all of it cannot hold it."""
    ends = cuda.shared.array(2, int32)
    if thread == 0:
        ends[0] = int32(layout.loudest)
        ends[1] = int32(SILENT)
    cuda.syncthreads()
    largest, quiet, odd = int32(0), int32(SILENT), int32(0)
    for i in range(thread, seen.size // 2, threads):
        largest = max(largest, seen[2 * i])
        quiet = min(quiet, seen[2 * i + 1])
    for i in range(thread, strange.size, threads):
        odd = max(odd, strange[i])
    cuda.atomic.max(ends, 0, largest)
    cuda.atomic.min(ends, 1, quiet)
    odd = cuda.syncthreads_or(odd)
    if thread == 0:
        high, low = ends[0] >> layout.fraction, ends[1] >> layout.fraction
        asked[0] = 1 if odd or high - low > layout.loud or high > layout.large or (
            high < layout.small and ends[0] > 0) else 0


@block_function
def turn_of(fine, coarse, e):
    """exp(-2 pi i e / points) from two tables; e is below the number of points."""
    low = 2 * (e & ((1 << FINE) - 1))
    high = 2 * (e >> FINE)
    ar, ai = load(fine, low), load(fine, low + 1)
    br, bi = load(coarse, high), load(coarse, high + 1)
    return ar * br - ai * bi, ar * bi + ai * br


@cache
def _fold(length: int, back: bool):
    """The factor between columns and rows of a signal: times exp(-2 pi i frequency column / all), or its conjugate."""
    first_radix, second_radix, points = RADICES[length]
    apart = first_radix * second_radix

    @block_function
    def fold(values, fine, coarse, first, column):
        high, low = divide(divide(first, points)[0], second_radix)     # digits of the frequency, turned around
        e = int32((high + first_radix * low) * column)
        for q in range(points):
            wr, wi = turn_of(fine, coarse, int32(e + q * (apart * column)))
            wi = -wi if back else wi
            re, im = values[2 * q], values[2 * q + 1]
            values[2 * q] = re * wr - im * wi
            values[2 * q + 1] = re * wi + im * wr

    return fold


@cache
def columns_kernel(dtype_name: str, length: int, signal: bool, tile: int, threads: int):
    """The kernel for one type, one number of rows, images or signals."""
    dtype = getattr(numba, dtype_name)
    walks = line_of(length, tile, True, threads).walks
    one, _, three = passes_of(length)
    (place1, step1, butterflies1, rounds1), _, (place3, step3, butterflies3, rounds3) = walks
    radix1, apart1, radix3 = one.radix, one.apart, three.radix
    numbers1, numbers3 = 2 * radix1, 2 * radix3
    pull1, push1, turn1, transform1 = pull(radix1), push(radix1), turn(radix1, False), transform(radix1, False)
    pull3, push3, transform3, fold = pull(radix3), push(radix3), transform(radix3, False), _fold(length, False)
    second_pass = middle(length, tile, True, threads, False)

    @kernel(bounds=(threads, resident(dtype_name, threads)))
    def whole_columns_kernel(table, turns, fine, coarse, x, maps, fill, spectra):
        """Columns of padded input forward.

        Shapes: x (N, groups, *size) by strides, spectra [N, groups, blocks, rows, columns, 2]. Parallel over planes and
        tiles of columns. Race-free because a block writes its own columns.
        """
        shared = cuda.shared.array(0, dtype)
        layout = layout_of(table)
        thread = int32(cuda.threadIdx.x)
        plane = int32(cuda.blockIdx.y)
        column0 = int32(cuda.blockIdx.x * tile)
        channel, b1, b2 = block_of(layout, plane)
        n, g = divide(channel, layout.groups)
        base = layout.x_lowest + n * layout.x_batch + g * layout.x_channel
        columns, ride, valid1, valid2 = (
            int32(layout.columns), int32(layout.ride), int32(layout.valid1), int32(layout.valid2))
        second = layout.second
        re, im = behind(x, base), behind(x, base + layout.x_part * (second == 2))
        fill_re = fill[0]
        fill_im = fill[1] if second == 2 else fill_re
        for k in range(rounds1):
            i = int32(thread + k * threads)
            if i < butterflies1:
                c, _, j, at = place1(i)
                points = cuda.local.array(numbers1, dtype)
                place2 = layout.map2 + int32(b2 * valid2 + column0 + c)
                if signal:
                    place2 += j * columns
                else:
                    at_rows = int64(b1 * valid1 + j)
                    column = load(maps, place2)
                    rider = load(maps, place2 + ride) if second > 0 else int32(NOWHERE)
                for q in range(radix1):
                    if signal:
                        here = load(maps, place2 + q * apart1 * columns)
                        there = load(maps, place2 + q * apart1 * columns + ride) if second > 0 else int32(NOWHERE)
                    else:
                        row = load(maps, at_rows + q * apart1)
                        here = int32(row + column)
                        there = int32(row + rider)
                    points[2 * q] = sample(re, here, fill_re, dtype(0), OUTSIDE)
                    points[2 * q + 1] = sample(im, there, fill_im, dtype(0), OUTSIDE)
                values = pull1(points, 0, 1)
                push1(shared, at, step1, turn1(transform1(values), turns, j, apart1))
        cuda.syncthreads()
        second_pass(shared, turns, thread)
        cuda.syncthreads()
        plane_at = int64(plane) * (layout.rows * layout.columns) + column0
        for k in range(rounds3):
            i = int32(thread + k * threads)
            if i < butterflies3:
                c, first, _, at = place3(i)
                values = transform3(pull3(shared, at, step3))
                if signal:
                    ends = cuda.local.array(numbers3, dtype)
                    push3(ends, 0, 1, values)
                    fold(ends, fine, coarse, first, int32(column0 + c))
                    values = pull3(ends, 0, 1)
                push3(spectra, plane_at + int32(first * int32(layout.columns) + c), layout.columns, values)

    return whole_columns_kernel


@cache
def rows_kernel(dtype_name: str, length: int, count: int, threads: int, multiplied: bool):
    """The kernel for one type and one length of a row; not `multiplied`: for the window, scaled by kernels[0]."""
    dtype = getattr(numba, dtype_name)
    walks = line_of(length, count, False, threads).walks
    one, _, three = passes_of(length)
    (place1, step1, butterflies1, rounds1), _, (place3, step3, butterflies3, rounds3) = walks
    radix1, apart1, radix3 = one.radix, one.apart, three.radix
    pull1, push1, turn1, transform1 = pull(radix1), push(radix1), turn(radix1, False), transform(radix1, False)
    watch = _watch(threads)
    multiply3 = multiply(radix3)
    turn_back1, back1 = turn(radix1, True), transform(radix1, True)
    pull3, push3, transform3, back3 = pull(radix3), push(radix3), transform(radix3, False), transform(radix3, True)
    forward2 = middle(length, count, False, threads, False)
    back2 = middle(length, count, False, threads, True)

    @kernel(bounds=(threads, resident(dtype_name, threads)))
    def whole_rows_kernel(table, turns, x, source, kernels, seen, target):
        """Rows forward, times the window's spectrum, and back; besides, the first blocks `watch` the input.

        Shapes: source [N, groups, blocks, rows, columns, 2], target [N, groups K, ...], kernels [groups K, rows,
        columns, 2]; x and seen as in `watch`. Parallel over target's planes and groups of rows.
        Race-free because a block reads and writes its own rows (they may be the same memory where K is 1).
        """
        shared = cuda.shared.array(0, dtype)
        layout = layout_of(table)
        thread = int32(cuda.threadIdx.x)
        plane = int32(cuda.blockIdx.y)
        row0 = int32(cuda.blockIdx.x * count)
        outer, block = divide(plane, layout.grid1 * layout.grid2)
        k_all = divide(outer, layout.groups * layout.out_channels)[1]
        size = layout.rows * layout.columns
        from_plane = int64(plane)
        if layout.out_channels > 1:
            from_plane = int64(divide(outer, layout.out_channels)[0]) * (layout.grid1 * layout.grid2) + block
        inner = int64(row0) * layout.columns
        from_at = from_plane * size + inner
        to_at = int64(plane) * size + inner
        kernel_at = int64(k_all) * size + inner
        block = int32(cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x)
        if multiplied and block < seen.size // 2:
            watch(layout, x, seen, block, thread)
        for k in range(rounds1):
            i = int32(thread + k * threads)
            if i < butterflies1:
                r, first, j, at = place1(i)
                values = transform1(pull1(source, from_at + int32(r * length + first), apart1))
                push1(shared, at, step1, turn1(values, turns, j, apart1))
        cuda.syncthreads()
        forward2(shared, turns, thread)
        cuda.syncthreads()
        for k in range(rounds3):
            i = int32(thread + k * threads)
            if i < butterflies3:
                r, first, _, at = place3(i)
                values = transform3(pull3(shared, at, step3))
                if multiplied:
                    factors = pull3(kernels, kernel_at + int32(r * length + first), 1)
                    push3(shared, at, step3, back3(multiply3(values, factors)))
                else:
                    values = multiply3(values, pull3(kernels, 0, 0))
                    push3(target, to_at + int32(r * length + first), 1, values)
        if multiplied:
            cuda.syncthreads()
            back2(shared, turns, thread)
            cuda.syncthreads()
            for k in range(rounds1):
                i = int32(thread + k * threads)
                if i < butterflies1:
                    r, first, j, at = place1(i)
                    values = back1(turn_back1(pull1(shared, at, step1), turns, j, apart1))
                    push1(target, to_at + int32(r * length + first), apart1, values)

    return whole_rows_kernel


@block_function
def to_of(place, inside, dense, stride, over, shift):
    """Index of the output at a place before the stride; -1 where there is none, or not `inside`."""
    quotient = int32((int64(place) * over) >> shift)
    return quotient if inside and place < dense and quotient * stride == place else int32(-1)


@cache
def back_kernel(dtype_name: str, length: int, signal: bool, tile: int, threads: int):
    """The kernel for one type, one number of rows, images or signals."""
    dtype = getattr(numba, dtype_name)
    walks = line_of(length, tile, True, threads).walks
    one, _, three = passes_of(length)
    (place1, step1, butterflies1, rounds1), _, (place3, step3, butterflies3, rounds3) = walks
    radix1, apart1, radix3 = one.radix, one.apart, three.radix
    numbers1, numbers3 = 2 * radix1, 2 * radix3
    pull1, push1, turn1, transform1 = pull(radix1), push(radix1), turn(radix1, True), transform(radix1, True)
    pull3, push3, transform3, fold = pull(radix3), push(radix3), transform(radix3, True), _fold(length, True)
    second_pass = middle(length, tile, True, threads, True)

    @kernel(bounds=(threads, resident(dtype_name, threads)))
    def whole_back_kernel(table, turns, fine, coarse, spectra, bias, seen, strange, asked, out):
        """Columns back, and what did not wrap around into the output; the first block tells whether to do it anew.

        Shapes: spectra [N, groups K, blocks, rows, columns, 2], out (N, groups K, *out) by strides. Parallel over
        planes and tiles of columns. Race-free because each output is one block's.
        """
        shared = cuda.shared.array(0, dtype)
        layout = layout_of(table)
        thread = int32(cuda.threadIdx.x)
        plane = int32(cuda.blockIdx.y)
        column0 = int32(cuda.blockIdx.x * tile)
        channel, b1, b2 = block_of(layout, plane)
        n, k_all = divide(channel, layout.groups * layout.out_channels)
        if cuda.blockIdx.x + cuda.blockIdx.y == 0:
            decide(layout, seen, strange, asked, thread, threads)
        base = layout.out_start + n * layout.out_batch + k_all * layout.out_channel
        plane_at = int64(plane) * (layout.rows * layout.columns) + column0
        for k in range(rounds3):
            i = int32(thread + k * threads)
            if i < butterflies3:
                c, first, _, at = place3(i)
                values = pull3(spectra, plane_at + int32(first * int32(layout.columns) + c), layout.columns)
                if signal:
                    ends = cuda.local.array(numbers3, dtype)
                    push3(ends, 0, 1, values)
                    fold(ends, fine, coarse, first, int32(column0 + c))
                    values = pull3(ends, 0, 1)
                push3(shared, at, step3, transform3(values))
        cuda.syncthreads()
        second_pass(shared, turns, thread)
        cuda.syncthreads()
        second, step_out = layout.second, layout.out_step2
        parts = 1 + (second == 2)
        part = base + layout.out_part * (second == 2)
        plus_re = bias[k_all * parts % layout.bias_size]
        plus_im = bias[(k_all * parts + parts - 1) % layout.bias_size]
        valid1, valid2 = int32(layout.valid1), int32(layout.valid2)
        dense1, dense2 = int32(layout.dense1), int32(layout.dense2)
        stride1, stride2 = int32(layout.stride1), int32(layout.stride2)
        over1, shift1, over2, shift2 = layout.over1, layout.shift1, layout.over2, layout.shift2
        ride, columns = int32(layout.ride), int32(layout.columns)
        for k in range(rounds1):
            i = int32(thread + k * threads)
            if i < butterflies1:
                c, _, j, at = place1(i)
                values = transform1(turn1(pull1(shared, at, step1), turns, j, apart1))
                points = cuda.local.array(numbers1, dtype)
                push1(points, 0, 1, values)
                i2 = int32(column0 + c)
                if not signal:
                    inside = i2 < valid2
                    here = to_of(int32(b2 * valid2 + i2), inside, dense2, stride2, over2, shift2)
                    there = to_of(int32(b2 * valid2 + i2 + ride), inside and second > 0, dense2, stride2, over2, shift2)
                    first_to = base + here * step_out
                    second_to = part + there * step_out
                for q in range(radix1):
                    i1 = int32(j + q * apart1)
                    if signal:
                        v = int32(i1 * columns + i2)
                        inside = v < valid2
                        v = int32(v + b2 * valid2)
                        here = to_of(v, inside, dense2, stride2, over2, shift2)
                        there = to_of(int32(v + ride), inside and second > 0, dense2, stride2, over2, shift2)
                        if here >= 0:
                            store(out, base + here * step_out, points[2 * q] + plus_re)
                        if there >= 0:
                            store(out, part + there * step_out, points[2 * q + 1] + plus_im)
                    else:
                        row = to_of(int32(b1 * valid1 + i1), i1 < valid1, dense1, stride1, over1, shift1)
                        to = row * layout.out_step1
                        if row >= 0 and here >= 0:
                            store(out, first_to + to, points[2 * q] + plus_re)
                        if row >= 0 and there >= 0:
                            store(out, second_to + to, points[2 * q + 1] + plus_im)

    return whole_back_kernel
