"""Whether a window is an outer product of one vector for each axis, and the vectors."""

from __future__ import annotations

from functools import lru_cache, reduce
from math import inf

import numpy as np

from .geometry import product

_KEPT_BYTES = 1 << 14          # of a window whose vectors are kept: the choice asks for them, then the preparation
_MEAN = 4.0                    # eps: how far the taps may lie from the product, weighted by their size
_MOST = 64.0                   # eps: how far any one tap may, for exp(-r) is itself off by r / 2


def outer_factors(window: np.ndarray) -> list[np.ndarray] | None:
    """The vectors whose outer product is `window`, one for each axis, or None.

    Integers are exact (modulo their size). Others may be off by a few roundings, what computing the window cost; they
    come in double precision, all but the last scaled by powers of two so that no sum over one exceeds the input.
    """
    if _has_clear_minor(window):
        return None
    if window.nbytes <= _KEPT_BYTES:
        return kept_factors(window.tobytes(), window.shape, window.dtype)
    return _factors(window)


@lru_cache(maxsize=512)
def kept_factors(content: bytes, shape: tuple[int, ...], dtype: np.dtype) -> list[np.ndarray] | None:
    return _factors(np.frombuffer(content, dtype).reshape(shape))


def _factors(window):
    pivot = np.unravel_index(np.abs(window).argmax(), window.shape)
    largest = window[pivot]
    if largest == 0:
        return [np.zeros(n, window.dtype) for n in window.shape]
    lines = [window[(*pivot[:a], slice(None), *pivot[a + 1:])] for a in range(window.ndim)]
    return (_integers if window.dtype.kind in "iu" else _numbers)(window, pivot, largest, lines)


def _has_clear_minor(window: np.ndarray) -> bool:
    """Whether the corners of the last two axes alone show that a window of floats is no outer product."""
    if window.ndim < 2 or window.dtype.kind not in "fc":
        return False
    plane = window[(0,) * (window.ndim - 2)]
    a, b, c, d = plane[0, 0].item(), plane[0, -1].item(), plane[-1, 0].item(), plane[-1, -1].item()
    if not np.finfo(window.dtype).tiny < min(map(abs, (a, b, c, d))):       # where taps have few digits
        return False
    return abs(a * d - b * c) > 1e-2 * (abs(a * d) + abs(b * c)) < inf


def _integers(window, pivot, largest, lines):
    """By Gauss' lemma, an integer outer product is one of primitive vectors times a number."""
    primitive = [line // np.gcd.reduce(line) for line in lines]
    scale, rest = divmod(int(largest), product(int(v[p]) for v, p in zip(primitive, pivot, strict=True)))
    if rest or not -2**63 <= scale < 2**63:
        return None
    primitive[-1] = primitive[-1] * window.dtype.type(scale)
    return primitive if np.array_equal(reduce(np.multiply.outer, primitive), window) else None


def _numbers(window, pivot, largest, lines):
    wide = np.result_type(window.dtype, np.float64)
    limits = np.finfo(window.dtype)
    with np.errstate(all="ignore"):                     # not finite: no comparison holds
        vectors = [line.astype(wide) / largest for line in lines]
        vectors[-1] = lines[-1].astype(wide)
        size = np.abs(window)
        off = np.abs(reduce(np.multiply.outer, vectors) - window)
        near = off.sum() <= _MEAN * limits.eps * size.sum() and (off <= _MOST * limits.eps * size + limits.tiny).all()
    if not near:
        return None
    for vector in vectors[:-1]:
        power = 2.0 ** np.frexp(np.abs(vector).sum())[1]
        vector /= power
        vectors[-1] *= power
    return vectors
