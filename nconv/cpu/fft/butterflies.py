"""Butterflies in registers: short Fourier transforms over vectors, generated for any radix when a kernel compiles.

A complex vector is a pair (re, im) of SIMD vectors. In memory the two lie side by side, `lanes` real parts and then
`lanes` imaginary parts, so one place ("pair") of a block takes 2 lanes numbers and one stream of memory carries both.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...butterfly import Butterfly
from .. import simd
from .vectors import vec


class _Complex(Butterfly):
    """Arithmetic of complex vectors, written into a kernel under compilation."""

    def __init__(self, builder, vector, vector_type):
        self.builder, self.vec, self.type = builder, vector, vector_type
        self.align = vector.dtype.bitwidth // 8

    def _real(self, name, *operands):
        return getattr(self.builder, name)(*operands, flags=simd.FAST)

    def _constant(self, value):
        return ir.Constant(self.type, [value] * self.vec.n)

    def load(self, pointer, pair=0, swap=False):
        """The complex vector at a pair behind `pointer`."""
        parts = [simd.load_vector(self.builder, self._part(pointer, pair, i), self.type, self.align) for i in range(2)]
        return (parts[1], parts[0]) if swap else (parts[0], parts[1])

    def store(self, value, pointer, pair=0, swap=False):
        for i in range(2):
            simd.store_vector(self.builder, value[1 - i if swap else i], self._part(pointer, pair, i), self.align)

    def _part(self, pointer, pair, i):
        return self.builder.gep(pointer, [ir.Constant(simd.INT, (2 * pair + i) * self.vec.n)])

    def splat(self, pointer, index):
        """One complex number of a table in all lanes."""
        return tuple(simd.broadcast(self.builder, self.builder.load(self.builder.gep(
            pointer, [ir.Constant(simd.INT, 2 * index + i)])), self.vec.n) for i in range(2))


def _arithmetic(context, builder, array_type):
    return _Complex(builder, vec(array_type.dtype), context.get_value_type(vec(array_type.dtype)))


def _butterfly(inverse):
    """`butterfly_forward` or `butterfly_inverse`: the same on exchanged real and imaginary parts, steps in reverse."""

    def butterfly(typingctx, data, at, step, table, t, radix):
        sig = types.void(data, types.intp, types.intp, table, types.intp, radix)

        def codegen(context, builder, sig, args):
            data, at, step, table, t, _ = args
            emit = _arithmetic(context, builder, sig.args[0])
            start = simd.address_of(context, builder, sig.args[0], data, at)
            twiddles = simd.address_of(context, builder, sig.args[3], table, t)
            places = [builder.gep(start, [builder.mul(step, ir.Constant(simd.INT, j))]) for j in range(radix.count)]

            def turned(values):
                return values[:1] + [emit.multiply(x, emit.splat(twiddles, j)) for j, x in enumerate(values[1:])]

            values = [emit.load(place, swap=inverse) for place in places]
            values = turned(emit.transform(values)) if inverse else emit.transform(turned(values))
            for value, place in zip(values, places, strict=True):
                emit.store(value, place, swap=inverse)
            return context.get_dummy_value()

        return sig, codegen

    return butterfly


butterfly_forward = intrinsic(_butterfly(inverse=False))
"""data[at + k step] = sum over j of data[at + j step] * twiddle[j] * exp(-2 pi i j k / r), one pair of vectors each.

The twiddles of j = 1 .. r - 1 are complex numbers at table[t:]; `radix` is a tuple of r elements.
"""
butterfly_inverse = intrinsic(_butterfly(inverse=True))
"""Undo `butterfly_forward`, but for a factor r."""


def _leaf_turn(emit, row, vectors, scalars, j):
    """An element of all leaves times its twiddles: a vector times a number."""
    return row if j == 0 else emit.multiply(
        row, emit.multiply(emit.load(vectors, j - 1), emit.splat(scalars, j - 1)))


def _transposed(builder, rows):
    parts = [simd.transposed(builder, [row[i] for row in rows]) for i in range(2)]
    return list(zip(*parts, strict=True))


@intrinsic
def leaf_forward(typingctx, data, at, vectors, v, scalars, s):
    """The last levels of `lanes` transforms: each pair of vectors at data[at:] is one that is still to be made.

    The square of numbers is transposed in registers and stays so: element k of all of them is the k-th pair.
    Twiddles of j = 1 .. lanes - 1: pairs of vectors at vectors[v:] times complex numbers at scalars[s:].
    """
    sig = types.void(data, types.intp, vectors, types.intp, scalars, types.intp)

    def codegen(context, builder, sig, args):
        emit = _arithmetic(context, builder, sig.args[0])
        start, vectors, scalars = (simd.address_of(context, builder, sig.args[i], args[i], args[i + 1])
                                   for i in (0, 2, 4))
        rows = _transposed(builder, [emit.load(start, i) for i in range(emit.vec.n)])
        rows = emit.transform([_leaf_turn(emit, row, vectors, scalars, j) for j, row in enumerate(rows)])
        for i, row in enumerate(rows):
            emit.store(row, start, i)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def leaf_inverse(typingctx, data, at, vectors, v, scalars, s):
    """Undo `leaf_forward`, but for a factor."""
    sig = types.void(data, types.intp, vectors, types.intp, scalars, types.intp)

    def codegen(context, builder, sig, args):
        emit = _arithmetic(context, builder, sig.args[0])
        start, vectors, scalars = (simd.address_of(context, builder, sig.args[i], args[i], args[i + 1])
                                   for i in (0, 2, 4))
        rows = emit.transform([emit.load(start, i, swap=True) for i in range(emit.vec.n)])
        rows = [_leaf_turn(emit, row, vectors, scalars, j) for j, row in enumerate(rows)]
        for i, row in enumerate(_transposed(builder, rows)):
            emit.store(row, start, i, swap=True)
        return context.get_dummy_value()

    return sig, codegen
