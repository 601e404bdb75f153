"""Convolution as a matrix product on a GPU in which the matrix of patches is never stored: an implicit GEMM.

[output channels x taps] [taps x positions] for each group. A block sums a tile of some 128 x 128; its threads gather
the patches of the next taps into registers while they multiply those in shared memory. An element of the patches is
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
from ..device import SIMULATED, device_cache, launch, launch_over, table, upload
from ..ends import Ends, mend, watch
from ..mma import WORDS
from ..views import DeviceArray, convert, empty, follow
from .tensor import CHUNK, im2col_fragment_kernel, im2col_tensor_kernel, together
from .tiles import (
    TAPS,
    PatchLayout,
    im2col_pack_kernel,
    im2col_sum_kernel,
    im2col_sum_quads_kernel,
    im2col_tile_kernel,
)

# ------------------------------------------------------------------------------------------------- The choice

NAME = "im2col"
SUPPORTS = "up to three axes, every dtype; integers exactly"
REFERENCE = "Chetlur et al. 2014, cuDNN: Efficient Primitives for Deep Learning (arXiv 1410.0759), section 3.1"
PER_THREAD = 8                 # rows and columns of a thread
TILES = ((128, 128), (64, 128))            # output channels and positions of a block


class Warps(NamedTuple):
    """How the warps of a block share its tile."""

    height: int                # of a warp's part
    width: int
    down: int
    across: int
    resident: int              # blocks that a multiprocessor holds at once


TENSOR_TILES = {               # by whether four warps multiply together
    True: {(256, 128): Warps(32, 128, 8, 1, 1), (128, 64): Warps(32, 64, 4, 1, 3), (64, 128): Warps(16, 128, 4, 1, 3)},
    False: {(128, 128): Warps(32, 64, 4, 2, 1), (64, 128): Warps(64, 32, 1, 4, 2)},
}
if SIMULATED:                  # a thread is one of Python's: the same kernel with a smaller tile
    PER_THREAD = 4
    TILES = ((32, 32), (16, 32))
    TENSOR_TILES = dict.fromkeys(TENSOR_TILES, {(16, 16): Warps(16, 16, 1, 1, 1)})
BUSY = 1.5 * 128 * 128         # outputs of blocks with which a multiprocessor is busy, on the ordinary units
BUSY_BLOCKS = 0.8              # share of the blocks that it holds with which it is busy, on the tensor cores
GATHER = 40                    # rows that the tensor cores multiply in the time in which a column is gathered
LEAD = 7                       # steps in the time in which a block starts and ends
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
    return WORDS * together(kind) if kind else TAPS


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
    steady = parts(problem) == 1 and depth % step == 0 and product(problem.size) > 0
    chunk = CHUNK * together(kind) if kind else 1
    steps = ceil_div(ceil_div(depth, chunk) * chunk * product(problem.kernel), step)
    rate = rates.flops(problem.engine, kind) * rates.efficiency[f"im2col_{kind}" if kind else "im2col"]
    moved = product(problem.out_shape) * problem.engine.itemsize
    warps = TENSOR_TILES[rates.warp_groups] if kind else {}
    found = []
    for height, width in warps or _tiles(problem.engine):
        row_blocks, column_blocks = ceil_div(rows, height), ceil_div(columns, width)
        blocks = problem.groups * row_blocks * column_blocks
        fewest = BUSY_BLOCKS * warps[height, width].resident if kind else BUSY / (height * width)
        work = 2 * width * (height + GATHER if kind else height) * step * rates.processors / rate
        for splits in range(1, max(1, min(MOST_SPLITS, steps // least)) + 1):
            seconds = max(ceil_div(blocks * splits, rates.processors), fewest) * work * (
                ceil_div(steps, splits) + (LEAD if kind else 0))
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

    For the tensor cores as `im2col_fragment_kernel` packs it.
    """

    packed: DeviceArray
    ends: Ends | None


def prepare(problem: ConvProblem, weight: DeviceArray) -> Prepared:
    """Pack the weight."""
    dense = engine_array(problem, weight)
    tiling = _tiling(problem, machine("cuda"))
    padded = tiling.steps * tiling.step
    packed = empty((problem.groups * tiling.row_blocks * padded * tiling.rows,),
                   problem.dtype if tiling.kind == "half" else real_dtype(problem), dense)
    arrays = dense.memory(real_dtype(problem)), packed.memory()
    sizes = problem.K, problem.C, product(problem.kernel)
    if tiling.kind:
        launch_over(im2col_fragment_kernel(tiling.kind), packed.size, packed.stream, *arrays, *sizes,
                    tiling.row_blocks, tiling.steps * WORDS // 8, tiling.rows, _width(problem, tiling))
    else:
        launch_over(im2col_pack_kernel, packed.size, packed.stream, *arrays, *sizes, parts(problem),
                    tiling.row_blocks, padded, tiling.rows)
    return Prepared(packed, watch(problem, dense))


def _width(problem: ConvProblem, tiling: Tiling) -> int:
    """Channels that the tensor cores' kernel takes at each place of the window before it goes to the next place.

    Those of a step, where they divide the channels: the window's places then read what the last one left in the cache.
    """
    chunk = CHUNK * together(tiling.kind)
    return tiling.step if tiling.steady else ceil_div(problem.C, chunk) * chunk


@device_cache(256)
def _chunks(problem: ConvProblem, tiling: Tiling):
    """What `_taps` is to the other kernel: [steps, 4] in a steady tiling, of the first tap of each, else [chunks, 4].

    The first number is a channel; of a chunk, 16 times it plus how many channels there are, and 0 beyond the last. More
    entries stand behind the last, for the kernel looks ahead.
    """
    p = in_three_axes(problem)
    width, chunk = _width(problem, tiling), CHUNK * together(tiling.kind)
    first = np.arange(0, tiling.steps * tiling.step, tiling.step if tiling.steady else chunk)
    window = product(p.kernel)
    c = first // width // window * width + first % width
    place = np.unravel_index(first // width % window, p.kernel)
    count = np.clip(p.C - c, 0, chunk)
    entries = np.stack([c if tiling.steady else 16 * c + count,
                        *(r * d for r, d in zip(place, p.dilation, strict=True))], -1)
    return upload(np.pad(np.where(count > 0, entries.T, 0).T, ((0, WORDS // CHUNK), (0, 0))).astype(np.int32).ravel())


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
    taps = (_chunks(problem, tiling) if kind else
            _taps(problem, tiling, source.strides[1], source.strides[2]))
    biases, bias_size = bias_vector(problem, bias)
    out_strides = three(target.strides[3:], 0)
    layout = PatchLayout(
        groups=p.groups, rows=p.K * parts(p), row_blocks=tiling.row_blocks, columns=p.N * p.positions,
        column_blocks=tiling.column_blocks, taps=p.taps * parts(p), steps=tiling.steps, split_steps=split_steps,
        place_steps=max(1, p.C * parts(p) // tiling.step),
        split_stride=product(p.out_shape) * parts(p), positions=p.positions, out1=p.out[1], out2=p.out[2],
        stride0=p.stride[0], stride1=p.stride[1], stride2=p.stride[2], map0=maps.start[0], map1=maps.start[1],
        map2=maps.start[2], out_parts=parts(p), x_start=source.start, x_batch=source.strides[0],
        x_group=p.C * source.strides[1], x_channel=source.strides[1], out_start=target.start,
        out_batch=target.strides[0], out_channel=target.strides[1], out_part=target.strides[2],
        **{f"out_stride{a}": s for a, s in enumerate(out_strides)}, bias_size=bias_size,
        quads=_in_quads(p, target, sums))
    to = target.flat if splits == 1 else sums.memory(real_dtype(problem))
    if kind:                                                      # as the bits that they are
        bits = np.dtype(f"u{x.dtype.itemsize}")
        arrays = (x.memory(bits), maps.index, taps, prepared.packed.memory(np.dtype("u4")), biases,
                  table(tuple(np.array((*maps.fill, 0), x.dtype).view(bits).tolist()), bits.str), to)
    else:
        arrays = (source.flat, maps.index, taps, prepared.packed.memory(), biases,
                  table(maps.fill, real_dtype(problem).str), to)
    blocks = p.groups * tiling.row_blocks * tiling.column_blocks * splits
    if kind:
        group = machine("cuda").warp_groups
        warps = TENSOR_TILES[group][tiling.rows, tiling.columns]
        launch(im2col_tensor_kernel(kind, tiling.steady, group, *warps), blocks, 32 * warps.down * warps.across,
               out.stream, layout, *arrays)
    else:
        launch(im2col_tile_kernel(real_dtype(problem).name, tiling.steady, tiling.rows, tiling.columns, PER_THREAD),
               blocks, tiling.rows * tiling.columns // PER_THREAD ** 2, out.stream, layout, *arrays)
    if splits > 1:
        _add(problem, sums, out, splits)
    mend(problem, prepared.ends, x, bias, out)


def _add(problem: ConvProblem, sums: DeviceArray, out: DeviceArray, splits: int) -> None:
    """out = the sum over the splits."""
    count = out.size * parts(problem)
    if out.contiguous and count % 4 == 0 and out.pointer % 16 == 0:
        real = np.empty(0, out.dtype).real.dtype
        launch_over(im2col_sum_quads_kernel, count // 4, out.stream, sums.memory(real_dtype(problem)), out.memory(real),
                    count, splits)
    else:
        steps = tuple(step // out.dtype.itemsize for step in out.strides)
        launch_over(im2col_sum_kernel, out.size, out.stream, sums.memory(), out.memory(), out.extent()[0],
                    table((*out.shape, *steps)), out.size, splits)


def _in_quads(p: ConvProblem, target: Operand, sums: DeviceArray) -> bool:
    """Whether four neighbouring positions always lie side by side in the output, at a multiple of their length."""
    s0, s1, s2 = three(target.strides[3:], 0)
    side_by_side = s2 == 1 and (p.out[1] == 1 or s1 == p.out[2]) and (p.out[0] == 1 or s0 == p.out[1] * p.out[2])
    return side_by_side and parts(p) == 1 and sums.pointer % 16 == 0 and not any(
        n % 4 for n in (p.positions, target.start, *target.strides[:2]))
