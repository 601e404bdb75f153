"""Tiles whose registers hold sums of several output channels, or of one over many positions."""

from __future__ import annotations

import numpy as np

from ...geometry import ceil_div, share_start
from ...jit import compiled, owning_kernel, parallel_kernel, prange
from ..borrowed import borrow
from ..micro.filters import filter_line
from ..micro.products import multiply_tile
from ..sharing import LINE, take
from ..simd import lanes_of
from ..tiles import TAPS_AT_ONCE
from .tiles import (
    direct_gather_kernel,
    direct_place_kernel,
    direct_row_kernel,
    direct_rows_kernel,
    direct_scatter_kernel,
    direct_wanted_kernel,
)

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)


@owning_kernel
def direct_channel_share_kernel(layout, source, maps, weight, bias, target, rows, columns, shares, thread):
    """One thread's share of the tiles: gather a tile's input, sum its taps, [M x taps] [taps x positions].

    Shapes: source (N, groups C parts, *size) and target (N, groups K parts, *out) by their strides; weight
    [groups, K blocks, taps, M].
    """
    rank = layout.tile.size
    last = rank - 1
    M = len(rows)
    vector = lanes_of(source.flat) * len(columns)
    taps = layout.offsets.size
    blocks = ceil_div_(layout.out_channels, M)
    images = layout.batch * layout.groups
    items = images * layout.channel_parts
    for a in range(rank):
        items *= layout.grid[a]
    buffer = np.zeros(layout.buffer_size, source.flat.dtype)
    sums = np.empty(M * vector, source.flat.dtype)
    origin, extent, wanted = np.empty(rank, np.int64), np.empty(rank, np.int64), np.empty(rank, np.int64)
    tile, tile_rows = -1, 0
    row_targets, row_sources = np.empty(layout.buffer_rows, np.int64), np.empty(layout.buffer_rows, np.int64)
    step = target.strides[3 + last]
    # Partial sums wait in the output; where that is scattered, and in a line, all taps are summed at once.
    chunks = ceil_div_(taps, TAPS_AT_ONCE) if step == 1 and layout.run == 0 else 1
    at_once = ceil_div_(taps, chunks)
    while True:
        item = take(shares, items, thread)
        if item < 0:
            break
        image, channel_part = item // layout.channel_parts % images, item % layout.channel_parts
        n, g = image // layout.groups, image % layout.groups
        same = tile == item // (layout.channel_parts * images)
        if not same:
            tile = item // (layout.channel_parts * images)
            direct_place_kernel(layout, tile, origin, extent)
            direct_wanted_kernel(layout, maps, extent, wanted)
            tile_rows = direct_rows_kernel(layout, row_targets, row_sources, source, maps, origin, wanted)
        x_base = n * source.strides[0] + g * (layout.channels // layout.parts) * source.strides[1]
        direct_gather_kernel(layout, buffer, 0, row_targets, row_sources, tile_rows, source, x_base, maps,
                             origin[last], wanted[last], same)
        y_base = n * target.strides[0]
        segments = 1
        for a in range(rank):
            y_base += origin[a] * target.strides[3 + a]
            segments *= extent[a] if a < last else 1
        for block in range(share_start_(blocks, layout.channel_parts, channel_part),
                           share_start_(blocks, layout.channel_parts, channel_part + 1)):
            k = g * layout.out_channels + block * M
            height = min(M, layout.out_channels - block * M)
            w = (g * blocks + block) * taps * M
            for t0 in range(0, taps, at_once):
                for segment in range(segments):
                    at, to = direct_row_kernel(layout, segment, last, extent, layout.strides, target.strides[3:])
                    to += y_base
                    for p in range(0, extent[last], vector):
                        width = min(vector, extent[last] - p)
                        where, place, ldo = target.flat, to + k * target.strides[1] + p, target.strides[1]
                        if step != 1:
                            where, place, ldo = sums, 0, vector
                        if M == 1 and layout.run > 0:
                            filter_line(where, place, width, bias[k % bias.size], buffer, at + p, layout.offsets,
                                        layout.run, weight, w, columns)
                        else:
                            multiply_tile(where, place, ldo, height, width, t0 > 0, bias, k, buffer, at + p,
                                          layout.offsets, weight, w, t0, min(t0 + at_once, taps), rows, columns)
                        if step != 1:
                            for i in range(height):
                                channel = (k + i) // layout.parts * target.strides[1]
                                channel += (k + i) % layout.parts * target.strides[2]
                                direct_scatter_kernel(sums, i * vector, width, target.flat,
                                                      to + channel + p * step, step)


@parallel_kernel
def direct_channel_kernel(layout, source, maps, weight, bias, target, rows, columns, threads):
    """All tiles. Parallel over (tiles, N, groups, parts of the output channels).

    Race-free because no two pieces of work share an output element and each thread has its own buffers.
    """
    layout, source, maps, target = borrow(layout), borrow(source), borrow(maps), borrow(target)
    shares = np.zeros(LINE * threads, np.int64)
    for thread in prange(threads):
        direct_channel_share_kernel(layout, source, maps, weight, bias, target, rows, columns, shares, np.int64(thread))
