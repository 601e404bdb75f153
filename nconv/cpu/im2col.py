"""Convolution as a matrix product of patches with the weight, in which the patches are never stored.

[positions x taps] [taps x output channels] for each group, the vectors along the output channels. Row p, column t of
the patch matrix is ``buffer[starts[p] + offsets[t]]`` once a tile's padded input lies in a buffer: two tables stand
for the matrix, so that every stride, dilation, layout and map size runs at the same rate, and a tile may hold several
small images. Taps go chunk by chunk of input channels, so that buffer, weight panel and sums stay in the L2 cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..boundary import FILL
from ..geometry import ceil_div, product, round_up, share_start, span
from ..jit import compiled, kernel, parallel_kernel, prange
from ..problem import ConvProblem
from . import simd
from .arrays import bias_vector, flat_maps, gather_rows, operand, pack_weight, parts, real_dtype
from .simd import copy, lanes_of, multiply_patches, transpose_square, vload, vstore
from .tiles import TAPS_AT_ONCE, channel_tile, even_tile, shrink, split_channels

# ------------------------------------------------------------------------------------------------- The choice

NAME = "im2col"
SUPPORTS = "every problem, every dtype; integers exactly"
REFERENCE = ("Chellapilla, Puri, Simard 2006, High Performance Convolutional Neural Networks for Document Processing; "
             "tables in place of patches after Dukhan 2019, The Indirect Convolution Algorithm (arXiv 1907.02129)")
_BUFFER_BYTES = 256 * 1024     # of one thread's gathered tile
_SUMS_BYTES = 256 * 1024       # of one thread's sums


def why_not(problem: ConvProblem) -> str:
    """Every valid problem is supported."""
    return ""


def cost(problem: ConvProblem, machine) -> float:
    """Multiplications at the register tile's rate, packing the weight, gathering tiles, storing the output."""
    choice = _choose(problem)
    layout = choice.layout
    itemsize = real_dtype(problem).itemsize
    channels = round_up(layout.out_channels, choice.vector) * problem.groups
    positions = product(map(ceil_div, layout.out, layout.tile)) * layout.positions
    flops = 2 * channels * positions * layout.channels * layout.window
    rate = machine.flops(problem.engine) * machine.efficiency["im2col"]
    gathered = choice.items * choice.gathered * itemsize
    packed = 2 * channels * layout.channels * layout.window * itemsize
    stored = product(problem.out_shape) * problem.engine.itemsize
    threads = min(problem.threads, choice.items)
    seconds = (flops / rate + gathered / machine.gather_rate + (packed + stored) / machine.bandwidth) / threads
    return seconds + machine.call + (machine.parallel_start if threads > 1 else 0)


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's tile of input and sums."""
    choice = _choose(problem)
    layout = choice.layout
    channels = round_up(layout.out_channels, choice.vector) * problem.groups
    weight = channels * layout.channels * layout.window
    return (weight + problem.threads * (layout.buffer_size + layout.sums_size)) * real_dtype(problem).itemsize


def error(problem: ConvProblem) -> float:
    """The same sums in the same order as the direct method's."""
    return 1.0


class PatchLayout(NamedTuple):
    """A tile's shape and where everything lies in its buffers; all that the kernels know of a problem."""

    groups: int
    channels: int              # input channels of one group times parts
    out_channels: int          # output channels of one group times parts
    parts: int                 # 2 for complex numbers
    window: int                # taps of one channel
    chunk: int                 # channels that are gathered and summed at once
    channel_parts: int         # into how many pieces of work the output channels are split
    slots: int                 # blocks of output channels whose sums are kept between the chunks
    positions: int             # output positions of a full tile, of all its images
    rows: int                  # of the padded input under a full tile
    image_stride: int          # of the buffer
    channel_stride: int
    pixels: int                # 1: the channels of a position lie side by side in the buffer
    buffer_size: int
    sums_size: int
    out: np.ndarray            # images, then output extents
    tile: np.ndarray           # images of a tile, then its output extents
    stride: np.ndarray
    reach: np.ndarray          # spans of the window, per axis
    steps: np.ndarray          # padded positions between neighbours in the buffer, per axis
    strides: np.ndarray        # buffer stride of a neighbour, per axis
    jumps: np.ndarray          # buffer stride of an output position, per axis
    offsets: np.ndarray        # buffer offset of every tap of a chunk


class _Choice(NamedTuple):
    """A layout with what only the host needs."""

    layout: PatchLayout
    rows: tuple                # register tile
    columns: tuple
    vector: int                # output channels of a block
    items: int                 # pieces of work to share
    gathered: int              # elements gathered for one of them


@lru_cache(maxsize=256)
def _choose(problem: ConvProblem) -> _Choice:
    p = problem
    itemsize = real_dtype(p).itemsize
    channels, out_channels, window = p.C * parts(p), p.K * parts(p), product(p.kernel)
    rows, columns = channel_tile(out_channels, simd.lanes(real_dtype(p)))
    vector = len(columns) * simd.lanes(real_dtype(p))
    blocks = ceil_div(out_channels, vector)
    chunks = min(max(channels * window // TAPS_AT_ONCE, 1), channels)
    chunk = even_tile(channels, ceil_div(channels, chunks))
    # Where a window is one element wide, only the positions under it are gathered.
    steps = [s if k == 1 else 1 for s, k in zip(p.stride, p.kernel, strict=True)]
    reach = [span(k, d) for k, d in zip(p.kernel, p.dilation, strict=True)]

    def extents(tile):
        return [(n - 1) * s // step + r for n, s, step, r in zip(tile, p.stride, steps, reach, strict=True)]

    def small(tile):
        images, *tile = tile
        pieces = p.groups * ceil_div(p.N, images) * product(map(ceil_div, p.out, tile))
        positions = images * product(tile)
        slots = blocks if chunk < channels else 1
        return positions <= len(rows) or (
            images * chunk * product(extents(tile)) * itemsize <= _BUFFER_BYTES
            and positions * slots * vector * itemsize <= _SUMS_BYTES and pieces * blocks >= p.threads)

    everything = (p.N, *p.out)
    tile = shrink(everything, (1e-9, *(r / s for r, s in zip(reach, p.stride, strict=True))), small)
    images, *tile = (even_tile(n, t) for n, t in zip(everything, tile, strict=True))
    extent = extents(tile)
    pieces = p.groups * ceil_div(p.N, images) * product(map(ceil_div, p.out, tile))
    channel_parts = split_channels(pieces, blocks, p.threads)

    line = max(64 // itemsize, 1)
    pixel = chunk if p.channels_last else 1
    # Channels an odd number of cache lines apart do not compete for the same few places in the cache.
    channel_stride = 1 if p.channels_last else (ceil_div(product(extent), line) | 1) * line
    image_stride = chunk * (product(extent) if p.channels_last else channel_stride)
    strides = [pixel * product(extent[a + 1:]) for a in range(p.rank)]
    offsets = np.arange(chunk, dtype=np.int64) * channel_stride
    for k, d, stride in zip(p.kernel, p.dilation, strides, strict=True):
        offsets = (offsets[:, None] + np.arange(k) * d * stride).ravel()
    positions = images * product(tile)
    slots = ceil_div(blocks, channel_parts) if chunk < channels else 1
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    layout = PatchLayout(
        groups=p.groups, channels=channels, out_channels=out_channels, parts=parts(p), window=window, chunk=chunk,
        channel_parts=channel_parts, slots=slots, positions=positions, rows=images * product(extent[:-1]),
        image_stride=image_stride,
        channel_stride=channel_stride, pixels=int(p.channels_last), buffer_size=images * image_stride,
        sums_size=(slots * round_up(positions, len(rows)) + simd.lanes(real_dtype(p))) * vector,
        out=vec(everything), tile=vec((images, *tile)), stride=vec(p.stride), reach=vec(reach), steps=vec(steps),
        strides=vec(strides), jumps=vec([s // step * b for s, step, b in zip(p.stride, steps, strides, strict=True)]),
        offsets=offsets)
    return _Choice(layout, rows, columns, vector, pieces * channel_parts, images * channels * product(extent))


def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight in panels of as many output channels as a register tile has."""
    return pack_weight(problem, weight, _choose(problem).vector)


def run(problem: ConvProblem, prepared: np.ndarray, x: np.ndarray, bias: np.ndarray | None, out: np.ndarray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    choice = _choose(problem)
    channels = choice.layout.out_channels
    biases = np.zeros((problem.groups, round_up(channels, choice.vector)), real_dtype(problem))
    if bias is not None:
        biases[:, :channels] = bias_vector(problem, bias).reshape(problem.groups, channels)
    im2col_tile_kernel(choice.layout, operand(x), flat_maps(problem), prepared, biases.reshape(-1), operand(out),
                       choice.rows, choice.columns, min(problem.threads, choice.items))


# ------------------------------------------------------------------------------------------------- The kernels

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)
round_up_ = compiled(round_up)


@kernel
def im2col_rows_kernel(layout, targets, sources, source, maps, origin, extent):
    """Where the rows of a tile's padded input begin in its buffer and in the input (`FILL`: nowhere); their number.

    `origin` and `extent` are the tile's first output position and number of them, images first.
    """
    last = layout.stride.size - 1
    rows = extent[0]
    for a in range(last):
        rows *= (extent[1 + a] - 1) * layout.stride[a] // layout.steps[a] + layout.reach[a]
    for row in range(rows):
        rest = row
        targets[row] = 0
        sources[row] = 0
        for b in range(last):
            a = last - 1 - b
            height = (extent[1 + a] - 1) * layout.stride[a] // layout.steps[a] + layout.reach[a]
            j = maps.index[maps.start[a] + origin[1 + a] * layout.stride[a] + rest % height * layout.steps[a]]
            targets[row] += rest % height * layout.strides[a]
            rest //= height
            sources[row] = FILL if sources[row] == FILL or j == FILL else sources[row] + j * source.strides[3 + a]
        targets[row] += rest * layout.image_stride
        if sources[row] != FILL:
            sources[row] += rest * source.strides[0]
    return rows


@kernel
def im2col_gather_kernel(layout, buffer, targets, sources, rows, source, base, maps, u, count, c0, c1):
    """Copy a tile's padded input, channels c0 <= c < c1, into `buffer`: `count` positions a row from padded one `u` on.

    Shape: buffer (images, channels, *positions) or, for `pixels`, (images, *positions, channels).
    """
    last = layout.stride.size - 1
    du, step = layout.steps[last], source.strides[3 + last]
    if not layout.pixels:
        for c in range(c0, c1):
            channel = c // layout.parts * source.strides[1] + c % layout.parts * source.strides[2]
            gather_rows(buffer, (c - c0) * layout.channel_stride, targets, rows, count, source.flat, base + channel,
                        sources, step, maps, c % layout.parts, u, du)
        return
    for row in range(rows):
        for i in range(count):
            j = FILL if sources[row] == FILL else maps.index[maps.start[last] + u + i * du]
            at = targets[row] + i * layout.chunk
            pixel = base + sources[row] + j * step
            if j == FILL:
                for c in range(c0, c1):
                    buffer[at + c - c0] = maps.fill[c % layout.parts]
            elif source.strides[1] == layout.parts:
                copy(buffer, at, source.flat, pixel + c0, c1 - c0)
            else:
                for c in range(c0, c1):
                    channel = c // layout.parts * source.strides[1] + c % layout.parts * source.strides[2]
                    buffer[at + c - c0] = source.flat[pixel + channel]


@kernel
def im2col_starts_kernel(layout, starts, extent):
    """starts[p] = buffer offset of the tile's output position p; images first, the last axis runs."""
    last = layout.stride.size - 1
    rows = extent[0]
    for a in range(last):
        rows *= extent[1 + a]
    for row in range(rows):
        rest = row
        base = 0
        for b in range(last):
            a = last - 1 - b
            base += rest % extent[1 + a] * layout.jumps[a]
            rest //= extent[1 + a]
        base += rest * layout.image_stride
        for i in range(extent[1 + last]):
            starts[row * extent[1 + last] + i] = base + i * layout.jumps[last]


@kernel
def im2col_store_kernel(layout, sums, at, vector, square, target, base, origin, extent, k0, k1):
    """Write the output channels k0 <= k < k1 of a tile to their places.

    Shapes: sums [positions, `vector` channels] from `at` on; where positions lie side by side in the output, squares
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
    rows = extent[0]
    for a in range(axis):
        rows *= extent[1 + a]
    for row in range(rows):
        rest = row
        to = base
        for b in range(axis):
            a = axis - 1 - b
            to += (origin[1 + a] + rest % extent[1 + a]) * target.strides[3 + a]
            rest //= extent[1 + a]
        to += (origin[0] + rest) * target.strides[0]
        for a in range(axis, last + 1):
            to += origin[1 + a] * target.strides[3 + a]
        first = at + row * run * vector
        if layout.parts == 1 and step == 1:
            for i in range(0, run, lanes):
                for k in range(k0, k1, lanes):
                    corner = to + i + k * target.strides[1]
                    if i + lanes <= run and k + lanes <= k1:
                        transpose_square(target.flat, corner, target.strides[1], sums, first + i * vector + k - k0,
                                         vector)
                    else:
                        transpose_square(square, 0, lanes, sums, first + i * vector + k - k0, vector)
                        for j in range(min(lanes, k1 - k)):
                            copy(target.flat, corner + j * target.strides[1], square, j * lanes, min(lanes, run - i))
        elif target.strides[1] == layout.parts:
            for i in range(run):
                copy(target.flat, to + i * step + k0, sums, first + i * vector, k1 - k0)
        else:
            for k in range(k0, k1):
                corner = to + k // layout.parts * target.strides[1] + k % layout.parts * target.strides[2]
                for i in range(run):
                    target.flat[corner + i * step] = sums[first + i * vector + k - k0]


@kernel
def im2col_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, thread):
    """One thread's share of the tiles: gather, multiply, store.

    Shapes: source (N, groups C parts, *size) and target (N, groups K parts, *out) by their strides; weight
    [groups, blocks of output channels, taps, channels of a block]; bias [groups, blocks, channels of a block].
    """
    M = len(rows)
    lanes = lanes_of(source.flat)
    vector = lanes * len(columns)
    blocks = ceil_div_(layout.out_channels, vector)
    axes = layout.tile.size
    tiles = 1
    for a in range(axes):
        tiles *= ceil_div_(layout.out[a], layout.tile[a])
    items = layout.channel_parts * layout.groups * tiles
    buffer = np.zeros(layout.buffer_size, source.flat.dtype)
    sums = np.empty(layout.sums_size, source.flat.dtype)
    square = np.empty(lanes * lanes, source.flat.dtype)
    starts = np.zeros(layout.positions + M, np.int64)
    row_targets = np.empty(layout.rows, np.int64)
    row_sources = np.empty(layout.rows, np.int64)
    origin = np.empty(axes, np.int64)
    extent = np.empty(axes, np.int64)
    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        rest = item
        positions = 1
        for b in range(axes):
            a = axes - 1 - b
            count = ceil_div_(layout.out[a], layout.tile[a])
            origin[a] = rest % count * layout.tile[a]
            rest //= count
            extent[a] = min(layout.tile[a], layout.out[a] - origin[a])
            positions *= extent[a]
        g = rest % layout.groups
        channel_part = rest // layout.groups            # slowest: a thread keeps to its part of the weight
        block0 = share_start_(blocks, layout.channel_parts, channel_part)
        block1 = share_start_(blocks, layout.channel_parts, channel_part + 1)
        rows_of_tile = im2col_rows_kernel(layout, row_targets, row_sources, source, maps, origin, extent)
        count = (extent[axes - 1] - 1) * layout.stride[axes - 2] // layout.steps[axes - 2] + layout.reach[axes - 2]
        im2col_starts_kernel(layout, starts, extent)
        starts[positions:positions + M] = 0             # rows beyond the last position: computed, never stored
        x_base = origin[0] * source.strides[0] + g * (layout.channels // layout.parts) * source.strides[1]
        y_base = g * (layout.out_channels // layout.parts) * target.strides[1]
        for c0 in range(0, layout.channels, layout.chunk):
            c1 = min(c0 + layout.chunk, layout.channels)
            im2col_gather_kernel(layout, buffer, row_targets, row_sources, rows_of_tile, source, x_base, maps,
                                 origin[axes - 1] * layout.stride[axes - 2], count, c0, c1)
            for block in range(block0, block1):
                at = (block - block0) % layout.slots * round_up_(positions, M) * vector
                if c0 == 0:
                    for j in range(0, vector, lanes):
                        start = vload(bias, (g * blocks + block) * vector + j)
                        for p in range(round_up_(positions, M)):
                            vstore(sums, at + p * vector + j, start)
                w = ((g * blocks + block) * layout.channels + c0) * layout.window * vector
                for p in range(0, positions, M):
                    multiply_patches(sums, at + p * vector, buffer, starts, p, layout.offsets, weight, w,
                                     (c1 - c0) * layout.window, rows, columns)
                if c1 == layout.channels:
                    im2col_store_kernel(layout, sums, at, vector, square, target, y_base, origin, extent,
                                        block * vector, min((block + 1) * vector, layout.out_channels))


@parallel_kernel
def im2col_tile_kernel(layout, source, maps, weight, bias, target, rows, columns, threads):
    """All tiles. Parallel over (parts of the output channels, groups, tiles).

    Race-free because no two pieces of work share an output element and each thread has its own buffers.
    """
    for thread in prange(threads):
        im2col_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, thread)
