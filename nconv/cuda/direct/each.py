"""The kernel of everything: several output channels a thread, straight from global memory, in any number of axes."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numba

from ...geometry import ceil_div, product
from ...problem import ConvProblem
from ..arrays import OUTSIDE, three
from ..device import cuda, kernel

EACH_CHANNELS = 4              # output channels of a thread
BEYOND = OUTSIDE // 2          # no address, but a sum with OUTSIDE in it


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


@lru_cache(maxsize=256)
def each_layout(problem: ConvProblem) -> tuple[EachLayout, tuple]:
    """(layout, rows of the axes before the last three: outputs, taps, strides, dilations, where their maps begin)."""
    p = problem
    starts = [sum(p.reach[:a]) for a in range(p.rank)]
    outer = max(p.rank - 3, 0)
    kernel, stride, dilation = three(p.kernel[-3:]), three(p.stride[-3:]), three(p.dilation[-3:])
    begin = three(tuple(starts[-3:]), -1)
    rows = (p.out[:outer], p.kernel[:outer], p.stride[:outer], p.dilation[:outer], tuple(starts[:outer]))
    layout = EachLayout(
        p.groups, p.C, p.K, ceil_div(p.K, EACH_CHANNELS), outer, product(p.kernel[:outer]), p.positions,
        *three(p.out[-3:]), *kernel, *stride, *dilation, *begin, *(0,) * 7)
    return layout, sum(rows, ())


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
