"""Convolution as a matrix product on a GPU in which the matrix of patches is never stored: an implicit GEMM.

[output channels x taps] [taps x positions] for each group. A block sums a tile of 128 x 128; its threads gather the
patches of the next eight taps into registers while they multiply those in shared memory. An element of the patches is
found by three tables, so every stride, dilation, boundary and layout runs at the same rate.

Versions: `im2col_tile_kernel` on the ordinary arithmetic units, every type; `im2col_tensor_kernel` on the tensor cores,
float16 with float32 sums, and float32 in TF32 where `nconv.allow_tf32` allows it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up
from ...machine import machine
from ...problem import ConvProblem
from ..arrays import address_maps, bias_vector, engine_array, in_three_axes, operand, parts, real_dtype, three
from ..device import LANES, SIMULATED, device_cache, launch, table, upload
from ..ends import Ends, mend, watch
from ..views import DeviceArray, convert, empty, follow
from .tensor import WORDS, im2col_tensor_kernel
from .tiles import TAPS, PatchLayout, im2col_pack_kernel, im2col_sum_kernel, im2col_tile_kernel

# ------------------------------------------------------------------------------------------------- The choice

NAME = "im2col"
SUPPORTS = "up to three axes, every dtype; integers exactly"
REFERENCE = "Chetlur et al. 2014, cuDNN: Efficient Primitives for Deep Learning (arXiv 1410.0759), section 3.1"
ROWS = COLUMNS = 128           # output channels and positions of a block's tile
PER_THREAD = 8                 # rows and columns of a thread
THREADS = 256
if SIMULATED:                  # a thread is one of Python's: the same kernel with a smaller tile
    ROWS = COLUMNS = 16
    PER_THREAD = 4
    THREADS = 16
LEAST_STEPS = 64               # that a block takes where taps are split among blocks
TENSOR_ROWS, TENSOR_COLUMNS = 64, 32       # of a warp
WARPS = (2, 4)                 # of a block: its tile is 128 x 128
if SIMULATED:
    TENSOR_ROWS, TENSOR_COLUMNS, WARPS = 16, 16, (1, 1)


def why_not(problem: ConvProblem) -> str:
    """Every problem of up to three axes is supported."""
    return "more than three axes" if problem.rank > 3 else ""


def _splits(blocks: int, steps: int, rates) -> int:
    """Among how many blocks the taps of a tile are split, so that two blocks run on each multiprocessor.

    Few outputs with many taps are what a weight gradient has. Each split sums into its own memory; a last kernel adds.
    """
    if blocks >= rates.processors:
        return 1
    return max(1, min(ceil_div(2 * rates.processors, blocks), steps // LEAST_STEPS, 256))


@lru_cache(maxsize=256)
def _tensor_kind(problem: ConvProblem, rates) -> str:
    """How the tensor cores serve a problem: 'half', 'tf32', or '' where they do not."""
    if not rates.tensor_cores:
        return ""
    if problem.dtype.char == "e":
        with np.errstate(over="ignore"):
            return "half" if complex(np.float16(problem.fill.real)) == problem.fill else ""
    return "tf32" if problem.tf32 and problem.dtype == np.float32 else ""


def _step(kind: str) -> int:
    """Taps of a step."""
    return {"": TAPS, "tf32": WORDS, "half": 2 * WORDS}[kind]


def cost(problem: ConvProblem, machine) -> float:
    """Multiplications of whole tiles, a wave of blocks at a time, or the traffic where that takes longer."""
    rows, columns = problem.K * parts(problem), problem.N * problem.positions
    taps = problem.C * parts(problem) * product(problem.kernel)
    blocks = problem.groups * ceil_div(rows, 128) * ceil_div(columns, 128)
    kind = _tensor_kind(problem, machine)
    blocks *= _splits(blocks, ceil_div(taps, _step(kind)), machine)
    waves = ceil_div(blocks, machine.processors) * machine.processors
    taps = ceil_div(taps, blocks // (problem.groups * ceil_div(rows, 128) * ceil_div(columns, 128)))
    rate = machine.flops(problem.engine, kind) * machine.efficiency[f"im2col_{kind}" if kind else "im2col"]
    moved = (product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize
    return max(2 * waves * 128 * 128 * round_up(taps, _step(kind)) / rate, moved / machine.bandwidth) + machine.launch


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and the tables."""
    taps = round_up(problem.C * parts(problem) * product(problem.kernel), 2 * WORDS)
    weight = problem.groups * taps * round_up(problem.K * parts(problem), 128) * real_dtype(problem).itemsize
    blocks = problem.groups * ceil_div(problem.K * parts(problem), 128) * ceil_div(problem.N * problem.positions, 128)
    splits = _splits(blocks, ceil_div(taps, _step(_tensor_kind(problem, machine))), machine)
    sums = splits * product(problem.out_shape) * problem.engine.itemsize if splits > 1 else 0
    return weight + 32 * taps + 8 * sum(problem.reach) + sums


def error(problem: ConvProblem) -> float:
    """The same sums as the direct method's. TF32 is the user's own choice and no error of the method's."""
    return 1.0


class Prepared(NamedTuple):
    """The weight as [groups, row blocks, taps, rows of a block], real, zero beyond rows and taps; see `ends`.

    For the tensor cores in float16 two taps of a row stand side by side.
    """

    packed: DeviceArray
    ends: Ends | None


def prepare(problem: ConvProblem, weight: DeviceArray) -> Prepared:
    """Pack the weight."""
    dense = engine_array(problem, weight)
    kind = _tensor_kind(problem, machine("cuda"))
    width = TENSOR_ROWS * WARPS[0] if kind else ROWS
    padded = round_up(problem.C * parts(problem) * product(problem.kernel), _step(kind))
    blocks = ceil_div(problem.K * parts(problem), width)
    packed = empty((problem.groups * blocks * padded * width,),
                   problem.dtype if kind == "half" else real_dtype(problem), dense)
    launch(im2col_pack_kernel, ceil_div(packed.size, 256), min(256, 8 * LANES), packed.stream,
           dense.memory(real_dtype(problem)), packed.memory(), problem.K, problem.C, product(problem.kernel),
           parts(problem), blocks, padded, width, 2 if kind == "half" else 1)
    return Prepared(packed, watch(problem, dense))


@device_cache(256)
def _taps(problem: ConvProblem, x_channel: int, x_part: int, step: int):
    """[taps, 4] on the device: offset of the channel in memory, then of the window's tap in the map of each axis."""
    p = in_three_axes(problem)
    channels = [c * x_channel + part * x_part for c in range(p.C) for part in range(parts(p))]
    window = [[r * d for r in range(k)] for k, d in zip(p.kernel, p.dilation, strict=True)]
    grid = np.stack(np.meshgrid(channels, *window, indexing="ij"), -1).reshape(-1, 4)
    return upload(np.concatenate([grid, np.zeros((round_up(len(grid), step) - len(grid), 4))]).astype(np.int64).ravel())


def run(problem: ConvProblem, prepared: Prepared, x: DeviceArray, bias: DeviceArray | None,
        out: DeviceArray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    p = in_three_axes(problem)
    follow(out.stream, prepared.packed, x, bias)
    kind = _tensor_kind(problem, machine("cuda"))
    height, width = (TENSOR_ROWS * WARPS[0], TENSOR_COLUMNS * WARPS[1]) if kind else (ROWS, COLUMNS)
    step = _step(kind)
    rows, columns = problem.K * parts(problem), problem.N * problem.positions
    row_blocks, column_blocks = ceil_div(rows, height), ceil_div(columns, width)
    steps = ceil_div(p.taps * parts(p), step)
    split_steps = ceil_div(steps, _splits(p.groups * row_blocks * column_blocks, steps, machine("cuda")))
    splits = ceil_div(steps, split_steps)
    sums = out if splits == 1 else empty((splits, *problem.out_shape), problem.engine, out)
    if kind == "half" and x.dtype != problem.dtype:               # a narrow integer, which float16 holds
        x = convert(x, problem.dtype)
    source, target = operand(x), operand(out if splits == 1 else sums[0])
    maps = address_maps(p, three(source.strides[3:], 0))
    taps = _taps(problem, source.strides[1], source.strides[2], step)
    biases, bias_size = bias_vector(problem, bias)
    layout = PatchLayout(
        groups=p.groups, rows=rows, row_blocks=row_blocks, columns=columns, column_blocks=column_blocks,
        taps=p.taps * parts(p), steps=steps, split_steps=split_steps, split_stride=product(p.out_shape) * parts(p),
        positions=p.positions, out1=p.out[1], out2=p.out[2], stride0=p.stride[0], stride1=p.stride[1],
        stride2=p.stride[2], map0=maps.start[0], map1=maps.start[1], map2=maps.start[2], out_parts=parts(p),
        window=product(p.kernel), x_start=source.start, x_batch=source.strides[0], x_group=p.C * source.strides[1],
        out_start=target.start, out_batch=target.strides[0], out_channel=target.strides[1], out_part=target.strides[2],
        **{f"out_stride{a}": s for a, s in enumerate(three(target.strides[3:], 0))}, bias_size=bias_size)
    to = target.flat if splits == 1 else sums.memory(real_dtype(problem))
    if kind == "half":                                            # as the bits that they are
        arrays = (x.memory(np.dtype("u2")), maps.index, taps, prepared.packed.memory(np.dtype("u4")), biases,
                  table(tuple(np.array(maps.fill, "f2").view("u2").tolist()), "u2"), to)
    else:
        arrays = (source.flat, maps.index, taps, prepared.packed.memory(), biases,
                  table(maps.fill, real_dtype(problem).str), to)
    blocks = p.groups * row_blocks * column_blocks * splits
    if kind:
        launch(im2col_tensor_kernel(kind, TENSOR_ROWS, TENSOR_COLUMNS, *WARPS), blocks, 32 * product(WARPS), out.stream,
               layout, *arrays)
    else:
        launch(im2col_tile_kernel(real_dtype(problem).name, ROWS, COLUMNS, PER_THREAD, THREADS), blocks, THREADS,
               out.stream, layout, *arrays)
    if splits > 1:
        launch(im2col_sum_kernel, ceil_div(out.size, 256), min(256, 8 * LANES), out.stream, sums.memory(), out.memory(),
               out.extent()[0], table((*out.shape, *(step // out.dtype.itemsize for step in out.strides))), out.size,
               splits)
    mend(problem, prepared.ends, x, bias, out)
