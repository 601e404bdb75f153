"""Winograd's minimal filtering: m outputs of an r-tap window cost m + r - 1 products an axis in place of m r.

Input tiles and windows are transformed by additions and a few constants, multiplied element by element (a matrix
product over the channels for each element), and transformed back. The interpolation points are chosen for accuracy.
"""

from __future__ import annotations

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

why_not, least, error = _TILES.refusal, _TILES.least, _TILES.error
cost, counts, workspace = _TILES.cost, _TILES.counts, _TILES.workspace
prepare, bind = _TILES.prepare, _TILES.bind
run, shortcut = entries(prepare, bind)
