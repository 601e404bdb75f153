"""Register tile after register tile over a thread's share of the positions, and where their sums go."""

from __future__ import annotations

import numpy as np

from ...geometry import ceil_div, round_up, share_start
from ...jit import compiled, inner_kernel, owning_kernel, parallel_kernel, prange
from ..arrays import pack_panel
from ..borrowed import borrow
from ..micro.products import multiply_patches
from ..sharing import LINE, take
from ..simd import copy, lanes_of, transpose_square
from .gathering import (
    im2col_gather_kernel,
    im2col_place_kernel,
    im2col_places_kernel,
    im2col_prefetch_kernel,
    im2col_rows_kernel,
    im2col_starts_kernel,
    im2col_strips_kernel,
)

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)
round_up_ = compiled(round_up)


@inner_kernel
def im2col_store_kernel(layout, sums, at, vector, square, target, base, origin, extent, k0, k1, p0, p1):
    """Write the output channels k0 <= k < k1 of the positions p0 <= p < p1 of a tile to their places.

    Shapes: sums [p1 - p0, `vector` channels] from `at` on; where positions lie side by side in the output, squares
    of it are transposed in registers, `square` takes those at the edges.
    """
    last = layout.stride.size - 1
    lanes = lanes_of(sums)
    axis = last                                    # the axes from here on run through memory evenly
    run = extent[1 + last]
    while axis > 0 and extent[1 + axis] == layout.out[1 + axis] and (
            target.strides[2 + axis] == target.strides[3 + axis] * layout.out[1 + axis]):
        axis -= 1
        run *= extent[1 + axis]
    step = target.strides[3 + last]
    p = p0
    while p < p1:
        rest = p // run
        count = min((rest + 1) * run, p1) - p
        to = base + p % run * step
        for b in range(axis):
            a = axis - 1 - b
            to += (origin[1 + a] + rest % extent[1 + a]) * target.strides[3 + a]
            rest //= extent[1 + a]
        to += (origin[0] + rest) * target.strides[0]
        for a in range(axis, last + 1):
            to += origin[1 + a] * target.strides[3 + a]
        first = at + (p - p0) * vector
        if layout.parts == 1 and step == 1:
            for k in range(k0, k1, lanes):
                for i in range(0, count, lanes):
                    corner = to + i + k * target.strides[1]
                    if i + lanes <= count and k + lanes <= k1:
                        transpose_square(target.flat, corner, target.strides[1], sums, first + i * vector + k - k0,
                                         vector)
                    else:
                        transpose_square(square, 0, lanes, sums, first + i * vector + k - k0, vector)
                        for j in range(min(lanes, k1 - k)):
                            copy(target.flat, corner + j * target.strides[1], square, j * lanes, min(lanes, count - i))
        elif target.strides[1] == layout.parts:
            for i in range(count):
                copy(target.flat, to + i * step + k0, sums, first + i * vector, k1 - k0)
        else:
            for k in range(k0, k1):
                corner = to + k // layout.parts * target.strides[1] + k % layout.parts * target.strides[2]
                for i in range(count):
                    target.flat[corner + i * step] = sums[first + i * vector + k - k0]
        p += count


@owning_kernel
def im2col_share_kernel(layout, source, maps, weight, bias, target, rows, columns, shares, thread):
    """One thread's share of the tiles: gather, multiply, store; while it multiplies, it asks for what comes next.

    Shapes: source (N, groups C parts, *size) and target (N, groups K parts, *out) by their strides; weight
    [groups, blocks of output channels, taps, channels of a block]; bias [groups, blocks, channels of a block].
    """
    M = len(rows)
    lanes = lanes_of(source.flat)
    vector = lanes * len(columns)
    blocks = ceil_div_(layout.out_channels, vector)
    axes = layout.tile.size
    last = axes - 2
    items = layout.channel_parts * layout.groups
    for a in range(axes):
        items *= ceil_div_(layout.out[a], layout.tile[a])
    buffer = np.empty(layout.buffer_size, source.flat.dtype)
    sums = np.empty(layout.sums_size, source.flat.dtype)
    square = np.empty(lanes * lanes, source.flat.dtype)
    panel = np.empty(min(layout.chunk, layout.channels) * layout.window * vector if layout.packs else 0, sums.dtype)
    starts = np.zeros(layout.positions + M, np.int64)
    places = np.empty(layout.positions + M if layout.strip else 0, np.int64)      # a strip may end behind the last
    runs = np.empty(places.size, np.int64)
    row_targets = np.empty(layout.rows, np.int64)
    row_sources = np.empty(layout.rows, np.int64)
    origin = np.empty(axes, np.int64)
    extent = np.empty(axes, np.int64)
    patches, offsets = buffer, layout.offsets
    # Channels that lie a multiple of a page's quarter apart compete for few places in the cache: these are copied.
    in_place = layout.in_place and source.strides[1] * source.flat.itemsize % 1024 != 0
    jumps = layout.jumps
    if in_place:
        patches, offsets, jumps = source.flat, np.empty(layout.chunk, np.int64), layout.stride * source.strides[3:]
    end = share_start_(items, shares.size // LINE, thread + 1)      # with which another thread begins
    while True:
        item = take(shares, items, thread)
        if item < 0:
            break
        channel_part, g = im2col_place_kernel(layout, item, origin, extent)
        positions = 1
        for a in range(axes):
            positions *= extent[a]
        block0 = share_start_(blocks, layout.channel_parts, channel_part)
        block1 = share_start_(blocks, layout.channel_parts, channel_part + 1)
        x_base = origin[0] * source.strides[0] + g * (layout.channels // layout.parts) * source.strides[1]
        if in_place:
            base = x_base
            for a in range(axes - 1):
                base += origin[1 + a] * jumps[a]
            im2col_starts_kernel(starts, extent, base, source.strides[0], jumps)
        elif layout.strip:
            for p in range(positions):
                starts[p] = p // M * layout.strip + p % M
        else:
            im2col_starts_kernel(starts, extent, 0, layout.image_stride, jumps)
        starts[positions:positions + M] = 0             # rows beyond the last position: computed, never stored
        y_origin, y_extent = origin.copy(), extent.copy()
        y_base = g * (layout.out_channels // layout.parts) * target.strides[1]
        tile_rows = im2col_rows_kernel(layout, row_targets, row_sources, source, maps, origin, extent)
        for c0 in range(0, layout.channels, layout.chunk):
            c1 = min(c0 + layout.chunk, layout.channels)
            x_base = origin[0] * source.strides[0] + g * (layout.channels // layout.parts) * source.strides[1]
            count = (extent[last + 1] - 1) * layout.stride[last] // layout.steps[last] + layout.reach[last]
            u = origin[last + 1] * layout.stride[last]
            if layout.strip:
                if c0 == 0:
                    im2col_places_kernel(layout, places, runs, row_sources, tile_rows, source.strides[3 + last], maps,
                                         u, extent[last + 1])
                im2col_strips_kernel(layout, buffer, places, runs, positions, source, x_base, maps.fill[0], c0, c1,
                                     rows)
            elif in_place:
                for c in range(c0, c1):
                    offsets[c - c0] = c // layout.parts * source.strides[1] + c % layout.parts * source.strides[2]
            else:
                im2col_gather_kernel(layout, buffer, row_targets, row_sources, tile_rows, source, x_base, maps, u,
                                     count, c0, c1)
            next0, next1 = c1, min(c1 + layout.chunk, layout.channels)
            if c1 == layout.channels and item + 1 < items and item + 1 != end:
                next0, next1 = 0, layout.chunk
                _, g_next = im2col_place_kernel(layout, item + 1, origin, extent)
                tile_rows = im2col_rows_kernel(layout, row_targets, row_sources, source, maps, origin, extent)
                x_base = origin[0] * source.strides[0] + g_next * (
                    layout.channels // layout.parts) * source.strides[1]
                count = (extent[last + 1] - 1) * layout.stride[last] // layout.steps[last] + layout.reach[last]
                u = origin[last + 1] * layout.stride[last]
            taps = (c1 - c0) * layout.window
            turn = 0
            turns = (block1 - block0) * ceil_div_(positions, layout.group)
            for block in range(block0, block1):
                w, weights = ((g * blocks + block) * layout.channels + c0) * layout.window * vector, weight
                if layout.packs:
                    w, weights = 0, panel
                    row = layout.channels * layout.window
                    filled = min(vector, layout.out_channels - block * vector)
                    pack_panel(panel, 0, vector, weight, (g * layout.out_channels + block * vector) * row
                               + c0 * layout.window, row, taps, filled)
                for p0 in range(0, positions, layout.group):
                    p1 = min(p0 + layout.group, positions)
                    at = 0
                    if layout.chunk < layout.channels:
                        at = ((block - block0) * round_up_(positions, M) + p0) * vector
                    for i in range(0, p1 - p0, M):
                        multiply_patches(sums, at + i * vector, c0 > 0, bias, (g * blocks + block) * vector, patches,
                                         starts, p0 + i, offsets, weights, w, taps, rows, columns)
                    if next0 < next1:
                        im2col_prefetch_kernel(layout, row_sources, tile_rows, source, x_base, maps, u, count, next0,
                                               next1, turn, turns)
                    turn += 1
                    if c1 == layout.channels:
                        im2col_store_kernel(layout, sums, at, vector, square, target, y_base, y_origin, y_extent,
                                            block * vector, min((block + 1) * vector, layout.out_channels), p0, p1)


@parallel_kernel
def im2col_tile_kernel(layout, source, maps, weight, bias, target, rows, columns, threads):
    """All tiles. Parallel over (parts of the output channels, groups, tiles).

    Race-free because no two pieces of work share an output element and each thread has its own buffers.
    """
    layout, source, maps, target = borrow(layout), borrow(source), borrow(maps), borrow(target)
    shares = np.zeros(LINE * threads, np.int64)
    for thread in prange(threads):
        im2col_share_kernel(layout, source, maps, weight, bias, target, rows, columns, shares, np.int64(thread))
