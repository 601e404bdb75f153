"""Instructions that Numba has no name for, each with a body in plain Python for the simulator.

They are Numba intrinsics, inlined where they are called: loads and stores that count no index from the end, as Python
does with a negative one (a comparison and a choice at every access), some of 128 bits; the tensor cores' product.
"""

from __future__ import annotations

import operator
from functools import cache

import numpy as np

from .device import SIMULATED, block_function, cuda

__all__ = ["behind", "close_copies", "copy_async", "fields", "load", "load_or", "load_where", "magnitude",
           "pair", "quotient", "store", "vload4", "vstore", "wait_copies", "warp_max", "window_store", "window_sums"]


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
    def behind(array, start):
        """The array from an element on, which is never negative; its length stays what it was."""
        return array[start:]

    @block_function
    def load_where(array, at, inside, other, which):
        """array[at] where `inside`, else other[which] as the bits of the first one's type, without a branch."""
        return array[at] if inside else other[which]

    @block_function
    def load_or(array, at, other):
        """array[at], or another number of its type where the index is negative, without a branch."""
        return array[at] if at >= 0 else other

    @block_function
    def pair(low, high):
        """Two numbers of 16 bits as one word of 32."""
        return np.uint32(int(low) | int(high) << 16)

    @block_function
    def magnitude(value):
        """The leading 32 bits of a float without its sign: a whole number that grows with it, NaN above all others."""
        bits = int(value.view(f"i{value.itemsize}")) >> 8 * value.itemsize - 32
        return np.int32(bits & 0x7FFFFFFF)

    @block_function
    def quotient(number, by):
        """number // by, neither negative, in 32 bits and without a look whether `by` is 0."""
        return np.int32(number // by)

    @block_function
    def warp_max(value):
        """The largest of a warp's whole numbers, for all of its threads; in the simulator a warp is one thread."""
        return value

    @cache
    def fields(kind):
        """A function that reads a named tuple of whole numbers, of the given kind, from an array of them.

        As an argument of a kernel each number of a tuple would be converted at each launch, which takes Numba longer
        than most kernels run.
        """
        return block_function(lambda table: kind(*(int(number) for number in table)))

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
    def load_or(typingctx, array, at, other):
        signature = array.dtype(array, at, array.dtype)

        def generate(context, builder, signature, args):
            kind, place = args[2].type, args[1].type
            address = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
            width = signature.return_type.bitwidth
            word, letter, sign = ir.IntType(width), "l" if width == 64 else "r", "l" if place.width == 64 else "r"
            # A predicate, where a choice of the address would take two instructions more.
            read = ir.InlineAsm(
                ir.FunctionType(word, [place, ir.IntType(64), word]),
                f"{{{{ .reg .pred inside; setp.ge.s{place.width} inside, $1, 0; mov.b{width} $0, $3; "
                f"@inside ld.global.b{width} $0, [$2]; }}}}", f"=&{letter},{sign},l,{letter}", False)
            found = builder.call(read, [args[1], builder.ptrtoint(address, ir.IntType(64)),
                                        builder.bitcast(args[2], word)])
            return builder.bitcast(found, kind)

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

    @intrinsic
    def quotient(typingctx, number, by):
        def generate(context, builder, signature, args):
            return builder.udiv(*args)

        return types.int32(types.int32, types.int32), generate

    @intrinsic
    def warp_max(typingctx, value):
        def generate(context, builder, signature, args):
            word = ir.IntType(32)
            kind = ir.FunctionType(word, [word])
            largest = ir.InlineAsm(kind, "redux.sync.max.s32 $0, $1, 0xffffffff;", "=r,r", True)
            return builder.call(largest, args)

        return types.int32(types.int32), generate

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
