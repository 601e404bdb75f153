"""The choice of tiles, and what a tile costs; shared by the algorithms that differ only in the tiles they allow."""

from __future__ import annotations

from functools import lru_cache
from itertools import product as every
from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up
from ...machine import machine as this_machine
from ...problem import ConvProblem
from .. import im2col, simd
from ..arrays import bias_vector, flat_maps, operand, pack_weight, parts, real_dtype
from ..tiles import channel_tile, split_channels
from .points import matrices
from .tiles import TileLayout, winograd_tile_kernel, winograd_weight_kernel

_CHUNK = 64                    # channels summed in registers: bounds the weight panel and, more so, the rounding
_MOST_TILES = 48               # of a block
_BLOCK_BYTES = 3 << 19         # of one thread's transformed tiles
_ERROR = {4: (1.6, 1.6, 1.6), 6: (4.0, 5.5, 7.5), 8: (14.0, 32.0, 150.0)}
"""Largest error over the direct method's of tiles of so many elements in one, two, three axes; docs/winograd.rst."""


class _Choice(NamedTuple):
    """A layout with what only the host needs."""

    layout: TileLayout
    rows: tuple                # register tile
    columns: tuple
    padded: int                # tiles of a block, up to the register tile's
    vector: int                # output channels of a block
    blocks: int                # of output channels
    items: int                 # pieces of work to share


class Prepared(NamedTuple):
    """Transformed weights, and the largest input for which no product overflows."""

    weight: np.ndarray         # [groups, blocks of output channels, elements, channels, channels of a block]
    limit: float
    raw: np.ndarray            # for images that need direct sums
    finite: bool


def refusal(problem: ConvProblem, extents: tuple[int, ...]) -> str:
    """Why tiles of at most the largest of `extents` do not serve a problem; empty: they do."""
    if problem.engine.kind == "i":
        return "the transforms divide, only direct sums keep integers exact"
    if 0 in problem.out or 0 in problem.size:
        return "nothing to transform"
    if any(s > 1 for s in problem.stride):
        return "tiles need a stride of 1"
    if any(d > 1 and k > 1 for d, k in zip(problem.dilation, problem.kernel, strict=True)):
        return "tiles need a dilation of 1"
    if max(problem.kernel) > extents[-1] - 1:
        return f"a window of {max(problem.kernel)} is too long for tiles of {extents[-1]}"
    if max(problem.kernel) == 1:
        return "a window of one tap has nothing to save"
    return ""


@lru_cache(maxsize=256)
def choose(problem: ConvProblem, extents: tuple[int, ...]) -> _Choice:
    """The cheapest tile."""
    # Tiles with more outputs for few taps are the least exact, and save little more.
    lists = [[1] if r == 1 else [n for n in extents if n > r and (n == 4 or r > 2)] for r in problem.kernel]
    layouts = [_lay_out(problem, tile) for tile in every(*lists)]
    return min(layouts, key=lambda choice: seconds(choice, problem, this_machine()))


def _lay_out(problem: ConvProblem, extent: tuple[int, ...]) -> _Choice:
    p = problem
    real = real_dtype(p)
    lanes = simd.lanes(real)
    channels, out_channels = p.C * parts(p), p.K * parts(p)
    valid = [n - r + 1 for n, r in zip(extent, p.kernel, strict=True)]
    grid = [ceil_div(o, m) for o, m in zip(p.out, valid, strict=True)]
    tiles, elements = p.N * product(grid), product(extent)
    rows, columns = channel_tile(out_channels, min(tiles, _MOST_TILES), lanes)
    M, vector = len(rows), len(columns) * lanes
    k_blocks = ceil_div(out_channels, vector)
    x_row = round_up(channels, lanes)

    def share(count):                                  # of one thread, in register tiles
        pieces = p.groups * ceil_div(tiles, count)
        split = split_channels(pieces, k_blocks, p.threads)
        return ceil_div(pieces * split, p.threads) * ceil_div(k_blocks, split) * ceil_div(min(count, tiles), M)

    most = max(min(_MOST_TILES, _BLOCK_BYTES // (elements * x_row * real.itemsize)) // M, 1) * M
    # Each weight is loaded once a block: few tiles wait for it.
    count = min(range(M, most + 1, M), key=lambda t: (share(t) * (1 + 8 / t), -t))
    count = min(count, tiles)
    blocks = ceil_div(tiles, count)
    line = max(64 // real.itemsize, 1)
    padded = round_up(count, M)
    # Matrices an odd number of cache lines apart do not compete for the same few places in the cache.
    step = lambda size: (ceil_div(size, line) | 1) * line                              # noqa: E731
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    split = split_channels(p.groups * blocks, k_blocks, p.threads)
    layout = TileLayout(
        groups=p.groups, channels=channels, out_channels=out_channels, parts=parts(p), chunk=min(_CHUNK, x_row),
        channel_parts=split, tiles=tiles, count=count, elements=elements, rows=product(extent[:-1]),
        width=min(grid[-1], tiles) * valid[-1] + p.kernel[-1] - 1, x_step=step(padded * x_row), x_row=x_row,
        y_step=step(padded * vector), grid=vec(grid), extent=vec(extent), valid=vec(valid), out=vec(p.out))
    return _Choice(layout, rows, columns, padded, vector, k_blocks, p.groups * blocks * split)


def seconds(choice: _Choice, problem: ConvProblem, machine) -> float:
    """Products, transforms of tiles and weights, gathering and storing."""
    layout = choice.layout
    itemsize = real_dtype(problem).itemsize
    threads = min(problem.threads, choice.items)
    axes = problem.rank
    share = ceil_div(choice.items, threads)            # pieces of work of one thread
    k_blocks = ceil_div(choice.blocks, layout.channel_parts)
    products = 2 * share * k_blocks * layout.elements * choice.padded * layout.channels * choice.vector / (
        machine.flops(problem.engine) * machine.efficiency["winograd"])
    panel = layout.elements * layout.channels * choice.vector * itemsize
    weight = problem.groups * choice.blocks * panel
    loaded = share * k_blocks * panel / (machine.cache_rate if weight < machine.l3 else machine.bandwidth)
    pixels = layout.rows * int(layout.valid[-1])       # gathered for one tile
    per_tile = layout.elements * axes * 2 * itemsize * (
        layout.x_row + k_blocks * choice.vector)       # each element is loaded and stored by each axis's transform
    transformed = share * layout.count * per_tile / machine.register_rate
    gathered = share * layout.count * pixels * layout.x_row * itemsize / machine.gather_rate
    stored = product(problem.out_shape) * problem.engine.itemsize / machine.bandwidth / threads
    prepared = 0 if problem.reused else weight * (
        1 / machine.bandwidth + axes * 2 / machine.register_rate) / problem.threads
    return max(products, loaded) + transformed + gathered + stored + prepared + 2 * machine.call + (
        2 * machine.parallel_start if threads > 1 else 0)


def bytes_needed(problem: ConvProblem, extents: tuple[int, ...]) -> int:
    """The transformed weight and each thread's block."""
    choice = choose(problem, extents)
    layout = choice.layout
    weight = problem.groups * choice.blocks * layout.elements * layout.channels * choice.vector
    buffer = layout.rows * layout.width * layout.chunk
    return real_dtype(problem).itemsize * (
        weight + problem.threads * (layout.elements * (layout.x_step + layout.y_step) + buffer))


def expected_error(problem: ConvProblem, extents: tuple[int, ...]) -> float:
    """Largest error over the direct method's; each axis beyond the third counts as another third one."""
    long = [int(n) for n in choose(problem, extents).layout.extent if n > 1]
    largest = max(long)
    axes = long.count(largest)
    first, second, third = _ERROR[largest]
    few = max(1.0, 2.4 / (problem.C * parts(problem)) ** 0.5)       # short sums leave the direct method little error
    return few * (first, second, third)[min(axes, 3) - 1] * (third / second) ** max(axes - 3, 0)


def transform_weight(problem: ConvProblem, weight: np.ndarray, extents: tuple[int, ...]) -> Prepared:
    """The windows in the tile's elements, in panels of as many output channels as a register tile has."""
    choice = choose(problem, extents)
    layout = choice.layout
    raw = np.ascontiguousarray(weight)
    real = raw.reshape(-1).view(real_dtype(problem))
    largest = max(real.max(), -real.min())
    if not np.isfinite(largest):
        return Prepared(real[:0], 0.0, raw, False)
    factors = [matrices(int(n), int(m)) for n, m in zip(layout.extent, layout.valid, strict=True)]
    growth = product(float(np.abs(matrix).sum(1).max()) for axis in factors for matrix in axis)
    limit = float(np.finfo(real.dtype).max) / (growth * max(float(largest), 1.0) * layout.channels)
    packed = pack_weight(problem, raw, choice.vector)
    starts = np.concatenate([[0], np.cumsum([G.size for _, G, _ in factors])]).astype(np.int64)
    transformed = np.empty(packed.size // product(problem.kernel) * layout.elements, real.dtype)
    winograd_weight_kernel(
        packed, layout.extent, np.array(problem.kernel, np.int64),
        np.concatenate([G.ravel() for _, G, _ in factors]).astype(real.dtype), starts, layout.channels, choice.vector,
        transformed, problem.threads if transformed.size > 1 << 17 else 1)
    return Prepared(transformed, limit, raw, True)


def convolve_tiles(problem: ConvProblem, prepared: Prepared, x: np.ndarray, bias: np.ndarray | None, out: np.ndarray,
                   extents: tuple[int, ...]) -> None:
    """Fill `out`; images that tiles cannot hold, and weights that they cannot, are left to im2col's direct sums."""
    uneven = np.full(problem.N, not prepared.finite, np.uint8)
    if prepared.finite:
        choice = choose(problem, extents)
        channels = choice.layout.out_channels
        biases = np.zeros((problem.groups, choice.blocks * choice.vector), real_dtype(problem))
        if bias is not None:
            biases[:, :channels] = bias_vector(problem, bias).reshape(problem.groups, channels)
        winograd_tile_kernel(choice.layout, operand(x), flat_maps(problem), prepared.weight, biases.reshape(-1),
                             prepared.limit, uneven, operand(out), choice.rows, choice.columns,
                             min(problem.threads, choice.items))
    if uneven.any():
        images = np.flatnonzero(uneven)
        direct = problem.replace(N=len(images))
        result = np.empty(direct.out_shape, problem.engine)
        im2col.run(direct, im2col.prepare(direct, prepared.raw), x[images], bias, result)
        out[images] = result
