"""Direct convolution on a GPU: every thread sums its outputs' products where they are.

Windows that see one channel (images, volumes, depthwise layers, filters of signals) have two kernels. Small windows
are read straight from global memory (`rows`): a thread has up to 16 rows of one column, and an element that it loads
serves every row of the window. Large windows and signals run from tiles with halos in shared memory (`tiles`). All else
runs from global memory, several output channels a thread, in any number of axes (`each`): the other algorithms are
measured by it, and it takes what they refuse.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ...geometry import ceil_div, product
from ...problem import ConvProblem
from ..arrays import address_maps, engine_array, three
from ..device import block_size, device_cache, launch, table
from ..ends import Ends, mend, watch
from ..views import DeviceArray, empty, follow
from .axes import RUN, axis_maps, is_line, three_axes
from .each import EACH_CHANNELS, direct_each_kernel, direct_pack_kernel, each_layout
from .rows import rows_layout
from .shapes import tile_layout

# ------------------------------------------------------------------------------------------------- The choice

NAME = "direct"
SUPPORTS = "every problem, every dtype; integers exactly"
REFERENCE = "Podlozhnyuk 2007, Image Convolution with CUDA: tiles with halos in shared memory"
_THREADS = block_size(256)
_ROWS_WINDOW = 20              # taps of a plane's window up to which no tile is needed
_ROWS_PLANE = 700              # outputs of a plane that are too few for a tile, whose smallest has 900


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
    # What is read first and then used takes both times, as measured on an H200.
    return (max(work, moved) if way == "each" else work + moved) + machine.launch


def workspace(problem: ConvProblem, machine) -> int:
    """The packed weight."""
    return (product(problem.weight_shape) + EACH_CHANNELS * problem.groups) * problem.engine.itemsize


def error(problem: ConvProblem) -> float:
    """The direct method is the measure of the others."""
    return 1.0


@lru_cache(maxsize=1024)
def _way(problem: ConvProblem) -> str:
    """The kernel: "each", but where few outputs share an input element but through the window "tile" or "rows"."""
    p = problem
    if p.rank > 3 or p.C * p.K > 4 or 0 in p.size or p.N * p.groups * p.K * p.positions >= 1 << 31:
        return "each"
    if is_line(p):
        return "tile"
    window = three_axes(p, p.kernel)
    slides = three_axes(p, p.stride)[1] == three_axes(p, p.dilation)[1]
    small = window[1] * window[2] <= _ROWS_WINDOW or product(three_axes(p, p.out)[1:]) <= _ROWS_PLANE
    return "rows" if not slides or small or p.channels_last else "tile"


class Prepared(NamedTuple):
    """The weight as [groups, blocks of output channels, channels, taps, channels of a block]; see `ends`."""

    packed: DeviceArray
    ends: Ends | None


def prepare(problem: ConvProblem, weight: DeviceArray) -> Prepared:
    """Pack the weight."""
    way = _way(problem)
    dense = engine_array(problem, weight)
    together = way == "rows" and problem.channels_last
    groups, K = (1, problem.groups * problem.K) if together else (problem.groups, problem.K)
    M = K if together else EACH_CHANNELS if way == "each" else 1
    taps = product(problem.kernel)
    blocks = ceil_div(K, M)
    packed = empty((groups * blocks * problem.C * taps * M,), problem.engine, dense)
    launch(direct_pack_kernel, ceil_div(packed.size, _THREADS), _THREADS, packed.stream, dense.memory(),
           packed.memory(), K, problem.C * taps, blocks, M)
    return Prepared(packed, watch(problem, weight))


class Launch(NamedTuple):
    """What all calls of a problem share that find their arrays laid out alike."""

    kernel: Any
    blocks: int
    threads: int
    shared: int
    layouts: tuple             # the kernel's first arguments
    maps: Any
    fill: Any


@device_cache(1024)
def _launch_of(problem: ConvProblem, x_start: int, x_strides: tuple[int, ...], out_start: int,
               out_strides: tuple[int, ...], biased: bool, same: bool) -> Launch:
    """Starts and strides are those of the arrays, in elements; `same`: x has the engine's type."""
    common = {"x_start": x_start, "x_batch": x_strides[0], "x_channel": x_strides[1], "out_start": out_start,
              "out_batch": out_strides[0], "out_channel": out_strides[1]}
    way, fill = _way(problem), problem.engine.type(problem.fill)
    if way == "each":
        layout, outer = each_layout(problem)
        blocks = problem.N * problem.groups * layout.blocks * ceil_div(problem.positions, _THREADS)
        layouts = (layout._replace(**common, bias_size=problem.groups * problem.K if biased else 1),
                   table(outer + three(out_strides[2:], 0)))
        return Launch(direct_each_kernel(problem.engine.name, EACH_CHANNELS), blocks, _THREADS, 0, layouts,
                      address_maps(problem, x_strides[2:]).index, fill)
    maps = axis_maps(problem, x_strides[2:])
    common["x_start"] += maps.before
    common |= dict(zip(("out_stride0", "out_stride1", "out_stride2"), three_axes(problem, out_strides[2:], 0),
                       strict=True))
    if way == "rows":
        layout, kernel, blocks, threads, shared = rows_layout(problem, maps.index)
    else:
        layout, kernel, blocks, threads, shared = tile_layout(problem, maps.index, same)
        for axis, run in enumerate(maps.runs[1:], 1):
            common |= {f"{name}{axis}": value for name, value in zip(RUN, run, strict=True)}
    layout = layout._replace(**common, bias_step=int(biased))
    return Launch(kernel, blocks, threads, shared, (layout,), maps.places, fill)


def run(problem: ConvProblem, prepared: Prepared, x: DeviceArray, bias: DeviceArray | None,
        out: DeviceArray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    follow(out.stream, prepared.packed, x, bias)
    biases = table((0,), problem.engine.str) if bias is None else engine_array(problem, bias).memory()
    strides = [tuple([step // array.dtype.itemsize for step in array.strides]) for array in (x, out)]
    how = _launch_of(problem, x.extent()[0], strides[0], out.extent()[0], strides[1], bias is not None,
                     x.dtype == problem.engine)
    launch(how.kernel, how.blocks, how.threads, out.stream, *how.layouts, x.memory(), how.maps,
           prepared.packed.memory(), biases, out.memory(), how.fill, shared=how.shared)
    mend(problem, prepared.ends, x, bias, out)
