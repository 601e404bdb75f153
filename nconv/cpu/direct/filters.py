"""Tiles whose registers hold sums of several output rows, where a group has one input and one output channel."""

from __future__ import annotations

import numpy as np

from ...geometry import ceil_div, share_start
from ...jit import compiled, inner_kernel, owning_kernel, parallel_kernel, prange, stay_a_function
from ..arrays import borrow
from ..micro import filter_rows
from ..simd import lanes_of
from .tiles import (
    direct_gather_kernel,
    direct_place_kernel,
    direct_row_kernel,
    direct_rows_kernel,
    direct_scatter_kernel,
)

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)


@inner_kernel
def direct_inside_kernel(layout, source, origin, extent, wanted, height):
    """(begin, end, reach) of a tile's columns whose windows lie in the input, if its rows do and it is in C order.

    Register tiles of `height` rows read more than they need: they stay within `reach` elements from the tile's first
    input position. Equal numbers: no column.
    """
    last = layout.tile.size - 1
    lanes = lanes_of(source.flat)
    begin = ceil_div_(max(layout.low[last] - origin[last], 0), lanes) * lanes
    end = extent[last]
    over = origin[last] - layout.low[last] + wanted[last] - layout.size[last]       # positions behind the input's last
    if over > 0:
        end = begin + (end - over - begin) // lanes * lanes
    reach = begin + ceil_div_(max(end - begin, 0), lanes) * lanes + wanted[last] - extent[last]
    step = 1
    for b in range(last + 1):
        a = last - b
        first = origin[a] - layout.low[a]
        if source.strides[3 + a] != step or a < last and (first < 0 or first + wanted[a] > layout.size[a]):
            return 0, 0, 0
        if a < last:
            rows = extent[a]
            if a == last - 1:
                rows = ceil_div_(ceil_div_(rows, layout.row_step), height) * height * layout.row_step
            reach += (wanted[a] - extent[a] + rows - 1) * step
        step *= layout.size[a]
    return begin, max(end, begin), reach


@inner_kernel
def direct_filter_columns_kernel(layout, x, x_base, strides, planes, weight, w, start, target, y_base, extent, begin,
                                 end, sums, rows, columns):
    """The columns of a tile from `begin` to `end`, whose input lies in `x` by `strides` from `x_base` on."""
    stay_a_function()                                   # the register tiles are long: once is enough
    last = layout.tile.size - 1
    M = len(rows)
    step, ldo, ldx = target.strides[3 + last], target.strides[2 + last] * layout.row_step, strides[last - 1]
    segments = layout.row_step
    for a in range(last - 1):
        segments *= extent[a]
    for segment in range(segments):
        at, to = direct_row_kernel(layout, segment // layout.row_step, last - 1, extent, strides, target.strides[3:])
        first = segment % layout.row_step
        at += x_base + first * ldx + begin
        to += y_base + first * target.strides[2 + last] + begin * step
        count = ceil_div_(extent[last - 1] - first, layout.row_step)
        for row in range(0, count, M):
            height, width = min(M, count - row), end - begin
            where, place, ld = target.flat, to + row * ldo, ldo
            if step != 1:
                where, place, ld = sums, 0, width
            filter_rows(where, place, ld, height, width, start, x, at + row * layout.row_step * ldx,
                        layout.row_step * ldx, planes, layout.offsets, weight, w, rows, columns)
            if step != 1:
                for i in range(height):
                    direct_scatter_kernel(sums, i * width, width, target.flat, to + (row + i) * ldo, step)


@owning_kernel
def direct_filter_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, thread):
    """One thread's share of the tiles where a group has one output channel: a register tile has M output rows.

    What needs no padding is read where it lies, the rest gathered. Shapes as in `direct_channel_share_kernel`; weight
    [groups, taps].
    """
    layout, source, maps, target = borrow(layout), borrow(source), borrow(maps), borrow(target)
    rank = layout.tile.size
    last = rank - 1
    images = layout.batch * layout.groups
    items = images
    for a in range(rank):
        items *= layout.grid[a]
    buffer = np.zeros(layout.buffer_size, source.flat.dtype)
    sums = np.empty(len(rows) * layout.tile[last], source.flat.dtype)
    origin, extent, wanted = np.empty(rank, np.int64), np.empty(rank, np.int64), np.empty(rank, np.int64)
    row_targets, row_sources = np.empty(layout.buffer_rows, np.int64), np.empty(layout.buffer_rows, np.int64)
    tile, tile_rows, x_tile, y_tile, first, behind, reach = -1, 0, 0, 0, 0, 0, 0
    taps = weight.size // layout.groups
    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        n, g = item % images // layout.groups, item % layout.groups
        same = tile == item // images
        if not same:
            tile = item // images
            direct_place_kernel(layout, tile, maps, origin, extent, wanted)
            tile_rows = direct_rows_kernel(layout, row_targets, row_sources, source, maps, origin, wanted)
            x_tile = y_tile = first = behind = reach = 0
            for a in range(rank):
                x_tile += (origin[a] - layout.low[a]) * source.strides[3 + a]
                y_tile += origin[a] * target.strides[3 + a]
            if layout.source_planes.size > 0:
                first, behind, reach = direct_inside_kernel(layout, source, origin, extent, wanted, len(rows))
        start = bias[g % bias.size]
        x_base = n * source.strides[0] + g * layout.channels * source.strides[1]
        y_base = n * target.strides[0] + g * target.strides[1] + y_tile
        begin = end = 0                                 # columns that are read in place
        if first < behind and x_base + x_tile + reach <= source.flat.size:
            begin, end = first, behind
            direct_filter_columns_kernel(layout, source.flat, x_base + x_tile, source.strides[3:],
                                         layout.source_planes, weight, g * taps, start, target, y_base, extent, begin,
                                         end, sums, rows, columns)
        for left, right in ((0, begin), (end, extent[last])):
            if left < right:
                direct_gather_kernel(layout, buffer, left, row_targets, row_sources, tile_rows, source, x_base, maps,
                                     origin[last] + left, right - left + wanted[last] - extent[last], same)
                direct_filter_columns_kernel(layout, buffer, 0, layout.strides, layout.planes, weight, g * taps, start,
                                             target, y_base, extent, left, right, sums, rows, columns)


@parallel_kernel
def direct_filter_kernel(layout, source, maps, weight, bias, target, rows, columns, threads):
    """All tiles. Parallel over (tiles, N, groups); race-free as `direct_channel_kernel`."""
    for thread in prange(threads):
        direct_filter_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads,
                                   np.int64(thread))
