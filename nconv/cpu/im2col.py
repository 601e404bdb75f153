"""Convolution as a matrix product of patches with the weight, in which the patches are never stored.

[positions x taps] [taps x output channels] for each group, the vectors along the output channels. Row p, column t of
the patch matrix is ``buffer[starts[p] + offsets[t]]`` once a tile's padded input lies in a buffer: two tables stand
for the matrix, so that every stride, dilation, layout and map size runs at the same rate, and a tile may hold several
small images. Taps go chunk by chunk of input channels, so that buffer, weight panel and sums stay in the L2 cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import lcm
from typing import NamedTuple

import numpy as np

from ..boundary import FILL
from ..geometry import ceil_div, product, round_up, share_start, span
from ..jit import compiled, inner_kernel, owning_kernel, parallel_kernel, prange, settled
from ..problem import ConvProblem
from . import simd
from .arrays import bias_rows, borrow, pack_panel, packed_weight, packing_threads, parts, real_dtype
from .gather import flat_maps, gather_rows
from .kept import compared, share_of_new
from .launch import entries
from .micro import multiply_patches
from .simd import copy, lanes_of, prefetch, transpose_square, vload, vload_first, vstore
from .tiles import TAPS_AT_ONCE, channel_tile, even_tile, share_tiles, shrink, split_channels

# ------------------------------------------------------------------------------------------------- The choice

NAME = "im2col"
SUPPORTS = "every problem, every dtype; integers exactly"
REFERENCE = ("Chellapilla, Puri, Simard 2006, High Performance Convolutional Neural Networks for Document Processing; "
             "tables in place of patches after Dukhan 2019, The Indirect Convolution Algorithm (arXiv 1907.02129)")
_BUFFER_BYTES = 512 * 1024     # of one thread's gathered tile
_SUMS_BYTES = 256 * 1024       # of one thread's sums, where they are kept from one chunk of channels to the next
_STRIPS_BYTES = 256 * 1024     # the same where it lies in strips
_WORTH_STRIPS = 8              # vectors of output channels from which on strips are worth the copy
_TOGETHER = 4                  # strips that are gathered at once, while the lines that they share are in the cache
_GROUP = 96                    # positions, at most about so many, that are summed and stored at once


def why_not(problem: ConvProblem) -> str:
    """Every valid problem is supported."""
    return ""


def least(problem: ConvProblem, machine) -> tuple[float, float]:
    """The multiplications of whole vectors of output channels, without threads; the direct method's error."""
    p = problem
    channels = round_up(p.K * parts(p), simd.lanes(real_dtype(p)))
    products = 2 * p.N * p.groups * p.positions * p.taps * parts(p) * channels / machine.flops(p.engine)
    return machine.seconds({"call": 1, "im2col.products": products}), 1.0


def cost(problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates."""
    return machine.seconds(counts(problem, machine))


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """Multiplications, register tiles, what is gathered for them in rows and bytes, and the weight's packing."""
    p, choice = problem, _choose(problem)
    itemsize, taps = real_dtype(p).itemsize, p.taps * parts(p)
    channels = round_up(p.K * parts(p), choice.vector) * p.groups
    tiles = product(map(ceil_div, (p.N, *p.out), choice.tile))
    registers = tiles * ceil_div(product(choice.tile), len(choice.rows)) * channels // choice.vector
    threads = min(p.threads, choice.items)
    # One vector of channels loads an address for each product.
    kind = "im2col.products_lone" if len(choice.columns) == 1 else "im2col.products"
    products = 2 * registers * len(choice.rows) * choice.vector * taps / machine.flops(p.engine)
    lines = 0 if _in_place(p) or choice.strip else choice.items * choice.gathered / choice.extents[-1]
    panels = channels * taps * itemsize
    kept = 0 if choice.packs else panels
    return {"call": 1, "start": threads > 1, kind: products / threads,
            "im2col.tiles": registers * ceil_div(p.C * parts(p), choice.chunk) / threads,
            "im2col.rows": lines / threads, "im2col.gathered": lines * choice.extents[-1] * itemsize / threads,
            "im2col.positions": tiles * product(choice.tile) * p.groups / threads,
            "im2col.panels": panels / threads if choice.packs else 0,
            "im2col.packed": share_of_new(p, kept) * kept / packing_threads(p, kept / itemsize),
            "byte": machine.traffic(p) / threads + (compared(p, kept, machine) if kept else 0)}


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's tile of input and sums."""
    choice = _choose(problem)
    weight = round_up(problem.K * parts(problem), choice.vector) * problem.groups * problem.taps * parts(problem)
    weight = 0 if choice.packs else weight
    return (weight + problem.threads * (choice.buffer_size + choice.sums_size)) * real_dtype(problem).itemsize


def error(problem: ConvProblem) -> float:
    """The same sums in the same order as the direct method's."""
    return 1.0


class _Choice(NamedTuple):
    """The shape of tiles, as integers: all that the cost depends on."""

    rows: tuple                # register tile
    columns: tuple
    vector: int                # output channels of a block
    group: int                 # positions that are summed and stored at once
    chunk: int                 # channels that are gathered and summed at once
    tile: tuple[int, ...]      # images of a tile, then its output extents
    extents: tuple[int, ...]   # of the buffer, per axis
    image_stride: int          # of the buffer
    channel_stride: int
    strip: int                 # elements from one strip of positions to the next, where the buffer has these; else 0
    buffer_size: int
    sums_size: int
    channel_parts: int         # into how many pieces of work the output channels are split
    packs: bool                # panels of the weight are packed where they are used
    items: int                 # pieces of work to share
    gathered: int              # elements gathered for one of them


@lru_cache(maxsize=1024)
def _choose(problem: ConvProblem) -> _Choice:
    p = problem
    itemsize = real_dtype(p).itemsize
    channels, out_channels, window = p.C * parts(p), p.K * parts(p), product(p.kernel)
    lanes = simd.lanes(real_dtype(p))
    rows, columns = channel_tile(out_channels, p.N * p.positions, lanes)
    vector = len(columns) * lanes
    unit = lcm(len(rows), lanes)
    group = unit * max(_GROUP // unit, 1)
    blocks = ceil_div(out_channels, vector)
    strips = _in_strips(p, lanes)
    chunks = min(max(channels * window // TAPS_AT_ONCE, 1), channels)
    chunk = even_tile(channels, ceil_div(channels, chunks))
    reach = list(map(span, p.kernel, p.dilation))
    jumps = list(map(_jump, p.stride, p.kernel))

    def extents(tile):
        return tuple((n - 1) * jump + r for n, jump, r in zip(tile, jumps, reach, strict=True))

    def sums(tile):
        """Positions, times the blocks of a piece of work, whose sums are kept."""
        if chunk == channels:
            return group
        pieces = p.groups * product(map(ceil_div, everything, tile))
        return ceil_div(blocks, split_channels(pieces, blocks, p.threads)) * round_up(product(tile), len(rows))

    def small(tile):
        if product(tile) <= len(rows):
            return True
        images, *inner = tile
        return (images * chunk * product(extents(inner)) * itemsize <= (_STRIPS_BYTES if strips else _BUFFER_BYTES)
                and (chunk == channels or sums(tile) * vector * itemsize <= _SUMS_BYTES)
                and p.groups * blocks * product(map(ceil_div, everything, tile)) >= p.threads)

    everything = (p.N, *p.out)
    tile = shrink(everything, (1e-9, *(r / s for r, s in zip(reach, p.stride, strict=True))), small)
    tile = share_tiles(p, everything, tile, p.groups * blocks)
    images = tile[0]
    extent = extents(tile[1:])
    volume = product(extent)
    pieces = p.groups * product(map(ceil_div, everything, tile))
    channel_parts = split_channels(pieces, blocks, p.threads)
    # A panel that serves one tile of one call is not worth a place in memory.
    packs = pieces == p.groups and parts(p) == 1 and not p.reused
    line = max(64 // itemsize, 1)
    # Channels an odd number of cache lines apart do not compete for the same few places in the cache.
    channel_stride = 1 if p.channels_last else len(rows) if strips else (ceil_div(volume, line) | 1) * line
    image_stride = chunk * (volume if p.channels_last else channel_stride)
    strip = chunk * len(rows) + lanes if strips else 0
    buffer_size = ceil_div(product(tile), len(rows)) * strip if strips else images * image_stride
    return _Choice(rows, columns, vector, group, chunk, tuple(tile), extent, image_stride, channel_stride, strip,
                   buffer_size, (sums(tile) + lanes) * vector, channel_parts, packs,
                   pieces * channel_parts, images * channels * volume)


def _in_strips(problem: ConvProblem, lanes: int) -> bool:
    """Whether the buffer holds strips of as many positions as a register tile has, [strips, channels, positions].

    So a product reads it from the first to the last element. Where windows have one element, the input would do as it
    is, but its channels lie far apart, in other pages and often in the same few places of the nearest cache; each
    element is copied once and read for every block of output channels.
    """
    p = problem
    return (product(p.kernel) == 1 and not p.channels_last and parts(p) == 1
            and ceil_div(p.K, lanes) >= _WORTH_STRIPS)


def _in_place(problem: ConvProblem) -> bool:
    """Whether the input serves as the buffer: windows of one element, nothing around it."""
    p = problem
    return product(p.kernel) == 1 and not any(map(any, p.padding)) and set(p.upsample) == set(p.stride) == {1}


def _jump(stride: int, taps: int) -> int:
    """Positions from one output to the next in the buffer, which has no others where a window is one element wide."""
    return 1 if taps == 1 else stride


class PatchLayout(NamedTuple):
    """A tile's shape and where everything lies in its buffers; all that the kernels know of a problem."""

    groups: int
    channels: int              # input channels of one group times parts
    out_channels: int          # output channels of one group times parts
    parts: int                 # 2 for complex numbers
    window: int                # taps of one channel
    chunk: int                 # channels that are gathered and summed at once
    channel_parts: int         # into how many pieces of work the output channels are split
    group: int                 # positions that are summed and stored at once
    positions: int             # output positions of a full tile, of all its images
    rows: int                  # of the padded input under a full tile
    image_stride: int          # of the buffer
    channel_stride: int
    strip: int                 # elements from one strip of positions to the next in the buffer; 0: it has none
    pixels: int                # 1: the channels of a position lie side by side in the buffer
    in_place: int              # 1: windows of one element and no padding, the input serves as the buffer
    packs: int                 # 1: the weight comes as it is, and panels are packed where they are used
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


def _lay_out(problem: ConvProblem) -> PatchLayout:
    p = problem
    choice = _choose(p)
    pixel = choice.chunk if p.channels_last else 1
    strides = [pixel * product(choice.extents[a + 1:]) for a in range(p.rank)]
    offsets = np.arange(choice.chunk, dtype=np.int64) * choice.channel_stride
    for k, d, stride in zip(p.kernel, p.dilation, strides, strict=True):
        offsets = (offsets[:, None] + np.arange(k) * d * stride).ravel()
    window = product(p.kernel)
    jumps = list(map(_jump, p.stride, p.kernel))
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    return PatchLayout(
        groups=p.groups, channels=p.C * parts(p), out_channels=p.K * parts(p), parts=parts(p), window=window,
        chunk=choice.chunk, channel_parts=choice.channel_parts, group=choice.group, positions=product(choice.tile),
        rows=choice.tile[0] * product(choice.extents[:-1]), image_stride=choice.image_stride,
        channel_stride=choice.channel_stride, strip=choice.strip, pixels=int(p.channels_last),
        in_place=int(_in_place(p) and not choice.strip),
        packs=int(choice.packs), buffer_size=choice.buffer_size, sums_size=choice.sums_size, out=vec((p.N, *p.out)),
        tile=vec(choice.tile), stride=vec(p.stride), reach=vec(list(map(span, p.kernel, p.dilation))),
        steps=vec([s // jump for s, jump in zip(p.stride, jumps, strict=True)]), strides=vec(strides),
        jumps=vec([jump * b for jump, b in zip(jumps, strides, strict=True)]), offsets=offsets)


def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight in panels of as many output channels as a register tile has, or as it is; see `PatchLayout.packs`."""
    choice = _choose(problem)
    return weight.reshape(-1) if choice.packs else packed_weight(problem, weight, choice.vector)


@lru_cache(maxsize=256)
def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    choice, layout, maps = _choose(problem), _lay_out(problem), flat_maps(problem)
    kernel, threads = settled(im2col_tile_kernel), min(problem.threads, choice.items)
    unbiased = bias_rows(problem, None, choice.vector)

    def start(x, prepared, bias, out):
        biases = unbiased if bias is None else bias_rows(problem, bias, choice.vector)
        kernel(layout, x, maps, prepared, biases, out, choice.rows, choice.columns, threads)

    return start


run, shortcut = entries(prepare, bind)


# ------------------------------------------------------------------------------------------------- The kernels

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)
round_up_ = compiled(round_up)


@inner_kernel
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


@inner_kernel
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
                        sources, step, maps, c % layout.parts, u, du, False)
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


@inner_kernel
def im2col_places_kernel(layout, places, runs, sources, rows, step, maps, u, count):
    """Where a tile's positions lie in the input (`FILL`: nowhere), and how many from each on lie side by side.

    For windows of one element: the tile's rows of `count` positions begin at `sources`.
    """
    last = layout.stride.size - 1
    for row in range(rows):
        for i in range(count):
            j = maps.index[maps.start[last] + u + i * layout.steps[last]]
            places[row * count + i] = FILL if sources[row] == FILL or j == FILL else sources[row] + j * step
    run = 0
    for b in range(rows * count):
        p = rows * count - 1 - b
        run = 0 if places[p] == FILL else run + 1 if run > 0 and places[p + 1] == places[p] + 1 else 1
        runs[p] = run


@inner_kernel
def im2col_strips_kernel(layout, buffer, places, runs, positions, source, base, fill, c0, c1, rows):
    """Copy a tile's positions of channels c0 <= c < c1 into `buffer`: strips of as many as `rows`, channel by channel.

    Whole vectors are stored: what is too much, the next channel covers; behind the last one a strip has room for it.
    """
    M, lanes = len(rows), lanes_of(buffer)
    p = 0
    while p < positions:
        to = p // M * layout.strip
        together = _TOGETHER if runs[p] >= _TOGETHER * M + lanes else 1
        inside = p + M <= positions
        for i in range(M):
            inside &= places[p + i] != FILL
        for c in range(c0, c1):
            from_ = base + c * source.strides[1]
            if together > 1:
                for q in range(_TOGETHER):
                    for j in range(0, M, lanes):
                        vstore(buffer, to + q * layout.strip + j, vload(source.flat, from_ + places[p] + q * M + j))
            elif runs[p] >= M:
                for j in range(0, M, lanes):
                    vstore(buffer, to + j, vload_first(source.flat, from_ + places[p] + j, min(lanes, M - j), fill))
            elif inside:
                for i in range(M):
                    buffer[to + i] = source.flat[from_ + places[p + i]]
            else:
                for i in range(M):
                    there = p + i < positions and places[p + i] != FILL
                    buffer[to + i] = source.flat[from_ + places[p + i]] if there else fill
            to += M
        p += together * M


@inner_kernel
def im2col_starts_kernel(starts, extent, base, image_stride, jumps):
    """starts[p] = offset of the tile's output position p, the first of which is at `base`; the last axis runs."""
    last = jumps.size - 1
    rows = extent[0]
    for a in range(last):
        rows *= extent[1 + a]
    for row in range(rows):
        rest = row
        start = base
        for b in range(last):
            a = last - 1 - b
            start += rest % extent[1 + a] * jumps[a]
            rest //= extent[1 + a]
        start += rest * image_stride
        for i in range(extent[1 + last]):
            starts[row * extent[1 + last] + i] = start + i * jumps[last]


@inner_kernel
def im2col_prefetch_kernel(layout, sources, rows, source, base, maps, u, count, c0, c1, part, parts):
    """Ask for the `part`-th of so many parts of what `im2col_gather_kernel` will copy with these arguments."""
    last = layout.stride.size - 1
    step = source.strides[3 + last]
    line = 64 // source.flat.itemsize
    first = min(max(u, maps.inner[0]), maps.inner[1] - 1)
    if first < 0:                                       # an input without elements under the window
        return
    base += maps.index[maps.start[last] + first] * step
    count = min(count * layout.steps[last], maps.inner[1] - first)
    channels = 1 if layout.pixels else c1 - c0
    for i in range(share_start_(rows * channels, parts, part), share_start_(rows * channels, parts, part + 1)):
        at = sources[i % rows]
        c = c0 + i // rows
        if at != FILL:
            at += base + c // layout.parts * source.strides[1]
            for j in range(0, count * step, line):
                prefetch(source.flat, at + j)


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


@inner_kernel
def im2col_place_kernel(layout, item, origin, extent):
    """Set a piece of work's first output position and extents, images first; returns (channel part, group)."""
    axes = layout.tile.size
    rest = item
    for b in range(axes):
        a = axes - 1 - b
        count = ceil_div_(layout.out[a], layout.tile[a])
        origin[a] = rest % count * layout.tile[a]
        rest //= count
        extent[a] = min(layout.tile[a], layout.out[a] - origin[a])
    return rest // layout.groups, rest % layout.groups  # parts are slowest: a thread keeps to its part of the weight


@owning_kernel
def im2col_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, thread):
    """One thread's share of the tiles: gather, multiply, store; while it multiplies, it asks for what comes next.

    Shapes: source (N, groups C parts, *size) and target (N, groups K parts, *out) by their strides; weight
    [groups, blocks of output channels, taps, channels of a block]; bias [groups, blocks, channels of a block].
    """
    layout, source, maps, target = borrow(layout), borrow(source), borrow(maps), borrow(target)
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
    end = share_start_(items, threads, thread + 1)
    for item in range(share_start_(items, threads, thread), end):
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
            if c1 == layout.channels and item + 1 < end:
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
    for thread in prange(threads):
        im2col_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, np.int64(thread))
