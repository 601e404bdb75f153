"""Instructions that Numba has no name for, each with a body in plain Python for the simulator.

They are Numba intrinsics, inlined where they are called: loads and stores that count no index from the end, as Python
does with a negative one (a comparison and a choice at every access), some of 128 bits; the tensor cores' product.
"""

from __future__ import annotations

import operator
from functools import cache

import numpy as np

from .device import SIMULATED, block_function, cuda

__all__ = ["fields", "half_product", "load", "load_where", "magnitude", "pair", "round_tf32", "store", "tf32_product",
           "vload4", "vstore4"]


if SIMULATED or cuda is None:

    @block_function
    def vload4(array, at):
        """Four neighbours of a one-dimensional array, the first at a multiple of four."""
        return array[at], array[at + 1], array[at + 2], array[at + 3]

    @block_function
    def vstore4(array, at, values):
        """Write four neighbours, the first at a multiple of four."""
        for i in range(4):
            array[at + i] = values[i]

    @block_function
    def load(array, at):
        """array[at] for an index that is never negative."""
        return array[at]

    @block_function
    def store(array, at, value):
        """array[at] = value for an index that is never negative."""
        array[at] = value

    @block_function
    def load_where(array, at, inside, harmless):
        """array[at] where `inside`, else any number: then `harmless`, not shorter, is read, and there is no branch."""
        return array[at] if inside else harmless[0]

    @block_function
    def round_tf32(value):
        """A float32 rounded to the eleven bits that tensor cores read."""
        value = np.float32(value)
        return np.uint32((int(value.view(np.uint32)) + 0x1000) & 0xFFFFE000).view(np.float32) if np.isfinite(
            value) else value

    def _halves(word):
        """The two float16 of a word as float32, in which their products are exact."""
        return np.array([word], np.uint32).view(np.float16).astype(np.float32)

    def _summed(a, at_a, pitch_a, b, at_b, pitch_b, lane, sums, multiply):
        row, column = lane // 4, lane % 4 * 2
        result = list(sums)
        for tap in range(8):
            for i in range(4):
                result[i] += multiply(a[at_a + tap * pitch_a + row + i // 2 * 8],
                                      b[at_b + tap * pitch_b + column + i % 2])
        return tuple(np.float32(v) for v in result)

    @block_function
    def tf32_product(a, at_a, pitch_a, b, at_b, pitch_b, lane, sums):
        """[16 x 8] [8 x 8] on the tensor cores of a warp, in TF32: a lane's four of the 128 sums. Both are rounded.

        Element (row, tap) of the first factor is a[at_a + tap pitch_a + row], (tap, column) of the second
        b[at_b + tap pitch_b + column]. The lane's sums are those of rows lane / 4 and 8 below, columns 2 (lane % 4) and
        the next: (row, column), (row, next), (below, column), (below, next).
        """
        return _summed(a, at_a, pitch_a, b, at_b, pitch_b, lane, sums, operator.mul)

    @block_function
    def half_product(a, at_a, pitch_a, b, at_b, pitch_b, lane, sums):
        """[16 x 16] [16 x 8] in float16 with float32 sums: as `tf32_product`, two taps in each word of 32 bits."""
        return _summed(a, at_a, pitch_a, b, at_b, pitch_b, lane, sums, lambda v, w: (_halves(v) * _halves(w)).sum())

    @block_function
    def pair(low, high):
        """Two numbers of 16 bits as one word of 32."""
        return np.uint32(int(low) | int(high) << 16)

    @block_function
    def magnitude(value):
        """The leading 32 bits of a float without its sign: a whole number that grows with it, NaN above all others."""
        bits = int(value.view(f"i{value.itemsize}")) >> 8 * value.itemsize - 32
        return np.int32(bits & 0x7FFFFFFF)

    @cache
    def fields(kind):
        """A function that reads a named tuple of whole numbers, of the given kind, from an array of them.

        As an argument of a kernel each number of a tuple would be converted at each launch, which takes Numba longer
        than most kernels run.
        """
        return block_function(lambda table: kind(*(int(number) for number in table)))

else:
    from llvmlite import ir
    from numba import types, uint32
    from numba.cuda.extending import intrinsic

    def _vector_pointer(context, builder, array_type, array, index):
        """Pointer to four elements, and their type."""
        element = context.get_data_type(array_type.dtype)
        data = context.make_array(array_type)(context, builder, array).data
        vector = ir.VectorType(element, 4)
        address = builder.gep(data, [index])
        return builder.bitcast(address, ir.PointerType(vector, data.type.addrspace)), vector

    @intrinsic
    def vload4(typingctx, array, at):
        signature = types.UniTuple(array.dtype, 4)(array, at)

        def generate(context, builder, signature, args):
            pointer, _ = _vector_pointer(context, builder, signature.args[0], *args)
            vector = builder.load(pointer, align=16)
            values = [builder.extract_element(vector, ir.Constant(ir.IntType(32), i)) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, values)

        return signature, generate

    @intrinsic
    def vstore4(typingctx, array, at, values):
        signature = types.void(array, at, values)

        def generate(context, builder, signature, args):
            pointer, kind = _vector_pointer(context, builder, signature.args[0], *args[:2])
            vector = ir.Constant(kind, ir.Undefined)
            of = signature.args[2].dtype
            for i in range(4):
                value = context.cast(builder, builder.extract_value(args[2], i), of, signature.args[0].dtype)
                vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), i))
            builder.store(vector, pointer, align=min(16, 4 * signature.args[0].dtype.bitwidth // 8))
            return context.get_dummy_value()

        return signature, generate

    @intrinsic
    def load(typingctx, array, at):
        signature = array.dtype(array, at)

        def generate(context, builder, signature, args):
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            return context.unpack_value(builder, signature.return_type, builder.gep(data, [args[1]]))

        return signature, generate

    @intrinsic
    def store(typingctx, array, at, value):
        signature = types.void(array, at, value)

        def generate(context, builder, signature, args):
            to, _, of = signature.args
            data = context.make_array(to)(context, builder, args[0]).data
            context.pack_value(builder, to.dtype, context.cast(builder, args[2], of, to.dtype),
                               builder.gep(data, [args[1]]))
            return context.get_dummy_value()

        return signature, generate

    @intrinsic
    def load_where(typingctx, array, at, inside, harmless):
        signature = array.dtype(array, at, inside, harmless)

        def generate(context, builder, signature, args):
            def data(i):
                return context.make_array(signature.args[i])(context, builder, args[i]).data

            there = builder.gep(data(0), [args[1]])
            address = builder.select(args[2], there, builder.bitcast(data(3), there.type))
            return context.unpack_value(builder, signature.return_type, address)

        return signature, generate

    @intrinsic
    def round_tf32(typingctx, value):
        def generate(context, builder, signature, args):
            kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()])
            rounded = builder.call(ir.InlineAsm(kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f"), args)
            return builder.bitcast(rounded, ir.FloatType())

        return types.float32(types.float32), generate

    def _mma(shape, words):
        """The intrinsic of one tensor-core product: four words of the first factor, two of the second, four sums."""

        @intrinsic
        def mma(typingctx, a0, a1, a2, a3, b0, b1, sums):
            signature = sums(a0, a1, a2, a3, b0, b1, sums)

            def generate(context, builder, signature, args):
                single = ir.FloatType()
                kind = ir.FunctionType(ir.LiteralStructType([single] * 4), [ir.IntType(32)] * 6 + [single] * 4)
                instruction = ir.InlineAsm(
                    kind, f"mma.sync.aligned.{shape}.row.col.f32.{words}.{words}.f32 "
                    "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};", "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f")
                factors = [builder.bitcast(word, ir.IntType(32)) for word in args[:6]]
                result = builder.call(instruction, [*factors, *(builder.extract_value(args[6], i) for i in range(4))])
                values = [builder.extract_value(result, i) for i in range(4)]
                return context.make_tuple(builder, signature.return_type, values)

            return signature, generate

        return mma

    _mma_tf32 = _mma("m16n8k8", "tf32")
    _mma_half = _mma("m16n8k16", "f16")

    @block_function
    def tf32_product(a, at_a, pitch_a, b, at_b, pitch_b, lane, sums):
        at_a += lane % 4 * pitch_a + lane // 4
        at_b += lane % 4 * pitch_b + lane // 4
        return _mma_tf32(load(a, at_a), load(a, at_a + 8), load(a, at_a + 4 * pitch_a),
                         load(a, at_a + 4 * pitch_a + 8), load(b, at_b), load(b, at_b + 4 * pitch_b), sums)

    @block_function
    def half_product(a, at_a, pitch_a, b, at_b, pitch_b, lane, sums):
        at_a += lane % 4 * pitch_a + lane // 4
        at_b += lane % 4 * pitch_b + lane // 4
        return _mma_half(load(a, at_a), load(a, at_a + 8), load(a, at_a + 4 * pitch_a),
                         load(a, at_a + 4 * pitch_a + 8), load(b, at_b), load(b, at_b + 4 * pitch_b), sums)

    @intrinsic
    def magnitude(typingctx, value):
        def generate(context, builder, signature, args):
            width = signature.args[0].bitwidth
            bits = builder.bitcast(args[0], ir.IntType(width))
            if width > 32:
                bits = builder.trunc(builder.lshr(bits, ir.Constant(bits.type, width - 32)), ir.IntType(32))
            return builder.and_(bits, ir.Constant(bits.type, 0x7FFFFFFF))

        return types.int32(value), generate

    @cache
    def fields(kind):
        count = len(kind._fields)

        @intrinsic
        def fields(typingctx, table):
            signature = types.NamedUniTuple(table.dtype, count, kind)(table)

            def generate(context, builder, signature, args):
                data = context.make_array(signature.args[0])(context, builder, args[0]).data
                values = []
                for i in range(count):
                    values.append(builder.load(builder.gep(data, [ir.Constant(ir.IntType(64), i)])))
                    values[-1].set_metadata("invariant.load", builder.module.add_metadata([]))
                return context.make_tuple(builder, signature.return_type, values)

            return signature, generate

        return fields

    @block_function
    def pair(low, high):
        return uint32(low) | uint32(uint32(high) << uint32(16))
