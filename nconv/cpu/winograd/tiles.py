"""Tiles of the input to tiles of the output: gather, transform, multiply, transform back, store.

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
from ..arrays import borrow
from ..gather import inner_range
from ..micro import multiply_rows
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
from .passes import Lines, forward_pass, inverse_pass

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)
_RUN = 8                       # channels of transformed weights that are brought to their places at once


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
    width: int                 # of the gathered input of the longest run of tiles
    x_step: int                # elements between the matrices of a transformed block
    x_row: int                 # between its tiles
    y_step: int                # elements between the matrices of products
    grid: np.ndarray           # tiles per axis
    extent: np.ndarray         # n: elements of a tile, per axis
    valid: np.ndarray          # m: its outputs, per axis
    out: np.ndarray            # output extents


@inner_kernel
def winograd_gather_kernel(layout, buffer, source, sources, base, maps, u, count, c0, c1):
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
def winograd_loudness_kernel(layout, buffer, peaks, count, channels, c0):
    """peaks [rows, width, lanes] = largest magnitudes of the pixels, a NaN above all; of all chunks up to c0's."""
    lanes = lanes_of(buffer)
    for row in range(layout.rows):
        for i in range(row * layout.width, row * layout.width + count):
            peak = splat(buffer.dtype.type(0)) if c0 == 0 else vload(peaks, i * lanes)
            for c in range(i * layout.chunk, i * layout.chunk + channels, lanes):
                peak = largest_or_nan(peak, vload(buffer, c))
            vstore(peaks, i * lanes, peak)


@owning_kernel
def winograd_uneven_kernel(layout, peaks, tiles, count, limit, root):
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
    for tile in range(tiles):
        top = real(0)
        for row in range(layout.rows):
            for i in range(layout.extent[last]):
                top = max(top, loud[row * layout.width + tile * layout.valid[last] + i])
        outputs = 1
        window = 1
        for a in range(axes):
            outputs *= layout.valid[a]
            window *= layout.extent[a] - layout.valid[a] + 1
        for output in range(outputs):
            low = real(0)
            for tap in range(window):
                place = 0
                size = 1
                o, t = output, tap
                for b in range(axes):
                    a = last - b
                    r = layout.extent[a] - layout.valid[a] + 1
                    i = o % layout.valid[a] + t % r
                    place += i * size if b else tile * layout.valid[a] + i
                    size = size * layout.extent[a] if b else layout.width
                    o //= layout.valid[a]
                    t //= r
                low = max(low, loud[place])
            if 0 < low and low * root < top:
                return True
    return False


@inner_kernel
def winograd_forward_kernel(layout, block, at, buffer, begin, spare):
    """One vector of channels of one tile: buffer [rows, width, chunk] from `begin` on to the block's matrices."""
    lanes = lanes_of(buffer)
    axes = layout.grid.size
    outer, inner = layout.rows, axes // axes            # a literal one would compile the passes twice
    for b in range(axes):                               # from the last axis to the first
        a = axes - 1 - b
        n = layout.extent[a]
        outer //= n if b else 1
        target, source = block if a == 0 else spare, spare if b else buffer
        aside = Lines(begin * 0, inner * lanes, n * inner * lanes, lanes)
        to = Lines(at, inner * layout.x_step, n * 0, layout.x_step) if a == 0 else aside
        by = aside if b else Lines(begin, layout.chunk, layout.width * layout.chunk, n * 0)
        forward_pass(n, target, to, source, by, outer, inner)
        inner *= n


@inner_kernel
def winograd_inverse_kernel(layout, outputs, at, products, begin, spare, start):
    """One vector of output channels of one tile: products to outputs [rows of outputs, width, lanes], plus `start`."""
    lanes = lanes_of(products)
    last = layout.grid.size - 1
    outer, inner = layout.elements // layout.elements, layout.elements     # as above
    for a in range(last + 1):
        n, m = layout.extent[a], layout.valid[a]
        inner //= n
        target, source = outputs if a == last else spare, spare if a else products
        by = Lines(begin * 0, inner * lanes, n * inner * lanes, lanes) if a else Lines(
            begin, inner * layout.y_step, n * 0, layout.y_step)
        to = Lines(at, lanes, lanes * layout.grid[last] * layout.valid[last], n * 0) if a == last else Lines(
            at * 0, inner * lanes, m * inner * lanes, lanes)
        inverse_pass(n, m, target, to, source, by, outer, inner, start if a == last else start - start)
        outer *= m


@inner_kernel
def winograd_store_kernel(layout, outputs, square, target, base, place, tiles, k0, k1):
    """Write a run of tiles of output channels k0 <= k < k1 to their places.

    Shapes: outputs [rows of outputs, width, lanes]; `place` the first tile, images not counted.
    """
    lanes = lanes_of(outputs)
    last = layout.grid.size - 1
    width = layout.grid[last] * layout.valid[last]
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
def winograd_place_kernel(layout, tile, place):
    """The image of a tile; its place in the grid goes into `place`."""
    for b in range(layout.grid.size):
        a = layout.grid.size - 1 - b
        place[a] = tile % layout.grid[a]
        tile //= layout.grid[a]
    return tile


@owning_kernel
def winograd_share_kernel(layout, source, maps, weight, bias, limit, uneven, target, rows, columns, threads, thread):
    """One thread's share of the blocks.

    Shapes: source (N, groups C parts, *size) and target (N, groups K parts, *out) by their strides; weight
    [groups, blocks of output channels, elements, channels, channels of a block]; bias [groups, blocks, channels of a
    block]; uneven (N,): set for images that this kernel leaves to direct sums.
    """
    layout, source, maps, target = borrow(layout), borrow(source), borrow(maps), borrow(target)
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
    block = np.zeros(layout.elements * layout.x_step, real)
    products = np.empty(layout.elements * layout.y_step, real)
    valid_rows = 1
    for a in range(last):
        valid_rows *= layout.valid[a]
    outputs = np.empty((valid_rows * layout.grid[last] * layout.valid[last] + lanes) * lanes, real)
    square = np.empty(lanes * lanes, real)
    sources = np.empty(layout.rows, np.int64)
    place = np.empty(axes, np.int64)
    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        tile0 = item % blocks * layout.count
        tile1 = min(tile0 + layout.count, layout.tiles)
        g = item // blocks % layout.groups
        part = item // (blocks * layout.groups)
        tile = tile0
        while tile < tile1:                             # a run of tiles side by side
            image = winograd_place_kernel(layout, tile, place)
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
                winograd_gather_kernel(layout, buffer, source, sources, base, maps, place[last] * layout.valid[last],
                                       count, c0, c1)
                winograd_loudness_kernel(layout, buffer, peaks, count, c1 - c0, c0)
                for i in range(run):
                    for c in range(0, c1 - c0, lanes):
                        winograd_forward_kernel(layout, block, (tile - tile0 + i) * layout.x_row + c0 + c, buffer,
                                                i * layout.valid[last] * layout.chunk + c, spare)
            if winograd_uneven_kernel(layout, peaks, run, count, limit, root):
                uneven[image] = 1
            tile += run
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
                image = winograd_place_kernel(layout, tile, place)
                run = min(layout.grid[last] - place[last], tile1 - tile)
                base = image * target.strides[0] + g * (layout.out_channels // layout.parts) * target.strides[1]
                for v in range(0, min(vector, layout.out_channels - kb * vector), lanes):
                    start = vload(bias, (g * k_blocks + kb) * vector + v)
                    for i in range(run):
                        winograd_inverse_kernel(layout, outputs, i * layout.valid[last] * lanes, products,
                                                (tile - tile0 + i) * vector + v, spare, start)
                    winograd_store_kernel(layout, outputs, square, target, base, place, run, kb * vector + v,
                                          min(kb * vector + v + lanes, layout.out_channels))
                tile += run


@parallel_kernel
def winograd_tile_kernel(layout, source, maps, weight, bias, limit, uneven, target, rows, columns, threads):
    """All tiles. Parallel over (parts of the output channels, groups, blocks of tiles).

    Race-free because no two pieces of work share an output element, each thread has its own buffers, and all that is
    written to `uneven` is ones.
    """
    for thread in prange(threads):
        winograd_share_kernel(layout, source, maps, weight, bias, limit, uneven, target, rows, columns, threads,
                              np.int64(thread))


@inner_kernel
def winograd_line_kernel(there, to, here, at, step, matrices, m, n, r):
    """n vectors, `step` apart from there[to:] on, = the matrix [n, r] at matrices[m:] times r vectors of here[at:]."""
    if r == 3:                                             # as nearly all windows: these stay in registers
        a, b, c = vload(here, at), vload(here, at + step), vload(here, at + 2 * step)
        for k in range(n):
            vstore(there, to + k * step, splat(matrices[m + 3 * k]) * a + splat(matrices[m + 3 * k + 1]) * b
                   + splat(matrices[m + 3 * k + 2]) * c)
        return
    for k in range(n):
        total = splat(matrices[m + k * r]) * vload(here, at)
        for j in range(1, r):
            total = total + splat(matrices[m + k * r + j]) * vload(here, at + j * step)
        vstore(there, to + k * step, total)


@parallel_kernel
def winograd_weight_kernel(packed, extent, window, matrices, starts, channels, vector, weight, threads):
    """weight [blocks, elements, channels, vector] = G of every axis times packed [blocks, channels, window, vector].

    Parallel over (blocks, channels). Race-free because each pair of them is written by one thread.
    """
    lanes = lanes_of(packed)
    axes = extent.size
    taps, elements = 1, 1
    for a in range(axes):
        taps *= window[a]
        elements *= extent[a]
    items = packed.size // (taps * vector)
    for thread in prange(threads):
        here = np.empty(elements * lanes, packed.dtype)
        there = np.empty(elements * lanes, packed.dtype)
        run = np.empty(elements * _RUN * vector, packed.dtype)
        end = share_start_(items, threads, thread + 1)
        first = share_start_(items, threads, thread)
        while first < end:
            # Elements lie pages apart, in few places of the nearest cache: a run of channels is brought there at once.
            count = min(_RUN, end - first, channels - first % channels)
            for at in range(0, count * vector, lanes):
                item, v = first + at // vector, at % vector
                for t in range(taps):
                    vstore(here, t * lanes, vload(packed, (item * taps + t) * vector + v))
                outer, inner = taps, 1
                for b in range(axes):
                    a = axes - 1 - b
                    n, r = extent[a], window[a]
                    outer //= r
                    for o in range(outer):
                        for i in range(inner):
                            winograd_line_kernel(there, (o * n * inner + i) * lanes, here, (o * r * inner + i) * lanes,
                                                 inner * lanes, matrices, starts[a], n, r)
                    inner *= n
                    here, there = there, here
                for e in range(elements):
                    vstore(run, e * count * vector + at, vload(here, e * lanes))
            target = (first // channels * elements * channels + first % channels) * vector
            for e in range(elements):
                copy(weight, target + e * channels * vector, run, e * count * vector, count * vector)
            first += count
