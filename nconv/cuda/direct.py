"""Direct convolution on a GPU: every thread sums its outputs' products where they are.

Windows that see one channel (images, volumes, depthwise layers, filters of signals) run from tiles with halos in shared
memory, in which the index maps have settled the edges; a thread slides over its outputs, so that one load from shared
memory serves up to four products. Everything else runs from global memory, several output channels a thread, in any
number of axes: this is what the other algorithms are measured by, and what takes what they refuse.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numba

from ..geometry import ceil_div, product, span
from ..problem import ConvProblem
from .arrays import OUTSIDE, address_maps, engine_array, table, three
from .device import LANES, SHARED_LIMIT, block_size, cuda, kernel, launch
from .ends import Ends, mend, watch
from .views import DeviceArray, empty, follow

# ------------------------------------------------------------------------------------------------- The choice

NAME = "direct"
SUPPORTS = "every problem, every dtype; integers exactly"
REFERENCE = "Podlozhnyuk 2007, Image Convolution with CUDA: tiles with halos in shared memory"
_THREADS = block_size(256)
_EACH_CHANNELS = 4             # output channels of a thread that reads global memory
_PLANE_ROWS = 8                # output rows of a thread of a tile; 32 x 64 outputs a block
BEYOND = OUTSIDE // 2          # no address, but a sum with OUTSIDE in it
_LINE_OUTPUTS = 7              # neighbouring outputs of a thread of a line: odd, so that no two threads share a bank


def why_not(problem: ConvProblem) -> str:
    """Every valid problem is supported."""
    return ""


def cost(problem: ConvProblem, machine) -> float:
    """Multiplications at the kernel's rate, or the traffic of input and output where that takes longer."""
    tiled = _tiled(problem)
    parts = 4 if problem.engine.kind == "c" else 1
    rate = machine.flops(problem.engine) * machine.efficiency["direct_tile" if tiled else "direct"]
    moved = (product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize
    return max(2 * problem.macs * parts / rate, moved / machine.bandwidth) + machine.launch


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight."""
    return (product(problem.weight_shape) + _EACH_CHANNELS * problem.groups) * problem.engine.itemsize


def error(problem: ConvProblem) -> float:
    """The direct method is the measure of the others."""
    return 1.0


def _tiled(problem: ConvProblem) -> bool:
    """Whether tiles in shared memory serve: few outputs share an input element but through the window."""
    return problem.rank <= 3 and problem.C * problem.K <= 4


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
    map0: int
    map1: int
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
    bias_size: int
    tile1: int                 # outputs of a block
    tile2: int
    grid1: int                 # blocks
    grid2: int
    slab1: int                 # taps whose input is in shared memory at once
    slab2: int
    line: int                  # 1: threads lie along axis 2 only, and slide along it


class Prepared(NamedTuple):
    """The weight as [groups, blocks of output channels, channels, taps, channels of a block]; see `ends`."""

    packed: DeviceArray
    ends: Ends | None


def prepare(problem: ConvProblem, weight: DeviceArray) -> Prepared:
    """Pack the weight."""
    dense = engine_array(problem, weight)
    M = 1 if _tiled(problem) else _EACH_CHANNELS
    taps = product(problem.kernel)
    blocks = ceil_div(problem.K, M)
    packed = empty((problem.groups * blocks * problem.C * taps * M,), problem.engine, dense)
    launch(direct_pack_kernel, ceil_div(packed.size, _THREADS), _THREADS, packed.stream, dense.memory(),
           packed.memory(), problem.K, problem.C * taps, blocks, M)
    return Prepared(packed, watch(problem, dense))


def run(problem: ConvProblem, prepared: Prepared, x: DeviceArray, bias: DeviceArray | None,
        out: DeviceArray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    follow(out.stream, prepared.packed, x, bias)
    biases = table((0,), problem.engine.str) if bias is None else engine_array(problem, bias).memory()
    strides = [step // x.dtype.itemsize for step in x.strides]
    maps = address_maps(problem, tuple(strides[2:]))
    fill = problem.engine.type(problem.fill)
    arrays = (x.memory(), maps.index, prepared.packed.memory(), biases, out.memory())
    out_strides = tuple(step // out.dtype.itemsize for step in out.strides)
    common = {"x_start": x.extent()[0], "x_batch": strides[0], "x_channel": strides[1], "out_start": out.extent()[0],
              "out_batch": out_strides[0], "out_channel": out_strides[1], "bias_size": biases.size}
    if _tiled(problem):
        layout, slides, shared = _tile_layout(problem)
        layout = layout._replace(**common, **{f"out_stride{a}": s for a, s in enumerate(three(out_strides[2:], 0))})
        blocks = problem.N * problem.groups * problem.K * layout.out0 * layout.grid1 * layout.grid2
        launch(direct_tile_kernel(problem.engine.name, _LINE_OUTPUTS if layout.line else _PLANE_ROWS, slides), blocks,
               _THREADS, out.stream, layout, *arrays, fill, shared=shared)
    else:
        layout, outer = _each_layout(problem)
        blocks = problem.N * problem.groups * layout.blocks * ceil_div(problem.positions, _THREADS)
        launch(direct_each_kernel(problem.engine.name, _EACH_CHANNELS), blocks, _THREADS, out.stream,
               layout._replace(**common), table(outer + three(out_strides[2:], 0)), *arrays, fill)
    mend(problem, prepared.ends, x, bias, out)


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


@lru_cache(maxsize=256)
def _tile_layout(problem: ConvProblem) -> tuple[TileLayout, bool, int]:
    """(layout, whether neighbouring outputs of a thread share inputs, bytes of shared memory)."""
    p = problem
    out, kernel, stride, dilation = three(p.out), three(p.kernel), three(p.stride), three(p.dilation)
    starts = three(tuple(sum(p.reach[:a]) for a in range(p.rank)), -1)
    line = out[1] == 1
    tile = (1, _THREADS * _LINE_OUTPUTS) if line else (_THREADS // LANES * _PLANE_ROWS, LANES)
    slab = list(kernel[1:])

    def size() -> int:
        return product((n - 1) * s + span(k, d) for n, s, k, d in zip(
            tile, stride[1:], slab, dilation[1:], strict=True)) * p.engine.itemsize

    while size() > SHARED_LIMIT and max(slab) > 1:
        axis = max((0, 1), key=lambda a: slab[a] * dilation[1 + a])
        slab[axis] = ceil_div(slab[axis], 2)
    while size() > SHARED_LIMIT:                       # a large stride, or wide numbers: fewer outputs
        if line:
            tile = (1, ceil_div(tile[1] // _LINE_OUTPUTS, 2) * _LINE_OUTPUTS)
        elif tile[0] > _PLANE_ROWS:
            tile = (tile[0] // 2, tile[1])
        else:
            tile = (tile[0], tile[1] // 2)
    slides = stride[2] == dilation[2] if line else stride[1] == dilation[1]
    layout = TileLayout(
        p.groups, p.C, p.K, *out, *kernel, *stride, *dilation, *starts, sum(p.reach), *(0,) * 10, *tile,
        *map(ceil_div, out[1:], tile), *slab, int(line))
    return layout, slides, max(size(), tile[0] * tile[1] * p.engine.itemsize)


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


@cache
def direct_tile_kernel(dtype_name: str, J: int, slides: bool):
    """The kernel for one type in which a thread sums J outputs; `slides` says that they share inputs tap by tap."""
    dtype = getattr(numba, dtype_name)
    AT_ONCE = 4
    WINDOW = J + AT_ONCE - 1

    @kernel
    def direct_tile_kernel(layout, x, maps, weight, bias, out, fill):
        """out[n, k, p] = bias + sum over the window, from tiles with halos in shared memory.

        Shapes: x (N, groups C, D, H, W) and out (N, groups K, *out) by strides; weight [groups K, C, taps]. Parallel
        over (N, groups K, out planes, tiles); a thread has J rows of one column, or J neighbours of a line. Race-free
        because each output is one thread's and the tile is filled between two barriers.
        """
        tile = cuda.shared.array(0, dtype)
        thread = cuda.threadIdx.x
        rest = cuda.blockIdx.x
        origin2 = rest % layout.grid2 * layout.tile2
        rest //= layout.grid2
        origin1 = rest % layout.grid1 * layout.tile1
        rest //= layout.grid1
        q0 = rest % layout.out0
        rest //= layout.out0
        k = rest % (layout.groups * layout.out_channels)
        n = rest // (layout.groups * layout.out_channels)
        g = k // layout.out_channels

        rows_of_tile = layout.tile1
        columns_of_tile = layout.tile2
        pitch = (columns_of_tile - 1) * layout.stride2 + (layout.slab2 - 1) * layout.dilation2 + 1
        if layout.line:
            row, column = 0, thread * J
            first_row, rows_at_once, first_column, columns_at_once = 0, 1, thread, cuda.blockDim.x
            jump = layout.stride2
            step = layout.dilation2
            aside = layout.dilation1 * pitch
        else:
            row, column = thread // LANES * J, thread % LANES
            first_row, rows_at_once = thread // LANES, cuda.blockDim.x // LANES
            first_column, columns_at_once = thread % LANES, LANES
            jump = layout.stride1 * pitch
            step = layout.dilation1 * pitch
            aside = layout.dilation2
        here = row * layout.stride1 * pitch + column * layout.stride2
        busy = row < rows_of_tile and column < columns_of_tile

        sums = cuda.local.array(J, dtype)
        window = cuda.local.array(WINDOW, dtype)
        for j in range(J):
            sums[j] = bias[k % layout.bias_size]
        for plane in range(layout.channels * layout.kernel0):
            c = plane // layout.kernel0
            base = layout.x_start + n * layout.x_batch + (g * layout.channels + c) * layout.x_channel
            if layout.map0 >= 0:
                base += maps[layout.map0 + q0 * layout.stride0 + plane % layout.kernel0 * layout.dilation0]
            for slab1 in range(0, layout.kernel1, layout.slab1):
                taps1 = min(layout.slab1, layout.kernel1 - slab1)
                for slab2 in range(0, layout.kernel2, layout.slab2):
                    taps2 = min(layout.slab2, layout.kernel2 - slab2)
                    height = (rows_of_tile - 1) * layout.stride1 + (taps1 - 1) * layout.dilation1 + 1
                    width = (columns_of_tile - 1) * layout.stride2 + (taps2 - 1) * layout.dilation2 + 1
                    first1 = layout.map1 + origin1 * layout.stride1 + slab1 * layout.dilation1
                    first2 = layout.map2 + origin2 * layout.stride2 + slab2 * layout.dilation2
                    for u in range(first_row, height, rows_at_once):
                        row_at = base
                        there = True
                        if layout.map1 >= 0:
                            there = first1 + u < layout.map2
                            row_at += maps[first1 + u] if there else 0
                        for v in range(first_column, width, columns_at_once):
                            inside = there and first2 + v < layout.map_end
                            at = row_at + (maps[first2 + v] if inside else 0)
                            tile[u * pitch + v] = dtype(x[at]) if inside and at > BEYOND else fill
                    cuda.syncthreads()
                    w = (k * layout.channels * layout.kernel0 + plane) * layout.kernel1 + slab1
                    w = w * layout.kernel2 + slab2
                    if layout.line:
                        inner, w_step, others, w_aside = taps2, 1, taps1, layout.kernel2
                    else:
                        inner, w_step, others, w_aside = taps1, layout.kernel2, taps2, 1
                    if busy:
                        for other in range(others):
                            at = here + other * aside
                            at_w = w + other * w_aside
                            t = 0
                            if slides:
                                while t + AT_ONCE <= inner:
                                    for i in range(WINDOW):
                                        window[i] = tile[at + i * jump]
                                    for i in range(AT_ONCE):
                                        factor = weight[at_w + i * w_step]
                                        for j in range(J):
                                            sums[j] += factor * window[i + j]
                                    at += AT_ONCE * step
                                    at_w += AT_ONCE * w_step
                                    t += AT_ONCE
                            while t < inner:
                                factor = weight[at_w]
                                for j in range(J):
                                    sums[j] += factor * tile[at + j * jump]
                                at += step
                                at_w += w_step
                                t += 1
                    cuda.syncthreads()

        to = layout.out_start + n * layout.out_batch + k * layout.out_channel + q0 * layout.out_stride0
        if layout.line:                                # through shared memory, so that neighbours are stored together
            if busy:
                for j in range(J):
                    tile[column + j] = sums[j]
            cuda.syncthreads()
            for i in range(thread, min(columns_of_tile, layout.out2 - origin2), cuda.blockDim.x):
                out[to + (origin2 + i) * layout.out_stride2] = tile[i]
        elif busy and origin2 + column < layout.out2:
            to += (origin2 + column) * layout.out_stride2
            for j in range(J):
                if origin1 + row + j < layout.out1:
                    out[to + (origin1 + row + j) * layout.out_stride1] = sums[j]

    return direct_tile_kernel
