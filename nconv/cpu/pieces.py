"""How the rows of a window are summed piece by piece while output rows grow: for `filter_rows` and `filter_lanes`.

Output rows that share input rows follow each other at a distance, `row_step`: a segment. Seen from them the rows of a
window fall into classes (one with stride 1), whose rows meet the input's at each step; so many of a class as a
register tile has sums for are a piece. What a window is, its planes, strides and dilations, is then only a table of
the input lines that the pieces read at each step.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from ..boundary import FILL
from ..geometry import ceil_div, product, share_start, span
from ..jit import compiled, inner_kernel
from ..problem import ConvProblem

_MOST = 5                      # rows of a piece: more would leave no registers for vectors of positions

ceil_div_ = compiled(ceil_div)


class Pieces(NamedTuple):
    """The rows of a window, of each of its planes."""

    row_step: int              # distance of output rows that share input rows
    classes: int               # rows of the window from one of a class to the next
    height: int                # rows of a piece; some have one less
    rows: tuple                # (first row of the window, rows) of each piece, the highest first


@lru_cache(maxsize=1024)
def pieces(problem: ConvProblem) -> Pieces:
    """The pieces of a problem's window."""
    R, stride, dilation = problem.kernel[-2], problem.stride[-2], problem.dilation[-2]
    classes = stride // gcd(stride, dilation)
    count = ceil_div(ceil_div(R, classes), _MOST)
    rows = []
    for c in range(min(R, classes)):
        taken = len(range(c, R, classes))
        cuts = [share_start(taken, count, n) for n in range(count + 1)]
        rows += [(c + a * classes, b - a) for a, b in zip(cuts, cuts[1:], strict=False) if a < b]
    rows.sort(key=lambda piece: -piece[1])
    return Pieces(dilation // gcd(stride, dilation), classes, rows[0][1], tuple(rows))


def steps(problem: ConvProblem, tile: tuple[int, ...]) -> int:
    """Steps that a tile takes: one for each output row, and what a piece needs before its first row is done."""
    split = pieces(problem)
    return product(tile[:-2]) * (tile[-2] + (split.height - 1) * min(split.row_step, tile[-2]))


def lines(problem: ConvProblem, tile: tuple[int, ...]) -> int:
    """Lines of the input that all pieces read in a tile's steps."""
    return steps(problem, tile) * len(pieces(problem).rows) * product(problem.kernel[:-2])


class Window(NamedTuple):
    """What the kernels know of a window's pieces and of the tiles that it goes over."""

    row_step: int              # as in `Pieces`
    whole: int                 # pieces of the full height, of all planes of the window: the first ones
    distance: int              # from the weights of a row of a piece to the next one's
    places: np.ndarray         # of each piece's first weight
    outer: np.ndarray          # (pieces, rank - 1): padded positions from an output row's first line to a piece's
    taps: np.ndarray           # to each tap of a line, as the kernel counts
    batch: int
    out: np.ndarray            # output extents
    tile: np.ndarray           # of a tile
    grid: np.ndarray           # tiles per axis
    stride: np.ndarray
    reach: np.ndarray          # spans of the window, per axis
    low: int                   # padding before a line of the input
    rows: int                  # of the padded input under a full tile
    strides: np.ndarray        # elements of the buffer from one padded position to the next, per axis
    steps: np.ndarray          # padded positions from one to the next, 1; this and the next for `im2col_rows_kernel`
    image_stride: int          # of no meaning in tiles of one image


def window_over(problem: ConvProblem, tile: tuple[int, ...], extents: tuple[int, ...], unit: int, taps: Any) -> Window:
    """The window over tiles whose padded inputs have so many positions per axis, in a buffer `unit` elements apart."""
    p, split = problem, pieces(problem)
    R, S = p.kernel[-2:]
    outer, places = [], []
    for row, _ in split.rows:
        for n, at in enumerate(np.ndindex(p.kernel[:-2])):
            outer.append([d * k for d, k in zip(p.dilation, (*at, row), strict=False)])
            places.append((n * R + row) * S)
    vec = lambda values: np.array(list(values), np.int64)                              # noqa: E731
    return Window(
        row_step=split.row_step, whole=sum(rows == split.height for _, rows in split.rows) * product(p.kernel[:-2]),
        distance=split.classes * S, places=vec(places), outer=vec(outer).reshape(len(places), p.rank - 1),
        taps=vec(taps), batch=p.N, out=vec(p.out), tile=vec(tile), grid=vec(map(ceil_div, p.out, tile)),
        stride=vec(p.stride), reach=vec(map(span, p.kernel, p.dilation)), low=p.padding[-1][0],
        rows=product(extents[:-1]), strides=vec(unit * product(extents[a + 1:]) for a in range(p.rank)),
        steps=vec([1] * p.rank), image_stride=0)


@inner_kernel
def piece_steps_kernel(window, height):
    """(segments of a full tile, steps of a segment) for pieces of so many rows."""
    last = window.tile.size - 1
    segments = window.row_step
    for a in range(last - 1):
        segments *= window.tile[a]
    return segments, ceil_div_(window.tile[last - 1], window.row_step) + height - 1


@inner_kernel
def piece_lines_kernel(window, lines, steps, rows, extent):
    """lines[segment, step, piece] = where in the input, or in a buffer, a piece's line lies; returns the segments.

    `rows` say where the tile's padded rows lie. Beyond them nothing is wanted: `FILL`.
    """
    last = window.tile.size - 1
    count = (extent[last - 1] - 1) * window.stride[last - 1] + window.reach[last - 1]
    pieces = window.places.size
    step = window.row_step * window.stride[last - 1]
    segments = min(window.row_step, extent[last - 1])
    planes = 1
    for a in range(last - 1):
        planes *= extent[a]
    for plane in range(planes):
        for e in range(pieces):
            rest, row, apart = plane, 0, count
            for b in range(last - 1):                   # the first row of the plane that the piece reads
                a = last - 2 - b
                row += (rest % extent[a] * window.stride[a] + window.outer[e, a]) * apart
                rest //= extent[a]
                apart *= (extent[a] - 1) * window.stride[a] + window.reach[a]
            for c in range(segments):
                at = (plane * segments + c) * steps * pieces + e
                first = c * window.stride[last - 1] + window.outer[e, last - 1]
                for m in range(steps):
                    place = first + m * step
                    lines[at + m * pieces] = rows[row + place] if place < count else FILL
    return planes * segments


@inner_kernel
def piece_target_kernel(row_step, segment, extent, strides):
    """(element of the output at which a segment begins, from one of its rows to the next, its rows)."""
    last = extent.size - 1
    together = min(row_step, extent[last - 1])
    rest, to = segment // together, segment % together * strides[last - 1]
    for b in range(last - 1):
        a = last - 2 - b
        to += rest % extent[a] * strides[a]
        rest //= extent[a]
    return to, row_step * strides[last - 1], ceil_div_(extent[last - 1] - segment % together, row_step)
