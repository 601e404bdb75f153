"""Passes of a transform of mixed radix over lines in shared memory, in place: see `registers` for what a thread does.

Forward by decimation in frequency, back by decimation in time with the passes reversed: frequencies stay in the order
in which the first leaves them, which products of spectra do not mind.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import int32

from ...geometry import ceil_div, product
from ..device import SIMULATED, block_function, device_cache, upload
from ..ptx import quotient
from .registers import pull, push, transform, turn

_FIRST_TWO = ((8, 8), (10, 8), (12, 8), (12, 10), (16, 8), (12, 12), (16, 10), (16, 12), (16, 16))
RADICES: dict[int, tuple[int, int, int]] = {product(r): r for r in (
    ((2, 2, 2), (2, 2, 3), (4, 2, 3), (2, 4, 4)) if SIMULATED else
    tuple((*two, last) for last in (4, 8, 3, 5, 7, 9) for two in _FIRST_TWO))}
"""Lengths of a line with the radices of its passes. An odd last radix keeps a warp's lanes in different banks."""


class Pass(NamedTuple):
    """One pass over a line."""

    radix: int
    apart: int                 # from one point of a butterfly to the next
    table: int                 # where its twiddles begin


@cache
def passes_of(length: int) -> list[Pass]:
    """The passes forward."""
    result, whole, start = [], length, 0
    for radix in RADICES[length]:
        result.append(Pass(radix, whole // radix, start))
        whole //= radix
        start += (radix - 1) * whole
    return result


@device_cache(64)
def twiddles_of(length: int, dtype: np.dtype) -> Any:
    """cos and sin side by side for each pass but the last: exp(-2 pi i q j / (radix apart)), rows q >= 1, columns j."""
    rows = [np.outer(np.arange(1, p.radix), np.arange(p.apart)).ravel() / (p.radix * p.apart)
            for p in passes_of(length)[:-1]]
    angle = -2 * np.pi * np.concatenate(rows)
    return upload(np.stack([np.cos(angle), np.sin(angle)], -1).astype(dtype).ravel())


@block_function
def divide(i, by):
    """(quotient, remainder) of numbers that are not negative, in 32 bits."""
    whole = quotient(int32(i), int32(by))
    return whole, int32(i - whole * by)


class Walk(NamedTuple):
    """How the threads of a block walk over its lines in one pass."""

    place: Any                 # function of a butterfly: (line, place in it, number of its twiddles, in shared memory)
    step: int                  # from one of its points to the next in shared memory
    butterflies: int
    rounds: int                # butterflies of a thread


class Line(NamedTuple):
    """The building blocks for lines of one length: `count` of them side by side, or one behind the other."""

    walks: tuple[Walk, ...]    # of each pass
    size: int                  # of shared memory, complex numbers


@cache
def line_of(length: int, count: int, beside: bool, threads: int) -> Line:
    """See `Line`. `beside`: lines are columns of a tile, else rows."""
    passes = passes_of(length)
    last = passes[-1].radix
    padded = last if last % 2 == 0 else 0              # lanes would meet in a bank: one place free after each butterfly
    pitch = length + (length // last if padded else 0)

    def spot(place):
        return place + place // padded if padded else place

    def place_of(p):
        radix, apart, _ = p
        each = length // radix

        if beside:
            @block_function
            def place(i):
                rest, line = divide(i, count)
                block, j = divide(rest, apart)
                first = int32(block * (radix * apart) + j)
                shared = first + divide(first, padded)[0] if padded else first
                return line, first, j, int32(shared * count + line)
        else:
            @block_function
            def place(i):
                line, rest = divide(i, each)
                block, j = divide(rest, apart)
                first = int32(block * (radix * apart) + j)
                shared = first + divide(first, padded)[0] if padded else first
                return line, first, j, int32(shared + line * pitch)
        return place

    def walk(p):
        butterflies = count * length // p.radix
        return Walk(place_of(p), spot(p.apart) * (count if beside else 1), butterflies, ceil_div(butterflies, threads))

    return Line(tuple(map(walk, passes)), pitch * count)


@cache
def middle(length: int, count: int, beside: bool, threads: int, back: bool):
    """The second pass, in shared memory: all threads, begins and ends without a barrier."""
    p = passes_of(length)[1]
    place, step, butterflies, rounds = line_of(length, count, beside, threads).walks[1]
    pull_, push_, turn_, transform_ = pull(p.radix), push(p.radix), turn(p.radix, back), transform(p.radix, back)
    table, apart = p.table, p.apart

    if back:
        @block_function
        def run(shared, turns, thread):
            for k in range(rounds):
                i = int32(thread + k * threads)
                if i < butterflies:
                    _, _, j, at = place(i)
                    values = transform_(turn_(pull_(shared, at, step), turns, table + j, apart))
                    push_(shared, at, step, values)
    else:
        @block_function
        def run(shared, turns, thread):
            for k in range(rounds):
                i = int32(thread + k * threads)
                if i < butterflies:
                    _, _, j, at = place(i)
                    values = turn_(transform_(pull_(shared, at, step)), turns, table + j, apart)
                    push_(shared, at, step, values)
    return run
