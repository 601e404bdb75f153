"""Where a tile lies, and how its padded input comes into its buffer: as the input lies, or in strips."""

from __future__ import annotations

from ...boundary import FILL
from ...geometry import ceil_div, round_up, share_start
from ...jit import compiled, inner_kernel
from ..gather import gather_rows
from ..simd import copy, lanes_of, prefetch, vload, vload_first, vstore

_TOGETHER = 4                  # strips that are gathered at once, while the lines that they share are in the cache

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)
round_up_ = compiled(round_up)


@inner_kernel
def im2col_place_kernel(layout, item, origin, extent):
    """Set a piece of work's first output position and extents, images first; returns (channel part, group)."""
    axes = layout.tile.size
    rest = item
    for b in range(axes):
        a = axes - 1 - b
        count = ceil_div_(layout.out[a], layout.tile[a])
        origin[a] = rest % count * layout.tile[a]
        rest //= count
        extent[a] = min(layout.tile[a], layout.out[a] - origin[a])
    return rest // layout.groups, rest % layout.groups  # parts are slowest: a thread keeps to its part of the weight


@inner_kernel
def im2col_rows_kernel(layout, targets, sources, source, maps, origin, extent):
    """Where the rows of a tile's padded input begin in its buffer and in the input (`FILL`: nowhere); their number.

    `origin` and `extent` are the tile's first output position and number of them, images first.
    """
    last = layout.stride.size - 1
    for image in range(extent[0]):
        targets[image], sources[image] = image * layout.image_stride, image * source.strides[0]
    rows = extent[0]
    for a in range(last):                               # each row so far becomes as many as this axis has
        height = (extent[1 + a] - 1) * layout.stride[a] // layout.steps[a] + layout.reach[a]
        place = maps.start[a] + origin[1 + a] * layout.stride[a]
        for b in range(rows):
            row = rows - 1 - b
            target, from_ = targets[row], sources[row]
            for h in range(height):
                j = maps.index[place + h * layout.steps[a]]
                targets[row * height + h] = target + h * layout.strides[a]
                sources[row * height + h] = FILL if from_ == FILL or j == FILL else from_ + j * source.strides[3 + a]
        rows *= height
    return rows


@inner_kernel
def im2col_gather_kernel(layout, buffer, targets, sources, rows, source, base, maps, u, count, c0, c1):
    """Copy a tile's padded input, channels c0 <= c < c1, into `buffer`: `count` positions a row from padded one `u` on.

    Shape: buffer (images, channels, *positions) or, for `pixels`, (images, *positions, channels).
    """
    last = layout.stride.size - 1
    du, step = layout.steps[last], source.strides[3 + last]
    if not layout.pixels:
        for c in range(c0, c1):
            channel = c // layout.parts * source.strides[1] + c % layout.parts * source.strides[2]
            gather_rows(buffer, (c - c0) * layout.channel_stride, targets, rows, count, source.flat, base + channel,
                        sources, step, maps, c % layout.parts, u, du, False)
        return
    for row in range(rows):
        for i in range(count):
            j = FILL if sources[row] == FILL else maps.index[maps.start[last] + u + i * du]
            at = targets[row] + i * layout.chunk
            pixel = base + sources[row] + j * step
            if j == FILL:
                for c in range(c0, c1):
                    buffer[at + c - c0] = maps.fill[c % layout.parts]
            elif source.strides[1] == layout.parts:
                copy(buffer, at, source.flat, pixel + c0, c1 - c0)
            else:
                for c in range(c0, c1):
                    channel = c // layout.parts * source.strides[1] + c % layout.parts * source.strides[2]
                    buffer[at + c - c0] = source.flat[pixel + channel]


@inner_kernel
def im2col_places_kernel(layout, places, runs, sources, rows, step, maps, u, count):
    """Where a tile's positions lie in the input (`FILL`: nowhere), and how many from each on lie side by side.

    For windows of one element: the tile's rows of `count` positions begin at `sources`.
    """
    last = layout.stride.size - 1
    for row in range(rows):
        for i in range(count):
            j = maps.index[maps.start[last] + u + i * layout.steps[last]]
            places[row * count + i] = FILL if sources[row] == FILL or j == FILL else sources[row] + j * step
    run = 0
    for b in range(rows * count):
        p = rows * count - 1 - b
        run = 0 if places[p] == FILL else run + 1 if run > 0 and places[p + 1] == places[p] + 1 else 1
        runs[p] = run


@inner_kernel
def im2col_strips_kernel(layout, buffer, places, runs, positions, source, base, fill, c0, c1, rows):
    """Copy a tile's positions of channels c0 <= c < c1 into `buffer`: strips of as many as `rows`, channel by channel.

    Whole vectors are stored: what is too much, the next channel covers; behind the last one a strip has room for it.
    """
    M, lanes = len(rows), lanes_of(buffer)
    p = 0
    while p < positions:
        to = p // M * layout.strip
        together = _TOGETHER if runs[p] >= _TOGETHER * M + lanes else 1
        inside = p + M <= positions
        for i in range(M):
            inside &= places[p + i] != FILL
        for c in range(c0, c1):
            from_ = base + c * source.strides[1]
            if together > 1:
                for q in range(_TOGETHER):
                    for j in range(0, M, lanes):
                        vstore(buffer, to + q * layout.strip + j, vload(source.flat, from_ + places[p] + q * M + j))
            elif runs[p] >= M:
                for j in range(0, M, lanes):
                    vstore(buffer, to + j, vload_first(source.flat, from_ + places[p] + j, min(lanes, M - j), fill))
            elif inside:
                for i in range(M):
                    buffer[to + i] = source.flat[from_ + places[p + i]]
            else:
                for i in range(M):
                    there = p + i < positions and places[p + i] != FILL
                    buffer[to + i] = source.flat[from_ + places[p + i]] if there else fill
            to += M
        p += together * M


@inner_kernel
def im2col_starts_kernel(starts, extent, base, image_stride, jumps):
    """starts[p] = offset of the tile's output position p, the first of which is at `base`; the last axis runs."""
    last = jumps.size - 1
    rows = extent[0]
    for a in range(last):
        rows *= extent[1 + a]
    for row in range(rows):
        rest = row
        start = base
        for b in range(last):
            a = last - 1 - b
            start += rest % extent[1 + a] * jumps[a]
            rest //= extent[1 + a]
        start += rest * image_stride
        for i in range(extent[1 + last]):
            starts[row * extent[1 + last] + i] = start + i * jumps[last]


@inner_kernel
def im2col_prefetch_kernel(layout, sources, rows, source, base, maps, u, count, c0, c1, part, parts):
    """Ask for the `part`-th of so many parts of what `im2col_gather_kernel` will copy with these arguments."""
    last = layout.stride.size - 1
    step = source.strides[3 + last]
    line = 64 // source.flat.itemsize
    first = min(max(u, maps.inner[0]), maps.inner[1] - 1)
    if first < 0:                                       # an input without elements under the window
        return
    base += maps.index[maps.start[last] + first] * step
    count = min(count * layout.steps[last], maps.inner[1] - first)
    channels = 1 if layout.pixels else c1 - c0
    for i in range(share_start_(rows * channels, parts, part), share_start_(rows * channels, parts, part + 1)):
        at = sources[i % rows]
        c = c0 + i // rows
        if at != FILL:
            at += base + c // layout.parts * source.strides[1]
            for j in range(0, count * step, line):
                prefetch(source.flat, at + j)
