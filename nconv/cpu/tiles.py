"""The register tile shared by the direct and im2col algorithms, and the sharing of work among threads."""

from __future__ import annotations

from functools import cache, lru_cache
from math import gcd

from ..geometry import ceil_div, product, round_up
from ..machine import vector_registers
from ..problem import ConvProblem

TAPS_AT_ONCE = 512
"""Taps summed in registers before the sums return to memory: bounds the weight panel in cache."""

# In multiplications; set by layers that were measured with and without the cut.
_SHARED_LINE = 1500            # what two threads lose by writing into one line of the cache
_MOVE = 16                     # an element's way to a kernel, or from it


@lru_cache(maxsize=1024)
def register_tile(rows: int, width: int = 1 << 20, lanes: int = 1) -> tuple[tuple, tuple]:
    """(rows, columns) as tuples whose lengths are M output channels and V vectors of positions, for `multiply_tile`.

    The shape that takes the least time for so many channels and positions side by side, with what it wastes at the ends
    of both. M V sums, V vectors and one broadcast must fit the registers.
    """
    most = {8: 2, 6: 4, 5: 5, 4: 6, 3: 8, 2: 12, 1: 14} if vector_registers() == 32 else {5: 2, 3: 4, 2: 6, 1: 10}
    if rows == 1 and vector_registers() == 16:
        most[6] = 1

    def shape(V):
        M = ceil_div(rows, ceil_div(rows, most[V]))             # as even as the channels can be cut
        return (0,) * M, (0,) * V

    def time(V):
        M = len(shape(V)[0])
        # Two units multiply, two load; a sum waits four cycles for the last one. One more for the way to the next tap.
        step = max(M * V / 2, (M + V + 1) / 2, 4) + 1
        return step * ceil_div(rows, M) * ceil_div(width, V * lanes)

    return shape(min(most, key=lambda V: (time(V), -V)))


@cache
def line_tile() -> tuple:
    """A tuple of V elements: the vectors of positions of one output channel, for `filter_line`.

    Of its sums each grows by four products that wait for one another: fewer sums would leave the units idle.
    """
    return (0,) * (16 if vector_registers() == 32 else 10)


def line_run(problem: ConvProblem, lanes: int) -> int:
    """Taps that follow each other where they are enough for `filter_line` to be the faster, else 0."""
    run = problem.kernel[-1]
    return run if problem.stride[-1] == problem.dilation[-1] == 1 and run >= 2 * lanes else 0


@cache
def filter_tile(height: int) -> tuple[tuple, tuple]:
    """(rows, columns) as tuples whose lengths are a piece's rows and up to V vectors of positions, for `filter_rows`.

    The sums, V vectors of the input or one weight for each row, and a few more must fit the registers.
    """
    most = {1: 8, 2: 8, 3: 6, 4: 5, 5: 4} if vector_registers() == 32 else {1: 6, 2: 4, 3: 3, 4: 2, 5: 2}
    return (0,) * height, (0,) * most[height]


@lru_cache(maxsize=1024)
def channel_tile(channels: int, positions: int, lanes: int) -> tuple[tuple, tuple]:
    """(rows, columns) as tuples whose lengths are M positions and V vectors of channels, for `multiply_patches`.

    The shape that takes the least time with what it wastes at the ends of channels and positions. A single vector
    loads an address and a number for each product, which holds back two units of 32 bytes, though not one of 64. M
    addresses must fit the general registers.
    """
    many = vector_registers() == 32
    shapes = {4: 6, 3: 8, 2: 10, 1: 12} if many else {3: 4, 2: 6, 1: 10}
    waits = {1: 1.05 if many else 1.5}

    def time(V):
        return waits.get(V, 1) * round_up(channels, V * lanes) * round_up(positions, shapes[V])

    V = min(shapes, key=lambda V: (time(V), -V))
    return (0,) * shapes[V], (0,) * V


def remainders(taps: int, stride: int, dilation: int) -> int:
    """How many remainders modulo the stride the taps of an axis have: the phases of the input that they touch."""
    return min(taps, stride // gcd(stride, dilation))


def split_channels(items: int, blocks: int, threads: int) -> int:
    """Into how many parts the blocks of output channels are split so that every thread has work."""
    return 1 if items >= threads else min(blocks, ceil_div(threads, max(items, 1)))


def share_tiles(problem: ConvProblem, extents: tuple[int, ...], tile: list[int], blocks: int) -> list[int]:
    """Even tiles, no larger than `tile`, so many that the threads get equal shares where they get but a few.

    `extents` are those of the output, maybe with images in front, `blocks` the pieces of work for each tile. An axis is
    cut only where that saves more than the lines of the cache cost that a cut leaves to two threads.
    """
    p, tile = problem, list(map(even_tile, extents, tile))
    counts = list(map(ceil_div, extents, tile))
    pieces = blocks * product(counts)
    if pieces % p.threads == 0 or product(counts) > 8 * p.threads:
        return tile
    work = p.macs + _MOVE * (product(p.x_shape) + product(p.out_shape))
    for axis, (extent, count) in enumerate(zip(extents, counts, strict=True)):
        cut = ceil_div(extent, round_up(count, p.threads))
        cuts = ceil_div(extent, cut)
        saved = (round_up(pieces, p.threads) / pieces - cut * cuts / extent) * work / p.threads
        before = axis - len(extents) + p.rank               # axes of the output; images have none of these lines
        lines = (cuts - 1) * p.N * p.groups * p.K * product(p.out[:before]) if before >= 0 else 0
        if cuts % p.threads == 0 and saved > lines * _SHARED_LINE:
            return [*tile[:axis], cut, *tile[axis + 1:]]
    return tile


def even_tile(extent: int, tile: int) -> int:
    """The smallest tile with which `extent` needs no more tiles than with `tile`."""
    return ceil_div(extent, ceil_div(extent, tile))


def shrink(tile: list[int], window: tuple[int, ...], stop) -> list[int]:
    """Halve a tile's axes, the one that is longest beside its window first, until `stop(tile)`.

    The last axis is the one that memory runs along: it counts a sixteenth.
    """
    tile = list(tile)
    while product(tile) > 1 and not stop(tile):
        weight = [n / w if n > 1 else 0 for n, w in zip(tile, window, strict=True)]
        weight[-1] /= 16
        axis = max(range(len(tile)), key=weight.__getitem__)
        tile[axis] = ceil_div(tile[axis], 2)
    return tile
