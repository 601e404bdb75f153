"""Convolution by Fourier transforms in up to three axes: of whole axes (`planes`), or of blocks in shared memory.

Images and signals of one channel have their axes transformed as wholes where that is faster. All else, and input that
such a transform cannot hold, takes blocks (overlap-save). Two real blocks ride as the real and imaginary part of one
complex one. One kernel transforms a block, multiplies it by the window's spectrum and transforms it back where there is
one channel and the window fits; else spectra of the input's blocks are kept and a second kernel sums their products
over channels and parts of the window.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import chain
from itertools import product as every
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ...geometry import ceil_div, product, span
from ...machine import machine
from ...problem import ConvProblem
from ..arrays import Operand, bias_vector, in_three_axes, operand, parts, real_dtype, three
from ..device import SIMULATED, block_size, device_cache, launch, table
from ..division import divisor
from ..views import DeviceArray, convert, empty, follow
from . import boxes, planes
from .blocks import block_kernel, forward_kernel, product_kernel, sum_kernel, weight_kernel
from .loudness import limits_of
from .points import BlockLayout, resident, threads_of
from .samples import MOST_PLACES, extent, fill_of, sample_maps

# ------------------------------------------------------------------------------------------------- The choice

NAME = "fft"
SUPPORTS = "floating and complex types in up to three axes; every window, stride and boundary"
REFERENCE = ("Oppenheim, Schafer: Discrete-Time Signal Processing, section 8.7 (overlap-save); Wefers 2015, "
             "Partitioned Convolution Algorithms for Real-Time Auralization, chapter 5")
_SIZES = (6, 8) if SIMULATED else (10, 11, 12, 13, 14)         # logarithms of the points of a block
_SMALL = 12                    # that of blocks that ask for no shared memory, or whose places take more registers
_LEAST_ROW = 2 if SIMULATED else 8                             # points of a block along the last axis
_BESIDE = 64                   # bytes of shared memory that a kernel has besides
_LATENCY = 9e-6                # seconds from a block's first instruction to its last, however few there are
_THREADS = block_size(256)     # of a block that sums outputs by the definition
_MOST_SHARES = 512             # of these blocks: mostly they find nothing marked, and end


def why_not(problem: ConvProblem) -> str:
    """Integers, more than three axes, and dilations beyond a block are refused."""
    if problem.engine.kind == "i":
        return "a transform would round integers, only direct sums keep them exact"
    if problem.rank > 3:
        return "more than three axes"
    if 0 in problem.out or 0 in problem.size:
        return "nothing to transform"
    return "" if _choose(problem) else "two taps lie further apart than a block is long"


def cost(problem: ConvProblem, machine) -> float:
    """That of the faster way."""
    plane = _faster(problem, machine)
    return planes.seconds(problem, plane, machine) if plane else _block_seconds(problem, _choose(problem), machine)


def _block_seconds(problem: ConvProblem, choice: _Choice, machine) -> float:
    """Transforms and products, or the traffic of spectra where that takes longer."""
    traffic = choice.moved + (product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize
    rate = machine.flops(problem.engine) * machine.efficiency["fft"]
    work = choice.flops * _idle(problem, choice, machine)
    kernels = 1 if choice.fused else 2
    return max(work / rate, traffic / machine.bandwidth) + kernels * (machine.launch + _LATENCY)


def _idle(problem: ConvProblem, choice: _Choice, machine) -> float:
    """How many times longer the blocks take than their share, because multiprocessors have none."""
    waves = choice.out_blocks / machine.processors
    alone = resident(choice.lengths, real_dtype(problem).itemsize) == 1
    return ceil(waves) / waves if alone else max(1.0, 1 / waves)


def workspace(problem: ConvProblem, machine) -> int:
    """Spectra of the window and, unless one kernel does all, of the input."""
    choice, plane, itemsize = _choose(problem), _plane(problem), real_dtype(problem).itemsize
    blocks = (choice.kernel_blocks + choice.x_blocks) * 2 * choice.points * itemsize
    return blocks + (planes.workspace(plane, itemsize) if plane else 0)


def error(problem: ConvProblem) -> float:
    """Roundings grow with the logarithm of the block, over those of one window's sum."""
    plane = _plane(problem)
    return max(1.0, 0.25 * float(np.log2(plane.points if plane else _choose(problem).points)))


def _plane(problem: ConvProblem) -> planes.Plane | None:
    """The planes whose whole axes are transformed, where there are some; loud input takes blocks all the same."""
    return _faster(problem, machine("cuda"))


@lru_cache(maxsize=256)
def _faster(problem: ConvProblem, machine) -> planes.Plane | None:
    """Planes, if they are faster than blocks."""
    plane, blocks = planes.choose(problem), _cut(problem, _SIZES[-1])
    if plane and (not blocks or planes.seconds(problem, plane, machine) < _block_seconds(problem, blocks, machine)):
        return plane
    return None


class _Choice(NamedTuple):
    """A block's shape with what only the host needs."""

    layout: BlockLayout
    lengths: tuple[int, int, int]
    reach: tuple[int, ...]     # lengths of the maps
    fused: bool
    kernel_blocks: int
    x_blocks: int
    out_blocks: int
    flops: float
    moved: float               # bytes of spectra

    @property
    def points(self) -> int:
        """Of a block."""
        return product(self.lengths)


class _Axis(NamedTuple):
    """One axis of a block."""

    length: int
    valid: int
    chunk: int
    pieces: int
    grid: int


def _axis(length: int, taps: int, dilation: int, dense: int) -> _Axis | None:
    """How an axis is cut by blocks of `length`; None where a block does not hold two taps."""
    whole = span(taps, dilation)
    if whole <= length and (2 * whole <= length or length >= dense + whole - 1 or taps == 1):
        valid = min(length - whole + 1, dense)
        return _Axis(length, valid, taps, 1, ceil_div(dense, valid))
    chunk = length // (2 * dilation)
    if chunk == 0:
        return None
    return _Axis(length, chunk * dilation, chunk, ceil_div(taps, chunk), ceil_div(dense, chunk * dilation))


@cache
def _shapes(itemsize: int, room: int) -> list[tuple[int, int, int]]:
    """Shapes of blocks that have room in shared memory; rows are so long that a warp reads neighbours."""
    found = []
    for exponent in _SIZES:
        for e0, e1 in every(range(exponent + 1), repeat=2):
            lengths = 1 << e0, 1 << e1, 1 << max(0, exponent - e0 - e1)
            if product(lengths) == 1 << exponent and lengths[2] >= _LEAST_ROW and (
                    boxes.bytes_of(lengths, itemsize) + _BESIDE <= room):
                found.append(lengths)
    return found


def _choose(problem: ConvProblem) -> _Choice | None:
    """The blocks. Small ones where planes are transformed: kernels that mostly do nothing must ask for nothing, too."""
    return _plane(problem) and _cut(problem, _SMALL) or _cut(problem, _SIZES[-1])


@lru_cache(maxsize=256)
def _cut(problem: ConvProblem, largest: int) -> _Choice | None:
    """The blocks of up to so many points, by their logarithm, that take least."""
    p = in_three_axes(problem)
    dense = [(o - 1) * s + 1 for o, s in zip(p.out, p.stride, strict=True)]
    gpu, best = machine("cuda"), None
    if max(p.stride) > 1 or max(product(p.size), product(p.out)) * parts(p) >= MOST_PLACES["int32"]:
        largest = min(largest, _SMALL)
    for lengths in _shapes(real_dtype(p).itemsize, gpu.shared):
        if product(lengths) >> largest > 1:
            break
        if any(n > 1 and d == 1 and k == 1 for n, d, k in zip(lengths[:2], dense, p.kernel, strict=False)):
            continue
        axes = [_axis(*of) for of in zip(lengths, p.kernel, p.dilation, dense, strict=True)]
        if None not in axes:
            choice = _priced(p, axes, lengths, dense)
            seconds = _block_seconds(problem, choice, gpu)
            if best is None or seconds < best[0]:
                best = seconds, choice
    return best[1] if best else None


@cache
def _transform(lengths: tuple[int, int, int], itemsize: int) -> float:
    """Flops in the time of one transform, with reading or writing the block, as measured on an H200."""
    points, most = product(lengths), boxes.held(lengths, itemsize)
    passes = boxes.passes_of(lengths, most)
    turned, rounds = sum(p.table >= 0 for p in passes), most // passes[0].radix
    each = 5 * (points.bit_length() - 1) + 10 * len(passes) + 12 * turned + 15 + 5 * rounds
    return each * points * (1.2 if points > 4096 else 1.0)          # where one block has a multiprocessor for itself


def _priced(p: ConvProblem, axes: list[_Axis], lengths: tuple[int, int, int], dense: list[int]) -> _Choice:
    """One shape of block with its work."""
    points = product(lengths)
    grid = [a.grid for a in axes]
    rides = parts(p) == 1 and grid[2] > 1
    if rides:
        grid[2] = ceil_div(grid[2], 2)
    ride = grid[2] * axes[2].valid if rides else 0
    pieces = product(a.pieces for a in axes)
    fused = p.C == 1 and pieces == 1
    x_grid = [g + a.pieces - 1 for g, a in zip(grid, axes, strict=True)]
    x_blocks = 0 if fused else p.N * p.groups * p.C * product(x_grid)
    out_blocks = p.N * p.groups * p.K * product(grid)
    kernel_blocks = p.groups * p.K * p.C * pieces
    one = _transform(lengths, real_dtype(p).itemsize)
    flops = (x_blocks + out_blocks * (2 if fused else 1)) * one + 8 * out_blocks * p.C * pieces * points
    columns = list(zip(*axes, strict=True))
    _, valid, chunk, pieces_of, _ = columns
    reach = [g * v + n for g, v, n in zip(x_grid, valid, lengths, strict=True)]
    reach[2] += ride
    second = 2 if parts(p) == 2 else 1 if rides else 0
    layout = BlockLayout(
        p.groups, p.C, p.K, second, *valid, *chunk, *pieces_of, *grid, ride, *p.kernel, *p.dilation, *p.stride,
        *chain.from_iterable(map(divisor, p.stride)), *dense, reach[0], reach[0] + reach[1],
        *limits_of(real_dtype(p)), int(p.ends))
    moved = (2 * x_blocks + out_blocks * p.C * pieces) * 2 * points * real_dtype(p).itemsize
    return _Choice(layout, lengths, tuple(reach), fused, kernel_blocks, x_blocks, out_blocks, float(flops),
                   float(moved) * (not fused))


class Prepared(NamedTuple):
    """The window's spectra, which filters need sums by the definition, the raw weight for these."""

    spectra: DeviceArray
    planes: DeviceArray | None  # that of `whole`
    strange: DeviceArray       # int32, one an output channel
    weight: DeviceArray


def prepare(problem: ConvProblem, weight: DeviceArray) -> Prepared:
    """Transform the window."""
    choice = _choose(problem)
    dtype = real_dtype(problem)
    raw = convert(weight, problem.engine)
    spectra = empty((choice.kernel_blocks * 2 * choice.points,), dtype, raw)
    strange = empty((problem.groups * problem.K,), np.dtype("i4"), raw)
    strange[()] = 0
    _launch(choice, weight_kernel(dtype.name, choice.lengths), choice.kernel_blocks, dtype, raw.stream,
            table(tuple(choice.layout)), _twiddles(choice, dtype), raw.memory(dtype), spectra.memory(),
            strange.memory())
    plane = _plane(problem)
    whole = planes.prepare(problem, plane, raw) if plane else None
    return Prepared(spectra, whole, strange, raw)


def _launch(choice: _Choice, kernel: Any, blocks: int, dtype: np.dtype, stream: int, *arrays: Any) -> None:
    """Launch a kernel whose blocks hold one block each."""
    launch(kernel, blocks, threads_of(choice.lengths, dtype.itemsize), stream, *arrays,
           shared=boxes.bytes_of(choice.lengths, dtype.itemsize))


def _twiddles(choice: _Choice, dtype: np.dtype) -> Any:
    return boxes.twiddles(choice.lengths, boxes.held(choice.lengths, dtype.itemsize), dtype)


def run(problem: ConvProblem, prepared: Prepared, x: DeviceArray, bias: DeviceArray | None, out: DeviceArray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    follow(out.stream, prepared.spectra, x, bias)
    x = x if x.dtype == problem.engine else convert(x, problem.engine)          # float16: a block is float32
    plane = _plane(problem) if prepared.planes else None
    arrays = operand(x), bias_vector(problem, bias), prepared.strange.memory(), operand(out)
    asked = planes.run(problem, plane, prepared.planes, x, out, *arrays) if plane else table((1,), "i4")
    _run_blocks(problem, prepared, out, asked, *arrays)


def _run_blocks(problem: ConvProblem, prepared: Prepared, like: DeviceArray, asked: Any, source: Operand,
                bias: tuple[Any, int], kernel_strange: Any, target: Operand) -> None:
    """Fill the output block by block, if it is `asked` for."""
    choice, dtype = _choose(problem), real_dtype(problem)
    form, layout, maps = _read(problem, source[1:], target[1:], bias[1])
    first, read = (layout, asked, _twiddles(choice, dtype)), (source.flat, maps, fill_of(problem))
    kernels, strided = prepared.spectra.memory(), max(problem.stride) > 1
    strange = empty((choice.out_blocks,), np.dtype("i4"), like).memory()
    last = kernels, bias[0], strange, target.flat
    if choice.fused:
        _launch(choice, block_kernel(*form, strided), choice.out_blocks, dtype, like.stream, *first, *read, *last)
    else:
        spectra = empty((choice.x_blocks * 2 * choice.points,), dtype, like).memory()
        marks = empty((choice.x_blocks,), np.dtype("i4"), like).memory()
        _launch(choice, forward_kernel(*form), choice.x_blocks, dtype, like.stream, *first, *read, spectra, marks)
        _launch(choice, product_kernel(*form, strided), choice.out_blocks, dtype, like.stream, *first, spectra,
                *last[:2], marks, *last[2:])
    shares = max(1, min(_MOST_SHARES // choice.out_blocks, ceil_div(choice.points, _THREADS)))
    launch(sum_kernel(*form[:2]), min(choice.out_blocks * shares, _MOST_SHARES), _THREADS, like.stream, layout, asked,
           *read, prepared.weight.memory(dtype), strange, kernel_strange, bias[0], target.flat, shares)


@device_cache(1024)
def _read(problem: ConvProblem, source: tuple, target: tuple, bias_size: int) -> tuple[tuple, Any, Any]:
    """(what a kernel is made for, layout and maps on the device); arrays by the start and strides of an `Operand`."""
    choice = _choose(problem)
    (x_start, x_strides), (out_start, out_strides) = source, target
    furthest = max(extent(problem.x_shape, x_strides), extent(problem.out_shape, out_strides))
    index = "int32" if furthest < MOST_PLACES["int32"] else "int64"
    maps, before = sample_maps(problem, choice.reach, three(x_strides[3:], 0), index)
    layout = choice.layout._replace(
        **dict(zip(("x_batch", "x_channel", "x_part"), x_strides, strict=False)), x_start=x_start + before,
        **dict(zip(("out_batch", "out_channel", "out_part"), out_strides, strict=False)), out_start=out_start,
        **{f"out_stride{a}": s for a, s in enumerate(three(out_strides[3:], 0))}, bias_size=bias_size)
    return (real_dtype(problem).name, index, choice.lengths), table(tuple(layout)), maps
