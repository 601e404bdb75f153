"""Convolution by Fourier transforms of small tiles, whose points are multiplied as matrices over the channels.

`fft` multiplies block by block and channel by channel, at the speed of the caches; here many tiles wait for each
weight, as in Winograd's method, whose kernels these are. Tiles may be long, so windows may, and rounding stays that of
Fourier transforms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from heapq import nsmallest
from itertools import product as every
from math import inf, log2
from typing import NamedTuple

import numpy as np

from ..geometry import ceil_div, product, round_up, span
from ..problem import ConvProblem
from . import simd
from .arrays import packing_threads, parts, real_dtype
from .fft.transforms import Passes, levels, passes, smooth
from .kept import MOST_BYTES, share_of_new
from .launch import entries
from .tiled import choice
from .tiled.fourier import fourier_weight_kernel
from .tiles import channel_tile

# ------------------------------------------------------------------------------------------------- The choice

NAME = "fft_tiles"
SUPPORTS = "floating and complex types; windows of several taps, no stride"
REFERENCE = ("Zlateski, Jia, Li, Durand 2018, FFT Convolutions are Faster than Winograd on Modern CPUs, Here is Why "
             "(arXiv 1809.07851); Bernstein 2001, Multidigit multiplication for mathematicians (real numbers in "
             "t^n = i)")
CALLS = choice.CALLS
_FOLDING = 4                   # levels of passes that the first and the last step of a transform take beside them
_CALL = 75                     # beginning a transform, in such levels of points
# For the choice of extents, in products of samples and weights:
_LEVEL = 4.2                   # a level of a sample's transform
_GATHER = 60                   # gathering a sample
_SPILL = 30                    # writing its transform into memory beyond the second cache, and reading it
_NEW = 200                     # making the spectrum of a window's sample
_MOST_BLOCK = 1 << 24          # bytes of the tiles that one thread holds
_NEAR = 1 << 20                # of which so many are near
_LESS = 0.9                    # samples in all for which a longer tile is considered
_TRIED = 3                     # of which so many are weighed in full
_MANY = 48                     # tiles of a block that are not few


@dataclass(frozen=True)
class _Fourier(choice.Family):
    """Tiles of any extents without large factors; that of the first axis is even."""

    def refusal(self, problem: ConvProblem) -> str:
        if reason := super().refusal(problem):
            return reason
        if product(problem.kernel) == 1:
            return "a window of one tap has nothing to save"
        shortest = [_least_length(span(r, d), _unit(a))
                    for a, (r, d) in enumerate(zip(problem.kernel, problem.dilation, strict=True))]
        if product(shortest) > _widths(problem).most:
            return "the spectra of the windows or a thread's tiles would take too much memory"
        return ""

    def extents(self, problem: ConvProblem) -> list[tuple[int, ...]]:
        return _extents(problem)

    def elements(self, extent: tuple[int, ...]) -> int:
        return 3 * product(extent) // 2

    def passes(self, extent: tuple[int, ...], dtype: np.dtype) -> Passes:
        return passes((extent[0] // 2, *extent[1:]), -np.pi / 2, dtype)          # t^n = i

    def transformed(self, choice: choice.Choice, out_channels: int) -> float:
        levels = product(choice.extent) / 2 * (_levels(choice.extent) + _FOLDING)
        return (levels + _CALL) * (choice.x_row + out_channels)

    def weight_growth(self, problem: ConvProblem, extent: tuple[int, ...]) -> float:
        return 8.0 * product(extent) * product(problem.kernel)

    def transform_weight(self, problem: ConvProblem, choice: choice.Choice, packed: np.ndarray,
                         transformed: np.ndarray) -> None:
        vec = lambda values: np.array(values, np.int64)                                # noqa: E731
        fourier_weight_kernel(packed, self.passes(choice.extent, packed.dtype), vec(choice.extent), vec(problem.kernel),
                              vec(problem.dilation), choice.channels, choice.vector, transformed,
                              packing_threads(problem, transformed.size))

    def least(self, problem: ConvProblem, machine) -> tuple[float, float]:
        """(seconds, error) that no tiles undercut: products and transforms of all samples, without threads."""
        p, widths = problem, _widths(problem)
        spans = list(map(span, p.kernel, p.dilation))
        samples = p.N * p.groups * product(o + w - 1 for o, w in zip(p.out, spans, strict=True))
        channels, itemsize = widths.x_row + widths.K, real_dtype(p).itemsize
        depth = log2(product(spans)) - 1 + _FOLDING
        products = 3 * samples * widths.C * widths.K
        return machine.seconds({
            "call": p.calls(CALLS), f"{self.name}.products": products / machine.flops(p.engine),
            f"{self.name}.transformed": samples * depth * channels * itemsize}), _error(product(spans))

    def error(self, problem: ConvProblem) -> float:
        """Roundings grow with the logarithm of the tile, over those of one window's sum."""
        return _error(product(choice.choose(problem, self).extent))


def _error(points: int) -> float:
    return max(1.0, 0.25 * log2(points))


def _levels(extent: tuple[int, ...]) -> float:
    return levels(extent[0] // 2) + sum(map(levels, extent[1:]))


class _Widths(NamedTuple):
    """Channels as the kernels take them, for the choice of extents."""

    C: int                     # of the input, times parts
    x_row: int                 # the same in whole vectors
    K: int                     # of the output, in whole blocks
    M: int                     # tiles of a register tile
    vector: int                # output channels of a block
    most: int                  # samples of a tile for whose spectra, of all windows, and block there is memory
    near: int                  # samples of a tile whose block stays near


@lru_cache(maxsize=1024)
def _widths(problem: ConvProblem) -> _Widths:
    p = problem
    itemsize, lanes, C, K = real_dtype(p).itemsize, simd.lanes(real_dtype(p)), p.C * parts(p), p.K * parts(p)
    rows, columns = channel_tile(K, _MANY, lanes)
    M, vector, x_row = len(rows), len(columns) * lanes, round_up(C, lanes)
    weights, block = (3 * numbers * itemsize / 2 for numbers in (p.groups * C * K, M * (x_row + vector)))  # of a sample
    return _Widths(C, x_row, round_up(K, vector), M, vector, int(min(MOST_BYTES / 2 / weights, _MOST_BLOCK / block)),
                   int(_NEAR / block))


class _Length(NamedTuple):
    """A good extent of a tile along one axis."""

    samples: int
    count: int                 # of tiles
    levels: float


def _unit(axis: int) -> int:
    """What divides the samples of an axis: the first one's are folded."""
    return 1 if axis else 2


def _least_length(window: int, unit: int) -> int:
    return smooth(ceil_div(window, unit)) * unit


@lru_cache(maxsize=4096)
def _lengths(window: int, out: int, unit: int) -> list[_Length]:
    """Extents from about the window's to that of the whole axis, longer only where they leave fewer samples in all."""
    found: list[_Length] = []
    whole, samples = _least_length(out + window - 1, unit), _least_length(window, unit)
    while True:
        count = ceil_div(out, samples - window + 1)
        if not found or samples * count < _LESS * found[-1].samples * found[-1].count:
            found.append(_Length(samples, count, levels(samples // unit)))
        if samples >= whole:
            return found
        samples = _least_length(samples + 1, unit)


@lru_cache(maxsize=1024)
def _extents(problem: ConvProblem) -> list[tuple[int, ...]]:
    """The extents of tiles that seem to be worth the fewest operations."""
    p, widths = problem, _widths(problem)
    spans = list(map(span, p.kernel, p.dilation))
    axes = [_lengths(w, n, _unit(a)) for a, (w, n) in enumerate(zip(spans, p.out, strict=True))]
    images, products = p.N * p.groups, 3 * widths.C * widths.K
    transformed = _LEVEL * (widths.x_row + widths.K)
    gathered = _GATHER * widths.x_row
    spilled = gathered + _SPILL * (widths.x_row + widths.vector) * widths.K // widths.vector
    new = p.groups * widths.C * widths.K * share_of_new(p, 0) * _NEW
    threads, M, most, near = p.threads, widths.M, widths.most, widths.near

    def worth(at):
        samples, tiles, depth = 1, images, 0.0
        for axis, i in zip(axes, at, strict=True):
            length, count, more = axis[i]
            samples *= length
            tiles *= count
            depth += more
        if samples > most:
            return inf
        tiles = -(-tiles // threads)
        moved = spilled if samples > near else gathered
        return samples * (-(-tiles // M) * M * products + tiles * (transformed * depth + moved) + new)

    best = nsmallest(_TRIED, every(*(range(len(axis)) for axis in axes)), key=worth)
    return [tuple(axis[i].samples for axis, i in zip(axes, at, strict=True)) for at in best]


_TILES = _Fourier("fft_tiles")
why_not, least, error = _TILES.refusal, _TILES.least, _TILES.error
cost, counts, workspace = _TILES.cost, _TILES.counts, _TILES.workspace
prepare, bind = _TILES.prepare, _TILES.bind
run, shortcut = entries(prepare, bind)
