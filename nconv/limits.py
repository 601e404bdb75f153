"""What the user allows: workspace, error, TF32. A choice holds as long as these and the number of threads do."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from . import shortcuts, threads

_limits: dict[str, Any] = {"workspace": None, "error": 8.0, "tf32": False}


def conditions() -> tuple[int, int | None, float]:
    """(threads, workspace limit, error limit) in force: a decision holds as long as these do."""
    return threads.get_num_threads(), _limits["workspace"], _limits["error"]


def tf32_allowed() -> bool:
    """Whether a GPU may round the factors of float32 products to TF32."""
    return _limits["tf32"]


def set_workspace_limit(n_bytes: int | None) -> None:
    """Let no algorithm be chosen that needs more than `n_bytes` beside input and output.

    Parameters
    ----------
    n_bytes : int or None
        None lifts the limit.

    Raises
    ------
    TypeError, ValueError
        If `n_bytes` is not an integer or is negative.
    MemoryError
        Later, from a call for which no algorithm fits.

    Examples
    --------
    >>> import nconv
    >>> nconv.set_workspace_limit(64 * 2**20)
    >>> nconv.set_workspace_limit(None)
    """
    if n_bytes is not None:
        if isinstance(n_bytes, bool) or not isinstance(n_bytes, (int, np.integer)):
            raise TypeError(f"n_bytes must be an integer or None: n_bytes={n_bytes!r}")
        if n_bytes < 0:
            raise ValueError(f"n_bytes must not be negative: n_bytes={n_bytes}")
    _limits["workspace"] = None if n_bytes is None else int(n_bytes)
    shortcuts.forget()


class set_error_limit(contextlib.AbstractContextManager):
    """Let 'auto' choose only algorithms whose expected error is at most `times` the direct method's.

    As a function it sets the limit for the whole program, as a context manager for a block.

    Parameters
    ----------
    times : float
        At least 1; 8 unless set.

    Raises
    ------
    ValueError
        If `times` is below 1 or not a number.

    Examples
    --------
    >>> import nconv
    >>> with nconv.set_error_limit(1):
    ...     nconv.plan(nconv.convolve, nconv.ArraySpec((100_000,)), nconv.ArraySpec((5_000,))).method != "fft"
    True
    """

    def __init__(self, times: float):
        if not isinstance(times, (int, float, np.number)) or not times >= 1:
            raise ValueError(f"times must be a number of at least 1: times={times!r}")
        self._before = _limits["error"]
        _limits["error"] = float(times)
        shortcuts.forget()

    def __exit__(self, *exc) -> None:
        _limits["error"] = self._before
        shortcuts.forget()


class allow_tf32(contextlib.AbstractContextManager):
    """Let layers of float32 on a GPU round their factors to TF32 (eleven bits), so that tensor cores multiply them.

    Off by default: it is many times faster and errs some thousand times more. Sums stay float32. As a function it sets
    this for the whole program, as a context manager for a block; plans keep what was allowed when they were made.

    Parameters
    ----------
    allowed : bool, default True

    Raises
    ------
    TypeError
        If `allowed` is not a bool.

    Examples
    --------
    >>> import nconv
    >>> with nconv.allow_tf32():
    ...     y = "layers on a GPU run in TF32 here"
    """

    def __init__(self, allowed: bool = True):
        if not isinstance(allowed, (bool, np.bool_)):
            raise TypeError(f"allowed must be True or False: allowed={allowed!r}")
        self._before = _limits["tf32"]
        _limits["tf32"] = bool(allowed)

    def __exit__(self, *exc) -> None:
        _limits["tf32"] = self._before
