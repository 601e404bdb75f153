"""Winograd's minimal filtering: m outputs of an r-tap window cost m + r - 1 products an axis in place of m r.

Input tiles and windows are transformed by additions and a few constants, multiplied element by element (a matrix
product over the channels for each element), and transformed back. The interpolation points are chosen for accuracy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..problem import ConvProblem
from .launch import entries
from .tiled import choice
from .tiled.winograd.family import Winograd

# ------------------------------------------------------------------------------------------------- The choice

NAME = "winograd"
SUPPORTS = "floating and complex types; windows of at most 5 taps an axis, no stride, no dilation"
REFERENCE = ("Winograd 1980, Arithmetic Complexity of Computations; Lavin, Gray 2016, Fast Algorithms for "
             "Convolutional Neural Networks (arXiv 1509.09308); Barabasz et al. 2020, Error Analysis and Improving the "
             "Accuracy of Winograd Convolution (arXiv 1803.10986)")
CALLS = choice.CALLS
_TILES = Winograd("winograd", (4, 6), 4)


def why_not(problem: ConvProblem) -> str:
    """Integers, strides, dilations and long windows are refused."""
    return _TILES.refusal(problem)


def least(problem: ConvProblem, machine) -> tuple[float, float]:
    """The products of the largest tiles alone; the error of the smallest."""
    return _TILES.least(problem, machine)


def cost(problem: ConvProblem, machine) -> float:
    """Products, transforms of tiles and weights, gathering and storing."""
    return choice.cost(problem, machine, _TILES)


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """The pieces of work that make up the cost."""
    return choice.counts(problem, machine, _TILES)


def workspace(problem: ConvProblem, machine) -> int:
    """The transformed weight and each thread's block."""
    return choice.bytes_needed(problem, _TILES)


def error(problem: ConvProblem) -> float:
    """By the tile's extents, as measured."""
    return _TILES.error(problem)


def prepare(problem: ConvProblem, weight: np.ndarray) -> choice.Prepared:
    """Transform the windows."""
    return choice.transform_weight(problem, weight, _TILES)


def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    return choice.bind(problem, _TILES)


run, shortcut = entries(prepare, bind)
