"""Winograd's transforms of one tile of many channels, and of the windows. Vectors run along channels."""

from __future__ import annotations

import numpy as np

from ....geometry import share_start
from ....jit import compiled, inner_kernel, parallel_kernel, prange
from ...simd import copy, lanes_of, splat, vload, vstore
from .passes import Lines, forward_pass, inverse_pass

share_start_ = compiled(share_start)
_RUN = 8                       # channels of transformed weights that are brought to their places at once


@inner_kernel
def winograd_forward_kernel(layout, block, at, buffer, begin, spare):
    """One vector of channels of one tile: buffer [rows, width, chunk] from `begin` on to the block's matrices."""
    lanes = lanes_of(buffer)
    axes = layout.grid.size
    outer, inner = layout.rows, axes // axes            # a literal one would compile the passes twice
    for b in range(axes):                               # from the last axis to the first
        a = axes - 1 - b
        n = layout.extent[a]
        outer //= n if b else 1
        target, source = block if a == 0 else spare, spare if b else buffer
        aside = Lines(begin * 0, inner * lanes, n * inner * lanes, lanes)
        to = Lines(at, inner * layout.x_step, n * 0, layout.x_step) if a == 0 else aside
        by = aside if b else Lines(begin, layout.chunk, layout.width * layout.chunk, n * 0)
        forward_pass(n, target, to, source, by, outer, inner)
        inner *= n


@inner_kernel
def winograd_inverse_kernel(layout, outputs, at, products, begin, spare, bias, first):
    """One vector of output channels of one tile: products to outputs [rows of outputs, width, lanes], plus bias."""
    lanes = lanes_of(products)
    start = vload(bias, first)
    last = layout.grid.size - 1
    outer, inner = layout.elements // layout.elements, layout.elements     # as above
    for a in range(last + 1):
        n, m = layout.extent[a], layout.valid[a]
        inner //= n
        target, source = outputs if a == last else spare, spare if a else products
        by = Lines(begin * 0, inner * lanes, n * inner * lanes, lanes) if a else Lines(
            begin, inner * layout.y_step, n * 0, layout.y_step)
        to = Lines(at, lanes, lanes * layout.run * layout.valid[last], n * 0) if a == last else Lines(
            at * 0, inner * lanes, m * inner * lanes, lanes)
        inverse_pass(n, m, target, to, source, by, outer, inner, start if a == last else start - start)
        outer *= m


@inner_kernel
def winograd_line_kernel(there, to, here, at, step, matrices, m, n, r):
    """n vectors, `step` apart from there[to:] on, = the matrix [n, r] at matrices[m:] times r vectors of here[at:]."""
    if r == 3:                                             # as nearly all windows: these stay in registers
        a, b, c = vload(here, at), vload(here, at + step), vload(here, at + 2 * step)
        for k in range(n):
            vstore(there, to + k * step, splat(matrices[m + 3 * k]) * a + splat(matrices[m + 3 * k + 1]) * b
                   + splat(matrices[m + 3 * k + 2]) * c)
        return
    for k in range(n):
        total = splat(matrices[m + k * r]) * vload(here, at)
        for j in range(1, r):
            total = total + splat(matrices[m + k * r + j]) * vload(here, at + j * step)
        vstore(there, to + k * step, total)


@parallel_kernel
def winograd_weight_kernel(packed, extent, window, matrices, starts, channels, vector, weight, threads):
    """weight [blocks, elements, channels, vector] = G of every axis times packed [blocks, channels, window, vector].

    Parallel over (blocks, channels). Race-free because each pair of them is written by one thread.
    """
    lanes = lanes_of(packed)
    axes = extent.size
    taps, elements = 1, 1
    for a in range(axes):
        taps *= window[a]
        elements *= extent[a]
    items = packed.size // (taps * vector)
    for thread in prange(threads):
        here = np.empty(elements * lanes, packed.dtype)
        there = np.empty(elements * lanes, packed.dtype)
        run = np.empty(elements * _RUN * vector, packed.dtype)
        end = share_start_(items, threads, thread + 1)
        first = share_start_(items, threads, thread)
        while first < end:
            # Elements lie pages apart, in few places of the nearest cache: a run of channels is brought there at once.
            count = min(_RUN, end - first, channels - first % channels)
            for at in range(0, count * vector, lanes):
                item, v = first + at // vector, at % vector
                for t in range(taps):
                    vstore(here, t * lanes, vload(packed, (item * taps + t) * vector + v))
                outer, inner = taps, 1
                for b in range(axes):
                    a = axes - 1 - b
                    n, r = extent[a], window[a]
                    outer //= r
                    for o in range(outer):
                        for i in range(inner):
                            winograd_line_kernel(there, (o * n * inner + i) * lanes, here, (o * r * inner + i) * lanes,
                                                 inner * lanes, matrices, starts[a], n, r)
                    inner *= n
                    here, there = there, here
                for e in range(elements):
                    vstore(run, e * count * vector + at, vload(here, e * lanes))
            target = (first // channels * elements * channels + first % channels) * vector
            for e in range(elements):
                copy(weight, target + e * channels * vector, run, e * count * vector, count * vector)
            first += count
