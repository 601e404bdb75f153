"""Measured times of the algorithms, remembered from one program to the next in one readable file."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import warnings
from pathlib import Path

import platformdirs

from .machine import machine
from .problem import ConvProblem

_FORMAT = 1
_lock = threading.Lock()
_known: dict[str, dict[str, float]] | None = None


def cache_dir() -> Path:
    """Where nconv keeps what it has learnt: NCONV_CACHE_DIR, else the platform's cache of the user."""
    return Path(os.environ.get("NCONV_CACHE_DIR") or platformdirs.user_cache_dir("nconv", appauthor=False))


def path() -> Path:
    """The file of measured times."""
    return cache_dir() / f"wisdom-{_FORMAT}.json"


def recall(problem: ConvProblem, num_threads: int) -> dict[str, float]:
    """Seconds of each algorithm that was measured on this problem with so many threads on this machine."""
    global _known
    if _known is None:
        with _lock:
            _known = _read()
    return _known.get(_key(problem, num_threads), {})


def remember(problem: ConvProblem, num_threads: int, seconds: dict[str, float]) -> None:
    """Add measurements, also to the file; what other processes wrote meanwhile is kept."""
    global _known
    with _lock:
        known = {**(_known or {}), **_read(), _key(problem, num_threads): seconds}
        _known = known
        try:
            cache_dir().mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=cache_dir(), suffix=".tmp")
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump({"format": _FORMAT, "seconds": known}, file, indent=1)
                os.replace(temporary, path())
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            warnings.warn(f"measured times are kept for this program only: {error}", stacklevel=3)


def forget() -> None:
    """Drop what was read, so that the next question reads the file again."""
    global _known
    _known = None


def _key(problem: ConvProblem, num_threads: int) -> str:
    p = problem
    return " ".join(map(str, (machine(p.device).name, num_threads, p.dtype, p.N, p.groups, p.C, p.K, p.size, p.kernel,
                              p.stride, p.dilation, p.padding, p.boundary, p.upsample, p.channels_last,
                              *(["tf32"] if p.tf32 else []), *(["separable"] if p.separable else []))))


def _read() -> dict[str, dict[str, float]]:
    try:
        text = path().read_text()
    except OSError:
        return {}
    try:
        content = json.loads(text)
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, expected {_FORMAT}")
        return {str(key): {str(name): float(s) for name, s in times.items()}
                for key, times in content["seconds"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{path()} is not readable and is ignored: {error}", stacklevel=4)
        return {}
