"""Fourier transforms of blocks for convolution, in any number of axes, without an ordered spectrum.

A block is a polynomial in t modulo t^n - root (of several axes, in several variables). A forward pass of radix r splits
each such ring into r smaller ones, t^(n/r) - root^(1/r) for each of the r-th roots; at the end stand numbers, the
values at all roots. So a pass turns its operands by powers of one number for a whole sub-block, then transforms r
of them: no table that runs along with the data, and sub-blocks that have nothing more to do with each other, so each
is finished, multiplied by the kernel's and brought back while it is in the cache. Real signals take the ring
t^n = i, in which x[j] + i x[j + n] is the polynomial of 2 n real samples modulo t^(2n) = -1: half the work of complex
ones without any further step.

Vectors run along the last axis; its last `lanes` points are transposed in registers (`butterflies.leaf_forward`), and
as a product of spectra minds no order, they stay so.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache, lru_cache
from math import lcm
from typing import NamedTuple

import numpy as np

from ...geometry import product
from ...jit import inner_kernel
from ..simd import vstore
from .butterflies import butterfly_forward, butterfly_inverse, leaf_forward, leaf_inverse
from .vectors import lanes, lanes_of, load

_NEAR = 1024                   # points of the sub-blocks that are finished one after the other
_LEAF_BYTES = 1 << 14          # of the table of leaf vectors, more is made of two


class Transform(NamedTuple):
    """The passes of a block, for kernels."""

    points: int
    radices: np.ndarray        # int64, of the forward passes in turn
    sizes: np.ndarray          # int64, points of the sub-blocks that each splits, at last those of a leaf
    periods: np.ndarray        # int64, sub-blocks after which the twiddles repeat
    starts: np.ndarray         # int64, of each pass in `twiddles`
    twiddles: np.ndarray       # [sub-block, j, (cos, sin)] of each pass
    near: int                  # the pass from which on sub-blocks are finished one after the other
    vectors: np.ndarray        # [square, j, (cos, sin), lane] of the leaves, a square being `lanes` leaves
    vector_period: int         # squares after which the vectors repeat
    scalars: np.ndarray        # [group of squares, j, (cos, sin)], each for `vector_period` squares
    scalar_period: int


def is_smooth(n: int) -> bool:
    """Whether n has no prime factor above 5."""
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


@cache
def _smooth_numbers() -> list[int]:
    return sorted(2**a * 3**b * 5**c for a in range(26) for b in range(17) for c in range(12) if
                  2**a * 3**b * 5**c <= 1 << 25)


def smooth(least: int) -> int:
    """The smallest number from `least` on that has no prime factor above 5; beyond 2**25 the next power of two."""
    known = _smooth_numbers()
    at = bisect_left(known, least)
    return known[at] if at < len(known) else 1 << (least - 1).bit_length()


def factors(n: int) -> list[int]:
    """Radices whose product is n: eights first, which store the least; two fours take the place of eight and two."""
    if n < 1:
        raise ValueError(f"length must be positive: {n}")
    radices = []
    for radix in (5, 3):
        while n % radix == 0:
            radices.append(radix)
            n //= radix
    twos = 0
    while n % 2 == 0:
        twos += 1
        n //= 2
    if n != 1:
        raise ValueError(f"length must have no prime factor above 5; {n} remains")
    eights, rest = divmod(twos, 3)
    if rest == 1 and eights:
        return [8] * (eights - 1) + [4, 4] + radices
    return [8] * eights + [2 ** rest] * (rest > 0) + radices


def _split(angles: np.ndarray, radix: int) -> np.ndarray:
    """Angles of the roots into which a pass splits: the radix-th roots of each."""
    return ((angles[:, None] + 2 * np.pi * np.arange(radix)) / radix).ravel()


def _powers(angles: np.ndarray, radix: int) -> np.ndarray:
    """Complex exp(-i j angle / radix) of j = 1 .. radix - 1, [angles, j]."""
    return np.exp(-1j / radix * np.outer(angles, np.arange(1, radix)))


def _numbers(table: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.stack([table.real, table.imag], -1).astype(dtype).ravel()


@lru_cache(maxsize=64)
def transform(shape: tuple[int, ...], angle: float, dtype: np.dtype) -> Transform:
    """The passes of a block; its first axis is the ring t^n = exp(-i angle), the others t^n = 1."""
    L = lanes(dtype)
    size = product(shape)
    radices, sizes, periods, tables = [], [], [], []
    for axis, n in enumerate(shape):
        angles = np.array([0.0 if axis else angle])
        of_axis = factors(n // L if axis == len(shape) - 1 else n)
        for radix in of_axis:
            radices.append(radix)
            sizes.append(size)
            periods.append(len(angles))
            tables.append(_numbers(_powers(angles, radix), dtype))
            angles = _split(angles, radix)
            size //= radix
    # Angles add up: those of many leaves are the sums of a few, from the first passes, and of a few, from the last.
    few = len(angles)
    for radix in of_axis:
        if few * L * 2 * dtype.itemsize <= _LEAF_BYTES or few // radix % L:
            break
        few //= radix
    fine = np.tile(angles[:few] - angles[0], lcm(few, L) // few).reshape(-1, L)
    vectors = np.stack([_powers(leaves, L).T for leaves in fine])
    vectors = np.stack([vectors.real, vectors.imag], 2).astype(dtype).ravel()
    scalars = _powers(angles[::few], L)
    sizes.append(L)
    near = len(radices)
    while near and (sizes[near - 1] <= _NEAR or sizes[near] % (L * L)):
        near -= 1
    ints = lambda values: np.array(values, np.int64)                                   # noqa: E731
    return Transform(
        product(shape), ints(radices), ints(sizes), ints(periods), ints(np.cumsum([0, *map(len, tables)])),
        np.concatenate([*tables, np.zeros(0, dtype)]), near, vectors, len(fine), _numbers(scalars, dtype), len(scalars))


def _pass_of(radix):
    """The loops over sub-blocks of one radix, forward and back."""
    unit = (0,) * radix

    @inner_kernel
    def loops(data, start, stop, step, twiddles, t, first, last, inverse):
        lanes = lanes_of(data)
        for base in range(start, stop, radix * step):
            for at in range(base, base + step, 2 * lanes):
                if inverse:
                    butterfly_inverse(data, at, step, twiddles, t, unit)
                else:
                    butterfly_forward(data, at, step, twiddles, t, unit)
            t += 2 * (radix - 1)
            if t == last:
                t = first

    return loops


_pass_2, _pass_3, _pass_4, _pass_5, _pass_8 = map(_pass_of, (2, 3, 4, 5, 8))


@inner_kernel
def _pass(data, start, begin, end, radix, size, period, twiddles, first, last, inverse):
    """One pass over the points begin <= i < end, whole sub-blocks of `size`, of a block at data[start:].

    Its twiddles lie at first <= t < last, those of `period` sub-blocks.
    """
    t = first + begin // size % period * (radix - 1) * 2
    step = size // radix * 2
    b, e = start + 2 * begin, start + 2 * end
    if radix == 8:
        _pass_8(data, b, e, step, twiddles, t, first, last, inverse)
    elif radix == 4:
        _pass_4(data, b, e, step, twiddles, t, first, last, inverse)
    elif radix == 2:
        _pass_2(data, b, e, step, twiddles, t, first, last, inverse)
    elif radix == 3:
        _pass_3(data, b, e, step, twiddles, t, first, last, inverse)
    else:
        _pass_5(data, b, e, step, twiddles, t, first, last, inverse)


@inner_kernel
def _multiply(data, at, source, x, next_x, spectra, w, next_w, channels):
    """data[at:] = sum over channels of source[x + c next_x:] * spectra[w + c next_w:], a square of points."""
    lanes = lanes_of(data)
    for i in range(0, 2 * lanes * lanes, 2 * lanes):
        a, b = load(source, x + i), load(source, x + i + lanes)
        c, d = load(spectra, w + i), load(spectra, w + i + lanes)
        re, im = a * c - b * d, a * d + b * c
        for channel in range(1, channels):
            p, q = x + channel * next_x + i, w + channel * next_w + i
            a, b = load(source, p), load(source, p + lanes)
            c, d = load(spectra, q), load(spectra, q + lanes)
            re, im = re + (a * c - b * d), im + (a * d + b * c)
        vstore(data, at + i, re)
        vstore(data, at + i + lanes, im)


@inner_kernel
def _leaves(data, start, first, last, vectors, vector_period, scalars, scalar_period, source, x, next_x, spectra, w,
            next_w, channels, forward, inverse):
    """The squares first <= c < last of a block; see `transform_block`."""
    lanes = lanes_of(data)
    leaf = 2 * (lanes - 1)
    v = first % vector_period
    s = first // vector_period % scalar_period
    for at in range(2 * first * lanes * lanes, 2 * last * lanes * lanes, 2 * lanes * lanes):
        if forward:
            leaf_forward(data, start + at, vectors, v * leaf * lanes, scalars, s * leaf)
        if inverse:
            _multiply(data, start + at, source, x + at, next_x, spectra, w + at, next_w, channels)
            leaf_inverse(data, start + at, vectors, v * leaf * lanes, scalars, s * leaf)
        v += 1
        if v == vector_period:
            v = 0
            s += 1
            if s == scalar_period:
                s = 0


@inner_kernel
def transform_block(data, start, source, x, next_x, spectra, w, next_w, channels, plan, forward, inverse):
    """Forward passes on data[start:], products with spectra, inverse passes, each where it is asked for.

    Products: of the transformed blocks source[x + c next_x:] with spectra[w + c next_w:], summed over c < channels; the
    block itself is its own source where both ways are asked for. The inverse lacks the factor 1 / points.
    """
    points, near = plan.points, plan.near
    radices, sizes, periods, starts, twiddles = plan.radices, plan.sizes, plan.periods, plan.starts, plan.twiddles
    square = lanes_of(data) * lanes_of(data)
    size = sizes[near] if near > 0 else points
    depth = radices.size
    for begin in range(0, points, size):
        end = begin + size
        for d in range(depth if forward else 0):
            if d >= near:
                _pass(data, start, begin, end, radices[d], sizes[d], periods[d], twiddles, starts[d], starts[d + 1],
                      False)
            elif begin % sizes[d] == 0:
                _pass(data, start, begin, begin + sizes[d], radices[d], sizes[d], periods[d], twiddles, starts[d],
                      starts[d + 1], False)
        _leaves(data, start, begin // square, (end + square - 1) // square, plan.vectors, plan.vector_period,
                plan.scalars, plan.scalar_period, source, x, next_x, spectra, w, next_w, channels, forward, inverse)
        for i in range(depth if inverse else 0):
            d = depth - 1 - i
            if d >= near:
                _pass(data, start, begin, end, radices[d], sizes[d], periods[d], twiddles, starts[d], starts[d + 1],
                      True)
            elif end % sizes[d] == 0:
                _pass(data, start, end - sizes[d], end, radices[d], sizes[d], periods[d], twiddles, starts[d],
                      starts[d + 1], True)
