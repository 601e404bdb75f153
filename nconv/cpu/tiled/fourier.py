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


def _with_factors(write):
    """A butterfly between the pairs of vectors at spare[at:] and their factors, from there[to:] on, `step` apart.

    ``write(emit, count, pairs, place, twiddles)`` emits it; ``place(j, i)`` is where factor i of pair j lies.
    """

    def butterfly(typingctx, spare, at, there, to, step, table, t, radix):
        index = types.intp
        sig = types.void(spare, index, there, index, index, table, index, radix)

        def codegen(context, builder, sig, args):
            spare, at, there, to, step, table, t, radix = args
            pairs, first, twiddles = (simd.address_of(context, builder, sig.args[i], args[i], args[i + 1])
                                      for i in (0, 2, 5))
            write(arithmetic(context, builder, sig.args[0]), radix.type.count, pairs, lambda j, i: builder.gep(
                first, [builder.mul(step, ir.Constant(simd.INT, 3 * j + i))]), twiddles)
            return context.get_dummy_value()

        return sig, codegen

    return intrinsic(butterfly)


def _store_factors(is_weight):
    """The last axis' last butterfly, which leaves the factors of its results, as samples or windows have them."""

    def write(emit, count, pairs, place, twiddles):
        values = [emit.load(pairs, j) for j in range(count)]
        for j, (re, im) in enumerate(emit.transform(emit.turned(values, twiddles))):
            factors = (re, emit.difference(im, re), emit.sum(re, im)) if is_weight else (emit.sum(re, im), re, im)
            for i, factor in enumerate(factors):
                emit.store_real(factor, place(j, i))

    return _with_factors(write)


@_with_factors
def _load_products(emit, count, pairs, place, twiddles):
    """Its inverse, on the sums of products of factors."""
    values = []
    for j in range(count):
        both, second, third = (emit.load_real(place(j, i)) for i in range(3))
        values.append((emit.sum(both, second), emit.difference(both, third)))        # (im, re): an inverse
    for j, value in enumerate(emit.turned(emit.transform(values), twiddles)):
        emit.store(value, pairs, j, swap=True)


def _by_radix(loops_of):
    """A kernel that calls the loops of the radix that is its first argument."""
    one, two, three, four, five, eight = map(loops_of, (1, 2, 3, 4, 5, 8))

    @inner_kernel
    def call(radix, *args):
        if radix == 8:
            eight(*args)
        elif radix == 4:
            four(*args)
        elif radix == 2:
            two(*args)
        elif radix == 3:
            three(*args)
        elif radix == 5:
            five(*args)
        else:
            one(*args)

    return call


def _first_pass_of(radix):
    unit = (0,) * radix

    @inner_kernel
    def first_pass(layout, passes, spare, buffer, begin):
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

    return first_pass


def _along_last(butterfly):
    """The loops of a pass along the last axis, whose `butterfly` reads or writes elsewhere, `step` apart."""

    def loops_of(radix):
        unit = (0,) * radix

        @inner_kernel
        def loops(passes, spare, there, to, step):
            lanes = lanes_of(spare)
            first = passes.starts[passes.starts.size - 2]
            t = first
            for at in range(0, 2 * passes.points * lanes, 2 * radix * lanes):
                butterfly(spare, at, there, to, step, passes.twiddles, t, unit)
                to += 3 * radix * step
                t += 2 * (radix - 1)
                if t == passes.twiddles.size:
                    t = first

        return loops

    return loops_of


_first_pass = _by_radix(_first_pass_of)                # of a tile at buffer[begin:], which it folds
_last_pass = _by_radix(_along_last(_store_factors(is_weight=False)))     # into a block's matrices
_last_weight_pass = _by_radix(_along_last(_store_factors(is_weight=True)))
_first_back = _by_radix(_along_last(_load_products))   # the inverse of the last pass, from the products of factors


@inner_kernel
def fourier_forward_kernel(layout, passes, block, at, buffer, begin, spare):
    """One vector of channels of one tile: buffer [rows, width, chunk] from `begin` on to the block's matrices."""
    depth = passes.radices.size
    for v in range(0, simd.lanes_of(buffer), lanes_of(buffer)):
        _first_pass(passes.radices[0], layout, passes, spare, buffer, begin + v)
        for d in range(1, depth - 1):
            pass_lanes(spare, passes, d, False)
        _last_pass(passes.radices[depth - 1], passes, spare, block, at + v, layout.x_step)


@inner_kernel
def fourier_inverse_kernel(layout, passes, outputs, at, products, begin, spare, bias, first):
    """One vector of output channels of one tile: products to outputs [rows of outputs, width, lanes], plus bias."""
    lanes, vector = lanes_of(products), simd.lanes_of(products)
    last = layout.grid.size - 1
    half = layout.extent[0] // 2
    width = layout.run * layout.valid[last] * vector
    depth = passes.radices.size
    rows = 1
    for a in range(last):
        rows *= layout.valid[a]
    for v in range(0, vector, lanes):
        _first_back(passes.radices[depth - 1], passes, spare, products, begin + v, layout.y_step)
        for d in range(depth - 2, -1, -1):
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
    depth = passes.radices.size
    places, factors = np.empty(taps, np.int64), np.empty(taps, packed.dtype)
    for t in range(taps):
        rest = t
        e = 0
        size = 1
        part = 0
        factors[t] = share
        for b in range(axes):
            a = axes - 1 - b
            position = rest % window[a] * dilation[a]
            rest //= window[a]
            if position > 0:
                position = extent[a] - position
                if a == 0:
                    factors[t] = -share                        # beyond the ring's end numbers change signs
            if a == 0 and position >= half:
                position -= half
                part = 1
            e += position * size
            size *= extent[a]
        places[t] = (2 * e + part) * lanes
    for thread in prange(threads):
        spare = np.empty(2 * passes.points * lanes, packed.dtype)
        for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
            to = (item // channels * 3 * passes.points * channels + item % channels) * vector
            for v in range(0, vector, lanes):
                spare[:] = 0
                for t in range(taps):
                    vstore(spare, places[t], splat(factors[t]) * load(packed, (item * taps + t) * vector + v))
                for d in range(depth - 1):
                    if passes.radices[d] > 1:
                        pass_lanes(spare, passes, d, False)
                _last_weight_pass(passes.radices[depth - 1], passes, spare, weight, to + v, channels * vector)
