"""What a transform cannot hold: what is loud would drown what is quiet, or products leave the type's range.

A transform rounds relative to its largest sample. Where few samples are so much louder than the quietest part that
their rounding reaches it, the outputs are summed by the definition instead; so are those of extreme magnitude. Where
more than an eighth of a block is loud there is no quiet part to protect, only a slope. Loudness is the leading bits of
a number, `ptx.magnitude`: exponents and their order, NaN above all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SILENT = (1 << 31) - 1
"""Magnitude of the quietest cell where none has a sound."""


class Limits(NamedTuple):
    """Powers of two, counted as the type's exponents are stored."""

    loud: int                  # the loudest over the quietest cell: less than 1 / sqrt(eps)
    large: int                 # no sample and no tap above it
    small: int                 # no block wholly below it


def bias_of(dtype: np.dtype) -> int:
    """What is added to an exponent where it is stored."""
    return int(np.finfo(dtype).maxexp) - 1


def limits_of(dtype: np.dtype) -> Limits:
    """The limits for float32 or float64: products of two spectra of 16,384 points and their sums stay in range."""
    loud, large, small = (10, 40, -80) if dtype == np.float32 else (25, 400, -800)
    return Limits(loud, large + bias_of(dtype), small + bias_of(dtype))


def largest(dtype: np.dtype) -> float:
    """The number of `Limits.large`."""
    return 2.0 ** (limits_of(dtype).large - bias_of(dtype))


def fraction_of(dtype: np.dtype) -> int:
    """Bits of a magnitude below its exponent."""
    return 31 - int(np.finfo(dtype).iexp)
