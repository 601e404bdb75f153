"""Transposed convolution as a matrix product with every tap of the window, whose results are added up where they meet.

[output channels x taps] [input channels] x [input channels] [positions of the input]: each element of the input gives
one product sum for each tap, and output o of an axis is the sum of those of the taps r at position
(o + r dilation - low) / upsample. So no output channel or position is computed in vain, whatever the stride and the
window, where phase by phase (`phases`) small maps are padded more than they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import gcd, lcm
from typing import NamedTuple

import numpy as np

from ..geometry import ceil_div, product, round_up, share_start, span
from ..jit import compiled, inlined, inner_kernel, owning_kernel, parallel_kernel, prange, settled
from ..problem import ConvProblem
from . import simd
from .arrays import (
    RowTaps,
    bias_vector,
    interleave_rows,
    pack_taps,
    packed_taps,
    packing_threads,
    real_dtype,
    row_taps,
)
from .borrowed import borrow
from .kept import compared, share_of_new
from .launch import entries
from .micro.products import multiply_tile
from .sharing import LINE, take
from .simd import copy, lanes_of, splat, vload, vload_where, vstore, vstore_in_turn, vstore_in_turn_first, vstore_turns
from .tiles import channel_tile, even_tile, shrink

# ------------------------------------------------------------------------------------------------- The choice

NAME = "col2im"
SUPPORTS = "real numbers, zeros between the elements of the input: transposed layers, gradients of strided ones"
REFERENCE = "Dumoulin, Visin 2016, A guide to convolution arithmetic for deep learning (arXiv 1603.07285)"
WHOLE = True                   # the problem comes as it is, not phase by phase
_SUMS_BYTES = 256 * 1024       # of one thread's product sums: they should stay in the second cache until they are added
_BUFFER_BYTES = 512 * 1024     # of one thread's input
_POSITIONS = 384               # of a tile, about so many, where all channels of more would not fit
_CHUNK = 128                   # input channels summed at once: those under a register tile stay in the first cache
_FEWEST = 32                   # taps of output channels in a piece of work, about so many: a few register tiles


def why_not(problem: ConvProblem) -> str:
    """An empty string, or why the problem is refused."""
    p = problem
    if set(p.upsample) == {1} or set(p.stride) != {1}:
        return "nothing stands between the elements of the input, or outputs are left out"
    if 0 in p.size:
        return "the input is empty"
    if p.engine.kind == "c":
        return "complex numbers"
    if p.channels_last:
        return "channels lie last in memory"
    if set(p.boundary) != {"constant"} or p.fill != 0:
        return "something other than zeros lies around the input"
    return ""


def least(problem: ConvProblem, machine) -> tuple[float, float]:
    """The products of all taps with all positions, without threads; the direct method's error."""
    p = problem
    products = 2 * p.N * p.groups * p.K * p.taps * product(p.size) / machine.flops(p.engine)
    return machine.seconds({"call": 1, "col2im.products": products}), 1.0


def cost(problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates."""
    return machine.seconds(counts(problem, machine))


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """Multiplications, register tiles, rows and bytes that are gathered, sums added up, the weight's packing."""
    p, choice = problem, _choose(problem)
    itemsize, lanes = real_dtype(p).itemsize, simd.lanes(real_dtype(p))
    threads = min(p.threads, choice.items)
    M, vector, axes = len(choice.rows), len(choice.columns) * lanes, _axes(p)
    tiles = choice.items * ceil_div(choice.channels * product(p.kernel), M) * ceil_div(choice.positions, vector)
    gathered = (choice.items if choice.chunk < p.C else choice.items // choice.parts) * p.C * choice.positions
    rows = p.N * p.groups * p.K * product(p.out[:-1])
    widths = [ceil_div(ceil_div(max(p.out[-1] - s, 0), p.upsample[-1]), lanes) for s in range(p.upsample[-1])]
    added = product(sum(axis.count) / u for axis, u in zip(axes[:-1], p.upsample, strict=False))
    weight = product(p.weight_shape)
    kept = 0 if choice.packs else weight * itemsize
    packed = weight / threads if choice.packs else share_of_new(p, kept) * weight / packing_threads(p, weight)
    return {"call": 1, "start": threads > 1,
            "col2im.products": 2 * tiles * M * vector * p.C / machine.flops(p.engine) / threads,
            "col2im.tiles": tiles * ceil_div(p.C, _CHUNK) / threads,
            "col2im.items": choice.items / threads,
            "col2im.rows": gathered / p.size[-1] / threads, "col2im.gathered": gathered * itemsize / threads,
            "col2im.added": rows * added * sum(n * w for n, w in zip(axes[-1].count, widths, strict=True)) / threads,
            "col2im.stored": rows * sum(widths) / threads, "col2im.lines": rows / threads,
            "col2im.joined": 0 if p.upsample[-1] == 2 else rows * sum(widths) / threads,
            "col2im.packed": packed,
            "byte": machine.traffic(p) / threads + (compared(p, kept, machine) if kept else 0)}


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's input and product sums."""
    choice = _choose(problem)
    weight = problem.groups * round_up(problem.K * product(problem.kernel), len(choice.rows)) * problem.C
    if choice.packs:
        weight = problem.threads * choice.together * len(choice.rows) * choice.chunk
    return (weight + problem.threads * (choice.buffer_size + choice.sums_size)) * real_dtype(problem).itemsize


def error(problem: ConvProblem) -> float:
    """The sums of the direct method in another order."""
    return 1.0


class _Axis(NamedTuple):
    """The taps of each of an axis' residues: outputs s, s + u, ... for s < u; counted from the window's end.

    So they lie in memory: the weight of a transposed layer is the reversed one of the convolution that it is.
    """

    first: tuple[int, ...]     # tap
    count: tuple[int, ...]     # of taps
    shift: tuple[int, ...]     # position of the input under the first tap and output s
    step: int                  # taps from one of a residue to the next
    spread: int                # positions of the input from one to the next


@lru_cache(maxsize=1024)
def _axes(problem: ConvProblem) -> list[_Axis]:
    axes = []
    for taps, dilation, (low, _), u in zip(problem.kernel, problem.dilation, problem.padding, problem.upsample,
                                           strict=True):
        step = u // gcd(u, dilation)
        first = [next((r for r in range(min(step, taps)) if (s + r * dilation - low) % u == 0), taps)
                 for s in range(u)]
        axes.append(_Axis(tuple(taps - 1 - r for r in first), tuple(ceil_div(taps - r, step) for r in first),
                          tuple((s + r * dilation - low) // u for s, r in enumerate(first)), -step,
                          dilation * step // u))
    return axes


class _Choice(NamedTuple):
    """The shape of tiles, as integers: all that the cost depends on."""

    rows: tuple                # register tile: taps of output channels
    columns: tuple             # positions
    tile: tuple[int, ...]      # images of a tile, then its output extents
    positions: int             # of the input under a full tile, of all its images
    width: int                 # from one channel to the next, and from one tap's product sums to the next one's
    chunk: int                 # input channels that are gathered at once
    channels: int              # output channels of a piece of work
    parts: int                 # into how many pieces of work the output channels are split
    packs: bool                # the weight serves one tile of one call: it is packed where it is used
    together: int              # register tiles, along the taps, of one pass over the positions
    buffer_size: int
    sums_size: int
    items: int                 # pieces of work to share


@lru_cache(maxsize=1024)
def _choose(problem: ConvProblem) -> _Choice:
    p = problem
    itemsize, lanes, window = real_dtype(p).itemsize, simd.lanes(real_dtype(p)), product(p.kernel)
    spans = list(map(span, p.kernel, p.dilation))
    everything = (p.N, *p.out)

    def under(tile):
        """Positions of the input that outputs of a tile see, at most."""
        return tile[0] * product(min(n, (t + reach - 2) // u + 1)
                                 for n, t, reach, u in zip(p.size, tile[1:], spans, p.upsample, strict=True))

    fewest = min(ceil_div(_FEWEST, window), p.K)           # output channels of a piece of work

    def small(tile):
        positions = under(tile)
        return product(tile) <= 4 * lanes or (positions * fewest * window * itemsize <= _SUMS_BYTES and (
            positions <= _POSITIONS or positions * p.C * itemsize <= _BUFFER_BYTES))

    tile = shrink(everything, (1e-9, *(reach / u for reach, u in zip(spans, p.upsample, strict=True))), small)
    tile = [even_tile(p.N, tile[0])] + [min(round_up(even_tile(n, t), u), n)
                                        for n, t, u in zip(p.out, tile[1:], p.upsample, strict=True)]
    positions, tiles = under(tile), p.groups * product(map(ceil_div, everything, tile))
    channels = min(max(_SUMS_BYTES // (positions * window * itemsize), fewest), p.K) if positions else p.K
    parts = ceil_div(p.K, channels)
    if tiles * parts % p.threads:
        parts = min(round_up(parts, p.threads // gcd(p.threads, tiles)), p.K)
    channels = ceil_div(p.K, parts)
    rows, columns = channel_tile(positions, channels * window, lanes)
    line = max(64 // itemsize, 1)
    # An odd number of lines of the cache: what lies so far apart does not compete for the same few places in it.
    width = (ceil_div(round_up(positions, len(columns) * lanes), line) | 1) * line
    chunk = even_tile(p.C, min(max(_BUFFER_BYTES // (width * itemsize), _CHUNK), p.C))
    height = round_up(channels * window, len(rows)) + len(rows)
    packs = tiles == 1 and not p.reused                        # of several groups it does not lie side by side
    together = lcm(len(rows), line) // len(rows) if packs else ceil_div(height, len(rows))
    return _Choice(rows, columns, tuple(tile), positions, width, chunk, channels, parts, packs, together, chunk * width,
                   height * width + lanes, tiles * parts)


class ProductLayout(NamedTuple):
    """All that the kernels know of a problem."""

    groups: int
    channels: int              # input channels of one group
    out_channels: int          # output channels of one group
    window: int                # taps of one channel
    parts: int                 # into how many pieces of work the output channels are split
    width: int                 # from one channel to the next, and from one tap's product sums to the next one's
    chunk: int                 # input channels that are gathered at once
    summed: int                # of which so many are summed at once
    packs: bool                # the weight comes as it lies, and is packed where it is used
    together: int              # register tiles, along the taps, of one pass over the positions
    buffer_size: int
    sums_size: int
    terms: int                 # product sums of an output, at most, for one tap of the last axis
    last_taps: int             # of the last axis, which any output has
    size: np.ndarray           # images, then input extents
    out: np.ndarray            # images, then output extents
    tile: np.ndarray           # images of a tile, then its output extents
    upsample: np.ndarray
    low: np.ndarray            # padding in front, per axis
    reach: np.ndarray          # spans of the window, per axis
    taps: np.ndarray           # from a tap to its neighbour on each axis, among those of the window
    residues: np.ndarray       # where those of an axis begin below, rank + 1
    first: np.ndarray          # see `_Axis`, all axes one behind the other
    count: np.ndarray
    shift: np.ndarray
    step: np.ndarray           # per axis
    spread: np.ndarray


def _lay_out(problem: ConvProblem) -> ProductLayout:
    p, choice, axes = problem, _choose(problem), _axes(problem)
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    joined = [vec([n for axis in axes for n in axis[field]]) for field in range(3)]
    return ProductLayout(
        groups=p.groups, channels=p.C, out_channels=p.K, window=product(p.kernel), parts=choice.parts,
        width=choice.width, chunk=choice.chunk, summed=even_tile(choice.chunk, min(_CHUNK, choice.chunk)),
        packs=choice.packs, together=choice.together, buffer_size=choice.buffer_size,
        sums_size=choice.sums_size, terms=product(max(axis.count) for axis in axes[:-1]), last_taps=sum(axes[-1].count),
        size=vec((p.N, *p.size)), out=vec((p.N, *p.out)), tile=vec(choice.tile), upsample=vec(p.upsample),
        low=vec([low for low, _ in p.padding]), reach=vec(list(map(span, p.kernel, p.dilation))),
        taps=vec([product(p.kernel[a + 1:]) for a in range(p.rank)]),
        residues=vec([sum(p.upsample[:a]) for a in range(p.rank + 1)]), first=joined[0], count=joined[1],
        shift=joined[2], step=vec([axis.step for axis in axes]), spread=vec([axis.spread for axis in axes]))


def prepare(problem: ConvProblem, weight: np.ndarray) -> RowTaps:
    """The weight as `multiply_tile` reads it, or as it lies: the rows are the taps of all output channels."""
    choice = _choose(problem)
    return row_taps(problem, weight) if choice.packs else packed_taps(problem, weight, len(choice.rows))


@lru_cache(maxsize=256)
def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    choice, layout, unbiased = _choose(problem), _lay_out(problem), bias_vector(problem, None)
    kernel, threads = settled(col2im_kernel), min(problem.threads, choice.items)
    offsets = np.arange(choice.chunk) * choice.width

    def start(x, prepared, bias, out):
        biases = unbiased if bias is None else bias_vector(problem, bias)
        kernel(layout, x, prepared, offsets, biases, out, choice.rows, choice.columns, threads)

    return start


run, shortcut = entries(prepare, bind, in_c_order=False)

# ------------------------------------------------------------------------------------------------- The kernels

share_start_ = compiled(share_start)
ceil_div_ = compiled(ceil_div)
round_up_ = compiled(round_up)


@inner_kernel
def col2im_place_kernel(layout, tile, origin, extent, begin, under):
    """Set where a tile begins and its extents, in the output and in the input; return its positions of the input.

    Each leads with the images.
    """
    rest, positions = tile, 1
    for b in range(layout.tile.size):
        a = layout.tile.size - 1 - b
        count = ceil_div_(layout.out[a], layout.tile[a])
        origin[a] = rest % count * layout.tile[a]
        rest //= count
        extent[a] = min(layout.tile[a], layout.out[a] - origin[a])
        begin[a], under[a] = origin[a], extent[a]
        if a > 0:
            u, low = layout.upsample[a - 1], layout.low[a - 1]
            begin[a] = max(ceil_div_(origin[a] - low, u), 0)
            last = (origin[a] + extent[a] + layout.reach[a - 1] - 2 - low) // u
            under[a] = max(min(last + 1, layout.size[a]) - begin[a], 0)
        positions *= under[a]
    return positions


@inner_kernel
def col2im_gather_kernel(layout, buffer, source, base, begin, under, c0, c1, filled):
    """Copy a tile's positions of channels c0 <= c < c1 into `buffer`, [channels, positions], zeros up to `filled`."""
    last = under.size - 1
    width, step = under[last], source.strides[2 + last]
    rows = 1
    for a in range(last):
        rows *= under[a]
    for row in range(rows):
        rest = row
        from_ = base + begin[last] * step
        for b in range(last):
            a = last - 1 - b
            from_ += (begin[a] + rest % under[a]) * source.strides[2 + a if a > 0 else 0]
            rest //= under[a]
        for c in range(c0, c1):
            at, to = from_ + c * source.strides[1], (c - c0) * layout.width + row * width
            if step == 1:
                copy(buffer, to, source.flat, at, width)
            else:
                for i in range(width):
                    buffer[to + i] = source.flat[at + i * step]
    for c in range(c1 - c0):
        for i in range(rows * width, filled):
            buffer[c * layout.width + i] = 0


@inner_kernel
def col2im_terms_kernel(layout, targets, strides, terms, ends, origin, extent, begin, under):
    """For each row of a tile's output, its place in a channel and where product sums for it begin.

    Those of the first image, channel and tap of the last axis; `ends` says where the terms of a row end. Returns how
    many rows an image has.
    """
    rank = layout.upsample.size
    rows = 1
    for a in range(1, rank):
        rows *= extent[a]
    end = 0
    for row in range(rows):
        first = end
        targets[row] = origin[rank] * strides[rank - 1]
        terms[end] = 0
        end += 1
        rest, line = row, under[rank]
        for b in range(1, rank):
            a = rank - 1 - b                                # of the axes before the last
            o = origin[1 + a] + rest % extent[1 + a]
            rest //= extent[1 + a]
            targets[row] += o * strides[a]
            residue = layout.residues[a] + o % layout.upsample[a]
            there = o // layout.upsample[a] + layout.shift[residue] - begin[1 + a]
            known = end - first
            end = first
            for j in range(layout.count[residue]):          # each of those so far, with each tap of this axis
                i = there + j * layout.spread[a]
                if 0 <= i < under[1 + a]:
                    tap = layout.first[residue] + j * layout.step[a]
                    for n in range(known):
                        terms[end + known] = terms[first + n] + tap * layout.taps[a] * layout.width + i * line
                        end += 1
            for n in range(first, end):
                terms[n] = terms[n + known]
            line *= under[1 + a]
        ends[row] = end
    return rows


@inner_kernel
def col2im_taps_kernel(layout, taps, bits, lanes, origin, begin, under):
    """For each tap of the last axis, residue by residue: its product sums beside a row's terms, and which are there.

    Those under the first output of the residue in `taps`; in `bits` [taps, vectors of outputs], whose lanes lie in a
    row of the input.
    """
    last = layout.upsample.size - 1
    u, n, vectors = layout.upsample[last], under[1 + last], bits.size // max(taps.size, 1)
    tap = 0
    for s in range(u):
        residue = layout.residues[last] + s
        for j in range(layout.count[residue]):
            shift = origin[1 + last] // u + layout.shift[residue] - begin[1 + last] + j * layout.spread[last]
            taps[tap] = (layout.first[residue] + j * layout.step[last]) * layout.width + shift
            for v in range(vectors):
                low = min(max(-shift - v * lanes, 0), lanes)
                high = max(min(n - shift - v * lanes, lanes), low)
                bits[tap * vectors + v] = (1 << high) - (1 << low)
            tap += 1


@inlined
def col2im_sum_kernel(sums, at, terms, first, end, start, taps, bits, tap0, tap1, v, vectors):
    """start + the product sums of outputs from the `v`-th on: of the last axis taps tap0 <= j < tap1, of all terms."""
    lanes = lanes_of(sums)
    total = splat(start)
    for j in range(tap0, tap1):
        where, there = at + taps[j] + v, bits[j * vectors + v // lanes]
        if there == (1 << lanes) - 1:
            for n in range(first, end):
                total = total + vload(sums, where + terms[n])
        elif there != 0:
            for n in range(first, end):
                total = total + vload_where(sums, where + terms[n], there)
    return total


@inner_kernel
def col2im_join_kernel(lines, starts, length):
    """Make fewer and longer lines whose elements take turns, until one is left if their number has factors up to 5.

    They lie one behind the other, of so many elements each, in the first half of `lines`; `starts` gets where those
    begin that are left, which are counted.
    """
    lanes, count, from_, to = lanes_of(lines), starts.size, 0, lines.size // 2
    while count > 1:
        f = 2 if count % 2 == 0 else 3 if count % 3 == 0 else 5
        if count % f != 0:
            break
        count //= f
        apart = count * length                              # from one to the next of those that take turns
        for s in range(count):
            for v in range(0, length, lanes):
                at, there = from_ + s * length + v, to + f * (s * length + v)
                if f == 2:
                    vstore_in_turn(lines, there, vload(lines, at), vload(lines, at + apart))
                elif f == 3:
                    vstore_turns(lines, there, (vload(lines, at), vload(lines, at + apart),
                                                vload(lines, at + 2 * apart)))
                else:
                    vstore_turns(lines, there, (vload(lines, at), vload(lines, at + apart), vload(
                        lines, at + 2 * apart), vload(lines, at + 3 * apart), vload(lines, at + 4 * apart)))
        length *= f
        from_, to = to, from_
    for s in range(count):
        starts[s] = from_ + s * length
    return count


@inner_kernel
def col2im_rows_kernel(sums, at, terms, ends, start, taps, bits, counts, lines, starts, target, base, targets, rows,
                       step, width):
    """Write all rows of a channel's output: sums of their `terms`, and as many of the last axis taps as `counts`."""
    lanes, u = lanes_of(sums), counts.size
    apart, vectors, first = lines.size // (2 * u), bits.size // max(taps.size, 1), 0
    for row in range(rows):
        end, to = ends[row], base + targets[row]
        if u == 2 and step == 1:
            for v in range(0, (width + 1) // 2, lanes):
                even = col2im_sum_kernel(sums, at, terms, first, end, start, taps, bits, 0, counts[0], v, vectors)
                odd = col2im_sum_kernel(sums, at, terms, first, end, start, taps, bits, counts[0],
                                        counts[0] + counts[1], v, vectors)
                if width - 2 * v >= 2 * lanes:
                    vstore_in_turn(target, to + 2 * v, even, odd)
                else:
                    vstore_in_turn_first(target, to + 2 * v, even, odd, width - 2 * v)
        else:
            tap = 0
            for s in range(min(u, width)):
                for v in range(0, (width - s + u - 1) // u, lanes):
                    vstore(lines, s * apart + v, col2im_sum_kernel(
                        sums, at, terms, first, end, start, taps, bits, tap, tap + counts[s], v, vectors))
                tap += counts[s]
            count = col2im_join_kernel(lines, starts, apart)
            if count == 1 and step == 1:
                copy(target, to, lines, starts[0], width)
            else:
                interleave_rows(target, to, step, lines, 0, starts[:count], 1, width)
        first = end


@owning_kernel
def col2im_share_kernel(layout, source, weight, offsets, bias, target, rows, columns, shares, thread):
    """One thread's share of the pieces of work: gather, multiply, add up.

    Shapes: source (N, groups C, *size) and target (N, groups K, *out) by their strides; weight as `packed_taps` or
    `row_taps` give it.
    """
    rank, M, lanes = layout.upsample.size, len(rows), lanes_of(source.flat)
    vector = len(columns) * lanes
    group_rows = layout.out_channels * layout.window
    blocks = ceil_div_(group_rows, M)
    items = layout.groups * layout.parts
    for a in range(rank + 1):
        items *= ceil_div_(layout.out[a], layout.tile[a])
    outer = 1
    for a in range(1, rank):
        outer *= layout.tile[a]
    buffer = np.empty(layout.buffer_size, source.flat.dtype)
    sums = np.empty(layout.sums_size, source.flat.dtype)
    panel = np.empty(layout.together * layout.chunk * M if layout.packs else 0, source.flat.dtype)
    zero = np.zeros(1, source.flat.dtype)
    terms, ends = np.empty((outer + 1) * layout.terms, np.int64), np.empty(outer, np.int64)
    targets = np.empty(outer, np.int64)
    counts = layout.count[layout.residues[rank - 1]:]
    apart = round_up_(ceil_div_(layout.tile[rank], counts.size), lanes)
    lines = np.empty(2 * counts.size * apart, source.flat.dtype)
    starts = np.empty(counts.size, np.int64)
    taps = np.empty(layout.last_taps, np.int64)
    bits = np.empty(taps.size * (apart // lanes), np.int64)
    origin, extent = np.empty(rank + 1, np.int64), np.empty(rank + 1, np.int64)
    begin, under = np.empty(rank + 1, np.int64), np.empty(rank + 1, np.int64)
    tile, positions, image_rows, gathered = -1, 0, 0, -1
    while True:
        item = take(shares, items, thread)
        if item < 0:
            break
        g, part = item // layout.parts % layout.groups, item % layout.parts
        if tile != item // (layout.parts * layout.groups):
            tile = item // (layout.parts * layout.groups)
            positions = col2im_place_kernel(layout, tile, origin, extent, begin, under)
            image_rows = col2im_terms_kernel(layout, targets, target.strides[3:], terms, ends, origin, extent, begin,
                                             under)
            col2im_taps_kernel(layout, taps, bits, lanes, origin, begin, under)
        k0 = share_start_(layout.out_channels, layout.parts, part)
        k1 = share_start_(layout.out_channels, layout.parts, part + 1)
        block0, block1 = k0 * layout.window // M, ceil_div_(k1 * layout.window, M)
        for c0 in range(0, layout.channels, layout.chunk):
            c1 = min(c0 + layout.chunk, layout.channels)
            if gathered != item // layout.parts * layout.channels + c0:
                gathered = item // layout.parts * layout.channels + c0
                col2im_gather_kernel(layout, buffer, source, g * layout.channels * source.strides[1], begin, under, c0,
                                     c1, round_up_(positions, vector))
            for first in range(block0, block1, layout.together):
                end = min(first + layout.together, block1)
                w, ldw, weights = ((g * blocks + first) * layout.channels + c0) * M, layout.channels * M, weight.flat
                if layout.packs:
                    w, ldw, weights = 0, (c1 - c0) * M, panel
                    pack_taps(panel, 0, M, weight, g * group_rows + first * M, g * group_rows + min(
                        end * M, group_rows), c0, c1)
                for p in range(0, positions, vector):
                    for t0 in range(0, c1 - c0, layout.summed):
                        for block in range(first, end):
                            at = (block - block0) * M * layout.width + p
                            multiply_tile(sums, at, layout.width, M, vector, c0 + t0 > 0, zero, 0, buffer, p, offsets,
                                          weights, w + (block - first) * ldw, t0, min(t0 + layout.summed, c1 - c0),
                                          rows, columns)
        for image in range(extent[0]):
            y_base = (origin[0] + image) * target.strides[0]
            for k in range(k0, k1):
                channel = g * layout.out_channels + k
                at = (k * layout.window - block0 * M) * layout.width + image * (positions // extent[0])
                col2im_rows_kernel(sums, at, terms, ends, bias[channel % bias.size], taps, bits, counts, lines, starts,
                                   target.flat, y_base + channel * target.strides[1], targets, image_rows,
                                   target.strides[2 + rank], extent[rank])


@parallel_kernel
def col2im_kernel(layout, source, weight, offsets, bias, target, rows, columns, threads):
    """All pieces of work. Parallel over (tiles, groups, parts of the output channels).

    Race-free because no two pieces of work share an output element and each thread has its own buffers.
    """
    layout, source, weight, target = borrow(layout), borrow(source), borrow(weight), borrow(target)
    shares = np.zeros(LINE * threads, np.int64)
    for thread in prange(threads):
        col2im_share_kernel(layout, source, weight, offsets, bias, target, rows, columns, shares, np.int64(thread))
