"""Which planes `whole` transforms for a problem, what that takes, and the launches."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import product as every
from typing import Any, NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up, span
from ...machine import machine
from ...problem import ConvProblem
from ..arrays import Operand, in_three_axes, operand, parts, real_dtype, three
from ..device import LANES, SIMULATED, block_size, device_cache, launch, table, upload
from ..division import divisor
from ..views import DeviceArray, convert, empty
from .loudness import fraction_of, limits_of
from .passes import RADICES, line_of, passes_of, twiddles_of
from .samples import MOST_PLACES, extent, fill_of, sample_maps
from .whole import (
    FINE,
    NOWHERE,
    WATCH_STEPS,
    WholeLayout,
    back_kernel,
    columns_kernel,
    rows_kernel,
)

_REACHED = 0.6                 # share of the bandwidth
_MOST_POINTS = 1 << 30         # of a plane: places in it are counted in 32 bits
_MOST_PLANES = 65535           # of a grid
_MOST_PLACES = MOST_PLACES["int32"]
_ALIGNED = 8                   # outputs whose first one begins a sector of 32 bytes
_MOST_WATCHERS = 8 if SIMULATED else 4096
_ROWS = 2 if SIMULATED else 1  # of a block
_MOST_THREADS = 576
_TILE_BYTES = 16 if SIMULATED else 64                  # of a row of a tile of columns


class Plane(NamedTuple):
    """The planes of a problem."""

    layout: WholeLayout
    signal: bool
    sources: int               # planes of the input
    targets: int               # of the output
    filters: int

    @property
    def points(self) -> int:
        """Complex points of one plane."""
        return self.layout.rows * self.layout.columns


def workspace(plane: Plane, itemsize: int) -> int:
    """Bytes: spectra of the window, planes of the input and, where there are more, of the output."""
    planes = plane.filters + plane.sources + (plane.targets if plane.layout.out_channels > 1 else 0)
    return planes * plane.points * 2 * itemsize


def seconds(problem: ConvProblem, plane: Plane, machine) -> float:
    """What memory takes at the rate that an H200 showed: input, output, planes three times, the window's spectrum."""
    itemsize = real_dtype(problem).itemsize
    moved = (2 * product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize
    moved += (2 * plane.sources + 4 * plane.targets) * plane.points * 2 * itemsize
    return moved / (_REACHED * machine.bandwidth) + 2 * machine.launch


class _Cut(NamedTuple):
    """How one axis is cut into blocks."""

    length: int
    grid: int                  # blocks; the riders' half of them
    valid: int                 # outputs of a block
    ride: int                  # outputs from a block to its rider


def _cut(lengths: Iterable[int], extent: int, dense: int, riders: bool) -> _Cut | None:
    """The cut with the fewest points."""
    best: tuple[int, _Cut] | None = None
    for length in lengths:
        most = length - extent + 1
        if most < 1:
            continue
        grid = ceil_div(dense, most)
        halves = 2 if riders and grid > 1 else 1
        grid = ceil_div(grid, halves)
        valid = min(round_up(ceil_div(dense, grid * halves), _ALIGNED), most)
        if best is None or grid * length < best[0]:
            best = grid * length, _Cut(length, grid, valid, (halves - 1) * grid * valid)
    return best[1] if best else None


@cache
def _pairs() -> dict[int, tuple[int, int]]:
    """Lengths of a signal's plane as (rows, columns), near to each other."""
    found: dict[int, tuple[int, int]] = {}
    for rows, columns in every(RADICES, RADICES):
        known = found.get(rows * columns)
        if rows <= columns and (known is None or columns < known[1]):
            found[rows * columns] = rows, columns
    return found


@lru_cache(maxsize=256)
def choose(problem: ConvProblem) -> Plane | None:
    """The planes with the fewest points; None where a problem has more axes, or sums over channels."""
    p = in_three_axes(problem)
    if problem.C > 1 or p.out[0] * p.size[0] * p.kernel[0] != 1 or product(p.size) * parts(p) > _MOST_PLACES:
        return None
    dense = [(o - 1) * s + 1 for o, s in zip(p.out, p.stride, strict=True)]
    spans = [span(*of) for of in zip(p.kernel, p.dilation, strict=True)]
    signal = p.size[1] * p.kernel[1] * p.out[1] == 1
    last = _cut(_pairs() if signal else RADICES, spans[2], dense[2], parts(p) == 1)
    first = _Cut(1, 1, 1, 0) if signal else _cut(RADICES, spans[1], dense[1], False)
    if first is None or last is None:
        return None
    rows, columns = _pairs()[last.length] if signal else (first.length, last.length)
    sources = p.N * p.groups * first.grid * last.grid
    plane = Plane(_layout(p, signal, rows, columns, first, last, dense, spans), signal, sources, sources * p.K,
                  p.groups * p.K)
    return plane if plane.points <= _MOST_POINTS and plane.targets <= _MOST_PLANES else None


def _layout(p: ConvProblem, signal: bool, rows: int, columns: int, first: _Cut, last: _Cut, dense: list[int],
            spans: list[int]) -> WholeLayout:
    """All but where the arrays lie."""
    half = [max(1, extent // 2) for extent in spans]
    if signal:
        steps = min(half[2], WATCH_STEPS)
        lanes = min(LANES, 1 << (half[2] // steps).bit_length() - 1)
        down, across, cell = 0, lanes, (1, lanes * steps)
    else:
        lanes, steps = min(LANES, 1 << half[2].bit_length() - 1), min(half[1], WATCH_STEPS)
        down, across, cell = 1, 0, (steps, lanes)
    cells = [ceil_div(n, c) for n, c in zip(p.size[1:], cell, strict=True)]
    limits = limits_of(real_dtype(p))
    limits = limits._replace(small=limits.small + 20)  # the window's spectrum is divided by the number of points
    second = 2 if parts(p) == 2 else 1 if last.ride else 0
    fill = np.abs(np.array([p.fill]).astype(p.engine).view(real_dtype(p))).max()
    loudest = int(fill.view(f"i{fill.itemsize}")) >> 8 * fill.itemsize - 32
    return WholeLayout(
        p.groups, p.K, rows, columns, second, first.grid, last.grid, last.ride, first.valid, last.valid,
        *p.size[1:],
        first.grid * first.valid + rows, *dense[1:], *p.stride[1:],
        *divisor(p.stride[1]), *divisor(p.stride[2]), lanes, steps, down, across, *cell, *cells,
        p.N * p.groups * product(cells), fraction_of(real_dtype(p)), loudest,
        *limits)


@cache
def _tile(rows: int, itemsize: int) -> int:
    """Columns of a tile: their parts of a row fill whole sectors of memory, unless so many have no room."""
    tile = _TILE_BYTES // (2 * itemsize)
    while tile > 1 and line_of(rows, tile, True, LANES).size * 2 * itemsize > machine("cuda").shared:
        tile //= 2
    return tile


@device_cache(64)
def _turns(points: int, dtype: np.dtype) -> tuple[Any, Any]:
    """Tables for `turn_of`."""
    def unit(count, step):
        angle = -2 * np.pi * step * np.arange(count) / points
        return upload(np.stack([np.cos(angle), np.sin(angle)], -1).astype(dtype).ravel())

    return unit(1 << FINE, 1), unit(ceil_div(points, 1 << FINE), 1 << FINE)


def _columns(plane: Plane, dtype: np.dtype, stream: int, layout: Any, kernel_of: Any, planes: int,
             *arrays: Any) -> None:
    """Launch a kernel on tiles of columns."""
    rows = plane.layout.rows
    tile = _tile(rows, dtype.itemsize)
    threads = threads_of(rows, tile)
    shared = line_of(rows, tile, True, threads).size * 2 * dtype.itemsize
    launch(kernel_of(dtype.name, rows, plane.signal, tile, threads), (plane.layout.columns // tile, planes), threads,
           stream, layout, twiddles_of(rows, dtype), *_turns(plane.points, dtype), *arrays, shared=shared)


def _rows(plane: Plane, dtype: np.dtype, stream: int, layout: Any, multiplied: bool, planes: int,
          *arrays: Any) -> None:
    """Launch a kernel on rows."""
    length = plane.layout.columns
    threads = threads_of(length, _ROWS)
    shared = line_of(length, _ROWS, False, threads).size * 2 * dtype.itemsize
    launch(rows_kernel(dtype.name, length, _ROWS, threads, multiplied), (plane.layout.rows // _ROWS, planes), threads,
           stream, layout, twiddles_of(length, dtype), *arrays, shared=shared)


@cache
def threads_of(length: int, lines: int) -> int:
    """Threads of a block: many, as long as few of them wait in any pass."""
    def turns(threads):
        return sum(ceil_div(lines * length // p.radix, threads) * threads * p.radix for p in passes_of(length))

    choices = range(block_size(64), block_size(_MOST_THREADS) + 1, LANES)
    return max(t for t in choices if turns(t) <= 1.3 * min(map(turns, choices)))


@device_cache(64)
def _window_maps(rows: int, columns: int, signal: bool, kernel: tuple, dilation: tuple, parts: int) -> Any:
    """Which tap, turned around, stands at each place of a plane."""
    def one(length, taps, apart, step):
        places = np.full(length, NOWHERE)
        places[-np.arange(taps) * apart % length] = np.arange(taps) * step
        return places

    first = np.zeros(1, int) if signal else one(rows, kernel[1], dilation[1], kernel[2] * parts)
    last = one(rows * columns if signal else columns, kernel[2], dilation[2], parts)
    return upload(np.concatenate([first, last]).astype(np.int32))


def prepare(problem: ConvProblem, plane: Plane, weight: DeviceArray) -> DeviceArray:
    """The window's spectrum over the points of a plane, in the order of `whole_rows_kernel`."""
    p, dtype = in_three_axes(problem), real_dtype(problem)
    two = parts(p)
    layout = plane.layout._replace(
        groups=plane.filters, out_channels=1, second=2 * (two == 2), grid1=1, grid2=1, ride=0,
        map2=1 if plane.signal else plane.layout.rows, x_part=two - 1, x_channel=product(p.kernel) * two)
    maps = _window_maps(layout.rows, layout.columns, plane.signal, p.kernel, p.dilation, two)
    spectra = empty((plane.filters * plane.points * 2,), dtype, weight)
    taps, flat, where = weight.memory(dtype), spectra.memory(), table(tuple(layout))
    nothing, scale = table((0, 0), dtype.str), table((1 / plane.points, 0), dtype.str)
    _columns(plane, dtype, weight.stream, where, columns_kernel, plane.filters, taps, maps, nothing, flat)
    _rows(plane, dtype, weight.stream, where, False, plane.filters, taps, flat, scale, table((0, 0), "i4"), flat)
    return spectra


@device_cache(1024)
def _read(problem: ConvProblem, plane: Plane, source: tuple, target: tuple, bias_size: int) -> tuple[Any, Any]:
    """(layout, maps) on the device; arrays by the start and strides of an `Operand`."""
    (x_start, x_strides), (out_start, out_strides), layout = source, target, plane.layout
    x_steps, out_steps = three(x_strides[3:], 0), three(out_strides[3:], 0)
    width = plane.points if plane.signal else layout.columns
    lengths = 0, layout.map2, (layout.grid2 - 1) * layout.valid2 + layout.ride + width
    maps, before = sample_maps(problem, lengths, x_steps, "int32")
    layout = layout._replace(
        x_start=x_start, x_lowest=x_start + before, x_step1=x_steps[1], x_step2=x_steps[2],
        **dict(zip(("x_batch", "x_channel", "x_part"), x_strides, strict=False)), out_start=out_start,
        out_step1=out_steps[1], out_step2=out_steps[2],
        **dict(zip(("out_batch", "out_channel", "out_part"), out_strides, strict=False)), bias_size=bias_size)
    return table(tuple(layout)), maps


def run(problem: ConvProblem, plane: Plane, kernels: DeviceArray, x: DeviceArray, out: DeviceArray, source: Operand,
        bias: tuple[Any, int], strange: Any, target: Operand) -> Any:
    """Fill `out`; the result says on the device whether it must be filled anew, block by block."""
    dtype = real_dtype(problem)
    if extent(x.shape, source.strides) >= _MOST_PLACES:
        source = operand(convert(x, problem.engine))
    where, maps = _read(problem, plane, source[1:], target[1:], bias[1])
    layout = plane.layout
    watchers = min(plane.targets * (layout.rows // _ROWS), _MOST_WATCHERS)
    seen, asked = (empty((n,), np.dtype("i4"), out).memory() for n in (2 * watchers, 1))
    spectra = empty((plane.sources * plane.points * 2,), dtype, out).memory()
    several = layout.out_channels > 1
    results = empty((plane.targets * plane.points * 2,), dtype, out).memory() if several else spectra
    _columns(plane, dtype, out.stream, where, columns_kernel, plane.sources, source.flat, maps, fill_of(problem),
             spectra)
    _rows(plane, dtype, out.stream, where, True, plane.targets, source.flat, spectra, kernels.memory(), seen, results)
    _columns(plane, dtype, out.stream, where, back_kernel, plane.targets, results, bias[0], seen, strange, asked,
             target.flat)
    return asked
