"""The only place where compiler options are written: how a Python function becomes a kernel.

`kernel` makes a function that Python calls, `parallel_kernel` one whose `prange` runs on Numba's threads, with a serial
twin for small work and for processes in which threads are not safe; `inner_kernel` makes what they are built from.
Nothing compiles before its first call. Compiled kernels are kept on disk where Numba keeps them; a disk that cannot be
used costs the compilation, never the call.
"""

from __future__ import annotations

import hashlib
import types
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import prange
from numba import types as numba_types
from numba.core.caching import FunctionCache, NullCache
from numba.core.codegen import JITCodeLibrary
from numba.core.registry import CPUDispatcher
from numba.core.runtime import rtsys
from numba.core.types.misc import unliteral
from numba.core.typing.typeof import typeof
from numba.extending import intrinsic, register_jitable
from numba.np.ufunc.parallel import _launch_threads

from . import threads
from .compiler import KernelCompiler, PartCompiler, libraries

__all__ = ["compiled", "inlined", "inner_kernel", "kernel", "owning_kernel", "parallel_kernel", "prange", "settled",
           "stay_a_function"]

_OPTIONS = {
    "nopython": True,
    "nogil": True,
    "error_model": "numpy",
    # NaN and infinity must survive, so LLVM may not assume their absence; sums may be reordered, products fused.
    "fastmath": {"contract", "reassoc", "nsz"},
    "no_cfunc_wrapper": True,
}


_PARALLEL_BUT_PRANGE = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")

_closures: Counter[str] = Counter()       # parts that were made of each inner function


@cache
def _sources() -> str:
    """Fingerprint of everything that kernels are made of: a kernel holds the code of what it calls."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    shared = ("boundary", "compiler", "geometry", "jit", "machine")
    rooms = [root / f"{name}.py" for name in shared]
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
            # A kernel that is loaded while a caller of it is compiled still is a kernel, with an entry for Python.
            with libraries(target_context.codegen(), JITCodeLibrary):
                # Numba would first read all that it can compile, SciPy's linear algebra included, a third of the
                # time that a first call takes; finished code needs only its allocator.
                rtsys.initialize(target_context)
                with self._guard_against_spurious_io_errors():
                    return self._load_overload(sig, target_context)
        except Exception:                               # damaged or half-written files: compile anew
            return None

    def save_overload(self, sig, data):
        if data.reload_init:                            # whose only function starts threads, and lies in the compiler
            data = data._replace(reload_init=[_launch_threads])
        try:
            super().save_overload(sig, data)
        except Exception:                               # full or read-only disk: keep the code in memory
            self.disable()


class _Part(CPUDispatcher):
    """A function that only compiled code calls."""

    def get_call_template(self, args, kws):
        """Numba would compile once more for each number that stands in a call."""
        return super().get_call_template(tuple(map(unliteral, args)), {k: unliteral(v) for k, v in kws.items()})

    def __call__(self, *args, **kwargs):
        raise TypeError(f"{self.__name__} is a part of kernels and has no entry for Python")


def _kernel(function: Callable, **options) -> Any:
    dispatcher = CPUDispatcher(function, targetoptions={**_OPTIONS, **options}, pipeline_class=KernelCompiler)
    try:
        dispatcher._cache = _Cache(function)
    except (RuntimeError, OSError):                     # no directory can be written
        dispatcher._cache = NullCache()
    return dispatcher


def _part(function: Callable, **options) -> Any:
    if function.__closure__:
        # The linker tells functions apart by module, name, types and a number that depends on what the program compiled
        # before. Kernels that other programs left on the disk bring theirs: of one name, one took another's place.
        name = f"{function.__module__}.{function.__qualname__}"
        function.__qualname__ += f"_{_closures[name]}"
        _closures[name] += 1
    return _Part(function, targetoptions={**_OPTIONS, **options, "no_cpython_wrapper": True},
                 pipeline_class=PartCompiler)


def kernel(function: Callable) -> Any:
    """Compile a serial function that Python calls, and kernels too."""
    return _kernel(function)


def inner_kernel(function: Callable) -> Any:
    """Compile a building block of kernels that makes no arrays.

    Its arrays are its caller's, so it counts no references: Numba would do so, atomically, in every call.
    """
    return _part(function, _nrt=False)


def owning_kernel(function: Callable) -> Any:
    """Compile a building block of kernels that makes arrays of its own, or errors that say numbers."""
    return _part(function, _nrt=True)                   # left unsaid, Numba would do as in the caller


def inlined(function: Callable) -> Any:
    """Compile an inner kernel of so few instructions that a call of it would cost as much as it does."""
    return _part(function, forceinline=True, _nrt=False)


@intrinsic
def stay_a_function(typingctx):
    """Keep the inner kernel that calls this out of its callers' bodies, where it would slow the loops around it."""

    def codegen(context, builder, sig, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return numba_types.void(), codegen


def compiled(function: Callable) -> Any:
    """A pure Python function of `geometry` as part of kernels; from then on others of them may call it there."""
    register_jitable(function)
    return _part(function)


def parallel_kernel(function: Callable) -> Callable:
    """Compile a function whose last argument `threads` is the number of chunks of its `prange`.

    The result runs the parallel code where several threads are wanted and safe, else the serial twin, which walks
    through the same chunks and gives the same result.
    """
    # Its `prange` alone: Numba would start the threads for an array of zeros as well.
    parallel = _kernel(function, parallel=dict.fromkeys(_PARALLEL_BUT_PRANGE, False))
    # Numba's cache does not tell the two apart by their options, only by their names.
    twin = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__,
                              function.__closure__)
    twin.__qualname__ = f"{function.__qualname__}_serial"
    twin.__module__ = function.__module__
    serial = _kernel(twin)

    def run(*args):
        return parallel(*args) if args[-1] > 1 and threads.may_start() else serial(*args)

    call: Any = run                                     # functions take attributes, which type checkers do not know
    call.__name__, call.__doc__, call.__module__ = function.__name__, function.__doc__, function.__module__
    call.parallel, call.serial = parallel, serial
    return call


def settled(call: Any) -> Callable:
    """A parallel kernel for arguments whose types stay those of the first calls; later ones are not asked for theirs.

    At each call Numba reads the types of named tuples element by element, which takes 7 microseconds. The caller
    promises that arrays keep their dtype and lie contiguous; only memory that must not be written is still seen. To
    find the types here takes a hundred times as long, so the second call does it: many problems come but once.
    """
    entries: list[Callable | None] = [None, None]           # of the serial and of the parallel code
    called = [False, False]

    def run(*args):
        side_by_side = args[-1] > 1 and threads.may_start()
        entry = entries[side_by_side]
        if entry is not None:
            return entry(*args)
        code = call.parallel if side_by_side else call.serial
        result = code(*args)
        if not called[side_by_side]:
            called[side_by_side] = True
            return result
        kinds = tuple(map(typeof, args))
        if all(map(_is_usual, kinds)):
            entries[side_by_side] = code.overloads[kinds].entry_point
        return result

    return run


def _is_usual(kind: numba_types.Type) -> bool:
    """Whether all arrays among arguments of this type are aligned and may be written."""
    if isinstance(kind, numba_types.BaseTuple):
        return all(map(_is_usual, kind))
    return not isinstance(kind, numba_types.Array) or (kind.mutable and kind.aligned)
