"""A convolution over an input with zeros between its elements, as one plain convolution for each output phase.

Output o of such an axis sees the taps r with (o + r dilation - low) divisible by `upsample` u: the outputs with the
same remainder modulo u share their taps, and over them the convolution is an ordinary one. So a transposed convolution
multiplies no zero.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product as every
from math import gcd
from typing import NamedTuple

from .geometry import ceil_div, span
from .problem import ConvProblem


class Phase(NamedTuple):
    """One part of a problem: its own plain problem, its taps of the weight, its places in the output."""

    problem: ConvProblem | None     # None: no tap reaches these outputs
    taps: tuple[slice, ...]
    places: tuple[slice, ...]


@lru_cache(maxsize=1024)
def phases(problem: ConvProblem) -> tuple[Phase, ...]:
    """The parts of a problem; the problem itself where nothing stands between the elements of its input."""
    everything = (slice(None), slice(None))
    if all(u == 1 for u in problem.upsample) or any(s != 1 for s in problem.stride) or 0 in problem.out + problem.size:
        return (Phase(problem, everything, everything),)
    parts = []
    for choice in every(*(_axis_phases(*axis) for axis in zip(
            problem.size, problem.out, problem.kernel, problem.dilation, problem.padding, problem.upsample,
            strict=True))):
        taps, places = (everything + tuple(axis[i] for axis in choice) for i in (0, 1))
        part = None
        if all(axis[2] is not None for axis in choice):
            kernel, dilation, padding = zip(*(axis[2] for axis in choice), strict=True)
            part = problem.replace(kernel=kernel, dilation=dilation, padding=padding, upsample=())
        parts.append(Phase(part, taps, places))
    return tuple(parts)


def _axis_phases(n, out, taps, dilation, padding, u):
    """(slice of the taps, slice of the outputs, (number of taps, dilation, padding) or None) of each phase."""
    low = padding[0]
    step = u // gcd(u, dilation)
    for phase in range(min(u, out)):
        count = ceil_div(out - phase, u)
        first = next((r for r in range(min(step, taps)) if (phase + r * dilation - low) % u == 0), None)
        if first is None:
            yield slice(0, 0), slice(phase, None, u), None
            continue
        number = ceil_div(taps - first, step)
        spread = dilation * step // u
        before = (low - phase - first * dilation) // u
        yield (slice(first, None, step), slice(phase, None, u),
               (number, spread, (before, count + span(number, spread) - 1 - n - before)))
