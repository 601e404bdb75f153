"""A thread's points in registers: complex numbers loaded, turned, transformed and stored, as one tuple of real numbers.

Each function is made for a number of points, so that every index of the tuple is known when a kernel compiles; in the
simulator they are plain Python. Real and imaginary parts lie side by side everywhere, and are moved together.
"""

from __future__ import annotations

import operator
from functools import cache

from ...butterfly import Butterfly
from ..device import SIMULATED, block_function, cuda

if SIMULATED or cuda is None:
    _OPERATIONS = {"fadd": operator.add, "fsub": operator.sub, "fmul": operator.mul, "fneg": operator.neg}

    class _Numbers(Butterfly):
        """Numbers of NumPy's."""

        def __init__(self, kind):
            self.kind = kind

        def _real(self, name, *operands):
            return _OPERATIONS[name](*operands)

        def _constant(self, value):
            return self.kind(value)

    def _pairs(values):
        return list(zip(values[::2], values[1::2], strict=True))

    @cache
    def pull(points: int):
        """The complex numbers array[at], array[at + step], ..."""
        return block_function(lambda array, at, step: tuple(
            array[2 * (at + q * step) + part] for q in range(points) for part in range(2)))

    @cache
    def push(points: int):
        """Store complex numbers at array[at], array[at + step], ..."""

        def store(array, at, step, values):
            for q in range(points):
                array[2 * (at + q * step)], array[2 * (at + q * step) + 1] = values[2 * q:2 * q + 2]

        return block_function(store)

    @cache
    def turn(points: int, back: bool):
        """All but the first times the complex numbers table[at], table[at + step], ..., or their conjugates."""

        def turned(values, table, at, step):
            result = list(values[:2])
            for q in range(1, points):
                place = 2 * (at + (q - 1) * step)
                wr, wi = table[place], -table[place + 1] if back else table[place + 1]
                re, im = values[2 * q:2 * q + 2]
                result += [re * wr - im * wi, re * wi + im * wr]
            return tuple(result)

        return block_function(turned)

    @cache
    def transform(points: int, back: bool):
        """Their Fourier transform, in order; `back`: undone, but for a factor."""

        def transformed(values):
            turned = -1 if back else 1
            pairs = _Numbers(type(values[0])).transform([pair[::turned] for pair in _pairs(values)])
            return tuple(part for pair in pairs for part in pair[::turned])

        return block_function(transformed)

    @cache
    def multiply(points: int):
        """Products of complex numbers."""

        def products(values, factors):
            pairs = zip(_pairs(values), _pairs(factors), strict=True)
            return tuple(part for a, b in pairs for part in _Numbers(type(a[0])).multiply(a, b))

        return block_function(products)

    @cache
    def add_products(points: int):
        """Complex numbers plus products of complex numbers."""

        def sums(totals, values, factors):
            triples = zip(_pairs(totals), _pairs(values), _pairs(factors), strict=True)
            return tuple(part for t, a, b in triples
                         for part in (t[0] + a[0] * b[0] - a[1] * b[1], t[1] + a[0] * b[1] + a[1] * b[0]))

        return block_function(sums)

else:
    from llvmlite import ir
    from numba import types
    from numba.cuda.extending import intrinsic

    class _Registers(Butterfly):
        """Registers of a kernel under compilation."""

        def __init__(self, builder, kind):
            self.builder, self.kind = builder, kind

        def _real(self, name, *operands):
            if name == "fneg":                         # NVVM knows no such instruction
                return self.builder.fsub(self._constant(-0.0), *operands)
            return getattr(self.builder, name)(*operands)

        def _constant(self, value):
            return ir.Constant(self.kind, value)

    def _pointer(context, builder, array_type, array, at, at_type):
        """Pointer to the complex number at an index, and its type."""
        element = context.get_data_type(array_type.dtype)
        pair = ir.VectorType(element, 2)
        data = context.make_array(array_type)(context, builder, array).data
        data = builder.bitcast(data, ir.PointerType(pair, data.type.addrspace))
        return builder.gep(data, [context.cast(builder, at, at_type, types.int64)])

    def _step(context, builder, step, step_type, q):
        return builder.mul(context.cast(builder, step, step_type, types.int64), ir.Constant(ir.IntType(64), q))

    def _align(array_type):
        return 2 * array_type.dtype.bitwidth // 8

    def _unpacked(builder, vector):
        return tuple(builder.extract_element(vector, ir.Constant(ir.IntType(32), i)) for i in range(2))

    def _pairs(builder, values, points):
        parts = [builder.extract_value(values, i) for i in range(2 * points)]
        return list(zip(parts[::2], parts[1::2], strict=True))

    def _tuple(context, builder, kind, pairs):
        return context.make_tuple(builder, kind, [part for pair in pairs for part in pair])

    @cache
    def pull(points: int):
        @intrinsic
        def pull(typingctx, array, at, step):
            signature = types.UniTuple(array.dtype, 2 * points)(array, at, step)

            def generate(context, builder, signature, args):
                kind = signature.args[0]
                first = _pointer(context, builder, kind, args[0], args[1], signature.args[1])
                pairs = []
                for q in range(points):
                    place = builder.gep(first, [_step(context, builder, args[2], signature.args[2], q)])
                    pairs.append(_unpacked(builder, builder.load(place, align=_align(kind))))
                return _tuple(context, builder, signature.return_type, pairs)

            return signature, generate

        return pull

    @cache
    def push(points: int):
        @intrinsic
        def push(typingctx, array, at, step, values):
            signature = types.void(array, at, step, values)

            def generate(context, builder, signature, args):
                kind = signature.args[0]
                first = _pointer(context, builder, kind, args[0], args[1], signature.args[1])
                for q, pair in enumerate(_pairs(builder, args[3], points)):
                    place = builder.gep(first, [_step(context, builder, args[2], signature.args[2], q)])
                    vector = ir.Constant(place.type.pointee, ir.Undefined)
                    for i in range(2):
                        vector = builder.insert_element(vector, pair[i], ir.Constant(ir.IntType(32), i))
                    builder.store(vector, place, align=_align(kind))
                return context.get_dummy_value()

            return signature, generate

        return push

    @cache
    def turn(points: int, back: bool):
        @intrinsic
        def turn(typingctx, values, table, at, step):
            signature = values(values, table, at, step)

            def generate(context, builder, signature, args):
                emit = _Registers(builder, context.get_data_type(signature.args[1].dtype))
                first = _pointer(context, builder, signature.args[1], args[1], args[2], signature.args[2])
                pairs = _pairs(builder, args[0], points)
                for q in range(1, points):
                    place = builder.gep(first, [_step(context, builder, args[3], signature.args[3], q - 1)])
                    re, im = _unpacked(builder, builder.load(place, align=_align(signature.args[1])))
                    pairs[q] = emit.multiply(pairs[q], emit.conjugate((re, im)) if back else (re, im))
                return _tuple(context, builder, signature.return_type, pairs)

            return signature, generate

        return turn

    @cache
    def transform(points: int, back: bool):
        @intrinsic
        def transform(typingctx, values):
            def generate(context, builder, signature, args):
                emit = _Registers(builder, context.get_data_type(signature.return_type.dtype))
                turned = -1 if back else 1
                pairs = emit.transform([pair[::turned] for pair in _pairs(builder, args[0], points)])
                return _tuple(context, builder, signature.return_type, [pair[::turned] for pair in pairs])

            return values(values), generate

        return transform

    @cache
    def multiply(points: int):
        @intrinsic
        def multiply(typingctx, values, factors):
            def generate(context, builder, signature, args):
                emit = _Registers(builder, context.get_data_type(signature.return_type.dtype))
                pairs = zip(*(_pairs(builder, arg, points) for arg in args), strict=True)
                return _tuple(context, builder, signature.return_type, [emit.multiply(*of) for of in pairs])

            return values(values, factors), generate

        return multiply

    @cache
    def add_products(points: int):
        @intrinsic
        def add_products(typingctx, totals, values, factors):
            def generate(context, builder, signature, args):
                pairs = []
                for t, a, b in zip(*(_pairs(builder, arg, points) for arg in args), strict=True):
                    re = builder.fsub(builder.fadd(t[0], builder.fmul(a[0], b[0])), builder.fmul(a[1], b[1]))
                    im = builder.fadd(builder.fadd(t[1], builder.fmul(a[0], b[1])), builder.fmul(a[1], b[0]))
                    pairs.append((re, im))
                return _tuple(context, builder, signature.return_type, pairs)

            return totals(totals, values, factors), generate

        return add_products
