"""Transforms of a box of points along all of its axes, by threads that exchange points in shared memory.

Forward by decimation in frequency, one axis after the other, back by decimation in time with the passes reversed:
frequencies stay in the order in which the passes leave them, which products of spectra do not mind. An axis of up to 32
points is one pass, and needs no twiddles.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import int32

from ...geometry import ceil_div, product
from ..device import SIMULATED, block_function, cuda, device_cache, upload
from .passes import divide
from .registers import pull, push, transform, turn

Lengths = tuple[int, int, int]     # powers of two


class Pass(NamedTuple):
    """One pass over all lines along one axis. Distances are in points of the box."""

    axis: int
    radix: int
    apart: int                 # from one point of a butterfly to the next
    inner: int                 # from one point of the axis to the next
    table: int                 # where its twiddles begin; below 0: it needs none


def held(lengths: Lengths, itemsize: int) -> int:
    """Points of a thread: 16, or 32 of a large box of which each axis is one pass, the first one of 32 points."""
    points = product(lengths)
    if SIMULATED:
        return points // 16
    whole = max(lengths) == 32 == next(n for n in lengths if n > 1)
    return 32 if points > 4096 and itemsize == 4 and whole else 16


@cache
def passes_of(lengths: Lengths, most: int) -> list[Pass]:
    """The passes forward, of as many points a butterfly as a thread holds, or half of them, or a quarter."""
    found, table = [], 0
    for axis, length in enumerate(lengths):
        exponent, inner = length.bit_length() - 1, product(lengths[axis + 1:])
        count = ceil_div(exponent, most.bit_length() - 1)
        whole = length
        for i in range(count):
            radix = 1 << exponent // count + (i < exponent % count)
            whole //= radix
            found.append(Pass(axis, radix, whole * inner, inner, table if whole > 1 else -1))
            table += (radix - 1) * whole if whole > 1 else 0
    return found


@device_cache(64)
def twiddles(lengths: Lengths, most: int, dtype: np.dtype) -> Any:
    """cos and sin side by side, pass by pass: exp(-2 pi i q j / (radix apart)), rows q >= 1, columns j."""
    rows = [np.outer(np.arange(1, p.radix), np.arange(p.apart // p.inner)).ravel() / (p.radix * (p.apart // p.inner))
            for p in passes_of(lengths, most) if p.table >= 0]
    angle = -2 * np.pi * np.concatenate([*rows, [0.0]])
    return upload(np.stack([np.cos(angle), np.sin(angle)], -1).astype(dtype).ravel())


def spot(lengths: Lengths, most: int, point: int) -> int:
    """Where a point lies in shared memory: one place is free after each butterfly of the last pass.

    Else the lanes of a warp would meet in one bank there. In other passes a butterfly's points lie whole such
    butterflies apart.
    """
    return point + point // passes_of(lengths, most)[-1].radix


def bytes_of(lengths: Lengths, itemsize: int) -> int:
    """Of shared memory."""
    return 2 * itemsize * spot(lengths, held(lengths, itemsize), product(lengths))


@cache
def butterfly_of(lengths: Lengths, most: int, number: int, k: int) -> Any:
    """Function of a thread: (first point of its butterfly k in a pass, number of its twiddles, in shared memory)."""
    passes = passes_of(lengths, most)
    _, radix, apart, inner, _ = passes[number]
    last, before = passes[-1].radix, k * (product(lengths) // most)

    @block_function
    def butterfly(thread):
        group, low = divide(int32(thread + before), apart)
        first = int32(group * (radix * apart) + low)
        return first, divide(low, inner)[0], int32(first + divide(first, last)[0])

    return butterfly


def in_turn(functions: list) -> Any:
    """The function that calls those of the same arguments one after the other.

    In place of a loop whose index must be known when the kernel compiles, because it says which registers are meant.
    """
    first, rest = functions[0], functions[1:]
    if not rest:
        return first
    others = in_turn(rest)

    @block_function
    def run(*arguments):
        first(*arguments)
        others(*arguments)

    return run


@block_function
def _barrier(values, shared, turns, thread):
    cuda.syncthreads()


@cache
def _pass(lengths: Lengths, most: int, number: int, back: bool, source: bool, target: bool) -> list:
    """The butterflies of a thread in one pass; `source`, `target`: from or into its registers, else shared memory."""
    passes = passes_of(lengths, most)
    _, radix, apart, inner, table = passes[number]
    transform_, turn_, pull_, push_ = transform(radix, back), turn(radix, back), pull(radix), push(radix)
    step, columns, turned = spot(lengths, most, apart), apart // inner, table >= 0

    def of(k):
        butterfly, here = butterfly_of(lengths, most, number, k), k * radix

        @block_function
        def run(values, shared, turns, thread):
            _, j, at = butterfly(thread)
            points = pull_(values, here, 1) if source else pull_(shared, at, step)
            if back and turned:
                points = turn_(points, turns, table + j, columns)
            points = transform_(points)
            if turned and not back:
                points = turn_(points, turns, table + j, columns)
            if target:
                push_(values, here, 1, points)
            else:
                push_(shared, at, step, points)

        return run

    return [of(k) for k in range(most // radix)]


@cache
def transform_box(lengths: Lengths, most: int, back: bool) -> Any:
    """The transform of the box whose points are the threads' `values`, of each those of its butterflies in a pass.

    Forward from those of the first pass to those of the last one; back, but for a factor, from these to those.
    """
    numbers = list(range(len(passes_of(lengths, most))))
    if back:
        numbers.reverse()
    functions = []
    for number in numbers:
        source, target = number == numbers[0], number == numbers[-1]
        functions += _pass(lengths, most, number, back, source, target) + [_barrier] * (not target)
    return in_turn(functions)
