"""What was made of the weights of earlier calls, found again by their content.

A layer meets the same weight call after call, and to bring it into an algorithm's form can take longer than all else.
A function that is `kept` does so once: a weight that it sees for the second time is copied and stays with what was made
of it, and every later one of its kind is compared with the copy, byte by byte. The first time leaves but a mark, for in
training no weight comes twice, and a copy would be in vain.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from itertools import count
from typing import Any

import numpy as np

from ..geometry import product
from ..machine import Machine
from ..problem import ConvProblem

MOST_BYTES = 64 << 20          # that are kept
NEW = 0.25                     # share of calls, as the choice supposes, with a weight of which nothing was kept
_MOST = 512                    # weights that are kept
_MARKS = 1024                  # weights that were seen once and are remembered
_NAMED_BY = 16                 # numbers of a weight that distinguish it from most others
_AT_ONCE = 1 << 16             # numbers that are compared at once
_STALE = 256                   # searches without success after which others may take an entry's place

Make = Callable[..., Any]
"""``(problem, weight, *more)`` to what an algorithm needs of the weight."""


@dataclass(slots=True)
class _Entry:
    numbers: np.ndarray        # a copy of the weight's memory
    made: Any
    size: int                  # bytes of both
    used: int                  # the last search that found it


class _Here(threading.local):
    """What holds for one thread alone."""

    making: bool = False       # something that will be kept


_here = _Here()
_entries: dict[tuple, _Entry] = {}
_marks: set[tuple] = set()
_searches = count()


@cache
def kept(make: Make) -> Make:
    """`make` that remembers what it made of a weight that came twice; a plan, which asks once, keeps that itself.

    What it makes within another that is kept is a part of that one's. Nothing waits for a lock, which a child forked
    meanwhile would find locked for ever: each step alone leaves the dictionaries whole, and two threads at worst make
    the same.
    """

    @wraps(make)
    def find_or_make(problem: ConvProblem, weight: np.ndarray, *more: Any) -> Any:
        if problem.reused or _here.making or weight.nbytes > MOST_BYTES // 2:
            return make(problem, weight, *more)
        numbers = _memory(weight)
        key = make, problem, more, weight.strides, numbers[::max(numbers.size // _NAMED_BY, 1)].tobytes()
        entry, now = _entries.get(key), next(_searches)
        if entry is not None and _are_equal(entry.numbers, numbers):
            entry.used = now
            return entry.made
        _here.making = True
        try:
            if key not in _marks:
                if len(_marks) >= _MARKS:
                    _marks.clear()
                _marks.add(key)
                return make(problem, weight, *more)
            _marks.discard(key)
            numbers = numbers.copy()
            made = make(problem, weight.copy(), *more)  # the caller may write into his own
        finally:
            _here.making = False
        _keep(key, _Entry(numbers, made, numbers.nbytes + _size(made), now))
        return made

    return find_or_make


def share_of_new(problem: ConvProblem, size: int) -> float:
    """Share of a problem's calls that make anew what takes `size` bytes, as the choice supposes."""
    if problem.reused:
        return 0.0
    return NEW if size <= MOST_BYTES // 2 else 1.0


def compared(problem: ConvProblem, size: int, machine: Machine) -> float:
    """Bytes from memory with which a weight is compared in a call, on the average."""
    return (1 - share_of_new(problem, size)) * machine.streamed(product(problem.weight_shape) * problem.engine.itemsize)


def forget() -> None:
    """Drop all that was kept; that it was seen is still known."""
    _marks.update(_entries)
    _entries.clear()


def _keep(key: tuple, entry: _Entry) -> None:
    """Keep an entry if there is room, or old ones make some; among many weights in turn the first ones stay."""
    _entries.pop(key, None)
    others = list(_entries.items())                     # other threads may add theirs meanwhile
    places, room = _MOST - len(others), MOST_BYTES - entry.size - sum(other.size for _, other in others)
    if places <= 0 or room < 0:
        others.sort(key=lambda item: item[1].used)
    for old, other in others:
        if places > 0 and room >= 0 or entry.used - other.used < _STALE:
            break
        _entries.pop(old, None)
        places, room = places + 1, room + other.size
    if places > 0 and room >= 0:
        _entries[key] = entry


def _memory(weight: np.ndarray) -> np.ndarray:
    """The numbers of a weight, in the order in which they lie if they do so without gaps."""
    if not weight.flags.c_contiguous:
        rising = weight[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in weight.strides)]
        dense = rising.transpose(sorted(range(rising.ndim), key=lambda axis: -rising.strides[axis]))
        weight = dense if dense.flags.c_contiguous else np.ascontiguousarray(weight)
    return weight.reshape(-1).view(np.int32)


def _are_equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.size <= _AT_ONCE:                              # in a fifth of the time
        return a.tobytes() == b.tobytes()
    return all((a[i:i + _AT_ONCE] == b[i:i + _AT_ONCE]).all() for i in range(0, a.size, _AT_ONCE))


def _size(made: Any) -> int:
    """Bytes of the arrays in nested tuples."""
    if isinstance(made, np.ndarray):
        return made.nbytes
    return sum(map(_size, made)) if isinstance(made, tuple) else 0
