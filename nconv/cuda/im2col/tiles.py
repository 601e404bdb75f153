"""The kernels of the implicit matrix product, and what they know of a problem."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numba
from numba import int32

from ..arrays import OUTSIDE
from ..copies import place as offset_of
from ..device import block_function, cuda, kernel
from ..ptx import vload4, vstore4

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
    window: int                # taps of one channel
    x_start: int
    x_batch: int
    x_group: int
    out_start: int
    out_batch: int
    out_channel: int
    out_part: int
    out_stride0: int
    out_stride1: int
    out_stride2: int
    bias_size: int


@kernel
def im2col_pack_kernel(weight, packed, out_channels, channels, window, parts, blocks, taps, width, together):
    """packed [groups, blocks, taps / together, width, together] = weight [groups K, C, window] in real numbers.

    A complex weight becomes [[re, -im], [im, re]] over (output part, input part); beyond rows and taps stands 0.
    Parallel over the elements. Race-free because each is written by one thread.
    """
    for i in range(cuda.grid(1), packed.size, cuda.gridsize(1)):
        word = i // together
        row = word // width // (taps // together) % blocks * width + word % width
        g = i // width // taps // blocks
        tap = word // width % (taps // together) * together + i % together
        c = tap // window // parts
        packed[i] = 0
        if row < out_channels * parts and c < channels:
            at = ((g * out_channels + row // parts) * channels + c) * window + tap % window
            if parts == 1:
                packed[i] = weight[at]
            else:
                out_part, part = row % 2, tap // window % 2
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


def gatherer(dtype):
    """The block function that finds one element of the patches."""
    @block_function
    def gather(layout, x, maps, taps, fill, t, base, at0, at1, at2, inside):
        """Element (tap t, this thread's position) of the patches; 0 beyond the last tap or position."""
        if t >= layout.taps or not inside:
            return dtype(0)
        at = base + taps[4 * t] + maps[at0 + taps[4 * t + 1]] + maps[at1 + taps[4 * t + 2]]
        at += maps[at2 + taps[4 * t + 3]]
        return dtype(x[at]) if at > BEYOND else fill[t // layout.window % fill.size]

    return gather


@block_function
def place(layout, row_place, row_bias, column_place, bias, g, split, row0, column0, thread, threads):
    """Where in memory the rows and the columns of a block's tile go, below 0 where they do not exist; the rows' bias.

    Once for all threads, in shared memory: with the divisions among them the stores would not be unrolled, and a sum
    that is not named by a constant lies in local memory.
    """
    for i in range(thread, row_place.size, threads):
        k = g * layout.rows + row0 + i
        row_bias[i] = 0 if split else bias[k % layout.bias_size]
        row_place[i] = -1
        if row0 + i < layout.rows:
            row_place[i] = k // layout.out_parts * layout.out_channel + k % layout.out_parts * layout.out_part
    for i in range(thread, column_place.size, threads):
        column = column0 + i
        q = column % layout.positions
        column_place[i] = -1
        if column < layout.columns:
            to = layout.out_start + split * layout.split_stride + column // layout.positions * layout.out_batch
            to += q % layout.out2 * layout.out_stride2 + q // layout.out2 % layout.out1 * layout.out_stride1
            column_place[i] = to + q // layout.out2 // layout.out1 * layout.out_stride0


@cache
def im2col_tile_kernel(dtype_name: str, BM: int, BN: int, TM: int, threads: int):
    """The kernel for one type: a block's tile is BM x BN, a thread's TM x TM."""
    dtype = getattr(numba, dtype_name)
    gather = gatherer(dtype)
    BK = TAPS
    QUADS = TM // 4                                    # a thread's rows are so many runs of four
    TX = BN // TM                                      # threads side by side
    RUN_M, RUN_N = BM // QUADS, BN // QUADS            # from one run to the next
    LOADS = BK * BN // threads
    EVERY = threads // BN
    PANELS = BK * BM // threads // 4
    PANEL = 4 * PANELS
    SHARED_M, SHARED_N = 2 * BK * BM, 2 * BK * BN

    @kernel
    def im2col_tile_kernel(layout, x, maps, taps, weight, bias, fill, out):
        """[rows x taps] [taps x columns], one tile a block, double-buffered in shared memory.

        Shapes: x (N, groups C, parts, D, H, W) and out (N, groups K, parts, *out) by strides; taps [taps, 4]; weight
        [groups, row blocks, taps, BM]. Parallel over (groups, row blocks, column blocks). Race-free because each output
        is one thread's, and a step is written to the half of shared memory that nobody reads before the next barrier.
        """
        rows_shared = cuda.shared.array(SHARED_M, dtype)
        columns_shared = cuda.shared.array(SHARED_N, dtype)
        row_place = cuda.shared.array(BM, numba.int64)
        row_bias = cuda.shared.array(BM, dtype)
        column_place = cuda.shared.array(BN, numba.int64)
        sums = cuda.local.array((TM, TM), dtype)
        a = cuda.local.array(TM, dtype)
        b = cuda.local.array(TM, dtype)
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

        mine = column_block * BN + thread % BN         # the column that this thread gathers
        inside = mine < layout.columns
        n = mine // layout.positions
        q = mine % layout.positions
        base = layout.x_start + n * layout.x_batch + g * layout.x_group
        at2 = int32(layout.map2 + q % layout.out2 * layout.stride2)
        at1 = int32(layout.map1 + q // layout.out2 % layout.out1 * layout.stride1)
        at0 = int32(layout.map0 + q // layout.out2 // layout.out1 * layout.stride0)
        first_tap = int32(thread // BN + first_step * BK)
        panel = ((g * layout.row_blocks + row_block) * layout.steps + first_step) * BK * BM
        for i in range(TM):
            for j in range(TM):
                sums[i, j] = 0

        for l in range(LOADS):
            columns_shared[(thread // BN + l * EVERY) * BN + thread % BN] = gather(
                layout, x, maps, taps, fill, first_tap + l * EVERY, base, at0, at1, at2, inside)
        for l in range(PANELS):
            at = (thread + l * threads) * 4
            vstore4(rows_shared, at, vload4(weight, panel + at))
        cuda.syncthreads()
        ty = thread // TX * 4
        tx = thread % TX * 4
        for step in range(steps):
            half = step % 2
            more = step + 1 < steps
            if more:
                panel += BK * BM
                first_tap = int32(first_tap + BK)
                for l in range(LOADS):
                    next_column[l] = gather(layout, x, maps, taps, fill, first_tap + l * EVERY, base, at0, at1, at2,
                                            inside)
                for l in range(PANELS):
                    quad = vload4(weight, panel + (thread + l * threads) * 4)
                    for i in range(4):
                        next_row[4 * l + i] = quad[i]
            for t in range(BK):
                for l in range(QUADS):
                    quad = vload4(rows_shared, (half * BK + t) * BM + l * RUN_M + ty)
                    other = vload4(columns_shared, (half * BK + t) * BN + l * RUN_N + tx)
                    for i in range(4):
                        a[4 * l + i] = quad[i]
                        b[4 * l + i] = other[i]
                for i in range(TM):
                    for j in range(TM):
                        sums[i, j] += a[i] * b[j]
            if more:
                for l in range(LOADS):
                    columns_shared[((1 - half) * BK + thread // BN + l * EVERY) * BN + thread % BN] = next_column[l]
                for l in range(PANELS):
                    vstore4(rows_shared, (1 - half) * BK * BM + (thread + l * threads) * 4,
                            (next_row[4 * l], next_row[4 * l + 1], next_row[4 * l + 2], next_row[4 * l + 3]))
            cuda.syncthreads()

        place(layout, row_place, row_bias, column_place, bias, g, split, row_block * BM, column_block * BN, thread,
              threads)
        cuda.syncthreads()
        for j in range(TM):
            to = column_place[j // 4 * RUN_N + tx + j % 4]
            if to >= 0:
                for i in range(TM):
                    row = i // 4 * RUN_M + ty + i % 4
                    if row_place[row] >= 0:
                        out[to + row_place[row]] = sums[i, j] + row_bias[row]

    return im2col_tile_kernel
