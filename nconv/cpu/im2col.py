"""Convolution as a matrix product of the weight with patches, which are packed panel by panel inside the cache.

[K x T] [T x positions] for each group: T taps (channel, part, window), positions over all images of the batch one
behind the other, so that small maps fill the vectors too. The whole patch matrix never exists: a panel of at most
`TAPS_AT_ONCE` taps by a few hundred positions is packed, multiplied and overwritten.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..boundary import FILL
from ..geometry import ceil_div, product, round_up, share_start
from ..jit import compiled, kernel, parallel_kernel, prange
from ..problem import ConvProblem
from . import simd
from .arrays import bias_vector, flat_maps, gather_row, operand, pack_weight, parts, real_dtype
from .simd import copy, lanes_of, multiply_tile, splat, vstore
from .tiles import TAPS_AT_ONCE, even_tile, register_tile

# ------------------------------------------------------------------------------------------------- The choice

NAME = "im2col"
SUPPORTS = "every problem, every dtype; integers exactly"
REFERENCE = ("Chellapilla, Puri, Simard 2006, High Performance Convolutional Neural Networks for Document Processing; "
             "panels after Van Zee, van de Geijn 2015, BLIS")
_PANEL_BYTES = 256 * 1024      # of one thread's packed patches
_SUMS_BYTES = 256 * 1024       # of one thread's sums


def why_not(problem: ConvProblem) -> str:
    """Every valid problem is supported."""
    return ""


def cost(problem: ConvProblem, machine) -> float:
    """Multiplications at the register tile's rate, the packing of panels and the store of the output."""
    choice = _choose(problem)
    layout = choice.layout
    M = len(choice.rows)
    padded = round_up(layout.out_channels, M) * round_up(layout.positions, choice.vector) * problem.groups
    flops = 2 * padded * layout.taps
    rate = machine.flops(problem.engine) * machine.efficiency["im2col" if M > 1 else "direct_single"]
    itemsize = real_dtype(problem).itemsize
    packed = problem.groups * layout.channel_parts * layout.positions * layout.taps * itemsize
    stored = product(problem.out_shape) * problem.engine.itemsize
    threads = min(problem.threads, choice.items)
    seconds = flops / rate + packed / machine.gather_rate + stored / machine.bandwidth
    return seconds / threads + machine.call + (machine.parallel_start if threads > 1 else 0)


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's panel and sums."""
    layout = _choose(problem).layout
    itemsize = real_dtype(problem).itemsize
    weight = product(problem.weight_shape) * parts(problem) ** 2 * itemsize
    return weight + problem.threads * (layout.panel_size + layout.sums_size) * itemsize


def error(problem: ConvProblem) -> float:
    """The same sums in the same order as the direct method's, tile by tile."""
    return 1.0


class PanelLayout(NamedTuple):
    """Sizes of a panel and all that the kernels know of a problem."""

    batch: int
    groups: int
    channels: int              # input channels of one group times parts
    out_channels: int          # output channels of one group times parts
    parts: int                 # 2 for complex numbers
    taps: int
    positions: int             # output positions of all images
    block: int                 # positions of a panel
    channel_parts: int         # into how many pieces of work the output channels are split
    panel_size: int
    sums_size: int
    out: np.ndarray            # output extents
    stride: np.ndarray
    kernel: np.ndarray
    dilation: np.ndarray
    offsets: np.ndarray        # panel offset of each tap of a panel


class _Choice(NamedTuple):
    """A layout with what only the host needs."""

    layout: PanelLayout
    rows: tuple                # register tile
    columns: tuple
    vector: int
    items: int                 # pieces of work to share


@lru_cache(maxsize=256)
def _choose(problem: ConvProblem) -> _Choice:
    p = problem
    itemsize = real_dtype(p).itemsize
    out_channels = p.K * parts(p)
    taps = p.taps * parts(p)
    positions = p.N * p.positions
    rows, columns = register_tile(out_channels)
    vector = len(columns) * simd.lanes(real_dtype(p))
    blocks = ceil_div(out_channels, len(rows))

    at_once = min(taps, TAPS_AT_ONCE)
    block = round_up(min(positions, max(_PANEL_BYTES // (at_once * itemsize), vector)), vector)
    while block > vector and p.groups * ceil_div(positions, block) * blocks < 2 * p.threads:
        block = round_up(block // 2, vector)
    block = round_up(even_tile(positions, block), vector)

    pieces = p.groups * ceil_div(positions, block)
    block_limit = max(_SUMS_BYTES // (block * len(rows) * itemsize), 1)
    channel_parts = ceil_div(blocks, block_limit)
    if pieces * channel_parts < p.threads:
        channel_parts = min(blocks, ceil_div(p.threads, pieces))
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    layout = PanelLayout(
        batch=p.N, groups=p.groups, channels=p.C * parts(p), out_channels=out_channels, parts=parts(p), taps=taps,
        positions=positions, block=block, channel_parts=channel_parts, panel_size=at_once * block,
        sums_size=ceil_div(blocks, channel_parts) * len(rows) * block, out=vec(p.out), stride=vec(p.stride),
        kernel=vec(p.kernel), dilation=vec(p.dilation), offsets=np.arange(at_once, dtype=np.int64) * block)
    return _Choice(layout, rows, columns, vector, pieces * channel_parts)


def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight in panels of M output channels."""
    return pack_weight(problem, weight, len(_choose(problem).rows))


def run(problem: ConvProblem, prepared: np.ndarray, x: np.ndarray, bias: np.ndarray | None, out: np.ndarray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    choice = _choose(problem)
    im2col_panel_kernel(
        choice.layout, operand(x), flat_maps(problem), prepared, bias_vector(problem, bias), operand(out), choice.rows,
        choice.columns, min(problem.threads, choice.items))


# ------------------------------------------------------------------------------------------------- The kernels

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)


@kernel
def im2col_pack_kernel(layout, panel, source, maps, g, first, count, t0, t1):
    """panel[t - t0, j] = the padded input under tap t of output position first + j, j < count.

    Runs of positions within one output row read one input row; what lies behind `count` keeps its old, finite or not,
    value: those columns are never stored.
    """
    rank = layout.out.size
    last = rank - 1
    width = layout.out[last]
    window = layout.taps // layout.channels
    index = np.empty(rank, np.int64)
    for t in range(t0, t1):
        c = t // window
        rest = t % window
        for b in range(rank):
            a = last - b
            index[a] = rest % layout.kernel[a] * layout.dilation[a]
            rest //= layout.kernel[a]
        part = c % layout.parts
        channel = g * (layout.channels // layout.parts) + c // layout.parts
        x_base = channel * source.strides[1] + part * source.strides[2]
        j = 0
        while j < count:
            q = (first + j) % width
            run = min(width - q, count - j)
            rest = (first + j) // width
            base = x_base
            for b in range(last):
                a = last - 1 - b
                u = maps.start[a] + rest % layout.out[a] * layout.stride[a] + index[a]
                rest //= layout.out[a]
                base = FILL if base == FILL or maps.index[u] == FILL else base + maps.index[u] * source.strides[3 + a]
            if base != FILL:
                base += rest * source.strides[0]
            gather_row(panel, (t - t0) * layout.block + j, run, source.flat, base, source.strides[3 + last], maps,
                       part, q * layout.stride[last] + index[last], layout.stride[last])
            j += run


@kernel
def im2col_store_kernel(layout, sums, at, target, k, first, count):
    """Write `count` positions of one output channel to their places."""
    last = layout.out.size - 1
    width = layout.out[last]
    step = target.strides[3 + last]
    j = 0
    while j < count:
        q = (first + j) % width
        run = min(width - q, count - j)
        rest = (first + j) // width
        to = k // layout.parts * target.strides[1] + k % layout.parts * target.strides[2] + q * step
        for b in range(last):
            a = last - 1 - b
            to += rest % layout.out[a] * target.strides[3 + a]
            rest //= layout.out[a]
        to += rest * target.strides[0]
        if step == 1:
            copy(target.flat, to, sums, at + j, run)
        else:
            for i in range(run):
                target.flat[to + i * step] = sums[at + j + i]
        j += run


@kernel
def im2col_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, thread):
    """One thread's share of the panels: pack, multiply, store.

    Shapes: source (N, groups C parts, *size) and target (N, groups K parts, *out) by their strides; weight
    [groups, K blocks, taps, M].
    """
    M = len(rows)
    vector = lanes_of(source.flat) * len(columns)
    blocks = ceil_div_(layout.out_channels, M)
    panels = ceil_div_(layout.positions, layout.block)
    items = layout.groups * panels * layout.channel_parts
    panel = np.zeros(layout.panel_size, source.flat.dtype)
    sums = np.empty(layout.sums_size, source.flat.dtype)
    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        g = item // (panels * layout.channel_parts)
        first = item // layout.channel_parts % panels * layout.block
        count = min(layout.block, layout.positions - first)
        block0 = share_start_(blocks, layout.channel_parts, item % layout.channel_parts)
        block1 = share_start_(blocks, layout.channel_parts, item % layout.channel_parts + 1)
        for row in range((block1 - block0) * M):
            k = g * layout.out_channels + min(block0 * M + row, layout.out_channels - 1)
            start = splat(bias[k % bias.size])
            for p in range(row * layout.block, (row + 1) * layout.block, lanes_of(sums)):
                vstore(sums, p, start)
        for t0 in range(0, layout.taps, TAPS_AT_ONCE):
            t1 = min(t0 + TAPS_AT_ONCE, layout.taps)
            im2col_pack_kernel(layout, panel, source, maps, g, first, count, t0, t1)
            for block in range(block0, block1):
                w = ((g * blocks + block) * layout.taps + t0) * M
                for p in range(0, count, vector):
                    multiply_tile(sums, (block - block0) * M * layout.block + p, layout.block, panel, p, layout.offsets,
                                  weight, w, (0, 0, t1 - t0, t1 - t0), rows, columns)
        for row in range(min((block1 - block0) * M, layout.out_channels - block0 * M)):
            im2col_store_kernel(layout, sums, row * layout.block, target, g * layout.out_channels + block0 * M + row,
                                first, count)


@parallel_kernel
def im2col_panel_kernel(layout, source, maps, weight, bias, target, rows, columns, threads):
    """All panels. Parallel over (groups, blocks of positions, parts of the output channels).

    Race-free because no two pieces of work share an output element and each thread has its own panel and sums.
    """
    for thread in prange(threads):
        im2col_share_kernel(layout, source, maps, weight, bias, target, rows, columns, threads, thread)
