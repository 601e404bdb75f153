"""The kernels of the implicit matrix product, and what they know of a problem."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numba
from numba import int32, int64

from ..arrays import OUTSIDE
from ..copies import place as offset_of
from ..device import block_function, cuda, kernel
from ..ptx import load, load_where, store, vload4, vstore

BEYOND = OUTSIDE // 2
TAPS = 8                       # of a step


class PatchLayout(NamedTuple):
    """What a thread of the kernels knows; axes are those of `in_three_axes`."""

    groups: int
    rows: int                  # output channels of a group times parts
    row_blocks: int
    columns: int               # images times positions
    column_blocks: int
    taps: int
    steps: int
    split_steps: int           # of one block
    place_steps: int           # at one place of the window, in a steady tiling
    split_stride: int          # from one block's sums to the next one's
    positions: int
    out1: int
    out2: int
    stride0: int
    stride1: int
    stride2: int
    map0: int                  # where an axis' map begins
    map1: int
    map2: int
    out_parts: int
    x_start: int
    x_batch: int
    x_group: int
    x_channel: int
    out_start: int
    out_batch: int
    out_channel: int
    out_part: int
    out_stride0: int
    out_stride1: int
    out_stride2: int
    bias_size: int
    quads: int                 # whether four neighbouring columns can be written at once


@kernel
def im2col_pack_kernel(weight, packed, out_channels, channels, window, parts, blocks, taps, width):
    """packed [groups, blocks, taps, width] = weight [groups K, C, window] in real numbers.

    Taps come in the order [window, C, parts]: a step's taps of one place of the window differ in their channel alone.
    A complex weight becomes [[re, -im], [im, re]] over (output part, input part); beyond rows and taps stands 0.
    Parallel over the elements. Race-free because each is written by one thread.
    """
    for i in range(cuda.grid(1), packed.size, cuda.gridsize(1)):
        row = i // width // taps % blocks * width + i % width
        g = i // width // taps // blocks
        tap = i // width % taps
        place, c = tap // parts // channels, tap // parts % channels
        packed[i] = 0
        if row < out_channels * parts and place < window:
            at = ((g * out_channels + row // parts) * channels + c) * window + place
            if parts == 1:
                packed[i] = weight[at]
            else:
                out_part, part = row % 2, tap % 2
                value = weight[2 * at + (out_part + part) % 2]
                packed[i] = -value if out_part < part else value


@kernel
def im2col_sum_kernel(sums, out, out_start, layout, count, splits):
    """out = the sum over splits of sums [splits, elements]. Parallel over the elements; each is one thread's."""
    rank = layout.size // 2
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        total = sums[i]
        for split in range(1, splits):
            total += sums[split * count + i]
        out[out_start + offset_of(layout, rank, 1, i)] = total


@kernel
def im2col_sum_quads_kernel(sums, out, count, splits):
    """The same into memory without gaps, for a count of whole quads; each is one thread's."""
    for i in range(4 * cuda.grid(1), count, 4 * cuda.gridsize(1)):
        a, b, c, d = vload4(sums, i)
        for split in range(1, splits):
            e = vload4(sums, split * count + i)
            a, b, c, d = a + e[0], b + e[1], c + e[2], d + e[3]
        vstore(out, i, (a, b, c, d))


@block_function
def look(maps, entry, map_at, column, width):
    """What the maps of the axes hold at an entry's place of the window.

    Their sum says where it lies in memory; below BEYOND: nowhere.
    """
    return (load(maps, load(map_at, column) + entry[1]), load(maps, load(map_at, column + width) + entry[2]),
            load(maps, load(map_at, column + 2 * width) + entry[3]))


@block_function
def spot(maps, taps, entry, map_at, column, width):
    """(the first number of an entry of the taps, where its place of the window lies for a column)."""
    four = vload4(taps, 4 * entry)
    a, b, c = look(maps, four, map_at, column, width)
    return four[0], a + b + c


def gatherer(dtype):
    """The block functions for one type: what stands outside the input, and one element of the patches."""
    @block_function
    def edge(layout, fill, t):
        """What tap t finds outside the input; beyond the last tap 0, for there an infinite fill must add nothing."""
        return fill[t & (fill.size - 1)] if t < layout.taps else dtype(0)

    @block_function
    def gather(x, at, fill, outside):
        """The element at the address `at`."""
        value = dtype(load_where(x, at, at > BEYOND, fill, 0))
        return value if at > BEYOND else outside

    return edge, gather


@block_function
def place(layout, row_place, row_bias, column_place, column_base, map_at, bias, g, split, row0, column0, thread,
          threads):
    """Where the rows and the columns of a block's tile go, below 0 where they do not exist, and what columns gather.

    Once for all threads, in shared memory: there it takes no registers from the sums. A column that does not exist
    gathers the last one's elements.
    """
    for i in range(thread, row_place.size, threads):
        k = g * layout.rows + row0 + i
        row_bias[i] = 0 if split else bias[k % layout.bias_size]
        row_place[i] = -1
        if row0 + i < layout.rows:
            row_place[i] = k // layout.out_parts * layout.out_channel + k % layout.out_parts * layout.out_part
    for i in range(thread, column_place.size, threads):
        column = min(column0 + i, layout.columns - 1)
        n, q = column // layout.positions, column % layout.positions
        o2 = q % layout.out2
        o1 = q // layout.out2 % layout.out1
        o0 = q // layout.out2 // layout.out1
        column_base[i] = layout.x_start + n * layout.x_batch + g * layout.x_group
        map_at[i] = layout.map0 + o0 * layout.stride0
        map_at[i + column_place.size] = layout.map1 + o1 * layout.stride1
        map_at[i + 2 * column_place.size] = layout.map2 + o2 * layout.stride2
        column_place[i] = -1
        if column0 + i < layout.columns:
            to = layout.out_start + split * layout.split_stride + n * layout.out_batch
            column_place[i] = to + o0 * layout.out_stride0 + o1 * layout.out_stride1 + o2 * layout.out_stride2


@cache
def im2col_tile_kernel(dtype_name: str, steady: bool, BM: int, BN: int, TM: int):
    """The kernel for one type: a block's tile is BM x BN, a thread's TM x TM.

    `steady`: all taps of a step lie at one place of the window, in neighbouring channels, so that a thread finds its
    elements from one address.
    """
    dtype = getattr(numba, dtype_name)
    edge, gather = gatherer(dtype)
    BK = TAPS
    threads = BM * BN // TM ** 2
    QUADS = TM // 4                                    # a thread's rows are so many runs of four
    WARPS = BN // TM // 8                              # side by side
    RUN_M, RUN_N = BM // QUADS, BN // QUADS            # from one run to the next
    LOADS = BK * BN // threads
    EVERY = threads // BN
    # Threads that a multiprocessor's registers suffice for: the sums take 64 of 32 bits, addresses and what is gathered
    # ahead the more, the more a thread gathers.
    RESIDENT = 256 if dtype.bitwidth > 32 or not steady else 512 if LOADS <= 4 else 384
    PANELS = BK * BM // threads // 4
    PANEL = 4 * PANELS
    SHARED_M, SHARED_N, MAPS = 2 * BK * BM, 2 * BK * BN, 3 * BN

    @block_function
    def multiply(rows_shared, at_row, columns_shared, at_column, sums):
        """Add the products of one tap."""
        a = cuda.local.array(TM, dtype)
        b = cuda.local.array(TM, dtype)
        for l in range(QUADS):
            quad = vload4(rows_shared, at_row + l * RUN_M)
            other = vload4(columns_shared, at_column + l * RUN_N)
            for i in range(4):
                a[4 * l + i] = quad[i]
                b[4 * l + i] = other[i]
        for i in range(TM):
            for j in range(TM):
                sums[i, j] += a[i] * b[j]

    @block_function
    def reach(layout, maps, taps, step, column_base, map_at, thread, at, inside, left):
        """Where a thread's elements of a steady step begin, whether inside the input, steps left at the place.

        From one step to the next at a place of the window, only the channel changes.
        """
        if left > 0:
            return at + BK * layout.x_channel, inside, int32(left - 1)
        offset, at = spot(maps, taps, step, map_at, thread % BN, BN)
        inside = at > BEYOND
        # Outside, the first element of the channel is read.
        at = load(column_base, thread % BN) + offset + thread // BN * layout.x_channel + (at if inside else 0)
        return at, inside, int32(layout.place_steps - 1 - step % layout.place_steps)

    @block_function
    def fetch(layout, x, maps, taps, fill, step, column_base, map_at, thread, at, values):
        """Send for this thread's elements of a step; no branch, so that all loads are on their way at once."""
        if steady:
            for l in range(LOADS):
                values[l] = dtype(load(x, at))
                at += EVERY * layout.x_channel
        else:
            base = load(column_base, thread % BN)
            for l in range(LOADS):
                t = step * BK + thread // BN + l * EVERY
                offset, at = spot(maps, taps, t, map_at, thread % BN, BN)
                values[l] = gather(x, base + offset + at, fill, edge(layout, fill, t))

    @kernel(bounds=(threads, max(1, RESIDENT // threads)))
    def im2col_tile_kernel(layout, x, maps, taps, weight, bias, fill, out):
        """[rows x taps] [taps x columns], one tile a block, double-buffered in shared memory.

        Shapes: x (N, groups C, parts, D, H, W) and out (N, groups K, parts, *out) by strides; taps [taps or steps, 4];
        weight [groups, row blocks, taps, BM]. Parallel over (groups, row blocks, column blocks). Race-free because each
        output is one thread's, and a step is written to the half of shared memory that nobody reads before the next
        barrier.
        """
        rows_shared = cuda.shared.array(SHARED_M, dtype)
        columns_shared = cuda.shared.array(SHARED_N, dtype)
        row_place = cuda.shared.array(BM, numba.int64)
        row_bias = cuda.shared.array(BM, dtype)
        column_place = cuda.shared.array(BN, numba.int64)
        column_base = cuda.shared.array(BN, numba.int64)
        map_at = cuda.shared.array(MAPS, numba.int32)
        sums = cuda.local.array((TM, TM), dtype)
        next_column = cuda.local.array(LOADS, dtype)
        next_row = cuda.local.array(PANEL, dtype)
        thread = cuda.threadIdx.x
        # What lives through the loop is kept in 32 bits: two blocks share a multiprocessor's registers.
        row_block = int32(cuda.blockIdx.x % layout.row_blocks)
        rest = cuda.blockIdx.x // layout.row_blocks
        column_block = int32(rest % layout.column_blocks)
        g = int32(rest // layout.column_blocks % layout.groups)
        split = int32(rest // layout.column_blocks // layout.groups)
        first_step = split * layout.split_steps
        steps = int32(min(layout.split_steps, layout.steps - first_step))

        place(layout, row_place, row_bias, column_place, column_base, map_at, bias, g, split, row_block * BM,
              column_block * BN, thread, threads)
        cuda.syncthreads()
        panel = ((g * layout.row_blocks + row_block) * layout.steps + first_step) * BK * BM
        for i in range(TM):
            for j in range(TM):
                sums[i, j] = 0

        outside = fill[0]
        at, inside, left = int64(0), True, int32(0)
        if steady:
            at, inside, left = reach(layout, maps, taps, first_step, column_base, map_at, thread, at, inside, left)
        fetch(layout, x, maps, taps, fill, first_step, column_base, map_at, thread, at, next_column)
        for l in range(LOADS):
            store(columns_shared, thread + l * threads, next_column[l] if inside else outside)
        for l in range(PANELS):
            quad_at = (thread + l * threads) * 4
            vstore(rows_shared, quad_at, vload4(weight, panel + quad_at))
        cuda.syncthreads()
        # A warp's lanes are 4 by 8, in an order in which its loads of shared memory meet no bank twice.
        lane, warp = thread % 32, thread // 32
        ty = (lane % 2 + lane // 16 * 2 + warp // WARPS * 4) * 4
        tx = (lane // 2 % 8 + warp % WARPS * 8) * 4
        for step in range(steps):
            more = step + 1 < steps
            if more:
                panel += BK * BM
                if steady:
                    at, inside, left = reach(layout, maps, taps, first_step + step + 1, column_base, map_at, thread, at,
                                             inside, left)
                fetch(layout, x, maps, taps, fill, first_step + step + 1, column_base, map_at, thread, at, next_column)
                for l in range(PANELS):
                    quad = vload4(weight, panel + (thread + l * threads) * 4)
                    for i in range(4):
                        next_row[4 * l + i] = quad[i]
            half = step & 1
            at_row = half * BK * BM + ty
            at_column = half * BK * BN + tx
            # One by one, for LLVM unrolls no loop of this size.
            multiply(rows_shared, at_row, columns_shared, at_column, sums)
            multiply(rows_shared, at_row + BM, columns_shared, at_column + BN, sums)
            multiply(rows_shared, at_row + 2 * BM, columns_shared, at_column + 2 * BN, sums)
            multiply(rows_shared, at_row + 3 * BM, columns_shared, at_column + 3 * BN, sums)
            multiply(rows_shared, at_row + 4 * BM, columns_shared, at_column + 4 * BN, sums)
            multiply(rows_shared, at_row + 5 * BM, columns_shared, at_column + 5 * BN, sums)
            multiply(rows_shared, at_row + 6 * BM, columns_shared, at_column + 6 * BN, sums)
            multiply(rows_shared, at_row + 7 * BM, columns_shared, at_column + 7 * BN, sums)
            if more:
                for l in range(LOADS):
                    store(columns_shared, (1 - half) * BK * BN + thread + l * threads,
                          next_column[l] if inside else outside)
                for l in range(PANELS):
                    vstore(rows_shared, (1 - half) * BK * BM + (thread + l * threads) * 4,
                            (next_row[4 * l], next_row[4 * l + 1], next_row[4 * l + 2], next_row[4 * l + 3]))
            cuda.syncthreads()

        if layout.quads:
            for j in range(0, TM, 4):
                to = load(column_place, j // 4 * RUN_N + tx)
                if to >= 0:
                    for i in range(TM):
                        row = i // 4 * RUN_M + ty + i % 4
                        if load(row_place, row) >= 0:
                            add = load(row_bias, row)
                            vstore(out, to + load(row_place, row), (sums[i, j] + add, sums[i, j + 1] + add,
                                                               sums[i, j + 2] + add, sums[i, j + 3] + add))
        else:
            for j in range(TM):
                to = load(column_place, j // 4 * RUN_N + tx + j % 4)
                if to >= 0:
                    for i in range(TM):
                        row = i // 4 * RUN_M + ty + i % 4
                        if load(row_place, row) >= 0:
                            store(out, to + load(row_place, row), sums[i, j] + load(row_bias, row))

    return im2col_tile_kernel
