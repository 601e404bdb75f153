"""The GPU itself: whether one can be used, how Python becomes a kernel of it, how a kernel is launched.

The only place of this wing where compiler options are written, as `jit` is for the other. Numba's CUDA target is
imported here, at the first use of a GPU; with ``NUMBA_ENABLE_CUDASIM=1`` kernels run in its simulator instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from importlib.util import find_spec
from typing import Any

import numpy as np
from numba import config

from ..errors import DeviceError

SIMULATED = bool(config.ENABLE_CUDASIM)
INSTALLED = find_spec("numba_cuda") is not None
if SIMULATED or INSTALLED:
    from numba import cuda
else:                                              # nothing compiles, but the registry can still be read
    cuda = None
SHARED_LIMIT = 48 * 1024
"""Bytes of shared memory that a block of every GPU may hold without asking."""


@cache
def shared_limit() -> int:
    """Bytes of shared memory that a block of this GPU may hold if it asks."""
    return 1 << 20 if SIMULATED else int(cuda.get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)


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
    """Compile a building block of kernels; it becomes part of each that calls it."""
    if SIMULATED:
        return cuda.jit(device=True)(function)
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


def launch(kernel: Any, blocks: int | tuple, threads: int | tuple, stream: int, *args: Any, shared: int = 0) -> None:
    """Queue a kernel on a stream; waits for nothing. A grid of no blocks has nothing to do."""
    if blocks if isinstance(blocks, int) else all(blocks):
        _configured(kernel, blocks, threads, stream, shared)(*args)


def launch_over(kernel: Any, count: int, stream: int, *args: Any) -> None:
    """`launch` for a kernel whose threads stride over so many independent elements."""
    launch(kernel, min(-(-count // _THREADS), MOST_BLOCKS), _THREADS, stream, *args)


def _configure(kernel: Any, blocks: int | tuple, threads: int | tuple, stream: int, shared: int) -> Callable:
    """A launch without its arguments. Numba warns of few blocks: here the problem is small, and no one's choice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grid size")
        configured = kernel[blocks, threads, stream_of(stream), shared]
    if shared > SHARED_LIMIT and not SIMULATED:
        configured.pre_launch_callbacks.append(_ask_for_shared)
    return configured


def _ask_for_shared(compiled: Any, configured: Any) -> None:
    """Let a kernel have more shared memory than it may without asking; at each launch, as Numba says no other time."""
    from numba.cuda.cudadrv.driver import binding, driver

    function = compiled._codelibrary.get_cufunc()
    driver.cuKernelSetAttribute(binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                configured.sharedmem, function.handle, function.device.id)
    function.set_shared_memory_carveout(100)


# In the simulator a kernel holds its last configuration itself.
_configured = _configure if SIMULATED else lru_cache(maxsize=4096)(_configure)


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
    return owner.bind(0)


def synchronize() -> None:
    """Wait until the device has done what was queued (for measurements; no call needs it)."""
    cuda.synchronize()
