"""Where a tile lies in input, buffer and output, and its padded input."""

from __future__ import annotations

from ...boundary import FILL
from ...geometry import ceil_div
from ...jit import compiled, inner_kernel, stay_a_function
from ..gather import gather_rows, gather_rows_loosely, gather_rows_parted

ceil_div_ = compiled(ceil_div)


@inner_kernel
def direct_rows_kernel(layout, targets, sources, source, maps, origin, extents):
    """Where the rows of a tile's padded input begin in a channel's buffer and in the input (`FILL`: nowhere)."""
    last = extents.size - 1
    rows = 1
    for a in range(last):
        rows *= extents[a] * (layout.phase_start[a + 1] - layout.phase_start[a])
    for row in range(rows):
        rest = row
        targets[row] = 0
        sources[row] = 0
        for b in range(last):
            a = last - 1 - b
            position = rest % extents[a]
            rest //= extents[a]
            width = layout.phase_start[a + 1] - layout.phase_start[a]
            phase = rest % width
            rest //= width
            u = maps.start[a] + (origin[a] + position) * layout.stride[a] + layout.phases[layout.phase_start[a] + phase]
            j = maps.index[u] if u < maps.start[a + 1] else FILL
            targets[row] += phase * layout.phase_stride[a] + position * layout.strides[a]
            sources[row] = FILL if sources[row] == FILL or j == FILL else sources[row] + j * source.strides[3 + a]
    return rows


@inner_kernel
def direct_gather_kernel(layout, buffer, at, targets, sources, rows, source, x_base, maps, origin, extent, again):
    """Copy a tile's padded input into `buffer` from `at` on, phase by phase.

    Shapes: buffer [channels, phases of each axis, positions of each axis]; `extent` positions of the last axis are
    wanted, outputs begin at `origin` there; `targets` and `sources` as `direct_rows_kernel` leaves them; `again`: a
    tile of the same place lies there.
    """
    stay_a_function()                                   # taken into the loop over tiles it slows the sums there
    last = layout.stride.size - 1
    for c in range(layout.channels):
        part = c % layout.parts
        base = x_base + c // layout.parts * source.strides[1] + part * source.strides[2]
        phases = layout.phase_start[last + 1] - layout.phase_start[last]
        if layout.stride[last] == phases == 2 and source.strides[3 + last] == 1 and gather_rows_parted(
                buffer, at + c * layout.channel_stride, layout.phase_stride[last], targets, rows, extent, source.flat,
                base, sources, maps, 2 * origin, again):
            continue
        for phase in range(phases):
            u = origin * layout.stride[last] + layout.phases[layout.phase_start[last] + phase]
            to = at + c * layout.channel_stride + phase * layout.phase_stride[last]
            step, du = source.strides[3 + last], layout.stride[last]
            if layout.smooth:
                gather_rows_loosely(buffer, to, targets, rows, extent, source.flat, base, sources, step, maps, part, u,
                                    again)
            else:
                gather_rows(buffer, to, targets, rows, extent, source.flat, base, sources, step, maps, part, u, du,
                            again)


@inner_kernel
def direct_place_kernel(layout, tile, origin, extent):
    """Set a tile's first output position and extents."""
    rank = layout.tile.size
    rest = tile
    for b in range(rank):
        a = rank - 1 - b
        origin[a] = rest % layout.grid[a] * layout.tile[a]
        rest //= layout.grid[a]
        extent[a] = min(layout.tile[a], layout.out[a] - origin[a])


@inner_kernel
def direct_wanted_kernel(layout, maps, extent, wanted):
    """Set the positions within a phase that a tile reads, per axis."""
    for a in range(layout.tile.size):
        reach = maps.start[a + 1] - maps.start[a] - (layout.out[a] - extent[a]) * layout.stride[a]
        wanted[a] = ceil_div_(reach, layout.stride[a])


@inner_kernel
def direct_scatter_kernel(sums, at, width, flat, to, step):
    """Write a row of a register tile where neighbours do not lie side by side."""
    for j in range(width):
        flat[to + j * step] = sums[at + j]


@inner_kernel
def direct_row_kernel(layout, row, last, extent, strides, steps):
    """(offset in the buffer, offset in the output) of the `row`-th row of positions of a tile's first `last` axes."""
    rest = row
    source = 0
    to = 0
    for b in range(last):
        a = last - 1 - b
        source += rest % extent[a] * strides[a]
        to += rest % extent[a] * steps[a]
        rest //= extent[a]
    return source, to
