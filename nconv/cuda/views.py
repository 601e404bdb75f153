"""A view of device memory, with as much of NumPy's view algebra as the families use; no view touches the memory."""

from __future__ import annotations

import ctypes
import operator
from functools import lru_cache
from typing import Any

import numpy as np

from ..geometry import product
from .copies import (
    add_kernel,
    bool_kernel,
    complex_root_kernel,
    conjugate_kernel,
    copy_kernel,
    root_kernel,
    square_kernel,
    truncate_kernel,
    unsigned_kernel,
)
from .device import MOST_BLOCKS, SIMULATED, Memory, cuda, launch, launch_over, mark, stream_of, table
from .elements import OPERATIONS, SUM_THREADS, combine_kernel, compute_type, number_kernel, sum_kernel


@lru_cache(maxsize=4096)
def reshaped_strides(shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...] | None:
    """Strides with which the same memory has the shape `new`; None where only a copy has it.

    Runs of axes that lie evenly are merged to one each, and every new axis is cut from the end of such a run.
    """
    runs: list[list[int]] = []                                        # [extent, stride], the last axis first
    for n, step in sorted_axes(shape, strides):
        if runs and step == runs[-1][0] * runs[-1][1]:
            runs[-1][0] *= n
        else:
            runs.append([n, step])
    result = []
    for n in reversed(new):
        while runs and runs[0][0] == 1:
            runs.pop(0)
        if n == 1 or not runs:
            result.append(runs[0][1] if runs else 0)
            continue
        extent, step = runs[0]
        if extent % n:
            return None
        result.append(step)
        runs[0] = [extent // n, step * n]
    return tuple(reversed(result))


def sorted_axes(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """(extent, stride) of the axes longer than one, the last first."""
    return [(n, step) for n, step in zip(reversed(shape), reversed(strides), strict=True) if n != 1]


class DeviceArray:
    """Memory of a device array: its address, shape and strides in bytes, and what keeps it alive.

    Parameters
    ----------
    owner : object
        The caller's array, or whatever else holds the memory.
    pointer : int
        Address of element (0, ..., 0).
    shape, strides : tuple of int
    dtype : dtype
    stream : int
        Address of the stream on which the memory is ready.
    ready : event, optional
        What any other stream waits for instead, where the stream may be gone by then.
    """

    __slots__ = ("dtype", "owner", "pointer", "ready", "shape", "stream", "strides")
    is_cuda = True                                                    # PyTorch's word for it

    def __init__(self, owner: Any, pointer: int, shape: tuple[int, ...], strides: tuple[int, ...] | None,
                 dtype: np.dtype, stream: int, ready: Any = None):
        self.owner, self.pointer, self.shape, self.dtype, self.stream = owner, pointer, shape, dtype, stream
        self.ready = ready
        self.strides = contiguous_strides(shape, dtype.itemsize) if strides is None else strides

    def _like(self, shape, strides, pointer=None) -> DeviceArray:
        return DeviceArray(self.owner, self.pointer if pointer is None else pointer, tuple(shape), tuple(strides),
                           self.dtype, self.stream, self.ready)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return product(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one behind the other."""
        plain = contiguous_strides(self.shape, self.dtype.itemsize)
        return self.strides == plain or all(
            n == 1 or a == b for n, a, b in zip(self.shape, self.strides, plain, strict=True))

    @property
    def __cuda_array_interface__(self) -> dict:
        return {"shape": self.shape, "strides": None if self.contiguous else self.strides, "typestr": self.dtype.str,
                "data": (self.pointer, False), "version": 3, "stream": self.stream or 1}

    def __array__(self, *args, **kwargs):
        raise TypeError("an array on a GPU is not copied to the host silently")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__" or kwargs:
            return NotImplemented
        if ufunc in OPERATIONS:
            return combine(ufunc, *inputs)
        if len(inputs) != 1:
            return NotImplemented
        if ufunc is np.conjugate:
            return self if self.dtype.kind != "c" else convert(self, self.dtype, conjugate_kernel)
        # Arithmetic in float16 would need a library of CUDA's that Numba links; float32 is as good.
        wide = self.astype("f4") if self.dtype.char == "e" else self
        if ufunc is np.square:
            return convert(wide, self.dtype, square_kernel)
        if ufunc is np.sqrt:
            return convert(wide, np.sqrt(np.empty(0, self.dtype)).dtype,
                           complex_root_kernel if self.dtype.kind == "c" else root_kernel)
        return NotImplemented

    def __iadd__(self, other: DeviceArray) -> DeviceArray:
        total = self.astype("f4") if self.dtype.char == "e" else self
        copy_into(total, other.astype(total.dtype, copy=False), add_kernel)
        if total is not self:
            copy_into(self, total)
        return self

    def __add__(self, other) -> DeviceArray:
        return combine(np.add, self, other)

    def __radd__(self, other) -> DeviceArray:
        return combine(np.add, other, self)

    def __sub__(self, other) -> DeviceArray:
        return combine(np.subtract, self, other)

    def __mul__(self, other) -> DeviceArray:
        return combine(np.multiply, self, other)

    def __rmul__(self, other) -> DeviceArray:
        return combine(np.multiply, other, self)

    def __truediv__(self, other) -> DeviceArray:
        return combine(np.true_divide, self, other)

    def __gt__(self, other) -> DeviceArray:
        return combine(np.greater, self, other)

    def sum(self, axis: int | tuple[int, ...] | None = None) -> DeviceArray:
        """Sums over some axes, or over all, in the type that NumPy gives them."""
        axes = range(self.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        summed = [a % self.ndim for a in axes]
        kept = [a for a in range(self.ndim) if a not in summed]
        dtype = np.add.reduce(np.zeros(1, self.dtype)).dtype
        result = empty(tuple(self.shape[a] for a in kept), dtype, self)
        if not self.size:
            result[()] = 0
            return result
        tables = [table((*(self.shape[a] for a in of), *(self.strides[a] // self.dtype.itemsize for a in of)))
                  for of in (kept, summed)]
        launch(sum_kernel(compute_type(dtype)), min(result.size, MOST_BLOCKS), SUM_THREADS, self.stream, self.memory(),
               self.extent()[0], result.memory(), *tables, result.size, self.size // result.size)
        return result

    def copy(self) -> DeviceArray:
        """The values in new memory, in C order."""
        return convert(self, self.dtype)

    def __deepcopy__(self, memo) -> DeviceArray:
        return self.copy()

    def take(self, indices: np.ndarray, axis: int) -> DeviceArray:
        """The elements at some places of an axis; one copy for each run of places evenly apart."""
        places = [int(i) for i in indices]
        result = empty((*self.shape[:axis], len(places), *self.shape[axis + 1:]), self.dtype, self)
        before = (slice(None),) * axis
        begin = 0
        while begin < len(places):
            end = begin + 1
            step = places[end] - places[begin] if end < len(places) else 1
            while end < len(places) and places[end] - places[end - 1] == step:
                end += 1
            run = range(places[begin], places[begin] + step * (end - begin), step) if step else ()
            source = self[(*before, slice(run.start, run.stop if run.stop >= 0 else None, step) if run else
                           slice(places[begin], places[begin] + 1))]
            result[(*before, slice(begin, end))] = source
            begin = end
        return result

    def transpose(self, *axes) -> DeviceArray:
        """The axes in another order."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], (int, np.integer)) else axes
        order = [a % self.ndim for a in order]
        return self._like((self.shape[a] for a in order), (self.strides[a] for a in order))

    def swapaxes(self, a: int, b: int) -> DeviceArray:
        """Two axes exchanged."""
        order = list(range(self.ndim))
        order[a], order[b] = order[b], order[a]
        return self.transpose(order)

    def reshape(self, *shape) -> DeviceArray:
        """Another shape; a copy on the device where the memory cannot be seen so."""
        new = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
        if -1 in new:
            new = tuple(self.size // max(product(n for n in new if n != -1), 1) if n == -1 else n for n in new)
        strides = reshaped_strides(self.shape, self.strides, new) if self.size else contiguous_strides(
            new, self.dtype.itemsize)
        return convert(self, self.dtype).reshape(new) if strides is None else self._like(new, strides)

    def broadcast_to(self, shape: tuple[int, ...]) -> DeviceArray:
        """Axes of one element, and missing first axes, repeated."""
        missing = len(shape) - self.ndim
        strides = [0 if n != m else step for n, m, step in zip(self.shape, shape[missing:], self.strides, strict=True)]
        return self._like(shape, [0] * missing + strides)

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        """The values in another type; a new array unless `copy` is False and nothing changes."""
        dtype = np.dtype(dtype)
        return self if dtype == self.dtype and not copy else convert(self, dtype)

    def __getitem__(self, index) -> DeviceArray:
        index = index if isinstance(index, tuple) else (index,)
        given = sum(i is not None and i is not Ellipsis for i in index)
        if Ellipsis in index:
            at = index.index(Ellipsis)
            index = (*index[:at], *(slice(None),) * (self.ndim - given), *index[at + 1:])
            given = self.ndim
        shape, strides, pointer, axis = [], [], self.pointer, 0
        for i in (*index, *(slice(None),) * (self.ndim - given)):
            if i is None:
                shape.append(1)
                strides.append(0)
                continue
            n, step = self.shape[axis], self.strides[axis]
            axis += 1
            if isinstance(i, slice):
                places = range(n)[i]
                shape.append(len(places))
                strides.append(step * places.step)
                pointer += step * places.start if len(places) else 0
            else:
                pointer += step * range(n)[operator.index(i)]
        return self._like(shape, strides, pointer)

    def __setitem__(self, index, value) -> None:
        """Copy a number or a device array into a part; nothing to do where the value already is that part."""
        target = self[index]
        if isinstance(value, DeviceArray):
            source = value.broadcast_to(target.shape)
            if (source.pointer, source.strides) == (target.pointer, target.strides):
                return
        else:
            constant = table((value,), target.dtype.str)
            one = DeviceArray(constant, address_of(constant), (1,) * target.ndim, None, target.dtype, target.stream)
            source = one.broadcast_to(target.shape)
        copy_into(target, source)

    def extent(self) -> tuple[int, int]:
        """(elements from the lowest address to element (0, ..., 0), elements from lowest to highest address)."""
        return _extent(self.shape, self.strides, self.dtype.itemsize)

    def memory(self, dtype: np.dtype | None = None) -> Any:
        """What a kernel takes: the memory from the lowest to the highest address, one-dimensional."""
        before, count = self.extent()
        first = self.pointer - before * self.dtype.itemsize
        dtype = self.dtype if dtype is None else dtype
        count = count * self.dtype.itemsize // dtype.itemsize
        if SIMULATED and not count:
            return np.empty(0, dtype)
        if SIMULATED:
            buffer = (ctypes.c_byte * (count * dtype.itemsize)).from_address(first)
            buffer.owner = self.owner                                 # lives as long as the view
            return np.frombuffer(buffer, dtype)
        return Memory(self.owner, first, count, dtype)


@lru_cache(maxsize=4096)
def _extent(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """See `DeviceArray.extent`."""
    if 0 in shape:
        return 0, 0
    reach = [step // itemsize * (n - 1) for n, step in zip(shape, strides, strict=True)]
    before = -sum(r for r in reach if r < 0)
    return before, before + sum(r for r in reach if r > 0) + 1


@lru_cache(maxsize=4096)
def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides of C order."""
    return tuple(itemsize * product(shape[a + 1:]) for a in range(len(shape)))


def address_of(array: Any) -> int:
    """Address of the memory of a device array, in the simulator of a host array."""
    if isinstance(array, np.ndarray):
        return array.ctypes.data
    if hasattr(array, "data_ptr"):                                    # PyTorch's, whose interface is slow to build
        return array.data_ptr()
    return array.__cuda_array_interface__["data"][0]


def empty(shape: tuple[int, ...], dtype: np.dtype, like: Any = None) -> DeviceArray:
    """New memory on the device, from the allocator of `like`'s library where it has one, on the same stream."""
    owner = like.owner if isinstance(like, DeviceArray) else None
    stream = like.stream if isinstance(like, DeviceArray) else 0
    library = type(owner).__module__.partition(".")[0]
    if library == "cupy":
        import cupy

        array = cupy.empty(shape, dtype)
    elif library == "torch":
        import torch

        array = torch.empty(shape, dtype=getattr(torch, dtype.name), device=owner.device)
    else:
        array = np.empty(shape, dtype) if SIMULATED else cuda.device_array(shape, dtype)
    return DeviceArray(array, address_of(array), tuple(shape), None, dtype, stream)


# -------------------------------------------------------------------------------------------------- Streams


def follow(stream: int, *arrays: DeviceArray | None) -> None:
    """Let what is queued on a stream from now on wait, on the device, for what fills the arrays on other streams."""
    for array in arrays:
        if array is None:
            continue
        if array.ready is not None:
            array.ready.wait(stream_of(stream))
        elif array.stream != stream:
            mark(array.stream).wait(stream_of(stream))


def settle(array: DeviceArray) -> None:
    """Mark what was queued on the array's stream until now as what later readers wait for."""
    array.ready = mark(array.stream)


# -------------------------------------------------------------------------------------------------- Copies


def convert(array: DeviceArray, dtype: np.dtype, kernel: Any = None) -> DeviceArray:
    """A copy in C order of type `dtype`."""
    result = empty(array.shape, np.dtype(dtype), array)
    copy_into(result, array, kernel)
    return result


def combine(ufunc: Any, first: Any, second: Any) -> DeviceArray:
    """A function of two device arrays, broadcast, or of one and a number; in memory of the library that has a pool."""
    arrays = [a for a in (first, second) if isinstance(a, DeviceArray)]
    if any(isinstance(a, np.ndarray) for a in (first, second)):
        raise TypeError("an array on a GPU is not combined with one on the host")
    like = next((a for a in arrays if type(a.owner).__module__.partition(".")[0] in ("cupy", "torch")), arrays[0])
    kinds = [a.dtype if isinstance(a, DeviceArray) else type(a) for a in (first, second)]
    *wide, dtype = ufunc.resolve_dtypes((*kinds, None))
    name, operation = compute_type(np.result_type(*wide)), OPERATIONS[ufunc]
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    result = empty(shape, dtype, like)
    if not result.size:
        return result
    spread = [a.broadcast_to(shape) for a in arrays]
    layout = table(sum((tuple(step // a.dtype.itemsize for step in a.strides) for a in spread), shape))
    follow(result.stream, *arrays)
    sources = sum(((a.memory(), a.extent()[0]) for a in spread), ())
    if len(arrays) == 2:
        kernel, number = combine_kernel(operation, name), ()
    else:
        kernel = number_kernel(operation, name, arrays[0] is second)
        number = (np.dtype(name).type(first if arrays[0] is second else second),)
    launch_over(kernel, result.size, result.stream, *sources, result.memory(), layout, result.size, *number)
    return result


def copy_into(target: DeviceArray, source: DeviceArray, kernel: Any = None) -> None:
    """Copy every element, changing its type as NumPy's `astype` does, or as a kernel changes it."""
    if not target.size:
        return
    if kernel is None:
        into = target.dtype.kind
        kernel = (bool_kernel if into == "b" and source.dtype.kind != "b" else
                  unsigned_kernel if target.dtype == np.uint64 and source.dtype.kind == "f" else
                  truncate_kernel if into in "iu" and source.dtype != target.dtype else copy_kernel)
    sizes = [step // source.dtype.itemsize for step in source.strides]
    places = [step // target.dtype.itemsize for step in target.strides]
    layout = table((*target.shape, *sizes, *places))
    follow(target.stream, source)
    launch_over(kernel, target.size, target.stream, source.memory(), source.extent()[0], target.memory(),
                target.extent()[0], layout, target.size, *_range(target.dtype))


def _range(dtype: np.dtype) -> tuple[int, int]:
    """(smallest value, extent less one) of an integer type of fewer than 64 bits; (0, -1) of any other."""
    if dtype.kind not in "iu" or dtype.itemsize == 8:
        return 0, -1
    return int(np.iinfo(dtype).min), (1 << 8 * dtype.itemsize) - 1
