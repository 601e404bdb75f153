"""A convolution over an input with zeros between its elements, as one plain convolution for each output phase.

Output o of such an axis sees the taps r with (o + r dilation - low) divisible by `upsample` u: the outputs with the
same remainder modulo u share their taps, and over them the convolution is an ordinary one. So a transposed convolution
multiplies no zero. Phases whose windows are equally large are computed at once, as output channels of one convolution.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product as every
from math import gcd
from typing import NamedTuple

from .geometry import ceil_div, span
from .problem import ConvProblem


class Block(NamedTuple):
    """Output channels of a phase: the taps of their weight, and where they lie in the phase's output and in the whole.

    Each leads with two slices for the channels and images.
    """

    taps: tuple[slice, ...]
    source: tuple[slice, ...]
    places: tuple[slice, ...]


class Phase(NamedTuple):
    """A plain problem and the blocks of its output channels, in each of which are those of the whole problem."""

    problem: ConvProblem | None     # None: no tap reaches these outputs
    blocks: tuple[Block, ...]


_EVERYTHING = (slice(None), slice(None))
_WASTE = 1.25                  # outputs of phases computed together over those that are wanted


@lru_cache(maxsize=1024)
def phases(problem: ConvProblem) -> tuple[Phase, ...]:
    """The parts of a problem; the problem itself where nothing stands between the elements of its input."""
    if all(u == 1 for u in problem.upsample) or any(s != 1 for s in problem.stride) or 0 in problem.out + problem.size:
        return (Phase(problem, (Block(*(_EVERYTHING,) * 3),)),)
    parts = []
    for choice in every(*(_axis_phases(*axis) for axis in zip(
            problem.size, problem.out, problem.kernel, problem.dilation, problem.padding, problem.upsample,
            strict=True))):
        taps, places = (_EVERYTHING + tuple(axis[i] for axis in choice) for i in (0, 1))
        part = None
        if all(axis[2] is not None for axis in choice):
            kernel, dilation, padding = zip(*(axis[2] for axis in choice), strict=True)
            part = problem.replace(kernel=kernel, dilation=dilation, padding=padding, upsample=())
        parts.append(Phase(part, (Block(taps, _EVERYTHING, places),)))
    together = _together(problem, [phase.problem for phase in parts])
    if together is None:
        return tuple(parts)
    blocks = [Block(taps, _EVERYTHING + tuple(
        slice(low - before, low - before + n)
        for (low, _), (before, _), n in zip(together.padding, part.padding, part.out, strict=True)), places)
        for part, ((taps, _, places),) in parts if part is not None]
    return (Phase(together, tuple(blocks)),)


def _together(problem: ConvProblem, parts: list[ConvProblem | None]) -> ConvProblem | None:
    """Parts with equally large windows as one problem with the output channels of all, where that wastes little.

    One window's phases differ in where it begins: together they are computed from the first beginning to the last.
    Kernels of a GPU write each part to its places and need no such problem.
    """
    plain = [part for part in parts if part is not None]
    first = plain[0] if plain else None
    if first is None or len(plain) < len(parts) or problem.device != "cpu" or any(
            part.kernel != first.kernel or part.dilation != first.dilation for part in plain):
        return None
    padding = []
    for a, n in enumerate(problem.size):
        low = max(part.padding[a][0] for part in plain)
        out = max(part.out[a] + low - part.padding[a][0] for part in plain)
        padding.append((low, out + span(first.kernel[a], first.dilation[a]) - 1 - n - low))
    together = first.replace(K=problem.K * len(plain), padding=tuple(padding))
    return together if len(plain) * together.positions <= _WASTE * problem.positions else None


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
