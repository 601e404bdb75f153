"""Samples that a transform cannot hold beside the others are taken out and their products added one by one.

NaN and infinity would fill the whole block; values that are so large that their rounding would drown the quiet windows
would spoil them. Nothing here runs on a block of ordinary data.
"""

from __future__ import annotations

import numpy as np

from ...jit import inner_kernel
from ..simd import epsilon_of, largest_of
from .vectors import lanes_of


@inner_kernel
def threshold_of(dtype_like, largest, quiet):
    """The magnitude above which samples are taken out: rounding of larger ones would reach the quietest cell."""
    root = 1 / np.sqrt(epsilon_of(dtype_like))
    return quiet * root if largest / root > quiet else largest_of(dtype_like)


@inner_kernel
def count_loud(data, threshold):
    """(values above the threshold or not finite, values that are not finite)."""
    limit = largest_of(data)
    loud = strange = 0
    for i in range(data.size):
        loud += not abs(data[i]) <= threshold
        strange += not abs(data[i]) <= limit
    return loud, strange


@inner_kernel
def take_outliers(data, start, points, threshold, places, values):
    """Move values that are not finite or above the threshold out of the block at data[start:]; their number.

    A place counts the real parts of all points, then the imaginary ones.
    """
    lanes = lanes_of(data)
    count = 0
    for i in range(2 * points):
        point = i % points
        at = start + (2 * (point // lanes) + i // points) * lanes + point % lanes
        if not abs(data[at]) <= threshold:
            places[count] = i
            values[count] = data[at]
            data[at] = 0
            count += 1
    return count


@inner_kernel
def add_product(layout, place, value, weight, w, target, base, origin):
    """Add the products of one sample, or of its real or imaginary part, with all taps to the outputs that see it."""
    rank = layout.shape.size
    imaginary = layout.parts == 2 and place >= layout.points
    if imaginary:
        place -= layout.points
    window = 1
    for a in range(rank):
        window *= layout.kernel[a]
    for t in range(window):
        rest = t
        spot = place
        to = base
        inside = True
        for b in range(rank):
            a = rank - 1 - b
            o = spot % layout.samples[a] - rest % layout.kernel[a] * layout.dilation[a]
            spot //= layout.samples[a]
            rest //= layout.kernel[a]
            inside = inside and 0 <= o < layout.valid[a] and origin[a] + o < layout.dense[a] and (
                (origin[a] + o) % layout.stride[a] == 0)
            to += (origin[a] + o) // layout.stride[a] * target.strides[3 + a]
        if inside:
            tap = weight[(w + t) * layout.parts]
            if layout.parts == 1:
                target.flat[to] += value * tap
            elif imaginary:
                target.flat[to] -= value * weight[(w + t) * 2 + 1]
                target.flat[to + 1] += value * tap
            else:
                target.flat[to] += value * tap
                target.flat[to + 1] += value * weight[(w + t) * 2 + 1]
