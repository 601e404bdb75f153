"""The one place that knows threading layers, forks and thread counts.

Numba runs `prange` on one of three layers. Two of them can end the process:

- GNU OpenMP (``omp`` on Linux) stops a child that was forked after its parent's first parallel call;
- ``workqueue`` aborts when two threads enter it at once, and another thread may be running parallel code of the
  user's own, of which nothing can be known here.

So a kernel asks `may_start` first, and runs its serial twin in such a child, and under workqueue in every thread but
the main one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any


class _Here(threading.local):
    """What holds for one thread alone."""

    limit: int | None = None                            # while `limited` is in force


_here = _Here()
_num_threads: int | None = None
_layer: str | None = None
_forked_from_openmp = False


def _backend_runs() -> bool:
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    return bool(getattr(parallel, "_is_initialized", False))


def _after_fork() -> None:
    global _forked_from_openmp
    if _backend_runs():
        import numba

        _forked_from_openmp = _forked_from_openmp or (
            sys.platform.startswith("linux") and numba.threading_layer() == "omp")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def may_start() -> bool:
    """Whether a parallel kernel may be started now and here."""
    global _layer
    if _forked_from_openmp:
        return False
    if _layer is None:
        import numba

        try:
            with _short_waits():
                numba.get_num_threads()                 # starts the layer, under Numba's own lock
            _layer = numba.threading_layer()
        except ValueError as error:                     # NUMBA_THREADING_LAYER asks for one that is not there
            warnings.warn(f"nconv runs on one thread: {error}", RuntimeWarning, stacklevel=3)
            _layer = "none"
    if _layer == "none":
        return False
    return _layer != "workqueue" or threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def _short_waits():
    """Let GNU OpenMP, which is loaded within, spin for microseconds only before a waiting thread sleeps.

    By default it spins for milliseconds: where another program wants the processor, a call of microseconds then waits
    for the end of a time slice. Measured on a busy machine: 4,000 to 12,000 microseconds, and so 2 to 200.
    """
    name = "GOMP_SPINCOUNT"
    ours = name not in os.environ and "OMP_WAIT_POLICY" not in os.environ
    if ours:
        os.environ[name] = "10000"
    try:
        yield
    finally:
        if ours:
            del os.environ[name]


def max_threads() -> int:
    """The largest number of threads: Numba's NUMBA_NUM_THREADS, by default the processors this process may use."""
    config: Any = sys.modules.get("numba.core.config")
    if hasattr(config, "NUMBA_NUM_THREADS"):            # not yet, while another thread imports Numba
        return int(config.NUMBA_NUM_THREADS)
    setting = os.environ.get("NUMBA_NUM_THREADS", "")
    if setting.isdigit() and int(setting) > 0:
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(n: int) -> None:
    """Set how many threads the kernels use.

    Parameters
    ----------
    n : int
        From 1 to the number with which Numba starts (NUMBA_NUM_THREADS, by default all processors).

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of range.

    Examples
    --------
    >>> import nconv
    >>> before = nconv.get_num_threads()
    >>> nconv.set_num_threads(1)
    >>> nconv.get_num_threads()
    1
    >>> nconv.set_num_threads(before)
    """
    global _num_threads
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be an integer: n={n!r}")
    _num_threads = _checked(n.__index__(), "n")


def get_num_threads() -> int:
    """Number of threads that the kernels use: as set, else NCONV_NUM_THREADS, else as many as Numba starts.

    In a block of `nconv.dask` it is the share of this number that falls to the block.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If NCONV_NUM_THREADS is not a number from 1 to NUMBA_NUM_THREADS.

    Examples
    --------
    >>> import nconv
    >>> nconv.get_num_threads() >= 1
    True
    """
    limit = _here.limit
    return _all_threads() if limit is None else min(_all_threads(), limit)


@contextlib.contextmanager
def limited(n: int) -> Iterator[None]:
    """At most `n` threads for each call that this thread makes: for callers that run several calls side by side."""
    before = _here.limit
    _here.limit = n
    try:
        yield
    finally:
        _here.limit = before


def _all_threads() -> int:
    global _num_threads
    if _num_threads is None:
        setting = os.environ.get("NCONV_NUM_THREADS", "").strip()
        if not setting:
            most = max_threads()
            if "numba.core.config" in sys.modules:          # decided, and asked before every call: keep it
                _num_threads = most
            return most
        try:
            _num_threads = _checked(int(setting), "NCONV_NUM_THREADS")
        except ValueError as error:
            raise ValueError(f"NCONV_NUM_THREADS={setting!r}: expected a number from 1 to {max_threads()}") from error
    return _num_threads


def _checked(n: int, name: str) -> int:
    if not 1 <= n <= max_threads():
        raise ValueError(f"{name} must be from 1 to {max_threads()}, the threads that Numba starts: {name}={n}")
    return n
