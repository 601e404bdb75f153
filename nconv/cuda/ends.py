"""Signals end where they end: an infinite tap adds nothing there, while the zeros of a padded signal make it NaN.

Nobody looks at a weight on the host, which would wait for the GPU. A kernel marks the filters that are not finite where
the weight is prepared; after each run another one sums the outputs of the marked ones anew, over the samples that
exist. Where none is marked, it has nothing to do.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numba
import numpy as np

from ..geometry import ceil_div, product
from ..problem import ConvProblem
from .arrays import engine_array, real_dtype, table
from .device import block_size, cuda, kernel, launch
from .views import DeviceArray, convert, empty

_THREADS = block_size(256)
_MOST_BLOCKS = 1024            # each takes several chunks of outputs: where nothing is marked, they start and end


class Ends(NamedTuple):
    """What is known of the filters of a problem with `ends`."""

    weight: DeviceArray        # (groups K, C, window), a copy
    marks: DeviceArray         # int32, one a filter: whether it is not finite


def watch(problem: ConvProblem, weight: DeviceArray) -> Ends | None:
    """Mark the filters that are not finite; None where that makes no difference."""
    if not problem.ends:
        return None
    copy = convert(weight, problem.engine)
    marks = empty((problem.groups * problem.K,), np.dtype("i4"), copy)
    real = copy.memory(real_dtype(problem))
    launch(ends_mark_kernel, marks.size, _THREADS, copy.stream, real, marks.memory(), real.size // marks.size)
    return Ends(copy, marks)


def mend(problem: ConvProblem, ends: Ends | None, x: DeviceArray, bias: DeviceArray | None, out: DeviceArray) -> None:
    """Sum the outputs of marked filters over the samples that exist."""
    if ends is None:
        return
    p = problem
    sizes = [step // x.dtype.itemsize for step in x.strides]
    places = [step // out.dtype.itemsize for step in out.strides]
    rows = (p.out, p.kernel, p.size, tuple(low for low, _ in p.padding), tuple(sizes[2:]), tuple(places[2:]))
    biases = table((0,), p.engine.str) if bias is None else engine_array(p, bias).memory()
    chunks = ceil_div(p.positions, _THREADS)
    launch(ends_sum_kernel(p.engine.name), min(p.N * p.groups * p.K * chunks, _MOST_BLOCKS), _THREADS, out.stream,
           table((p.N, p.groups, p.C, p.K, p.positions, product(p.kernel), chunks, x.extent()[0], *sizes[:2],
                  out.extent()[0], *places[:2], *sum(rows, ()))),
           ends.marks.memory(), x.memory(), ends.weight.memory(), biases, out.memory())


@kernel
def ends_mark_kernel(weight, marks, taps):
    """marks[k] = whether weight[k taps : (k + 1) taps] is not finite. Parallel over the filters, one a block.

    Race-free because one thread writes a block's mark.
    """
    odd = 0
    for i in range(cuda.threadIdx.x, taps, cuda.blockDim.x):
        value = weight[cuda.blockIdx.x * taps + i]
        if not value - value == 0:
            odd = 1
    odd = cuda.syncthreads_or(odd)
    if cuda.threadIdx.x == 0:
        marks[cuda.blockIdx.x] = 1 if odd else 0


@cache
def ends_sum_kernel(dtype_name: str):
    """The kernel for one type."""
    dtype = getattr(numba, dtype_name)

    @kernel
    def ends_sum_kernel(layout, marks, x, weight, bias, out):
        """out[n, k, p] = bias + sum over the taps that meet a sample, for marked k.

        Shapes: x (N, groups C, *size) and out (N, groups K, *out) by strides, weight [groups K, C, window]; layout
        holds thirteen numbers, then six rows of the axes: outputs, taps, samples, low padding, strides of x and of out.
        Parallel over (N, groups K, chunks of positions). Race-free because each output is one thread's.
        """
        N, groups, channels, out_channels, positions = layout[0], layout[1], layout[2], layout[3], layout[4]
        window, chunks = layout[5], layout[6]
        rank = (layout.size - 13) // 6
        marked = 0
        for i in range(cuda.threadIdx.x, marks.size, cuda.blockDim.x):
            marked |= marks[i]
        if not cuda.syncthreads_or(marked):
            return
        for unit in range(cuda.blockIdx.x, N * groups * out_channels * chunks, cuda.gridDim.x):
            k = unit // chunks % (groups * out_channels)
            position = unit % chunks * cuda.blockDim.x + cuda.threadIdx.x
            if marks[k] == 0 or position >= positions:
                continue
            n = unit // chunks // (groups * out_channels)
            total = bias[k % bias.size]
            for c in range(channels):
                base = layout[7] + n * layout[8] + (k // out_channels * channels + c) * layout[9]
                for tap in range(window):
                    o, r, at = position, tap, base
                    inside = True
                    for b in range(rank):
                        a = 13 + rank - 1 - b
                        i = o % layout[a] + r % layout[a + rank] - layout[a + 3 * rank]
                        inside = inside and 0 <= i < layout[a + 2 * rank]
                        at += i * layout[a + 4 * rank]
                        o //= layout[a]
                        r //= layout[a + rank]
                    if inside:
                        total += weight[(k * channels + c) * window + tap] * dtype(x[at])
            to = layout[10] + n * layout[11] + k * layout[12]
            rest = position
            for b in range(rank):
                a = 13 + rank - 1 - b
                to += rest % layout[a] * layout[a + 5 * rank]
                rest //= layout[a]
            out[to] = total

    return ends_sum_kernel
