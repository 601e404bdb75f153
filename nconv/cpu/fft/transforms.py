"""Fourier transforms of blocks for convolution, in any number of axes, without an ordered spectrum.

A block is a polynomial in t modulo t^n - root (of several axes, in several variables). A forward pass of radix r splits
each such ring into r smaller ones, t^(n/r) - root^(1/r) for each of the r-th roots; at the end stand numbers, the
values at all roots. So a pass turns its operands by powers of one number for a whole sub-block, then transforms r
of them: no table that runs along with the data, and sub-blocks that have nothing more to do with each other, so each
is finished, multiplied by the kernel's and brought back while it is in the cache. Real signals take the ring
t^n = i, in which x[j] + i x[j + n] is the polynomial of 2 n real samples modulo t^(2n) = -1: half the work of complex
ones without any further step.

Vectors run along the last axis. Its last rings, as long as a vector, are split and transposed in registers, a few at a
time (`butterflies.leaf_forward`), and as a product of spectra minds no order, they stay so.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cache, lru_cache
from math import lcm
from typing import NamedTuple

import numpy as np

from ...geometry import product
from ...jit import compiled, inner_kernel
from ...machine import vector_registers
from ..simd import vstore
from .butterflies import butterfly_forward, butterfly_inverse, leaf_forward, leaf_inverse, leaf_product
from .vectors import lanes, lanes_of, leaf_rows, load

leaf_rows_ = compiled(leaf_rows)
_NEAR = 2048                   # points of the sub-blocks that are finished one after the other
_LEVELS = {2: 1.7, 3: 2.2, 4: 2.0, 5: 2.8, 8: 3.0}       # that a pass takes, in those of fours; see `levels`
_LONGER = 1.12                 # how much longer than needed a block may be for better radices
_LEAF_BYTES = 1 << 12          # of the table of leaf vectors, more is made of two


class Transform(NamedTuple):
    """The passes of a block, for kernels."""

    points: int
    radices: np.ndarray        # int64, of the forward passes in turn
    sizes: np.ndarray          # int64, points of the sub-blocks that each splits, at last those of a leaf
    starts: np.ndarray         # int64, of each pass in `twiddles`, which repeat from there to the next
    twiddles: np.ndarray       # [sub-block, j, (cos, sin)] of each pass
    near: int                  # the pass from which on sub-blocks are finished one after the other
    counts: np.ndarray         # int64, into how many each of these was split before a pass
    vectors: np.ndarray        # [leaf, twiddle, (cos, sin), lane]; a leaf is a few rings as long as a vector
    vector_period: int         # leaves after which the vectors repeat
    scalars: np.ndarray        # [group of leaves, twiddle, (cos, sin)], each for `vector_period` leaves
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


@lru_cache(maxsize=4096)
def levels(n: int) -> float:
    """What the passes of n points cost, in binary levels of radix 4: others have more instructions for a level."""
    return sum(_LEVELS[radix] for radix in factors(n))


@lru_cache(maxsize=4096)
def cheapest(least: int, more: float) -> int:
    """The smooth number that makes a block of at least so many units cheapest, `more` levels beside its passes."""
    known = _smooth_numbers()
    at = bisect_left(known, least)
    near = known[at:bisect_right(known, _LONGER * least)]
    return min(near, key=lambda n: n * (levels(n) + more), default=smooth(least))


def factors(n: int) -> list[int]:
    """Radices whose product is n: of two's powers eights, which store the least, where the registers can hold them.

    With 16 registers fours are faster, and only one eight is there, in place of a four and a two; with 32 registers two
    fours take the place of an eight and a two.
    """
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
    eights = twos // 3 - (twos % 3 == 1 and twos > 1) if vector_registers() == 32 else int(twos % 2 and twos > 1)
    fours, rest = divmod(twos - 3 * eights, 2)
    return [8] * eights + [4] * fours + [2] * rest + radices


def _split(angles: np.ndarray, radix: int) -> np.ndarray:
    """Angles of the roots into which a pass splits: the radix-th roots of each."""
    return ((angles[:, None] + 2 * np.pi * np.arange(radix)) / radix).ravel()


def _powers(angles: np.ndarray, radix: int) -> np.ndarray:
    """Complex exp(-i j angle / radix) of j = 1 .. radix - 1, [angles, j]."""
    return np.exp(-1j / radix * np.outer(angles, np.arange(1, radix)))


def _numbers(table: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.stack([table.real, table.imag], -1).astype(dtype).ravel()


def _split_axes(axes: list[list[int]], angle: float, unit: int) -> tuple[list, list, list, np.ndarray]:
    """(radices, points of the sub-blocks that each splits, complex twiddles, angles at the end) of blocks of units.

    Of each axis the radices in turn are given.
    """
    radices, sizes, tables = [], [], []
    size = product(map(product, axes)) * unit
    for axis, of_axis in enumerate(axes):
        angles = np.array([0.0 if axis else angle])
        for radix in of_axis:
            radices.append(radix)
            sizes.append(size)
            tables.append(_powers(angles, radix))
            angles = _split(angles, radix)
            size //= radix
    return radices, sizes, tables, angles


def _in_a_row(tables: list[np.ndarray], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """(all twiddles as real numbers, where those of each pass begin)."""
    numbers = [_numbers(table, dtype) for table in tables]
    return np.concatenate([*numbers, np.zeros(0, dtype)]), np.cumsum([0, *map(len, numbers)], dtype=np.int64)


def _ints(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


class Passes(NamedTuple):
    """The passes of many transforms side by side, one for each lane of a vector; see `Transform`."""

    points: int
    radices: np.ndarray
    sizes: np.ndarray          # int64, numbers of the sub-blocks that each splits: points times lanes
    starts: np.ndarray
    twiddles: np.ndarray


@lru_cache(maxsize=256)
def passes(shape: tuple[int, ...], angle: float, dtype: np.dtype) -> Passes:
    """The passes of a block whose every point is a vector; its rings are those of `transform`.

    There are at least two, the first one along the first axis and the last along the last, of radix 1 if need be.
    """
    axes = list(map(factors, shape))
    for axis in axes[0], axes[-1]:
        if not axis or len(axes) == len(axis) == 1:
            axis.insert(0, 1)
    radices, sizes, tables, _ = _split_axes(axes, angle, lanes(dtype))
    twiddles, starts = _in_a_row(tables, dtype)
    return Passes(product(shape), _ints(radices), _ints(sizes), starts, twiddles)


@lru_cache(maxsize=64)
def transform(shape: tuple[int, ...], angle: float, dtype: np.dtype) -> Transform:
    """The passes of a block; its first axis is the ring t^n = exp(-i angle), the others t^n = 1."""
    L = lanes(dtype)
    rows = leaf_rows(L)
    radices, sizes, tables, angles = _split_axes(list(map(factors, (*shape[:-1], shape[-1] // L))), angle, L)
    # Angles add up: those of many rings are the sums of a few, from the first passes, and of a few, from the last.
    few = len(angles)
    for radix in factors(shape[-1] // L):
        if few * L * 2 * dtype.itemsize <= _LEAF_BYTES or few // radix % rows:
            break
        few //= radix
    fine = np.tile(angles[:few] - angles[0], lcm(few, rows) // few).reshape(-1, rows)
    vectors = np.stack([_leaf_vectors(leaf, L) for leaf in fine])
    vectors = np.stack([vectors.real, vectors.imag], 2).astype(dtype).ravel()
    scalars = _powers(angles[::few], L)[:, :rows]
    sizes.append(L)
    twiddles, starts = _in_a_row(tables, dtype)
    near = len(radices)
    while near and (sizes[near - 1] <= _NEAR or sizes[near] % (rows * L)):
        near -= 1
    return Transform(
        product(shape), _ints(radices), _ints(sizes), starts, twiddles, near, _ints(sizes[near] // _ints(sizes)),
        vectors, len(fine), _numbers(scalars, dtype), len(scalars))


def _leaf_vectors(angles: np.ndarray, lanes: int) -> np.ndarray:
    """The twiddles of one leaf, [twiddle, lane], for the angles of its rings, as `butterflies` takes them.

    Where the rings are halved first, there is one more for each two of them, and the halves of the first rings of every
    two come to lie before those of the second ones.
    """
    if len(angles) == lanes:
        return _powers(angles, lanes).T
    first, second = angles[::2], angles[1::2]
    quarters = np.concatenate([_split(first, 2), _split(second, 2)])
    halves = [np.repeat(pair, lanes // 2) / 2 for pair in zip(first, second, strict=True)]
    return np.concatenate([_powers(quarters, lanes // 2).T, np.exp(-1j * np.array(halves))])


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
def _pass(data, start, begin, end, radix, size, before, twiddles, first, last, inverse):
    """One pass over the points begin <= i < end, whole sub-blocks of `size`, of a block at data[start:].

    Its twiddles lie at first <= t < last and repeat; there are so many sub-blocks `before` the first.
    """
    t = first + before * (radix - 1) * 2
    if t >= last:                                      # of several axes only: a division costs as much as a butterfly
        t = first + (t - first) % (last - first)
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
    """data[at:] = sum over channels of source[x + c next_x:] * spectra[w + c next_w:], the points of a leaf."""
    lanes = lanes_of(data)
    for i in range(0, 2 * lanes * leaf_rows_(lanes), 2 * lanes):
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
    """The leaves first <= c < last of a block; see `transform_block`."""
    lanes = lanes_of(data)
    rows = leaf_rows_(lanes)
    size = 2 * lanes * rows
    next_s = 2 * min(rows, lanes - 1)
    next_v = 2 * lanes * (rows - 1 + (rows // 2 if lanes > rows else 0))
    v = first % vector_period
    s = first // vector_period % scalar_period
    for at in range(first * size, last * size, size):
        if forward:
            leaf_forward(data, start + at, vectors, v * next_v, scalars, s * next_s)
        if inverse and channels == 1:
            leaf_product(data, start + at, source, x + at, spectra, w + at, vectors, v * next_v, scalars, s * next_s)
        elif inverse:
            _multiply(data, start + at, source, x + at, next_x, spectra, w + at, next_w, channels)
            leaf_inverse(data, start + at, vectors, v * next_v, scalars, s * next_s)
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
    radices, sizes, counts, starts, twiddles = plan.radices, plan.sizes, plan.counts, plan.starts, plan.twiddles
    leaf = lanes_of(data) * leaf_rows_(lanes_of(data))
    size = sizes[near] if near > 0 else points
    depth = radices.size
    for block in range(points // size):
        begin, end = block * size, (block + 1) * size
        for d in range(depth if forward else 0):
            if d >= near:
                _pass(data, start, begin, end, radices[d], sizes[d], block * counts[d], twiddles, starts[d],
                      starts[d + 1], False)
            elif begin % sizes[d] == 0:
                _pass(data, start, begin, begin + sizes[d], radices[d], sizes[d], begin // sizes[d], twiddles,
                      starts[d], starts[d + 1], False)
        _leaves(data, start, begin // leaf, (end + leaf - 1) // leaf, plan.vectors, plan.vector_period,
                plan.scalars, plan.scalar_period, source, x, next_x, spectra, w, next_w, channels, forward, inverse)
        for i in range(depth if inverse else 0):
            d = depth - 1 - i
            if d >= near:
                _pass(data, start, begin, end, radices[d], sizes[d], block * counts[d], twiddles, starts[d],
                      starts[d + 1], True)
            elif end % sizes[d] == 0:
                _pass(data, start, end - sizes[d], end, radices[d], sizes[d], end // sizes[d] - 1, twiddles, starts[d],
                      starts[d + 1], True)


@inner_kernel
def pass_lanes(data, passes, d, inverse):
    """Pass d of the transforms of data [points, (re, im), lanes], or back."""
    _pass(data, 0, 0, passes.points * lanes_of(data), passes.radices[d], passes.sizes[d], 0, passes.twiddles,
          passes.starts[d], passes.starts[d + 1], inverse)
