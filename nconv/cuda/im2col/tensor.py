"""The implicit matrix product on the tensor cores: mma of a warp, operands as words of 32 bits in shared memory.

A word is a float32 that the product reads in TF32, or two neighbouring taps in float16, whose products are exact and
summed in float32.
"""

from __future__ import annotations

from functools import cache

import numba

from ..device import block_function, cuda, kernel
from ..ptx import half_product, pair, tf32_product, vload4, vstore4
from .tiles import gatherer, place

WORDS = 16                     # of a step


def _word_gatherer(kind: str):
    """The block function that finds one word of the patches: a float32, or two neighbouring taps in float16."""
    if kind == "tf32":
        return gatherer(numba.float32)
    gather = gatherer(numba.uint16)

    @block_function
    def gather_pair(layout, x, maps, taps, fill, t, base, at0, at1, at2, inside):
        return pair(gather(layout, x, maps, taps, fill, 2 * t, base, at0, at1, at2, inside),
                    gather(layout, x, maps, taps, fill, 2 * t + 1, base, at0, at1, at2, inside))

    return gather_pair


@cache
def im2col_tensor_kernel(kind: str, WM: int, WN: int, warps_m: int, warps_n: int):
    """The kernel on the tensor cores for 'tf32' or 'half': a warp's tile is WM x WN, a block has warps_m x warps_n."""
    word = numba.float32 if kind == "tf32" else numba.uint32
    multiply = tf32_product if kind == "tf32" else half_product
    gather = _word_gatherer(kind)
    BM, BN, BK = WM * warps_m, WN * warps_n, WORDS
    threads = 32 * warps_m * warps_n
    PITCH_M, PITCH_N = BM + 8, BN + 8                  # so that the lanes of a fragment read 32 banks
    FM, FN = WM // 16, WN // 8                         # fragments of a warp
    LOADS = BK * BN // threads
    PANELS = BK * BM // threads // 4
    PANEL = 4 * PANELS
    SHARED_M, SHARED_N = 2 * BK * PITCH_M, 2 * BK * PITCH_N

    @kernel
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

        mine = column_block * BN + thread % BN
        inside = mine < layout.columns
        n = mine // layout.positions
        q = mine % layout.positions
        base = layout.x_start + n * layout.x_batch + g * layout.x_group
        at2 = layout.map2 + q % layout.out2 * layout.stride2
        at1 = layout.map1 + q // layout.out2 % layout.out1 * layout.stride1
        at0 = layout.map0 + q // layout.out2 // layout.out1 * layout.stride0
        first_word = thread // BN + first_step * BK
        every = threads // BN
        panel = ((g * layout.row_blocks + row_block) * layout.steps + first_step) * BK * BM
        for i in range(FM):
            for j in range(FN):
                for l in range(4):
                    sums[i, j, l] = 0
        for step in range(steps + 1):           # step s gathers s and multiplies s - 1
            half = step % 2
            if step < steps:
                for l in range(LOADS):
                    next_column[l] = gather(layout, x, maps, taps, fill, first_word + l * every, base, at0, at1, at2,
                                            inside)
                for l in range(PANELS):
                    quad = vload4(weight, panel + (thread + l * threads) * 4)
                    for i in range(4):
                        next_row[4 * l + i] = quad[i]
                first_word += BK
                panel += BK * BM
            if step > 0:
                at_a = (1 - half) * BK * PITCH_M + warp // warps_n * WM
                at_b = (1 - half) * BK * PITCH_N + warp % warps_n * WN
                for t in range(0, BK, 8):
                    for i in range(FM):
                        for j in range(FN):
                            four = multiply(
                                rows_shared, at_a + t * PITCH_M + 16 * i, PITCH_M, columns_shared,
                                at_b + t * PITCH_N + 8 * j, PITCH_N, lane,
                                (sums[i, j, 0], sums[i, j, 1], sums[i, j, 2], sums[i, j, 3]))
                            for l in range(4):
                                sums[i, j, l] = four[l]
            if step < steps:
                for l in range(LOADS):
                    columns_shared[(half * BK + thread // BN + l * every) * PITCH_N + thread % BN] = next_column[l]
                for l in range(PANELS):
                    at = (thread + l * threads) * 4
                    vstore4(rows_shared, (half * BK + at // BM) * PITCH_M + at % BM,
                            (next_row[4 * l], next_row[4 * l + 1], next_row[4 * l + 2], next_row[4 * l + 3]))
            cuda.syncthreads()

        place(layout, row_place, row_bias, column_place, bias, g, split, row_block * BM, column_block * BN, thread,
              threads)
        cuda.syncthreads()
        row0 = warp // warps_n * WM + lane // 4
        column0 = warp % warps_n * WN + lane % 4 * 2
        for j in range(FN):
            for odd in range(2):
                to = column_place[column0 + 8 * j + odd]
                if to >= 0:
                    for i in range(FM):
                        for below in range(2):
                            row = row0 + 16 * i + 8 * below
                            if row_place[row] >= 0:
                                out[to + row_place[row]] = sums[i, j, 2 * below + odd] + row_bias[row]

    return im2col_tensor_kernel
