"""The choice of tiles, and what they cost; shared by the algorithms that differ only in their transforms.

A `Family` of tiles answers all that the registry asks an algorithm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up, span
from ...jit import settled
from ...machine import machine as this_machine
from ...problem import ConvProblem
from .. import im2col, simd
from ..arrays import bias_rows, pack_weight, packing_threads, parts, real_dtype, seen
from ..gather import flat_maps
from ..kept import compared, kept, share_of_new
from ..tiles import channel_tile, split_channels
from .kernels import TileLayout, tiles_kernel

CHUNK = 64                     # channels summed in registers: bounds the weight panel and, more so, the rounding
_MOST_TILES = 48               # of a block
CALLS = 1.5                    # that a call is worth, with the transforms of weights that are new
_BLOCK_BYTES = 3 << 19         # of one thread's transformed tiles


class Prepared(NamedTuple):
    """Transformed weights, and the largest input for which no product overflows."""

    weight: np.ndarray         # [groups, blocks of output channels, elements, channels, channels of a block]
    limit: float
    raw: np.ndarray            # for images that need direct sums
    finite: bool


@dataclass(frozen=True)
class Family(ABC):
    """Tiles of one kind: what an algorithm's transforms are, and which of them it allows itself."""

    name: str                  # of its rates

    def refusal(self, problem: ConvProblem) -> str:
        """Why such tiles do not serve a problem; empty: they do."""
        if problem.engine.kind == "i":
            return "the transforms divide, only direct sums keep integers exact"
        if 0 in problem.out or 0 in problem.size:
            return "nothing to transform"
        if max(problem.stride) > 1:
            return "tiles need a stride of 1"
        return ""

    @abstractmethod
    def extents(self, problem: ConvProblem) -> Iterable[tuple[int, ...]]:
        """Samples of a tile, per axis: those that may be the best."""

    @abstractmethod
    def elements(self, extent: tuple[int, ...]) -> int:
        """Of a transformed tile, each with a matrix of its own."""

    @abstractmethod
    def passes(self, extent: tuple[int, ...], dtype: np.dtype) -> Any:
        """What the kernels take for `fourier`."""

    @abstractmethod
    def transformed(self, choice: Choice, out_channels: int) -> float:
        """What the transforms of one tile of all input channels and so many of the output count."""

    @abstractmethod
    def weight_growth(self, problem: ConvProblem, extent: tuple[int, ...]) -> float:
        """How much larger than a product of an input and a weight the numbers on the way to a sum may be."""

    @abstractmethod
    def transform_weight(self, problem: ConvProblem, choice: Choice, packed: np.ndarray,
                         transformed: np.ndarray) -> None:
        """Fill `transformed`, [blocks, elements, channels, vector], from packed [blocks, channels, window, vector]."""

    @abstractmethod
    def least(self, problem: ConvProblem, machine) -> tuple[float, float]:
        """(seconds, error) that no tile undercuts, without threads."""

    @abstractmethod
    def error(self, problem: ConvProblem) -> float:
        """Largest error over the direct method's."""

    # What all families answer alike; see `registry`.

    def cost(self, problem: ConvProblem, machine) -> float:
        """What `counts` says, at the machine's rates."""
        return _seconds(choose(problem, self), problem, machine, self)

    def counts(self, problem: ConvProblem, machine) -> dict[str, float]:
        """Products, transforms of tiles and weights, what is gathered in rows and bytes, weights that are loaded."""
        return _counts(choose(problem, self), problem, machine, self)

    def workspace(self, problem: ConvProblem, machine) -> int:
        """The transformed weight and each thread's block."""
        return _bytes_needed(choose(problem, self), problem)

    def prepare(self, problem: ConvProblem, weight: np.ndarray) -> Prepared:
        """Transform the windows."""
        return _transform_weight(problem, weight, self)

    def bind(self, problem: ConvProblem) -> Callable:
        """All tables of a problem; see `launch`."""
        return _bind(problem, self)


class Choice(NamedTuple):
    """The shape of tiles and blocks, as integers: all that the cost depends on."""

    extent: tuple[int, ...]    # samples of a tile, per axis
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


@lru_cache(maxsize=1024)
def choose(problem: ConvProblem, family: Family) -> Choice:
    """The cheapest tile."""
    choices = [shape for extent in family.extents(problem) for shape in _shapes(problem, extent, family)]
    if len(choices) == 1:
        return choices[0]
    return min(choices, key=lambda choice: _seconds(choice, problem, this_machine(), family))


def _shapes(problem: ConvProblem, extent: tuple[int, ...], family: Family) -> Iterator[Choice]:
    """One shape, or two where there are so few tiles that threads either share them or the output channels."""
    p = problem
    itemsize = real_dtype(p).itemsize
    lanes = simd.lanes(real_dtype(p))
    channels, out_channels = p.C * parts(p), p.K * parts(p)
    valid = tuple(n - span(r, d) + 1 for n, r, d in zip(extent, p.kernel, p.dilation, strict=True))
    grid = tuple(map(ceil_div, p.out, valid))
    tiles, elements = p.N * product(grid), family.elements(extent)
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
    few = p.groups * ceil_div(tiles, count) < p.threads
    for size in {count, ceil_div(p.groups * tiles, p.threads)} if few else {count}:
        blocks = ceil_div(tiles, size)
        split = split_channels(p.groups * blocks, k_blocks, p.threads)
        yield Choice(extent, valid, grid, tiles, size, elements, rows, columns, round_up(size, M), vector, k_blocks,
                     channels, x_row, split, p.groups * blocks * split)


def _run(choice: Choice) -> int:
    """Most tiles of a block that lie side by side."""
    return min(choice.grid[-1], choice.count)


def _row_width(choice: Choice) -> int:
    """Samples of a row under them."""
    return (_run(choice) - 1) * choice.valid[-1] + choice.extent[-1]


def _step(size: int, problem: ConvProblem) -> int:
    """Matrices an odd number of cache lines apart do not compete for the same few places in the cache."""
    line = max(64 // real_dtype(problem).itemsize, 1)
    return (ceil_div(size, line) | 1) * line


def _lay_out(problem: ConvProblem, choice: Choice) -> TileLayout:
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    return TileLayout(
        groups=problem.groups, channels=choice.channels, out_channels=problem.K * parts(problem), parts=parts(problem),
        chunk=min(CHUNK, choice.x_row), channel_parts=choice.channel_parts, tiles=choice.tiles, count=choice.count,
        elements=choice.elements, rows=product(choice.extent[:-1]), run=_run(choice), width=_row_width(choice),
        x_step=_step(choice.padded * choice.x_row, problem), x_row=choice.x_row,
        y_step=_step(choice.padded * choice.vector, problem), grid=vec(choice.grid), extent=vec(choice.extent),
        valid=vec(choice.valid), out=vec(problem.out))


def _seconds(choice: Choice, problem: ConvProblem, machine, family: Family) -> float:
    return machine.seconds(_counts(choice, problem, machine, family))


def _counts(choice: Choice, problem: ConvProblem, machine, family: Family) -> dict[str, float]:
    itemsize, rates = real_dtype(problem).itemsize, family.name
    threads = min(problem.threads, choice.items)
    share = ceil_div(choice.items, threads)            # pieces of work of one thread
    tiles = share * choice.count
    k_blocks = ceil_div(choice.blocks, choice.channel_parts)
    products = 2 * share * k_blocks * choice.elements * choice.padded * choice.channels * choice.vector
    panel = choice.elements * choice.channels * choice.vector * itemsize
    weights = problem.groups * choice.blocks * panel
    block = choice.elements * choice.padded * (choice.x_row + choice.vector) * itemsize
    pixels = product(choice.extent[:-1]) * choice.x_row           # gathered for one position of the last axis
    transformed = tiles * family.transformed(choice, k_blocks * choice.vector) * 2 * itemsize
    new = share_of_new(problem, weights) * weights
    return {"call": problem.calls(CALLS), "start": 2 * (threads > 1),
            f"{rates}.products": products / machine.flops(problem.engine), f"{rates}.loaded": share * k_blocks * panel,
            f"{rates}.spilled": share * k_blocks * machine.streamed(block), f"{rates}.tiles": tiles,
            f"{rates}.gathered": tiles * pixels * choice.valid[-1] * itemsize,
            f"{rates}.rows": share * pixels * max(choice.count / choice.grid[-1], 1),
            f"{rates}.transformed": transformed, f"{rates}.weights": new / packing_threads(problem, weights / itemsize),
            "byte": machine.traffic(problem) / threads + compared(problem, weights, machine)}


def _bytes_needed(choice: Choice, problem: ConvProblem) -> int:
    weight = problem.groups * choice.blocks * choice.elements * choice.channels * choice.vector
    tiles = _step(choice.padded * choice.x_row, problem) + _step(choice.padded * choice.vector, problem)
    buffer = product(choice.extent[:-1]) * _row_width(choice) * min(CHUNK, choice.x_row)
    return real_dtype(problem).itemsize * (weight + problem.threads * (choice.elements * tiles + buffer))


@kept
def _transform_weight(problem: ConvProblem, weight: np.ndarray, family: Family) -> Prepared:
    """The windows in the tile's elements, in panels of as many output channels as a register tile has."""
    choice = choose(problem, family)
    raw = weight.copy() if problem.reused else np.ascontiguousarray(weight)
    real = raw.reshape(-1).view(real_dtype(problem))
    largest = max(float(real.max()), -float(real.min()))
    if not isfinite(largest):
        return Prepared(real[:0], 0.0, raw, False)
    packed = pack_weight(problem, raw, choice.vector)
    transformed = np.empty(packed.size // product(problem.kernel) * choice.elements, real.dtype)
    family.transform_weight(problem, choice, packed, transformed)
    ceiling = float(np.finfo(real.dtype).max) / (family.weight_growth(problem, choice.extent) * choice.channels)
    return Prepared(transformed, ceiling / max(largest, 1.0), raw, True)


@lru_cache(maxsize=256)
def _bind(problem: ConvProblem, family: Family) -> Callable:
    """All tables of a problem; see `launch`.

    Images that tiles cannot hold, and weights that they cannot, are left to im2col's direct sums.
    """
    choice = choose(problem, family)
    layout, maps = _lay_out(problem, choice), flat_maps(problem)
    passes = family.passes(choice.extent, real_dtype(problem))
    kernel, threads = settled(tiles_kernel), min(problem.threads, choice.items)
    unbiased = bias_rows(problem, None, choice.vector)

    def start(x, prepared, bias, out):
        uneven = np.full(problem.N, not prepared.finite, np.uint8)
        if prepared.finite:
            biases = unbiased if bias is None else bias_rows(problem, bias, choice.vector)
            kernel(layout, passes, x, maps, prepared.weight, biases, prepared.limit, uneven, out, choice.rows,
                   choice.columns, threads)
        if uneven.any():
            images = np.flatnonzero(uneven)
            direct = problem.replace(N=len(images))
            result = np.empty(direct.out_shape, problem.engine)
            im2col.run(direct, im2col.prepare(direct, prepared.raw), seen(x, problem, problem.x_shape)[images], bias,
                       result)
            seen(out, problem, problem.out_shape)[images] = result

    return start
