"""Direct sums where each channel has a window of its own: every lane of a vector is another channel.

A tile's padded input is turned, in squares of as many channels and positions as a vector has lanes, to [positions,
channels]. Then a sum takes one vector of weights and one of the input for each tap, whatever the stride, the dilation
or the width of the map, and none of it needs a shuffle or a mask. The sums are turned back while they are stored.
Where channels lie side by side in memory nothing is turned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..boundary import FILL
from ..geometry import ceil_div, product, round_up, share_start, span
from ..jit import compiled, inner_kernel, owning_kernel, parallel_kernel, prange, settled
from ..problem import ConvProblem
from . import simd
from .arrays import borrow, parts, real_dtype
from .direct.tiles import direct_row_kernel
from .gather import flat_maps, inner_range
from .im2col.gathering import im2col_place_kernel, im2col_rows_kernel
from .kept import compared, kept, share_of_new
from .launch import entries
from .micro import filter_lanes
from .simd import copy_first, lanes_of, splat, transpose_square, vload, vstore
from .tiles import share_tiles, shrink

# ------------------------------------------------------------------------------------------------- The choice

NAME = "depthwise"
SUPPORTS = "real numbers, groups of one input and one output channel each; integers exactly"
REFERENCE = ("Zhang, Lo, Lu 2020, High Performance Depthwise and Pointwise Convolutions on Mobile Devices; Zhang, "
             "Franchetti, Low 2018, High Performance Zero-Memory Overhead Direct Convolutions (arXiv 1809.10170)")
_TURNED_BYTES = 384 * 1024     # of a tile's turned input
_ROWS = (0,) * 8               # whose length is the number of positions that are summed at once


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
    """Multiplications, register tiles, squares turned or vectors copied, rows gathered, and the weight's packing."""
    p, choice = problem, _choose(problem)
    threads, lanes = min(p.threads, choice.items), choice.lanes
    items, lines, width = choice.items / threads, product(choice.tile[:-1]), choice.tile[-1]
    rows = product(choice.extents[:-1])
    stored = ceil_div(lines * width, lanes) if width < 2 * lanes else lines * ceil_div(width, lanes)
    size = choice.blocks * lanes * p.taps * real_dtype(p).itemsize
    moved = ({"depthwise.vectors": items * (rows * choice.extents[-1] + lines * width)} if p.channels_last else
             {"depthwise.squares": items * (rows * ceil_div(choice.extents[-1], lanes) + stored)})
    return {"call": 1, "start": threads > 1, **moved,
            "depthwise.products": 2 * items * lines * round_up(width, len(_ROWS) // 2) * p.taps * lanes
            / machine.flops(p.engine),
            "depthwise.tiles": items * lines * ceil_div(width, len(_ROWS)), "depthwise.rows": items * rows,
            "depthwise.weights": share_of_new(p, size) * product(p.weight_shape),
            "byte": machine.traffic(p) / threads + compared(p, size, machine)}


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's tile: its turned input and its sums."""
    choice = _choose(problem)
    elements = choice.blocks * problem.taps + problem.threads * (choice.turned + choice.sums)
    return elements * choice.lanes * real_dtype(problem).itemsize


def error(problem: ConvProblem) -> float:
    """The same sums in the same order as the direct method's."""
    return 1.0


class _Choice(NamedTuple):
    """The shape of tiles, as integers: all that the cost depends on."""

    lanes: int
    blocks: int                # of as many channels as there are lanes
    tile: tuple[int, ...]      # output extents of a tile
    extents: tuple[int, ...]   # of its padded input
    turned: int                # positions of the turned input
    sums: int                  # positions of the sums: of a line, of a tile where lines are short
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
        pieces = p.N * blocks * product(map(ceil_div, p.out, tile))
        return product(tile) <= len(_ROWS) or (
            pieces >= p.threads and product(extents(tile)) * lanes * itemsize <= _TURNED_BYTES)

    tile = shrink(p.out, tuple(r / s for r, s in zip(reach, p.stride, strict=True)), small)
    tile = share_tiles(p, p.out, tile, p.N * blocks)
    beyond = max(len(_ROWS) * p.stride[-1], lanes)      # read for sums, or turned, beside what is wanted
    sums = product(tile) if tile[-1] < 2 * lanes else tile[-1]
    return _Choice(lanes, blocks, tuple(tile), extents(tile), product(extents(tile)) + beyond, sums + beyond,
                   p.N * blocks * product(map(ceil_div, p.out, tile)))


class LaneLayout(NamedTuple):
    """A tile's shape and where everything lies in its buffers; all that the kernels know of a problem."""

    groups: int                # blocks of as many channels as a vector has lanes
    channels: int
    rows: int                  # of the padded input under a full tile
    image_stride: int          # for `im2col_rows_kernel`, of no meaning in tiles of one image
    turned: int                # elements of the turned input
    sums: int                  # elements of the sums
    out: np.ndarray            # images, then output extents
    tile: np.ndarray           # one image, then a tile's output extents
    stride: np.ndarray
    steps: np.ndarray          # for the same: padded positions between neighbours in the buffer, here 1
    reach: np.ndarray          # spans of the window, per axis
    strides: np.ndarray        # positions from one neighbour to the next, per axis
    jumps: np.ndarray          # elements of the turned input from one output position to the next, per axis
    offsets: np.ndarray        # elements to each tap


def _lay_out(problem: ConvProblem) -> LaneLayout:
    p, choice = problem, _choose(problem)
    strides = [product(choice.extents[a + 1:]) for a in range(p.rank)]
    offsets = np.zeros(1, np.int64)
    for k, d, stride in zip(p.kernel, p.dilation, strides, strict=True):
        offsets = np.add.outer(offsets, np.arange(k) * d * stride * choice.lanes).ravel()
    vec = lambda values: np.array(list(values), np.int64)                              # noqa: E731
    return LaneLayout(
        groups=choice.blocks, channels=p.groups, rows=product(choice.extents[:-1]), image_stride=0,
        turned=choice.turned * choice.lanes, sums=choice.sums * choice.lanes, out=vec((p.N, *p.out)),
        tile=vec((1, *choice.tile)), stride=vec(p.stride), steps=vec([1] * p.rank),
        reach=vec(map(span, p.kernel, p.dilation)), strides=vec(strides),
        jumps=vec(s * n * choice.lanes for s, n in zip(p.stride, strides, strict=True)), offsets=offsets)


@lru_cache(maxsize=256)
def _channels(problem: ConvProblem) -> np.ndarray:
    """The channel of each lane, (blocks, lanes): those of the last block end with the last one."""
    choice = _choose(problem)
    first = np.minimum(np.arange(choice.blocks) * choice.lanes, problem.groups - choice.lanes)
    return np.add.outer(first, np.arange(choice.lanes))


@kept
def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight as [blocks, taps, lanes], flat."""
    windows = weight.reshape(problem.groups, -1)[_channels(problem)]
    return np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(-1)


@lru_cache(maxsize=256)
def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    choice, layout, maps, channels = _choose(problem), _lay_out(problem), flat_maps(problem), _channels(problem)
    kernel, threads = settled(depthwise_kernel), min(problem.threads, choice.items)
    unbiased = np.zeros(channels.size, problem.engine)

    def start(x, prepared, bias, out):
        biases = unbiased if bias is None else bias[channels].reshape(-1)
        kernel(layout, x, maps, prepared, biases, out, _ROWS, threads)

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
        elif apart == 1:
            vstore(turned, to + i * lanes, vload(source.flat, base + j * step))
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
    if step != 1 or apart == 1:
        first = last = 0                                # no squares
    for row in range(rows):
        to, at = targets[row] * lanes, base + sources[row]
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
def depthwise_store_kernel(sums, at, count, before, target, to, apart, step, square):
    """target[to + c apart + i step] = sums[at + i lanes + c], i < count, before <= c < lanes; `square` is of lanes."""
    lanes = lanes_of(sums)
    if step != 1:
        for i in range(count):
            if apart == 1 and before == 0:
                vstore(target, to + i * step, vload(sums, at + i * lanes))
                continue
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
def depthwise_share_kernel(layout, source, maps, weight, bias, target, rows, threads, thread):
    """One thread's share of the tiles: gather and turn, sum, turn back and store.

    Shapes: source (N, channels, *size) and target (N, channels, *out) by their strides; weight [blocks, taps, lanes];
    bias [blocks, lanes].
    """
    layout, source, maps, target = borrow(layout), borrow(source), borrow(maps), borrow(target)
    lanes = lanes_of(source.flat)
    axes = layout.tile.size
    last = axes - 2
    items = layout.groups
    for a in range(axes):
        items *= ceil_div_(layout.out[a], layout.tile[a])
    # Each product loads a vector: from two lines of the cache it would come late, and take a third longer in all.
    line = 64 // source.flat.itemsize
    memory = np.zeros(layout.turned + line, source.flat.dtype)
    turned = memory[-memory.ctypes.data % 64 // source.flat.itemsize:]
    sums = np.empty(layout.sums, source.flat.dtype)
    square = np.empty(lanes * lanes, source.flat.dtype)
    row_targets, row_sources = np.empty(layout.rows, np.int64), np.empty(layout.rows, np.int64)
    origin, extent = np.empty(axes, np.int64), np.empty(axes, np.int64)
    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        _, block = im2col_place_kernel(layout, item, origin, extent)
        channel = min(block * lanes, layout.channels - lanes)
        tile_rows = im2col_rows_kernel(layout, row_targets, row_sources, source, maps, origin, extent)
        depthwise_gather_kernel(turned, row_targets, row_sources, tile_rows, source,
                                origin[0] * source.strides[0] + channel * source.strides[1], maps,
                                origin[1 + last] * layout.stride[last],
                                (extent[1 + last] - 1) * layout.stride[last] + layout.reach[last])

        width, lines = extent[1 + last], 1
        for a in range(last):
            lines *= extent[1 + a]
        y_base = origin[0] * target.strides[0] + channel * target.strides[1]
        for a in range(last + 1):
            y_base += origin[1 + a] * target.strides[3 + a]
        # Short lines that follow each other in the output, those from axis `inner` on, are stored as one.
        run, inner, together = width, last, 1
        if layout.tile[1 + last] < 2 * lanes:
            together = lines
            while inner > 0 and run == target.strides[2 + inner] and target.strides[3 + last] == 1:
                inner -= 1
                run *= extent[1 + inner]
        for first in range(0, lines, together):
            for line in range(first, first + together):
                at, _ = direct_row_kernel(layout, line, last, extent[1:], layout.jumps, layout.jumps)
                filter_lanes(sums, (line - first) * width * lanes, width, bias, block * lanes, turned, at,
                             layout.jumps[last], layout.offsets, weight, block * layout.offsets.size * lanes, rows)
            for part in range(together * width // run):
                _, to = direct_row_kernel(layout, first * width // run + part, inner, extent[1:], layout.jumps,
                                          target.strides[3:])
                depthwise_store_kernel(sums, part * run * lanes, run, block * lanes - channel, target.flat, y_base + to,
                                       target.strides[1], target.strides[3 + last], square)


@parallel_kernel
def depthwise_kernel(layout, source, maps, weight, bias, target, rows, threads):
    """All tiles. Parallel over (blocks of channels, N, tiles); race-free because each output is one tile's alone."""
    for thread in prange(threads):
        depthwise_share_kernel(layout, source, maps, weight, bias, target, rows, threads, np.int64(thread))
