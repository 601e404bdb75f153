"""Direct sums where each channel has a window of its own: every lane of a vector is another channel.

A tile's padded input is turned, in squares of as many channels and positions as a vector has lanes, to [positions,
channels]. Then rows of output grow together (`filter_lanes`), whatever the stride, the dilation or the width of
the map, and none of it needs a shuffle or a mask. The sums are turned back while they are stored. Where channels lie
side by side in memory nothing is turned: sums are taken from where the input lies to where the output does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..boundary import FILL
from ..geometry import ceil_div, product, share_start, span
from ..jit import compiled, inner_kernel, owning_kernel, parallel_kernel, prange, settled
from ..problem import ConvProblem
from . import simd
from .arrays import Operand, aligned, parts, real_dtype
from .borrowed import borrow
from .direct.tiles import direct_place_kernel
from .gather import flat_maps, inner_range
from .im2col.gathering import im2col_rows_kernel
from .kept import compared, kept, share_of_new
from .launch import entries
from .micro.filters import filter_lanes
from .pieces import (
    Window,
    lines,
    piece_lines_kernel,
    piece_steps_kernel,
    piece_target_kernel,
    pieces,
    steps,
    window_over,
)
from .sharing import LINE, take
from .simd import copy_first, lanes_of, splat, transpose_square, vload, vstore
from .tiles import filter_tile, share_tiles, shrink

# ------------------------------------------------------------------------------------------------- The choice

NAME = "depthwise"
SUPPORTS = "real numbers, groups of one input and one output channel each; integers exactly"
REFERENCE = ("Zhang, Lo, Lu 2020, High Performance Depthwise and Pointwise Convolutions on Mobile Devices; Zhang, "
             "Franchetti, Low 2018, High Performance Zero-Memory Overhead Direct Convolutions (arXiv 1809.10170)")
_TILE_BYTES = 384 * 1024       # of a tile's turned input and sums


def why_not(problem: ConvProblem) -> str:
    """Groups of more than one channel are refused, complex numbers, and fewer groups than a vector has lanes."""
    p = problem
    if p.C != 1 or p.K != 1:
        return f"each group needs one input and one output channel, here they have {p.C} and {p.K}"
    if parts(p) == 2:
        return "complex numbers would need two vectors for each channel"
    if p.groups < simd.lanes(real_dtype(p)):
        return f"{p.groups} groups do not fill a vector of {simd.lanes(real_dtype(p))}"
    if 0 in p.out or 0 in p.size:
        return "nothing to sum"
    return ""


def cost(problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates."""
    return machine.seconds(counts(problem, machine))


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """Multiplications, vectors loaded, lines of pieces, squares turned, tiles, and the weight's packing."""
    p = plane(problem)
    choice = _choose(p)
    threads, lanes = min(p.threads, choice.items), choice.lanes
    items, width, V = choice.items / threads, choice.tile[-1], len(choice.columns)
    turns, taps = items * lines(p, choice.tile), items * steps(p, choice.tile) * p.taps
    rows = 0 if p.channels_last else items * product(choice.extents[:-1])
    across = ceil_div(min(choice.extents[-1], p.size[-1]), lanes)
    squares = 0 if p.channels_last else rows * across + items * ceil_div(product(choice.tile), lanes)
    size = choice.blocks * lanes * p.taps * real_dtype(p).itemsize
    return {"call": 1, "start": threads > 1, "depthwise.squares": squares, "depthwise.rows": rows,
            "depthwise.products": 2 * taps * width * lanes / machine.flops(p.engine),
            "depthwise.loaded": turns * p.kernel[-1] * (width + ceil_div(width, V) * pieces(p).height),
            "depthwise.lines": turns * ceil_div(width, V), "depthwise.tiles": items,
            "depthwise.weights": share_of_new(p, size) * product(p.weight_shape),
            "byte": machine.traffic(p) / threads + compared(p, size, machine)}


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's tile: its turned input and its sums."""
    p = plane(problem)
    choice = _choose(p)
    elements = choice.blocks * p.taps + p.threads * (choice.turned + product(choice.tile[-2:]))
    return elements * choice.lanes * real_dtype(p).itemsize + 8 * p.threads * lines(p, choice.tile)


def error(problem: ConvProblem) -> float:
    """The same sums in the same order as the direct method's."""
    return 1.0


@lru_cache(maxsize=1024)
def plane(problem: ConvProblem) -> ConvProblem:
    """A problem of one axis as one of two, of which the first is a single row, as `pieces` wants them."""
    p = problem
    return p if p.rank > 1 else p.replace(
        size=(1, *p.size), kernel=(1, *p.kernel), stride=(1, *p.stride), dilation=(1, *p.dilation),
        padding=((0, 0), *p.padding), boundary=(p.boundary[0], *p.boundary), upsample=(1, *p.upsample))


def _with_rows(memory: Operand) -> Operand:
    """An operand of `plane`'s problem."""
    return Operand(memory.flat, np.concatenate((memory.strides[:3], [0], memory.strides[3:])))


class _Choice(NamedTuple):
    """The shape of tiles, as integers: all that the cost depends on."""

    rows: tuple                # register tile
    columns: tuple
    lanes: int
    blocks: int                # of as many channels as there are lanes
    tile: tuple[int, ...]      # output extents of a tile
    extents: tuple[int, ...]   # of its padded input
    turned: int                # positions of the turned input
    items: int                 # pieces of work to share


@lru_cache(maxsize=1024)
def _choose(problem: ConvProblem) -> _Choice:
    p = problem
    itemsize, lanes = real_dtype(p).itemsize, simd.lanes(real_dtype(p))
    blocks = ceil_div(p.groups, lanes)
    reach = list(map(span, p.kernel, p.dilation))

    def extents(tile):
        return tuple((n - 1) * s + r for n, s, r in zip(tile, p.stride, reach, strict=True))

    def small(tile):
        items = p.N * blocks * product(map(ceil_div, p.out, tile))
        held = (product(extents(tile)) + product(tile[-2:])) * lanes * itemsize
        return product(tile) <= lanes or (items >= p.threads and max(held, 8 * lines(p, tile)) <= _TILE_BYTES)

    tile = shrink(p.out, tuple(r / s for r, s in zip(reach, p.stride, strict=True)), small)
    tile = share_tiles(p, p.out, tile, p.N * blocks)
    return _Choice(*filter_tile(pieces(p).height), lanes, blocks, tuple(tile), extents(tile),
                   product(extents(tile)) + lanes, p.N * blocks * product(map(ceil_div, p.out, tile)))


class LaneLayout(NamedTuple):
    """All that the kernels know of a problem beside its `Window`."""

    blocks: int                # of as many channels as a vector has lanes
    channels: int
    turned: int                # elements of the turned input


def _lay_out(problem: ConvProblem) -> tuple[Window, LaneLayout]:
    p, choice = problem, _choose(problem)
    taps = np.arange(p.kernel[-1]) * p.dilation[-1]
    return (window_over(p, choice.tile, choice.extents, choice.lanes, taps),
            LaneLayout(blocks=choice.blocks, channels=p.groups, turned=choice.turned * choice.lanes))


@lru_cache(maxsize=256)
def _channels(problem: ConvProblem) -> np.ndarray:
    """The channel of each lane, (blocks, lanes): those of the last block end with the last one."""
    choice = _choose(problem)
    first = np.minimum(np.arange(choice.blocks) * choice.lanes, problem.groups - choice.lanes)
    return np.add.outer(first, np.arange(choice.lanes))


@kept
def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight as [blocks, taps, lanes], flat."""
    windows = weight.reshape(problem.groups, -1)[_channels(plane(problem))]
    packed = aligned(windows.size, windows.dtype)
    packed.reshape(windows.shape[0], -1, windows.shape[1])[...] = windows.transpose(0, 2, 1)
    return packed


@lru_cache(maxsize=256)
def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    p = plane(problem)
    choice, (window, layout), maps, channels = _choose(p), _lay_out(p), flat_maps(p), _channels(p)
    kernel, threads = settled(depthwise_kernel), min(problem.threads, choice.items)
    unbiased = np.zeros(channels.size, problem.engine)

    def start(x, prepared, bias, out):
        if problem.rank == 1:
            x, out = _with_rows(x), _with_rows(out)
        biases = unbiased if bias is None else bias[channels].reshape(-1)
        kernel(window, layout, x, maps, prepared, biases, out, choice.rows, choice.columns, threads)

    return start


run, shortcut = entries(prepare, bind)


# ------------------------------------------------------------------------------------------------- The kernels

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)


@inner_kernel
def depthwise_take_kernel(turned, to, maps, source, base, place, begin, end):
    """turned [positions, lanes] = positions begin <= i < end of a row of the padded input, whose map begins at `place`.

    One after the other, each from where the map says.
    """
    lanes = lanes_of(turned)
    step, apart = source.strides[source.strides.size - 1], source.strides[1]
    for i in range(begin, end):
        j = maps.index[place + i]
        if j == FILL:
            vstore(turned, to + i * lanes, splat(maps.fill[0]))
        else:
            for c in range(lanes):
                turned[to + i * lanes + c] = source.flat[base + j * step + c * apart]


@inner_kernel
def depthwise_gather_kernel(turned, targets, sources, rows, source, base, maps, u, count):
    """turned [positions, lanes] = a tile's padded input of as many channels, `count` positions a row from `u` on."""
    lanes = lanes_of(turned)
    step, apart = source.strides[source.strides.size - 1], source.strides[1]
    place = maps.start[maps.start.size - 2] + u
    first, last = inner_range(maps, u, 1, count)
    if step != 1:
        first = last = 0                                # no squares
    for row in range(rows):
        to, at = targets[row], base + sources[row]
        if sources[row] == FILL:
            for i in range(count):
                vstore(turned, to + i * lanes, splat(maps.fill[0]))
            continue
        depthwise_take_kernel(turned, to, maps, source, at, place, 0, first)
        i = first
        while i < last:
            i = max(min(i, last - lanes), first)        # the last ones once more, if that makes a whole square
            from_ = at + maps.index[place + i]
            if from_ + (lanes - 1) * apart + lanes <= source.flat.size:     # what lies behind the row is written next
                transpose_square(turned, to + i * lanes, lanes, source.flat, from_, apart)
            else:
                depthwise_take_kernel(turned, to, maps, source, at, place, i, min(i + lanes, last))
            i += lanes
        depthwise_take_kernel(turned, to, maps, source, at, place, last, count)


@inner_kernel
def depthwise_positions_kernel(positions, maps, source, u, count, first):
    """positions[i] = elements to padded position u + i from where u would lie, at `first` of the input, or `FILL`.

    Returned are begin and end: under begin <= i < end the input runs evenly, by one position.
    """
    step, place = source.strides[source.strides.size - 1], maps.start[maps.start.size - 2] + u
    for i in range(count):
        j = maps.index[place + i]
        positions[i] = FILL if j == FILL else (j - first) * step
    return inner_range(maps, u, 1, count)


@inner_kernel
def depthwise_store_kernel(sums, at, count, before, target, to, apart, step, square):
    """target[to + c apart + i step] = sums[at + i lanes + c], i < count, before <= c < lanes; `square` is of lanes."""
    lanes = lanes_of(sums)
    if step != 1:
        for i in range(count):
            for c in range(before, lanes):
                target[to + c * apart + i * step] = sums[at + i * lanes + c]
        return
    i = 0
    while i < count:
        i = max(min(i, count - lanes), 0)               # the last ones once more, if that makes a whole square
        if before == 0 and lanes <= count:
            transpose_square(target, to + i, apart, sums, at + i * lanes, lanes)
        else:
            transpose_square(square, 0, lanes, sums, at + i * lanes, lanes)
            for c in range(before, lanes):
                if lanes <= count:
                    vstore(target, to + c * apart + i, vload(square, c * lanes))
                else:
                    copy_first(target, to + c * apart, square, c * lanes, count)
        i += lanes


@owning_kernel
def depthwise_share_kernel(window, layout, source, maps, weight, bias, target, rows, columns, shares, thread):
    """One thread's share of the tiles: gather and turn, sum, turn back and store; or sum what lies in lanes already.

    Shapes: source (N, channels, *size) and target (N, channels, *out) by their strides; weight [blocks, taps, lanes];
    bias [blocks, lanes].
    """
    lanes = lanes_of(source.flat)
    rank = window.tile.size
    last = rank - 1
    items = window.batch * layout.blocks
    for a in range(rank):
        items *= window.grid[a]
    unit = source.strides[3 + last]
    in_place = source.strides[1] == 1 and unit >= lanes           # so that no offset of a position is `FILL`
    straight = target.strides[1] == 1
    segments, steps = piece_steps_kernel(window, len(rows))
    table = np.empty(segments * steps * window.places.size, np.int64)
    across = (window.tile[last] - 1) * window.stride[last] + window.reach[last]
    positions = np.empty(across, np.int64)
    # Each product loads a vector: from two lines of the cache it would come late, and take a third longer in all.
    line = 64 // source.flat.itemsize
    memory = np.empty(line if in_place else layout.turned + line, source.flat.dtype)
    turned = memory[-memory.ctypes.data % 64 // source.flat.itemsize:]
    sums = np.empty(0 if straight else window.tile[last - 1] * window.tile[last] * lanes, source.flat.dtype)
    square, fill = np.empty(lanes * lanes, source.flat.dtype), np.empty(lanes, source.flat.dtype)
    for i in range(lanes):
        fill[i] = maps.fill[0]
    row_targets, row_sources = np.empty(window.rows, np.int64), np.empty(window.rows, np.int64)
    places, extents = np.zeros(rank + 1, np.int64), np.ones(rank + 1, np.int64)       # with an image in front
    origin, extent = places[1:], extents[1:]
    tile, tile_rows, u, begin, end = -1, 0, 0, 0, 0
    taps = weight.size // layout.blocks
    while True:
        item = take(shares, items, thread)
        if item < 0:
            break
        n, block = item // layout.blocks % window.batch, item % layout.blocks
        width, stride = extent[last], window.stride[last]
        if tile != item // (layout.blocks * window.batch):
            tile = item // (layout.blocks * window.batch)
            direct_place_kernel(window, tile, origin, extent)
            tile_rows = im2col_rows_kernel(window, row_targets, row_sources, source, maps, places, extents)
            segments = piece_lines_kernel(window, table, steps, row_sources if in_place else row_targets, extent)
            width, u, begin, end = extent[last], origin[last] * stride, 0, extent[last]
            if in_place:
                begin, end = depthwise_positions_kernel(positions, maps, source, u,
                                                        (width - 1) * stride + window.reach[last], u - window.low)
                begin, end = ceil_div_(begin, stride), (end - window.reach[last]) // stride + 1
        channel = min(block * lanes, layout.channels - lanes)
        before = block * lanes - channel                # lanes that the block before has summed
        x_base = n * source.strides[0] + channel * source.strides[1]
        y_base = n * target.strides[0] + channel * target.strides[1]
        for a in range(rank):
            y_base += origin[a] * target.strides[3 + a]
        x, at = source.flat, x_base + (u - window.low) * unit
        if not in_place:
            x, at = turned, 0
            depthwise_gather_kernel(turned, row_targets, row_sources, tile_rows, source, x_base, maps, u,
                                    (width - 1) * stride + window.reach[last])
        for segment in range(segments):
            to, ldo, height = piece_target_kernel(window.row_step, segment, extent, target.strides[3:])
            to += y_base
            where, place, ld, apart, skipped = target.flat, to, ldo, target.strides[3 + last], before
            if not straight:
                where, place, ld, apart, skipped = sums, 0, width * lanes, lanes, 0
            filter_lanes(where, place, ld, apart, skipped, height, width, bias, block * lanes, x, at,
                         unit if in_place else lanes, stride, fill, table, segment * steps * window.places.size,
                         window.places, window.whole, window.distance, window.taps, weight, block * taps, positions,
                         begin, end, rows, columns)
            if not straight:                            # lines that follow each other in the output are stored as one
                run = width * height if ldo == width and target.strides[3 + last] == 1 else width
                for part in range(width * height // run):
                    depthwise_store_kernel(sums, part * run * lanes, run, before, target.flat, to + part * ldo,
                                           target.strides[1], target.strides[3 + last], square)


@parallel_kernel
def depthwise_kernel(window, layout, source, maps, weight, bias, target, rows, columns, threads):
    """All tiles. Parallel over (tiles, N, blocks of channels); race-free because each output is one tile's alone."""
    window, layout, source = borrow(window), borrow(layout), borrow(source)
    maps, target = borrow(maps), borrow(target)
    shares = np.zeros(LINE * threads, np.int64)
    for thread in prange(threads):
        depthwise_share_kernel(window, layout, source, maps, weight, bias, target, rows, columns, shares,
                               np.int64(thread))
