"""Direct convolution: a sum over taps of shifted vectors, without patches.

Once a tile's input lies padded in a buffer, every stride-1 convolution, of any rank and dilation, is
``out[k, p] = sum over t of weight[t, k] * buffer[p + offset[t]]``: the window's shape is only a table of offsets.
A stride splits the buffer into its phases (positions with the same remainder), over each of which it is 1.
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
from .simd import copy, lanes_of, multiply_tile, splat, vstore
from .tiles import TAPS_AT_ONCE, even_tile, register_tile, shrink, split_channels

# ------------------------------------------------------------------------------------------------- The choice

NAME = "direct"
SUPPORTS = "every problem, every dtype; integers exactly"
REFERENCE = "Zhang, Franchetti, Low 2018, High Performance Zero-Memory Overhead Direct Convolutions (arXiv 1809.10170)"
_BUFFER_BYTES = 384 * 1024     # of one thread's gathered tile: with the weights it should stay in the L2 cache
_TILE_BYTES = 256 * 1024       # of one thread's sums


def why_not(problem: ConvProblem) -> str:
    """Every valid problem is supported."""
    return ""


def cost(problem: ConvProblem, machine) -> float:
    """Multiplications at the register tile's rate, the gathering of tiles and the store of the output."""
    choice = _choose(problem)
    folded = _fold(problem)
    rows = folded.K * parts(problem)
    M = len(choice.rows)
    wasted = round_up(rows, M) / rows * choice.waste
    flops = 2 * folded.macs * parts(problem) ** 2 * wasted
    rate = machine.flops(problem.engine) * machine.efficiency["direct" if M > 1 else "direct_single"]
    gathered = choice.gathered * real_dtype(problem).itemsize
    stored = product(problem.out_shape) * problem.engine.itemsize
    threads = min(problem.threads, choice.items)
    seconds = flops / rate + gathered / machine.gather_rate + stored / machine.bandwidth
    return seconds / threads + machine.call + (machine.parallel_start if threads > 1 else 0)


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's tile of input and sums."""
    choice = _choose(problem)
    layout = choice.layout
    itemsize = real_dtype(problem).itemsize
    weight = product(_fold(problem).weight_shape) * parts(problem) ** 2 * itemsize
    return weight + problem.threads * (layout.buffer_size + len(choice.rows) * layout.row_length) * itemsize


def error(problem: ConvProblem) -> float:
    """The direct method is the measure of the others."""
    return 1.0


def _fold(problem: ConvProblem) -> ConvProblem:
    """The same sums with pairs of neighbouring output rows as two output channels, where there is but one channel.

    A vector of the input then serves two sums, which is what the arithmetic units need: one load an operation would
    halve their rate. Output row 2 q + i is channel i at row q, its window lies i rows lower, so the window of both is
    one row higher; the kernel leaves out the row that a channel does not see. An odd last row is not stored.
    """
    p = problem
    axis = p.rank - 2
    if p.K * p.C * parts(p) > 1 or axis < 0 or p.out[axis] < 2 or p.kernel[axis] < 2 or (
            p.stride[axis], p.dilation[axis], p.upsample[axis]) != (1, 1, 1):
        return p

    def at_axis(values, value):
        return (*values[:axis], value, *values[axis + 1:])

    low, high = p.padding[axis]
    return p.replace(K=2, kernel=at_axis(p.kernel, p.kernel[axis] + 1), stride=at_axis(p.stride, 2),
                     padding=at_axis(p.padding, (low, high + p.out[axis] % 2)))


class TileLayout(NamedTuple):
    """A tile's shape and where everything lies in its buffers; all that the kernels know of a problem."""

    batch: int
    groups: int
    channels: int              # input channels of one group times parts
    out_channels: int          # output channels of one group times parts
    parts: int                 # 2 for complex numbers
    out_parts: int             # 2 for complex numbers and for pairs of rows
    odd: int                   # 1: the last row of a pair lies beyond the output
    plane: int                 # taps of the last two axes for pairs of rows, else all
    lead: int                  # taps at either end of a plane that only one row of a pair sees
    channel_parts: int         # into how many pieces of work the output channels are split
    channel_stride: int        # of the buffer
    buffer_size: int
    buffer_rows: int           # of one channel
    row_length: int            # of the sums of one output channel
    flat: int                  # 1: positions run through the whole tile, 0: row by row
    out: np.ndarray            # output extents
    stride: np.ndarray
    tile: np.ndarray           # output extents of a tile
    grid: np.ndarray           # tiles per axis
    phases: np.ndarray         # phases that the window touches, all axes one behind the other
    phase_start: np.ndarray    # where an axis' phases begin, rank + 1
    phase_stride: np.ndarray   # buffer stride of the phase, per axis
    strides: np.ndarray        # buffer stride of a position within a phase, per axis
    sum_strides: np.ndarray    # stride of an output position in the sums, per axis
    offsets: np.ndarray        # buffer offset of every tap


class _Choice(NamedTuple):
    """A layout with what only the host needs."""

    layout: TileLayout
    rows: tuple                # register tile
    columns: tuple
    items: int                 # pieces of work to share
    waste: float               # computed positions over wanted ones
    gathered: float            # elements gathered by all tiles


@lru_cache(maxsize=256)
def _choose(problem: ConvProblem) -> _Choice:
    p = _fold(problem)
    rank = p.rank
    itemsize = real_dtype(p).itemsize
    channels = p.C * parts(p)
    rows, columns = register_tile(p.K * parts(p))
    vector = len(columns) * simd.lanes(real_dtype(p))
    used = [sorted({r * d % s for r in range(min(k, s))})
            for k, d, s in zip(p.kernel, p.dilation, p.stride, strict=True)]

    def extents(tile):
        """Positions within a phase that a tile reads, per axis."""
        return [ceil_div((n - 1) * s + span(k, d), s)
                for n, s, k, d in zip(tile, p.stride, p.kernel, p.dilation, strict=True)]

    def size(tile):
        return channels * product(map(len, used)) * product(extents(tile))

    blocks = ceil_div(p.K * parts(p), len(rows))

    def small(tile):
        pieces = p.N * p.groups * product(map(ceil_div, p.out, tile))
        fits = size(tile) * itemsize <= _BUFFER_BYTES and product(extents(tile)) * len(rows) * itemsize <= _TILE_BYTES
        shared = pieces * blocks >= p.threads and (pieces >= p.threads or blocks >= 2 * p.threads)
        return product(tile) <= 2 * vector or (fits and shared)

    window = [span(k, d) / s for k, d, s in zip(p.kernel, p.dilation, p.stride, strict=True)]
    tile = [even_tile(n, t) for n, t in zip(p.out, shrink(p.out, window, small), strict=True)]
    extent = extents(tile)

    strides = [product(extent[a + 1:]) for a in range(rank)]
    volume = product(extent)
    counts = [len(u) for u in used]
    phase_strides = [volume * product(counts[a + 1:]) for a in range(rank)]
    channel_stride = volume * product(counts)

    offsets = np.arange(channels, dtype=np.int64) * channel_stride
    for a in range(rank):
        r = np.arange(p.kernel[a]) * p.dilation[a]
        phase = np.searchsorted(used[a], r % p.stride[a])
        offsets = (offsets[:, None] + phase * phase_strides[a] + r // p.stride[a] * strides[a]).ravel()

    flat_length = round_up(sum((n - 1) * s for n, s in zip(tile, strides, strict=True)) + 1, vector)
    padded_row = round_up(tile[-1], vector)
    by_row_length = product(tile[:-1]) * padded_row
    flat = flat_length <= by_row_length
    row_length = flat_length if flat else by_row_length
    sum_strides = strides if flat else [product(tile[a + 1:-1]) * padded_row for a in range(rank - 1)] + [1]

    grid = [ceil_div(n, t) for n, t in zip(p.out, tile, strict=True)]
    pieces = p.N * p.groups * product(grid)
    channel_parts = split_channels(pieces, blocks, p.threads)
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    layout = TileLayout(
        batch=p.N, groups=p.groups, channels=channels, out_channels=p.K * parts(p), parts=parts(p),
        out_parts=parts(p) if p is problem else 2, odd=0 if p is problem else problem.out[-2] % 2,
        plane=offsets.size if p is problem else product(p.kernel[-2:]), lead=0 if p is problem else p.kernel[-1],
        channel_parts=channel_parts, channel_stride=channel_stride,
        buffer_size=channels * channel_stride + vector + max(strides),
        buffer_rows=product(counts[:-1]) * product(extent[:-1]), row_length=row_length, flat=int(flat),
        out=vec(p.out), stride=vec(p.stride), tile=vec(tile), grid=vec(grid),
        phases=vec([u for axis in used for u in axis]), phase_start=vec(np.concatenate([[0], np.cumsum(counts)])),
        phase_stride=vec(phase_strides), strides=vec(strides), sum_strides=vec(sum_strides), offsets=offsets)
    items = pieces * channel_parts
    return _Choice(layout, rows, columns, items, row_length / product(tile), items * size(tile))


def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight in panels of M output channels."""
    folded = _fold(problem)
    if folded is not problem:
        pair = np.zeros((problem.groups, 2, *folded.weight_shape[1:]), weight.dtype)
        pair[:, 0, ..., :-1, :] = pair[:, 1, ..., 1:, :] = weight
        weight = pair
    return pack_weight(folded, weight, len(_choose(problem).rows))


def run(problem: ConvProblem, prepared: np.ndarray, x: np.ndarray, bias: np.ndarray | None, out: np.ndarray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    choice = _choose(problem)
    folded = _fold(problem)
    biases, target = bias_vector(problem, bias), operand(out)
    if folded is not problem:
        row = 3 + problem.rank - 2
        target.strides[2] = target.strides[row]
        target.strides[row] *= 2
        biases = biases if bias is None else np.repeat(biases, 2)
    direct_tile_kernel(choice.layout, operand(x), flat_maps(folded), prepared, biases, target, choice.rows,
                       choice.columns, min(problem.threads, choice.items))


# ------------------------------------------------------------------------------------------------- The kernels

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)


@kernel
def direct_gather_kernel(layout, buffer, targets, sources, source, x_base, maps, origin, extents):
    """Copy a tile's padded input into `buffer`, phase by phase.

    Shapes: buffer [channels, phases of each axis, positions of each axis]; `extents` positions of each axis are wanted,
    the tile's outputs begin at `origin`; `targets` and `sources` say where the rows of a channel lie.
    """
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
    for c in range(layout.channels):
        part = c % layout.parts
        base = x_base + c // layout.parts * source.strides[1] + part * source.strides[2]
        for phase in range(layout.phase_start[last + 1] - layout.phase_start[last]):
            u = origin[last] * layout.stride[last] + layout.phases[layout.phase_start[last] + phase]
            gather_rows(buffer, c * layout.channel_stride + phase * layout.phase_stride[last], targets, rows,
                        extents[last], source.flat, base, sources, source.strides[3 + last], maps, part, u,
                        layout.stride[last])


@kernel
def direct_sums_kernel(layout, sums, buffer, weight, w, extent, rows, columns):
    """Sums of one block of output channels over all positions of a tile: [M x taps] [taps x positions]."""
    last = extent.size - 1
    vector = lanes_of(buffer) * len(columns)
    taps = layout.offsets.size
    segments = 1
    length = extent[last]
    for a in range(last):
        if layout.flat:
            length += (extent[a] - 1) * layout.strides[a]
        else:
            segments *= extent[a]
    at_once = ceil_div_(layout.plane, ceil_div_(layout.plane, TAPS_AT_ONCE))
    chunks = ceil_div_(layout.plane, at_once)
    for chunk in range(chunks * (taps // layout.plane)):
        begin = chunk // chunks * layout.plane
        end = begin + layout.plane
        t0 = begin + chunk % chunks * at_once
        t3 = min(t0 + at_once, end)
        t1 = min(max(t0, begin + layout.lead), t3)
        t2 = max(min(t3, end - layout.lead), t1)
        for segment in range(segments):
            base = 0
            at = 0
            rest = segment
            if not layout.flat:
                for b in range(last):
                    a = last - 1 - b
                    base += rest % extent[a] * layout.strides[a]
                    at += rest % extent[a] * layout.sum_strides[a]
                    rest //= extent[a]
            for p in range(0, length, vector):
                multiply_tile(sums, at + p, layout.row_length, buffer, base + p, layout.offsets, weight, w,
                              (t0, t1, t2, t3), rows, columns)


@kernel
def direct_store_kernel(layout, sums, at, target, base, extent):
    """Write one output channel of a tile to its place, row by row."""
    last = extent.size - 1
    rows = 1
    for a in range(last):
        rows *= extent[a]
    step = target.strides[3 + last]
    for row in range(rows):
        rest = row
        source = at
        to = base
        for b in range(last):
            a = last - 1 - b
            position = rest % extent[a]
            source += position * layout.sum_strides[a]
            to += position * target.strides[3 + a]
            rest //= extent[a]
        if step == 1:
            copy(target.flat, to, sums, source, extent[last])
        else:
            for i in range(extent[last]):
                target.flat[to + i * step] = sums[source + i]


@kernel
def direct_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, thread):
    """One thread's share of the tiles: gather a tile's input, sum its taps, store its output.

    Shapes: source (N, groups C parts, *size) and target (N, groups K parts, *out) by their strides; weight
    [groups, K blocks, taps, M].
    """
    rank = layout.tile.size
    M = len(rows)
    blocks = ceil_div_(layout.out_channels, M)
    items = layout.batch * layout.groups * layout.channel_parts
    for a in range(rank):
        items *= layout.grid[a]
    buffer = np.zeros(layout.buffer_size, source.flat.dtype)
    sums = np.empty(M * layout.row_length, source.flat.dtype)
    origin = np.empty(rank, np.int64)
    extent = np.empty(rank, np.int64)
    wanted = np.empty(rank, np.int64)
    row_targets = np.empty(layout.buffer_rows, np.int64)
    row_sources = np.empty(layout.buffer_rows, np.int64)
    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        channel_part = item % layout.channel_parts
        rest = item // layout.channel_parts
        for b in range(rank):
            a = rank - 1 - b
            origin[a] = rest % layout.grid[a] * layout.tile[a]
            rest //= layout.grid[a]
            extent[a] = min(layout.tile[a], layout.out[a] - origin[a])
            reach = maps.start[a + 1] - maps.start[a] - (layout.out[a] - extent[a]) * layout.stride[a]
            wanted[a] = ceil_div_(reach, layout.stride[a])
        g = rest % layout.groups
        n = rest // layout.groups
        x_base = n * source.strides[0] + g * (layout.channels // layout.parts) * source.strides[1]
        direct_gather_kernel(layout, buffer, row_targets, row_sources, source, x_base, maps, origin, wanted)
        for block in range(share_start_(blocks, layout.channel_parts, channel_part),
                           share_start_(blocks, layout.channel_parts, channel_part + 1)):
            for i in range(M):
                k = g * layout.out_channels + min(block * M + i, layout.out_channels - 1)
                start = splat(bias[k % bias.size])
                for p in range(i * layout.row_length, (i + 1) * layout.row_length, lanes_of(sums)):
                    vstore(sums, p, start)
            direct_sums_kernel(layout, sums, buffer, weight, (g * blocks + block) * layout.offsets.size * M, extent,
                               rows, columns)
            for i in range(min(M, layout.out_channels - block * M)):
                k = g * layout.out_channels + block * M + i
                part = k % layout.out_parts
                base = n * target.strides[0] + k // layout.out_parts * target.strides[1] + part * target.strides[2]
                for a in range(rank):
                    base += origin[a] * target.strides[3 + a]
                beyond = layout.odd and part and origin[rank - 2] + extent[rank - 2] == layout.out[rank - 2]
                if beyond:
                    extent[rank - 2] -= 1
                direct_store_kernel(layout, sums, i * layout.row_length, target, base, extent)
                if beyond:
                    extent[rank - 2] += 1


@parallel_kernel
def direct_tile_kernel(layout, source, maps, weight, bias, target, rows, columns, threads):
    """All tiles. Parallel over (N, groups, tiles, parts of the output channels).

    Race-free because no two pieces of work share an output element and each thread has its own buffers.
    """
    for thread in prange(threads):
        direct_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, thread)
