"""How arrays reach the kernels of a GPU, and how results reach the caller in the kind that came in.

Kernels see one-dimensional memory, a start and strides, so they take every view without a copy; boundaries are integer
maps already multiplied by the input's strides. The first part has the names of `cpu.arrays`, so that the planner serves
both wings alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..boundary import FILL
from ..errors import DeviceError
from ..geometry import product
from ..phases import Phase
from ..problem import ConvProblem
from .device import SIMULATED, check_usable, cuda, current, device_cache, synchronize, table, upload
from .views import DeviceArray, address_of, convert, copy_into, empty, settle

__all__ = ["allocate", "assign", "beside", "check_usable", "deliver", "from_host", "keep", "kept", "narrow",
           "part_target", "synchronize", "to_host", "view", "widen", "zeros"]


# --------------------------------------------------------------------------------------------------- Interop


def view(value: Any, name: str) -> DeviceArray:
    """An array of CuPy, PyTorch, Numba or any other library with ``__cuda_array_interface__``, without a copy."""
    check_usable()
    if isinstance(value, DeviceArray):
        return value
    library = type(value).__module__.partition(".")[0]
    if SIMULATED and hasattr(value, "__cuda_ndarray__"):          # the simulator's arrays have no interface
        host = value._ary
        return DeviceArray(value, host.ctypes.data, host.shape, host.strides, host.dtype, 0)
    interface: dict = {}
    try:
        if library == "torch":                                   # its interface takes longer to build than a launch
            value = value.detach()
            if value.is_conj() or value.is_neg():
                value = value.resolve_conj().resolve_neg()
            dtype = _numpy_dtype(value.dtype)
            pointer, shape = value.data_ptr(), tuple(value.shape)
            strides = tuple([step * dtype.itemsize for step in value.stride()])
        else:
            interface = value.__cuda_array_interface__
            dtype = np.dtype(interface["typestr"])
            pointer, shape, strides = interface["data"][0], tuple(interface["shape"]), interface.get("strides")
    except (KeyError, TypeError) as error:                       # PyTorch has types that no other library knows
        raise TypeError(f"{name} has a dtype that is not supported: {name}.dtype={value.dtype}") from error
    if interface.get("mask") is not None:
        raise TypeError(f"{name} must not be a masked array")
    if not dtype.isnative or any(step % dtype.itemsize for step in strides or ()):
        raise TypeError(f"{name} must hold elements of the native byte order, whole elements apart: "
                        f"typestr={interface['typestr']!r}, strides={strides}")
    there = _gpu(value, library)
    if there is not None and there != current():
        raise DeviceError(f"{name} lies on GPU {there}, kernels run on GPU {current()}: make {there} the current one, "
                          f"for example with torch.cuda.device({there}) or cupy.cuda.Device({there})")
    return DeviceArray(value, pointer, shape, None if strides is None else tuple(strides), dtype,
                       _stream(value, library, interface))


@lru_cache(maxsize=64)
def _numpy_dtype(dtype: Any) -> np.dtype:
    """NumPy's name for a type of PyTorch's; TypeError where it has none."""
    return np.dtype(str(dtype).partition(".")[2])


def _gpu(value: Any, library: str) -> int | None:
    """Number of the GPU on which an array lies; None where its library does not say."""
    if library == "torch":
        return value.device.index
    return int(value.device.id) if library == "cupy" else None


def _stream(value: Any, library: str, interface: dict) -> int:
    """Address of the caller's current stream, or of the one that the interface names; 0 is the default."""
    if library == "cupy":
        import cupy

        return int(cupy.cuda.get_current_stream().ptr)
    if library == "torch":
        import torch

        return int(torch.cuda.current_stream(value.device).cuda_stream)
    return int(interface.get("stream") or 0)


def deliver(result: DeviceArray, like: Any) -> Any:
    """The result in the kind of `like`: NumPy in, NumPy out; CuPy, CuPy; PyTorch, PyTorch; else a Numba array."""
    if not isinstance(like, DeviceArray):
        return to_host(result)
    owner = result.owner
    if SIMULATED and type(like.owner).__module__.partition(".")[0] in ("numba", "numpy"):
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        return FakeCUDAArray(np.lib.stride_tricks.as_strided(
            result.memory()[result.extent()[0]:], result.shape, result.strides))
    if result.contiguous and address_of(owner) == result.pointer and tuple(owner.shape) == result.shape and (
            not isinstance(owner, np.ndarray)):
        return owner
    library = type(like.owner).__module__.partition(".")[0]
    if library == "cupy":
        import cupy

        # Not through the interface: CuPy would wait for the stream that it names.
        return cupy.ndarray(result.shape, result.dtype, owner.data + (result.pointer - owner.data.ptr), result.strides)
    if library == "torch":
        import torch

        return torch.as_tensor(result, device=like.owner.device)
    return result if SIMULATED else cuda.as_cuda_array(result, sync=False)


def to_host(result: DeviceArray) -> np.ndarray:
    """Waits, as it must: the host reads the values."""
    dense = result if result.contiguous else convert(result, result.dtype)
    host = np.empty(dense.shape, dense.dtype)
    if host.size:
        flat = dense.memory()
        host[...] = (flat if SIMULATED else flat.array.copy_to_host()).reshape(dense.shape)
    return host


def from_host(array: np.ndarray) -> DeviceArray:
    """A host array on the device."""
    if 0 in array.shape:
        return empty(array.shape, array.dtype)
    owner = upload(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
    return DeviceArray(owner, address_of(owner), array.shape, None, owner.dtype, 0)


# ------------------------------------------------------------------------------------ What the planner asks of a wing


def allocate(problem: ConvProblem, like: Any = None) -> DeviceArray:
    """Uninitialised output in the engine's order, in the library and on the stream of `like`."""
    needed = product(problem.out_shape) * problem.engine.itemsize
    try:
        if problem.channels_last:
            last = empty((problem.N, *problem.out, problem.groups * problem.K), _stored(problem), like)
            return last.transpose(0, last.ndim - 1, *range(1, last.ndim - 1))
        return empty(problem.out_shape, _stored(problem), like)
    except Exception as error:                                   # each library has its own word for a full memory
        if "memory" not in f"{type(error).__name__} {error}".lower():
            raise
        raise MemoryError(f"the output of shape {problem.out_shape} needs {needed} bytes: {error}") from error


@contextmanager
def part_target(problem: ConvProblem, result: DeviceArray, places: tuple) -> Iterator[DeviceArray]:
    """Where a part of the output is computed: at its places, which kernels reach by strides."""
    yield result[places]


def zeros(shape: tuple[int, ...], dtype: np.dtype, like: Any) -> DeviceArray:
    """An array of zeros."""
    result = empty(shape, dtype, like)
    result[()] = 0
    return result


def widen(array: Any, problem: ConvProblem) -> DeviceArray | None:
    """Values in the type that kernels read, on the device: float16 stays as it is, they sum it in float32."""
    if array is None:
        return None
    array = array if isinstance(array, DeviceArray) else from_host(np.asarray(array))
    return array if array.dtype in (_stored(problem), problem.engine) else convert(array, problem.engine)


def kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make` as it is: weights lie on the device, where the host cannot compare them without waiting."""
    return make


def weight_of(problem: ConvProblem, phase: Phase, weight: DeviceArray) -> DeviceArray:
    """The weight of a phase, which here is one block; its kernel of preparation takes any strides."""
    return weight[phase.blocks[0].taps]


def narrow(array: DeviceArray, dtype: np.dtype, cast: Any = None) -> DeviceArray:
    """Values in the result's type. Floats become integers by truncation, which is the one `cast` that gets here."""
    if cast is not None and array.dtype.kind == "f" and dtype.kind == "b":
        array = convert(array, np.dtype("i8"))
    return array if array.dtype == dtype else convert(array, dtype)


def lend(out: Any, problem: ConvProblem, leave: Any, inputs: tuple) -> None:
    """Kernels here write to memory of their own: `out` may lie on another stream, or on the host."""
    return None


def assign(out: Any, result: DeviceArray, name: str = "out") -> None:
    """Copy a result into the caller's array."""
    if isinstance(out, np.ndarray):
        out[...] = to_host(result)
    else:
        copy_into(view(out, name), result)


def beside(array: np.ndarray, like: DeviceArray) -> DeviceArray:
    """Constants of the library's own where `like` lies and on its stream; they stay on the device."""
    there = _constant(array.tobytes(), array.dtype.str, array.shape)
    return DeviceArray(there.owner, there.pointer, there.shape, there.strides, there.dtype, like.stream)


@device_cache(256)
def _constant(raw: bytes, dtype: str, shape: tuple[int, ...]) -> DeviceArray:
    return from_host(np.frombuffer(raw, dtype).reshape(shape))


def keep(prepared: Any) -> Any:
    """What a plan keeps from one call to the next: readers on any stream wait until it is filled, the host never."""
    if isinstance(prepared, DeviceArray):
        settle(prepared)
    elif isinstance(prepared, tuple):
        for part in prepared:
            keep(part)
    return prepared


def _stored(problem: ConvProblem) -> np.dtype:
    return problem.dtype if problem.dtype.char == "e" else problem.engine


# ----------------------------------------------------------------------------------------- What kernels are given


class Operand(NamedTuple):
    """Memory of an array in the engine's order as real numbers: address = start + sum of index times stride."""

    flat: Any
    start: int
    strides: tuple[int, ...]          # batch, channel, part, spatial axes


def operand(array: DeviceArray) -> Operand:
    """See `array` (N, C, *spatial) as an Operand; a complex element has two parts."""
    parts = 2 if array.dtype.kind == "c" else 1
    real = np.empty(0, array.dtype).real.dtype
    strides = [step // real.itemsize for step in array.strides]
    return Operand(array.memory(real), parts * array.extent()[0], (*strides[:2], parts - 1, *strides[2:]))


def parts(problem: ConvProblem) -> int:
    """Real numbers in one element: 2 for complex types, else 1."""
    return 2 if problem.engine.kind == "c" else 1


def real_dtype(problem: ConvProblem) -> np.dtype:
    """Type of the numbers that the kernels multiply."""
    return np.zeros(0, problem.engine).real.dtype


def bias_vector(problem: ConvProblem, bias: DeviceArray | None) -> tuple[Any, int]:
    """(the bias as real numbers, the parts side by side; how many) - one zero stands for none."""
    if bias is None:
        return table((0,) * parts(problem), real_dtype(problem).str), parts(problem)
    bias = engine_array(problem, bias)
    return bias.memory(real_dtype(problem)), bias.size * parts(problem)


def engine_array(problem: ConvProblem, array: DeviceArray) -> DeviceArray:
    """The values in the engine's type and in C order; a copy only where they are not."""
    return array if array.contiguous and array.dtype == problem.engine else convert(array, problem.engine)


class Maps(NamedTuple):
    """What stands under each padded position of each axis, as an offset in the input's memory; below 0: the fill."""

    index: Any                        # the axes one behind the other
    start: tuple[int, ...]            # where each axis begins
    fill: tuple[float, ...]           # the fill value, one number a part


OUTSIDE = -(1 << 56)
"""In a map: the fill value stands here. So far below zero that no sum over the axes rises above it."""


def three(values: tuple, one: Any = 1) -> tuple:
    """Entries of up to three axes as those of three."""
    return (one,) * (3 - len(values)) + tuple(values)


@lru_cache(maxsize=1024)
def in_three_axes(problem: ConvProblem) -> ConvProblem:
    """The same problem with axes of one element before those that it has."""
    p = problem
    return p if p.rank >= 3 else p.replace(
        size=three(p.size), kernel=three(p.kernel), stride=three(p.stride), dilation=three(p.dilation),
        padding=three(p.padding, (0, 0)), boundary=three(p.boundary, "constant"), upsample=three(p.upsample))


@device_cache(256)
def address_maps(problem: ConvProblem, strides: tuple[int, ...]) -> Maps:
    """`problem.index_maps()` times the strides of the spatial axes, on the device."""
    maps = problem.index_maps()
    lengths = [len(m) for m in maps]
    index = [np.where(m == FILL, OUTSIDE, m * step) for m, step in zip(maps, strides, strict=True)]
    fill = np.array([problem.fill], problem.engine).view(real_dtype(problem))
    return Maps(upload(np.concatenate(index)), tuple(int(sum(lengths[:a])) for a in range(len(lengths))),
                tuple(fill.tolist()))
