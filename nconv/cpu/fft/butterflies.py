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
from .vectors import leaf_rows, vec


class Vectors(Butterfly):
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
        parts = [self.load_real(self._part(pointer, pair, i)) for i in range(2)]
        return (parts[1], parts[0]) if swap else (parts[0], parts[1])

    def store(self, value, pointer, pair=0, swap=False):
        for i in range(2):
            self.store_real(value[1 - i if swap else i], self._part(pointer, pair, i))

    def load_real(self, pointer):
        return simd.load_vector(self.builder, pointer, self.type, self.align)

    def store_real(self, value, pointer):
        simd.store_vector(self.builder, value, pointer, self.align)

    def sum(self, a, b):
        """Of two real vectors."""
        return self._real("fadd", a, b)

    def difference(self, a, b):
        return self._real("fsub", a, b)

    def _part(self, pointer, pair, i):
        return self.builder.gep(pointer, [ir.Constant(simd.INT, (2 * pair + i) * self.vec.n)])

    def splat(self, pointer, index):
        """One complex number of a table in all lanes."""
        return tuple(simd.broadcast(self.builder, self.builder.load(self.builder.gep(
            pointer, [ir.Constant(simd.INT, 2 * index + i)])), self.vec.n) for i in range(2))

    def turned(self, values, table):
        """All values but the first times the complex numbers of a table."""
        return values[:1] + [self.multiply(x, self.splat(table, j)) for j, x in enumerate(values[1:])]


def arithmetic(context, builder, array_type):
    """`Vectors` of the numbers of an array."""
    return Vectors(builder, vec(array_type.dtype), context.get_value_type(vec(array_type.dtype)))


def _butterfly(inverse):
    """`butterfly_forward` or `butterfly_inverse`: the same on exchanged real and imaginary parts, steps in reverse."""

    def butterfly(typingctx, data, at, step, table, t, radix):
        sig = types.void(data, types.intp, types.intp, table, types.intp, radix)

        def codegen(context, builder, sig, args):
            data, at, step, table, t, _ = args
            emit = arithmetic(context, builder, sig.args[0])
            start = simd.address_of(context, builder, sig.args[0], data, at)
            twiddles = simd.address_of(context, builder, sig.args[3], table, t)
            places = [builder.gep(start, [builder.mul(step, ir.Constant(simd.INT, j))]) for j in range(radix.count)]
            values = [emit.load(place, swap=inverse) for place in places]
            values = emit.turned(emit.transform(values), twiddles) if inverse else emit.transform(
                emit.turned(values, twiddles))
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


def _halves(builder, a, b):
    """Two complex vectors: the first halves of both, and the second ones. Undone by itself."""
    n = a[0].type.count
    mask = ir.VectorType(ir.IntType(32), n)
    half = n // 2
    orders = [ir.Constant(mask, [j + first + (half if j >= half else 0) for j in range(n)]) for first in (0, half)]
    return [tuple(builder.shuffle_vector(x, y, order) for x, y in zip(a, b, strict=True)) for order in orders]


class _Leaf:
    """The last levels of a few rings, each as long as a vector: `leaf_rows` of them, one below the other.

    Longer vectors are first split into halves, two rings at a time, so that quarters are left to be transposed: all the
    numbers in hand and their twiddles fit the registers.
    """

    def __init__(self, context, builder, sig, args, vectors, scalars):
        self.builder = builder
        self.emit = arithmetic(context, builder, sig.args[vectors])
        self.rows = leaf_rows(self.emit.vec.n)
        self.halved = self.emit.vec.n > self.rows
        tables = (simd.address_of(context, builder, sig.args[i], args[i], args[i + 1]) for i in (vectors, scalars))
        self.vectors, self.scalars = tables

    def load(self, start, swap=False):
        """The rings behind `start`."""
        return [self.emit.load(start, i, swap) for i in range(self.rows)]

    def store(self, rows, start, swap=False):
        for i, row in enumerate(rows):
            self.emit.store(row, start, i, swap)

    def _transposed(self, rows):
        bits = self.emit.vec.dtype.bitwidth
        parts = [simd.transposed(self.builder, [row[i] for row in rows], bits) for i in range(2)]
        return list(zip(*parts, strict=True))

    def _turn(self, value, vector, scalar):
        """A value times its twiddles: a vector times a number."""
        emit = self.emit
        return emit.multiply(value, emit.multiply(emit.load(self.vectors, vector), emit.splat(self.scalars, scalar)))

    def _turned(self, rows):
        return rows[:1] + [self._turn(row, j, j) for j, row in enumerate(rows[1:])]

    def forward(self, rows):
        emit, last = self.emit, self.rows - 1
        if self.halved:
            split = []
            for i in range(0, self.rows, 2):
                first, second = _halves(self.builder, *rows[i:i + 2])
                second = self._turn(second, last + i // 2, last)
                split += [emit.add(first, second), emit.subtract(first, second)]
            rows = split
        return emit.transform(self._turned(self._transposed(rows)))

    def inverse(self, rows):
        """On exchanged real and imaginary parts, steps in reverse."""
        emit, last = self.emit, self.rows - 1
        rows = self._transposed(self._turned(emit.transform(rows)))
        if self.halved:
            joined = []
            for i in range(0, self.rows, 2):
                first, second = emit.add(*rows[i:i + 2]), emit.subtract(*rows[i:i + 2])
                joined += _halves(self.builder, first, self._turn(second, last + i // 2, last))
            rows = joined
        return rows


@intrinsic
def leaf_forward(typingctx, data, at, vectors, v, scalars, s):
    """The last levels of a few rings: each pair of vectors at data[at:] is one that is still to be split.

    The numbers are transposed in registers and stay so. Twiddles are pairs of vectors at vectors[v:] times complex
    numbers at scalars[s:], those of the transposed numbers first, then those of the halves.
    """
    sig = types.void(data, types.intp, vectors, types.intp, scalars, types.intp)

    def codegen(context, builder, sig, args):
        leaf = _Leaf(context, builder, sig, args, 2, 4)
        start = simd.address_of(context, builder, sig.args[0], args[0], args[1])
        leaf.store(leaf.forward(leaf.load(start)), start)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def leaf_inverse(typingctx, data, at, vectors, v, scalars, s):
    """Undo `leaf_forward`, but for a factor."""
    sig = types.void(data, types.intp, vectors, types.intp, scalars, types.intp)

    def codegen(context, builder, sig, args):
        leaf = _Leaf(context, builder, sig, args, 2, 4)
        start = simd.address_of(context, builder, sig.args[0], args[0], args[1])
        leaf.store(leaf.inverse(leaf.load(start, swap=True)), start, swap=True)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def leaf_product(typingctx, data, at, source, x, spectra, w, vectors, v, scalars, s):
    """`leaf_inverse` of the products source[x:] * spectra[w:], whose numbers need not go through memory."""
    sig = types.void(data, types.intp, source, types.intp, spectra, types.intp, vectors, types.intp, scalars,
                     types.intp)

    def codegen(context, builder, sig, args):
        leaf = _Leaf(context, builder, sig, args, 6, 8)
        start, left, right = (simd.address_of(context, builder, sig.args[i], args[i], args[i + 1]) for i in (0, 2, 4))
        products = map(leaf.emit.multiply, leaf.load(left), leaf.load(right))
        leaf.store(leaf.inverse([(im, re) for re, im in products]), start, swap=True)
        return context.get_dummy_value()

    return sig, codegen
