"""Direct convolution: a sum over taps of shifted vectors, without patches.

Once a tile's input lies padded in a buffer, every stride-1 convolution, of any rank and dilation, is
``out[k, p] = sum over t of weight[t, k] * buffer[p + offset[t]]``: the window's shape is only a table of offsets.
A stride splits the buffer into its phases (positions with the same remainder), over each of which it is 1. Sums stay
in registers and go straight to their place. A register tile has output channels as rows; where a group has but one, and
the window several rows, it has output rows, so that a vector of the input serves all the rows whose windows hold it.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import add
from typing import NamedTuple

import numpy as np

from ..boundary import FILL
from ..geometry import ceil_div, product, round_up, share_start, span
from ..jit import compiled, inner_kernel, owning_kernel, parallel_kernel, prange, stay_a_function
from ..problem import ConvProblem
from . import simd
from .arrays import (
    bias_vector,
    borrow,
    flat_maps,
    gather_rows,
    gather_rows_loosely,
    operand,
    pack_weight,
    parts,
    real_dtype,
)
from .micro import filter_rows, multiply_tile
from .simd import lanes_of
from .tiles import TAPS_AT_ONCE, filter_tile, register_tile, remainders, share_tiles, shrink, split_channels

# ------------------------------------------------------------------------------------------------- The choice

NAME = "direct"
SUPPORTS = "every problem, every dtype; integers exactly"
REFERENCE = "Zhang, Franchetti, Low 2018, High Performance Zero-Memory Overhead Direct Convolutions (arXiv 1809.10170)"
_BUFFER_BYTES = 384 * 1024     # of one thread's gathered tile: with the weights it should stay in the L2 cache


def why_not(problem: ConvProblem) -> str:
    """Every valid problem is supported."""
    return ""


def least(problem: ConvProblem, machine) -> tuple[float, float]:
    """The multiplications alone, without threads; the direct method's error."""
    rows = problem.K * parts(problem)
    M = 1 if _filters(problem) else len(register_tile(rows)[0])
    kind = "filters" if _filters(problem) else "channels" if M > 1 else "single"
    return machine.seconds({"call": 1, f"direct.products_{kind}": _products(problem, machine, M)}), 1.0


def _products(problem: ConvProblem, machine, M: int) -> float:
    """Seconds that the multiplications would take at the peak, with those of rows beyond the last output channel."""
    rows = problem.K * parts(problem)
    return 2 * problem.macs * parts(problem) ** 2 * round_up(rows, M) / rows / machine.flops(problem.engine)


def cost(problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates."""
    return machine.seconds(counts(problem, machine))


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """Multiplications, lines of register tiles, what is gathered in rows and bytes, and the weight's packing."""
    p, choice = problem, _choose(problem)
    rows, width = p.K * parts(p), choice.tile[-1]
    M = 1 if choice.filters else len(choice.rows)
    V, lanes = len(choice.columns), simd.lanes(real_dtype(p))
    threads = min(p.threads, choice.items)
    lines = p.N * p.groups * p.positions / p.out[-1] * ceil_div(p.out[-1], width) / threads
    if choice.filters:
        kind = "filters"
        lines /= len(choice.rows)
        rest = ceil_div(width % (V * lanes), lanes)       # vectors behind the last tile of V
        across = width // (V * lanes) + rest // 2 + rest % 2
    else:
        kind = "channels" if M > 1 else "single"
        lines *= ceil_div(rows, M) * ceil_div(p.taps * parts(p), TAPS_AT_ONCE)
        across = ceil_div(width, V * lanes)
    gathered = choice.gathered * (1 - _inside(p, choice)) / threads
    return {"call": 1, "start": threads > 1,
            f"direct.products_{kind}": _products(p, machine, M) * choice.waste / threads,
            f"direct.lines_{kind}": lines, f"direct.tiles_{kind}": lines * across,
            "direct.turns": lines * across * product(p.kernel[:-1]) if choice.filters else 0,
            "direct.rows": gathered / choice.extents[-1], "direct.gathered": gathered * real_dtype(p).itemsize,
            "direct.weights": product(p.weight_shape),
            "byte": machine.streamed(product(p.out_shape) * p.engine.itemsize) / threads}


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's tile of input and sums."""
    choice = _choose(problem)
    M = 1 if choice.filters else len(choice.rows)
    weight = problem.groups * round_up(problem.K * parts(problem), M) * problem.taps * parts(problem)
    return (weight + problem.threads * (choice.buffer_size + choice.sums)) * real_dtype(problem).itemsize


def error(problem: ConvProblem) -> float:
    """The direct method is the measure of the others."""
    return 1.0


def _filters(problem: ConvProblem) -> bool:
    """Whether the rows of a register tile are output rows."""
    p = problem
    return p.C == p.K == 1 and parts(p) == 1 and p.rank > 1


def _readable(problem: ConvProblem) -> bool:
    """Whether tiles that need no padding can be read where the input lies, if that is in C order."""
    return _filters(problem) and set(problem.stride) == set(problem.upsample) == {1}


def _inside(problem: ConvProblem, choice: _Choice) -> float:
    """The part of the positions that is read where it lies."""
    p = problem
    if not _readable(p):
        return 0.0
    part = max(1 - sum(side > 0 for side in p.padding[-1]) * simd.lanes(real_dtype(p)) / p.out[-1], 0.0)
    for n, tile, padding in zip(p.out[:-1], choice.tile[:-1], p.padding[:-1], strict=True):
        tiles = ceil_div(n, tile)
        part *= max(tiles - sum(side > 0 for side in padding), 0) / tiles
    return part


class _Choice(NamedTuple):
    """The shape of tiles, as integers: all that the cost depends on."""

    rows: tuple                # register tile
    columns: tuple
    filters: bool              # rows of a register tile are output rows
    row_step: int              # distance of the output rows of a register tile
    tile: tuple[int, ...]      # output extents of a tile
    extents: tuple[int, ...]   # positions within a phase that a tile reads, per axis
    phases: tuple[int, ...]    # phases that the window touches, per axis
    buffer_size: int
    channel_parts: int         # into how many pieces of work the output channels are split
    sums: int                  # elements of a thread's register tiles, where they are scattered
    items: int                 # pieces of work to share
    waste: float               # computed positions over wanted ones
    gathered: float            # elements gathered by all tiles


@lru_cache(maxsize=1024)
def _choose(problem: ConvProblem) -> _Choice:
    p = problem
    itemsize = real_dtype(p).itemsize
    lanes = simd.lanes(real_dtype(p))
    channels, out_channels = p.C * parts(p), p.K * parts(p)
    filters = _filters(p)
    rows, columns = filter_tile(p.out[-1] <= lanes) if filters else register_tile(out_channels)
    vector = len(columns) * lanes
    row_step = p.dilation[-2] if filters and p.stride[-2] == 1 else 1
    height = len(rows) * row_step if filters else 1          # output rows of a register tile
    phases = tuple(map(remainders, p.kernel, p.stride, p.dilation))
    spans = list(map(span, p.kernel, p.dilation))
    beyond = [ceil_div(w, s) - 1 for w, s in zip(spans, p.stride, strict=True)]     # positions read beside the tile's
    plane = channels * product(phases)
    blocks = 1 if filters else ceil_div(out_channels, len(rows))
    images = p.N * p.groups
    most = _BUFFER_BYTES // (4 if p.rank == 2 and _readable(p) else 1)       # small: few tiles touch the padding

    def extents(tile):
        return tuple(map(add, tile, beyond))

    def small(tile):
        if product(tile) <= 2 * vector:
            return True
        if plane * product(extents(tile)) * itemsize > most:
            return False
        pieces = images * product(map(ceil_div, p.out, tile))
        return pieces >= p.threads or (pieces * blocks >= p.threads and blocks >= 2 * p.threads)

    window = [w / s for w, s in zip(spans, p.stride, strict=True)]
    tile = share_tiles(p.out, shrink(p.out, window, small), images * blocks, p.threads)
    extent = extents(tile)
    volume = product(extent)
    pieces = images * product(map(ceil_div, p.out, tile))
    channel_parts = split_channels(pieces, blocks, p.threads)
    computed = (round_up(tile[-1], lanes) / tile[-1] * round_up(tile[-2], height) / tile[-2] if filters else
                round_up(tile[-1], vector) / tile[-1])
    items = pieces * channel_parts
    return _Choice(
        rows, columns, filters, row_step, tuple(tile), extent, phases,
        plane * volume + vector + (height + 1) * product(extent[1:]), channel_parts,
        len(rows) * (tile[-1] if filters else vector), items,
        computed, float(items * plane * volume))


class TileLayout(NamedTuple):
    """A tile's shape and where everything lies in its buffer; all that the kernels know of a problem."""

    batch: int
    groups: int
    channels: int              # input channels of one group times parts
    out_channels: int          # output channels of one group times parts
    parts: int                 # 2 for complex numbers
    channel_parts: int         # into how many pieces of work the output channels are split
    channel_stride: int        # of the buffer
    buffer_size: int
    buffer_rows: int           # of one channel
    row_step: int              # distance of the output rows of a register tile
    out: np.ndarray            # output extents
    stride: np.ndarray
    tile: np.ndarray           # output extents of a tile
    grid: np.ndarray           # tiles per axis
    phases: np.ndarray         # phases that the window touches, all axes one behind the other
    phase_start: np.ndarray    # where an axis' phases begin, rank + 1
    phase_stride: np.ndarray   # buffer stride of the phase, per axis
    strides: np.ndarray        # buffer stride of a position within a phase, per axis
    offsets: np.ndarray        # buffer offset of every tap; for rows of output of a row's taps only
    planes: np.ndarray         # sets of window rows as `filter_rows` takes them
    source_planes: np.ndarray  # the same in an input in C order, or nothing where it cannot be read in place
    smooth: bool               # every stride is 1
    low: np.ndarray            # padding before the input, per axis
    size: np.ndarray           # of the input


@lru_cache(maxsize=256)
def _lay_out(problem: ConvProblem) -> TileLayout:
    p = problem
    choice = _choose(p)
    rank, channels, counts = p.rank, p.C * parts(p), choice.phases
    strides = [product(choice.extents[a + 1:]) for a in range(rank)]
    volume = product(choice.extents)
    phase_strides = [volume * product(counts[a + 1:]) for a in range(rank)]
    channel_stride = volume * product(counts)
    used = [sorted({r * d % s for r in range(min(k, s))})
            for k, d, s in zip(p.kernel, p.dilation, p.stride, strict=True)]

    def places(axis):
        """Buffer offset of each tap of an axis."""
        position, phase = np.divmod(np.arange(p.kernel[axis]) * p.dilation[axis], p.stride[axis])
        return np.searchsorted(used[axis], phase) * phase_strides[axis] + position * strides[axis]

    offsets = np.arange(channels, dtype=np.int64) * channel_stride
    for axis in range(rank - 2 if choice.filters else rank):
        offsets = np.add.outer(offsets, places(axis)).ravel()
    planes = source_planes = np.zeros(0, np.int64)
    if choice.filters:
        planes = _planes(problem, offsets, places(rank - 2), choice.row_step)
        offsets = places(rank - 1)
    if _readable(problem):
        taps = [np.arange(p.kernel[a]) * p.dilation[a] * product(p.size[a + 1:]) for a in range(rank - 1)]
        source_planes = _planes(problem, reduce(np.add.outer, taps[:-1], np.int64(0)).ravel(), taps[-1],
                                choice.row_step)

    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    return TileLayout(
        batch=p.N, groups=p.groups, channels=channels, out_channels=p.K * parts(p), parts=parts(p),
        channel_parts=choice.channel_parts, channel_stride=channel_stride, buffer_size=choice.buffer_size,
        buffer_rows=product(counts[:-1]) * product(choice.extents[:-1]), row_step=choice.row_step, out=vec(p.out),
        stride=vec(p.stride), tile=vec(choice.tile), grid=vec(list(map(ceil_div, p.out, choice.tile))),
        phases=vec([u for axis in used for u in axis]), phase_start=vec(np.concatenate([[0], np.cumsum(counts)])),
        phase_stride=vec(phase_strides), strides=vec(strides), offsets=vec(offsets), planes=planes,
        source_planes=source_planes, smooth=set(p.stride) == {1}, low=vec([low for low, _ in p.padding]),
        size=vec(p.size))


def _planes(problem: ConvProblem, outer: np.ndarray, rows: np.ndarray, row_step: int) -> np.ndarray:
    """The window rows in sets whose input rows lie evenly, `row_step` rows of the buffer apart, for `filter_rows`.

    `outer` are the offsets of the other axes' taps, `rows` those of a window's rows.
    """
    R, S = problem.kernel[-2:]
    stride, dilation = problem.stride[-2], problem.dilation[-2]
    step = 1 if row_step > 1 else stride if dilation == 1 else R       # rows of one set; R: each is its own
    return np.array([(at + rows[first], len(range(first, R, step)), (n * R + first) * S, step * S)
                     for n, at in enumerate(outer) for first in range(min(step, R))], np.int64).ravel()


def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight in panels of M output channels; as it is where a group has but one."""
    choice = _choose(problem)
    if choice.filters:
        return weight.flatten() if problem.reused else weight.reshape(-1)
    return pack_weight(problem, weight, len(choice.rows))


def run(problem: ConvProblem, prepared: np.ndarray, x: np.ndarray, bias: np.ndarray | None, out: np.ndarray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    choice = _choose(problem)
    kernel = direct_filter_kernel if choice.filters else direct_channel_kernel
    kernel(_lay_out(problem), operand(x), flat_maps(problem), prepared, bias_vector(problem, bias), operand(out),
           choice.rows, choice.columns, min(problem.threads, choice.items))


# ------------------------------------------------------------------------------------------------- The kernels

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)


@inner_kernel
def direct_rows_kernel(layout, targets, sources, source, maps, origin, extents):
    """Where the rows of a tile's padded input begin in a channel's buffer and in the input (`FILL`: nowhere)."""
    last = extents.size - 1
    rows = 1
    for a in range(last):
        rows *= extents[a] * (layout.phase_start[a + 1] - layout.phase_start[a])
    for row in range(rows):
        rest = row
        targets[row] = 0
        sources[row] = 0
        for b in range(last):
            a = last - 1 - b
            position = rest % extents[a]
            rest //= extents[a]
            width = layout.phase_start[a + 1] - layout.phase_start[a]
            phase = rest % width
            rest //= width
            u = maps.start[a] + (origin[a] + position) * layout.stride[a] + layout.phases[layout.phase_start[a] + phase]
            j = maps.index[u] if u < maps.start[a + 1] else FILL
            targets[row] += phase * layout.phase_stride[a] + position * layout.strides[a]
            sources[row] = FILL if sources[row] == FILL or j == FILL else sources[row] + j * source.strides[3 + a]
    return rows


@inner_kernel
def direct_gather_kernel(layout, buffer, at, targets, sources, rows, source, x_base, maps, origin, extent, again):
    """Copy a tile's padded input into `buffer` from `at` on, phase by phase.

    Shapes: buffer [channels, phases of each axis, positions of each axis]; `extent` positions of the last axis are
    wanted, outputs begin at `origin` there; `targets` and `sources` as `direct_rows_kernel` leaves them; `again`: a
    tile of the same place lies there.
    """
    stay_a_function()                                   # taken into the loop over tiles it slows the sums there
    last = layout.stride.size - 1
    for c in range(layout.channels):
        part = c % layout.parts
        base = x_base + c // layout.parts * source.strides[1] + part * source.strides[2]
        for phase in range(layout.phase_start[last + 1] - layout.phase_start[last]):
            u = origin * layout.stride[last] + layout.phases[layout.phase_start[last] + phase]
            to = at + c * layout.channel_stride + phase * layout.phase_stride[last]
            step, du = source.strides[3 + last], layout.stride[last]
            if layout.smooth:
                gather_rows_loosely(buffer, to, targets, rows, extent, source.flat, base, sources, step, maps, part, u,
                                    again)
            else:
                gather_rows(buffer, to, targets, rows, extent, source.flat, base, sources, step, maps, part, u, du,
                            again)


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
def direct_place_kernel(layout, tile, maps, origin, extent, wanted):
    """Set a tile's first output position, extents and buffer positions."""
    rank = layout.tile.size
    rest = tile
    for b in range(rank):
        a = rank - 1 - b
        origin[a] = rest % layout.grid[a] * layout.tile[a]
        rest //= layout.grid[a]
        extent[a] = min(layout.tile[a], layout.out[a] - origin[a])
        reach = maps.start[a + 1] - maps.start[a] - (layout.out[a] - extent[a]) * layout.stride[a]
        wanted[a] = ceil_div_(reach, layout.stride[a])


@inner_kernel
def direct_scatter_kernel(sums, at, width, flat, to, step):
    """Write a row of a register tile where neighbours do not lie side by side."""
    for j in range(width):
        flat[to + j * step] = sums[at + j]


@inner_kernel
def direct_row_kernel(layout, row, last, extent, strides, steps):
    """(offset in the buffer, offset in the output) of the `row`-th row of positions of a tile's first `last` axes."""
    rest = row
    source = 0
    to = 0
    for b in range(last):
        a = last - 1 - b
        source += rest % extent[a] * strides[a]
        to += rest % extent[a] * steps[a]
        rest //= extent[a]
    return source, to


@owning_kernel
def direct_channel_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, thread):
    """One thread's share of the tiles: gather a tile's input, sum its taps, [M x taps] [taps x positions].

    Shapes: source (N, groups C parts, *size) and target (N, groups K parts, *out) by their strides; weight
    [groups, K blocks, taps, M].
    """
    layout, source, maps, target = borrow(layout), borrow(source), borrow(maps), borrow(target)
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
    # Partial sums wait in the output; where that is scattered, all taps are summed at once.
    chunks = ceil_div_(taps, TAPS_AT_ONCE) if step == 1 else 1
    at_once = ceil_div_(taps, chunks)
    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        image, channel_part = item // layout.channel_parts % images, item % layout.channel_parts
        n, g = image // layout.groups, image % layout.groups
        same = tile == item // (layout.channel_parts * images)
        if not same:
            tile = item // (layout.channel_parts * images)
            direct_place_kernel(layout, tile, maps, origin, extent, wanted)
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
                        multiply_tile(where, place, ldo, height, width, t0 > 0, bias, k, buffer, at + p, layout.offsets,
                                      weight, w, t0, min(t0 + at_once, taps), rows, columns)
                        if step != 1:
                            for i in range(height):
                                channel = (k + i) // layout.parts * target.strides[1]
                                channel += (k + i) % layout.parts * target.strides[2]
                                direct_scatter_kernel(sums, i * vector, width, target.flat,
                                                      to + channel + p * step, step)


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
def direct_channel_kernel(layout, source, maps, weight, bias, target, rows, columns, threads):
    """All tiles. Parallel over (tiles, N, groups, parts of the output channels).

    Race-free because no two pieces of work share an output element and each thread has its own buffers.
    """
    for thread in prange(threads):
        direct_channel_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads,
                                    np.int64(thread))


@parallel_kernel
def direct_filter_kernel(layout, source, maps, weight, bias, target, rows, columns, threads):
    """All tiles. Parallel over (tiles, N, groups); race-free as `direct_channel_kernel`."""
    for thread in prange(threads):
        direct_filter_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads,
                                   np.int64(thread))
