"""The GPU itself: whether one can be used, how Python becomes a kernel of it, how a kernel is launched.

The only place of this wing where compiler options are written, as `jit` is for the other. Numba's CUDA target is
imported here, at the first use of a GPU; with ``NUMBA_ENABLE_CUDASIM=1`` kernels run in its simulator instead.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
from numba import config, from_dtype, typeof, types

from ..errors import DeviceError

SIMULATED = bool(config.ENABLE_CUDASIM)
INSTALLED = find_spec("numba_cuda") is not None
if SIMULATED or INSTALLED:
    from numba import cuda
else:                                              # nothing compiles, but the registry can still be read
    cuda = None
SHARED_LIMIT = 48 * 1024
"""Bytes of shared memory that a block of every GPU may hold without asking."""


LANES = 4 if SIMULATED else 32
"""Threads that a kernel lets run side by side along the memory; few in the simulator: there each is one of Python's."""


def block_size(threads: int) -> int:
    """Threads of a block, fewer by the same share in the simulator."""
    return threads * LANES // 32


_THREADS = block_size(256)     # of a block where every element is one thread's
MOST_BLOCKS = 1 << 16          # beyond these, threads stride


# Neither flag of `fastmath`: it lets LLVM assume that there are no NaN. Products and sums fuse all the same.
def kernel(function: Callable | None = None, *, bounds: tuple[int, int] | None = None) -> Any:
    """Compile a kernel, at its first launch for the types it is launched with.

    `bounds`: (most threads of a block, blocks that a multiprocessor's registers must suffice for).
    """
    if function is None:
        return lambda function: kernel(function, bounds=bounds)
    if not cuda:
        return function
    return cuda.jit(function) if SIMULATED or bounds is None else cuda.jit(launch_bounds=bounds)(function)


def block_function(function: Callable) -> Any:
    """Compile a building block of kernels; it becomes part of each that calls it.

    The simulator takes a lock at each call of one, to give its module the thread that calls. Where nothing is asked
    of the thread a plain function does the same, many times faster.
    """
    if SIMULATED:
        return cuda.jit(device=True)(function) if "cuda" in function.__code__.co_names else function
    return cuda.jit(device=True, forceinline=True)(function) if cuda else function


@cache
def fault() -> str:
    """Why no GPU can be used, with the mend; empty: one can."""
    if SIMULATED:
        return ""
    if not INSTALLED:
        return 'the package numba-cuda is not installed; pip install "nconv[cuda]"'
    try:
        if cuda.is_available():
            return ""
        reason = cuda.cuda_error() or "no NVIDIA driver or no GPU was found"
    except Exception as error:                     # the driver's own faults have many types
        reason = error
    return f"{' '.join(str(reason).split())}; check that nvidia-smi lists a GPU, or leave device out to run on the CPU"


def check_usable() -> None:
    """Raise DeviceError with the reason and the mend where no GPU can be used."""
    if reason := fault():
        raise DeviceError(f"no GPU can be used: {reason}")


@lru_cache(maxsize=64)
def stream_of(handle: int) -> Any:
    """A stream as Numba knows it, from its address; 0 and 1 are the default stream, 2 is that of each thread."""
    return cuda.external_stream(handle) if handle > 1 else 0


def mark(handle: int) -> Any:
    """An event at the present end of a stream's queue, for others to wait for."""
    event = cuda.event() if SIMULATED else cuda.event(timing=False)
    event.record(stream_of(handle))
    return event


@cache
def _several() -> bool:
    return not SIMULATED and len(cuda.gpus) > 1


def current() -> int:
    """Number of the GPU on which kernels run."""
    return int(cuda.get_current_device().id) if _several() else 0


def device_cache(maxsize: int | None) -> Callable:
    """`lru_cache` for what lies in the memory of a GPU: one for each GPU."""

    def decorate(function: Callable) -> Callable:
        known: dict[int, Callable] = {}

        @wraps(function)
        def cached(*args):
            at = current()
            if at not in known:
                known[at] = lru_cache(maxsize)(function)
            return known[at](*args)

        return cached

    return decorate


class Memory:
    """One-dimensional memory of a GPU, as kernels take it: an array of Numba's takes longer to make than a launch.

    Parameters
    ----------
    owner : object
        Whatever keeps the memory alive.
    pointer, size : int
        Address of the first element, number of elements.
    dtype : dtype
    """

    __slots__ = ("dtype", "owner", "packed", "pointer", "size")

    def __init__(self, owner: Any, pointer: int, size: int, dtype: np.dtype):
        self.owner, self.pointer, self.size, self.dtype = owner, pointer, size, dtype
        # An array as a kernel's parameters: two of Numba's own, elements, bytes of one, address, shape, strides.
        self.packed = (0, 0, size, dtype.itemsize, pointer, size, dtype.itemsize)

    @property
    def __cuda_array_interface__(self) -> dict:
        return {"shape": (self.size,), "strides": None, "typestr": self.dtype.str, "data": (self.pointer, False),
                "version": 3}

    @property
    def array(self) -> Any:
        """As an array of Numba's."""
        return cuda.as_cuda_array(self)


# Numba's types as `struct` names them; a complex number is two parameters.
_CODES = {"bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
          "int64": "q", "uint64": "Q", "float16": "e", "float32": "f", "float64": "d", "complex64": "ff",
          "complex128": "dd"}


def _kind(argument: Any) -> Any:
    """Numba's type of an argument. A layout holds whole numbers, all of 64 bits, whatever the first one holds."""
    if type(argument) is Memory:
        return from_dtype(argument.dtype)[::1]
    if isinstance(argument, tuple):
        return types.NamedUniTuple(types.int64, len(argument), type(argument))
    return typeof(argument)


def _codes(kind: Any) -> str:
    """The parameters that an argument becomes."""
    if isinstance(kind, types.Array):
        return "qqqqQqq"
    return len(kind) * "q" if isinstance(kind, types.BaseTuple) else _CODES[str(kind)]


class Parameters:
    """Where the driver finds the arguments of a launch: packed as Numba passes them, each at a place of its own.

    Parameters
    ----------
    kinds : sequence of Numba types
        Of the arguments, for which the kernel was compiled; whatever does not fit raises `struct.error`.
    """

    def __init__(self, kinds: tuple):
        codes = "".join(map(_codes, kinds))
        self._pack = struct.Struct(codes)
        self._values = bytearray(self._pack.size)
        first = ctypes.addressof(ctypes.c_char.from_buffer(self._values))
        self.places = [struct.calcsize(codes[:i + 1]) - struct.calcsize(code) for i, code in enumerate(codes)]
        self._pointers = (ctypes.c_void_p * len(codes))(*(first + place for place in self.places))
        self.address = ctypes.addressof(self._pointers)

    def fill(self, args: tuple) -> None:
        """Take the arguments of the next launch."""
        values: list[Any] = []
        for a in args:
            if type(a) is Memory:
                values += a.packed
            elif isinstance(a, tuple):
                values += a
            elif isinstance(a, (complex, np.complexfloating)):
                values += (a.real, a.imag)
            else:
                values.append(a)
        self._pack.pack_into(self._values, 0, *values)


class _Launcher:
    """A kernel compiled for arguments of some types; the driver launches it: Numba's launch takes 20 times as long."""

    def __init__(self, kernel: Any, args: tuple):
        from numba.cuda.cudadrv.driver import binding, driver

        kinds = tuple(map(_kind, args))
        self._parameters = Parameters(kinds)
        self._compiled = kernel.compile(kinds)
        self._compiled.bind()
        self._function = binding.CUfunction(int(self._compiled.library.get_cufunc().handle))
        self._launch, self._one_at_a_time = driver.cuLaunchKernel, Lock()
        self._allowed = SHARED_LIMIT

    def __call__(self, grid: tuple, block: tuple, stream: int, shared: int, args: tuple) -> None:
        with self._one_at_a_time:
            if shared > self._allowed:
                self._ask_for(shared)
            self._parameters.fill(args)
            self._launch(self._function, *grid, *block, shared, stream, self._parameters.address, 0)

    def _ask_for(self, shared: int) -> None:
        """Let the kernel have more bytes of shared memory than every block may hold."""
        from numba.cuda.cudadrv.driver import binding, driver

        function = self._compiled.library.get_cufunc()
        driver.cuKernelSetAttribute(binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                    shared, function.handle, function.device.id)
        function.set_shared_memory_carveout(100)
        self._allowed = shared


_launchers: dict[tuple, _Launcher] = {}


def launch(kernel: Any, blocks: int | tuple, threads: int | tuple, stream: int, *args: Any, shared: int = 0) -> None:
    """Queue a kernel on a stream; waits for nothing. A grid of no blocks has nothing to do."""
    grid, block = ((*n, *(1,) * (3 - len(n))) if isinstance(n, tuple) else (n, 1, 1) for n in (blocks, threads))
    if 0 in grid:
        return
    if SIMULATED:
        kernel[grid, block, stream_of(stream), shared](*args)
        return
    key = (kernel, current(), *[a.dtype if type(a) is Memory else type(a) for a in args])
    launcher = _launchers.get(key) or _launchers.setdefault(key, _Launcher(kernel, args))
    cuda.current_context()                             # a thread's first launch may be its first word to the driver
    launcher(grid, block, stream if stream > 1 else 0, shared, args)


def launch_over(kernel: Any, count: int, stream: int, *args: Any) -> None:
    """`launch` for a kernel whose threads stride over so many independent elements."""
    launch(kernel, min(-(-count // _THREADS), MOST_BLOCKS), _THREADS, stream, *args)


@device_cache(1024)
def table(values: tuple, dtype: str = "i8") -> Any:
    """Numbers that kernels look up, as a device array that stays on the device."""
    return upload(np.array(values, dtype))


@device_cache(None)
def _copies() -> Any:
    """The stream of the copies below: it waits for no other, and no other waits for it."""
    from numba.cuda.cudadrv.driver import driver

    cuda.current_context()
    return cuda.external_stream(int(driver.cuStreamCreate(1)))        # CU_STREAM_NON_BLOCKING


def upload(array: np.ndarray) -> Any:
    """A copy of a host array in the device's memory; ready for every stream. Waits for this copy alone."""
    if SIMULATED:
        return np.array(array)
    stream, host = _copies(), np.ascontiguousarray(array)
    owner = cuda.to_device(host, stream=stream)
    stream.synchronize()
    return Memory(owner, owner.__cuda_array_interface__["data"][0], host.size, host.dtype)


def synchronize() -> None:
    """Wait until the device has done what was queued (for measurements; no call needs it)."""
    cuda.synchronize()
