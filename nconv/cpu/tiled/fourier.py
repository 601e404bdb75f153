"""Fourier transforms of one tile of many channels, and of the windows. Vectors run along channels.

A tile's first axis is folded in two: sample j and the one half an extent on make a complex number, in the ring of
`transforms`. A product of complex numbers takes three real ones, of sums that are formed with the spectra,

    x = (a + b, a, b),  w = (c, d - c, c + d)  for  (a + ib) (c + id) = x0 w0 - x2 w2 + i (x0 w0 + x1 w1),

so that the sums over channels are matrix products of real numbers, three for each point of a tile.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...geometry import share_start
from ...jit import compiled, inner_kernel, parallel_kernel, prange
from .. import simd
from ..fft.butterflies import arithmetic
from ..fft.transforms import pass_lanes
from ..fft.vectors import lanes_of, load, splat
from ..simd import vstore

share_start_ = compiled(share_start)


@intrinsic
def _fold(typingctx, spare, at, step, source, p, below, half, table, t, radix):
    """A butterfly of the first axis' first pass, on numbers that are still apart.

    spare[at + k step] = sum over j of (source[p + j below] + i source[p + half + j below]) * twiddle[j] * exp(...) as
    `butterfly_forward` has it.
    """
    index = types.intp
    sig = types.void(spare, index, index, source, index, index, index, table, index, radix)

    def codegen(context, builder, sig, args):
        spare, at, step, source, p, below, half, table, t, radix = args
        emit = arithmetic(context, builder, sig.args[0])
        twiddles = simd.address_of(context, builder, sig.args[7], table, t)
        first = simd.address_of(context, builder, sig.args[3], source, p)
        target = simd.address_of(context, builder, sig.args[0], spare, at)
        values = []
        for j in range(radix.type.count):
            place = builder.gep(first, [builder.mul(below, ir.Constant(simd.INT, j))])
            values.append((emit.load_real(place), emit.load_real(builder.gep(place, [half]))))
        for j, value in enumerate(emit.transform(emit.turned(values, twiddles))):
            emit.store(value, builder.gep(target, [builder.mul(step, ir.Constant(simd.INT, j))]))
        return context.get_dummy_value()

    return sig, codegen


def _factors_of(emit, value, is_weight):
    """The three real factors of a complex number."""
    re, im = value
    if is_weight:
        return re, emit.difference(im, re), emit.sum(re, im)
    return emit.sum(re, im), re, im


def _last(is_weight):
    """`_factors` of samples or windows."""

    def factors(typingctx, there, to, step, spare, at, table, t, radix):
        index = types.intp
        sig = types.void(there, index, index, spare, index, table, index, radix)

        def codegen(context, builder, sig, args):
            there, to, step, spare, at, table, t, radix = args
            emit = arithmetic(context, builder, sig.args[0])
            twiddles = simd.address_of(context, builder, sig.args[5], table, t)
            source = simd.address_of(context, builder, sig.args[3], spare, at)
            target = simd.address_of(context, builder, sig.args[0], there, to)
            values = [emit.load(source, j) for j in range(radix.type.count)]
            for j, value in enumerate(emit.transform(emit.turned(values, twiddles))):
                for i, factor in enumerate(_factors_of(emit, value, is_weight)):
                    place = builder.gep(target, [builder.mul(step, ir.Constant(simd.INT, 3 * j + i))])
                    emit.store_real(factor, place)
            return context.get_dummy_value()

        return sig, codegen

    return factors


_sample_factors = intrinsic(_last(is_weight=False))
"""A butterfly of the last axis' last pass on the pairs of vectors at spare[at:]: its results' factors go to there[to:].

The factors lie `step` apart, three for each result.
"""
_weight_factors = intrinsic(_last(is_weight=True))
"""The same for windows."""


@intrinsic
def _from_products(typingctx, spare, at, products, p, step, table, t, radix):
    """Undo `_factors` on the sums of their products, products[p:], `step` apart."""
    index = types.intp
    sig = types.void(spare, index, products, index, index, table, index, radix)

    def codegen(context, builder, sig, args):
        spare, at, products, p, step, table, t, radix = args
        emit = arithmetic(context, builder, sig.args[0])
        twiddles = simd.address_of(context, builder, sig.args[5], table, t)
        source = simd.address_of(context, builder, sig.args[2], products, p)
        target = simd.address_of(context, builder, sig.args[0], spare, at)
        values = []
        for j in range(radix.type.count):
            both, second, third = (emit.load_real(builder.gep(source, [builder.mul(step, ir.Constant(
                simd.INT, 3 * j + i))])) for i in range(3))
            values.append((emit.sum(both, second), emit.difference(both, third)))   # (im, re): an inverse
        for j, value in enumerate(emit.turned(emit.transform(values), twiddles)):
            emit.store(value, target, j, swap=True)
        return context.get_dummy_value()

    return sig, codegen


def _passes_of(radix):
    """The loops of one radix: the first pass forward, the last one of samples or windows, its inverse."""
    unit = (0,) * radix

    @inner_kernel
    def fold(layout, passes, spare, buffer, begin):
        lanes = lanes_of(buffer)
        last = layout.grid.size - 1
        lines, count = (layout.rows // layout.extent[0], layout.extent[last]) if last > 0 else (1, 1)
        row = lines * layout.width * layout.chunk if last > 0 else layout.chunk      # of the first axis
        below = layout.extent[0] // 2 // radix
        step = 2 * below * lines * count * lanes
        at = 0
        for i in range(below):
            for line in range(lines):
                p = begin + i * row + line * layout.width * layout.chunk
                for _ in range(count):
                    _fold(spare, at, step, buffer, p, below * row, layout.extent[0] // 2 * row, passes.twiddles, 0,
                          unit)
                    at += 2 * lanes
                    p += layout.chunk

    @inner_kernel
    def factors(passes, spare, there, to, step, is_weight):
        first = passes.starts[passes.starts.size - 2]
        t = first
        for at in range(0, 2 * passes.points * lanes_of(spare), 2 * radix * lanes_of(spare)):
            if is_weight:
                _weight_factors(there, to, step, spare, at, passes.twiddles, t, unit)
            else:
                _sample_factors(there, to, step, spare, at, passes.twiddles, t, unit)
            to += 3 * radix * step
            t += 2 * (radix - 1)
            if t == passes.twiddles.size:
                t = first

    @inner_kernel
    def from_products(passes, spare, products, p, step):
        first = passes.starts[passes.starts.size - 2]
        t = first
        for at in range(0, 2 * passes.points * lanes_of(spare), 2 * radix * lanes_of(spare)):
            _from_products(spare, at, products, p, step, passes.twiddles, t, unit)
            p += 3 * radix * step
            t += 2 * (radix - 1)
            if t == passes.twiddles.size:
                t = first

    return fold, factors, from_products


_fold_1, _factors_1, _from_products_1 = _passes_of(1)
_fold_2, _factors_2, _from_products_2 = _passes_of(2)
_fold_3, _factors_3, _from_products_3 = _passes_of(3)
_fold_4, _factors_4, _from_products_4 = _passes_of(4)
_fold_5, _factors_5, _from_products_5 = _passes_of(5)
_fold_8, _factors_8, _from_products_8 = _passes_of(8)


@inner_kernel
def _first_pass(layout, passes, spare, buffer, begin):
    """The tile at buffer[begin:] folded, and the first pass along its first axis."""
    radix = passes.radices[0]
    if radix == 8:
        _fold_8(layout, passes, spare, buffer, begin)
    elif radix == 4:
        _fold_4(layout, passes, spare, buffer, begin)
    elif radix == 2:
        _fold_2(layout, passes, spare, buffer, begin)
    elif radix == 3:
        _fold_3(layout, passes, spare, buffer, begin)
    elif radix == 5:
        _fold_5(layout, passes, spare, buffer, begin)
    else:
        _fold_1(layout, passes, spare, buffer, begin)


@inner_kernel
def _last_pass(passes, spare, there, to, step, is_weight):
    """The last pass, whose results' factors go to there[to:], `step` apart."""
    radix = passes.radices[passes.radices.size - 1]
    if radix == 8:
        _factors_8(passes, spare, there, to, step, is_weight)
    elif radix == 4:
        _factors_4(passes, spare, there, to, step, is_weight)
    elif radix == 2:
        _factors_2(passes, spare, there, to, step, is_weight)
    elif radix == 3:
        _factors_3(passes, spare, there, to, step, is_weight)
    elif radix == 5:
        _factors_5(passes, spare, there, to, step, is_weight)
    else:
        _factors_1(passes, spare, there, to, step, is_weight)


@inner_kernel
def _first_back(passes, spare, products, p, step):
    """The inverse of the last pass, on the products of factors."""
    radix = passes.radices[passes.radices.size - 1]
    if radix == 8:
        _from_products_8(passes, spare, products, p, step)
    elif radix == 4:
        _from_products_4(passes, spare, products, p, step)
    elif radix == 2:
        _from_products_2(passes, spare, products, p, step)
    elif radix == 3:
        _from_products_3(passes, spare, products, p, step)
    elif radix == 5:
        _from_products_5(passes, spare, products, p, step)
    else:
        _from_products_1(passes, spare, products, p, step)


@inner_kernel
def fourier_forward_kernel(layout, passes, block, at, buffer, begin, spare):
    """One vector of channels of one tile: buffer [rows, width, chunk] from `begin` on to the block's matrices."""
    for v in range(0, simd.lanes_of(buffer), lanes_of(buffer)):
        _first_pass(layout, passes, spare, buffer, begin + v)
        for d in range(1, passes.radices.size - 1):
            pass_lanes(spare, passes, d, False)
        _last_pass(passes, spare, block, at + v, layout.x_step, False)


@inner_kernel
def fourier_inverse_kernel(layout, passes, outputs, at, products, begin, spare, bias, first):
    """One vector of output channels of one tile: products to outputs [rows of outputs, width, lanes], plus bias."""
    lanes, vector = lanes_of(products), simd.lanes_of(products)
    last = layout.grid.size - 1
    half = layout.extent[0] // 2
    width = layout.run * layout.valid[last] * vector
    rows = 1
    for a in range(last):
        rows *= layout.valid[a]
    for v in range(0, vector, lanes):
        _first_back(passes, spare, products, begin + v, layout.y_step)
        for d in range(passes.radices.size - 2, -1, -1):
            if passes.radices[d] > 1:
                pass_lanes(spare, passes, d, True)
        start = load(bias, first + v)
        for row in range(rows):
            rest = row
            e = 0
            size = 1 if last == 0 else layout.extent[last]
            part = 0
            for b in range(last):
                a = last - 1 - b
                position = rest % layout.valid[a]
                rest //= layout.valid[a]
                if a == 0 and position >= half:
                    position -= half
                    part = 1
                e += position * size
                size *= layout.extent[a]
            to = at + v + row * width
            for i in range(layout.valid[last]):
                q = 2 * (e + i) + part if last > 0 else 2 * (i % half) + i // half
                vstore(outputs, to + i * vector, start + load(spare, q * lanes))


@parallel_kernel
def fourier_weight_kernel(packed, passes, extent, window, dilation, channels, vector, weight, threads):
    """weight [blocks, 3 points, channels, vector] = spectra of packed [blocks, channels, window, vector] / points.

    Reversed windows, so that a product with them is a correlation. Parallel over (blocks, channels). Race-free because
    each pair of them is written by one thread.
    """
    lanes = lanes_of(packed)
    axes = extent.size
    taps = 1
    for a in range(axes):
        taps *= window[a]
    items = packed.size // (taps * vector)
    half = extent[0] // 2
    share = packed.dtype.type(1) / packed.dtype.type(passes.points)
    for thread in prange(threads):
        spare = np.empty(2 * passes.points * lanes, packed.dtype)
        for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
            for v in range(0, vector, lanes):
                spare[:] = 0
                for t in range(taps):
                    rest = t
                    e = 0
                    size = 1
                    part = 0
                    sign = share
                    for b in range(axes):
                        a = axes - 1 - b
                        position = rest % window[a] * dilation[a]
                        rest //= window[a]
                        position = extent[a] - position if position > 0 else 0
                        if a == 0:
                            sign = -share if position > 0 else share   # beyond the ring's end numbers change signs
                            if position >= half:
                                position -= half
                                part = 1
                        e += position * size
                        size *= extent[a]
                    vstore(spare, (2 * e + part) * lanes, splat(sign) * load(packed, (item * taps + t) * vector + v))
                for d in range(passes.radices.size - 1):
                    if passes.radices[d] > 1:
                        pass_lanes(spare, passes, d, False)
                _last_pass(passes, spare, weight, (item // channels * 3 * passes.points * channels + item % channels)
                           * vector + v, channels * vector, True)
