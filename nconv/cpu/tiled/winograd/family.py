"""Winograd's tiles: their extents, errors and weights; shared by the algorithms that differ only in what they allow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product as every
from typing import NamedTuple

import numpy as np

from ....geometry import product, round_up
from ....problem import ConvProblem
from ... import simd
from ...arrays import packing_threads, parts, real_dtype
from .. import choice
from .points import matrices
from .transforms import winograd_weight_kernel

_ERROR = {4: (1.6, 1.6, 1.6), 6: (4.0, 5.5, 7.5), 8: (14.0, 32.0, 150.0)}
"""Largest error over the direct method's of tiles of so many elements in one, two, three axes; docs/winograd.rst."""


@dataclass(frozen=True)
class Winograd(choice.Family):
    """Winograd's tiles of some extents."""

    allowed: tuple[int, ...]   # elements that an axis may have
    own: int                   # that one has at least, windows permitting: smaller tiles are another algorithm's

    def refusal(self, problem: ConvProblem) -> str:
        longest, most = max(problem.kernel), self.allowed[-1]
        if longest >= most:
            return f"a window of {longest} is too long for tiles of {most}"
        if reason := super().refusal(problem):
            return reason
        if any(d > 1 < k for d, k in zip(problem.dilation, problem.kernel, strict=True)):
            return "tiles need a dilation of 1"
        if longest == 1:
            return "a window of one tap has nothing to save"
        return ""

    def extents(self, problem: ConvProblem) -> list[tuple[int, ...]]:
        lists = [{_extent(self._most(r), r, o, n) for n in self.allowed}
                 for r, o in zip(problem.kernel, problem.out, strict=True)]
        own = min(self.own, max(map(max, lists)))
        return [tile for tile in every(*map(sorted, lists)) if max(tile) >= own]

    def elements(self, extent: tuple[int, ...]) -> int:
        return product(extent)

    def passes(self, extent: tuple[int, ...], dtype: np.dtype) -> None:
        return None

    def transformed(self, choice: choice.Choice, out_channels: int) -> float:
        return choice.elements * sum(n > 1 for n in choice.extent) * out_channels

    def weight_growth(self, problem: ConvProblem, extent: tuple[int, ...]) -> float:
        return product(float(np.abs(matrix).sum(1).max()) for axis in _matrices(problem, extent) for matrix in axis)

    def transform_weight(self, problem: ConvProblem, choice: choice.Choice, packed: np.ndarray,
                         transformed: np.ndarray) -> None:
        factors = _weight_factors(problem, choice.extent)
        winograd_weight_kernel(packed, factors.extent, factors.window, factors.matrices, factors.starts,
                               choice.channels, choice.vector, transformed, packing_threads(problem, transformed.size))

    def least(self, problem: ConvProblem, machine) -> tuple[float, float]:
        """(seconds, error) that no tile undercuts: products and transforms of the largest tiles, without threads."""
        p = problem
        real = real_dtype(p)
        C, K = (round_up(channels * parts(p), simd.lanes(real)) for channels in (p.C, p.K))
        extents = [_extent(self._most(r), r, o, self.allowed[-1]) for r, o in zip(p.kernel, p.out, strict=True)]
        elements = p.N * p.groups * product(map(_elements, p.out, p.kernel, extents))
        products = 2 * elements * p.C * parts(p) * K / machine.flops(p.engine)
        transformed = 2 * elements * sum(n > 1 for n in extents) * K * real.itemsize
        counted = {"call": p.calls(choice.CALLS), "winograd.products": products, "winograd.transformed": transformed}
        return machine.seconds(counted), _ERROR[min(self.own, max(extents))][0]

    def error(self, problem: ConvProblem) -> float:
        """Largest error over the direct method's; each axis beyond the third counts as another third one."""
        long = [n for n in choice.choose(problem, self).extent if n > 1]
        largest = max(long)
        axes = long.count(largest)
        first, second, third = _ERROR[largest]
        few = max(1.0, 2.4 / (problem.C * parts(problem)) ** 0.5)   # short sums leave the direct method little error
        return few * (first, second, third)[min(axes, 3) - 1] * (third / second) ** max(axes - 3, 0)

    def _most(self, taps: int) -> int:
        """The largest extent of a tile along an axis; with many outputs for few taps it is the least exact."""
        return 1 if taps == 1 else 4 if taps == 2 else self.allowed[-1]


def _extent(largest: int, taps: int, out: int, wanted: int) -> int:
    """A tile's extent along an axis: the wanted one, as far as the window allows it, less where less holds the axis."""
    if largest == 1:
        return 1
    least = 4 if taps < 4 else 6 if taps < 6 else 8
    while out + taps - 1 > least < min(wanted, largest):
        least += 2
    return least


def _elements(out: int, taps: int, extent: int) -> float:
    """Elements of all tiles along an axis, at least."""
    return out * extent / (extent - taps + 1)


def _matrices(problem: ConvProblem, extent: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [matrices(n, n - r + 1) for n, r in zip(extent, problem.kernel, strict=True)]


class _WeightFactors(NamedTuple):
    """What transforms windows."""

    extent: np.ndarray         # of a tile
    window: np.ndarray
    matrices: np.ndarray       # G of every axis, one behind the other
    starts: np.ndarray         # where an axis' begins


@lru_cache(maxsize=256)
def _weight_factors(problem: ConvProblem, extent: tuple[int, ...]) -> _WeightFactors:
    factors = [G for _, G, _ in _matrices(problem, extent)]
    return _WeightFactors(
        np.array(extent, np.int64), np.array(problem.kernel, np.int64),
        np.concatenate([G.ravel() for G in factors]).astype(real_dtype(problem)),
        np.cumsum([0] + [G.size for G in factors], dtype=np.int64))
