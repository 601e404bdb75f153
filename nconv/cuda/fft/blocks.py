"""Overlap-save in blocks of shared memory: gather, transform, multiply, transform back, store.

A window longer than a block allows is cut into parts; block b of the output then sums the products of part j of the
window with block b + j of the input (uniformly partitioned convolution), and channels are summed likewise.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numba
import numpy as np

from ..arrays import OUTSIDE
from ..device import block_function, cuda, kernel
from ..ptx import fields
from .loudness import is_uneven, limits_of, reset
from .transforms import backward, forward

BEYOND = OUTSIDE // 2


class BlockLayout(NamedTuple):
    """A block's shape and where everything lies; three axes, 0 to 2."""

    groups: int
    channels: int              # of one group
    out_channels: int
    parts: int                 # 2 for complex numbers
    log0: int                  # of the points of a block, to the base of two
    log1: int
    log2: int
    valid0: int                # outputs of a block, and the shift from one block to the next
    valid1: int
    valid2: int
    chunk0: int                # taps of a part of the window
    chunk1: int
    chunk2: int
    pieces0: int               # parts of the window
    pieces1: int
    pieces2: int
    grid0: int                 # blocks of the output; the riders' half of them along axis 2
    grid1: int
    grid2: int
    ride: int                  # blocks of axis 2 from a block to the one that rides as its imaginary part; 0: complex
    kernel0: int
    kernel1: int
    kernel2: int
    dilation0: int
    dilation1: int
    dilation2: int
    stride0: int
    stride1: int
    stride2: int
    dense0: int                # outputs before the stride
    dense1: int
    dense2: int
    reach0: int                # length of the maps
    reach1: int
    reach2: int
    log_turns: int             # of the table of twiddles
    loud: int                  # see `is_uneven`
    large: int
    small: int
    x_start: int = 0
    x_batch: int = 0
    x_channel: int = 0
    x_part: int = 0
    out_start: int = 0
    out_batch: int = 0
    out_channel: int = 0
    out_part: int = 0
    out_stride0: int = 0
    out_stride1: int = 0
    out_stride2: int = 0
    bias_size: int = 0


layout_of = fields(BlockLayout)


@block_function
def locate(layout, x, maps, fill, part, base, u0, u1, u2):
    """The padded input at a position; 0, which stands last in `fill`, behind all that any output sees."""
    if u0 >= layout.reach0 or u1 >= layout.reach1 or u2 >= layout.reach2:
        return fill[layout.parts]
    at = base + maps[u0] + maps[layout.reach0 + u1] + maps[layout.reach0 + layout.reach1 + u2]
    return x[at + part * layout.x_part] if at > BEYOND else fill[part]


@block_function
def output_of(place, dense, stride):
    """Index of the output at a place before the stride; -1 where there is none. Without a division where it can."""
    if place >= dense:
        return -1
    if stride == 1:
        return place
    return place // stride if place % stride == 0 else -1


@block_function
def transform_block(layout, re, im, points, turns, thread, threads):
    """Forward along all axes; begins with a barrier."""
    cuda.syncthreads()
    forward(re, im, points, layout.log2, 0, turns, layout.log_turns, thread, threads)
    forward(re, im, points, layout.log1, layout.log2, turns, layout.log_turns, thread, threads)
    forward(re, im, points, layout.log0, layout.log1 + layout.log2, turns, layout.log_turns, thread, threads)


@block_function
def transform_back(layout, re, im, points, turns, thread, threads):
    """Back along all axes; begins with a barrier."""
    cuda.syncthreads()
    backward(re, im, points, layout.log0, layout.log1 + layout.log2, turns, layout.log_turns, thread, threads)
    backward(re, im, points, layout.log1, layout.log2, turns, layout.log_turns, thread, threads)
    backward(re, im, points, layout.log2, 0, turns, layout.log_turns, thread, threads)


@block_function
def gather_block(layout, re, im, points, extremes, peaks, x, maps, fill, base, b0, b1, b2, thread, threads):
    """Fill a block and its rider with padded input; whether a transform cannot hold it. Ends with a barrier."""
    strange = 0
    if thread == 0:
        reset(extremes)
    for i in range(thread, points, threads):
        u2 = b2 * layout.valid2 + (i & ((1 << layout.log2) - 1))
        u1 = b1 * layout.valid1 + ((i >> layout.log2) & ((1 << layout.log1) - 1))
        u0 = b0 * layout.valid0 + (i >> (layout.log2 + layout.log1))
        first = locate(layout, x, maps, fill, 0, base, u0, u1, u2)
        if layout.parts == 2:
            second = locate(layout, x, maps, fill, 1, base, u0, u1, u2)
        else:
            second = locate(layout, x, maps, fill, 0, base, u0, u1, u2 + layout.ride * layout.valid2)
        re[i] = first
        im[i] = second
        if not (first - first == 0 and second - second == 0):
            strange = 1
    if cuda.syncthreads_or(strange):
        return True
    row = max(1, (1 << layout.log2) * threads // points)
    return is_uneven(re, im, points, extremes, peaks, row, layout.loud, layout.large, layout.small, thread, threads)


@block_function
def store_block(layout, re, im, points, bias, out, base, k, b0, b1, b2, scale, thread, threads):
    """Write what did not wrap around of a block and its rider."""
    for i in range(thread, points, threads):
        i2 = i & ((1 << layout.log2) - 1)
        i1 = (i >> layout.log2) & ((1 << layout.log1) - 1)
        i0 = i >> (layout.log2 + layout.log1)
        q1 = output_of(b1 * layout.valid1 + i1, layout.dense1, layout.stride1)
        q0 = output_of(b0 * layout.valid0 + i0, layout.dense0, layout.stride0)
        if i0 < layout.valid0 and i1 < layout.valid1 and i2 < layout.valid2 and q0 >= 0 and q1 >= 0:
            to = base + q0 * layout.out_stride0 + q1 * layout.out_stride1
            for second in range(2):
                part = second if layout.parts == 2 else 0
                q2 = output_of((b2 + second * layout.ride) * layout.valid2 + i2, layout.dense2, layout.stride2)
                if q2 >= 0 and (layout.parts == 2 or second == 0 or layout.ride > 0):
                    value = (im[i] if second else re[i]) * scale
                    value += bias[(k * layout.parts + part) % layout.bias_size]
                    out[to + q2 * layout.out_stride2 + part * layout.out_part] = value


@block_function
def sum_block(layout, x, maps, fill, weight, bias, out, base, n, g, k, b0, b1, b2, thread, threads):
    """The outputs of a block and its rider by the definition, where spectra would spread a value over quieter ones."""
    window = layout.kernel0 * layout.kernel1 * layout.kernel2
    count = layout.valid0 * layout.valid1 * layout.valid2
    riders = 2 if layout.ride > 0 else 1
    for i in range(thread, count * riders, threads):
        second = i // count
        j = i % count
        o2 = (b2 + second * layout.ride) * layout.valid2 + j % layout.valid2
        o1 = b1 * layout.valid1 + j // layout.valid2 % layout.valid1
        o0 = b0 * layout.valid0 + j // layout.valid2 // layout.valid1
        q2 = output_of(o2, layout.dense2, layout.stride2)
        q1 = output_of(o1, layout.dense1, layout.stride1)
        q0 = output_of(o0, layout.dense0, layout.stride0)
        if q0 >= 0 and q1 >= 0 and q2 >= 0:
            to = base + q0 * layout.out_stride0 + q1 * layout.out_stride1 + q2 * layout.out_stride2
            for part in range(layout.parts):
                total = bias[(k * layout.parts + part) % layout.bias_size]
                for c in range(layout.channels):
                    x_base = layout.x_start + n * layout.x_batch + (g * layout.channels + c) * layout.x_channel
                    for t in range(window):
                        u2 = o2 + t % layout.kernel2 * layout.dilation2
                        u1 = o1 + t // layout.kernel2 % layout.kernel1 * layout.dilation1
                        u0 = o0 + t // layout.kernel2 // layout.kernel1 * layout.dilation0
                        w = ((k * layout.channels + c) * window + t) * layout.parts
                        total += weight[w + part] * locate(layout, x, maps, fill, 0, x_base, u0, u1, u2)
                        if layout.parts == 2:
                            other = weight[w + 1 - part] * locate(layout, x, maps, fill, 1, x_base, u0, u1, u2)
                            total += other if part else -other
                out[to + part * layout.out_part] = total


@cache
def fft_kernels(dtype_name: str, points: int, threads: int):
    """(weight, forward, product, fused) kernels for one type and one size of block."""
    dtype = getattr(numba, dtype_name)
    PER_THREAD = points // threads
    LARGE = dtype(2.0 ** limits_of(np.dtype(dtype_name)).large)

    @kernel
    def fft_weight_kernel(table, turns, weight, spectra, strange):
        """Spectra of the window's parts, reversed in time: a correlation becomes a product.

        Shapes: weight (groups K, C, window, parts), spectra [groups K, C, pieces, 2, points], strange [groups K].
        Parallel over (groups K, C, pieces). Race-free because a block writes its own spectrum, and all write the same
        into `strange`.
        """
        layout = layout_of(table)
        re = cuda.shared.array(points, dtype)
        im = cuda.shared.array(points, dtype)
        thread = cuda.threadIdx.x
        pieces = layout.pieces0 * layout.pieces1 * layout.pieces2
        piece = cuda.blockIdx.x % pieces
        pair = cuda.blockIdx.x // pieces
        first2 = piece % layout.pieces2 * layout.chunk2
        first1 = piece // layout.pieces2 % layout.pieces1 * layout.chunk1
        first0 = piece // layout.pieces2 // layout.pieces1 * layout.chunk0
        for i in range(thread, points, threads):
            re[i] = 0
            im[i] = 0
        cuda.syncthreads()
        odd = 0
        for i in range(thread, layout.chunk0 * layout.chunk1 * layout.chunk2, threads):
            r2 = i % layout.chunk2
            r1 = i // layout.chunk2 % layout.chunk1
            r0 = i // layout.chunk2 // layout.chunk1
            inside = first0 + r0 < layout.kernel0 and first1 + r1 < layout.kernel1 and first2 + r2 < layout.kernel2
            if inside:
                at = ((pair * layout.kernel0 + first0 + r0) * layout.kernel1 + first1 + r1) * layout.kernel2
                at = (at + first2 + r2) * layout.parts
                to = (-r0 * layout.dilation0 & ((1 << layout.log0) - 1)) << layout.log1
                to = (to + (-r1 * layout.dilation1 & ((1 << layout.log1) - 1))) << layout.log2
                to += -r2 * layout.dilation2 & ((1 << layout.log2) - 1)
                re[to] = weight[at]
                if layout.parts == 2:
                    im[to] = weight[at + 1]
                if not (re[to] - re[to] == 0 and im[to] - im[to] == 0):
                    odd = 1
                if max(abs(re[to]), abs(im[to])) > LARGE:
                    odd = 1
        if odd:
            strange[pair // layout.channels] = 1
        transform_block(layout, re, im, points, turns, thread, threads)
        for i in range(thread, points, threads):
            spectra[cuda.blockIdx.x * 2 * points + i] = re[i]
            spectra[(cuda.blockIdx.x * 2 + 1) * points + i] = im[i]

    @kernel
    def fft_forward_kernel(table, asked, turns, x, maps, fill, spectra, strange):
        """Spectra of the input's blocks.

        Shapes: spectra [N, groups C, blocks, 2, points], strange [N, groups C, blocks]. Parallel over
        (N, groups C, blocks). Race-free because a block writes its own spectrum and mark.
        """
        if asked[0] == 0:
            return
        layout = layout_of(table)
        re = cuda.shared.array(points, dtype)
        im = cuda.shared.array(points, dtype)
        extremes = cuda.shared.array(3, numba.int32)
        peaks = cuda.shared.array(threads, numba.int32)
        thread = cuda.threadIdx.x
        wide = layout.grid2 + layout.pieces2 - 1
        high = layout.grid1 + layout.pieces1 - 1
        deep = layout.grid0 + layout.pieces0 - 1
        b2 = cuda.blockIdx.x % wide
        rest = cuda.blockIdx.x // wide
        b1 = rest % high
        rest //= high
        b0 = rest % deep
        channel = rest // deep
        total = layout.groups * layout.channels
        base = layout.x_start + channel // total * layout.x_batch + channel % total * layout.x_channel
        odd = gather_block(
            layout, re, im, points, extremes, peaks, x, maps, fill, base, b0, b1, b2, thread, threads)
        if thread == 0:
            strange[cuda.blockIdx.x] = 1 if odd else 0
        transform_block(layout, re, im, points, turns, thread, threads)
        for i in range(thread, points, threads):
            spectra[cuda.blockIdx.x * 2 * points + i] = re[i]
            spectra[(cuda.blockIdx.x * 2 + 1) * points + i] = im[i]

    @kernel
    def fft_product_kernel(table, asked, turns, x, maps, fill, spectra, strange, weight, kernels, kernel_strange, bias,
                           out):
        """Products of spectra summed over channels and parts of the window in registers, back, and stored.

        Shapes: as the two kernels before; out (N, groups K, *out) by strides. Parallel over (N, groups K, blocks).
        Race-free because each output is one block's.
        """
        if asked[0] == 0:
            return
        layout = layout_of(table)
        re = cuda.shared.array(points, dtype)
        im = cuda.shared.array(points, dtype)
        sum_re = cuda.local.array(PER_THREAD, dtype)
        sum_im = cuda.local.array(PER_THREAD, dtype)
        thread = cuda.threadIdx.x
        b2 = cuda.blockIdx.x % layout.grid2
        rest = cuda.blockIdx.x // layout.grid2
        b1 = rest % layout.grid1
        rest //= layout.grid1
        b0 = rest % layout.grid0
        rest //= layout.grid0
        k = rest % (layout.groups * layout.out_channels)
        n = rest // (layout.groups * layout.out_channels)
        g = k // layout.out_channels
        wide = layout.grid2 + layout.pieces2 - 1
        high = layout.grid1 + layout.pieces1 - 1
        deep = layout.grid0 + layout.pieces0 - 1
        pieces = layout.pieces0 * layout.pieces1 * layout.pieces2
        odd = kernel_strange[k]
        for i in range(PER_THREAD):
            sum_re[i] = 0
            sum_im[i] = 0
        for item in range(layout.channels * pieces):
            c = item // pieces
            piece = item % pieces
            z2 = b2 + piece % layout.pieces2
            z1 = b1 + piece // layout.pieces2 % layout.pieces1
            z0 = b0 + piece // layout.pieces2 // layout.pieces1
            z = (((n * layout.groups + g) * layout.channels + c) * deep + z0) * high * wide + z1 * wide + z2
            odd += strange[z]
            at = z * 2 * points + thread
            at_k = (k * layout.channels * pieces + item) * 2 * points + thread
            for i in range(PER_THREAD):
                zr, zi = spectra[at + i * threads], spectra[at + i * threads + points]
                wr, wi = kernels[at_k + i * threads], kernels[at_k + i * threads + points]
                sum_re[i] += zr * wr - zi * wi
                sum_im[i] += zr * wi + zi * wr
        base = layout.out_start + n * layout.out_batch + k * layout.out_channel
        if odd:
            sum_block(layout, x, maps, fill, weight, bias, out, base, n, g, k, b0, b1, b2, thread, threads)
            return
        for i in range(PER_THREAD):
            re[thread + i * threads] = sum_re[i]
            im[thread + i * threads] = sum_im[i]
        transform_back(layout, re, im, points, turns, thread, threads)
        scale = dtype(1) / dtype(points)
        store_block(layout, re, im, points, bias, out, base, k, b0, b1, b2, scale, thread, threads)

    @kernel
    def fft_block_kernel(table, asked, turns, x, maps, fill, weight, kernels, kernel_strange, bias, out):
        """Forward, product and back in one, for one channel and a window that fits the block.

        Shapes: as the kernels before. Parallel over (N, groups K, blocks). Race-free because each output is one
        block's.
        """
        if asked[0] == 0:
            return
        layout = layout_of(table)
        re = cuda.shared.array(points, dtype)
        im = cuda.shared.array(points, dtype)
        extremes = cuda.shared.array(3, numba.int32)
        peaks = cuda.shared.array(threads, numba.int32)
        thread = cuda.threadIdx.x
        b2 = cuda.blockIdx.x % layout.grid2
        rest = cuda.blockIdx.x // layout.grid2
        b1 = rest % layout.grid1
        rest //= layout.grid1
        b0 = rest % layout.grid0
        rest //= layout.grid0
        k = rest % (layout.groups * layout.out_channels)
        n = rest // (layout.groups * layout.out_channels)
        g = k // layout.out_channels
        x_base = layout.x_start + n * layout.x_batch + g * layout.x_channel
        base = layout.out_start + n * layout.out_batch + k * layout.out_channel
        odd = gather_block(
            layout, re, im, points, extremes, peaks, x, maps, fill, x_base, b0, b1, b2, thread, threads)
        if odd or kernel_strange[k]:
            sum_block(layout, x, maps, fill, weight, bias, out, base, n, g, k, b0, b1, b2, thread, threads)
            return
        transform_block(layout, re, im, points, turns, thread, threads)
        at = k * 2 * points
        for i in range(thread, points, threads):
            zr, zi = re[i], im[i]
            wr, wi = kernels[at + i], kernels[at + points + i]
            re[i] = zr * wr - zi * wi
            im[i] = zr * wi + zi * wr
        transform_back(layout, re, im, points, turns, thread, threads)
        scale = dtype(1) / dtype(points)
        store_block(layout, re, im, points, bias, out, base, k, b0, b1, b2, scale, thread, threads)

    return fft_weight_kernel, fft_forward_kernel, fft_product_kernel, fft_block_kernel
