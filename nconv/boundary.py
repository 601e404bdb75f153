"""Boundary modes as one integer map per axis: what lies outside of the array is decided here and nowhere else."""

import numpy as np

FILL = -1
"""Value of a map where the fill value stands in place of an element of the input."""

MODES = ("constant", "symmetric", "reflect", "edge", "wrap")
"""NumPy's `pad` names: constant (kkk|abc|kkk), symmetric (cba|abc|cba), reflect (cb|abc|ba), edge, wrap."""


def index_map(mode: str, size: int, low: int, count: int, upsample: int = 1) -> np.ndarray:
    """Input index under each of `count` padded positions, the first of which lies `low` before the input.

    Shape (count,), int64; `FILL` marks the fill value. With `upsample` u, u - 1 fill values stand between each two
    input elements (this is how a transposed convolution sees its input; only for mode 'constant').
    """
    places = np.arange(-low, count - low, dtype=np.int64)
    if upsample > 1:
        inside = (places >= 0) & (places <= (size - 1) * upsample) & (places % upsample == 0)
        return np.where(inside, places // upsample, FILL)
    begin, end = max(low, 0), max(low + size, 0)
    for outside in (places[:begin], places[end:]):         # between them each position is its own index
        if outside.size:
            outside[:] = _inside(mode, size, outside)
    return places


def _inside(mode, size, i):
    """The input index that stands for the positions `i` beside the input."""
    if mode == "constant":
        return FILL
    if mode == "edge":
        return np.clip(i, 0, size - 1)
    if mode == "wrap":
        return i % size
    if mode == "symmetric":
        i = i % (2 * size)
        return np.minimum(i, 2 * size - 1 - i)
    if mode == "reflect":
        if size == 1:
            return 0
        i = i % (2 * size - 2)
        return np.minimum(i, 2 * size - 2 - i)
    raise ValueError(f"unknown boundary mode: mode={mode!r}, expected one of {MODES}")
