"""Division by a number that is known before the launch: a multiplication and a shift."""

from __future__ import annotations

from numba import int32, uint32, uint64

from ..geometry import ceil_div
from .device import block_function


def divisor(n: int) -> tuple[int, int]:
    """(factor, shift): a // n is (a * factor) >> shift for 0 <= a < 2**31, in two instructions instead of twenty.

    The factor is 2**shift / n rounded up, by less than 1, so the quotient is too large by less than a / 2**shift <
    2**-bits <= 1 / n, which does not reach the next whole number.
    """
    bits = (n - 1).bit_length()
    return ceil_div(1 << 31 + bits, n), 31 + bits


@block_function
def over(a, factor, shift):
    """a // n; see `divisor`."""
    return int32((uint64(uint32(a)) * uint64(uint32(factor))) >> uint64(shift))
