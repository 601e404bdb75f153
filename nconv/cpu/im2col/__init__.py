"""Convolution as a matrix product of patches with the weight, in which the patches are never stored.

[positions x taps] [taps x output channels] for each group, the vectors along the output channels. Row p, column t of
the patch matrix is ``buffer[starts[p] + offsets[t]]`` once a tile's padded input lies in a buffer: two tables stand
for the matrix, so that every stride, dilation, layout and map size runs at the same rate, and a tile may hold several
small images. Taps go chunk by chunk of input channels, so that buffer, weight panel and sums stay in the L2 cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import lcm
from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up, span
from ...jit import settled
from ...problem import ConvProblem
from .. import simd
from ..arrays import bias_rows, packed_weight, packing_threads, parts, real_dtype
from ..gather import flat_maps
from ..kept import compared, share_of_new
from ..launch import entries
from ..tiles import TAPS_AT_ONCE, channel_tile, even_tile, share_tiles, shrink, split_channels
from .tiles import im2col_tile_kernel

# ------------------------------------------------------------------------------------------------- The choice

NAME = "im2col"
SUPPORTS = "every problem, every dtype; integers exactly"
REFERENCE = ("Chellapilla, Puri, Simard 2006, High Performance Convolutional Neural Networks for Document Processing; "
             "tables in place of patches after Dukhan 2019, The Indirect Convolution Algorithm (arXiv 1907.02129)")
_BUFFER_BYTES = 512 * 1024     # of one thread's gathered tile
_SUMS_BYTES = 256 * 1024       # of one thread's sums, where they are kept from one chunk of channels to the next
_STRIPS_BYTES = 256 * 1024     # the same where it lies in strips
_WORTH_STRIPS = 8              # vectors of output channels from which on strips are worth the copy
_TAPS_OF_FEW = 64              # summed at once where output channels are few: the fewer channels, the longer their runs
_GROUP = 96                    # positions, at most about so many, that are summed and stored at once


def why_not(problem: ConvProblem) -> str:
    """Every valid problem is supported."""
    return ""


def least(problem: ConvProblem, machine) -> tuple[float, float]:
    """The multiplications of whole vectors of output channels, without threads; the direct method's error."""
    p = problem
    channels = round_up(p.K * parts(p), simd.lanes(real_dtype(p)))
    products = 2 * p.N * p.groups * p.positions * p.taps * parts(p) * channels / machine.flops(p.engine)
    return machine.seconds({"call": 1, "im2col.products": products}), 1.0


def cost(problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates."""
    return machine.seconds(counts(problem, machine))


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """Multiplications, register tiles, what is gathered for them in rows and bytes, and the weight's packing."""
    p, choice = problem, _choose(problem)
    itemsize, taps = real_dtype(p).itemsize, p.taps * parts(p)
    channels = round_up(p.K * parts(p), choice.vector) * p.groups
    tiles = product(map(ceil_div, (p.N, *p.out), choice.tile))
    registers = tiles * ceil_div(product(choice.tile), len(choice.rows)) * channels // choice.vector
    threads = min(p.threads, choice.items)
    # One vector of channels loads an address for each product.
    kind = "im2col.products_lone" if len(choice.columns) == 1 else "im2col.products"
    products = 2 * registers * len(choice.rows) * choice.vector * taps / machine.flops(p.engine)
    lines = 0 if _in_place(p) or choice.strip else choice.items * choice.gathered / choice.extents[-1]
    panels = channels * taps * itemsize
    kept = 0 if choice.packs else panels
    return {"call": 1, "start": threads > 1, kind: products / threads,
            "im2col.tiles": registers * ceil_div(p.C * parts(p), choice.chunk) / threads,
            "im2col.rows": lines / threads, "im2col.gathered": lines * choice.extents[-1] * itemsize / threads,
            "im2col.positions": tiles * product(choice.tile) * p.groups / threads,
            "im2col.panels": panels / threads if choice.packs else 0,
            "im2col.packed": share_of_new(p, kept) * kept / packing_threads(p, kept / itemsize),
            "byte": machine.traffic(p) / threads + (compared(p, kept, machine) if kept else 0)}


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and each thread's tile of input and sums."""
    choice = _choose(problem)
    weight = round_up(problem.K * parts(problem), choice.vector) * problem.groups * problem.taps * parts(problem)
    weight = 0 if choice.packs else weight
    return (weight + problem.threads * (choice.buffer_size + choice.sums_size)) * real_dtype(problem).itemsize


def error(problem: ConvProblem) -> float:
    """The same sums in the same order as the direct method's."""
    return 1.0


class _Choice(NamedTuple):
    """The shape of tiles, as integers: all that the cost depends on."""

    rows: tuple                # register tile
    columns: tuple
    vector: int                # output channels of a block
    group: int                 # positions that are summed and stored at once
    chunk: int                 # channels that are gathered and summed at once
    tile: tuple[int, ...]      # images of a tile, then its output extents
    extents: tuple[int, ...]   # of the buffer, per axis
    image_stride: int          # of the buffer
    channel_stride: int
    strip: int                 # elements from one strip of positions to the next, where the buffer has these; else 0
    buffer_size: int
    sums_size: int
    channel_parts: int         # into how many pieces of work the output channels are split
    packs: bool                # panels of the weight are packed where they are used
    items: int                 # pieces of work to share
    gathered: int              # elements gathered for one of them


@lru_cache(maxsize=1024)
def _choose(problem: ConvProblem) -> _Choice:
    p = problem
    itemsize = real_dtype(p).itemsize
    channels, out_channels, window = p.C * parts(p), p.K * parts(p), product(p.kernel)
    lanes = simd.lanes(real_dtype(p))
    rows, columns = channel_tile(out_channels, p.N * p.positions, lanes)
    vector = len(columns) * lanes
    unit = lcm(len(rows), lanes)
    group = unit * max(_GROUP // unit, 1)
    blocks = ceil_div(out_channels, vector)
    strips = _in_strips(p, lanes)
    at_once = _TAPS_OF_FEW if window == blocks == 1 else TAPS_AT_ONCE
    chunks = min(max(channels * window // at_once, 1), channels)
    chunk = even_tile(channels, ceil_div(channels, chunks))
    reach = list(map(span, p.kernel, p.dilation))
    jumps = list(map(_jump, p.stride, p.kernel))

    def extents(tile):
        return tuple((n - 1) * jump + r for n, jump, r in zip(tile, jumps, reach, strict=True))

    def sums(tile):
        """Positions, times the blocks of a piece of work, whose sums are kept."""
        if chunk == channels:
            return group
        pieces = p.groups * product(map(ceil_div, everything, tile))
        return ceil_div(blocks, split_channels(pieces, blocks, p.threads)) * round_up(product(tile), len(rows))

    def small(tile):
        if product(tile) <= len(rows):
            return True
        images, *inner = tile
        return (images * chunk * product(extents(inner)) * itemsize <= (_STRIPS_BYTES if strips else _BUFFER_BYTES)
                and (chunk == channels or sums(tile) * vector * itemsize <= _SUMS_BYTES)
                and p.groups * blocks * product(map(ceil_div, everything, tile)) >= p.threads)

    everything = (p.N, *p.out)
    tile = shrink(everything, (1e-9, *(r / s for r, s in zip(reach, p.stride, strict=True))), small)
    tile = share_tiles(p, everything, tile, p.groups * blocks)
    images = tile[0]
    extent = extents(tile[1:])
    volume = product(extent)
    pieces = p.groups * product(map(ceil_div, everything, tile))
    channel_parts = split_channels(pieces, blocks, p.threads)
    # A panel that serves one tile of one call is not worth a place in memory.
    packs = pieces == p.groups and parts(p) == 1 and not p.reused
    line = max(64 // itemsize, 1)
    # Channels an odd number of cache lines apart do not compete for the same few places in the cache.
    channel_stride = 1 if p.channels_last else len(rows) if strips else (ceil_div(volume, line) | 1) * line
    image_stride = chunk * (volume if p.channels_last else channel_stride)
    strip = chunk * len(rows) + lanes if strips else 0
    buffer_size = ceil_div(product(tile), len(rows)) * strip if strips else images * image_stride
    return _Choice(rows, columns, vector, group, chunk, tuple(tile), extent, image_stride, channel_stride, strip,
                   buffer_size, (sums(tile) + lanes) * vector, channel_parts, packs,
                   pieces * channel_parts, images * channels * volume)


def _in_strips(problem: ConvProblem, lanes: int) -> bool:
    """Whether the buffer holds strips of as many positions as a register tile has, [strips, channels, positions].

    So a product reads it from the first to the last element. Where windows have one element, the input would do as it
    is, but its channels lie far apart, in other pages and often in the same few places of the nearest cache; each
    element is copied once and read for every block of output channels.
    """
    p = problem
    return (product(p.kernel) == 1 and not p.channels_last and parts(p) == 1
            and ceil_div(p.K, lanes) >= _WORTH_STRIPS)


def _in_place(problem: ConvProblem) -> bool:
    """Whether the input serves as the buffer: windows of one element, nothing around it."""
    p = problem
    return product(p.kernel) == 1 and not any(map(any, p.padding)) and set(p.upsample) == set(p.stride) == {1}


def _jump(stride: int, taps: int) -> int:
    """Positions from one output to the next in the buffer, which has no others where a window is one element wide."""
    return 1 if taps == 1 else stride


class PatchLayout(NamedTuple):
    """A tile's shape and where everything lies in its buffers; all that the kernels know of a problem."""

    groups: int
    channels: int              # input channels of one group times parts
    out_channels: int          # output channels of one group times parts
    parts: int                 # 2 for complex numbers
    window: int                # taps of one channel
    chunk: int                 # channels that are gathered and summed at once
    channel_parts: int         # into how many pieces of work the output channels are split
    group: int                 # positions that are summed and stored at once
    positions: int             # output positions of a full tile, of all its images
    rows: int                  # of the padded input under a full tile
    image_stride: int          # of the buffer
    channel_stride: int
    strip: int                 # elements from one strip of positions to the next in the buffer; 0: it has none
    pixels: int                # 1: the channels of a position lie side by side in the buffer
    in_place: int              # 1: windows of one element and no padding, the input serves as the buffer
    packs: int                 # 1: the weight comes as it is, and panels are packed where they are used
    buffer_size: int
    sums_size: int
    out: np.ndarray            # images, then output extents
    tile: np.ndarray           # images of a tile, then its output extents
    stride: np.ndarray
    reach: np.ndarray          # spans of the window, per axis
    steps: np.ndarray          # padded positions between neighbours in the buffer, per axis
    strides: np.ndarray        # buffer stride of a neighbour, per axis
    jumps: np.ndarray          # buffer stride of an output position, per axis
    offsets: np.ndarray        # buffer offset of every tap of a chunk


def _lay_out(problem: ConvProblem) -> PatchLayout:
    p = problem
    choice = _choose(p)
    pixel = choice.chunk if p.channels_last else 1
    strides = [pixel * product(choice.extents[a + 1:]) for a in range(p.rank)]
    offsets = np.arange(choice.chunk, dtype=np.int64) * choice.channel_stride
    for k, d, stride in zip(p.kernel, p.dilation, strides, strict=True):
        offsets = (offsets[:, None] + np.arange(k) * d * stride).ravel()
    window = product(p.kernel)
    jumps = list(map(_jump, p.stride, p.kernel))
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    return PatchLayout(
        groups=p.groups, channels=p.C * parts(p), out_channels=p.K * parts(p), parts=parts(p), window=window,
        chunk=choice.chunk, channel_parts=choice.channel_parts, group=choice.group, positions=product(choice.tile),
        rows=choice.tile[0] * product(choice.extents[:-1]), image_stride=choice.image_stride,
        channel_stride=choice.channel_stride, strip=choice.strip, pixels=int(p.channels_last),
        in_place=int(_in_place(p) and not choice.strip),
        packs=int(choice.packs), buffer_size=choice.buffer_size, sums_size=choice.sums_size, out=vec((p.N, *p.out)),
        tile=vec(choice.tile), stride=vec(p.stride), reach=vec(list(map(span, p.kernel, p.dilation))),
        steps=vec([s // jump for s, jump in zip(p.stride, jumps, strict=True)]), strides=vec(strides),
        jumps=vec([jump * b for jump, b in zip(jumps, strides, strict=True)]), offsets=offsets)


def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight in panels of as many output channels as a register tile has, or as it is; see `PatchLayout.packs`."""
    choice = _choose(problem)
    return weight.reshape(-1) if choice.packs else packed_weight(problem, weight, choice.vector)


@lru_cache(maxsize=256)
def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    choice, layout, maps = _choose(problem), _lay_out(problem), flat_maps(problem)
    kernel, threads = settled(im2col_tile_kernel), min(problem.threads, choice.items)
    unbiased = bias_rows(problem, None, choice.vector)

    def start(x, prepared, bias, out):
        biases = unbiased if bias is None else bias_rows(problem, bias, choice.vector)
        kernel(layout, x, maps, prepared, biases, out, choice.rows, choice.columns, threads)

    return start


run, shortcut = entries(prepare, bind)
