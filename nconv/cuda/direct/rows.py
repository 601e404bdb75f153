"""The kernel of small windows: a thread has rows of one column; a loaded element serves every row of the window."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import int32, uint32

from ...geometry import ceil_div, round_up
from ...problem import ConvProblem
from ..device import block_size, cuda, kernel
from ..division import divisor, over
from ..ptx import behind, load, store
from .axes import three_axes

MOST_ROWS = 16                 # output rows of a thread
MOST_TOGETHER = 8              # rows of a window that a thread takes at once
MOST_COLUMNS = 3               # columns, where no element serves two rows
_THREADS = block_size(128)


class RowsLayout(NamedTuple):
    """What a thread of `direct_rows_kernel` knows. Axes are those of three; `over`: see `divisor`."""

    items: int                 # threads with work
    chunks: int                # of J rows
    over_chunks: int
    shift_chunks: int
    out_channels: int          # of all groups
    over_channels: int
    shift_channels: int
    over_group: int            # output channels of one group
    shift_group: int
    channels: int
    out0: int
    over_out0: int
    shift_out0: int
    out1: int
    out2: int
    over_out2: int
    shift_out2: int
    kernel0: int
    kernel1: int
    kernel2: int
    stride0: int
    stride1: int
    stride2: int
    dilation0: int
    dilation1: int
    dilation2: int
    map1: int                  # where an axis' map begins
    map2: int
    w_channel: int             # from one output channel's weights to the next one's
    w_tap: int
    last: int                  # 1: neighbouring threads have neighbouring channels
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


@lru_cache(maxsize=256)
def rows_layout(problem: ConvProblem, index: str) -> tuple[RowsLayout, Any, int, int, int]:
    """(layout, kernel, blocks, threads of a block, bytes of shared memory)."""
    p = problem
    out, kernel, stride, dilation = (three_axes(p, values) for values in (p.out, p.kernel, p.stride, p.dilation))
    begin = np.cumsum(three_axes(p, p.reach))
    J = _rows(out[1])
    chunks = ceil_div(out[1], J)
    items = p.N * p.groups * p.K * out[0] * chunks * out[2]
    R = _together(kernel[1], MOST_TOGETHER) if stride[1] == dilation[1] else 1
    Q = _together(kernel[2], MOST_COLUMNS) if R == 1 and p.engine.itemsize == 4 else 1
    w_channel, w_tap = (1, p.groups * p.K) if p.channels_last else (p.taps, 1)
    layout = RowsLayout(
        items, chunks, *divisor(chunks), p.groups * p.K, *divisor(p.groups * p.K), *divisor(p.K), p.C,
        out[0], *divisor(out[0]), out[1], out[2], *divisor(out[2]), *kernel, *stride, *dilation,
        *map(int, begin[:2]), w_channel, w_tap, int(p.channels_last), *(0,) * 10)
    return layout, direct_rows_kernel(p.engine.name, index, J, R, Q), ceil_div(items, _THREADS), _THREADS, 0


def _rows(extent: int) -> int:
    """Rows of a thread: an even number, so that few kernels serve, and few rows are left over."""
    return min(round_up(ceil_div(extent, ceil_div(extent, MOST_ROWS)), 2), MOST_ROWS)


def _together(taps: int, most: int) -> int:
    """So many rows or columns of the window at once that none is left over."""
    return next(r for r in range(min(taps, most), 0, -1) if taps % r == 0)


@cache
def direct_rows_kernel(dtype_name: str, index_name: str, J: int, R: int, Q: int):
    """The kernel for one type in which a thread sums J rows of a column, R rows and Q columns of the window at once.

    Above 1, R divides the window's rows, and the rows of the window lie as far apart as those of the output. Q divides
    its columns: so many loads are under way together.
    """
    dtype, whole = getattr(numba, dtype_name), getattr(numba, index_name)
    place = getattr(numba, "u" + index_name)           # an index with a sign would be compared with 0
    ROWS, WINDOW = J + R - 1, Q * (J + R - 1)

    @kernel
    def direct_rows_kernel(layout, x, maps, weight, bias, out, fill):
        """out[n, k, p] = bias + sum over the window, read from global memory; each element serves R rows of sums.

        Shapes: x (N, groups C, D, H, W) and out (N, groups K, *out) by strides; weight [groups K, C taps] by strides.
        Parallel over (N, groups K, out planes, chunks of J rows, columns), or with the channels last. Race-free because
        each output is one thread's.
        """
        # 32 bits wherever they suffice: a plane's places, and all that is counted.
        item = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        if item >= layout.items:
            return
        k, rest = int32(0), item
        if layout.last:
            rest = over(item, layout.over_channels, layout.shift_channels)
            k = int32(item - rest * int32(layout.out_channels))
        above = over(rest, layout.over_out2, layout.shift_out2)
        q2 = int32(rest - above * int32(layout.out2))
        rest = over(above, layout.over_chunks, layout.shift_chunks)
        first = int32((above - rest * int32(layout.chunks)) * J)
        above = over(rest, layout.over_out0, layout.shift_out0)
        q0 = int32(rest - above * int32(layout.out0))
        n = above
        if not layout.last:
            n = over(above, layout.over_channels, layout.shift_channels)
            k = int32(above - n * int32(layout.out_channels))
        g = over(k, layout.over_group, layout.shift_group)

        sums = cuda.local.array(J, dtype)
        window = cuda.local.array(WINDOW, dtype)
        rows = cuda.local.array(ROWS, whole)
        start = load(bias, uint32(k * int32(layout.bias_step)))
        for j in range(J):
            sums[j] = start
        row_maps, column_maps = behind(maps, layout.map1), behind(maps, layout.map2)
        last_row, stride1 = int32(layout.map2 - layout.map1 - 1), int32(layout.stride1)
        w_tap, w_row = int32(layout.w_tap), int32(int32(layout.kernel2) * int32(layout.w_tap))
        base = layout.x_start + n * layout.x_batch + g * (layout.channels * layout.x_channel)
        weights = behind(weight, k * layout.w_channel)
        at_w, runs = int32(0), int32(int32(layout.kernel2) // Q)
        for _channel in range(int32(layout.channels)):
            for r0 in range(int32(layout.kernel0)):
                plane = load(maps, uint32(q0 * int32(layout.stride0) + r0 * int32(layout.dilation0)))
                values = behind(x, base + max(plane, whole(0)))
                r1 = int32(0)
                while r1 < int32(layout.kernel1):
                    row = int32(first * stride1 + r1 * int32(layout.dilation1))
                    for i in range(ROWS):
                        # Rows beyond the last output are read and not written.
                        rows[i] = load(row_maps, uint32(min(row, last_row)))
                        row = int32(row + stride1)
                    if plane < 0:
                        for i in range(ROWS):
                            rows[i] = plane
                    column = int32(q2 * int32(layout.stride2))
                    for _ in range(runs):
                        for s in range(Q):
                            at_column = load(column_maps, uint32(column))
                            column = int32(column + int32(layout.dilation2))
                            for i in range(ROWS):
                                at = whole(rows[i] + at_column)
                                window[s * ROWS + i] = fill
                                if at >= 0:
                                    window[s * ROWS + i] = dtype(load(values, place(at)))
                        for s in range(Q):
                            for r in range(R):
                                factor = load(weights, uint32(at_w + r * w_row))
                                for j in range(J):
                                    sums[j] += factor * window[s * ROWS + r + j]
                            at_w = int32(at_w + w_tap)
                    at_w = int32(at_w + (R - 1) * w_row)
                    r1 = int32(r1 + R)
            base += layout.x_channel

        target = behind(out, layout.out_start + n * layout.out_batch + k * layout.out_channel + q0 * layout.out_stride0)
        to = first * layout.out_stride1 + q2 * layout.out_stride2
        left = int32(layout.out1 - first)
        for j in range(J):
            if j < left:
                store(target, to, sums[j])
            to += layout.out_stride1

    return direct_rows_kernel
