"""The only place where compiler options are written: how a Python function becomes a kernel.

`kernel` makes a serial building block, `parallel_kernel` a function whose `prange` runs on Numba's threads, with a
serial twin for small work and for processes in which threads are not safe. Nothing compiles before its first call.
Compiled code is kept on disk where Numba keeps it; a disk that cannot be used costs the compilation, never the call.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import prange
from numba.core.caching import FunctionCache, NullCache
from numba.extending import register_jitable

from . import threads

__all__ = ["compiled", "inlined", "kernel", "parallel_kernel", "prange"]

_OPTIONS = {
    "nogil": True,
    "error_model": "numpy",
    # NaN and infinity must survive, so LLVM may not assume their absence; sums may be reordered, products fused.
    "fastmath": {"contract", "reassoc", "nsz"},
}


@cache
def _sources() -> str:
    """Fingerprint of everything that kernels are made of: a kernel holds the code of what it calls."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    rooms = [root / f"{name}.py" for name in ("boundary", "geometry", "jit", "machine")]     # which cpu/ compiles
    for path in sorted([*rooms, *root.glob("cpu/**/*.py")]):
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class _Cache(FunctionCache):
    """Numba's cache on disk, which here knows the sources of the callees and survives any fault of the disk."""

    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), _sources())

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:                               # damaged or half-written files: compile anew
            return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception:                               # full or read-only disk: keep the code in memory
            self.disable()


def _dispatcher(function: Callable, **options) -> Any:
    dispatcher = numba.njit(**_OPTIONS, **options)(function)
    try:
        dispatcher._cache = _Cache(dispatcher.py_func)
    except (RuntimeError, OSError):                     # no directory can be written
        dispatcher._cache = NullCache()
    return dispatcher


def kernel(function: Callable) -> Any:
    """Compile a building block of kernels; serial, callable from other kernels and from Python."""
    return _dispatcher(function)


def inlined(function: Callable) -> Any:
    """Compile a building block of so few instructions that a call of it would cost as much as it does."""
    return _dispatcher(function, forceinline=True)


def compiled(function: Callable) -> Any:
    """A pure Python function of `geometry` as part of kernels; from then on others of them may call it there."""
    register_jitable(function)
    return _dispatcher(function)


def parallel_kernel(function: Callable) -> Callable:
    """Compile a function whose last argument `threads` is the number of chunks of its `prange`.

    The result runs the parallel code where several threads are wanted and safe, else the serial twin, which walks
    through the same chunks and gives the same result.
    """
    parallel = _dispatcher(function, parallel=True)
    # Numba's cache does not tell the two apart by their options, only by their names.
    twin = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__,
                              function.__closure__)
    twin.__qualname__ = f"{function.__qualname__}_serial"
    twin.__module__ = function.__module__
    serial = _dispatcher(twin)

    def run(*args):
        return parallel(*args) if args[-1] > 1 and threads.may_start() else serial(*args)

    call: Any = run                                     # functions take attributes, which type checkers do not know
    call.__name__, call.__doc__, call.__module__ = function.__name__, function.__doc__, function.__module__
    call.parallel, call.serial = parallel, serial
    return call
