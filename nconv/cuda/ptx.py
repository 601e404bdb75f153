"""Instructions that Numba has no name for, each with a body in plain Python for the simulator.

They are Numba intrinsics, inlined where they are called: loads and stores of 128 bits, and the tensor cores' product.
"""

from __future__ import annotations

import numpy as np

from .device import SIMULATED, block_function, cuda

__all__ = ["fragment_product", "vload4", "vstore4"]


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

    def _tf32(value):
        """A float32 rounded to the eleven bits that tensor cores read."""
        value = np.float32(value)
        return np.uint32((int(value.view(np.uint32)) + 0x1000) & 0xFFFFE000).view(np.float32) if np.isfinite(
            value) else value

    @block_function
    def fragment_product(a, at_a, pitch_a, b, at_b, pitch_b, lane, sums):
        """[16 x 8] [8 x 8] on the tensor cores of a warp, in TF32: a lane's four of the 128 sums.

        Element (row, tap) of the first factor is a[at_a + tap pitch_a + row], (tap, column) of the second
        b[at_b + tap pitch_b + column]. The lane's sums are those of rows lane / 4 and 8 below, columns 2 (lane % 4) and
        the next: (row, column), (row, next), (below, column), (below, next).
        """
        row, column = lane // 4, lane % 4 * 2
        result = list(sums)
        for tap in range(8):
            for i in range(4):
                result[i] += (_tf32(a[at_a + tap * pitch_a + row + i // 2 * 8])
                              * _tf32(b[at_b + tap * pitch_b + column + i % 2]))
        return tuple(np.float32(v) for v in result)

else:
    from llvmlite import ir
    from numba import types
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
            for i in range(4):
                vector = builder.insert_element(vector, builder.extract_value(args[2], i),
                                                ir.Constant(ir.IntType(32), i))
            builder.store(vector, pointer, align=16)
            return context.get_dummy_value()

        return signature, generate

    @intrinsic
    def _round_tf32(typingctx, value):
        def generate(context, builder, signature, args):
            kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()])
            return builder.call(ir.InlineAsm(kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f"), args)

        return types.uint32(types.float32), generate

    @intrinsic
    def _mma(typingctx, a0, a1, a2, a3, b0, b1, sums):
        signature = sums(a0, a1, a2, a3, b0, b1, sums)

        def generate(context, builder, signature, args):
            single = ir.FloatType()
            kind = ir.FunctionType(ir.LiteralStructType([single] * 4), [ir.IntType(32)] * 6 + [single] * 4)
            instruction = ir.InlineAsm(
                kind, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, "
                "{$10,$11,$12,$13};", "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f")
            result = builder.call(instruction, [*args[:6], *(builder.extract_value(args[6], i) for i in range(4))])
            values = [builder.extract_value(result, i) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, values)

        return signature, generate

    @block_function
    def fragment_product(a, at_a, pitch_a, b, at_b, pitch_b, lane, sums):
        row, tap = lane // 4, lane % 4
        at_a += tap * pitch_a + row
        at_b += tap * pitch_b + row
        return _mma(_round_tf32(a[at_a]), _round_tf32(a[at_a + 8]), _round_tf32(a[at_a + 4 * pitch_a]),
                    _round_tf32(a[at_a + 4 * pitch_a + 8]), _round_tf32(b[at_b]), _round_tf32(b[at_b + 4 * pitch_b]),
                    sums)
