"""The choice of tiles, and what a tile costs; shared by the algorithms that differ only in the tiles they allow."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product as every
from math import isfinite
from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up
from ...jit import settled
from ...machine import machine as this_machine
from ...problem import ConvProblem
from .. import im2col, simd
from ..arrays import bias_rows, pack_weight, packing_threads, parts, real_dtype, seen
from ..gather import flat_maps
from ..kept import compared, kept, share_of_new
from ..tiles import channel_tile, split_channels
from .points import matrices
from .tiles import TileLayout, winograd_tile_kernel, winograd_weight_kernel

_CHUNK = 64                    # channels summed in registers: bounds the weight panel and, more so, the rounding
_MOST_TILES = 48               # of a block
CALLS = 1.5                    # that a call is worth, with the transforms of weights that are new
_BLOCK_BYTES = 3 << 19         # of one thread's transformed tiles
_ERROR = {4: (1.6, 1.6, 1.6), 6: (4.0, 5.5, 7.5), 8: (14.0, 32.0, 150.0)}
"""Largest error over the direct method's of tiles of so many elements in one, two, three axes; docs/winograd.rst."""


class Tiles(NamedTuple):
    """The tiles of an algorithm."""

    extents: tuple[int, ...]   # that an axis may have
    own: int                   # that one has at least, windows permitting: smaller tiles are another algorithm's


class _Choice(NamedTuple):
    """The shape of tiles and blocks, as integers: all that the cost depends on."""

    extent: tuple[int, ...]    # elements of a tile, per axis
    valid: tuple[int, ...]     # its outputs, per axis
    grid: tuple[int, ...]      # tiles per axis
    tiles: int
    count: int                 # tiles of a block
    elements: int              # of a tile
    rows: tuple                # register tile
    columns: tuple
    padded: int                # tiles of a block, up to the register tile's
    vector: int                # output channels of a block
    blocks: int                # of output channels
    channels: int              # of the input, times parts
    x_row: int                 # the same in whole vectors
    channel_parts: int         # into how many pieces of work the output channels are split
    items: int                 # pieces of work to share


class Prepared(NamedTuple):
    """Transformed weights, and the largest input for which no product overflows."""

    weight: np.ndarray         # [groups, blocks of output channels, elements, channels, channels of a block]
    limit: float
    raw: np.ndarray            # for images that need direct sums
    finite: bool


def refusal(problem: ConvProblem, family: Tiles) -> str:
    """Why tiles of a family do not serve a problem; empty: they do."""
    longest, most = max(problem.kernel), family.extents[-1]
    if longest >= most:
        return f"a window of {longest} is too long for tiles of {most}"
    if problem.engine.kind == "i":
        return "the transforms divide, only direct sums keep integers exact"
    if 0 in problem.out or 0 in problem.size:
        return "nothing to transform"
    if max(problem.stride) > 1:
        return "tiles need a stride of 1"
    if max(problem.dilation) > 1 and any(d > 1 < k for d, k in zip(problem.dilation, problem.kernel, strict=True)):
        return "tiles need a dilation of 1"
    if longest == 1:
        return "a window of one tap has nothing to save"
    return ""


@lru_cache(maxsize=1024)
def choose(problem: ConvProblem, family: Tiles) -> _Choice:
    """The cheapest tile."""
    lists = [{_extent(_most(r, family), r, o, n) for n in family.extents}
             for r, o in zip(problem.kernel, problem.out, strict=True)]
    own = min(family.own, max(map(max, lists)))
    choices = [_shape(problem, tile) for tile in every(*map(sorted, lists)) if max(tile) >= own]
    return min(choices, key=lambda choice: seconds(choice, problem, this_machine()))


def _extent(largest: int, taps: int, out: int, wanted: int) -> int:
    """A tile's extent along an axis: the wanted one, as far as the window allows it, less where less holds the axis."""
    if largest == 1:
        return 1
    least = 4 if taps < 4 else 6 if taps < 6 else 8
    while out + taps - 1 > least < min(wanted, largest):
        least += 2
    return least


def _shape(problem: ConvProblem, extent: tuple[int, ...]) -> _Choice:
    p = problem
    itemsize = real_dtype(p).itemsize
    lanes = simd.lanes(real_dtype(p))
    channels, out_channels = p.C * parts(p), p.K * parts(p)
    valid = tuple(n - r + 1 for n, r in zip(extent, p.kernel, strict=True))
    grid = tuple(map(ceil_div, p.out, valid))
    tiles, elements = p.N * product(grid), product(extent)
    rows, columns = channel_tile(out_channels, min(tiles, _MOST_TILES), lanes)
    M, vector = len(rows), len(columns) * lanes
    k_blocks = ceil_div(out_channels, vector)
    x_row = round_up(channels, lanes)

    def share(count):                                  # of one thread, in register tiles
        pieces = p.groups * ceil_div(tiles, count)
        split = split_channels(pieces, k_blocks, p.threads)
        return ceil_div(pieces * split, p.threads) * ceil_div(k_blocks, split) * ceil_div(min(count, tiles), M)

    most = max(min(_MOST_TILES, _BLOCK_BYTES // (elements * x_row * itemsize)) // M, 1) * M
    # Each weight is loaded once a block: few tiles wait for it.
    count = min(range(max(most // 2 // M, 1) * M, most + 1, M), key=lambda t: (share(t) * (1 + 8 / t), -t))
    count = min(count, tiles)
    blocks = ceil_div(tiles, count)
    split = split_channels(p.groups * blocks, k_blocks, p.threads)
    return _Choice(extent, valid, grid, tiles, count, elements, rows, columns, round_up(count, M), vector, k_blocks,
                   channels, x_row, split, p.groups * blocks * split)


def _row_width(choice: _Choice, problem: ConvProblem) -> int:
    """Pixels of a row under the tiles of a block."""
    return min(choice.grid[-1], choice.tiles) * choice.valid[-1] + problem.kernel[-1] - 1


def _step(size: int, problem: ConvProblem) -> int:
    """Matrices an odd number of cache lines apart do not compete for the same few places in the cache."""
    line = max(64 // real_dtype(problem).itemsize, 1)
    return (ceil_div(size, line) | 1) * line


@lru_cache(maxsize=256)
def _lay_out(problem: ConvProblem, family: Tiles) -> TileLayout:
    choice = choose(problem, family)
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    return TileLayout(
        groups=problem.groups, channels=choice.channels, out_channels=problem.K * parts(problem), parts=parts(problem),
        chunk=min(_CHUNK, choice.x_row), channel_parts=choice.channel_parts, tiles=choice.tiles, count=choice.count,
        elements=choice.elements, rows=product(choice.extent[:-1]), width=_row_width(choice, problem),
        x_step=_step(choice.padded * choice.x_row, problem), x_row=choice.x_row,
        y_step=_step(choice.padded * choice.vector, problem), grid=vec(choice.grid), extent=vec(choice.extent),
        valid=vec(choice.valid), out=vec(problem.out))


def least(problem: ConvProblem, machine, family: Tiles) -> tuple[float, float]:
    """(seconds, error) that no tile undercuts: products and transforms of the largest tiles, without threads."""
    p = problem
    real = real_dtype(p)
    C, K = (round_up(channels * parts(p), simd.lanes(real)) for channels in (p.C, p.K))
    extents = [_extent(_most(r, family), r, o, family.extents[-1]) for r, o in zip(p.kernel, p.out, strict=True)]
    elements = p.N * p.groups * product(map(_elements, p.out, p.kernel, extents))
    products = 2 * elements * p.C * parts(p) * K / machine.flops(p.engine)
    counted = {"call": p.calls(CALLS), "winograd.products": products}
    return machine.seconds(counted), _ERROR[min(family.own, max(extents))][0]


def _most(taps: int, family: Tiles) -> int:
    """The largest extent of a tile along an axis; with many outputs for few taps it is the least exact."""
    return 1 if taps == 1 else 4 if taps == 2 else family.extents[-1]


def _elements(out: int, taps: int, extent: int) -> float:
    """Elements of all tiles along an axis, at least."""
    return out * extent / (extent - taps + 1)


def seconds(choice: _Choice, problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates, which all families share."""
    return machine.seconds(counts(choice, problem, machine))


def counts(choice: _Choice, problem: ConvProblem, machine) -> dict[str, float]:
    """Products, transforms of tiles and weights, what is gathered in rows and bytes, weights that are loaded."""
    itemsize = real_dtype(problem).itemsize
    threads = min(problem.threads, choice.items)
    share = ceil_div(choice.items, threads)            # pieces of work of one thread
    tiles = share * choice.count
    k_blocks = ceil_div(choice.blocks, choice.channel_parts)
    products = 2 * share * k_blocks * choice.elements * choice.padded * choice.channels * choice.vector
    panel = choice.elements * choice.channels * choice.vector * itemsize
    weights = problem.groups * choice.blocks * panel
    pixels = product(choice.extent[:-1]) * choice.x_row           # gathered for one position of the last axis
    axes = sum(n > 1 for n in choice.extent)
    return {"call": problem.calls(CALLS), "start": 2 * (threads > 1),
            "winograd.products": products / machine.flops(problem.engine), "winograd.loaded": share * k_blocks * panel,
            "winograd.tiles": tiles, "winograd.gathered": tiles * pixels * choice.valid[-1] * itemsize,
            "winograd.rows": share * pixels * max(choice.count / choice.grid[-1], 1),
            "winograd.transformed": tiles * choice.elements * axes * 2 * itemsize * k_blocks * choice.vector,
            "winograd.weights": share_of_new(problem, weights) * weights / packing_threads(problem, weights / itemsize),
            "byte": machine.traffic(problem) / threads + compared(problem, weights, machine)}


def bytes_needed(problem: ConvProblem, family: Tiles) -> int:
    """The transformed weight and each thread's block."""
    choice = choose(problem, family)
    weight = problem.groups * choice.blocks * choice.elements * choice.channels * choice.vector
    tiles = _step(choice.padded * choice.x_row, problem) + _step(choice.padded * choice.vector, problem)
    buffer = product(choice.extent[:-1]) * _row_width(choice, problem) * min(_CHUNK, choice.x_row)
    return real_dtype(problem).itemsize * (weight + problem.threads * (choice.elements * tiles + buffer))


def expected_error(problem: ConvProblem, family: Tiles) -> float:
    """Largest error over the direct method's; each axis beyond the third counts as another third one."""
    long = [n for n in choose(problem, family).extent if n > 1]
    largest = max(long)
    axes = long.count(largest)
    first, second, third = _ERROR[largest]
    few = max(1.0, 2.4 / (problem.C * parts(problem)) ** 0.5)       # short sums leave the direct method little error
    return few * (first, second, third)[min(axes, 3) - 1] * (third / second) ** max(axes - 3, 0)


@kept
def transform_weight(problem: ConvProblem, weight: np.ndarray, family: Tiles) -> Prepared:
    """The windows in the tile's elements, in panels of as many output channels as a register tile has."""
    choice = choose(problem, family)
    factors = _weight_factors(problem, family)
    raw = weight.copy() if problem.reused else np.ascontiguousarray(weight)
    real = raw.reshape(-1).view(real_dtype(problem))
    largest = max(float(real.max()), -float(real.min()))
    if not isfinite(largest):
        return Prepared(real[:0], 0.0, raw, False)
    packed = pack_weight(problem, raw, choice.vector)
    transformed = np.empty(packed.size // product(problem.kernel) * choice.elements, real.dtype)
    winograd_weight_kernel(packed, factors.extent, factors.window, factors.matrices, factors.starts, choice.channels,
                           choice.vector, transformed, packing_threads(problem, transformed.size))
    return Prepared(transformed, factors.ceiling / max(largest, 1.0), raw, True)


class _WeightFactors(NamedTuple):
    """What transforms windows."""

    extent: np.ndarray         # of a tile
    window: np.ndarray
    matrices: np.ndarray       # G of every axis, one behind the other
    starts: np.ndarray         # where an axis' begins
    ceiling: float             # the largest product of an input and a weight with which no sum overflows


@lru_cache(maxsize=256)
def _weight_factors(problem: ConvProblem, family: Tiles) -> _WeightFactors:
    choice, dtype = choose(problem, family), real_dtype(problem)
    factors = list(map(matrices, choice.extent, choice.valid))
    growth = product(float(np.abs(matrix).sum(1).max()) for axis in factors for matrix in axis)
    return _WeightFactors(
        np.array(choice.extent, np.int64), np.array(problem.kernel, np.int64),
        np.concatenate([G.ravel() for _, G, _ in factors]).astype(dtype),
        np.cumsum([0] + [G.size for _, G, _ in factors], dtype=np.int64),
        float(np.finfo(dtype).max) / (growth * choice.channels))


@lru_cache(maxsize=256)
def bind(problem: ConvProblem, family: Tiles) -> Callable:
    """All tables of a problem; see `launch`.

    Images that tiles cannot hold, and weights that they cannot, are left to im2col's direct sums.
    """
    choice, layout, maps = choose(problem, family), _lay_out(problem, family), flat_maps(problem)
    kernel, threads = settled(winograd_tile_kernel), min(problem.threads, choice.items)
    unbiased = bias_rows(problem, None, choice.vector)

    def start(x, prepared, bias, out):
        uneven = np.full(problem.N, not prepared.finite, np.uint8)
        if prepared.finite:
            biases = unbiased if bias is None else bias_rows(problem, bias, choice.vector)
            kernel(layout, x, maps, prepared.weight, biases, prepared.limit, uneven, out, choice.rows, choice.columns,
                   threads)
        if uneven.any():
            images = np.flatnonzero(uneven)
            direct = problem.replace(N=len(images))
            result = np.empty(direct.out_shape, problem.engine)
            im2col.run(direct, im2col.prepare(direct, prepared.raw), seen(x, problem, problem.x_shape)[images], bias,
                       result)
            seen(out, problem, problem.out_shape)[images] = result

    return start
