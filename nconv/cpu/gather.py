"""Rows of padded inputs: which element of the input lies under each position, and copies of them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..boundary import FILL
from ..geometry import ceil_div
from ..jit import compiled, inlined, inner_kernel
from ..problem import ConvProblem
from .arrays import real_dtype
from .simd import copy_even_first, copy_first, lanes_of, splat, vload, vload_even, vload_first, vstore, vstore_parted

ceil_div_ = compiled(ceil_div)


class Maps(NamedTuple):
    """The index maps of all axes one behind the other, for kernels."""

    index: np.ndarray         # int64
    start: np.ndarray         # int64, rank + 1: the map of axis a is index[start[a]:start[a + 1]]
    inner: np.ndarray         # int64, (2,): padded positions of the last axis under which the input runs on evenly
    fill: np.ndarray          # the fill value, one number a part
    filled: bool              # whether all other positions of the last axis hold it


def is_filled(problem: ConvProblem) -> bool:
    """Whether the input runs on evenly along the last axis and the fill value holds all other positions."""
    p = problem
    inside = p.padding[-1][0] <= 0 and p.reach[-1] - p.padding[-1][0] <= p.size[-1]
    return p.upsample[-1] == 1 and (p.boundary[-1] == "constant" or inside)


@lru_cache(maxsize=256)
def flat_maps(problem: ConvProblem) -> Maps:
    """`problem.index_maps()` in one vector."""
    maps = problem.index_maps()
    start = np.concatenate([[0], np.cumsum([len(m) for m in maps])]).astype(np.int64)
    low = problem.padding[-1][0]
    first = max(low, 0)
    last = max(min(low + problem.size[-1], len(maps[-1])), first) if problem.upsample[-1] == 1 else first
    fill = np.array([problem.fill], problem.engine).view(real_dtype(problem))
    index = maps[0] if len(maps) == 1 else np.concatenate(maps)
    return Maps(index, start, np.array([first, last], np.int64), fill, is_filled(problem))


@inner_kernel
def inner_range(maps, u, du, count):
    """(first, last): positions u + i du with first <= i < last of the last axis run through the input evenly."""
    first, last = maps.inner[0] - u, maps.inner[1] - u
    if du > 1:                                         # a division costs as much as copying a short row
        first, last = ceil_div_(first, du), ceil_div_(last, du)
    first = min(max(first, 0), count)
    return first, min(max(last, first), count)


@inlined
def _copy_vectors(target, t, source, s, count):
    """target[t:t + count] = source[s:s + count]; rows are too short for a call of memcpy."""
    lanes = lanes_of(target)
    i = 0
    while i + 4 * lanes <= count:
        a, b = vload(source, s + i), vload(source, s + i + lanes)
        c, d = vload(source, s + i + 2 * lanes), vload(source, s + i + 3 * lanes)
        vstore(target, t + i, a)
        vstore(target, t + i + lanes, b)
        vstore(target, t + i + 2 * lanes, c)
        vstore(target, t + i + 3 * lanes, d)
        i += 4 * lanes
    while i + lanes <= count:
        vstore(target, t + i, vload(source, s + i))
        i += lanes
    if i < count and count >= lanes:                   # once more some of what is there: stores of some lanes are slow
        vstore(target, t + count - lanes, vload(source, s + count - lanes))
    elif i < count:
        copy_first(target, t + i, source, s + i, count - i)


@inlined
def _fill_row(buffer, at, count, fill):
    """buffer[at:at + count] = fill."""
    lanes, value, i = lanes_of(buffer), splat(fill), 0
    while i + lanes <= count:
        vstore(buffer, at + i, value)
        i += lanes
    while i < count:
        buffer[at + i] = fill
        i += 1


@inlined
def _copy_evenly(buffer, at, x, source, count, apart):
    """buffer[at + i] = x[source + i apart], i < count."""
    if apart == 1:
        _copy_vectors(buffer, at, x, source, count)
        return
    if apart == 2:
        lanes, i = lanes_of(buffer), 0
        while i + lanes <= count:
            vstore(buffer, at + i, vload_even(x, source + i * 2))
            i += lanes
        if i < count and count >= lanes:
            vstore(buffer, at + count - lanes, vload_even(x, source + (count - lanes) * 2))
        elif i < count:
            copy_even_first(buffer, at, x, source, count)
        return
    for i in range(count):
        buffer[at + i] = x[source + i * apart]


@inlined
def _copy_one_by_one(buffer, at, begin, end, x, base, step, maps, u, du, fill):
    """buffer[at + i] = the padded input at u + i du, begin <= i < end, each where the map says."""
    last = maps.start.size - 2
    place, behind = maps.start[last] + u, maps.start[last + 1]
    for i in range(begin, end):
        j = maps.index[place + i * du] if place + i * du < behind else FILL
        buffer[at + i] = x[base + j * step] if j != FILL else fill


@inlined
def _gather(buffer, at, count, x, base, step, maps, part, u, du, first, last, again):
    """`gather_row` of a row that lies in the input; evenly for first <= i < last."""
    fill = maps.fill[part]
    if not maps.filled:
        _copy_one_by_one(buffer, at, 0, first, x, base, step, maps, u, du, fill)
        _copy_one_by_one(buffer, at, last, count, x, base, step, maps, u, du, fill)
    elif not again:
        _fill_row(buffer, at, first, fill)
        _fill_row(buffer, at + last, count - last, fill)
    if first < last:
        j = maps.index[maps.start[maps.start.size - 2] + u + first * du]
        _copy_evenly(buffer, at + first, x, base + j * step, last - first, step * du)


@inner_kernel
def gather_row(buffer, at, count, x, base, step, maps, part, u, du, inner):
    """buffer[at + i] = the padded input at position u + i du of its last axis, i < count.

    `base` is the address of the row in x, or `FILL` where the whole row lies outside; `inner` is the `inner_range`.
    Positions at or behind the map's end read the fill value.
    """
    if base == FILL:
        _fill_row(buffer, at, count, maps.fill[part])
    else:
        _gather(buffer, at, count, x, base, step, maps, part, u, du, inner[0], inner[1], False)


@inner_kernel
def gather_rows_loosely(buffer, at, targets, rows, count, x, base, sources, step, maps, part, u, again):
    """`gather_rows` of rows that follow each other in the buffer, where one may end with fill values beyond its end.

    There the next row's padding begins, which holds them as well, and what it holds behind them is written later.
    """
    first, last = inner_range(maps, u, 1, count)
    if not maps.filled or step != 1 or first == last:
        gather_rows(buffer, at, targets, rows, count, x, base, sources, step, maps, part, u, 1, again)
        return
    lanes, fill = lanes_of(buffer), maps.fill[part]
    source = base + maps.index[maps.start[maps.start.size - 2] + u + first]
    whole = first + (last - first) // lanes * lanes
    for row in range(rows):
        to = at + targets[row]
        if sources[row] == FILL:
            if not again:
                _fill_row(buffer, to, count, fill)
            continue
        if not again:
            _fill_row(buffer, to, first, fill)
            _fill_row(buffer, to + last, count - last, fill)
        from_ = source + sources[row] - first
        for i in range(first, whole, lanes):
            vstore(buffer, to + i, vload(x, from_ + i))
        if whole < last:
            vstore(buffer, to + whole, vload_first(x, from_ + whole, last - whole, fill))


@inner_kernel
def gather_rows(buffer, at, targets, rows, count, x, base, sources, step, maps, part, u, du, again):
    """`gather_row` for each row: from ``base + sources[row]``, or `FILL`, to ``at + targets[row]``.

    `again`: rows of the same places lie there, so that fill values need not be written once more.
    """
    first, last = inner_range(maps, u, du, count)
    for row in range(rows):
        if sources[row] != FILL:
            _gather(buffer, at + targets[row], count, x, base + sources[row], step, maps, part, u, du, first, last,
                    again)
        elif not again:
            _fill_row(buffer, at + targets[row], count, maps.fill[part])


@inner_kernel
def gather_rows_parted(buffer, at, apart, targets, rows, count, x, base, sources, maps, u, again):
    """`gather_rows` with step 1 of every other position from u on, and `apart` behind of the others; whether it could.

    Each vector of the input is read once for both.
    """
    first0, last0 = inner_range(maps, u, 2, count)
    first1, last1 = inner_range(maps, u + 1, 2, count)
    lanes = lanes_of(buffer)
    pairs = min(last0 - first0, last1 - first1)
    if not maps.filled or pairs < lanes:
        return False
    place = maps.start[maps.start.size - 2] + u
    j0, j1 = maps.index[place + 2 * first0], maps.index[place + 1 + 2 * first1]
    fill = maps.fill[0]
    for row in range(rows):
        to0 = at + targets[row]
        to1 = to0 + apart
        if sources[row] == FILL:
            if not again:
                _fill_row(buffer, to0, count, fill)
                _fill_row(buffer, to1, count, fill)
            continue
        if not again:
            _fill_row(buffer, to0, first0, fill)
            _fill_row(buffer, to0 + last0, count - last0, fill)
            _fill_row(buffer, to1, first1, fill)
            _fill_row(buffer, to1 + last1, count - last1, fill)
        row0, row1 = base + sources[row] + j0, base + sources[row] + j1
        source = min(row0, row1)                        # the neighbours of which one goes to each
        even, odd = (to0 + first0, to1 + first1) if row0 < row1 else (to1 + first1, to0 + first0)
        done = 0
        while done < pairs:
            done = min(done, pairs - lanes)             # the last ones once more, if that makes a whole vector
            vstore_parted(buffer, even + done, odd + done, vload(x, source + 2 * done),
                          vload(x, source + 2 * done + lanes))
            done += lanes
        for i in range(pairs, last0 - first0):
            buffer[to0 + first0 + i] = x[row0 + 2 * i]
        for i in range(pairs, last1 - first1):
            buffer[to1 + first1 + i] = x[row1 + 2 * i]
    return True
