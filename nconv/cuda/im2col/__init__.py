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

from ...geometry import ceil_div, product
from ...machine import machine
from ...problem import ConvProblem
from ..arrays import (
    OUTSIDE,
    Operand,
    address_maps,
    bias_vector,
    engine_array,
    in_three_axes,
    operand,
    parts,
    real_dtype,
    three,
)
from ..device import LANES, SIMULATED, device_cache, launch, table, upload
from ..ends import Ends, mend, watch
from ..views import DeviceArray, convert, empty, follow
from .tensor import WORDS, im2col_tensor_kernel
from .tiles import TAPS, PatchLayout, im2col_pack_kernel, im2col_sum_kernel, im2col_tile_kernel

# ------------------------------------------------------------------------------------------------- The choice

NAME = "im2col"
SUPPORTS = "up to three axes, every dtype; integers exactly"
REFERENCE = "Chetlur et al. 2014, cuDNN: Efficient Primitives for Deep Learning (arXiv 1410.0759), section 3.1"
PER_THREAD = 8                 # rows and columns of a thread
TILES = ((128, 128), (64, 128))            # output channels and positions of a block
TENSOR_WARPS = {True: (64, 32), False: (64, 16)}       # by whether a tiling is steady: else registers hold addresses
TENSOR_TILES = ((64, 128),)    # four small blocks wait for one another less than two large ones
if SIMULATED:                  # a thread is one of Python's: the same kernel with a smaller tile
    PER_THREAD = 4
    TILES = ((32, 32), (16, 32))
    TENSOR_WARPS = dict.fromkeys(TENSOR_WARPS, (16, 16))
    TENSOR_TILES = ((16, 16),)
BUSY, BUSY_TENSOR = 1.5 * 128 * 128, 2 * 128 * 128      # outputs of blocks with which a multiprocessor is busy
LEAST_STEPS = 16               # that a block takes where taps are split among blocks
MOST_SPLITS = 64


def why_not(problem: ConvProblem) -> str:
    """Every problem of up to three axes is supported."""
    return "more than three axes" if problem.rank > 3 else ""


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


class Tiling(NamedTuple):
    """How a problem is cut into blocks."""

    kind: str                  # of the tensor cores; empty: the ordinary units
    rows: int                  # output channels and positions of a block's tile
    columns: int
    row_blocks: int
    column_blocks: int
    step: int                  # taps of a step
    steps: int
    splits: int                # blocks among which the taps of a tile are split
    steady: bool               # whether a step lies at one place of the window
    seconds: float


def _tiling(problem: ConvProblem, rates) -> Tiling:
    """The tile, and among how many blocks its taps are split, so that the multiprocessors finish together.

    Few outputs with many taps are what a weight gradient has, and the last layers of a network. Each split sums into
    its own memory; a last kernel adds.
    """
    return _tiling_of(problem, rates, LEAST_STEPS)


@lru_cache(maxsize=1024)
def _tiling_of(problem: ConvProblem, rates, least: int) -> Tiling:
    kind = _tensor_kind(problem, rates)
    rows, columns = problem.K * parts(problem), problem.N * problem.positions
    depth, step = problem.C * parts(problem), _step(kind)
    steps = ceil_div(depth * product(problem.kernel), step)
    steady = parts(problem) == 1 and depth % step == 0 and product(problem.size) > 0
    rate = rates.flops(problem.engine, kind) * rates.efficiency[f"im2col_{kind}" if kind else "im2col"]
    moved = product(problem.out_shape) * problem.engine.itemsize
    needed = BUSY_TENSOR if kind else BUSY
    found = []
    for height, width in TENSOR_TILES if kind else _tiles(problem.engine):
        row_blocks, column_blocks = ceil_div(rows, height), ceil_div(columns, width)
        blocks = problem.groups * row_blocks * column_blocks
        for splits in range(1, max(1, min(MOST_SPLITS, steps // least)) + 1):
            at_once = max(ceil_div(blocks * splits, rates.processors), needed / (height * width))
            seconds = 2 * at_once * rates.processors * height * width * ceil_div(steps, splits) * step / rate
            if splits > 1:
                seconds += 2 * splits * moved / rates.bandwidth + rates.launch
            found.append(Tiling(kind, height, width, row_blocks, column_blocks, step, steps, splits, steady, seconds))
    return min(found, key=lambda tiling: tiling.seconds)


def _tiles(dtype: np.dtype) -> tuple[tuple[int, int], ...]:
    """The small one gathers twice as much a thread, for which whole numbers of 8 bytes leave too few registers."""
    return TILES[:1] if dtype == np.int64 else TILES


def cost(problem: ConvProblem, machine) -> float:
    """Multiplications of whole tiles, as long as the busiest multiprocessor takes, or the traffic if that is longer."""
    moved = (product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize
    return max(_tiling(problem, machine).seconds, moved / machine.bandwidth) + machine.launch


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight and the tables."""
    tiling = _tiling(problem, machine)
    taps = tiling.steps * tiling.step
    weight = problem.groups * taps * tiling.row_blocks * tiling.rows * real_dtype(problem).itemsize
    sums = tiling.splits * product(problem.out_shape) * problem.engine.itemsize if tiling.splits > 1 else 0
    return weight + 32 * (taps + tiling.step) + 8 * sum(problem.reach) + sums


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
    tiling = _tiling(problem, machine("cuda"))
    half = tiling.kind == "half"
    padded = tiling.steps * tiling.step
    packed = empty((problem.groups * tiling.row_blocks * padded * tiling.rows,),
                   problem.dtype if half else real_dtype(problem), dense)
    launch(im2col_pack_kernel, ceil_div(packed.size, 256), min(256, 8 * LANES), packed.stream,
           dense.memory(real_dtype(problem)), packed.memory(), problem.K, problem.C, product(problem.kernel),
           parts(problem), tiling.row_blocks, padded, tiling.rows, 2 if half else 1)
    return Prepared(packed, watch(problem, dense))


@device_cache(256)
def _taps(problem: ConvProblem, tiling: Tiling, x_channel: int, x_part: int):
    """[taps, 4] on the device: offset of the channel in memory, then of the window's tap in the map of each axis.

    In a steady tiling [steps, 4], of the first tap of each. One more step stands behind the last: kernels look ahead.
    """
    p = in_three_axes(problem)
    channels = [c * x_channel + part * x_part for c in range(p.C) for part in range(parts(p))]
    window = [[r * d for r in range(k)] for k, d in zip(p.kernel, p.dilation, strict=True)]
    grid = np.stack(np.meshgrid(*window, channels, indexing="ij"), -1).reshape(-1, 4)[:, [3, 0, 1, 2]]
    beyond = np.zeros(((tiling.steps + 1) * tiling.step - len(grid), 4))
    beyond[:, 0] = OUTSIDE
    entries = np.concatenate([grid, beyond]).astype(np.int64)
    return upload(entries[::tiling.step if tiling.steady else 1].ravel())


def run(problem: ConvProblem, prepared: Prepared, x: DeviceArray, bias: DeviceArray | None,
        out: DeviceArray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    p = in_three_axes(problem)
    follow(out.stream, prepared.packed, x, bias)
    tiling = _tiling(problem, machine("cuda"))
    kind = tiling.kind
    split_steps = ceil_div(tiling.steps, tiling.splits)
    splits = ceil_div(tiling.steps, split_steps)
    sums = out if splits == 1 else empty((splits, *problem.out_shape), problem.engine, out)
    if kind == "half" and x.dtype != problem.dtype:               # a narrow integer, which float16 holds
        x = convert(x, problem.dtype)
    source, target = operand(x), operand(out if splits == 1 else sums[0])
    maps = address_maps(p, three(source.strides[3:], 0))
    taps = _taps(problem, tiling, source.strides[1], source.strides[2])
    biases, bias_size = bias_vector(problem, bias)
    out_strides = three(target.strides[3:], 0)
    layout = PatchLayout(
        groups=p.groups, rows=p.K * parts(p), row_blocks=tiling.row_blocks, columns=p.N * p.positions,
        column_blocks=tiling.column_blocks, taps=p.taps * parts(p), steps=tiling.steps, split_steps=split_steps,
        split_stride=product(p.out_shape) * parts(p), positions=p.positions, out1=p.out[1], out2=p.out[2],
        stride0=p.stride[0], stride1=p.stride[1], stride2=p.stride[2], map0=maps.start[0], map1=maps.start[1],
        map2=maps.start[2], out_parts=parts(p), x_start=source.start, x_batch=source.strides[0],
        x_group=p.C * source.strides[1], x_channel=source.strides[1], out_start=target.start,
        out_batch=target.strides[0], out_channel=target.strides[1], out_part=target.strides[2],
        **{f"out_stride{a}": s for a, s in enumerate(out_strides)}, bias_size=bias_size,
        quads=_in_quads(p, target, sums))
    to = target.flat if splits == 1 else sums.memory(real_dtype(problem))
    if kind == "half":                                            # as the bits that they are
        arrays = (x.memory(np.dtype("u2")), maps.index, taps, prepared.packed.memory(np.dtype("u4")), biases,
                  table(tuple(np.array(maps.fill, "f2").view("u2").tolist()), "u2"), to)
    else:
        arrays = (source.flat, maps.index, taps, prepared.packed.memory(), biases,
                  table(maps.fill, real_dtype(problem).str), to)
    blocks = p.groups * tiling.row_blocks * tiling.column_blocks * splits
    if kind:
        warp = TENSOR_WARPS[tiling.steady]
        warps = tiling.rows // warp[0], tiling.columns // warp[1]
        launch(im2col_tensor_kernel(kind, tiling.steady, *warp, *warps), blocks, 32 * product(warps), out.stream,
               layout, *arrays)
    else:
        launch(im2col_tile_kernel(real_dtype(problem).name, tiling.steady, tiling.rows, tiling.columns, PER_THREAD),
               blocks, tiling.rows * tiling.columns // PER_THREAD ** 2, out.stream, layout, *arrays)
    if splits > 1:
        steps = tuple(step // out.dtype.itemsize for step in out.strides)
        launch(im2col_sum_kernel, ceil_div(out.size, 256), min(256, 8 * LANES), out.stream, sums.memory(), out.memory(),
               out.extent()[0], table((out.size, 1) if out.contiguous else (*out.shape, *steps)), out.size, splits)
    mend(problem, prepared.ends, x, bias, out)


def _in_quads(p: ConvProblem, target: Operand, sums: DeviceArray) -> bool:
    """Whether four neighbouring positions always lie side by side in the output, at a multiple of their length."""
    s0, s1, s2 = three(target.strides[3:], 0)
    side_by_side = s2 == 1 and (p.out[1] == 1 or s1 == p.out[2]) and (p.out[0] == 1 or s0 == p.out[1] * p.out[2])
    return side_by_side and parts(p) == 1 and sums.pointer % 16 == 0 and not any(
        n % 4 for n in (p.positions, target.start, *target.strides[:2]))
