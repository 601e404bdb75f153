"""Convolution by Fourier transforms in up to three axes: of whole axes (`planes`), or of blocks in shared memory.

Images and signals of one channel have their axes transformed as wholes where that is faster. All else, and input that
such a transform cannot hold, takes blocks (overlap-save). Two real blocks ride as the real and imaginary part of one
complex one. One kernel transforms a block, multiplies it by the window's spectrum and transforms it back where there is
one channel and the window fits; else spectra of the input's blocks are kept and a second kernel sums their products
over channels and parts of the window.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product as every
from typing import Any, NamedTuple

import numpy as np

from ...geometry import ceil_div, product, span
from ...machine import machine
from ...problem import ConvProblem
from ..arrays import Operand, address_maps, bias_vector, in_three_axes, operand, parts, real_dtype, three
from ..device import SIMULATED, launch, table
from ..ends import Ends, mend, watch
from ..views import DeviceArray, convert, empty, follow
from . import planes
from .blocks import BlockLayout, fft_kernels
from .loudness import limits_of
from .transforms import twiddles

# ------------------------------------------------------------------------------------------------- The choice

NAME = "fft"
SUPPORTS = "floating and complex types in up to three axes; every window, stride and boundary"
REFERENCE = ("Oppenheim, Schafer: Discrete-Time Signal Processing, section 8.7 (overlap-save); Wefers 2015, "
             "Partitioned Convolution Algorithms for Real-Time Auralization, chapter 5")
_BLOCK_BYTES = 32 * 1024       # of a complex block: it fits the shared memory that needs no asking
_SIZES = (64, 256) if SIMULATED else (1024, 2048, 4096)        # points of a block
_THREADS = 16 if SIMULATED else 256


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
    return planes.seconds(problem, plane, machine) if plane else _block_seconds(problem, machine)


def _block_seconds(problem: ConvProblem, machine) -> float:
    """Transforms and products, or the traffic of spectra where that takes longer."""
    choice = _choose(problem)
    traffic = choice.moved + (product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize
    rate = machine.flops(problem.engine) * machine.efficiency["fft"]
    return max(choice.flops / rate, traffic / machine.bandwidth) + machine.launch * (1 if choice.fused else 2)


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
    plane = planes.choose(problem)
    return plane if plane and planes.seconds(problem, plane, machine) < _block_seconds(problem, machine) else None


class _Choice(NamedTuple):
    """A block's shape with what only the host needs."""

    layout: BlockLayout
    points: int
    fused: bool
    kernel_blocks: int
    x_blocks: int
    out_blocks: int
    flops: float
    moved: float               # bytes of spectra


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


@lru_cache(maxsize=256)
def _choose(problem: ConvProblem) -> _Choice | None:
    p = in_three_axes(problem)
    dense = [(o - 1) * s + 1 for o, s in zip(p.out, p.stride, strict=True)]
    largest = _BLOCK_BYTES // (2 * real_dtype(p).itemsize)
    best = None
    for points in _SIZES:
        exponent = points.bit_length() - 1
        for e0, e1 in every(range(exponent + 1), repeat=2):
            lengths = (1 << e0, 1 << e1, 1 << exponent - e0 - e1) if e0 + e1 <= exponent else None
            if lengths is None or points > largest or any(
                    n > 1 and d == 1 and k == 1 for n, d, k in zip(lengths[:2], dense, p.kernel, strict=False)):
                continue
            axes = [_axis(*of) for of in zip(lengths, p.kernel, p.dilation, dense, strict=True)]
            if None not in axes:
                choice = _priced(p, axes, points, dense)
                if best is None or choice.flops < best.flops:
                    best = choice
    return best


def _priced(p: ConvProblem, axes: list[_Axis], points: int, dense: list[int]) -> _Choice:
    """One shape of block with its work."""
    riders = parts(p) == 1
    grid = [a.grid for a in axes]
    ride = ceil_div(grid[2], 2) if riders and grid[2] > 1 else 0
    if ride:
        grid[2] = ride
    pieces = product(a.pieces for a in axes)
    fused = p.C == 1 and pieces == 1
    x_blocks = 0 if fused else p.N * p.groups * p.C * product(
        g + a.pieces - 1 for g, a in zip(grid, axes, strict=True))
    out_blocks = p.N * p.groups * p.K * product(grid)
    kernel_blocks = p.groups * p.K * p.C * pieces
    one = 5 * points * np.log2(points)
    flops = (x_blocks + out_blocks * (2 if fused else 1)) * one + 8 * out_blocks * p.C * pieces * points
    columns = list(zip(*axes, strict=True))
    layout = BlockLayout(
        p.groups, p.C, p.K, parts(p), *(n.bit_length() - 1 for n in columns[0]), *columns[1], *columns[2], *columns[3],
        *grid, ride, *p.kernel,
        *p.dilation, *p.stride, *dense, *p.reach, max(columns[0]).bit_length() - 1, *limits_of(real_dtype(p)))
    moved = (2 * x_blocks + out_blocks * p.C * pieces) * 2 * points * real_dtype(p).itemsize
    return _Choice(layout, points, fused, kernel_blocks, x_blocks, out_blocks, float(flops), float(moved) * (not fused))


class Prepared(NamedTuple):
    """The window's spectra, which filters need sums by the definition, the raw weight for these; see `ends`."""

    spectra: DeviceArray
    planes: DeviceArray | None  # that of `whole`
    strange: DeviceArray       # int32, one an output channel
    weight: DeviceArray
    ends: Ends | None


def prepare(problem: ConvProblem, weight: DeviceArray) -> Prepared:
    """Transform the window."""
    choice = _choose(problem)
    dtype = real_dtype(problem)
    raw = convert(weight, problem.engine)
    spectra = empty((choice.kernel_blocks * 2 * choice.points,), dtype, raw)
    strange = empty((problem.groups * problem.K,), np.dtype("i4"), raw)
    strange[()] = 0
    launch(fft_kernels(dtype.name, choice.points, _THREADS)[0], choice.kernel_blocks, _THREADS, raw.stream,
           table(tuple(choice.layout)), twiddles(1 << choice.layout.log_turns, dtype), raw.memory(dtype),
           spectra.memory(), strange.memory())
    plane = _plane(problem)
    whole = planes.prepare(problem, plane, raw) if plane else None
    return Prepared(spectra, whole, strange, raw, watch(problem, raw, own=True))


def run(problem: ConvProblem, prepared: Prepared, x: DeviceArray, bias: DeviceArray | None, out: DeviceArray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    follow(out.stream, prepared.spectra, x, bias)
    x = x if x.dtype == problem.engine else convert(x, problem.engine)          # float16: a block is float32
    plane = _plane(problem) if prepared.planes else None
    arrays = operand(x), bias_vector(problem, bias), prepared.strange.memory(), operand(out)
    asked = planes.run(problem, plane, prepared.planes, x, out, *arrays) if plane else table((1,), "i4")
    _run_blocks(problem, prepared, out, asked, *arrays)
    mend(problem, prepared.ends, x, bias, out)


def _run_blocks(problem: ConvProblem, prepared: Prepared, like: DeviceArray, asked: Any, source: Operand,
                bias: tuple[Any, int], kernel_strange: Any, target: Operand) -> None:
    """Fill the output block by block, if it is `asked` for."""
    choice = _choose(problem)
    dtype = real_dtype(problem)
    maps = address_maps(in_three_axes(problem), three(source.strides[3:], 0))
    layout = choice.layout._replace(
        x_start=source.start, x_batch=source.strides[0], x_channel=source.strides[1], x_part=source.strides[2],
        out_start=target.start, out_batch=target.strides[0], out_channel=target.strides[1], out_part=target.strides[2],
        **{f"out_stride{a}": s for a, s in enumerate(three(target.strides[3:], 0))}, bias_size=bias[1])
    _, forward, multiply, block = fft_kernels(dtype.name, choice.points, _THREADS)
    read = (table(tuple(layout)), asked, twiddles(1 << layout.log_turns, dtype), source.flat, maps.index,
            table((*maps.fill, 0), dtype.str))
    kernels = (prepared.weight.memory(dtype), prepared.spectra.memory(), kernel_strange, bias[0], target.flat)
    if choice.fused:
        launch(block, choice.out_blocks, _THREADS, like.stream, *read, *kernels)
        return
    spectra = empty((choice.x_blocks * 2 * choice.points,), dtype, like).memory()
    strange = empty((choice.x_blocks,), np.dtype("i4"), like).memory()
    launch(forward, choice.x_blocks, _THREADS, like.stream, *read, spectra, strange)
    launch(multiply, choice.out_blocks, _THREADS, like.stream, *read, spectra, strange, *kernels)
