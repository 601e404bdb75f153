"""The kernel of signals and large windows: tiles with halos in shared memory, a sliding window in registers."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import int32, int64, uint32, uint64

from ...geometry import ceil_div, round_up, span
from ...problem import ConvProblem
from ..device import LANES, SHARED_LIMIT, block_size, cuda, kernel
from .axes import three_axes
from .rows import MOST_TOGETHER

PLANE_ROWS = 8                 # output rows of a thread; at most 32 x 64 outputs a block
LINE_OUTPUTS = 7               # neighbouring outputs of a thread of a line: odd, so that no two threads share a bank
FETCH = 8                      # loads of a thread under way at once while a tile is filled
_THREADS = block_size(256)


class TileLayout(NamedTuple):
    """What a thread of `direct_tile_kernel` knows. Axes 1 and 2 are tiled, axis 0 is walked plane by plane."""

    groups: int
    channels: int
    out_channels: int
    out0: int
    out1: int
    out2: int
    kernel0: int
    kernel1: int
    kernel2: int
    stride0: int
    stride1: int
    stride2: int
    dilation0: int
    dilation1: int
    dilation2: int
    map1: int                  # where an axis' map begins, and the last one ends
    map2: int
    map_end: int
    x_start: int
    x_batch: int
    x_channel: int
    out_start: int
    out_batch: int
    out_channel: int
    out_stride0: int
    out_stride1: int
    out_stride2: int
    bias_step: int
    tile1: int                 # outputs of a block
    tile2: int
    grid1: int                 # blocks
    grid2: int
    pitch: int                 # from one row of shared memory to the next
    slab1: int                 # taps whose input is in shared memory at once
    slab2: int
    line: int                  # 1: threads lie along axis 2 only, and slide along it


def is_line(problem: ConvProblem) -> bool:
    """Whether all outputs of a plane lie side by side."""
    return three_axes(problem, problem.out)[1] == 1


@lru_cache(maxsize=256)
def tile_layout(problem: ConvProblem, index: str) -> tuple[TileLayout, Any, int, int, int]:
    """(layout, kernel, blocks, threads of a block, bytes of shared memory)."""
    p = problem
    out, kernel, stride, dilation = (three_axes(p, values) for values in (p.out, p.kernel, p.stride, p.dilation))
    begin = np.cumsum(three_axes(p, p.reach))
    line = is_line(p)
    J = LINE_OUTPUTS if line else PLANE_ROWS
    # So many threads that the last tile is nearly full, too.
    threads = min(range(_THREADS, LANES - 1, -LANES), key=lambda t: (
        ceil_div(out[2], t * J) * (t * J + 64) if line else ceil_div(out[1], t // LANES * J) * (t // LANES * J + 16)))
    tile = (1, threads * J) if line else (threads // LANES * J, LANES)
    slab = list(kernel[1:])

    def pitch() -> int:
        return round_up((tile[1] - 1) * stride[2] + span(slab[1], dilation[2]), 1 if line else LANES)

    def size() -> int:
        return ((tile[0] - 1) * stride[1] + span(slab[0], dilation[1])) * pitch() * p.engine.itemsize

    while size() > SHARED_LIMIT and max(slab) > 1:
        axis = max((0, 1), key=lambda a: slab[a] * dilation[1 + a])
        slab[axis] = ceil_div(slab[axis], 2)
    while size() > SHARED_LIMIT:                       # a large stride, or wide numbers: fewer outputs
        if line:
            tile = (1, ceil_div(tile[1] // J, 2) * J)
        elif tile[0] > J:
            tile = (ceil_div(tile[0] // J, 2) * J, tile[1])
        else:
            tile = (tile[0], tile[1] // 2)
    along = 2 if line else 1
    jump = (stride[2] if line else stride[1] * pitch()) if stride[along] == dilation[along] else 0
    taps = slab[along - 1]
    R = min(range(min(taps, MOST_TOGETHER), min(taps, 4) - 1, -1), key=lambda r: (taps % r, -r))     # few left over
    layout = TileLayout(
        p.groups, p.C, p.K, *out, *kernel, *stride, *dilation, *map(int, begin), *(0,) * 10,
        *tile, *map(ceil_div, out[1:], tile), pitch(), *slab, int(line))
    blocks = p.N * p.groups * p.K * out[0] * layout.grid1 * layout.grid2
    return (layout, direct_tile_kernel(p.engine.name, index, J, R, jump), blocks, threads,
            max(size(), tile[0] * tile[1] * p.engine.itemsize))


@cache
def direct_tile_kernel(dtype_name: str, index_name: str, J: int, R: int, JUMP: int):
    """The kernel for one type in which a thread sums J outputs, R taps at once.

    JUMP: how far apart in shared memory the inputs of neighbouring outputs, and of neighbouring taps, lie; 0: these
    differ, and no input serves two outputs.
    """
    dtype, whole = getattr(numba, dtype_name), getattr(numba, index_name)
    place = getattr(numba, "u" + index_name)
    WINDOW = J + R - 1

    @kernel
    def direct_tile_kernel(layout, x, maps, weight, bias, out, fill):
        """out[n, k, p] = bias + sum over the window, from tiles with halos in shared memory.

        Shapes: x (N, groups C, D, H, W) and out (N, groups K, *out) by strides; weight [groups K, C, depth, rows,
        columns], for tiles [.., columns, rows]. Parallel over (N, groups K, out planes, tiles); a thread has J rows of
        one column, or J neighbours of a line. Race-free because each output is one thread's and the tile is filled
        between two barriers.
        """
        tile = cuda.shared.array(0, dtype)
        thread = int32(cuda.threadIdx.x)
        rest = uint32(cuda.blockIdx.x)
        origin2 = int32(uint32(rest % uint32(layout.grid2)) * int32(layout.tile2))
        rest = uint32(rest // uint32(layout.grid2))
        origin1 = int32(uint32(rest % uint32(layout.grid1)) * int32(layout.tile1))
        rest = uint32(rest // uint32(layout.grid1))
        q0 = int32(uint32(rest % uint32(layout.out0)))
        rest = uint32(rest // uint32(layout.out0))
        k = int32(uint32(rest % uint32(layout.groups * layout.out_channels)))
        n = int32(uint32(rest // uint32(layout.groups * layout.out_channels)))
        g = int32(uint32(k) // uint32(layout.out_channels))

        pitch, tile1, tile2 = int32(layout.pitch), int32(layout.tile1), int32(layout.tile2)
        stride1, stride2 = int32(layout.stride1), int32(layout.stride2)
        if layout.line:
            row, column = int32(0), int32(thread * J)
            first_row, rows_at_once, first_column, columns_at_once = int32(0), int32(1), thread, int32(cuda.blockDim.x)
            jump, step, aside = int64(stride2), layout.dilation2, layout.dilation1 * pitch
        else:
            row, column = int32(thread // LANES * J), int32(thread % LANES)
            first_row, rows_at_once = int32(thread // LANES), int32(cuda.blockDim.x // LANES)
            first_column, columns_at_once = int32(thread % LANES), int32(LANES)
            jump, step, aside = int64(stride1 * pitch), layout.dilation1 * pitch, layout.dilation2
        here = int64(row * stride1 * pitch + column * stride2)
        busy = row < tile1 and column < tile2

        sums = cuda.local.array(J, dtype)
        window = cuda.local.array(WINDOW, dtype)
        fetched = cuda.local.array(FETCH, dtype)
        into = cuda.local.array(FETCH, int32)
        start = bias[uint32(k * int32(layout.bias_step))]
        for j in range(J):
            sums[j] = start
        row_maps, column_maps = maps[layout.map1:], maps[layout.map2:]
        last_row, last_column = int32(layout.map2 - layout.map1 - 1), int32(layout.map_end - layout.map2 - 1)
        for c in range(int32(layout.channels)):
            base = layout.x_start + n * layout.x_batch + (g * layout.channels + c) * layout.x_channel
            for r0 in range(int32(layout.kernel0)):
                place0 = maps[uint32(q0 * int32(layout.stride0) + r0 * int32(layout.dilation0))]
                values = x[base + max(place0, whole(0)):]
                for slab1 in range(0, layout.kernel1, layout.slab1):
                    taps1 = int32(min(layout.slab1, layout.kernel1 - slab1))
                    for slab2 in range(0, layout.kernel2, layout.slab2):
                        taps2 = int32(min(layout.slab2, layout.kernel2 - slab2))
                        height = int32((tile1 - 1) * stride1 + (taps1 - 1) * int32(layout.dilation1) + 1)
                        width = int32((tile2 - 1) * stride2 + (taps2 - 1) * int32(layout.dilation2) + 1)
                        top = int32(origin1 * stride1 + slab1 * layout.dilation1)
                        left = int32(origin2 * stride2 + slab2 * layout.dilation2)
                        u, v = first_row, first_column
                        while u < height:
                            # Several loads are under way before the first is waited for: none depends on a branch.
                            for i in range(FETCH):
                                # Places beyond the last output are read and not used.
                                at = row_maps[uint32(min(int32(top + u), last_row))] if place0 >= 0 else place0
                                at = whole(at + column_maps[uint32(min(int32(left + v), last_column))])
                                fetched[i] = fill
                                if at >= 0:
                                    fetched[i] = dtype(values[place(at)])
                                into[i] = int32(u * pitch + v) if u < height and v < width else int32(-1)
                                v = int32(v + columns_at_once)
                                if v >= width:
                                    v = first_column
                                    u = int32(u + rows_at_once)
                            for i in range(FETCH):
                                if into[i] >= 0:
                                    tile[uint32(into[i])] = fetched[i]
                        cuda.syncthreads()
                        w = (k * layout.channels + c) * layout.kernel0 + r0
                        if layout.line:
                            inner, others, length = taps2, taps1, layout.kernel2
                            w = (w * layout.kernel1 + slab1) * length + slab2
                        else:
                            inner, others, length = taps1, taps2, layout.kernel1
                            w = (w * layout.kernel2 + slab2) * length + slab1
                        if busy:
                            for other in range(others):
                                # Indices of 64 bits: a constant added to one is part of the instruction.
                                at_tile = here + other * aside
                                at_w = w + other * length
                                t = int32(0)
                                if JUMP:
                                    while t + R <= inner:
                                        for i in range(WINDOW):
                                            window[i] = tile[uint64(at_tile + i * JUMP)]
                                        for i in range(R):
                                            factor = weight[uint64(at_w + i)]
                                            for j in range(J):
                                                sums[j] += factor * window[i + j]
                                        at_tile += R * JUMP
                                        at_w += R
                                        t = int32(t + R)
                                while t < inner:
                                    factor = weight[uint64(at_w)]
                                    for j in range(J):
                                        sums[j] += factor * tile[uint64(at_tile + j * jump)]
                                    at_tile += step
                                    at_w += 1
                                    t = int32(t + 1)
                        cuda.syncthreads()

        to = layout.out_start + n * layout.out_batch + k * layout.out_channel + q0 * layout.out_stride0
        if layout.line:                                # through shared memory, so that neighbours are stored together
            if busy:
                for j in range(J):
                    tile[uint32(column + j)] = sums[j]
            cuda.syncthreads()
            to += origin2 * layout.out_stride2
            for i in range(thread, int32(min(tile2, layout.out2 - origin2)), int32(cuda.blockDim.x)):
                out[uint64(to + i * layout.out_stride2)] = tile[uint32(i)]
        elif busy and origin2 + column < layout.out2:
            to += (origin2 + column) * layout.out_stride2
            for j in range(J):
                if origin1 + row + j < layout.out1:
                    out[uint64(to + (origin1 + row + j) * layout.out_stride1)] = sums[j]

    return direct_tile_kernel
