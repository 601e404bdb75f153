"""Blocks of overlap-save: gather, transform, multiply, transform back, store.

A block of `points` samples lies as [rows, columns], rows being all axes but the last (or the rows of the matrix into
which a one-dimensional block is folded). Real problems put two tiles into one block, as real and imaginary part.

Samples that a transform cannot hold beside the others are taken out and their products added one by one: NaN and
infinity, which would fill the whole block, and values so large that their rounding would drown the quiet windows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...boundary import FILL
from ...geometry import ceil_div, share_start
from ...jit import compiled, kernel, parallel_kernel, prange
from ..arrays import gather_row, inner_range
from ..simd import lanes_of, larger_magnitude, largest_lane, splat, vload, vstore
from .transforms import Transform, forward, inverse, transpose

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)


class BlockLayout(NamedTuple):
    """A block's shape and all that the kernels know of a problem."""

    groups: int
    channels: int              # input channels of one group
    out_channels: int          # output channels of one group
    parts: int                 # 2 for complex numbers
    tiles: int                 # of one group: batch times grid
    riders: int                # tiles in one block: 2 for real numbers
    points: int
    rows: int
    columns: int
    shape: np.ndarray          # samples of a block, per axis
    valid: np.ndarray          # output positions of a block at stride 1, per axis
    grid: np.ndarray           # tiles per axis
    dense: np.ndarray          # output extents at stride 1
    stride: np.ndarray
    kernel: np.ndarray
    dilation: np.ndarray
    cell: np.ndarray           # extents of the cells in which loudness is compared


class Plans(NamedTuple):
    """Transforms of the axes: those of the rows one behind the other, that of the columns, twiddles between."""

    count: int                 # axes that the rows are made of
    lengths: np.ndarray
    radix_start: np.ndarray
    radices: np.ndarray
    table_start: np.ndarray
    row_cos: np.ndarray
    row_sin: np.ndarray
    n: int
    column_radices: np.ndarray
    cos: np.ndarray
    sin: np.ndarray
    constants: np.ndarray
    twiddle_cos: np.ndarray    # one element: none
    twiddle_sin: np.ndarray


class Spectra(NamedTuple):
    """Spectra of all kernels, [groups K, C, points], scaled by a power of two."""

    re: np.ndarray
    im: np.ndarray
    exponent: np.ndarray


def plans(rows: list[Transform], columns: Transform, cos: np.ndarray, sin: np.ndarray) -> Plans:
    """Put the transforms of a block's axes into one tuple of flat arrays."""
    starts = lambda sizes: np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)    # noqa: E731
    return Plans(
        len(rows), np.array([t.n for t in rows], np.int64), starts([t.radices.size for t in rows]),
        np.concatenate([t.radices for t in rows]), starts([t.n for t in rows]), np.concatenate([t.cos for t in rows]),
        np.concatenate([t.sin for t in rows]), columns.n, columns.radices, columns.cos, columns.sin, columns.constants,
        cos, sin)


@kernel
def _row_plan(plans, a):
    r0, r1 = plans.radix_start[a], plans.radix_start[a + 1]
    t0, t1 = plans.table_start[a], plans.table_start[a + 1]
    return Transform(plans.lengths[a], plans.radices[r0:r1], plans.row_cos[t0:t1], plans.row_sin[t0:t1],
                     plans.constants)


@kernel
def _column_plan(plans):
    return Transform(plans.n, plans.column_radices, plans.cos, plans.sin, plans.constants)


@kernel
def _turn(re, im, plans):
    """Multiply by the twiddles between the rows and columns of a folded block."""
    for v in range(0, plans.twiddle_cos.size, lanes_of(re)):
        a, b, c, s = vload(re, v), vload(im, v), vload(plans.twiddle_cos, v), vload(plans.twiddle_sin, v)
        vstore(re, v, a * c - b * s)
        vstore(im, v, a * s + b * c)


@kernel
def block_forward(re, im, spare_re, spare_im, layout, plans):
    """Spectrum of a block [rows, columns] into the spare arrays, as [columns, rows]."""
    outer = 1
    inner = layout.points
    for a in range(plans.count):
        inner //= plans.lengths[a]
        forward(re, im, outer, inner, _row_plan(plans, a))
        outer *= plans.lengths[a]
    if plans.twiddle_cos.size > 1:
        _turn(re, im, plans)
    transpose(re, spare_re, layout.rows, layout.columns)
    transpose(im, spare_im, layout.rows, layout.columns)
    forward(spare_re, spare_im, 1, layout.rows, _column_plan(plans))


@kernel
def block_inverse(re, im, spare_re, spare_im, layout, plans):
    """Undo `block_forward` but for a factor `points`: a spectrum in the spare arrays becomes a block."""
    inverse(spare_re, spare_im, 1, layout.rows, _column_plan(plans))
    transpose(spare_re, re, layout.columns, layout.rows)
    transpose(spare_im, im, layout.columns, layout.rows)
    if plans.twiddle_cos.size > 1:
        _turn(im, re, plans)
    outer = layout.rows
    inner = layout.columns
    for b in range(plans.count):
        a = plans.count - 1 - b
        outer //= plans.lengths[a]
        inverse(re, im, outer, inner, _row_plan(plans, a))
        inner *= plans.lengths[a]


@kernel
def multiply_spectra(x_re, x_im, x, w_re, w_im, w, y_re, y_im, points, add):
    """y (+)= x * w, point by point."""
    for v in range(0, points, lanes_of(y_re)):
        a, b = vload(x_re, x + v), vload(x_im, x + v)
        c, s = vload(w_re, w + v), vload(w_im, w + v)
        re, im = a * c - b * s, a * s + b * c
        if add:
            re, im = re + vload(y_re, v), im + vload(y_im, v)
        vstore(y_re, v, re)
        vstore(y_im, v, im)


@kernel
def _power(exponent, like):
    """2 ** exponent in the type of `like`, by steps that its range holds."""
    result = like[:1].copy()
    result[0] = 1
    factor = 2.0 if exponent > 0 else 0.5
    for _ in range(abs(exponent)):
        result[0] *= factor
    return result[0]


# ---------------------------------------------------------------------------------------------------- Kernels


@kernel
def kernel_spectra_share_kernel(layout, plans, weight, spectra, threads, thread):
    """One thread's share of the kernels: reversed into a block, scaled, transformed."""
    rank = layout.shape.size
    window = 1
    for a in range(rank):
        window *= layout.kernel[a]
    total = layout.groups * layout.out_channels * layout.channels
    re = np.empty(layout.points, weight.dtype)
    im = np.empty(layout.points, weight.dtype)
    down = _power(-spectra.exponent[0], re)
    for i in range(share_start_(total, threads, thread), share_start_(total, threads, thread + 1)):
        re[:] = 0
        im[:] = 0
        for t in range(window):
            rest = t
            place = 0
            width = 1
            for b in range(rank):
                a = rank - 1 - b
                position = rest % layout.kernel[a] * layout.dilation[a]
                rest //= layout.kernel[a]
                place += (layout.shape[a] - position) % layout.shape[a] * width
                width *= layout.shape[a]
            re[place] = weight[(i * window + t) * layout.parts] * down
            if layout.parts == 2:
                im[place] = weight[(i * window + t) * 2 + 1] * down
        at = i * layout.points
        block_forward(re, im, spectra.re[at:at + layout.points], spectra.im[at:at + layout.points], layout, plans)


@parallel_kernel
def kernel_spectra_kernel(layout, plans, weight, spectra, threads):
    """All kernels. Parallel over (groups K, C); race-free because each writes its own spectrum."""
    for thread in prange(threads):
        kernel_spectra_share_kernel(layout, plans, weight, spectra, threads, thread)


@kernel
def _tile_place(layout, tile, origin):
    """Set `origin` to where a tile's outputs begin at stride 1; returns its image."""
    rest = tile
    for b in range(origin.size):
        a = origin.size - 1 - b
        origin[a] = rest % layout.grid[a] * layout.valid[a]
        rest //= layout.grid[a]
    return rest


@kernel
def gather_block(layout, buffer, at, source, x_base, part, maps, origin):
    """buffer[at:] = the padded samples of a tile, zero behind the last that any output reads."""
    rank = layout.shape.size
    last = rank - 1
    columns = layout.shape[last]
    end = max(min(columns, maps.start[last + 1] - maps.start[last] - origin[last]), 0)
    inner = inner_range(maps, origin[last], 1, end)
    for row in range(layout.points // columns):
        rest = row
        base = x_base
        outside = False
        for b in range(last):
            a = last - 1 - b
            u = maps.start[a] + origin[a] + rest % layout.shape[a]
            rest //= layout.shape[a]
            if u >= maps.start[a + 1]:
                outside = True
            elif base != FILL:
                j = maps.index[u]
                base = FILL if j == FILL else base + j * source.strides[3 + a]
        begin = at + row * columns
        if not outside:
            gather_row(buffer, begin, end, source.flat, base, source.strides[3 + last], maps, part, origin[last], 1,
                       inner)
        buffer[begin + (0 if outside else end):begin + columns] = 0


@kernel
def _all_finite(buffer, at, points):
    """Whether no value is NaN or infinite: their products with zero are NaN."""
    nothing = splat(buffer.dtype.type(0))
    total = nothing
    for v in range(at, at + points, lanes_of(buffer)):
        total = total + vload(buffer, v) * nothing
    lanes = np.empty(lanes_of(buffer), buffer.dtype)
    vstore(lanes, 0, total)
    return not np.isnan(lanes.sum())


@kernel
def loudness(layout, buffer, at, peaks):
    """(largest finite magnitude, smallest of the cells' largest ones, number of values that are not finite).

    `peaks` [cells of all axes but the last, columns] takes the largest magnitude of each column of a cell.
    """
    rank = layout.shape.size
    last = rank - 1
    columns = layout.shape[last]
    limit = np.finfo(buffer.dtype).max
    strange = 0
    if not _all_finite(buffer, at, layout.points):
        for i in range(layout.points):
            strange += not abs(buffer[at + i]) <= limit
    peaks[:] = 0
    for row in range(layout.points // columns):
        rest = row
        band = 0
        width = columns
        for b in range(last):
            a = last - 1 - b
            band += rest % layout.shape[a] // layout.cell[a] * width
            rest //= layout.shape[a]
            width *= ceil_div_(layout.shape[a], layout.cell[a])
        values = at + row * columns
        if strange > 0:
            for i in range(columns):
                value = abs(buffer[values + i])
                if value <= limit:
                    peaks[band + i] = max(peaks[band + i], value)
        else:
            for v in range(0, columns, lanes_of(buffer)):
                vstore(peaks, band + v, larger_magnitude(vload(peaks, band + v), vload(buffer, values + v)))
    largest = limit * 0
    quiet = limit
    for band in range(0, peaks.size, columns):
        for start in range(band, band + columns, layout.cell[last]):
            end = min(start + layout.cell[last], band + columns)
            whole = start + (end - start) // lanes_of(buffer) * lanes_of(buffer)
            top = splat(buffer.dtype.type(0))
            for v in range(start, whole, lanes_of(buffer)):
                top = larger_magnitude(top, vload(peaks, v))
            cell = largest_lane(top)
            for i in range(whole, end):
                cell = max(cell, peaks[i])
            largest = max(largest, cell)
            if cell > 0:
                quiet = min(quiet, cell)
    return largest, min(quiet, largest), strange


@kernel
def take_outliers(buffer, at, points, threshold, places, values):
    """Move values that are not finite or above the threshold out of the block; their number."""
    count = 0
    for i in range(points):
        value = buffer[at + i]
        if not abs(value) <= threshold:
            places[count] = i
            values[count] = value
            buffer[at + i] = 0
            count += 1
    return count


@kernel
def scale_block(buffer, at, points, factor):
    """Multiply a block by a number."""
    factors = splat(buffer.dtype.type(factor))
    for v in range(at, at + points, lanes_of(buffer)):
        vstore(buffer, v, vload(buffer, v) * factors)


@kernel
def store_tile(layout, block, factor, more, target, base, origin, value):
    """Write the outputs of one tile, every stride-th: factor * more * block + value."""
    rank = layout.shape.size
    last = rank - 1
    rows = 1
    for a in range(last):
        rows *= min(layout.valid[a], layout.dense[a] - origin[a])
    first = -origin[last] % layout.stride[last]
    end = min(layout.valid[last], layout.dense[last] - origin[last])
    step = target.strides[3 + last]
    for row in range(rows):
        rest = row
        to = base
        source = 0
        width = layout.shape[last]
        wanted = True
        for b in range(last):
            a = last - 1 - b
            extent = min(layout.valid[a], layout.dense[a] - origin[a])
            position = rest % extent
            rest //= extent
            wanted = wanted and (origin[a] + position) % layout.stride[a] == 0
            to += (origin[a] + position) // layout.stride[a] * target.strides[3 + a]
            source += position * width
            width *= layout.shape[a]
        if wanted:
            to += (origin[last] + first) // layout.stride[last] * step
            count = ceil_div_(end - first, layout.stride[last])
            if step * layout.stride[last] == 1:
                row_of_block, row_of_target = block[source:source + count], target.flat[to:to + count]
                for i in range(count):                 # slices: no index can be negative, so this is vectorised
                    row_of_target[i] = row_of_block[i] * factor * more + value
            else:
                for i in range(count):
                    target.flat[to + i * step] = block[source + first + i * layout.stride[last]] * factor * more + value


@kernel
def add_product(layout, place, value, imaginary, weight, w, target, base, origin):
    """Add the products of one sample, or of its imaginary part, with all taps to the outputs whose window holds it."""
    rank = layout.shape.size
    window = 1
    for a in range(rank):
        window *= layout.kernel[a]
    for t in range(window):
        rest = t
        spot = place
        to = base
        inside = True
        for b in range(rank):
            a = rank - 1 - b
            o = spot % layout.shape[a] - rest % layout.kernel[a] * layout.dilation[a]
            spot //= layout.shape[a]
            rest //= layout.kernel[a]
            inside = inside and 0 <= o < layout.valid[a] and origin[a] + o < layout.dense[a] and (
                (origin[a] + o) % layout.stride[a] == 0)
            to += (origin[a] + o) // layout.stride[a] * target.strides[3 + a]
        if inside:
            tap = weight[(w + t) * layout.parts]
            if layout.parts == 1:
                target.flat[to] += value * tap
            elif imaginary:
                target.flat[to] -= value * weight[(w + t) * 2 + 1]
                target.flat[to + 1] += value * tap
            else:
                target.flat[to] += value * tap
                target.flat[to + 1] += value * weight[(w + t) * 2 + 1]


@kernel
def fft_share_kernel(layout, plans, source, maps, spectra, weight, bias, target, threads, thread):
    """One thread's share of the blocks.

    Shapes: source (N, groups C, *size) and target (N, groups K, *out) by their strides; spectra [groups K, C, points].
    """
    rank = layout.shape.size
    points = layout.points
    channels = layout.channels
    window = 1
    peak_count = layout.shape[rank - 1]
    for a in range(rank):
        window *= layout.kernel[a]
        if a < rank - 1:
            peak_count *= ceil_div_(layout.shape[a], layout.cell[a])
    blocks = ceil_div_(layout.tiles, layout.riders)
    items = layout.groups * blocks
    dtype = source.flat.dtype
    held_re = np.empty(channels * points, dtype)
    held_im = np.empty(channels * points, dtype)
    re, im = np.empty(points, dtype), np.empty(points, dtype)
    spare_re, spare_im = np.empty(points, dtype), np.empty(points, dtype)
    peaks = np.empty(peak_count, dtype)
    places = np.empty((2, 0), np.int64)
    values = np.empty((2, 0), dtype)
    counts = np.zeros((2, channels), np.int64)
    origins = np.empty((2, rank), np.int64)
    images = np.empty(2, np.int64)
    ups = np.ones(2, dtype)
    root = 1 / np.sqrt(np.finfo(dtype).eps)
    limit = np.finfo(dtype).max
    up_weight = _power(spectra.exponent[0], re)
    share = np.ones(1, dtype) / points

    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        g = item // blocks
        first = item % blocks * layout.riders
        riders = min(layout.riders, layout.tiles - first)
        for rider in range(2):
            tile = first + min(rider, riders - 1)
            images[rider] = _tile_place(layout, tile, origins[rider])
            part = rider if layout.parts == 2 else 0
            held = held_im if rider else held_re
            counts[rider] = 0
            if layout.parts == 1 and rider >= riders:
                held[:] = 0
                continue
            largest, quiet, strange = limit * 0, limit, 0
            for c in range(channels):
                x_base = (images[rider] * source.strides[0] + (g * channels + c) * source.strides[1]
                          + part * source.strides[2])
                gather_block(layout, held, c * points, source, x_base, part, maps, origins[rider])
                top, low, odd = loudness(layout, held, c * points, peaks)
                largest = max(largest, top)
                quiet = min(quiet, low) if top > 0 else quiet
                strange += odd
            threshold = limit
            if largest / root > quiet:
                threshold = quiet * root
            if strange > 0 or threshold < limit:
                loud = 0
                for i in range(channels * points):
                    loud += not abs(held[i]) <= threshold
                # Where much is loud there is no quiet part to protect, only a slope: infinite values alone are taken.
                if loud - strange > channels * points // 16:
                    threshold = limit
                if places.shape[1] < channels * points:
                    places = np.empty((2, channels * points), np.int64)
                    values = np.empty((2, channels * points), dtype)
                for c in range(channels):
                    counts[rider, c] = take_outliers(held, c * points, points, threshold, places[rider, c * points:],
                                                     values[rider, c * points:])
                largest = min(largest, threshold)
            # Powers of two bring both riders to one loudness, so that neither's rounding reaches the other.
            exponent = int(np.ceil(np.log2(largest))) if largest > 0 else 0
            ups[rider] = _power(exponent, re)
            down = _power(-exponent, re)
            if layout.parts == 1:
                scale_block(held, 0, channels * points, down)
        if layout.parts == 2:                           # real and imaginary part share their scale
            if ups[0] < ups[1]:
                ups[0] = ups[1]
            else:
                ups[1] = ups[0]
            scale_block(held_re, 0, channels * points, 1 / ups[0])
            scale_block(held_im, 0, channels * points, 1 / ups[0])

        for c in range(channels):
            at = c * points
            block_forward(held_re[at:at + points], held_im[at:at + points], spare_re, spare_im, layout, plans)
            held_re[at:at + points] = spare_re
            held_im[at:at + points] = spare_im
        for k in range(layout.out_channels):
            channel = g * layout.out_channels + k
            for c in range(channels):
                multiply_spectra(held_re, held_im, c * points, spectra.re, spectra.im,
                                 (channel * channels + c) * points, spare_re, spare_im, points, c > 0)
            block_inverse(re, im, spare_re, spare_im, layout, plans)
            for rider in range(2):
                part = rider if layout.parts == 2 else 0
                if layout.parts == 1 and rider >= riders:
                    continue
                base = images[rider] * target.strides[0] + channel * target.strides[1]
                store_tile(layout, im if rider else re, share[0] * ups[rider], up_weight, target, base + part,
                           origins[rider], bias[(channel * layout.parts + part) % bias.size])
            for rider in range(2):
                base = images[rider] * target.strides[0] + channel * target.strides[1]
                for c in range(channels):
                    for i in range(counts[rider, c]):
                        add_product(layout, places[rider, c * points + i], values[rider, c * points + i],
                                    layout.parts == 2 and rider == 1, weight, (channel * channels + c) * window, target,
                                    base, origins[rider])


@parallel_kernel
def fft_block_kernel(layout, plans, source, maps, spectra, weight, bias, target, threads):
    """All blocks. Parallel over (groups, tiles of all images).

    Race-free because no two tiles share an output and each thread has its own blocks.
    """
    for thread in prange(threads):
        fft_share_kernel(layout, plans, source, maps, spectra, weight, bias, target, threads, thread)
