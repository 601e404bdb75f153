"""Winograd's tiles with up to eight inputs an axis: fewer products and larger errors than `winograd` allows itself."""

from __future__ import annotations

from .launch import entries
from .tiled import choice
from .tiled.winograd.family import Winograd

# ------------------------------------------------------------------------------------------------- The choice

NAME = "winograd_large"
SUPPORTS = "floating and complex types; windows of at most 7 taps an axis, no stride, no dilation"
REFERENCE = ("Winograd 1980, Arithmetic Complexity of Computations; Lavin, Gray 2016, Fast Algorithms for "
             "Convolutional Neural Networks (arXiv 1509.09308); Barabasz et al. 2020, Error Analysis and Improving the "
             "Accuracy of Winograd Convolution (arXiv 1803.10986)")
CALLS = choice.CALLS
_TILES = Winograd("winograd", (4, 6, 8), 8)

why_not, least, error = _TILES.refusal, _TILES.least, _TILES.error
cost, counts, workspace = _TILES.cost, _TILES.counts, _TILES.workspace
prepare, bind = _TILES.prepare, _TILES.bind
run, shortcut = entries(prepare, bind)
