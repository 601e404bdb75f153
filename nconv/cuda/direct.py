"""Direct convolution on a GPU: every thread sums its outputs' products where they are.

Windows that see one channel (images, volumes, depthwise layers, filters of signals) have two kernels. Small windows
are read straight from global memory: a thread has up to 16 rows of one column, and an element that it loads serves
every row of the window. Large windows and signals run from tiles with halos in shared memory. All else runs from global
memory, several output channels a thread, in any number of axes: the other algorithms are measured by it, and it takes
what they refuse.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import int32, int64, uint32, uint64

from ..boundary import FILL
from ..geometry import ceil_div, product, round_up, span
from ..problem import ConvProblem
from .arrays import OUTSIDE, address_maps, engine_array, three
from .device import LANES, SHARED_LIMIT, block_function, block_size, cuda, device_cache, kernel, launch, table, upload
from .ends import Ends, mend, watch
from .views import DeviceArray, empty, follow

# ------------------------------------------------------------------------------------------------- The choice

NAME = "direct"
SUPPORTS = "every problem, every dtype; integers exactly"
REFERENCE = "Podlozhnyuk 2007, Image Convolution with CUDA: tiles with halos in shared memory"
_THREADS = block_size(256)
_EACH_CHANNELS = 4             # output channels of a thread that reads global memory
_PLANE_ROWS = 8                # output rows of a thread of a tile; at most 32 x 64 outputs a block
_MOST_ROWS = 16                # output rows of a thread without a tile
_ROWS_THREADS = block_size(128)
_ROWS_WINDOW = 50              # taps of a plane's window up to which no tile is needed
_MOST_TOGETHER = 8             # rows of a window that a thread takes at once
NARROW = 1 << 29               # elements of an image up to which its places are numbers of 32 bits
FETCH = 8                      # loads of a thread under way at once while a tile is filled
BEYOND = OUTSIDE // 2          # no address, but a sum with OUTSIDE in it
_LINE_OUTPUTS = 7              # neighbouring outputs of a thread of a line: odd, so that no two threads share a bank


def why_not(problem: ConvProblem) -> str:
    """Every valid problem is supported."""
    return ""


def cost(problem: ConvProblem, machine) -> float:
    """Multiplications at the kernel's rate, beside the traffic of input and output."""
    way = _way(problem)
    parts = 4 if problem.engine.kind == "c" else 1
    rate = machine.flops(problem.engine) * machine.efficiency["direct" if way == "each" else "direct_tile"]
    work = 2 * problem.macs * parts / rate
    moved = (product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize / machine.bandwidth
    if way == "each":
        return max(work, moved) + machine.launch
    # A tile is filled, waited for and only then used: measured on an H200, that takes three times as long.
    return work + moved * (3 if way == "tile" else 1) + machine.launch


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight."""
    return (product(problem.weight_shape) + _EACH_CHANNELS * problem.groups) * problem.engine.itemsize


def error(problem: ConvProblem) -> float:
    """The direct method is the measure of the others."""
    return 1.0


@lru_cache(maxsize=1024)
def _way(problem: ConvProblem) -> str:
    """The kernel: "each", but where few outputs share an input element but through the window "tile" or "rows"."""
    p = problem
    if p.rank > 3 or p.C * p.K > 4 or 0 in p.size or p.N * p.groups * p.K * p.positions >= 1 << 31:
        return "each"
    if _is_line(p):
        return "tile"
    window = _three(p, p.kernel)
    slides = _three(p, p.stride)[1] == _three(p, p.dilation)[1]
    return "rows" if not slides or window[1] * window[2] <= _ROWS_WINDOW or p.channels_last else "tile"


class EachLayout(NamedTuple):
    """What a thread of `direct_each_kernel` knows; the last three axes are named, those before them lie in a table."""

    groups: int
    channels: int
    out_channels: int
    blocks: int                # of output channels
    outer: int                 # axes before the last three
    outer_taps: int
    positions: int
    out0: int
    out1: int
    out2: int
    kernel0: int
    kernel1: int
    kernel2: int
    stride0: int
    stride1: int
    stride2: int
    dilation0: int
    dilation1: int
    dilation2: int
    map0: int                  # where an axis' map begins
    map1: int
    map2: int
    x_start: int
    x_batch: int
    x_channel: int
    out_start: int
    out_batch: int
    out_channel: int
    bias_size: int


class RowsLayout(NamedTuple):
    """What a thread of `direct_rows_kernel` knows. Axes are those of three; `over`: see `_divisor`."""

    items: int                 # threads with work
    chunks: int                # of J rows
    over_chunks: int
    shift_chunks: int
    out_channels: int          # of all groups
    over_channels: int
    shift_channels: int
    over_group: int            # output channels of one group
    shift_group: int
    channels: int
    out0: int
    over_out0: int
    shift_out0: int
    out1: int
    out2: int
    over_out2: int
    shift_out2: int
    kernel0: int
    kernel1: int
    kernel2: int
    stride0: int
    stride1: int
    stride2: int
    dilation0: int
    dilation1: int
    dilation2: int
    map1: int                  # where an axis' map begins
    map2: int
    w_channel: int             # from one output channel's weights to the next one's
    w_tap: int
    last: int                  # 1: neighbouring threads have neighbouring channels
    x_start: int
    x_batch: int
    x_channel: int
    out_start: int
    out_batch: int
    out_channel: int
    out_stride0: int
    out_stride1: int
    out_stride2: int
    bias_step: int


class TileLayout(NamedTuple):
    """What a thread of `direct_tile_kernel` knows. Axes 1 and 2 are tiled, axis 0 is walked plane by plane."""

    groups: int
    channels: int
    out_channels: int
    out0: int
    out1: int
    out2: int
    kernel0: int
    kernel1: int
    kernel2: int
    stride0: int
    stride1: int
    stride2: int
    dilation0: int
    dilation1: int
    dilation2: int
    map1: int                  # where an axis' map begins, and the last one ends
    map2: int
    map_end: int
    x_start: int
    x_batch: int
    x_channel: int
    out_start: int
    out_batch: int
    out_channel: int
    out_stride0: int
    out_stride1: int
    out_stride2: int
    bias_step: int
    tile1: int                 # outputs of a block
    tile2: int
    grid1: int                 # blocks
    grid2: int
    pitch: int                 # from one row of shared memory to the next
    slab1: int                 # taps whose input is in shared memory at once
    slab2: int
    line: int                  # 1: threads lie along axis 2 only, and slide along it


class Prepared(NamedTuple):
    """The weight as [groups, blocks of output channels, channels, taps, channels of a block]; see `ends`."""

    packed: DeviceArray
    ends: Ends | None


def prepare(problem: ConvProblem, weight: DeviceArray) -> Prepared:
    """Pack the weight."""
    way = _way(problem)
    turned = way == "tile" and not _is_line(problem)   # a thread slides along the rows: their taps side by side
    dense = engine_array(problem, weight.swapaxes(weight.ndim - 2, weight.ndim - 1) if turned else weight)
    together = way == "rows" and problem.channels_last
    groups, K = (1, problem.groups * problem.K) if together else (problem.groups, problem.K)
    M = K if together else _EACH_CHANNELS if way == "each" else 1
    taps = product(problem.kernel)
    blocks = ceil_div(K, M)
    packed = empty((groups * blocks * problem.C * taps * M,), problem.engine, dense)
    launch(direct_pack_kernel, ceil_div(packed.size, _THREADS), _THREADS, packed.stream, dense.memory(),
           packed.memory(), K, problem.C * taps, blocks, M)
    return Prepared(packed, watch(problem, weight))


def run(problem: ConvProblem, prepared: Prepared, x: DeviceArray, bias: DeviceArray | None,
        out: DeviceArray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    follow(out.stream, prepared.packed, x, bias)
    biases = table((0,), problem.engine.str) if bias is None else engine_array(problem, bias).memory()
    strides = tuple(step // x.dtype.itemsize for step in x.strides)
    out_strides = tuple(step // out.dtype.itemsize for step in out.strides)
    fill = problem.engine.type(problem.fill)
    common = {"x_start": x.extent()[0], "x_batch": strides[0], "x_channel": strides[1], "out_start": out.extent()[0],
              "out_batch": out_strides[0], "out_channel": out_strides[1]}
    way = _way(problem)
    if way == "each":
        layout, outer = _each_layout(problem)
        blocks = problem.N * problem.groups * layout.blocks * ceil_div(problem.positions, _THREADS)
        launch(direct_each_kernel(problem.engine.name, _EACH_CHANNELS), blocks, _THREADS, out.stream,
               layout._replace(**common, bias_size=biases.size), table(outer + three(out_strides[2:], 0)), x.memory(),
               address_maps(problem, strides[2:]).index, prepared.packed.memory(), biases, out.memory(), fill)
    else:
        maps, before, index = _maps(problem, strides[2:])
        common["x_start"] += before
        layout, kernel, blocks, threads, shared = (_rows_layout if way == "rows" else _tile_layout)(problem, index)
        steps = zip(("out_stride0", "out_stride1", "out_stride2"), _three(problem, out_strides[2:], 0), strict=True)
        launch(kernel, blocks, threads, out.stream,
               layout._replace(**common, bias_step=int(bias is not None), **dict(steps)),
               x.memory(), maps, prepared.packed.memory(), biases, out.memory(), fill, shared=shared)
    mend(problem, prepared.ends, x, bias, out)


def _three(problem: ConvProblem, values: tuple, one: Any = 1) -> tuple:
    """Entries of up to three axes as those of three. A signal's samples are rows where its channels are neighbours."""
    return (one, *values, one) if problem.rank == 1 and problem.channels_last else three(values, one)


@device_cache(256)
def _maps(problem: ConvProblem, strides: tuple[int, ...]) -> tuple[Any, int, str]:
    """(the maps of three axes times their strides on the device, what to add to the input's start, type of the maps).

    No place lies below 0, and those outside so far below that no sum over two axes rises above it: kernels look at the
    sign.
    """
    least = [min(0, (n - 1) * step) for n, step in zip(problem.size, strides, strict=True)]
    extent = sum(n * abs(step) for n, step in zip(problem.size, strides, strict=True))
    index = "int32" if extent < NARROW else "int64"
    maps = [np.where(m == FILL, -(1 << 30) if index == "int32" else OUTSIDE, m * step - low)
            for m, step, low in zip(problem.index_maps(), strides, least, strict=True)]
    return upload(np.concatenate(_three(problem, tuple(maps), np.zeros(1))).astype(index)), sum(least), index


@lru_cache(maxsize=256)
def _each_layout(problem: ConvProblem) -> tuple[EachLayout, tuple]:
    """(layout, rows of the axes before the last three: outputs, taps, strides, dilations, where their maps begin)."""
    p = problem
    starts = [sum(p.reach[:a]) for a in range(p.rank)]
    outer = max(p.rank - 3, 0)
    kernel, stride, dilation = three(p.kernel[-3:]), three(p.stride[-3:]), three(p.dilation[-3:])
    begin = three(tuple(starts[-3:]), -1)
    rows = (p.out[:outer], p.kernel[:outer], p.stride[:outer], p.dilation[:outer], tuple(starts[:outer]))
    layout = EachLayout(
        p.groups, p.C, p.K, ceil_div(p.K, _EACH_CHANNELS), outer, product(p.kernel[:outer]), p.positions,
        *three(p.out[-3:]), *kernel, *stride, *dilation, *begin, *(0,) * 7)
    return layout, sum(rows, ())


def _divisor(n: int) -> tuple[int, int]:
    """(factor, shift): a // n is (a * factor) >> shift for 0 <= a < 2**31, in two instructions instead of twenty.

    The factor is 2**shift / n rounded up, by less than 1, so the quotient is too large by less than a / 2**shift <
    2**-bits <= 1 / n, which does not reach the next whole number.
    """
    bits = (n - 1).bit_length()
    return ceil_div(1 << 31 + bits, n), 31 + bits


@lru_cache(maxsize=256)
def _rows_layout(problem: ConvProblem, index: str) -> tuple[RowsLayout, Any, int, int, int]:
    """(layout, kernel, blocks, threads of a block, bytes of shared memory)."""
    p = problem
    out, kernel, stride, dilation = (_three(p, values) for values in (p.out, p.kernel, p.stride, p.dilation))
    begin = np.cumsum(_three(p, p.reach))
    J = _rows(out[1])
    chunks = ceil_div(out[1], J)
    items = p.N * p.groups * p.K * out[0] * chunks * out[2]
    R = _together(kernel[1]) if stride[1] == dilation[1] else 1
    w_channel, w_tap = (1, p.groups * p.K) if p.channels_last else (p.taps, 1)
    layout = RowsLayout(
        items, chunks, *_divisor(chunks), p.groups * p.K, *_divisor(p.groups * p.K), *_divisor(p.K), p.C,
        out[0], *_divisor(out[0]), out[1], out[2], *_divisor(out[2]), *kernel, *stride, *dilation,
        *map(int, begin[:2]), w_channel, w_tap, int(p.channels_last), *(0,) * 10)
    return layout, direct_rows_kernel(p.engine.name, index, J, R), ceil_div(items, _ROWS_THREADS), _ROWS_THREADS, 0


def _rows(extent: int) -> int:
    """Rows of a thread: an even number, so that few kernels serve, and few rows are left over."""
    return min(round_up(ceil_div(extent, ceil_div(extent, _MOST_ROWS)), 2), _MOST_ROWS)


def _together(taps: int) -> int:
    """So many rows of the window at once that none is left over."""
    return next(r for r in range(min(taps, _MOST_TOGETHER), 0, -1) if taps % r == 0)


def _is_line(problem: ConvProblem) -> bool:
    """Whether all outputs of a plane lie side by side."""
    return _three(problem, problem.out)[1] == 1


@lru_cache(maxsize=256)
def _tile_layout(problem: ConvProblem, index: str) -> tuple[TileLayout, Any, int, int, int]:
    """(layout, kernel, blocks, threads of a block, bytes of shared memory)."""
    p = problem
    out, kernel, stride, dilation = (_three(p, values) for values in (p.out, p.kernel, p.stride, p.dilation))
    begin = np.cumsum(_three(p, p.reach))
    line = _is_line(p)
    J = _LINE_OUTPUTS if line else _PLANE_ROWS
    # So many threads that the last tile is nearly full, too.
    threads = min(range(_THREADS, LANES - 1, -LANES), key=lambda t: (
        ceil_div(out[2], t * J) * (t * J + 64) if line else ceil_div(out[1], t // LANES * J) * (t // LANES * J + 16)))
    tile = (1, threads * J) if line else (threads // LANES * J, LANES)
    slab = list(kernel[1:])

    def pitch() -> int:
        return round_up((tile[1] - 1) * stride[2] + span(slab[1], dilation[2]), 1 if line else LANES)

    def size() -> int:
        return ((tile[0] - 1) * stride[1] + span(slab[0], dilation[1])) * pitch() * p.engine.itemsize

    while size() > SHARED_LIMIT and max(slab) > 1:
        axis = max((0, 1), key=lambda a: slab[a] * dilation[1 + a])
        slab[axis] = ceil_div(slab[axis], 2)
    while size() > SHARED_LIMIT:                       # a large stride, or wide numbers: fewer outputs
        if line:
            tile = (1, ceil_div(tile[1] // J, 2) * J)
        elif tile[0] > J:
            tile = (ceil_div(tile[0] // J, 2) * J, tile[1])
        else:
            tile = (tile[0], tile[1] // 2)
    along = 2 if line else 1
    jump = (stride[2] if line else stride[1] * pitch()) if stride[along] == dilation[along] else 0
    taps = slab[along - 1]
    R = min(range(min(taps, _MOST_TOGETHER), min(taps, 4) - 1, -1), key=lambda r: (taps % r, -r))     # few left over
    layout = TileLayout(
        p.groups, p.C, p.K, *out, *kernel, *stride, *dilation, *map(int, begin), *(0,) * 10,
        *tile, *map(ceil_div, out[1:], tile), pitch(), *slab, int(line))
    blocks = p.N * p.groups * p.K * out[0] * layout.grid1 * layout.grid2
    return (layout, direct_tile_kernel(p.engine.name, index, J, R, jump), blocks, threads,
            max(size(), tile[0] * tile[1] * p.engine.itemsize))


# ------------------------------------------------------------------------------------------------- The kernels


@kernel
def direct_pack_kernel(weight, packed, out_channels, taps, blocks, M):
    """packed [groups, blocks, taps, M] = weight [groups, out_channels, taps], 0 beyond. Parallel over the elements.

    Race-free because each element is written by one thread.
    """
    for i in range(cuda.grid(1), packed.size, cuda.gridsize(1)):
        tap = i // M % taps
        block = i // M // taps
        k = block % blocks * M + i % M
        packed[i] = weight[(block // blocks * out_channels + k) * taps + tap] if k < out_channels else 0


@cache
def direct_each_kernel(dtype_name: str, M: int):
    """The kernel for one type in which a thread sums M output channels of one position."""
    dtype = getattr(numba, dtype_name)

    @kernel
    def direct_each_kernel(layout, outer, x, maps, weight, bias, out, fill):
        """out[n, k, p] = bias + sum over channels and taps, read from global memory.

        Shapes: x (N, groups C, *size) and out (N, groups K, *out) by strides; weight [groups, K blocks, C, taps, M];
        outer holds five rows of the axes before the last three, then the output's strides of all. Parallel over
        (N, groups, K blocks, positions). Race-free because each output is one thread's.
        """
        chunks = (layout.positions + cuda.blockDim.x - 1) // cuda.blockDim.x
        item = cuda.blockIdx.x // chunks
        position = cuda.blockIdx.x % chunks * cuda.blockDim.x + cuda.threadIdx.x
        if position >= layout.positions:
            return
        block = item % layout.blocks
        g = item // layout.blocks % layout.groups
        n = item // layout.blocks // layout.groups
        q2 = position % layout.out2
        q1 = position // layout.out2 % layout.out1
        rest = position // layout.out2 // layout.out1
        lead = layout.outer
        q0 = rest % layout.out0
        rest //= layout.out0
        sums = cuda.local.array(M, dtype)
        for i in range(M):
            k = g * layout.out_channels + min(block * M + i, layout.out_channels - 1)
            sums[i] = bias[k % layout.bias_size]
        w = item % (layout.blocks * layout.groups) * layout.channels * M
        w *= layout.outer_taps * layout.kernel0 * layout.kernel1 * layout.kernel2
        for c in range(layout.channels):
            base = layout.x_start + n * layout.x_batch + (g * layout.channels + c) * layout.x_channel
            for tap in range(layout.outer_taps):
                at = base
                left = rest
                r = tap
                for b in range(lead):
                    a = lead - 1 - b
                    place = left % outer[a] * outer[2 * lead + a] + r % outer[lead + a] * outer[3 * lead + a]
                    at += maps[outer[4 * lead + a] + place]
                    left //= outer[a]
                    r //= outer[lead + a]
                for r0 in range(layout.kernel0):
                    at0 = at
                    if layout.map0 >= 0:
                        at0 += maps[layout.map0 + q0 * layout.stride0 + r0 * layout.dilation0]
                    for r1 in range(layout.kernel1):
                        at1 = at0
                        if layout.map1 >= 0:
                            at1 += maps[layout.map1 + q1 * layout.stride1 + r1 * layout.dilation1]
                        for r2 in range(layout.kernel2):
                            at2 = at1 + maps[layout.map2 + q2 * layout.stride2 + r2 * layout.dilation2]
                            value = dtype(x[at2]) if at2 > BEYOND else fill
                            for i in range(M):
                                sums[i] += weight[w + i] * value
                            w += M
        strides = 5 * lead
        to = layout.out_start + n * layout.out_batch
        to += q0 * outer[strides + lead] + q1 * outer[strides + lead + 1] + q2 * outer[strides + lead + 2]
        left = rest
        for b in range(lead):
            a = lead - 1 - b
            to += left % outer[a] * outer[strides + a]
            left //= outer[a]
        for i in range(M):
            if block * M + i < layout.out_channels:
                out[to + (g * layout.out_channels + block * M + i) * layout.out_channel] = sums[i]

    return direct_each_kernel


@block_function
def _over(a, factor, shift):
    """a // n; see `_divisor`."""
    return int32((uint64(a) * uint64(factor)) >> uint64(shift))


@cache
def direct_rows_kernel(dtype_name: str, index_name: str, J: int, R: int):
    """The kernel for one type in which a thread sums J rows of a column, R rows of the window at once.

    Above 1, R divides the window's rows, and the rows of the window lie as far apart as those of the output.
    """
    dtype, whole = getattr(numba, dtype_name), getattr(numba, index_name)
    place = getattr(numba, "u" + index_name)           # an index with a sign would be compared with 0
    ROWS = J + R - 1

    @kernel
    def direct_rows_kernel(layout, x, maps, weight, bias, out, fill):
        """out[n, k, p] = bias + sum over the window, read from global memory; each element serves R rows of sums.

        Shapes: x (N, groups C, D, H, W) and out (N, groups K, *out) by strides; weight [groups K, C taps] by strides.
        Parallel over (N, groups K, out planes, chunks of J rows, columns), or with the channels last. Race-free because
        each output is one thread's.
        """
        # 32 bits wherever they suffice: a plane's places, and all that is counted.
        item = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        if item >= layout.items:
            return
        k, rest = int32(0), item
        if layout.last:
            rest = _over(item, layout.over_channels, layout.shift_channels)
            k = int32(item - rest * int32(layout.out_channels))
        above = _over(rest, layout.over_out2, layout.shift_out2)
        q2 = int32(rest - above * int32(layout.out2))
        rest = _over(above, layout.over_chunks, layout.shift_chunks)
        first = int32((above - rest * int32(layout.chunks)) * J)
        above = _over(rest, layout.over_out0, layout.shift_out0)
        q0 = int32(rest - above * int32(layout.out0))
        n = above
        if not layout.last:
            n = _over(above, layout.over_channels, layout.shift_channels)
            k = int32(above - n * int32(layout.out_channels))
        g = _over(k, layout.over_group, layout.shift_group)

        sums = cuda.local.array(J, dtype)
        window = cuda.local.array(ROWS, dtype)
        rows = cuda.local.array(ROWS, whole)
        start = bias[uint32(k * int32(layout.bias_step))]
        for j in range(J):
            sums[j] = start
        row_maps, column_maps = maps[layout.map1:], maps[layout.map2:]
        last_row, stride1 = int32(layout.map2 - layout.map1 - 1), int32(layout.stride1)
        w_tap, w_row = layout.w_tap, layout.kernel2 * layout.w_tap
        base = layout.x_start + n * layout.x_batch + g * (layout.channels * layout.x_channel)
        w = int64(k) * layout.w_channel
        for _channel in range(layout.channels):
            for r0 in range(layout.kernel0):
                plane = maps[uint32(q0 * int32(layout.stride0) + r0 * int32(layout.dilation0))]
                values = x[base + max(plane, whole(0)):]
                for r1 in range(0, layout.kernel1, R):
                    row = int32(first * stride1 + r1 * int32(layout.dilation1))
                    for i in range(ROWS):
                        # Rows beyond the last output are read and not written.
                        rows[i] = row_maps[uint32(min(row, last_row))] if plane >= 0 else plane
                        row = int32(row + stride1)
                    column = int32(q2 * int32(layout.stride2))
                    for _ in range(int32(layout.kernel2)):
                        at_column = column_maps[uint32(column)]
                        column = int32(column + int32(layout.dilation2))
                        for i in range(ROWS):
                            at = whole(rows[i] + at_column)
                            window[i] = fill
                            if at >= 0:
                                window[i] = dtype(values[place(at)])
                        at_w = w
                        for r in range(R):
                            factor = weight[uint64(at_w)]
                            at_w += w_row
                            for j in range(J):
                                sums[j] += factor * window[r + j]
                        w += w_tap
                    w += (R - 1) * w_row
            base += layout.x_channel

        to = layout.out_start + n * layout.out_batch + k * layout.out_channel
        to += q0 * layout.out_stride0 + first * layout.out_stride1 + q2 * layout.out_stride2
        left = int32(layout.out1 - first)
        for j in range(J):
            if j < left:
                out[uint64(to)] = sums[j]
            to += layout.out_stride1

    return direct_rows_kernel


@cache
def direct_tile_kernel(dtype_name: str, index_name: str, J: int, R: int, JUMP: int):
    """The kernel for one type in which a thread sums J outputs, R taps at once.

    JUMP: how far apart in shared memory the inputs of neighbouring outputs, and of neighbouring taps, lie; 0: these
    differ, and no input serves two outputs.
    """
    dtype, whole = getattr(numba, dtype_name), getattr(numba, index_name)
    place = getattr(numba, "u" + index_name)
    WINDOW = J + R - 1

    @kernel
    def direct_tile_kernel(layout, x, maps, weight, bias, out, fill):
        """out[n, k, p] = bias + sum over the window, from tiles with halos in shared memory.

        Shapes: x (N, groups C, D, H, W) and out (N, groups K, *out) by strides; weight [groups K, C, depth, rows,
        columns], for tiles [.., columns, rows]. Parallel over (N, groups K, out planes, tiles); a thread has J rows of
        one column, or J neighbours of a line. Race-free because each output is one thread's and the tile is filled
        between two barriers.
        """
        tile = cuda.shared.array(0, dtype)
        thread = int32(cuda.threadIdx.x)
        rest = uint32(cuda.blockIdx.x)
        origin2 = int32(uint32(rest % uint32(layout.grid2)) * int32(layout.tile2))
        rest = uint32(rest // uint32(layout.grid2))
        origin1 = int32(uint32(rest % uint32(layout.grid1)) * int32(layout.tile1))
        rest = uint32(rest // uint32(layout.grid1))
        q0 = int32(uint32(rest % uint32(layout.out0)))
        rest = uint32(rest // uint32(layout.out0))
        k = int32(uint32(rest % uint32(layout.groups * layout.out_channels)))
        n = int32(uint32(rest // uint32(layout.groups * layout.out_channels)))
        g = int32(uint32(k) // uint32(layout.out_channels))

        pitch, tile1, tile2 = int32(layout.pitch), int32(layout.tile1), int32(layout.tile2)
        stride1, stride2 = int32(layout.stride1), int32(layout.stride2)
        if layout.line:
            row, column = int32(0), int32(thread * J)
            first_row, rows_at_once, first_column, columns_at_once = int32(0), int32(1), thread, int32(cuda.blockDim.x)
            jump, step, aside = int64(stride2), layout.dilation2, layout.dilation1 * pitch
        else:
            row, column = int32(thread // LANES * J), int32(thread % LANES)
            first_row, rows_at_once = int32(thread // LANES), int32(cuda.blockDim.x // LANES)
            first_column, columns_at_once = int32(thread % LANES), int32(LANES)
            jump, step, aside = int64(stride1 * pitch), layout.dilation1 * pitch, layout.dilation2
        here = int64(row * stride1 * pitch + column * stride2)
        busy = row < tile1 and column < tile2

        sums = cuda.local.array(J, dtype)
        window = cuda.local.array(WINDOW, dtype)
        fetched = cuda.local.array(FETCH, dtype)
        into = cuda.local.array(FETCH, int32)
        start = bias[uint32(k * int32(layout.bias_step))]
        for j in range(J):
            sums[j] = start
        row_maps, column_maps = maps[layout.map1:], maps[layout.map2:]
        last_row, last_column = int32(layout.map2 - layout.map1 - 1), int32(layout.map_end - layout.map2 - 1)
        for c in range(int32(layout.channels)):
            base = layout.x_start + n * layout.x_batch + (g * layout.channels + c) * layout.x_channel
            for r0 in range(int32(layout.kernel0)):
                place0 = maps[uint32(q0 * int32(layout.stride0) + r0 * int32(layout.dilation0))]
                values = x[base + max(place0, whole(0)):]
                for slab1 in range(0, layout.kernel1, layout.slab1):
                    taps1 = int32(min(layout.slab1, layout.kernel1 - slab1))
                    for slab2 in range(0, layout.kernel2, layout.slab2):
                        taps2 = int32(min(layout.slab2, layout.kernel2 - slab2))
                        height = int32((tile1 - 1) * stride1 + (taps1 - 1) * int32(layout.dilation1) + 1)
                        width = int32((tile2 - 1) * stride2 + (taps2 - 1) * int32(layout.dilation2) + 1)
                        top = int32(origin1 * stride1 + slab1 * layout.dilation1)
                        left = int32(origin2 * stride2 + slab2 * layout.dilation2)
                        u, v = first_row, first_column
                        while u < height:
                            # Several loads are under way before the first is waited for: none depends on a branch.
                            for i in range(FETCH):
                                # Places beyond the last output are read and not used.
                                at = row_maps[uint32(min(int32(top + u), last_row))] if place0 >= 0 else place0
                                at = whole(at + column_maps[uint32(min(int32(left + v), last_column))])
                                fetched[i] = fill
                                if at >= 0:
                                    fetched[i] = dtype(values[place(at)])
                                into[i] = int32(u * pitch + v) if u < height and v < width else int32(-1)
                                v = int32(v + columns_at_once)
                                if v >= width:
                                    v = first_column
                                    u = int32(u + rows_at_once)
                            for i in range(FETCH):
                                if into[i] >= 0:
                                    tile[uint32(into[i])] = fetched[i]
                        cuda.syncthreads()
                        w = (k * layout.channels + c) * layout.kernel0 + r0
                        if layout.line:
                            inner, others, length = taps2, taps1, layout.kernel2
                            w = (w * layout.kernel1 + slab1) * length + slab2
                        else:
                            inner, others, length = taps1, taps2, layout.kernel1
                            w = (w * layout.kernel2 + slab2) * length + slab1
                        if busy:
                            for other in range(others):
                                # Indices of 64 bits: a constant added to one is part of the instruction.
                                at_tile = here + other * aside
                                at_w = w + other * length
                                t = int32(0)
                                if JUMP:
                                    while t + R <= inner:
                                        for i in range(WINDOW):
                                            window[i] = tile[uint64(at_tile + i * JUMP)]
                                        for i in range(R):
                                            factor = weight[uint64(at_w + i)]
                                            for j in range(J):
                                                sums[j] += factor * window[i + j]
                                        at_tile += R * JUMP
                                        at_w += R
                                        t = int32(t + R)
                                while t < inner:
                                    factor = weight[uint64(at_w)]
                                    for j in range(J):
                                        sums[j] += factor * tile[uint64(at_tile + j * jump)]
                                    at_tile += step
                                    at_w += 1
                                    t = int32(t + 1)
                        cuda.syncthreads()

        to = layout.out_start + n * layout.out_batch + k * layout.out_channel + q0 * layout.out_stride0
        if layout.line:                                # through shared memory, so that neighbours are stored together
            if busy:
                for j in range(J):
                    tile[uint32(column + j)] = sums[j]
            cuda.syncthreads()
            to += origin2 * layout.out_stride2
            for i in range(thread, int32(min(tile2, layout.out2 - origin2)), int32(cuda.blockDim.x)):
                out[uint64(to + i * layout.out_stride2)] = tile[uint32(i)]
        elif busy and origin2 + column < layout.out2:
            to += (origin2 + column) * layout.out_stride2
            for j in range(J):
                if origin1 + row + j < layout.out1:
                    out[uint64(to + (origin1 + row + j) * layout.out_stride1)] = sums[j]

    return direct_tile_kernel
