"""The padded input of a transform: the place of a point in memory is the sum of what the maps of its axes hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...boundary import FILL
from ...problem import ConvProblem
from ..arrays import in_three_axes, real_dtype
from ..device import block_function, device_cache, table, upload
from ..ptx import load_or

MOST_PLACES = {"int32": 1 << 27, "int64": 1 << 58}
"""Numbers of an image in memory up to which a type holds the sum of three entries of maps."""


def outside(index: str) -> int:
    """In a map: the fill value stands here. No sum over the axes is a place."""
    return -MOST_PLACES[index]


def nowhere(index: str) -> int:
    """In a map: behind all that any output sees; 0 stands here."""
    return 4 * outside(index)


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Numbers from the first to the last of one image, by the strides of an `Operand`."""
    return sum((n - 1) * abs(step) for n, step in zip(shape[2:], strides[3:], strict=True))


@device_cache(64)
def sample_maps(problem: ConvProblem, lengths: tuple[int, ...], steps: tuple[int, ...], index: str) -> tuple[Any, int]:
    """(places in memory along three axes, so many of each, one axis behind the other; what to add to the start)."""
    p, places, before = in_three_axes(problem), [], 0
    for m, step, size, length in zip(p.index_maps(), steps, p.size, lengths, strict=True):
        least = min(0, (size - 1) * step)
        whole = np.full(max(length, len(m)), nowhere(index))
        whole[:len(m)] = np.where(m == FILL, outside(index), m * step - least)
        places.append(whole[:length])
        before += least
    return upload(np.concatenate(places).astype(index)), before


def fill_of(problem: ConvProblem) -> Any:
    """The fill value on the device, one number a part."""
    parts = np.array([problem.fill]).astype(problem.engine).view(real_dtype(problem))
    return table(tuple(parts.tolist()), parts.dtype.str)


@block_function
def sample(x, at, fill, nothing, outside):
    """The padded input at a sum of places. No branch: many loads are under way at once."""
    return load_or(x, at, fill if at >= 3 * outside else nothing)
