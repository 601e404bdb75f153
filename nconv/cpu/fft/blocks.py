"""Blocks of overlap-save: gather, transform, multiply, transform back, store.

A block holds the samples of one tile of one image: as complex numbers where they are complex; of real ones the first
half of the first axis as real, the second as imaginary parts (`transforms`). In memory each vector of real parts is
followed by its vector of imaginary ones.
"""

from __future__ import annotations

from math import ldexp
from typing import NamedTuple

import numpy as np

from ...boundary import FILL
from ...jit import inner_kernel, owning_kernel, parallel_kernel, prange
from ..arrays import ceil_div_, share_start_
from ..borrowed import borrow
from ..gather import gather_row, inner_range
from ..sharing import LINE, take
from ..simd import (
    exponents_of,
    larger_magnitude,
    largest_lane,
    largest_of,
    smallest_lane,
    smallest_nonzero,
    vstore,
)
from .outliers import add_product, count_loud, take_outliers, threshold_of
from .transforms import transform_block
from .vectors import lanes_of, load, splat, store_pairs

PIECE = 512                    # samples of a row that are gathered at once
_CELLS = 3                     # vectors of `gather_block`'s state before those of the cells


class BlockLayout(NamedTuple):
    """A block's shape and all that the kernels know of a problem."""

    groups: int
    channels: int              # input channels of one group
    out_channels: int          # output channels of one group
    parts: int                 # 2 for complex numbers
    tiles: int                 # of one group: batch times grid
    points: int                # complex numbers of a block
    stored: int                # numbers that it takes in memory, whole leaves
    cell: int                  # samples of a row, at most `PIECE`, ...
    band: int                  # ... of so many rows, whose loudness is one
    shape: np.ndarray          # points of a block, per axis
    samples: np.ndarray        # samples of a block, per axis
    valid: np.ndarray          # output positions of a block at stride 1, per axis
    grid: np.ndarray           # tiles per axis
    dense: np.ndarray          # output extents at stride 1
    stride: np.ndarray
    kernel: np.ndarray
    dilation: np.ndarray


class Spectra(NamedTuple):
    """Spectra of all kernels, [groups K, C, stored], scaled by a power of two."""

    data: np.ndarray
    exponent: np.ndarray


@inner_kernel
def _power(exponent, like):
    """2 ** exponent in the type of `like`, within its range."""
    top = np.int64(exponents_of(like)) - 1
    return like.dtype.type(ldexp(1.0, min(max(exponent, -top), top)))


@inner_kernel
def kernel_spectra_share_kernel(layout, plan, weight, spectra, threads, thread):
    """One thread's share of the kernels: taps to minus their positions, then the forward passes.

    Shapes: weight [groups K, C, window, parts]; spectra [groups K, C, stored].
    """
    rank = layout.shape.size
    lanes = lanes_of(weight)
    window = 1
    for a in range(rank):
        window *= layout.kernel[a]
    count = layout.groups * layout.out_channels * layout.channels
    down = _power(-spectra.exponent[0], weight)
    data = spectra.data
    for i in range(share_start_(count, threads, thread), share_start_(count, threads, thread + 1)):
        start = i * layout.stored
        data[start:start + layout.stored] = 0
        for t in range(window):
            rest = t
            place = 0
            width = 1
            value = weight[(i * window + t) * layout.parts] * down
            for b in range(rank):
                a = rank - 1 - b
                position = rest % layout.kernel[a] * layout.dilation[a]
                rest //= layout.kernel[a]
                place += (layout.samples[a] - position) % layout.samples[a] * width
                width *= layout.samples[a]
                if a == 0 and layout.parts == 1 and position > 0:      # t^n = i: what goes once around turns its sign
                    value = -value
            plane = place // layout.points
            place -= plane * layout.points
            at = start + (2 * (place // lanes) + plane) * lanes + place % lanes
            data[at] = value
            if layout.parts == 2:
                data[at + lanes] = weight[(i * window + t) * 2 + 1] * down
        transform_block(data, start, data, 0, 0, data, 0, 0, 1, plan, True, False)


@parallel_kernel
def kernel_spectra_kernel(layout, plan, weight, spectra, threads):
    """All kernels. Parallel over (groups K, C); race-free because each writes its own spectrum."""
    layout, plan, spectra = borrow(layout), borrow(plan), borrow(spectra)
    for thread in prange(threads):
        kernel_spectra_share_kernel(layout, plan, weight, spectra, threads, np.int64(thread))


@inner_kernel
def _tile_place(layout, tile, origin):
    """Set `origin` to where a tile's outputs begin at stride 1; returns its image."""
    rest = tile
    for b in range(origin.size):
        a = origin.size - 1 - b
        origin[a] = rest % layout.grid[a] * layout.valid[a]
        rest //= layout.grid[a]
    return rest


@inner_kernel
def _take_row(data, at, row, r, count, cell, state, place):
    """Every other vector of data[at:] = row[r:r + count]; the loudness of its cells goes into state[place:]."""
    lanes = lanes_of(data)
    nothing = splat(data.dtype.type(0))
    strange = load(state, 0)
    for begin in range(0, count, cell):
        peaks = load(state, place)
        for i in range(begin, min(begin + cell, count), lanes):
            values = load(row, r + i)
            strange = strange + values * nothing
            peaks = larger_magnitude(peaks, values)
            vstore(data, at + 2 * i, values)
        vstore(state, place, peaks)
        place += lanes
    vstore(state, 0, strange)


@inner_kernel
def _judge_cells(state):
    """Take the cells' peaks into account and start anew; see `gather_block`."""
    lanes = lanes_of(state)
    loudest, quietest = load(state, lanes), load(state, 2 * lanes)
    for place in range(_CELLS * lanes, state.size, lanes):
        peaks = load(state, place)
        loudest = larger_magnitude(loudest, peaks)
        quietest = smallest_nonzero(quietest, peaks)
        vstore(state, place, splat(state.dtype.type(0)))
    vstore(state, lanes, loudest)
    vstore(state, 2 * lanes, quietest)


@inner_kernel
def _is_strange(state):
    """Whether a NaN was gathered, or an infinity."""
    strange = False
    for lane in range(lanes_of(state)):
        strange = strange or np.isnan(state[lane])
    return strange


@inner_kernel
def _start_judging(state):
    """Nothing is strange yet, loud or quiet."""
    lanes = lanes_of(state)
    state[:] = 0
    state[2 * lanes:_CELLS * lanes] = largest_of(state)


@inner_kernel
def gather_block(layout, data, start, source, x_base, part, plane, maps, origin, temporary, state):
    """One plane of a block: the padded samples of a tile, zero behind the last that any output reads.

    state: a vector that turns to NaN where a value is not finite, the largest magnitudes, the least of the cells' peaks
    but zero, then those of the running cells. A cell is `cell` samples of each of `band` rows, in each lane its own.
    """
    rank = layout.shape.size
    last = rank - 1
    columns = layout.shape[last]
    second = plane if layout.parts == 1 else 0                        # the half of the first axis
    begins = origin[last] + (second * columns if rank == 1 else 0)
    step = source.strides[3 + last]
    lanes = lanes_of(data)
    inside = max(min(columns, maps.start[last + 1] - maps.start[last] - begins), 0)
    band = layout.shape[last - 1] if rank > 1 else 1
    cell = layout.cell
    piece = PIECE // cell * cell
    whole = inner_range(maps, begins, 1, inside)
    index, flat, height = maps.index, source.flat, layout.band
    first = maps.start[last] + begins
    above = maps.start[last - 1] + origin[last - 1] + (second * band if rank == 2 else 0) if rank > 1 else 0
    below = maps.start[last]
    row_step = source.strides[2 + last]
    at = start + plane * lanes
    for rows in range(layout.points // (columns * band)):
        rest = rows
        base_of_band = x_base
        outside_band = False
        for b in range(last - 1):
            a = last - 2 - b
            u = maps.start[a] + origin[a] + rest % layout.shape[a] + (second * layout.shape[0] if a == 0 else 0)
            rest //= layout.shape[a]
            if u >= maps.start[a + 1]:
                outside_band = True
            elif base_of_band != FILL:
                j = maps.index[u]
                base_of_band = FILL if j == FILL else base_of_band + j * source.strides[3 + a]
        for row in range(band):
            base = base_of_band
            outside = outside_band
            if rank > 1:
                if above + row >= below:
                    outside = True
                elif base != FILL:
                    j = index[above + row]
                    base = FILL if j == FILL else base + j * row_step
            for i in range(0, columns, piece):
                count = min(piece, columns - i)
                place = (_CELLS + i // cell) * lanes
                end = 0 if outside else min(max(inside - i, 0), count)
                if step == 1 and base != FILL and end == count and whole[0] <= i and i + count <= whole[1]:
                    begin = base + index[first + i]
                    _take_row(data, at + 2 * i, flat, begin, count, cell, state, place)
                    continue
                if end > 0:
                    inner = min(max(whole[0] - i, 0), end), min(max(whole[1] - i, 0), end)
                    gather_row(temporary, 0, end, flat, base, step, maps, part, begins + i, 1, inner)
                temporary[end:count] = 0
                _take_row(data, at + 2 * i, temporary, 0, count, cell, state, place)
            at += 2 * columns
            if row % height == height - 1 or row == band - 1:
                _judge_cells(state)


@inner_kernel
def _scale(data, start, count, factor):
    for i in range(start, start + count, lanes_of(data)):
        vstore(data, i, load(data, i) * splat(data.dtype.type(factor)))


@inner_kernel
def _store_vectors(data, at, count, parts, factor, more, value, flat, to):
    """flat[to + parts i:] = factor * more * data[at + 2 i:] + value by whole vectors, i < count."""
    lanes = lanes_of(data)
    factors, mores, re, im = splat(factor), splat(more), splat(value[0]), splat(value[1])
    for i in range(0, count, lanes):
        x = load(data, at + 2 * i) * factors * mores + re
        if parts == 2:
            store_pairs(flat, to + 2 * i, x, load(data, at + 2 * i + lanes) * factors * mores + im)
        else:
            vstore(flat, to + i, x)


@inner_kernel
def _store_row(data, at, first, count, parts, by, factor, more, value, flat, to, step, temporary):
    """flat[to + i step] = factor * more * element first + i by of the row at data[at:] + value, i < count.

    Both parts of complex numbers are written, with the bias' parts in value[0] and value[1].
    """
    lanes = lanes_of(data)
    done = 0
    if by == 1 and first == 0 and step == parts:
        done = count // lanes * lanes
        _store_vectors(data, at, done, parts, factor, more, value, flat, to)
    for i in range(done, count):
        place = first + i * by
        if i == done or place % lanes < by:                            # the first of its vector that is wanted
            _store_vectors(data, at + 2 * (place // lanes) * lanes, lanes, parts, factor, more, value, temporary, 0)
        for part in range(parts):
            flat[to + i * step + part] = temporary[place % lanes * parts + part]


@inner_kernel
def store_tile(layout, data, start, factor, more, target, base, origin, value, temporary):
    """Write the outputs of one tile, every stride-th: factor * more * block + value."""
    rank = layout.shape.size
    last = rank - 1
    rows = 1
    for a in range(last - 1):
        rows *= min(layout.valid[a], layout.dense[a] - origin[a])
    band = min(layout.valid[last - 1], layout.dense[last - 1] - origin[last - 1]) if rank > 1 else 1
    end = min(layout.valid[last], layout.dense[last] - origin[last])
    by = layout.stride[last]
    step = target.strides[3 + last]
    columns = layout.shape[last]
    parts = layout.parts
    flat = target.flat
    lanes = lanes_of(data)
    second_stride, second_shape = (layout.stride[last - 1], layout.shape[last - 1]) if rank > 1 else (1, 1)
    second_step = target.strides[2 + last]
    for outer in range(rows):
        rest = outer
        to_band = base
        place_band = 0
        width = second_shape
        wanted = True
        plane = 0
        for b in range(last - 1):
            a = last - 2 - b
            extent = min(layout.valid[a], layout.dense[a] - origin[a])
            position = rest % extent
            rest //= extent
            wanted = wanted and (origin[a] + position) % layout.stride[a] == 0
            to_band += (origin[a] + position) // layout.stride[a] * target.strides[3 + a]
            if position >= layout.shape[a]:                            # of the first axis of real samples
                position -= layout.shape[a]
                plane = 1
            place_band += position * width
            width *= layout.shape[a]
        for row in range(band if wanted else 0):
            to = to_band
            half = plane
            place = place_band + row
            if rank > 1:
                if second_stride > 1 and (origin[last - 1] + row) % second_stride != 0:
                    continue
                to += (origin[last - 1] + row) // second_stride * second_step
                if row >= second_shape:
                    place -= second_shape
                    half = 1
            at = start + 2 * place * columns
            for second in range(1 if rank > 1 or parts == 2 else 2):
                begin, stop = second * columns, min(end, (second + 1) * columns)
                first = -(origin[last] + begin) % by
                if begin + first < stop:
                    count = ceil_div_(stop - begin - first, by)
                    _store_row(data, at + (half + second) * lanes, first, count, parts, by, factor, more, value, flat,
                               to + (origin[last] + begin + first) // by * step, step, temporary)


@owning_kernel
def fft_share_kernel(layout, plan, source, maps, spectra, weight, bias, target, shares, thread):
    """One thread's blocks.

    Shapes: source (N, groups C, *size) and target (N, groups K, *out) by their strides; spectra [groups K, C, stored].
    """
    rank = layout.shape.size
    channels = layout.channels
    stored = layout.stored
    window = 1
    for a in range(rank):
        window *= layout.kernel[a]
    alone = channels == 1 and layout.out_channels == 1                  # the block is its own result
    dtype = source.flat.dtype
    held = np.zeros(stored * channels, dtype)
    result = held if alone else np.zeros(stored, dtype)
    temporary = np.empty(PIECE, dtype)
    state = np.zeros(lanes_of(held) * (_CELLS + ceil_div_(layout.shape[rank - 1], layout.cell)), dtype)
    places, values = np.empty((channels, 0), np.int64), np.empty((channels, 0), dtype)
    counts = np.zeros(channels, np.int64)
    origin = np.empty(rank, np.int64)
    value = np.zeros(2, dtype)
    up_weight = _power(spectra.exponent[0], held)
    share = dtype.type(1) / dtype.type(layout.points)

    while True:
        item = take(shares, layout.groups * layout.tiles, thread)
        if item < 0:
            break
        g = item // layout.tiles
        image = _tile_place(layout, item % layout.tiles, origin)
        _start_judging(state)
        for c in range(channels):
            for plane in range(2):
                part = plane if layout.parts == 2 else 0
                x_base = (image * source.strides[0] + (g * channels + c) * source.strides[1]
                          + part * source.strides[2])
                gather_block(layout, held, c * stored, source, x_base, part, plane, maps, origin, temporary, state)
        largest = largest_lane(load(state, lanes_of(held)))
        threshold = threshold_of(held, largest, min(smallest_lane(load(state, 2 * lanes_of(held))), largest))
        counts[:] = 0
        if threshold < largest_of(held) or _is_strange(state):
            loud, strange = count_loud(held, threshold)
            # Where much is loud there is no quiet part to protect, only a slope: infinite values alone are taken.
            if loud - strange > channels * layout.points // 8:
                threshold = largest_of(held)
            if places.shape[1] < loud:
                places, values = np.empty((channels, loud), np.int64), np.empty((channels, loud), dtype)
            for c in range(channels):
                counts[c] = take_outliers(held, c * stored, layout.points, threshold, places[c], values[c])
            largest = min(largest, threshold)
        # A power of two keeps the products of spectra within the type's range.
        exponent = int(np.ceil(np.log2(largest))) if largest > 0 else 0
        up = _power(0, held)
        if abs(exponent) > 32:
            up = _power(exponent, held)
            _scale(held, 0, held.size, _power(-exponent, held))

        if not alone:
            for c in range(channels):
                transform_block(held, c * stored, held, 0, 0, spectra.data, 0, 0, 1, plan, True, False)
        for k in range(layout.out_channels):
            channel = g * layout.out_channels + k
            transform_block(result, 0, held, 0, stored, spectra.data, channel * channels * stored, stored, channels,
                            plan, alone, True)
            base = image * target.strides[0] + channel * target.strides[1]
            for part in range(layout.parts):
                value[part] = bias[(channel * layout.parts + part) % bias.size]
            store_tile(layout, result, 0, share * up, up_weight, target, base, origin, value,
                       temporary)
            for c in range(channels):
                for i in range(counts[c]):
                    add_product(layout, places[c, i], values[c, i], weight, (channel * channels + c) * window, target,
                                base, origin)


@parallel_kernel
def fft_block_kernel(layout, plan, source, maps, spectra, weight, bias, target, threads):
    """All blocks. Parallel over (groups, tiles of all images).

    Race-free because no two tiles share an output, each is taken once, and each thread has its own blocks.
    """
    layout, plan, source = borrow(layout), borrow(plan), borrow(source)
    maps, spectra, target = borrow(maps), borrow(spectra), borrow(target)
    shares = np.zeros(LINE * threads, np.int64)
    for thread in prange(threads):
        fft_share_kernel(layout, plan, source, maps, spectra, weight, bias, target, shares, np.int64(thread))
