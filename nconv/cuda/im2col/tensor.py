"""The implicit matrix product on the tensor cores: mma of a warp, operands as words of 32 bits in shared memory.

A word is a float32 that the product reads in TF32, or two neighbouring taps in float16, whose products are exact and
summed in float32.
"""

from __future__ import annotations

from functools import cache

import numba

from ..device import block_function, cuda, kernel
from ..ptx import half_product, load, pair, round_tf32, store, tf32_product, vload4, vstore4
from .tiles import BEYOND, gatherer, place, spot

WORDS = 16                     # of a step


@block_function
def _as_it_is(value):
    return value


@block_function
def _first(value, unused):
    return value


@cache
def im2col_tensor_kernel(kind: str, steady: bool, WM: int, WN: int, warps_m: int, warps_n: int):
    """The kernel on the tensor cores for 'tf32' or 'half': a warp's tile is WM x WN, a block has warps_m x warps_n.

    `steady`: as for `im2col_tile_kernel`.
    """
    word = numba.float32 if kind == "tf32" else numba.uint32
    multiply = tf32_product if kind == "tf32" else half_product
    edge, gather = gatherer(numba.float32 if kind == "tf32" else numba.uint16)
    TOGETHER = 1 if kind == "tf32" else 2              # taps of a word
    joined, rounded = (_first, round_tf32) if kind == "tf32" else (pair, _as_it_is)
    BM, BN, BK = WM * warps_m, WN * warps_n, WORDS
    threads = 32 * warps_m * warps_n
    if threads % BN:
        raise ValueError(f"a step's columns are gathered by whole rows of threads: {threads} threads, {BN} columns")
    PITCH_M, PITCH_N = BM + 8, BN + 8                  # so that the lanes of a fragment read 32 banks
    FM, FN = WM // 16, WN // 8                         # fragments of a warp
    LOADS = BK * BN // threads
    EVERY = threads // BN * TOGETHER
    PANELS = BK * BM // threads // 4
    PANEL = 4 * PANELS
    SHARED_M, SHARED_N, MAPS = 2 * BK * PITCH_M, 2 * BK * PITCH_N, 3 * BN

    @block_function
    def multiply_eight(rows_shared, at_a, columns_shared, at_b, lane, sums):
        """Add the products of eight words."""
        for i in range(FM):
            for j in range(FN):
                four = multiply(rows_shared, at_a + 16 * i, PITCH_M, columns_shared, at_b + 8 * j, PITCH_N, lane,
                                (sums[i, j, 0], sums[i, j, 1], sums[i, j, 2], sums[i, j, 3]))
                for l in range(4):
                    sums[i, j, l] = four[l]

    @block_function
    def fetch(layout, x, maps, taps, fill, step, column_base, map_at, thread, values):
        """This thread's words of a step; no branch, so that all loads are on their way at once."""
        column = thread % BN
        base = load(column_base, column)
        if steady:
            offset, window0, window1, window2 = vload4(taps, 4 * step)
            at = load(maps, load(map_at, column) + window0) + load(maps, load(map_at, column + BN) + window1)
            at += load(maps, load(map_at, column + 2 * BN) + window2)
            inside = at > BEYOND
            at = at if inside else 0                   # outside, the first element of the channel is read
            at += base + offset + thread // BN * TOGETHER * layout.x_channel
            for l in range(LOADS):
                words = joined(load(x, at), load(x, at + (TOGETHER - 1) * layout.x_channel))
                values[l] = words if inside else joined(fill[0], fill[0])
                at += EVERY * layout.x_channel
        else:
            for l in range(LOADS):
                t = step * BK * TOGETHER + thread // BN * TOGETHER + l * EVERY
                last = t + TOGETHER - 1
                values[l] = joined(
                    gather(x, spot(maps, taps, t, base, map_at, column, BN), fill, edge(layout, fill, t)),
                    gather(x, spot(maps, taps, last, base, map_at, column, BN), fill, edge(layout, fill, last)))

    @kernel(bounds=(threads, 256 // threads))
    def im2col_tensor_kernel(layout, x, maps, taps, weight, bias, fill, out):
        """[rows x taps] [taps x columns] with float32 sums, one tile a block, double-buffered.

        Shapes: as `im2col_tile_kernel`, in words: weight [groups, row blocks, words, BM]; the float16 of x and fill
        come as the 16 bits that they are. Parallel over (groups, row blocks, column blocks), a warp takes a part of the
        tile. Race-free as `im2col_tile_kernel`.
        """
        rows_shared = cuda.shared.array(SHARED_M, word)
        columns_shared = cuda.shared.array(SHARED_N, word)
        row_place = cuda.shared.array(BM, numba.int64)
        row_bias = cuda.shared.array(BM, numba.float32)
        column_place = cuda.shared.array(BN, numba.int64)
        column_base = cuda.shared.array(BN, numba.int64)
        map_at = cuda.shared.array(MAPS, numba.int32)
        sums = cuda.local.array((FM, FN, 4), numba.float32)
        next_column = cuda.local.array(LOADS, word)
        next_row = cuda.local.array(PANEL, word)
        thread = cuda.threadIdx.x
        lane = thread % 32
        warp = thread // 32
        row_block = cuda.blockIdx.x % layout.row_blocks
        rest = cuda.blockIdx.x // layout.row_blocks
        column_block = rest % layout.column_blocks
        g = rest // layout.column_blocks % layout.groups
        split = rest // layout.column_blocks // layout.groups
        first_step = split * layout.split_steps
        steps = min(layout.split_steps, layout.steps - first_step)

        place(layout, row_place, row_bias, column_place, column_base, map_at, bias, g, split, row_block * BM,
              column_block * BN, thread, threads)
        cuda.syncthreads()
        panel = ((g * layout.row_blocks + row_block) * layout.steps + first_step) * BK * BM
        for i in range(FM):
            for j in range(FN):
                for l in range(4):
                    sums[i, j, l] = 0
        for step in range(steps + 1):           # step s gathers s and multiplies s - 1
            half = step & 1
            if step < steps:
                fetch(layout, x, maps, taps, fill, first_step + step, column_base, map_at, thread, next_column)
                for l in range(PANELS):
                    quad = vload4(weight, panel + (thread + l * threads) * 4)
                    for i in range(4):
                        next_row[4 * l + i] = quad[i]
                panel += BK * BM
            if step > 0:
                at_a = (1 - half) * BK * PITCH_M + warp // warps_n * WM
                at_b = (1 - half) * BK * PITCH_N + warp % warps_n * WN
                # One by one, for LLVM unrolls no loop of this size.
                multiply_eight(rows_shared, at_a, columns_shared, at_b, lane, sums)
                multiply_eight(rows_shared, at_a + 8 * PITCH_M, columns_shared, at_b + 8 * PITCH_N, lane, sums)
            if step < steps:
                for l in range(LOADS):
                    store(columns_shared, (half * BK + thread // BN + l * (threads // BN)) * PITCH_N + thread % BN,
                          rounded(next_column[l]))
                for l in range(PANELS):
                    at = (thread + l * threads) * 4
                    vstore4(rows_shared, (half * BK + at // BM) * PITCH_M + at % BM,
                            (rounded(next_row[4 * l]), rounded(next_row[4 * l + 1]), rounded(next_row[4 * l + 2]),
                             rounded(next_row[4 * l + 3])))
            cuda.syncthreads()

        row0 = warp // warps_n * WM + lane // 4
        column0 = warp % warps_n * WN + lane % 4 * 2
        for j in range(FN):
            for odd in range(2):
                to = load(column_place, column0 + 8 * j + odd)
                if to >= 0:
                    for i in range(FM):
                        for below in range(2):
                            row = row0 + 16 * i + 8 * below
                            if load(row_place, row) >= 0:
                                store(out, to + load(row_place, row),
                                      sums[i, j, 2 * below + odd] + load(row_bias, row))

    return im2col_tensor_kernel
