"""How arrays reach the kernels: flat memory with strides, real numbers only, boundaries as integer maps.

Every kernel sees one-dimensional contiguous memory and a vector of element strides, so one compiled kernel serves
every rank, both layouts and every shape. Complex arrays are seen as real ones in which each channel has two parts:
a complex convolution of C channels is then a real one of 2 C channels.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..geometry import ceil_div, product, round_up, share_start
from ..jit import compiled, inner_kernel, parallel_kernel, prange, settled
from ..phases import Phase, phases
from ..problem import ConvProblem
from .kept import kept
from .simd import lanes_of, transpose_square, vload, vload_first, vstore, vstore_in_turn, vstore_in_turn_first

ceil_div_ = compiled(ceil_div)
round_up_ = compiled(round_up)
share_start_ = compiled(share_start)
_WORTH_THREADS = 1 << 17       # elements of a weight that are packed in less time than threads need to start
_SCRATCH_BYTES = 16 << 20      # of a part of an output, for which a thread keeps the memory
_TILE = 16                     # rows and channels of a weight whose lines stay in the first cache


# ------------------------------------------------------------------------------------ What the planner asks of a wing


def check_usable() -> None:
    """The CPU is always there."""


def allocate(problem: ConvProblem, like: Any = None) -> np.ndarray:
    """Uninitialised output in the engine's order; `like` only matters on a GPU."""
    bytes_needed = product(problem.out_shape) * problem.engine.itemsize
    if bytes_needed > sys.maxsize:
        raise MemoryError(f"the output of shape {problem.out_shape} needs {bytes_needed} bytes")
    try:
        if problem.channels_last:
            return np.moveaxis(np.empty((problem.N, *problem.out, problem.groups * problem.K), problem.engine), -1, 1)
        return np.empty(problem.out_shape, problem.engine)
    except MemoryError as error:
        raise MemoryError(f"the output of shape {problem.out_shape} needs {bytes_needed} bytes") from error


def from_host(array: np.ndarray) -> np.ndarray:
    """A host array on the device: here they are one."""
    return array


def beside(array: np.ndarray, like: Any) -> np.ndarray:
    """Constants of the library's own where `like` lies: here they are."""
    return array


def keep(prepared: tuple) -> tuple:
    """(prepared weights, bias) as a plan keeps them from one call to the next: the caller may write to his bias."""
    weights, bias = prepared
    return weights, None if bias is None else bias.copy()


_NOTHING = np.empty(0, np.uint8)


class _Scratch(threading.local):
    """Memory of one thread that lasts from call to call.

    As much as an output, freed with it, is given back to the system and comes back page by page: that took four fifths
    of a call.
    """

    memory = _NOTHING


_scratch = _Scratch()


def part_target(problem: ConvProblem, result: np.ndarray, places: tuple) -> AbstractContextManager[np.ndarray]:
    """Where a part of the output is computed before it goes to its places."""
    return phase_targets(problem, 1)


@contextmanager
def phase_targets(problem: ConvProblem, count: int) -> Iterator[np.ndarray]:
    """Memory that the thread keeps, for outputs of `count` problems like this, one behind the other along images."""
    size = count * product(problem.out_shape) * problem.engine.itemsize
    if size > _SCRATCH_BYTES or problem.channels_last:
        yield allocate(problem if count == 1 else problem.replace(N=count * problem.N))
        return
    memory, _scratch.memory = _scratch.memory, _NOTHING     # a handler that interrupts this call takes its own
    if memory.nbytes < size:
        memory = np.empty(size, np.uint8)
    try:
        yield memory[:size].view(problem.engine).reshape(count * problem.N, *problem.out_shape[1:])
    finally:
        _scratch.memory = memory


def weight_of(problem: ConvProblem, phase: Phase, weight: np.ndarray) -> np.ndarray:
    """The weight of a phase, in C order: that of its blocks, one behind the other in each group."""
    first = weight[phase.blocks[0].taps]
    if len(phase.blocks) == 1:
        return np.ascontiguousarray(first)
    weight = _in_elements(weight)
    stacked = np.empty((len(phase.blocks) * weight.shape[0], *first.shape[1:]), weight.dtype)
    _settled(stack_weights_kernel, weight.dtype)(
        _spanned(weight), _block_taps(problem, weight.strides), problem.groups * problem.K, problem.K, problem.C,
        stacked.reshape(-1), packing_threads(problem, stacked.size))
    return stacked


def place_blocks(problem: ConvProblem, y: np.ndarray, result: np.ndarray) -> None:
    """Bring each block of output channels from `y`, the outputs of a problem's phases, to its places in `result`."""
    source, target = operand(y), operand(result)
    channels = problem.groups * problem.K
    _settled(place_blocks_kernel, source.flat.dtype)(
        source, target, _block_rows(problem, y.strides, result.strides), (problem.N, channels, parts(problem)),
        problem.K, problem.out[-1], min(problem.threads, problem.N * channels))


@cache
def _settled(kernel: Callable, dtype: np.dtype) -> Callable:
    """One of the kernels below for arrays of a type, on which alone their arguments' types depend."""
    return settled(kernel)


def zeros(shape: tuple[int, ...], dtype: np.dtype, like: Any = None) -> np.ndarray:
    """An array of zeros."""
    return np.zeros(shape, dtype)


def widen(array: Any, problem: ConvProblem) -> np.ndarray | None:
    """Values in the engine's type: wider floats, integers modulo 2**32 or 2**64."""
    return None if array is None else np.asarray(array).astype(problem.engine, copy=False)


def narrow(array: np.ndarray, dtype: np.dtype, cast: Any = None) -> np.ndarray:
    """Values in the result's type, as `cast` gives them where a family has its own way."""
    if array.dtype == dtype:
        return array
    if cast is not None:
        return cast(array, dtype)
    return array != 0 if dtype.kind == "b" else array.astype(dtype)


def lend(out: np.ndarray, problem: ConvProblem, leave: Callable[[np.ndarray], np.ndarray], inputs: tuple) -> Any:
    """The memory of the caller's `out` as `allocate` would lay it, for kernels to write there.

    None where the result, which is ``leave`` of such an array, lies otherwise or has another type, or where an input
    lies there too.
    """
    model = allocate(problem)
    result = leave(model)
    if not out.flags.carray or out.dtype != problem.engine or not result.flags.c_contiguous:
        return None
    if not np.may_share_memory(model, result):
        return None
    if any(isinstance(array, np.ndarray) and np.may_share_memory(out, array) for array in inputs):
        return None
    return np.ndarray(model.shape, model.dtype, out, strides=model.strides)


def deliver(result: np.ndarray, like: Any = None) -> np.ndarray:
    """The result in the caller's kind."""
    return result


def assign(out: np.ndarray, result: np.ndarray) -> None:
    """Copy a result into the caller's array."""
    out[...] = result


def synchronize() -> None:
    """Kernels of the CPU are done when they return."""


# ----------------------------------------------------------------------------------------- What kernels are given


class Operand(NamedTuple):
    """Memory of an array in the engine's order: address = sum of index times stride, part innermost."""

    flat: np.ndarray          # 1-D, contiguous, real
    strides: np.ndarray       # int64: batch, channel, part, spatial axes...


class _Memory:
    """Lends the memory of a read-only array to kernels that only read (Numba compiles twice for read-only types)."""

    def __init__(self, array):
        self.array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def writable(array: np.ndarray) -> np.ndarray:
    """The same memory to kernels that only read."""
    return array if array.flags.writeable else np.asarray(_Memory(array))


def operand(array: np.ndarray) -> Operand:
    """View `array` (N, C, *spatial) as an Operand; copies only what is not a dense block of aligned memory."""
    if not array.flags.aligned or not array.dtype.isnative:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis]) if not array.flags.c_contiguous else None
    dense = array if order is None else array.transpose(order)
    if not dense.flags.c_contiguous:
        dense = array = np.ascontiguousarray(array)
    flat = dense.reshape(-1)
    flat = writable(flat)
    parts = 1
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
        parts = 2
    return Operand(flat, _element_strides(array.strides, flat.itemsize, parts))


def seen(memory: Operand, problem: ConvProblem, shape: tuple[int, ...]) -> np.ndarray:
    """The array (N, C, *spatial) that an operand of a problem views."""
    strides = memory.strides * memory.flat.itemsize
    return np.ndarray(shape, problem.engine, memory.flat, strides=tuple(map(int, np.delete(strides, 2))))


@lru_cache(maxsize=1024)
def _element_strides(strides: tuple[int, ...], itemsize: int, parts: int) -> np.ndarray:
    """Strides in numbers of so many bytes, with that of the part; kernels only read it."""
    batch, channel, *spatial = (stride // itemsize for stride in strides)
    return np.array([batch, channel, parts - 1, *spatial], np.int64)


def parts(problem: ConvProblem) -> int:
    """Real numbers in one element: 2 for complex types, else 1."""
    return 2 if problem.engine.kind == "c" else 1


def real_dtype(problem: ConvProblem) -> np.dtype:
    """Type of the numbers that the kernels multiply."""
    return problem.real


def aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """Memory of so many elements at the beginning of a line of the cache, so that no vector lies in two."""
    memory = np.empty(size + 64 // dtype.itemsize, dtype)
    first = -memory.ctypes.data % 64 // dtype.itemsize
    return memory[first:first + size]


def bias_vector(problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
    """The bias as real numbers, the parts side by side; one zero an element stands for none."""
    return np.zeros(parts(problem), real_dtype(problem)) if bias is None else np.ascontiguousarray(bias).view(
        real_dtype(problem))


def bias_rows(problem: ConvProblem, bias: np.ndarray | None, M: int) -> np.ndarray:
    """The bias of each group filled up with zeros to a multiple of M channels, flat and real."""
    channels = problem.K * parts(problem)
    rows = np.zeros((problem.groups, round_up(channels, M)), real_dtype(problem))
    if bias is not None:
        rows[:, :channels] = bias_vector(problem, bias).reshape(problem.groups, channels)
    return rows.reshape(-1)


def packing_threads(problem: ConvProblem, elements: float) -> int:
    """How many threads pack, or transform, so many elements of a weight."""
    return problem.threads if elements > _WORTH_THREADS else 1


def pack_weight(problem: ConvProblem, weight: np.ndarray, M: int) -> np.ndarray:
    """The weight as the micro-kernel reads it, [groups, blocks of M output channels, taps, M], flat and real.

    Taps run over (channel, part, window). Rows are zero beyond the last output channel. Complex weights become
    ``[[re, -im], [im, re]]`` over (output part, input part).
    """
    G, K, C = problem.groups, problem.K, problem.C
    w = np.ascontiguousarray(weight).reshape(G, K, 1, C, 1, -1)
    if parts(problem) == 2:
        w = np.concatenate([np.concatenate([w.real, -w.imag], 4), np.concatenate([w.imag, w.real], 4)], 2)
    rows = K * parts(problem)
    taps = w.size // (G * rows)
    packed = np.empty(G * ceil_div(rows, M) * taps * M, w.dtype)
    pack_weight_kernel(w.reshape(-1), rows, taps, M, packed, packing_threads(problem, packed.size))
    return packed


packed_weight = kept(pack_weight)


@inner_kernel
def pack_panel(packed, at, M, weight, source, row, taps, filled):
    """packed [taps, M] from `at` on = weight [filled, taps], whose rows lie `row` apart; zeros from `filled` to M."""
    lanes = lanes_of(packed)
    squares = filled // lanes * lanes if M % lanes == 0 else 0
    for t0 in range(0, taps, lanes):                   # a few lines of the panel stay in cache for all its rows
        t1 = min(t0 + lanes, taps)
        whole = squares if t1 - t0 == lanes else 0
        for i in range(0, whole, lanes):
            transpose_square(packed, at + t0 * M + i, M, weight, source + i * row + t0, row)
        for i in range(whole, filled):
            for t in range(t0, t1):
                packed[at + t * M + i] = weight[source + i * row + t]
        for t in range(t0, t1):
            for i in range(filled, M):
                packed[at + t * M + i] = 0


@parallel_kernel
def pack_weight_kernel(weight, rows, taps, M, packed, threads):
    """packed [groups, blocks, taps, M] = weight [groups, rows, taps]. Parallel over the blocks of all groups.

    Race-free because each block is written by one thread.
    """
    blocks = ceil_div_(rows, M)
    items = packed.size // (taps * M)
    for thread in prange(threads):
        for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
            first = item % blocks * M
            pack_panel(packed, item * taps * M, M, weight, (item // blocks * rows + first) * taps, taps, taps,
                       min(M, rows - first))


# --------------------------------------------------------------------------------- Phases: their weights and outputs


def _in_elements(array: np.ndarray) -> np.ndarray:
    """An array whose strides are whole elements."""
    whole = array.flags.aligned and not any(stride % array.itemsize for stride in array.strides)
    return array if whole else np.ascontiguousarray(array)


def _spanned(array: np.ndarray) -> np.ndarray:
    """All memory from an array's lowest element to its highest, flat."""
    rising = array[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in array.strides)]
    extent = 1 + sum((n - 1) * stride for n, stride in zip(rising.shape, rising.strides, strict=True)) // array.itemsize
    return writable(np.lib.stride_tricks.as_strided(rising, (extent,), (array.itemsize,)))


class BlockTaps(NamedTuple):
    """Where the taps of a phase's blocks lie in the weight's memory."""

    row: int                   # from one output channel to the next
    channel: int
    places: np.ndarray         # int64, (blocks, taps): in the first channels


@lru_cache(maxsize=256)
def _block_taps(problem: ConvProblem, strides: tuple[int, ...]) -> BlockTaps:
    """The places for a weight of these strides in bytes, of a problem's only phase."""
    row, channel, window = _tap_places(problem, strides)
    places = [window[block.taps[2:]].ravel() for block in phases(problem)[0].blocks]
    return BlockTaps(row, channel, np.array(places, np.int64))


def _tap_places(problem: ConvProblem, strides: tuple[int, ...]) -> tuple[int, int, np.ndarray]:
    """From one output channel of a `_spanned` weight to the next, from one channel, and places of the first's taps."""
    steps = [stride // problem.engine.itemsize for stride in strides]
    sizes = problem.groups * problem.K, problem.C, *problem.kernel
    lowest = sum((n - 1) * -step for n, step in zip(sizes, steps, strict=True) if step < 0)
    window = lowest + sum(np.ix_(*(np.arange(n) * step for n, step in zip(problem.kernel, steps[2:], strict=True))))
    return steps[0], steps[1], np.asarray(window, np.int64)


@parallel_kernel
def stack_weights_kernel(weight, taps, rows, K, channels, out, threads):
    """out [(g, block, k), channels, taps] = weight at the places of `taps`; `rows` are all output channels.

    In tiles of rows and channels, so that a line of the weight is read once for all blocks, wherever its axes lie.
    Parallel over tiles of rows; race-free because each is written by one thread.
    """
    places = taps.places
    blocks, window = places.shape
    tiles = ceil_div_(rows, _TILE)
    for thread in prange(threads):
        for tile in range(share_start_(tiles, threads, thread), share_start_(tiles, threads, thread + 1)):
            for c0 in range(0, channels, _TILE):
                for row in range(tile * _TILE, min((tile + 1) * _TILE, rows)):
                    for block in range(blocks):
                        first = ((row // K * blocks + block) * K + row % K) * channels
                        for t in range(window):
                            at = np.uint64(row * taps.row + c0 * taps.channel + places[block, t])
                            to = np.uint64((first + c0) * window + t)
                            for _ in range(min(_TILE, channels - c0)):
                                out[to] = weight[at]
                                at += np.uint64(taps.channel)
                                to += np.uint64(window)


class RowTaps(NamedTuple):
    """A weight whose every tap is an output channel of its own, as rows (output channel, tap from the window's end)."""

    flat: np.ndarray           # its memory; of a packed one [groups, blocks of M rows, C, M]
    places: np.ndarray         # int64, (rows of all groups,): in the first channel; of a packed one empty
    channel: int               # from one channel to the next
    dense: int                 # 1: rows lie side by side


@lru_cache(maxsize=256)
def _row_places(problem: ConvProblem, strides: tuple[int, ...]) -> tuple[np.ndarray, int, int]:
    """Places, channel and dense of a weight with these strides in bytes."""
    row, channel, window = _tap_places(problem, strides)
    places = np.add.outer(np.arange(problem.groups * problem.K) * row, window.ravel()[::-1]).ravel()
    return places, channel, int((np.diff(places) == 1).all())


def row_taps(problem: ConvProblem, weight: np.ndarray) -> RowTaps:
    """A weight as it lies."""
    weight = _in_elements(weight)
    return RowTaps(_spanned(weight), *_row_places(problem, weight.strides))


@kept
def packed_taps(problem: ConvProblem, weight: np.ndarray, M: int) -> RowTaps:
    """A weight that lies anyhow, packed for `multiply_tile`: zero beyond a group's last row."""
    taps = row_taps(problem, weight)
    rows = taps.places.size // problem.groups
    packed = np.empty(problem.groups * round_up(rows, M) * problem.C, weight.dtype)
    _settled(pack_taps_kernel, weight.dtype)(taps, rows, problem.C, M, packed, packing_threads(problem, packed.size))
    return RowTaps(packed, np.empty(0, np.int64), 0, 0)


@inner_kernel
def pack_taps(packed, at, M, taps, first, end, c0, c1):
    """packed [blocks of M rows, c1 - c0, M] from `at` on = rows first <= i < end of channels c0 <= c < c1, then zeros.

    Channel by channel, because a line of the weight holds rows of several blocks and may be gone when it is next read.
    """
    lanes, apart = lanes_of(packed), (c1 - c0) * M
    reach = round_up_(M, lanes)
    for c in range(c0, c1):
        to, from_ = at + (c - c0) * M, c * taps.channel + taps.places[first]
        if taps.dense and (c1 - c) * M >= reach and from_ + end - first + reach <= taps.flat.size:
            for _ in range(first, end, M):                  # what is too much, the next channel covers
                for i in range(0, M, lanes):
                    vstore(packed, to + i, vload(taps.flat, from_ + i))
                to += apart
                from_ += M
        else:
            for row in range(first, end, M):
                for i in range(min(M, end - row)):
                    packed[np.uint64(to + i)] = taps.flat[np.uint64(c * taps.channel + taps.places[row + i])]
                to += apart
        for i in range((end - first) % M, M if (end - first) % M else 0):
            packed[np.uint64(to - apart + i)] = 0


@parallel_kernel
def pack_taps_kernel(taps, rows, channels, M, packed, threads):
    """packed [groups, blocks, channels, M] = the `rows` of each group.

    Parallel over the blocks of all groups; race-free because each is written by one thread.
    """
    blocks = ceil_div_(rows, M)
    items = packed.size // (channels * M)
    for thread in prange(threads):
        for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
            first = item // blocks * rows + item % blocks * M
            pack_taps(packed, item * channels * M, M, taps, first, min(first + M, (item // blocks + 1) * rows), 0,
                      channels)


class BlockRows(NamedTuple):
    """The rows of one channel of an output, each of which takes its elements in turn from rows of several blocks."""

    targets: np.ndarray        # int64, (rows,): address in the channel
    sources: np.ndarray        # int64, (rows, blocks of the last axis): address beside the channel's in the first block
    blocks: int                # in one phase


@lru_cache(maxsize=64)
def _block_rows(problem: ConvProblem, *strides: tuple[int, ...]) -> BlockRows:
    """The tables for arrays y and result of these strides in bytes."""
    source, target = (_element_strides(s, problem.real.itemsize, parts(problem)).tolist() for s in strides)
    outer = problem.out[:-1]
    targets = np.zeros(outer, np.int64)
    for a, n in enumerate(outer):
        targets += (np.arange(n) * target[3 + a]).reshape([-1 if b == a else 1 for b in range(len(outer))])
    sources = np.zeros((*outer, min(problem.upsample[-1], problem.out[-1])), np.int64)
    parts_ = phases(problem)
    for n, part in enumerate(parts_):
        for number, block in enumerate(part.blocks):
            *lines, run = block.source[2:]
            here = np.int64(n * problem.N * source[0] + number * problem.K * source[1] + run.start * source[-1])
            for a, line in enumerate(lines):
                here = np.add.outer(here, np.arange(line.start, line.stop) * source[3 + a])
            sources[(*block.places[2:-1], block.places[-1].start)] = here
    return BlockRows(targets.ravel(), sources.reshape(targets.size, -1), len(parts_[0].blocks))


@parallel_kernel
def place_blocks_kernel(y, target, rows, extents, K, width, threads):
    """target[n, (g, k), row, i] = y[n, (g, block, k), ...] as `rows` says; `width` is the output's last extent.

    `extents`: images, channels, parts. Parallel over all these; race-free because each is written by one thread.
    """
    images, channels, parts = extents
    items = images * channels * parts
    for thread in prange(threads):
        for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
            n, c, part = item // parts // channels, item // parts % channels, item % parts
            at = n * y.strides[0] + (c // K * rows.blocks * K + c % K) * y.strides[1] + part * y.strides[2]
            to = n * target.strides[0] + c * target.strides[1] + part * target.strides[2]
            for row in range(rows.targets.size):
                interleave_rows(target.flat, to + rows.targets[row], target.strides[-1], y.flat, at, rows.sources[row],
                                y.strides[-1], width)


@inner_kernel
def interleave_rows(target, to, dt, source, at, rows, ds, width):
    """target[to + i dt], i < width, takes turns between the `rows` of the source, each from its beginning on."""
    count, pairs, done = rows.size, width // 2, 0
    lanes = lanes_of(target)
    if count == 2 and dt == 1 and ds == 1 and pairs >= lanes:
        while done < pairs:
            done = min(done, pairs - lanes)             # the last ones once more, if that makes a whole vector
            vstore_in_turn(target, to + 2 * done, vload(source, at + rows[0] + done),
                           vload(source, at + rows[1] + done))
            done += lanes
    elif count == 2 and dt == 1 and ds == 1:
        first = source[at + rows[0]]                    # in lanes that are not stored
        vstore_in_turn_first(target, to, vload_first(source, at + rows[0], width - pairs, first),
                             vload_first(source, at + rows[1], pairs, first), width)
        return
    for r in range(count):
        there, from_ = np.uint64(to + (done * count + r) * dt), np.uint64(at + rows[r] + done * ds)
        for _ in range(done, (width - r + count - 1) // count):
            target[there] = source[from_]
            there += np.uint64(count * dt)
            from_ += np.uint64(ds)
