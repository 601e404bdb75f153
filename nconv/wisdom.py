"""Measured times of the algorithms, remembered from one program to the next in one readable file."""

from __future__ import annotations

import os
import re
import threading
import warnings
from pathlib import Path
from typing import Any

from . import store
from .machine import machine
from .problem import ConvProblem

_FORMAT = 2                    # of the file: 1 had times without the preparation of weights
_lock = threading.Lock()
_known: dict[str, dict[str, float]] | None = None
_sizes: frozenset[str] = frozenset()       # extents of the inputs of what is known: most problems need no further look


def path() -> Path:
    """The file of measured times."""
    return store.folder() / f"wisdom-{_FORMAT}.json"


def recall(problem: ConvProblem, num_threads: int) -> dict[str, float]:
    """Seconds of each algorithm that was measured on this problem with so many threads on this machine."""
    known = _known
    if known is None:
        with _lock:
            known = _read()
    return known.get(_key(problem, num_threads), {}) if str(problem.size) in _sizes else {}


def remember(problem: ConvProblem, num_threads: int, seconds: dict[str, float]) -> None:
    """Add measurements, also to the file."""
    add({_key(problem, num_threads): seconds})


def add(seconds: dict[str, dict[str, float]]) -> None:
    """Add to what is known and to the file; what other processes wrote meanwhile is kept."""
    with _lock:
        known = {**(_known or {}), **seconds}
        try:
            with store.turn(path()):
                known = {**(_known or {}), **_load(), **seconds}
                store.save(path(), _FORMAT, "seconds", known)
        except OSError as error:
            warnings.warn(f"measured times are kept for this program only: {error}", stacklevel=4)
        _know(known)


def export(target: str | os.PathLike) -> int:
    """Write all that is known to a file; returns the number of problems."""
    with _lock:
        known = _read()
    store.save(Path(target), _FORMAT, "seconds", known)
    return len(known)


def take(source: str | os.PathLike) -> int:
    """Add what a file of `export` holds; returns the number of problems.

    Raises OSError where it cannot be read, ValueError where it is no such file.
    """
    try:
        found = store.parse(Path(source), _FORMAT, "seconds", _check)
    except ValueError as error:
        raise ValueError(f"{source} holds no wisdom of this version: {error}") from None
    add(found)
    return len(found)


def delete() -> None:
    """Forget all measurements, also those in the file."""
    with _lock:
        path().unlink(missing_ok=True)
        _know({})


def forget() -> None:
    """Drop what was read, so that the next question reads the file again."""
    global _known
    _known = None


def _key(problem: ConvProblem, num_threads: int) -> str:
    p = problem
    return (f"{machine(p.device).name} {num_threads} {p.dtype.name} {p.N} {p.groups} {p.C} {p.K} {p.size} {p.kernel} "
            f"{p.stride} {p.dilation} {p.padding} {p.boundary} {p.upsample} {p.channels_last}"
            f"{' tf32' * p.tf32}{' separable' * p.separable}{' reused' * p.reused}")


def _read() -> dict[str, dict[str, float]]:
    """What is known, from the file where this program has not asked before; the caller holds the lock."""
    return _know(_load()) if _known is None else _known


def _know(known: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Take this as all that is known; the caller holds the lock."""
    global _known, _sizes
    _sizes = frozenset(size for key in known for size in re.findall(r"\(\d[\d, ]*\)", key)[:1])
    _known = known
    return known


def _load() -> dict[str, dict[str, float]]:
    return store.load(path(), _FORMAT, "seconds", _check)


def _check(content: Any) -> dict[str, dict[str, float]]:
    return {str(key): {str(name): float(s) for name, s in times.items()} for key, times in content.items()}
