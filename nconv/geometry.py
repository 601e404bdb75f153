"""Integers only: sizes, shares and counts, one formula each.

Pure Python, so that the planner calls these as they are and `jit.compiled` makes them part of a kernel; but for
`product`, which kernels do not need and the planner often does.
"""

from math import prod as product

__all__ = ["ceil_div", "full_range", "out_size", "product", "round_up", "same_padding", "same_range", "share_start",
           "span", "valid_range"]


def ceil_div(a, b):
    """The smallest integer that is at least a / b."""
    return -(-a // b)


def round_up(a, multiple):
    """The smallest multiple of `multiple` that is at least a."""
    return -(-a // multiple) * multiple


def span(taps, dilation):
    """Extent of a dilated window."""
    return (taps - 1) * dilation + 1


def out_size(size, taps, stride, dilation, low, high):
    """Number of positions at which a window of `taps` taps fits an axis padded by (low, high); at least 0."""
    room = size + low + high - span(taps, dilation)
    return room // stride + 1 if room >= 0 else 0


def share_start(total, parts, i):
    """Where the i-th of `parts` fair shares of `total` items begins (the first ones are longer by one)."""
    return i * (total // parts) + min(i, total % parts)


def same_padding(size, taps, stride, dilation):
    """(low, high) such that ceil(size / stride) positions fit, the odd element high."""
    out = -(-size // stride)
    total = max((out - 1) * stride + span(taps, dilation) - size, 0)
    return total // 2, total - total // 2


def full_range(n1, n2):
    """First position and number of positions that a convolution of n1 and n2 elements keeps in mode 'full'."""
    return 0, n1 + n2 - 1


def same_range(n1, n2):
    """As `full_range` for mode 'same': n1 positions, centred."""
    return (n2 - 1) // 2, n1


def valid_range(n1, n2):
    """As `full_range` for mode 'valid': where the smaller lies wholly inside the other."""
    return min(n1, n2) - 1, abs(n1 - n2) + 1
