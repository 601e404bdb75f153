"""A convolution over an input with zeros between its elements, as one plain convolution for each output phase.

Output o of such an axis sees the taps r with (o + r dilation - low) divisible by `upsample` u: the outputs with the
same remainder modulo u share their taps, and over them the convolution is an ordinary one. So a transposed convolution
multiplies no zero. Phases whose windows are equally large are computed at once, as output channels of one convolution.
Where outputs of one shape waste little, those of all phases go to their places at once.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product as every
from math import gcd
from types import ModuleType
from typing import NamedTuple

from .geometry import ceil_div, product, span
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


def takes_whole(algorithm: ModuleType) -> bool:
    """Whether an algorithm takes problems with zeros between the elements of their input as they are."""
    return hasattr(algorithm, "WHOLE")


def phases_for(algorithm: ModuleType, problem: ConvProblem) -> tuple[Phase, ...]:
    """The parts in which an algorithm takes a problem: its `phases`, or the problem itself."""
    return _whole(problem) if takes_whole(algorithm) else phases(problem)


@lru_cache(maxsize=1024)
def _whole(problem: ConvProblem) -> tuple[Phase, ...]:
    return (Phase(problem, (Block(*(_EVERYTHING,) * 3),)),)


@lru_cache(maxsize=1024)
def phases(problem: ConvProblem) -> tuple[Phase, ...]:
    """The parts of a problem; the problem itself where nothing stands between the elements of its input."""
    if all(u == 1 for u in problem.upsample) or any(s != 1 for s in problem.stride) or 0 in problem.out + problem.size:
        return _whole(problem)
    parts = []
    for choice in every(*(_axis_phases(*axis) for axis in zip(
            problem.size, problem.out, problem.kernel, problem.dilation, problem.padding, problem.upsample,
            strict=True))):
        taps, places = (_EVERYTHING + tuple(axis[i] for axis in choice) for i in (0, 1))
        part = None
        if all(axis[2] is not None for axis in choice):
            kernel, dilation, padding = zip(*(axis[2] for axis in choice), strict=True)
            part = problem.derived(kernel=kernel, dilation=dilation, padding=padding, upsample=(1,) * problem.rank)
        parts.append(Phase(part, (Block(taps, _EVERYTHING, places),)))
    return _placed_at_once(problem, parts) or tuple(parts)


def at_once(parts: tuple[Phase, ...]) -> bool:
    """Whether the blocks of all parts lie in outputs of one shape, from which they go to their places together."""
    return len(parts[0].blocks[0].source) > len(_EVERYTHING)


def _placed_at_once(problem: ConvProblem, parts: list[Phase]) -> tuple[Phase, ...] | None:
    """The parts with outputs of one shape, where that wastes little: as one problem where their windows are equal.

    They differ in where windows begin: all are computed from the first beginning to the last. One problem has the
    output channels of all. Kernels of a GPU write each part to its places and need none of it.
    """
    plain = [part.problem for part in parts if part.problem is not None]
    if len(plain) < max(len(parts), 2) or problem.device != "cpu":
        return None
    first, ranks = plain[0], range(problem.rank)
    lows = [max(part.padding[a][0] for part in plain) for a in ranks]
    out = [max(part.out[a] + lows[a] - part.padding[a][0] for part in plain) for a in ranks]
    if len(plain) * product(out) > _WASTE * problem.positions:
        return None
    blocks, wider = [], []
    for part, ((taps, _, places),) in zip(plain, (part.blocks for part in parts), strict=True):
        begin = [low - before for low, (before, _) in zip(lows, part.padding, strict=True)]
        run = tuple(slice(b, b + n) for b, n in zip(begin, part.out, strict=True))
        blocks.append(Block(taps, _EVERYTHING + run, places))
        wider.append(part.derived(padding=tuple(
            (low, n + span(k, d) - 1 - size - low)
            for low, n, k, d, size in zip(lows, out, part.kernel, part.dilation, problem.size, strict=True))))
    if all(part.kernel == first.kernel and part.dilation == first.dilation for part in plain):
        return (Phase(wider[0].derived(K=problem.K * len(plain)), tuple(blocks)),)
    return tuple(Phase(part, (block,)) for part, block in zip(wider, blocks, strict=True))


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
