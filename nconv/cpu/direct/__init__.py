"""Direct convolution: a sum over taps of shifted vectors, without patches.

Once a tile's input lies padded in a buffer, every stride-1 convolution, of any rank and dilation, is
``out[k, p] = sum over t of weight[t, k] * buffer[p + offset[t]]``: the window's shape is only a table of offsets.
A stride splits the buffer into its phases (positions with the same remainder), over each of which it is 1. Sums stay
in registers and go straight to their place. A register tile has output channels as rows (`channels`); where a group has
but one, it has output rows (`filters`), so that a vector of the input serves all the rows whose windows hold it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import add
from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up, span
from ...jit import settled
from ...problem import ConvProblem
from .. import simd
from ..arrays import bias_vector, packed_weight, packing_threads, parts, real_dtype
from ..gather import flat_maps
from ..kept import compared, share_of_new
from ..launch import entries
from ..tiles import (
    TAPS_AT_ONCE,
    line_run,
    line_tile,
    register_tile,
    remainders,
    share_tiles,
    shrink,
    split_channels,
)
from . import filters
from .channels import direct_channel_kernel

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
    kind = _kind(problem)
    M = len(_register_tile(problem)[0]) if kind == "channels" else 1
    call = filters.CALLS if kind == "filters" else 1
    return machine.seconds({"call": call, f"direct.products_{kind}": _products(problem, machine, M)}), 1.0


def _products(problem: ConvProblem, machine, M: int) -> float:
    """Seconds that the multiplications would take at the peak, with those of rows beyond the last output channel."""
    rows = problem.K * parts(problem)
    return 2 * problem.macs * parts(problem) ** 2 * round_up(rows, M) / rows / machine.flops(problem.engine)


def cost(problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates."""
    return machine.seconds(counts(problem, machine))


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """Multiplications, lines of register tiles, what is gathered in rows and bytes, and the weight's packing."""
    if _filters(problem):
        return filters.counts(problem, machine)
    p, choice = problem, _choose(problem)
    rows, width, M = p.K * parts(p), choice.tile[-1], len(choice.rows)
    V, lanes = len(choice.columns), simd.lanes(real_dtype(p))
    threads = min(p.threads, choice.items)
    lines = p.N * p.groups * p.positions / p.out[-1] * ceil_div(p.out[-1], width) / threads
    kind = _kind(p)
    lines *= ceil_div(rows, M) * (1 if kind == "line" else ceil_div(p.taps * parts(p), TAPS_AT_ONCE))
    gathered = choice.gathered / threads
    apart, weights = "" if p.stride[-1] == 1 else "_apart", product(p.weight_shape)
    kept = 0 if M == 1 else weights * real_dtype(p).itemsize * parts(p) ** 2
    return {"call": 1, "start": threads > 1,
            f"direct.products_{kind}": _products(p, machine, M) * choice.waste / threads,
            f"direct.lines_{kind}": lines, f"direct.tiles_{kind}": lines * ceil_div(width, V * lanes),
            f"direct.rows{apart}": gathered / choice.extents[-1],
            f"direct.gathered{apart}": gathered * real_dtype(p).itemsize,
            "direct.weights": (share_of_new(p, kept) if kept else 1) * weights / packing_threads(p, weights),
            "byte": machine.traffic(p) / threads + (compared(p, kept, machine) if kept else 0)}


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's tile of input and sums."""
    if _filters(problem):
        return filters.workspace(problem)
    choice = _choose(problem)
    M = len(choice.rows)
    weight = problem.groups * round_up(problem.K * parts(problem), M) * problem.taps * parts(problem)
    return (weight + problem.threads * (choice.buffer_size + choice.sums)) * real_dtype(problem).itemsize


def error(problem: ConvProblem) -> float:
    """The direct method is the measure of the others."""
    return 1.0


def _filters(problem: ConvProblem) -> bool:
    """Whether the rows of a register tile are output rows."""
    p = problem
    return p.C == p.K == 1 and parts(p) == 1 and p.rank > 1


def _kind(problem: ConvProblem) -> str:
    """What a register tile holds: rows of output, many channels, or one over a line of taps or over single ones."""
    if _filters(problem):
        return "filters"
    if problem.K * parts(problem) > 1:
        return "channels"
    return "line" if line_run(problem, simd.lanes(real_dtype(problem))) else "single"


def _register_tile(problem: ConvProblem) -> tuple[tuple, tuple]:
    """The (rows, columns) of its register tiles."""
    lanes = simd.lanes(real_dtype(problem))
    rows, columns = register_tile(problem.K * parts(problem), problem.out[-1], lanes)
    return rows, line_tile() if _kind(problem) == "line" else columns


class _Choice(NamedTuple):
    """The shape of tiles, as integers: all that the cost depends on."""

    rows: tuple                # register tile
    columns: tuple
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
    rows, columns = _register_tile(p)
    vector = len(columns) * lanes
    phases = tuple(map(remainders, p.kernel, p.stride, p.dilation))
    spans = list(map(span, p.kernel, p.dilation))
    beyond = [ceil_div(w, s) - 1 for w, s in zip(spans, p.stride, strict=True)]     # positions read beside the tile's
    plane = channels * product(phases)
    blocks = ceil_div(out_channels, len(rows))
    images = p.N * p.groups

    def extents(tile):
        return tuple(map(add, tile, beyond))

    def small(tile):
        if product(tile) <= 2 * vector:
            return True
        if plane * product(extents(tile)) * itemsize > _BUFFER_BYTES:
            return False
        pieces = images * product(map(ceil_div, p.out, tile))
        return pieces >= p.threads or (pieces * blocks >= p.threads and blocks >= 2 * p.threads)

    window = [w / s for w, s in zip(spans, p.stride, strict=True)]
    tile = share_tiles(p, p.out, shrink(p.out, window, small), images * blocks)
    extent = extents(tile)
    volume = product(extent)
    pieces = images * product(map(ceil_div, p.out, tile))
    channel_parts = split_channels(pieces, blocks, p.threads)
    items = pieces * channel_parts
    return _Choice(
        rows, columns, tuple(tile), extent, phases, plane * volume + vector, channel_parts, len(rows) * vector, items,
        round_up(tile[-1], vector) / tile[-1], float(items * plane * volume))


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
    out: np.ndarray            # output extents
    stride: np.ndarray
    tile: np.ndarray           # output extents of a tile
    grid: np.ndarray           # tiles per axis
    phases: np.ndarray         # phases that the window touches, all axes one behind the other
    phase_start: np.ndarray    # where an axis' phases begin, rank + 1
    phase_stride: np.ndarray   # buffer stride of the phase, per axis
    strides: np.ndarray        # buffer stride of a position within a phase, per axis
    run: int                   # taps that follow each other, where the register tile is a line of one channel, or 0
    offsets: np.ndarray        # buffer offset of every tap
    smooth: bool               # every stride is 1


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
    for axis in range(rank):
        offsets = np.add.outer(offsets, places(axis)).ravel()
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    return TileLayout(
        batch=p.N, groups=p.groups, channels=channels, out_channels=p.K * parts(p), parts=parts(p),
        channel_parts=choice.channel_parts, channel_stride=channel_stride, buffer_size=choice.buffer_size,
        buffer_rows=product(counts[:-1]) * product(choice.extents[:-1]), out=vec(p.out),
        stride=vec(p.stride), tile=vec(choice.tile), grid=vec(list(map(ceil_div, p.out, choice.tile))),
        phases=vec([u for axis in used for u in axis]), phase_start=vec(np.concatenate([[0], np.cumsum(counts)])),
        phase_stride=vec(phase_strides), strides=vec(strides), run=p.kernel[-1] if _kind(p) == "line" else 0,
        offsets=vec(offsets), smooth=set(p.stride) == {1})


def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight in panels of M output channels; as it is where a group has but one."""
    M = 1 if _filters(problem) else len(_choose(problem).rows)
    if M == 1:
        return weight.flatten() if problem.reused else weight.reshape(-1)
    return packed_weight(problem, weight, M)


@lru_cache(maxsize=256)
def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    if _filters(problem):
        return filters.bind(problem)
    choice, layout, maps, unbiased = _choose(problem), _lay_out(problem), flat_maps(problem), bias_vector(problem, None)
    kernel, threads = settled(direct_channel_kernel), min(problem.threads, choice.items)

    def start(x, prepared, bias, out):
        biases = unbiased if bias is None else bias_vector(problem, bias)
        kernel(layout, x, maps, prepared, biases, out, choice.rows, choice.columns, threads)

    return start


run, shortcut = entries(prepare, bind)
