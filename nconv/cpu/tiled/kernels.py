"""Tiles of the input to tiles of the output: gather, transform, multiply, transform back, store.

The transforms are Winograd's, or Fourier's where their passes are given.

A block is a number of consecutive tiles, counted through images, rows and columns, so that small maps fill it too. The
transformed block is one matrix [tiles x channels] for each of a tile's elements; its products with the transformed
weights are those of im2col's register tile. Vectors run along channels throughout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...boundary import FILL
from ...geometry import ceil_div, share_start
from ...jit import compiled, inner_kernel, owning_kernel, parallel_kernel, prange
from ..borrowed import borrow
from ..gather import inner_range
from ..micro.products import multiply_rows
from ..sharing import LINE, take
from ..simd import (
    copy,
    epsilon_of,
    lanes_of,
    largest_lane,
    largest_or_nan,
    smallest_nonzero,
    splat,
    transpose_square,
    vload,
    vstore,
)
from .fourier import fourier_forward_kernel, fourier_inverse_kernel
from .winograd.transforms import winograd_forward_kernel, winograd_inverse_kernel

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)


class TileLayout(NamedTuple):
    """Tiles and where everything lies; all that the kernels know of a problem."""

    groups: int
    channels: int              # input channels of one group times parts
    out_channels: int          # output channels of one group times parts
    parts: int                 # 2 for complex numbers
    chunk: int                 # channels that are gathered at once, and summed before the sums return to memory
    channel_parts: int         # into how many pieces of work the output channels are split
    tiles: int                 # of one group: batch times grid
    count: int                 # tiles of a block
    elements: int              # of a transformed tile
    rows: int                  # of a tile's input: all axes but the last
    run: int                   # most tiles side by side that are gathered at once
    width: int                 # of their input
    x_step: int                # elements between the matrices of a transformed block
    x_row: int                 # between its tiles
    y_step: int                # elements between the matrices of products
    grid: np.ndarray           # tiles per axis
    extent: np.ndarray         # n: elements of a tile, per axis
    valid: np.ndarray          # m: its outputs, per axis
    out: np.ndarray            # output extents


@inner_kernel
def tile_gather_kernel(layout, buffer, source, sources, base, maps, u, count, c0, c1):
    """buffer [rows, width, chunk] = channels c0 <= c < c1 of the padded input, `count` positions a row from `u` on.

    Where pixels lie side by side in memory, squares of pixels by channels are transposed in registers; the last square
    of a row may write beyond it, into the row that comes next.
    """
    lanes = lanes_of(buffer)
    last = layout.grid.size - 1
    step = source.strides[3 + last]
    first, end = inner_range(maps, u, 1, count)
    chunk = layout.chunk
    begin = maps.start[last] + u
    whole = (c1 - c0) // lanes * lanes if layout.parts == 1 else 0
    dense = layout.parts == 1 and source.strides[1] == 1
    for row in range(layout.rows):
        at = row * layout.width * chunk
        outside = sources[row] == FILL
        done = 0                                       # channels of the inner positions that squares have brought
        if not outside and step == 1 and not dense and end > first:
            p = base + sources[row] + maps.index[begin + first]
            if p + (c0 + whole - 1) * source.strides[1] + ceil_div_(end - first, lanes) * lanes <= source.flat.size:
                done = whole
            for c in range(0, done, lanes):
                for i in range(first, end, lanes):
                    transpose_square(buffer, at + i * chunk + c, chunk, source.flat,
                                     p + i - first + (c0 + c) * source.strides[1], source.strides[1])
        for i in range(count):
            inner = first <= i < end
            if inner and done == c1 - c0:
                continue
            j = FILL if outside or begin + i >= maps.start[last + 1] else maps.index[begin + i]
            target = at + i * chunk
            if j == FILL:
                for c in range(c1 - c0):
                    buffer[target + c] = maps.fill[(c0 + c) % layout.parts]
            elif dense:
                copy(buffer, target, source.flat, base + sources[row] + j * step + c0, c1 - c0)
            else:
                p = base + sources[row] + j * step
                for c in range(done if inner else 0, c1 - c0):
                    q = c0 + c
                    buffer[target + c] = source.flat[p + q // layout.parts * source.strides[1]
                                                     + q % layout.parts * source.strides[2]]


@inner_kernel
def tile_loudness_kernel(layout, buffer, peaks, count, channels, c0):
    """peaks [rows, width, lanes] = largest magnitudes of the pixels, a NaN above all; of all chunks up to c0's."""
    lanes = lanes_of(buffer)
    for row in range(layout.rows):
        for i in range(row * layout.width, row * layout.width + count):
            peak = splat(buffer.dtype.type(0)) if c0 == 0 else vload(peaks, i * lanes)
            for c in range(i * layout.chunk, i * layout.chunk + channels, lanes):
                peak = largest_or_nan(peak, vload(buffer, c))
            vstore(peaks, i * lanes, peak)


@owning_kernel
def tile_uneven_kernel(layout, peaks, tiles, count, limit, root):
    """Whether transforms would lose an output of a run of tiles.

    That is where a value is not finite or above `limit`, and where a window's largest magnitude is less than the tile's
    by a factor `root`: rounding in the tile follows the tile.
    """
    lanes = lanes_of(peaks)
    real = peaks.dtype.type
    largest, quiet = splat(real(0)), splat(real(limit))
    for row in range(layout.rows):
        for i in range(row * layout.width * lanes, (row * layout.width + count) * lanes, lanes):
            peak = vload(peaks, i)
            largest = largest_or_nan(largest, peak)
            quiet = smallest_nonzero(quiet, peak)
    vstore(peaks, peaks.size - lanes, largest)
    top = real(0)
    for i in range(peaks.size - lanes, peaks.size):
        if not peaks[i] <= limit:
            return True
        top = max(top, peaks[i])
    vstore(peaks, peaks.size - lanes, quiet)
    low = real(limit)
    for i in range(peaks.size - lanes, peaks.size):
        low = min(low, peaks[i])
    if top <= low * root:
        return False
    axes = layout.grid.size
    last = axes - 1
    loud = np.empty(layout.rows * layout.width, peaks.dtype)
    low = real(limit)
    for row in range(layout.rows):
        for i in range(row * layout.width, row * layout.width + count):
            loud[i] = largest_lane(vload(peaks, i * lanes))
            if loud[i] > 0:
                low = min(low, loud[i])
    if top <= low * root:                               # few channels: a lane is quiet more often than a pixel
        return False
    tops = np.zeros(tiles, peaks.dtype)
    for tile in range(tiles):
        for row in range(layout.rows):
            for i in range(layout.extent[last]):
                tops[tile] = max(tops[tile], loud[row * layout.width + tile * layout.valid[last] + i])
    step, inner = 1, 1                                  # loud becomes the largest of the window that begins there
    for b in range(axes):
        a = last - b
        n = count if b == 0 else layout.extent[a]
        for row in range(layout.rows):
            for i in range(count):
                place = i if b == 0 else row // inner % n
                at = row * layout.width + i
                for k in range(1, min(layout.extent[a] - layout.valid[a], n - 1 - place) + 1):
                    loud[at] = max(loud[at], loud[at + k * step])
        step = layout.width if b == 0 else step * n
        inner *= n if b > 0 else 1
    for tile in range(tiles):
        for row in range(layout.rows):
            rest = row
            inside = True
            for b in range(last):
                a = last - 1 - b
                inside = inside and rest % layout.extent[a] < layout.valid[a]
                rest //= layout.extent[a]
            for i in range(layout.valid[last] if inside else 0):
                low = loud[row * layout.width + tile * layout.valid[last] + i]
                if 0 < low and low * root < tops[tile]:
                    return True
    return False


@inner_kernel
def tiles_store_kernel(layout, outputs, square, target, base, place, tiles, k0, k1):
    """Write a run of tiles of output channels k0 <= k < k1 to their places.

    Shapes: outputs [rows of outputs, width, lanes]; `place` the first tile, images not counted.
    """
    lanes = lanes_of(outputs)
    last = layout.grid.size - 1
    width = layout.run * layout.valid[last]
    x = place[last] * layout.valid[last]
    count = min(tiles * layout.valid[last], layout.out[last] - x)
    step = target.strides[3 + last]
    rows = 1
    for a in range(last):
        rows *= layout.valid[a]
    for row in range(rows):
        rest = row
        to = base + x * step
        inside = True
        for b in range(last):
            a = last - 1 - b
            y = place[a] * layout.valid[a] + rest % layout.valid[a]
            rest //= layout.valid[a]
            inside = inside and y < layout.out[a]
            to += y * target.strides[3 + a]
        if not inside:
            continue
        first = row * width * lanes
        if layout.parts == 1 and step == 1:
            to += k0 * target.strides[1]
            for i in range(0, count, lanes):
                if i + lanes <= count and k0 + lanes <= k1:
                    transpose_square(target.flat, to + i, target.strides[1], outputs, first + i * lanes, lanes)
                else:
                    transpose_square(square, 0, lanes, outputs, first + i * lanes, lanes)
                    for j in range(min(lanes, k1 - k0)):
                        copy(target.flat, to + i + j * target.strides[1], square, j * lanes, min(lanes, count - i))
        elif target.strides[1] == layout.parts and k0 + lanes <= k1:
            for i in range(count):
                vstore(target.flat, to + i * step + k0, vload(outputs, first + i * lanes))
        else:
            for k in range(k0, min(k0 + lanes, k1)):
                corner = to + k // layout.parts * target.strides[1] + k % layout.parts * target.strides[2]
                for i in range(count):
                    target.flat[corner + i * step] = outputs[first + i * lanes + k - k0]


@inner_kernel
def tile_place_kernel(layout, tile, place):
    """The image of a tile; its place in the grid goes into `place`."""
    for b in range(layout.grid.size):
        a = layout.grid.size - 1 - b
        place[a] = tile % layout.grid[a]
        tile //= layout.grid[a]
    return tile


@owning_kernel
def tiles_share_kernel(layout, fourier, source, maps, weight, bias, limit, uneven, target, rows, columns, shares,
                       thread):
    """One thread's share of the blocks.

    Shapes: source (N, groups C parts, *size) and target (N, groups K parts, *out) by their strides; weight
    [groups, blocks of output channels, elements, channels, channels of a block]; bias [groups, blocks, channels of a
    block]; uneven (N,): set for images that this kernel leaves to direct sums.
    """
    M, lanes = len(rows), lanes_of(source.flat)
    vector = lanes * len(columns)
    real = source.flat.dtype
    axes = layout.grid.size
    last = axes - 1
    root = 1 / np.sqrt(epsilon_of(source.flat))
    k_blocks = ceil_div_(layout.out_channels, vector)
    blocks = ceil_div_(layout.tiles, layout.count)
    items = layout.channel_parts * layout.groups * blocks
    buffer = np.zeros((layout.rows * layout.width + lanes) * layout.chunk, real)
    peaks = np.zeros((layout.rows * layout.width + 1) * lanes, real)
    spare = np.empty(layout.elements * lanes, real)
    block = np.empty(layout.elements * layout.x_step, real)
    products = np.empty(layout.elements * layout.y_step, real)
    valid_rows = 1
    for a in range(last):
        valid_rows *= layout.valid[a]
    outputs = np.empty((valid_rows * layout.run * layout.valid[last] + lanes) * lanes, real)
    square = np.empty(lanes * lanes, real)
    known = 0                                          # rows of the block, from the first on, that hold numbers
    sources = np.empty(layout.rows, np.int64)
    place = np.empty(axes, np.int64)
    while True:
        item = take(shares, items, thread)
        if item < 0:
            break
        tile0 = item % blocks * layout.count
        tile1 = min(tile0 + layout.count, layout.tiles)
        g = item // blocks % layout.groups
        part = item // (blocks * layout.groups)
        tile = tile0
        while tile < tile1:                             # a run of tiles side by side
            image = tile_place_kernel(layout, tile, place)
            run = min(layout.grid[last] - place[last], tile1 - tile)
            count = (run - 1) * layout.valid[last] + layout.extent[last]
            base = image * source.strides[0] + g * (layout.channels // layout.parts) * source.strides[1]
            for row in range(layout.rows):
                rest = row
                sources[row] = 0
                for b in range(last):
                    a = last - 1 - b
                    u = maps.start[a] + place[a] * layout.valid[a] + rest % layout.extent[a]
                    rest //= layout.extent[a]
                    j = maps.index[u] if u < maps.start[a + 1] else FILL
                    lost = sources[row] == FILL or j == FILL
                    sources[row] = FILL if lost else sources[row] + j * source.strides[3 + a]
            for c0 in range(0, layout.channels, layout.chunk):
                c1 = min(c0 + layout.chunk, layout.channels)
                tile_gather_kernel(layout, buffer, source, sources, base, maps, place[last] * layout.valid[last], count,
                                   c0, c1)
                tile_loudness_kernel(layout, buffer, peaks, count, c1 - c0, c0)
                for i in range(run):
                    for c in range(0, c1 - c0, lanes):
                        to = (tile - tile0 + i) * layout.x_row + c0 + c
                        begin = i * layout.valid[last] * layout.chunk + c
                        if fourier is None:
                            winograd_forward_kernel(layout, block, to, buffer, begin, spare)
                        else:
                            fourier_forward_kernel(layout, fourier, block, to, buffer, begin, spare)
            if tile_uneven_kernel(layout, peaks, run, count, limit, root):
                uneven[image] = 1
            tile += run
        # The register tile reads rows beyond the last tile: what chance left there might be denormal, and slow.
        for row in range(max(known, tile1 - tile0), ceil_div_(tile1 - tile0, M) * M):
            for e in range(layout.elements):
                at = e * layout.x_step + row * layout.x_row
                block[at:at + layout.x_row] = 0
        known = max(known, ceil_div_(tile1 - tile0, M) * M)
        for kb in range(share_start_(k_blocks, layout.channel_parts, part),
                        share_start_(k_blocks, layout.channel_parts, part + 1)):
            for e in range(layout.elements):
                w = ((g * k_blocks + kb) * layout.elements + e) * layout.channels * vector
                for c0 in range(0, layout.channels, layout.chunk):
                    taps = min(layout.chunk, layout.channels - c0)
                    for p in range(0, tile1 - tile0, M):
                        multiply_rows(products, e * layout.y_step + p * vector, c0 > 0, block,
                                      e * layout.x_step + p * layout.x_row + c0, layout.x_row, weight, w + c0 * vector,
                                      taps, rows, columns)
            tile = tile0
            while tile < tile1:
                image = tile_place_kernel(layout, tile, place)
                run = min(layout.grid[last] - place[last], tile1 - tile)
                base = image * target.strides[0] + g * (layout.out_channels // layout.parts) * target.strides[1]
                for v in range(0, min(vector, layout.out_channels - kb * vector), lanes):
                    for i in range(run):
                        to = i * layout.valid[last] * lanes
                        begin, b = (tile - tile0 + i) * vector + v, (g * k_blocks + kb) * vector + v
                        if fourier is None:
                            winograd_inverse_kernel(layout, outputs, to, products, begin, spare, bias, b)
                        else:
                            fourier_inverse_kernel(layout, fourier, outputs, to, products, begin, spare, bias, b)
                    tiles_store_kernel(layout, outputs, square, target, base, place, run, kb * vector + v,
                                       min(kb * vector + v + lanes, layout.out_channels))
                tile += run


@parallel_kernel
def tiles_kernel(layout, fourier, source, maps, weight, bias, limit, uneven, target, rows, columns, threads):
    """All tiles. Parallel over (parts of the output channels, groups, blocks of tiles).

    `fourier` are the passes of a transform, or None for Winograd's.

    Race-free because no two pieces of work share an output element, each thread has its own buffers, and all that is
    written to `uneven` is ones.
    """
    layout, source, maps, target = borrow(layout), borrow(source), borrow(maps), borrow(target)
    fourier = borrow(fourier)
    shares = np.zeros(LINE * threads, np.int64)
    for thread in prange(threads):
        tiles_share_kernel(layout, fourier, source, maps, weight, bias, limit, uneven, target, rows, columns, shares,
                           np.int64(thread))
