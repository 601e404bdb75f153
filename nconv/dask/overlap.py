"""How blocks overlap: every function on dask arrays is a function of `nconv`, run on blocks with their halo.

The whole call is lowered once, without data. What the engine would be asked says all that blocks need to know: what
lies before and behind the array along each axis (padding), how far a window reaches (span), what stands beyond the
edge (boundary). A block gets from its neighbours what its windows reach, its halo, and pads only where the array ends.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.array.utils import meta_from_array
from dask.system import CPU_COUNT

from .. import threads
from ..geometry import product, span
from ..lowering import Call
from ..problem import ArraySpec

Pads = tuple[tuple[int, int], ...]
"""(low, high) for each convolved axis: what one block lacks, because the array ends there."""


@dataclass(frozen=True)
class Axis:
    """One convolved axis of the input, as all blocks see it."""

    number: int
    padding: tuple[int, int]                 # before and behind the whole array
    span: int                                # of the window
    stride: int
    boundary: str

    @property
    def depth(self) -> tuple[int, int]:
        """Halo of a block: with this one, outputs lie in the blocks of the inputs under them."""
        low = min(self.padding[0], self.span - 1)
        return low, self.span - 1 - low

    def rechunk(self, chunks: tuple[int, ...]) -> tuple[int, ...]:
        """Chunks along this axis, as near to those given as can be.

        Each must hold the halo of its neighbour and what a boundary mode reads, and leave an output; each but the
        first must start where a window starts.
        """
        least = max(*self.depth, *self.padding) + 1
        before = self.padding[0] - self.depth[0]
        starts = [0]
        for start in accumulate(chunks[:-1]):
            start -= (before + start) % self.stride
            if start - starts[-1] >= least:
                starts.append(start)
        size = sum(chunks)
        while len(starts) > 1 and size - starts[-1] < least:
            starts.pop()
        return tuple(stop - start for start, stop in zip(starts, [*starts[1:], size], strict=True))


def axes_of(call: Call, numbers: Sequence[int]) -> tuple[Axis, ...]:
    """The convolved axes of a lowered call; `numbers` are their places in the user's array.

    Behind them the problem may have an axis along which nothing is convolved.
    """
    problem = call.route.problem
    if problem.rank < len(numbers):          # windows of one element, which look at each position by itself
        return tuple(Axis(n, (0, 0), 1, 1, "constant") for n in numbers)
    return tuple(Axis(n, padding, span(k, d), stride, boundary) for n, padding, k, d, stride, boundary in zip(
        numbers, problem.padding, problem.kernel, problem.dilation, problem.stride, problem.boundary, strict=False))


# ------------------------------------------------------------------------------------------------------ Arguments


def check_input(x: Any, name: str) -> da.Array:
    """`x` where it is a dask array of known shape."""
    if not isinstance(x, da.Array):
        raise TypeError(f"{name} must be a dask array, not {type(x).__name__}; nconv's functions of the same names "
                        "take NumPy arrays")
    if any(np.isnan(n) for n in x.shape):
        raise ValueError(f"{name} has chunks of unknown size, call its compute_chunk_sizes() first: "
                         f"{name}.chunks={x.chunks}")
    return x


def spec(array: Any, name: str) -> ArraySpec:
    """Shape and dtype of an array of any kind."""
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise TypeError(f"{name} must be an array, not {type(array).__name__}")
    return ArraySpec(tuple(map(int, array.shape)), np.dtype(array.dtype))


def as_weight(array: Any) -> Any:
    """An array-like as an array; dask's, and other libraries' on their devices, stay what they are."""
    return array if isinstance(array, da.Array) or hasattr(array, "__cuda_array_interface__") else np.asarray(array)


def _whole(array: Any) -> Any:
    """An array as one value of the graph, whichever blocks need it."""
    return None if array is None else dask.delayed(array, pure=True)


# ------------------------------------------------------------------------------------------------------ One block


def _threads(blocks: int) -> int:
    """Threads for one block: this process's over the blocks that it may run at once.

    A worker of dask.distributed may have others beside it on its machine. Its nanny says in OMP_NUM_THREADS how many
    threads a library may start for one task: one, unless somebody set another number.
    """
    total = threads.get_num_threads()
    worker = _distributed_worker()
    if worker is not None:
        allowed = os.environ.get("OMP_NUM_THREADS", "")
        if allowed.isdigit() and int(allowed) > 0:
            return min(total, int(allowed))
        return max(1, total // min(blocks, worker.state.nthreads))
    if threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is None:
        return total                         # the synchronous scheduler
    return max(1, total // min(blocks, dask.config.get("num_workers", None) or CPU_COUNT))


def _distributed_worker() -> Any:
    """The worker of dask.distributed in which this runs, or None."""
    distributed = sys.modules.get("distributed")
    try:
        return distributed.get_worker() if distributed else None
    except ValueError:
        return None


def _run_block(block: Any, weight: Any, bias: Any, *, function: Callable, axes: tuple[Axis, ...],
               counts: tuple[int, ...], pad_edges: tuple[bool, ...], blocks: int, block_id: tuple[int, ...]) -> Any:
    """The outputs of one block with its halo; pads only where the array ends."""
    pads = tuple(
        (axis.padding[0] if pad and block_id[axis.number] == 0 else 0,
         axis.padding[1] if pad and block_id[axis.number] == count - 1 else 0)
        for axis, count, pad in zip(axes, counts, pad_edges, strict=True))
    with threads.limited(_threads(blocks)):
        return function(block, weight, bias, pads, block_id)


def cut(result: Any, axes: tuple[Axis, ...], own: Pads, pads: Pads) -> Any:
    """The outputs that a block owes, of a result that was computed with the paddings `own` around the block."""
    places = [slice(None)] * result.ndim
    for axis, (own_low, own_high), (low, high) in zip(axes, own, pads, strict=True):
        places[axis.number] = slice(own_low - low, result.shape[axis.number] - (own_high - high))
    return result[tuple(places)]


# ------------------------------------------------------------------------------------------------------ All blocks


def _surround(x: da.Array, axis: Axis) -> da.Array:
    """The array with what a periodic boundary puts before and behind it: it comes from the far end."""
    n, (low, high) = axis.number, axis.padding
    before, behind = [slice(None)] * x.ndim, [slice(None)] * x.ndim
    before[n], behind[n] = slice(x.shape[n] - low, None), slice(0, high)
    first, *others = x.chunks[n]
    chunks = [low + first, *others]
    chunks[-1] += high
    return da.concatenate([x[tuple(before)], x, x[tuple(behind)]], axis=n).rechunk({n: tuple(chunks)})


def run(x: da.Array, weight: Any, bias: Any, call: Call, axes: tuple[Axis, ...], function: Callable, *,
        whole: Sequence[int] = (), chunks: Mapping[int, tuple[int, ...]] | None = None) -> da.Array:
    """All blocks of a lowered call.

    ``function(block, weight, bias, pads, block_id)`` gives the outputs of one block that is padded by `pads`. Along the
    axes `whole` the input is one block; `chunks` says how the output is cut where the input does not.
    """
    shape, dtype = call.route.shape, call.route.dtype
    if 0 in shape:
        return da.zeros(shape, dtype, meta=meta_from_array(x, ndim=len(shape), dtype=dtype))
    x = x.rechunk(dict.fromkeys(whole, -1) if 0 not in x.shape else -1)
    x = x.rechunk({axis.number: axis.rechunk(x.chunks[axis.number]) for axis in axes})
    pad_edges = []
    for axis in axes:
        periodic = axis.boundary == "wrap" and x.numblocks[axis.number] > 1 and any(axis.padding)
        x = _surround(x, axis) if periodic else x
        pad_edges.append(not periodic)

    out = list(x.chunks)
    for axis, pad in zip(axes, pad_edges, strict=True):
        sizes = list(x.chunks[axis.number])
        inner = len(sizes) - 1
        low, high = axis.depth
        for i in range(len(sizes)):          # what the block sees: itself, halo or padding on each side
            sizes[i] += low if i > 0 else axis.padding[0] * pad
            sizes[i] += high if i < inner else axis.padding[1] * pad
        out[axis.number] = tuple((size - axis.span) // axis.stride + 1 for size in sizes)
    for number, given in (chunks or {}).items():
        out[number] = given

    block = partial(_run_block, function=function, axes=axes, counts=tuple(x.numblocks[a.number] for a in axes),
                    pad_edges=tuple(pad_edges), blocks=product(map(len, out)))
    depth: dict[int, Any] = dict.fromkeys(range(x.ndim), 0)
    depth |= {axis.number: axis.depth for axis in axes if x.numblocks[axis.number] > 1}
    return da.map_overlap(
        block, x, weight=_whole(weight), bias=_whole(bias), depth=depth, boundary="none", trim=False,
        align_arrays=False, allow_rechunk=False, chunks=tuple(out), dtype=dtype,
        meta=meta_from_array(x, ndim=len(shape), dtype=dtype))
