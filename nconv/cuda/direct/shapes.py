"""The shape of a block of `tiles`: outputs of a thread, threads, taps at once, where inputs lie in shared memory."""

from __future__ import annotations

from functools import lru_cache
from itertools import product as pairs
from typing import Any, NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up, span
from ...machine import machine
from ...problem import ConvProblem
from ..device import LANES, SHARED_LIMIT, block_size
from ..division import divisor
from .axes import is_line, three_axes
from .tiles import TileLayout, direct_tile_kernel

# Outputs of a thread, by the bytes of a number: (rows, columns) in a plane, columns in a line. Neighbouring threads lie
# so many columns apart: an odd number, so that no two share a bank of shared memory.
PLANES = {4: ((7, 7), (4, 7)), 8: ((2, 7),), 16: ((2, 3),)}
LINES = {4: (33, 15, 7), 8: (17, 7), 16: (9, 5)}
WHOLE_WINDOW, PART, LINE_PART = 7, 5, 8      # taps of an axis that a thread takes at once: all, or a part, or of a line
_THREADS = block_size(256)
_BANKS = 32                    # of four bytes
_BLOCK = 60_000                # instructions for which a block waits in a stage: large ones are better
_MOST_HEIGHT = 64              # of a tile: wide ones are read faster
_FINALISTS = 16                # shapes of a block whose banks are looked at


def _taps_at_once(taps: int, whole: int, part: int) -> int:
    """So many that few are left over, which are dearer."""
    if taps <= whole:
        return taps
    return min(range(part, 2, -1), key=lambda r: taps // r * (r + 2) + taps % r * 3)


def _conflicts(threads: int, across: int, row: int, column: int, words: int) -> int:
    """Threads of a warp that want the same bank at once, at most."""
    places = [(t // across * row + t % across * column) * words % _BANKS for t in range(min(threads, 32))]
    return max(places.count(bank) for bank in set(places))


def _pitch(least: int, threads: int, across: int, rows: int, columns: int, words: int) -> tuple[int, int]:
    """(conflicts of the banks, pitch) with few conflicts; rows, columns: from a thread's first place to the next's."""
    return min((_conflicts(threads, across, rows * pitch, columns, words), pitch) for pitch in range(least, least + 8))


def _passes(height: int, width: int, threads: int) -> tuple[int, int]:
    """(turns in which all rows are walked, threads along a row for that), neighbours side by side."""
    return min((ceil_div(width, n) * ceil_div(height, threads // n), n)
               for n in (*range(LANES, threads + 1, LANES), min(width, threads)))


class Shape(NamedTuple):
    """A block: outputs of a thread, and threads."""

    J: int
    Q: int
    down: int
    across: int

    @property
    def tile(self) -> tuple[int, int]:
        """Outputs of the block."""
        return self.down * self.J, self.across * self.Q

    @property
    def threads(self) -> int:
        """Whole warps."""
        return round_up(self.down * self.across, LANES)


@lru_cache(maxsize=256)
def tile_layout(problem: ConvProblem, index: str, same: bool) -> tuple[TileLayout, Any, int, int, int]:
    """(layout, kernel, blocks, threads of a block, bytes of shared memory). `same`: x has the engine's type."""
    p = problem
    out, kernel, stride, dilation = (three_axes(p, values) for values in (p.out, p.kernel, p.stride, p.dilation))
    begin = np.cumsum(three_axes(p, p.reach))
    line, itemsize = is_line(p), p.engine.itemsize
    R, S = (_taps_at_once(kernel[a], WHOLE_WINDOW, LINE_PART if line else PART) if stride[a] == dilation[a] else 1
            for a in (1, 2))
    R = 1 if line else R
    planes, slab = p.C * kernel[0], list(kernel[1:])
    slots = min(planes, 2)
    single = planes == 1 and begin[0] == 1

    def extent(tile: tuple[int, int]) -> tuple[int, int]:
        """Inputs of a tile."""
        return ((tile[0] - 1) * stride[1] + span(slab[0], dilation[1]),
                (tile[1] - 1) * stride[2] + span(slab[1], dilation[2]))

    def pitch(shape: Shape) -> tuple[int, int]:
        return _pitch(extent(shape.tile)[1], shape.threads, shape.across, shape.J * stride[1], shape.Q * stride[2],
                      itemsize // 4)

    def out_pitch(shape: Shape) -> int:
        return _pitch(shape.tile[1], shape.threads, shape.across, shape.J, shape.Q, itemsize // 4)[1]

    def bytes_of(shape: Shape, width: int, out_width: int) -> int:
        stage = extent(shape.tile)[0] * width + product(slab)
        return max(slots * stage, shape.tile[0] * out_width) * itemsize

    def turns(shape: Shape, conflicts: int = 1) -> float:
        """Instructions of all blocks. A load waits for others to the same bank as long as four multiplications take."""
        J, Q, threads = shape.J, shape.Q, shape.threads
        loads = product(slab) / (R * S) * ((J + R - 1) * (Q + S - 1) + R * S)
        fill = 8 * _passes(*extent(shape.tile), threads)[0]
        return product(map(ceil_div, out[1:], shape.tile)) * (planes * _BLOCK + threads * (
            300 + planes * (J * Q * (product(slab) + 20) + 1.5 * conflicts * loads + fill)))

    def shapes() -> list[Shape]:
        if line:
            found = [Shape(1, Q, 1, n) for Q in LINES[itemsize] for n in range(LANES, _THREADS + 1, LANES)]
        else:
            found = [Shape(J, Q, down, across) for J, Q in PLANES[itemsize][0 if single else -1:]
                     for across, down in pairs(range(1, LANES + 1), range(1, _THREADS + 1))
                     if LANES <= down * across <= _THREADS and down * J <= _MOST_HEIGHT]
        return [s for s in found if bytes_of(s, extent(s.tile)[1] + 7, s.tile[1] + 7) <= SHARED_LIMIT]

    while not shapes() and max(slab) > 1:
        axis = max((0, 1), key=lambda a: slab[a] * dilation[1 + a])
        slab[axis] = ceil_div(slab[axis], 2)
    # With a large stride one output is all that fits.
    finalists = sorted(shapes(), key=turns)[:_FINALISTS] or [Shape(1, 1, 1, 1)]
    shape = min(finalists, key=lambda s: turns(s, pitch(s)[0]))
    tile, threads, width, out_width = shape.tile, shape.threads, pitch(shape)[1], out_pitch(shape)
    height = extent(tile)[0]
    grid = tuple(map(ceil_div, out[1:], tile))
    fill, write = (threads, threads) if line else (
        _passes(height, extent(tile)[1], threads)[1], _passes(*tile, threads)[1])
    layout = TileLayout(
        p.C, p.groups * p.K, *divisor(p.groups * p.K), *divisor(p.K), out[0], *divisor(out[0]), *out[1:],
        *kernel, *stride, *dilation, *map(int, begin), *(0,) * 18, *tile, grid[0], *divisor(grid[0]), grid[1],
        *divisor(grid[1]), shape.across, *divisor(shape.across), fill, *divisor(fill), threads // fill, write,
        *divisor(write), threads // write, width, out_width, *slab, slots, height * width + product(slab),
        height * width)
    once = single and tuple(slab) == kernel[1:]
    copies = same and machine("cuda").tensor_cores     # since the GPUs that also copy to shared memory by themselves
    return (layout, direct_tile_kernel(p.engine.name, index, shape.J, shape.Q, R, S, stride[2] == 1, copies, once),
            p.N * p.groups * p.K * out[0] * product(grid), threads, bytes_of(shape, width, out_width))
