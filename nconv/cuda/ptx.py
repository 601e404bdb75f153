"""Instructions that Numba has no name for, each with a body in plain Python for the simulator.

They are Numba intrinsics, inlined where they are called: loads and stores that count no index from the end, as Python
does with a negative one (a comparison and a choice at every access), some of 128 bits; the tensor cores' product.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .device import SIMULATED, block_function, cuda

__all__ = ["fields", "load", "load_where", "magnitude", "pair", "store", "vload4", "vstore"]


if SIMULATED or cuda is None:

    @block_function
    def vload4(array, at):
        """Four neighbours of a one-dimensional array, the first at a multiple of four."""
        return array[at], array[at + 1], array[at + 2], array[at + 3]

    @block_function
    def vstore(array, at, values):
        """Write two or four neighbours, the first at a multiple of their number."""
        for i, value in enumerate(values):
            array[at + i] = value

    @block_function
    def load(array, at):
        """array[at] for an index that is never negative."""
        return array[at]

    @block_function
    def store(array, at, value):
        """array[at] = value for an index that is never negative."""
        array[at] = value

    @block_function
    def load_where(array, at, inside, other, which):
        """array[at] where `inside`, else other[which] as the bits of the first one's type, without a branch."""
        return array[at] if inside else other[which]

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

    def _vector_pointer(context, builder, array_type, array, index, count=4):
        """Pointer to so many elements, and their type."""
        element = context.get_data_type(array_type.dtype)
        data = context.make_array(array_type)(context, builder, array).data
        vector = ir.VectorType(element, count)
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
    def vstore(typingctx, array, at, values):
        signature = types.void(array, at, values)

        def generate(context, builder, signature, args):
            count, of, to = len(signature.args[2]), signature.args[2].dtype, signature.args[0].dtype
            pointer, kind = _vector_pointer(context, builder, signature.args[0], *args[:2], count)
            vector = ir.Constant(kind, ir.Undefined)
            for i in range(count):
                value = context.cast(builder, builder.extract_value(args[2], i), of, to)
                vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), i))
            builder.store(vector, pointer, align=min(16, count * to.bitwidth // 8))
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
    def load_where(typingctx, array, at, inside, other, which):
        signature = array.dtype(array, at, inside, other, which)

        def generate(context, builder, signature, args):
            def address(i):
                return builder.gep(context.make_array(signature.args[i])(context, builder, args[i]).data, [args[i + 1]])

            there = address(0)
            chosen = builder.select(args[2], there, builder.bitcast(address(3), there.type))
            return context.unpack_value(builder, signature.return_type, chosen)

        return signature, generate

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
