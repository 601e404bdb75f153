"""Overlap-save in blocks of shared memory: gather, transform, multiply, transform back, store.

A window longer than a block allows is cut into parts; block b of the output then sums the products of part j of the
window with block b + j of the input (uniformly partitioned convolution), and channels are summed likewise. Each thread
has the same points of a block in registers before the first pass and behind the last one, where products are taken
(`points`).
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np
from numba import int32, int64

from ..device import cuda, kernel
from ..ptx import behind, load, quotient, store
from .boxes import Lengths
from .loudness import largest
from .passes import divide
from .points import (
    block_functions,
    block_of,
    layout_of,
    put_of,
    read_of,
    resident,
    take_of,
    to_of,
    x_block_of,
)
from .samples import outside, sample


@cache
def weight_kernel(dtype_name: str, lengths: Lengths):
    """The kernel of the window's spectra for one type and one shape of block."""
    dtype, points, threads, numbers, forward, _, keep, _, _ = block_functions(dtype_name, lengths)
    LARGE = dtype(largest(np.dtype(dtype_name)))
    log1, log2 = (n.bit_length() - 1 for n in lengths[1:])
    mask0, mask1, mask2 = (n - 1 for n in lengths)
    take = take_of(lengths, numbers // 2)

    @kernel(bounds=(threads, 1))
    def fft_weight_kernel(table, turns, weight, spectra, strange):
        """Spectra of the window's parts, reversed in time: a correlation becomes a product.

        Shapes: weight (groups K, C, window, parts), spectra [groups K, C, pieces, points, 2], strange [groups K].
        Parallel over (groups K, C, pieces). Race-free because a block writes its own spectrum, and all write the same
        into `strange`.
        """
        layout = layout_of(table)
        shared = cuda.shared.array(0, dtype)
        values = cuda.local.array(numbers, dtype)
        thread = int32(cuda.threadIdx.x)
        parts = 2 if layout.second == 2 else 1
        pair, piece = divide(cuda.blockIdx.x, layout.pieces0 * layout.pieces1 * layout.pieces2)
        rest, first2 = divide(piece, layout.pieces2)
        first0, first1 = divide(rest, layout.pieces1)
        first0, first1, first2 = first0 * layout.chunk0, first1 * layout.chunk1, first2 * layout.chunk2
        for i in range(thread, 2 * points, threads):
            shared[i] = 0
        cuda.syncthreads()
        odd = 0
        for i in range(thread, layout.chunk0 * layout.chunk1 * layout.chunk2, threads):
            rest, r2 = divide(i, layout.chunk2)
            r0, r1 = divide(rest, layout.chunk1)
            inside = first0 + r0 < layout.kernel0 and first1 + r1 < layout.kernel1 and first2 + r2 < layout.kernel2
            if inside:
                at = ((pair * layout.kernel0 + first0 + r0) * layout.kernel1 + first1 + r1) * layout.kernel2
                at = (at + first2 + r2) * parts
                to = int32(-r0 * layout.dilation0 & mask0) << log1
                to = int32(to + (-r1 * layout.dilation1 & mask1)) << log2
                to = 2 * int32(to + (-r2 * layout.dilation2 & mask2))
                re = weight[at]
                im = weight[at + 1] if parts == 2 else dtype(0)
                shared[to] = re
                shared[to + 1] = im
                if not (abs(re) <= LARGE and abs(im) <= LARGE):
                    odd = 1
        if odd:
            strange[divide(pair, layout.channels)[0]] = 1
        cuda.syncthreads()
        take(values, shared, thread)
        cuda.syncthreads()
        forward(values, shared, turns, thread)
        keep(values, spectra, cuda.blockIdx.x, thread)

    return fft_weight_kernel


@cache
def forward_kernel(dtype_name: str, index: str, lengths: Lengths):
    """The kernel of the input's spectra for one type, one type of places and one shape of block."""
    dtype, _, threads, numbers, forward, _, keep, _, _ = block_functions(dtype_name, lengths)
    read = read_of(lengths, dtype_name, index)

    @kernel(bounds=(threads, resident(lengths, dtype.bitwidth // 8, index)))
    def fft_forward_kernel(table, asked, turns, x, maps, fill, spectra, strange):
        """Spectra of the input's blocks.

        Shapes: spectra [N, groups C, blocks, points, 2], strange [N, groups C, blocks]. Parallel over
        (N, groups C, blocks). Race-free because a block writes its own spectrum and mark.
        """
        if asked[0] == 0:
            return
        layout = layout_of(table)
        shared = cuda.shared.array(0, dtype)
        values = cuda.local.array(numbers, dtype)
        thread = int32(cuda.threadIdx.x)
        n, c, b0, b1, b2 = x_block_of(layout, cuda.blockIdx.x)
        base = layout.x_start + n * layout.x_batch + c * layout.x_channel
        read(values, layout, x, maps, fill, base, b0, b1, b2, strange, thread)
        forward(values, shared, turns, thread)
        keep(values, spectra, cuda.blockIdx.x, thread)

    return fft_forward_kernel


@cache
def product_kernel(dtype_name: str, index: str, lengths: Lengths, strided: bool):
    """The kernel of products and the way back for one type, one type of places and one shape of block."""
    dtype, _, threads, numbers, _, back, _, _, add = block_functions(dtype_name, lengths)
    put = put_of(lengths, dtype_name, index, strided)

    @kernel(bounds=(threads, resident(lengths, dtype.bitwidth // 8, index, strided)))
    def fft_product_kernel(table, asked, turns, spectra, kernels, bias, x_strange, strange, out):
        """Products of spectra summed over channels and parts of the window in registers, back, and stored.

        Shapes: as the two kernels before; out (N, groups K, *out) by strides, strange [N, groups K, blocks]: whether
        any of the input's blocks has a mark. Parallel over (N, groups K, blocks). Race-free because each output is one
        block's.
        """
        if asked[0] == 0:
            return
        layout = layout_of(table)
        shared = cuda.shared.array(0, dtype)
        values = cuda.local.array(numbers, dtype)
        thread = int32(cuda.threadIdx.x)
        n, k_all, b0, b1, b2 = block_of(layout, cuda.blockIdx.x)
        g = divide(k_all, layout.out_channels)[0]
        wide = int32(layout.grid2 + layout.pieces2 - 1)
        high = int32(layout.grid1 + layout.pieces1 - 1)
        deep = int32(layout.grid0 + layout.pieces0 - 1)
        pieces = int32(layout.pieces0 * layout.pieces1 * layout.pieces2)
        channels = int32(layout.channels)
        odd = int32(0)
        for i in range(numbers):
            values[i] = 0
        for item in range(channels * pieces):
            c, piece = divide(item, pieces)
            rest, z2 = divide(piece, layout.pieces2)
            z0, z1 = divide(rest, layout.pieces1)
            z = (int64((n * layout.groups + g) * channels + c) * deep + b0 + z0) * high + b1 + z1
            z = z * wide + b2 + z2
            odd |= x_strange[z]
            add(values, spectra, z, kernels, int64(k_all) * (channels * pieces) + item, thread)
        if thread == 0:
            strange[cuda.blockIdx.x] = odd
        back(values, shared, turns, thread)
        put(values, layout, bias, out, thread)

    return fft_product_kernel


@cache
def block_kernel(dtype_name: str, index: str, lengths: Lengths, strided: bool):
    """The kernel that does all, for one type, one type of places and one shape of block."""
    dtype, _, threads, numbers, forward, back, _, times, _ = block_functions(dtype_name, lengths)
    read = read_of(lengths, dtype_name, index)
    put = put_of(lengths, dtype_name, index, strided)

    @kernel(bounds=(threads, resident(lengths, dtype.bitwidth // 8, index, strided)))
    def fft_block_kernel(table, asked, turns, x, maps, fill, kernels, bias, strange, out):
        """Forward, product and back in one, for one channel and a window that fits the block.

        Shapes: as the kernels before; strange marks blocks that a transform cannot hold. Parallel over (N, groups K,
        blocks). Race-free because each output is one block's.
        """
        if asked[0] == 0:
            return
        layout = layout_of(table)
        shared = cuda.shared.array(0, dtype)
        values = cuda.local.array(numbers, dtype)
        thread = int32(cuda.threadIdx.x)
        n, k_all, b0, b1, b2 = block_of(layout, cuda.blockIdx.x)
        base = layout.x_start + n * layout.x_batch + divide(k_all, layout.out_channels)[0] * layout.x_channel
        read(values, layout, x, maps, fill, base, b0, b1, b2, strange, thread)
        forward(values, shared, turns, thread)
        times(values, kernels, k_all, thread)
        back(values, shared, turns, thread)
        put(values, layout, bias, out, thread)

    return fft_block_kernel


@cache
def sum_kernel(dtype_name: str, index: str):
    """The kernel for the outputs of marked blocks by the definition, where spectra spread a value over quieter ones."""
    dtype, OUTSIDE = getattr(numba, dtype_name), outside(index)

    @kernel
    def fft_sum_kernel(table, asked, x, maps, fill, weight, strange, kernel_strange, bias, out, shares):
        """out[n, k, p] = bias + sum over the window, in the blocks that `strange` or their filter's mark name.

        Shapes: as the kernels before; strange [N, groups K, blocks], kernel_strange [groups K]. Parallel over runs of
        (blocks, shares of one), whose marks a block's threads read side by side: mostly there are none. Race-free
        because each output is one thread's.
        """
        if asked[0] == 0:
            return
        layout = layout_of(table)
        units = strange.size * shares
        run = quotient(int32(units + cuda.gridDim.x - 1), int32(cuda.gridDim.x))
        first, last = cuda.blockIdx.x * run, min((cuda.blockIdx.x + 1) * run, units)
        marked = int32(0)
        for unit in range(first + cuda.threadIdx.x, last, cuda.blockDim.x):
            block = divide(unit, shares)[0]
            marked |= strange[block] | kernel_strange[block_of(layout, block)[1]]
        if not cuda.syncthreads_or(marked):
            return
        riders = 2 if layout.second == 1 else 1
        parts = int32(2 if layout.second == 2 else 1)
        count = int32(riders * layout.valid0 * layout.valid1 * layout.valid2)
        taps = int32(layout.kernel0 * layout.kernel1 * layout.kernel2)
        for unit in range(first, last):
            block, share = divide(unit, shares)
            n, k, b0, b1, b2 = block_of(layout, block)
            if strange[block] == 0 and kernel_strange[k] == 0:
                continue
            group = divide(k, layout.out_channels)[0]
            for i in range(share * cuda.blockDim.x + cuda.threadIdx.x, count, shares * cuda.blockDim.x):
                rest, o2 = divide(i, layout.valid2)
                rest, o1 = divide(rest, layout.valid1)
                rider, o0 = divide(rest, layout.valid0)
                o0, o1 = int32(b0 * layout.valid0 + o0), int32(b1 * layout.valid1 + o1)
                o2 = int32(b2 * layout.valid2 + o2 + rider * layout.ride)
                q0 = to_of(o0, layout.stride0, layout.over0, layout.shift0)
                q1 = to_of(o1, layout.stride1, layout.over1, layout.shift1)
                q2 = to_of(o2, layout.stride2, layout.over2, layout.shift2)
                if o0 >= layout.dense0 or o1 >= layout.dense1 or o2 >= layout.dense2 or min(q0, q1, q2) < 0:
                    continue
                to = layout.out_start + n * layout.out_batch + k * layout.out_channel
                to += q0 * layout.out_stride0 + q1 * layout.out_stride1 + q2 * layout.out_stride2
                for part in range(parts):
                    total = bias[divide(k * parts + part, layout.bias_size)[1]]
                    for c in range(layout.channels):
                        base = layout.x_start + n * layout.x_batch
                        base += (group * layout.channels + c) * layout.x_channel
                        re, im = behind(x, base), behind(x, base + layout.x_part)
                        factors = behind(weight, int64(k * layout.channels + c) * (taps * parts))
                        for t in range(taps):
                            rest, r2 = divide(t, layout.kernel2)
                            r0, r1 = divide(rest, layout.kernel1)
                            at = load(maps, int32(o0 + r0 * layout.dilation0))
                            at += load(maps, int32(layout.map1 + o1 + r1 * layout.dilation1))
                            at += load(maps, int32(layout.map2 + o2 + r2 * layout.dilation2))
                            if at < 0 and layout.ends:
                                continue
                            w = int32(t * parts)
                            total += load(factors, int32(w + part)) * sample(re, at, fill[0], dtype(0), OUTSIDE)
                            if parts == 2:
                                other = sample(im, at, fill[1], dtype(0), OUTSIDE) * load(factors, int32(w + 1 - part))
                                total += other if part else -other
                    store(out, to + part * layout.out_part, dtype(total))

    return fft_sum_kernel
