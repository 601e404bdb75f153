"""What the kernels of tiles and rows share: three axes and their maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...boundary import FILL
from ...problem import ConvProblem
from ..arrays import OUTSIDE, three
from ..device import device_cache, upload

RUN = ("begin", "end", "first", "step")
NARROW = 1 << 29               # elements of an image up to which its places are numbers of 32 bits


def three_axes(problem: ConvProblem, values: tuple, one: Any = 1) -> tuple:
    """Entries of up to three axes as those of three. A signal's samples are rows where its channels are neighbours."""
    return (one, *values, one) if problem.rank == 1 and problem.channels_last else three(values, one)


def is_line(problem: ConvProblem) -> bool:
    """Whether all outputs of a plane lie side by side."""
    return three_axes(problem, problem.out)[1] == 1


class AxisMaps(NamedTuple):
    """What stands under each padded position of three axes; see `arrays.Maps`.

    No place lies below 0, and those outside so far below that no sum over two axes rises above it: kernels look at the
    sign.
    """

    places: Any                # on the device, the axes one behind the other
    before: int                # what to add to the input's start
    index: str                 # type of the places
    runs: tuple                # the longest even run of each axis: what RUN names, in places and their steps


@device_cache(256)
def axis_maps(problem: ConvProblem, strides: tuple[int, ...]) -> AxisMaps:
    """The maps times the strides of the input."""
    least = [min(0, (n - 1) * step) for n, step in zip(problem.size, strides, strict=True)]
    extent = sum(n * abs(step) for n, step in zip(problem.size, strides, strict=True))
    index = "int32" if extent < NARROW else "int64"
    indices = problem.index_maps()
    maps = [np.where(m == FILL, -(1 << 30) if index == "int32" else OUTSIDE, m * step - low)
            for m, step, low in zip(indices, strides, least, strict=True)]
    runs = [(begin, end, int(m[begin]), step)
            for (begin, end), m, step in zip(map(_longest_run, indices), maps, strides, strict=True)]
    return AxisMaps(upload(np.concatenate(three_axes(problem, tuple(maps), np.zeros(1))).astype(index)), sum(least),
                    index, three_axes(problem, tuple(runs), (0, 1, 0, 0)))


def _longest_run(index: np.ndarray) -> tuple[int, int]:
    """(begin, end) of the longest run of neighbours in a map."""
    inside = index != FILL
    joined = (np.diff(index) == 1) & inside[:-1]
    edges = np.concatenate([[0], np.flatnonzero(~joined) + 1, [len(index)]])
    longest = int(np.argmax(np.diff(edges) * inside[edges[:-1]]))
    return int(edges[longest]), int(edges[longest + 1]) if inside[edges[longest]] else int(edges[longest])
