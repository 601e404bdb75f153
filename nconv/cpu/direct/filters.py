"""Sums where a group has one input and one output channel: rows of output grow together, from the first to the last.

A vector of the input serves all output rows whose windows hold it (`filter_rows`). Lines that need no padding, or
whose padding is the fill value, are read where the input lies; the rest is gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up, share_start, span
from ...jit import compiled, inner_kernel, owning_kernel, parallel_kernel, prange, settled, stay_a_function
from ...machine import arithmetic_bytes, vector_bytes
from ...problem import ConvProblem
from .. import simd
from ..arrays import bias_vector, real_dtype
from ..borrowed import borrow
from ..gather import flat_maps, gather_rows, is_filled
from ..im2col.gathering import im2col_rows_kernel
from ..micro.filters import filter_rows
from ..pieces import (
    Window,
    lines,
    piece_lines_kernel,
    piece_steps_kernel,
    piece_target_kernel,
    pieces,
    steps,
    window_over,
)
from ..sharing import LINE, take
from ..simd import lanes_of
from ..tiles import filter_tile, share_tiles, shrink
from .tiles import direct_place_kernel, direct_scatter_kernel

# ------------------------------------------------------------------------------------------------- The choice

_BUFFER_BYTES = 384 * 1024     # of a tile's padded input, its lines or its masks: they should stay in the second cache
_UNKNOWN = (), (), ()          # nothing is known of a window as `filter_rows` is compiled
_FULLER = 0.8                  # share of the lanes with which vectors of half the length are worth twice their number
_WRITTEN_OUT = 2500            # products of a window, in register tiles of all widths, that a kernel has without a loop
CALLS = 0.8                    # of a call that prepares its weight: here it is taken as it lies


class _Choice(NamedTuple):
    """The shape of tiles, as integers: all that the cost depends on."""

    rows: tuple                # register tile
    columns: tuple
    tile: tuple[int, ...]      # output extents of a tile
    step: int                  # elements of a line from one output to the next: the last axis' stride, or 1 with phases
    phases: tuple[int, ...]    # of the last axis, into which lines are parted where its stride is above 2
    extents: tuple[int, ...]   # of its padded input; of the last axis positions within a phase
    in_place: bool             # whether lines can be read where the input lies, if that is in rows without gaps
    items: int                 # pieces of work to share
    lanes: int                 # of a vector
    half: tuple                # with an element where that is half of a register


def _lanes(problem: ConvProblem) -> int:
    """Elements of a vector: half as many as a register has where units are no wider and fewer of them are idle."""
    lanes, width = simd.lanes(real_dtype(problem)), problem.out[-1]
    fuller = round_up(width, lanes // 2) <= _FULLER * round_up(width, lanes)
    return lanes // 2 if fuller and arithmetic_bytes() < 2 * vector_bytes() else lanes


@lru_cache(maxsize=1024)
def _choose(problem: ConvProblem) -> _Choice:
    p = problem
    itemsize, lanes = real_dtype(p).itemsize, _lanes(p)
    stride, spans = p.stride[-1], list(map(span, p.kernel, p.dilation))
    step = stride if stride <= 2 else 1
    used = {s * p.dilation[-1] % stride for s in range(min(p.kernel[-1], stride))} if step < stride else {0}
    phases = tuple(sorted(used))
    masks = vector_bytes() > 16                         # LLVM loads some lanes of narrower vectors one by one
    in_place = masks and step == stride and is_filled(p) and not p.channels_last

    def extents(tile):
        rows = [(n - 1) * s + r for n, s, r in zip(tile[:-1], p.stride, spans, strict=False)]
        return *rows, (tile[-1] - 1) * step + ceil_div(spans[-1] * step, stride)

    def small(tile):
        items = p.N * p.groups * product(map(ceil_div, p.out, tile))
        held = max(len(phases) * product(extents(tile)) * itemsize, 8 * lines(p, tile),
                   8 * step * p.kernel[-1] * ceil_div(tile[-1], lanes))
        return product(tile) <= 2 * lanes or (items >= p.threads and held <= _BUFFER_BYTES)

    tile = shrink(p.out, tuple(r / s for r, s in zip(spans, p.stride, strict=True)), small)
    tile = tuple(share_tiles(p, p.out, tile, p.N * p.groups))
    return _Choice(*filter_tile(pieces(p).height), tile, step, phases, extents(tile), in_place,
                   p.N * p.groups * product(map(ceil_div, p.out, tile)), lanes,
                   (0,) * (lanes < simd.lanes(real_dtype(p))))


def _known(problem: ConvProblem) -> tuple[tuple, tuple, tuple]:
    """(tall, short, line): what `filter_rows` knows of a small window as it is compiled."""
    p, choice = problem, _choose(problem)
    V = len(choice.columns)
    even = choice.step == p.stride[-1] and (choice.step == 1 or p.dilation[-1] == 1)          # between taps of a line
    if not even or p.taps * V * (V + 1) > _WRITTEN_OUT:
        return _UNKNOWN
    heights = [rows for _, rows in pieces(p).rows for _ in range(product(p.kernel[:-2]))]
    whole = heights.count(heights[0])
    return (0,) * whole, (0,) * (len(heights) - whole), (0,) * p.kernel[-1]


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """Multiplications, vectors that are parted or may lie beside the input, lines, tiles, and what is gathered."""
    p, choice = problem, _choose(problem)
    lanes, threads = choice.lanes, min(p.threads, choice.items)
    vectors, V = ceil_div(choice.tile[-1], lanes), len(choice.columns)
    items = choice.items / threads
    turns = items * lines(p, choice.tile)
    taps = items * steps(p, choice.tile) * p.taps
    edges = min(vectors, V * sum(side > 0 for side in p.padding[-1])) if choice.in_place else 0
    known = _known(p) != _UNKNOWN
    loads = ceil_div(p.kernel[-1], 2) if known else p.kernel[-1]                # of a line, where the step is 2
    gathered = 0 if choice.in_place else items * len(choice.phases) * product(choice.extents)
    if p.channels_last:
        moved = {"direct.picked": gathered + items * product(choice.tile)}      # and scattered
    elif choice.step != p.stride[-1]:
        moved = {"direct.picked": gathered}
    else:
        moved = {"direct.rows": gathered / choice.extents[-1], "direct.gathered": gathered * real_dtype(p).itemsize}
    return {"call": CALLS, "start": threads > 1, **moved,
            "direct.products_filters": 2 * taps * vectors * lanes / machine.flops(p.engine),
            "direct.parted": turns * loads * vectors if choice.step > 1 else 0,
            f"direct.lines_{'filters' if known else 'looped'}": turns * ceil_div(vectors, V),
            "direct.edges": turns * p.kernel[-1] * edges, "direct.tiles_filters": items,
            "byte": machine.traffic(p) / threads}


def workspace(problem: ConvProblem) -> int:
    """Bytes of each thread's tile of input and sums, and of the table of lines."""
    tile = _choose(problem).tile
    elements = _buffer_size(problem) + product(tile[-2:])
    return problem.threads * (elements * real_dtype(problem).itemsize + 8 * lines(problem, tile))


def _slack(problem: ConvProblem) -> int:
    """Elements that register tiles read beside what is wanted."""
    choice = _choose(problem)
    return choice.step * (len(choice.columns) + 1) * simd.lanes(real_dtype(problem))


def _buffer_size(problem: ConvProblem) -> int:
    choice = _choose(problem)
    return len(choice.phases) * product(choice.extents) + _slack(problem)


class FilterLayout(NamedTuple):
    """All that the kernels know of a problem beside its `Window`."""

    groups: int
    in_place: bool             # whether lines can be read where the input lies
    fill_size: int             # of a line of fill values
    buffer_size: int
    phases: np.ndarray         # of the last axis, one behind the other in a row of the buffer
    width: int                 # positions of a phase
    apart: int                 # padded positions between those of a phase
    size: int                  # of a line of the input


@lru_cache(maxsize=256)
def _lay_out(problem: ConvProblem) -> tuple[Window, FilterLayout]:
    p, choice = problem, _choose(problem)
    width, phases = choice.extents[-1], choice.phases
    apart = p.stride[-1] // choice.step
    position, phase = np.divmod(np.arange(p.kernel[-1]) * p.dilation[-1], apart)
    taps = np.searchsorted(phases, phase) * width + position
    extents = *choice.extents[:-1], len(phases) * width
    return window_over(p, choice.tile, extents, 1, taps), FilterLayout(
        groups=p.groups, in_place=choice.in_place,
        fill_size=int(taps.max()) + _slack(p), buffer_size=_buffer_size(p), phases=np.array(phases, np.int64),
        width=width, apart=apart, size=p.size[-1])


@lru_cache(maxsize=256)
def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    choice, maps, unbiased = _choose(problem), flat_maps(problem), bias_vector(problem, None)
    window, layout = _lay_out(problem)
    kernel, threads = settled(direct_filter_kernel), min(problem.threads, choice.items)
    known = _known(problem)

    def start(x, prepared, bias, out):
        biases = unbiased if bias is None else bias_vector(problem, bias)
        kernel(window, layout, x, maps, prepared, biases, out, choice.rows, choice.columns, (0,) * choice.step,
               choice.half, *known, threads)

    return start


# ------------------------------------------------------------------------------------------------- The kernels

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)


@inner_kernel
def direct_masks_kernel(taps, size, masks, lanes, step, first, width):
    """Which lanes of a row's vectors lie in the input: bits [taps, vectors, step]. Returns which vectors do wholly.

    `first` is the position in the input, of so many, under the tile's first output and tap.
    """
    vectors = ceil_div_(width, lanes)
    for s in range(taps.size):
        for v in range(vectors * step):
            at = first + taps[s] + v * lanes
            low = min(max(-at, 0), lanes)
            high = max(min(size - at, lanes), low)
            masks[s * vectors * step + v] = (1 << high) - (1 << low)
    begin = min(max(ceil_div_(-first, step * lanes), 0), vectors)
    end = (size - first - taps[taps.size - 1]) // (step * lanes)
    return begin, max(min(end, vectors), begin)


@inner_kernel
def direct_ahead_kernel(window, groups, source, tile, n, g, origin, next_origin, next_extent, step):
    """Elements of the input from what a piece of work reads to what the next one does: another image, or tile."""
    if g + 1 < groups:
        return source.strides[1]
    ahead = -g * source.strides[1]
    if n + 1 < window.batch:
        return ahead + source.strides[0]
    direct_place_kernel(window, tile + 1, next_origin, next_extent)
    last = origin.size - 1
    for a in range(last):
        ahead += (next_origin[a] - origin[a]) * window.stride[a] * source.strides[3 + a]
    return ahead - n * source.strides[0] + (next_origin[last] - origin[last]) * step


@inner_kernel
def direct_segments_kernel(out, o, strides, extent, segments, row_step, sums, start, x, p, fill, lines, apart, places,
                           whole, distance, taps, weight, w, masks, begin, end, ahead, rows, columns, step, half, tall,
                           short, line):
    """A tile's sums, segment after segment: `filter_rows` for each, whose lines lie `apart` from those of the next.

    Where neighbours of the output do not lie side by side, through `sums`.
    """
    stay_a_function()                                   # the register tiles are long: once is enough
    last = extent.size - 1
    width, unit = extent[last], strides[last]
    for segment in range(segments):
        to, ldo, height = piece_target_kernel(row_step, segment, extent, strides)
        where, place, ld = out, o + to, ldo
        if unit != 1:
            where, place, ld = sums, 0, width
        filter_rows(where, place, ld, height, width, start, x, p, fill, lines, segment * apart, places, whole, distance,
                    taps, weight, w, masks, begin, end, ahead, rows, columns, step, half, tall, short, line)
        if unit != 1:
            for i in range(height):
                direct_scatter_kernel(sums, i * width, width, out, o + to + i * ldo, unit)


@owning_kernel
def direct_filter_share_kernel(window, layout, source, maps, weight, bias, target, rows, columns, step, half, tall,
                               short, line, shares, thread):
    """One thread's share of the tiles.

    Shapes: source and target as in `direct_channel_share_kernel`; weight [groups, taps].
    """
    rank = window.tile.size
    last = rank - 1
    lanes = lanes_of(source.flat) >> len(half)
    images = window.batch * layout.groups
    items = images
    for a in range(rank):
        items *= window.grid[a]
    in_place = layout.in_place and source.strides[3 + last] == 1
    segments, steps = piece_steps_kernel(window, len(rows))
    table = np.empty(segments * steps * window.places.size, np.int64)
    masks = np.empty(window.taps.size * ceil_div_(window.tile[last], lanes) * len(step), np.int64)
    fill = np.empty(layout.fill_size, source.flat.dtype)
    for i in range(fill.size):
        fill[i] = maps.fill[0]
    buffer = np.zeros(0 if in_place else layout.buffer_size, source.flat.dtype)
    straight = target.strides[3 + last] == 1
    sums = np.empty(0 if straight else window.tile[last - 1] * window.tile[last], source.flat.dtype)
    places, extents = np.zeros(rank + 1, np.int64), np.ones(rank + 1, np.int64)       # with an image in front
    origin, extent = places[1:], extents[1:]
    next_origin, next_extent = np.empty(rank, np.int64), np.empty(rank, np.int64)
    row_targets, row_sources = np.empty(window.rows, np.int64), np.empty(window.rows, np.int64)
    tile, tile_rows, begin, end = -1, 0, 0, 0
    taps = weight.size // layout.groups
    while True:
        item = take(shares, items, thread)
        if item < 0:
            break
        n, g = item % images // layout.groups, item % layout.groups
        same = tile == item // images
        if not same:
            tile = item // images
            direct_place_kernel(window, tile, origin, extent)
            tile_rows = im2col_rows_kernel(window, row_targets, row_sources, source, maps, places, extents)
            segments = piece_lines_kernel(window, table, steps, row_sources if in_place else row_targets, extent)
            begin, end = 0, ceil_div_(extent[last], lanes)
            if in_place:
                begin, end = direct_masks_kernel(window.taps, layout.size, masks, lanes, len(step),
                                                 origin[last] * len(step) - window.low, extent[last])
        x_base = n * source.strides[0] + g * source.strides[1]
        y_base = n * target.strides[0] + g * target.strides[1]
        for a in range(rank):
            y_base += origin[a] * target.strides[3 + a]
        x, at = source.flat, x_base + origin[last] * len(step) - window.low
        ahead = 0
        if in_place:
            ahead = direct_ahead_kernel(window, layout.groups, source, tile, n, g, origin, next_origin, next_extent,
                                        len(step))
        else:
            x, at = buffer, 0
            count = layout.width - (window.tile[last] - extent[last]) * len(step)
            for phase in range(layout.phases.size):
                gather_rows(buffer, phase * layout.width, row_targets, tile_rows, count, source.flat, x_base,
                            row_sources, source.strides[3 + last], maps, 0,
                            origin[last] * window.stride[last] + layout.phases[phase], layout.apart, same)
        direct_segments_kernel(target.flat, y_base, target.strides[3:], extent, segments, window.row_step, sums,
                               bias[g % bias.size], x, at, fill, table, steps * window.places.size, window.places,
                               window.whole, window.distance, window.taps, weight, g * taps, masks, begin, end, ahead,
                               rows, columns, step, half, tall, short, line)


@parallel_kernel
def direct_filter_kernel(window, layout, source, maps, weight, bias, target, rows, columns, step, half, tall, short,
                         line, threads):
    """All tiles. Parallel over (tiles, N, groups); race-free as `direct_channel_kernel`."""
    window, layout, source = borrow(window), borrow(layout), borrow(source)
    maps, target = borrow(maps), borrow(target)
    shares = np.zeros(LINE * threads, np.int64)
    for thread in prange(threads):
        direct_filter_share_kernel(window, layout, source, maps, weight, bias, target, rows, columns, step, half, tall,
                                   short, line, shares, np.int64(thread))
