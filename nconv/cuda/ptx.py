"""Instructions that Numba has no name for, each with a body in plain Python for the simulator.

They are Numba intrinsics, inlined where they are called: loads and stores that count no index from the end, as Python
does with a negative one (a comparison and a choice at every access), some of 128 bits; the tensor cores' product.
"""

from __future__ import annotations

import operator
from functools import cache

import numpy as np

from .device import SIMULATED, block_function, cuda

__all__ = ["behind", "close_copies", "copy_async", "half_product", "load", "load_where", "pair", "round_tf32", "store",
           "tf32_product", "vload4", "vstore4", "wait_copies", "window_store", "window_sums"]


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
    def behind(array, start):
        """The array from an element on, which is never negative; its length stays what it was."""
        return array[start:]

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
    def copy_async(target, to, source, at):
        """target[to] = source[at], from global to shared memory of the same type; done when one has waited for it."""
        target[to] = source[at]

    @block_function
    def close_copies():
        """Make the copies begun since the last time a group, for which one can wait."""

    @block_function
    def wait_copies(more):
        """Wait for the thread's own copies: all groups, or all but the last one."""

    @cache
    def window_sums(J, Q, R, S):
        """The function that adds R x S taps to J x Q sums: all loops unrolled, the sums in registers.

        sums[j Q + q] += sum of tile[at_w + r w_row + s] tile[at + (j + r) row + (q + s) step].
        """

        @block_function
        def window_sums(sums, tile, at, row, step, at_w, w_row):
            for j, q, r, s in np.ndindex(J, Q, R, S):
                sums[j * Q + q] += tile[at_w + r * w_row + s] * tile[at + (j + r) * row + (q + s) * step]

        return window_sums

    @cache
    def window_store(J, Q):
        """The function that puts these sums, plus a number, into tile[at + j row + q]."""

        @block_function
        def window_store(sums, more, tile, at, row):
            for j, q in np.ndindex(J, Q):
                tile[at + j * row + q] = sums[j * Q + q] + more

        return window_store

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
    def behind(typingctx, array, start):
        def generate(context, builder, signature, args):
            # In bytes: what is added in elements later would be summed with the start first, at every access.
            view = context.make_array(signature.return_type)(context, builder, args[0])
            first = builder.bitcast(view.data, ir.PointerType(ir.IntType(8)))
            there = builder.gep(first, [builder.mul(args[1], view.itemsize)])
            view.data = builder.bitcast(there, view.data.type)
            return view._getvalue()

        return array(array, start), generate

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

    @block_function
    def pair(low, high):
        return uint32(low) | uint32(uint32(high) << uint32(16))

    def _multiply_add(context, builder, kind, a, b, total):
        """total + a b, fused where the GPU has an instruction for it."""
        if isinstance(kind, types.Complex):
            x, y, z = (context.make_complex(builder, kind, value) for value in (a, b, total))
            minus = builder.fsub(ir.Constant(x.imag.type, -0.0), x.imag)
            z.real = builder.fma(x.real, y.real, builder.fma(minus, y.imag, z.real))
            z.imag = builder.fma(x.real, y.imag, builder.fma(x.imag, y.real, z.imag))
            return z._getvalue()
        return builder.fma(a, b, total) if isinstance(kind, types.Float) else builder.add(builder.mul(a, b), total)

    @intrinsic
    def copy_async(typingctx, target, to, source, at):
        def generate(context, builder, signature, args):
            kind = signature.args[0].dtype
            bits = kind.bitwidth // 2 if isinstance(kind, types.Complex) else kind.bitwidth
            number, here = ir.IntType(bits), ir.IntType(32)
            shared, there = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 2))
            # A complex number is two: it may lie at any multiple of its half.
            first = builder.addrspacecast(builder.bitcast(builder.gep(shared, [args[1]]), ir.PointerType(number)),
                                          ir.PointerType(number, 3))
            source = builder.bitcast(builder.gep(there, [args[3]]), ir.PointerType(number))
            copy = ir.InlineAsm(ir.FunctionType(ir.VoidType(), [here, ir.IntType(64)]),
                                f"cp.async.ca.shared.global [$0], [$1], {bits // 8};", "r,l,~{memory}", True)
            for i in range(kind.bitwidth // bits):
                builder.call(copy, [builder.ptrtoint(builder.gep(first, [here(i)]), here),
                                    builder.ptrtoint(builder.gep(source, [here(i)]), ir.IntType(64))])
            return context.get_dummy_value()

        return types.void(target, to, source, at), generate

    def _order(text):
        """The intrinsic of an instruction without operands, which no access to memory passes."""

        @intrinsic
        def order(typingctx):
            def generate(context, builder, signature, args):
                builder.call(ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), text, "~{memory}", True), [])
                return context.get_dummy_value()

            return types.void(), generate

        return order

    close_copies = _order("cp.async.commit_group;")
    _wait_all, _wait_others = _order("cp.async.wait_group 0;"), _order("cp.async.wait_group 1;")

    @block_function
    def wait_copies(more):
        if more:
            _wait_others()
        else:
            _wait_all()

    @cache
    def window_sums(J, Q, R, S):

        @intrinsic
        def window_sums(typingctx, sums, tile, at, row, step, at_w, w_row):
            signature = types.void(sums, tile, *(types.int32,) * 5)

            def generate(context, builder, signature, args):
                kind = signature.args[0].dtype
                source, shared = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 1))
                at, row, step, at_w, w_row = args[2:]

                def read(pointer):
                    return context.unpack_value(builder, kind, pointer)

                def places(first, step, count):
                    """Pointers `step` elements apart."""
                    return [builder.gep(first, [builder.mul(step, step.type(i))]) for i in range(count)]

                targets = places(source, row.type(1), J * Q)
                totals = [read(pointer) for pointer in targets]
                factors = [[read(pointer) for pointer in places(taps, row.type(1), S)]
                           for taps in places(builder.gep(shared, [at_w]), w_row, R)]
                for i, line in enumerate(places(builder.gep(shared, [at]), row, J + R - 1)):
                    window = [read(pointer) for pointer in places(line, step, Q + S - 1)]
                    for r in range(max(0, i - J + 1), min(R, i + 1)):
                        for s in range(S):
                            for q in range(Q):
                                to = (i - r) * Q + q
                                totals[to] = _multiply_add(context, builder, kind, factors[r][s], window[q + s],
                                                           totals[to])
                for pointer, total in zip(targets, totals, strict=True):
                    context.pack_value(builder, kind, total, pointer)
                return context.get_dummy_value()

            return signature, generate

        return window_sums

    @cache
    def window_store(J, Q):

        @intrinsic
        def window_store(typingctx, sums, more, tile, at, row):
            signature = types.void(sums, sums.dtype, tile, types.int32, types.int32)

            def generate(context, builder, signature, args):
                kind = signature.args[0].dtype
                add = context.get_function(operator.add, kind(kind, kind))
                source, target = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 2))
                at, row = args[3:]
                for j in range(J):
                    line = builder.gep(target, [builder.add(at, builder.mul(row, row.type(j)))])
                    for q in range(Q):
                        total = context.unpack_value(builder, kind, builder.gep(source, [row.type(j * Q + q)]))
                        context.pack_value(builder, kind, add(builder, (total, args[1])),
                                           builder.gep(line, [row.type(q)]))
                return context.get_dummy_value()

            return signature, generate

        return window_store
