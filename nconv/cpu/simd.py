"""SIMD vectors as a Numba type, so that kernels are written in Python and read like the mathematics.

`Vec(dtype, n)` holds n numbers in a register. Values come from `vload` and `splat`, go with `vstore`, and know
`+ - *`. A product followed by a sum is fused where the machine can (`contract`), never called as a library function
where it cannot. The width is the machine's widest; LLVM splits or widens it elsewhere, so any width is right
everywhere and the choice matters only for speed.
"""

import operator

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import PrimitiveModel, register_default
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype

from ..machine import vector_bytes

FAST = ("contract", "nsz")       # no NaN or infinity is assumed away
INT = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


def lanes(dtype) -> int:
    """Elements of a real `dtype` in one vector."""
    return vector_bytes() // np.dtype(dtype).itemsize


class Vec(types.Type):
    """n numbers of a Numba scalar type in one register."""

    def __init__(self, dtype, n):
        self.dtype = dtype
        self.n = n
        super().__init__(f"Vec({dtype}, {n})")


@register_default(Vec)
class _VecModel(PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, ir.VectorType(manager.lookup(fe_type.dtype).get_value_type(), fe_type.n))


def vec_of(dtype):
    """The machine's vector of a Numba scalar type."""
    return Vec(dtype, vector_bytes() * 8 // dtype.bitwidth)


# ------------------------------------------------------------------------------- For those who emit instructions


def address_of(context, builder, array_type, array, index):
    """Address of array[index] of a contiguous 1-D array, without a bounds check."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index])


def load_vector(builder, pointer, vector_type, align):
    """The vector at an address of any alignment that the elements have."""
    value = builder.load(builder.bitcast(pointer, vector_type.as_pointer()))
    value.align = align
    return value


def store_vector(builder, value, pointer, align):
    """Write a vector to an address of any alignment that the elements have."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = align


def masked(builder, name, vec, arguments, result):
    """Call llvm.masked.load or .store for a vector type."""
    kind = f"{'f' if isinstance(vec.dtype, types.Float) else 'i'}{vec.dtype.bitwidth}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [a.type for a in arguments]),
        f"llvm.masked.{name}.v{vec.n}{kind}.p0v{vec.n}{kind}")
    return builder.call(function, arguments)


def first_lanes(builder, n, count):
    """The mask of the lanes i < count."""
    lanes = ir.Constant(ir.VectorType(INT, n), list(range(n)))
    return builder.icmp_signed("<", lanes, broadcast(builder, count, n))


def lanes_of_bits(builder, vec, bits):
    """The mask of the lanes whose bits are set.

    A register of AVX-512's masks is such a number; elsewhere LLVM would take it apart bit by bit, so each lane looks at
    its own.
    """
    if vector_bytes() == 64:
        return builder.bitcast(builder.trunc(bits, ir.IntType(vec.n)), ir.VectorType(ir.IntType(1), vec.n))
    number = ir.IntType(vec.dtype.bitwidth)
    bits = bits if number.width == bits.type.width else builder.trunc(bits, number)
    own = ir.Constant(ir.VectorType(number, vec.n), [1 << i for i in range(vec.n)])
    return builder.icmp_signed("==", builder.and_(broadcast(builder, bits, vec.n), own), own)


def _load_first(context, builder, vec, pointer, count):
    """The first `count` elements at an address, zeros behind them."""
    vector_type = context.get_value_type(vec)
    return masked(builder, "load", vec, [
        builder.bitcast(pointer, vector_type.as_pointer()), ir.Constant(ir.IntType(32), vec.dtype.bitwidth // 8),
        first_lanes(builder, vec.n, count), ir.Constant(vector_type, None)], vector_type)


def store_first(builder, vec, value, pointer, count):
    """Write the first `count` < n lanes of a vector.

    Only AVX-512 has stores of some lanes that cost no more than others; else a half, a quarter and so on of the vector
    are stored, each where the number has its bit.
    """
    align = vec.dtype.bitwidth // 8
    if vector_bytes() == 64:
        masked(builder, "store", vec, [value, builder.bitcast(pointer, value.type.as_pointer()),
                                       ir.Constant(ir.IntType(32), align), first_lanes(builder, vec.n, count)],
               ir.VoidType())
        return
    half = vec.n // 2
    while half:
        low, high = (builder.shuffle_vector(value, value, ir.Constant(
            ir.VectorType(ir.IntType(32), half), [start + i for i in range(half)])) for start in (0, half))
        stored = builder.icmp_signed("!=", builder.and_(count, ir.Constant(INT, half)), ir.Constant(INT, 0))
        with builder.if_then(stored):
            store_vector(builder, low, pointer, align)
        pointer = builder.select(stored, builder.gep(pointer, [ir.Constant(INT, half)]), pointer)
        value = builder.select(stored, high, low)
        half //= 2


def store_last(builder, vec, value, pointer, first):
    """Write the lanes of a vector from `first` on."""
    wanted = builder.not_(first_lanes(builder, vec.n, first))
    masked(builder, "store", vec, [value, builder.bitcast(pointer, value.type.as_pointer()),
                                   ir.Constant(ir.IntType(32), vec.dtype.bitwidth // 8), wanted], ir.VoidType())


def ask_for(builder, pointer):
    """Ask for the cache line at an address, which is read soon, in the second level; any address is harmless."""
    flag = ir.IntType(32)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [_BYTES, flag, flag, flag]), "llvm.prefetch.p0i8")
    builder.call(function, [builder.bitcast(pointer, _BYTES), flag(0), flag(2), flag(1)])       # a read, of data


def even_lanes(builder, low, high):
    """Elements 0, 2, 4, ... of memory of which `low` holds the first n and `high` those from the n - 1st on."""
    n = low.type.count
    even = [2 * i if 2 * i < n else 2 * i + 1 for i in range(n)]
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(ir.IntType(32), n), even))


def alternate_lanes(builder, low, high, first):
    """Elements `first` (0 or 1), 2 further and so on of memory whose first n are in `low`, the next n in `high`."""
    n = low.type.count
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(ir.IntType(32), n),
                                                         [first + 2 * i for i in range(n)]))


def _in_turn(builder, even, odd):
    """The lanes of two vectors, one of the first, one of the second and so on, in two vectors."""
    n = even.type.count
    turns = [[half * n // 2 + i // 2 + (n if i % 2 else 0) for i in range(n)] for half in (0, 1)]
    return [builder.shuffle_vector(even, odd, ir.Constant(ir.VectorType(ir.IntType(32), n), turn)) for turn in turns]


def broadcast(builder, scalar, n):
    """The vector of n equal lanes."""
    vector_type = ir.VectorType(scalar.type, n)
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n))


def multiply_add(builder, dtype, a, b, c):
    """a b + c, fused where the machine can."""
    if isinstance(dtype, types.Float):
        return builder.fadd(builder.fmul(a, b, flags=FAST), c, flags=FAST)
    return builder.add(builder.mul(a, b), c)


def transposed(builder, rows, bits):
    """The columns of a square of n vectors of elements of so many bits; of longer vectors, n lanes at a time.

    Squares within 16 bytes are transposed by interleaving, for which there are instructions; before that, ever smaller
    squares exchange their off-diagonal halves, in log2 rounds all together.
    """
    rows = list(rows)
    n, lanes = len(rows), rows[0].type.count
    mask = ir.VectorType(ir.IntType(32), lanes)
    near = min(n, 128 // bits)

    def shuffled(a, b, order):
        return builder.shuffle_vector(a, b, ir.Constant(mask, order))

    half = n // 2
    while half >= near:
        lower = [j - half + lanes if j & half else j for j in range(lanes)]
        upper = [j + lanes if j & half else j + half for j in range(lanes)]
        for i in range(n):
            if not i & half:
                a, b = rows[i], rows[i + half]
                rows[i], rows[i + half] = shuffled(a, b, lower), shuffled(a, b, upper)
        half //= 2
    interleaved = [[j - j % near + (first + j % near) // 2 + j % 2 * lanes for j in range(lanes)]
                   for first in (0, near)]
    for base in range(0, n, near):
        square = rows[base:base + near]
        for _ in range(near.bit_length() - 1):
            square = [shuffled(a, b, order) for a, b in zip(square, square[near // 2:], strict=False)
                      for order in interleaved]
        rows[base:base + near] = square
    return rows


# ----------------------------------------------------------------------------------------------- For kernels


@intrinsic
def vload(typingctx, array, index):
    """The vector at array[index:]; `array` is 1-D and contiguous, no alignment is needed."""
    vec = vec_of(array.dtype)

    def codegen(context, builder, sig, args):
        pointer = address_of(context, builder, sig.args[0], args[0], args[1])
        return load_vector(builder, pointer, context.get_value_type(vec), array.dtype.bitwidth // 8)

    return vec(array, types.intp), codegen


@intrinsic
def vload_even(typingctx, array, index):
    """Every other element of array[index:], as many as a vector holds."""
    vec = vec_of(array.dtype)

    def codegen(context, builder, sig, args):
        pointer = address_of(context, builder, sig.args[0], args[0], args[1])
        vector_type = context.get_value_type(vec)
        low, high = (load_vector(builder, builder.gep(pointer, [ir.Constant(INT, i)]), vector_type,
                           array.dtype.bitwidth // 8) for i in (0, vec.n - 1))
        return even_lanes(builder, low, high)

    return vec(array, types.intp), codegen


@intrinsic
def vload_first(typingctx, array, index, count, fill):
    """array[index:index + count] for less than a vector of elements, `fill` in the other lanes."""
    vec = vec_of(array.dtype)

    def codegen(context, builder, sig, args):
        array, index, count, fill = args
        loaded = _load_first(context, builder, vec, address_of(context, builder, sig.args[0], array, index), count)
        return builder.select(first_lanes(builder, vec.n, count), loaded, broadcast(builder, fill, vec.n))

    return vec(array, types.intp, types.intp, array.dtype), codegen


@intrinsic
def vload_where(typingctx, array, index, bits):
    """The vector at array[index:] in the lanes i whose bit ``bits >> i & 1`` is set, zeros in the others."""
    vec = vec_of(array.dtype)

    def codegen(context, builder, sig, args):
        array, index, bits = args
        vector_type = context.get_value_type(vec)
        wanted = lanes_of_bits(builder, vec, bits)
        pointer = address_of(context, builder, sig.args[0], array, index)
        return masked(builder, "load", vec, [
            builder.bitcast(pointer, vector_type.as_pointer()), ir.Constant(ir.IntType(32), vec.dtype.bitwidth // 8),
            wanted, ir.Constant(vector_type, None)], vector_type)

    return vec(array, types.intp, types.int64), codegen


@intrinsic
def vstore(typingctx, array, index, value):
    """Write a vector to array[index:]."""

    def codegen(context, builder, sig, args):
        pointer = address_of(context, builder, sig.args[0], args[0], args[1])
        store_vector(builder, args[2], pointer, array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def vstore_in_turn(typingctx, array, index, even, odd):
    """Write the lanes of two vectors to array[index:], one of the first, one of the second and so on."""
    vec = vec_of(array.dtype)

    def codegen(context, builder, sig, args):
        array, index, even, odd = args
        pointer = address_of(context, builder, sig.args[0], array, index)
        for half, value in enumerate(_in_turn(builder, even, odd)):
            store_vector(builder, value, builder.gep(pointer, [ir.Constant(INT, half * vec.n)]),
                         vec.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, even, odd), codegen


@intrinsic
def vstore_turns(typingctx, array, index, vectors):
    """`vstore_in_turn` of any number of vectors, a tuple."""
    vec, count = vec_of(array.dtype), len(vectors)

    def codegen(context, builder, sig, args):
        pointer = address_of(context, builder, sig.args[0], args[0], args[1])
        values = cgutils.unpack_tuple(builder, args[2], count)
        for number in range(count):
            value = values[0]
            for turn, other in enumerate(values):       # each brings its lanes to their places among those so far
                lanes = [divmod(number * vec.n + i, count) for i in range(vec.n)]
                value = builder.shuffle_vector(value, other, ir.Constant(ir.VectorType(ir.IntType(32), vec.n), [
                    vec.n + at if whose == turn else i for i, (at, whose) in enumerate(lanes)]))
            store_vector(builder, value, builder.gep(pointer, [ir.Constant(INT, number * vec.n)]),
                         vec.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors), codegen


@intrinsic
def vstore_in_turn_first(typingctx, array, index, even, odd, count):
    """`vstore_in_turn` of the first `count` elements, less than two vectors."""
    vec = vec_of(array.dtype)

    def codegen(context, builder, sig, args):
        array, index, even, odd, count = args
        pointer = address_of(context, builder, sig.args[0], array, index)
        low, high = _in_turn(builder, even, odd)
        behind = builder.sub(count, ir.Constant(INT, vec.n))
        with builder.if_else(builder.icmp_signed(">=", behind, ir.Constant(INT, 0))) as (more, less):
            with more:
                store_vector(builder, low, pointer, vec.dtype.bitwidth // 8)
                store_first(builder, vec, high, builder.gep(pointer, [ir.Constant(INT, vec.n)]), behind)
            with less:
                store_first(builder, vec, low, pointer, count)
        return context.get_dummy_value()

    return types.void(array, types.intp, even, odd, types.intp), codegen


@intrinsic
def vstore_parted(typingctx, array, even, odd, low, high):
    """Write elements 0, 2, ... of two vectors side by side to array[even:], the others to array[odd:]."""
    vec = vec_of(array.dtype)

    def codegen(context, builder, sig, args):
        array, even, odd, low, high = args
        for first, index in enumerate((even, odd)):
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), vec.n), [2 * i + first for i in range(vec.n)])
            store_vector(builder, builder.shuffle_vector(low, high, lanes),
                         address_of(context, builder, sig.args[0], array, index), vec.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, low, high), codegen


@intrinsic
def copy_first(typingctx, target, t, source, s, count):
    """target[t:t + count] = source[s:s + count] for less than a vector of elements."""
    vec = vec_of(target.dtype)
    sig = types.void(target, types.intp, source, types.intp, types.intp)

    def codegen(context, builder, sig, args):
        target, t, source, s, count = args
        value = _load_first(context, builder, vec, address_of(context, builder, sig.args[2], source, s), count)
        store_first(builder, vec, value, address_of(context, builder, sig.args[0], target, t), count)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def copy_even_first(typingctx, target, t, source, s, count):
    """target[t + i] = source[s + 2 i] for 0 < count < lanes elements."""
    vec = vec_of(target.dtype)
    sig = types.void(target, types.intp, source, types.intp, types.intp)

    def codegen(context, builder, sig, args):
        target, t, source, s, count = args
        at = address_of(context, builder, sig.args[2], source, s)
        read = builder.sub(builder.add(count, count), ir.Constant(INT, 1))
        low, high = (_load_first(context, builder, vec, builder.gep(at, [ir.Constant(INT, first)]),
                                 builder.sub(read, ir.Constant(INT, first))) for first in (0, vec.n - 1))
        store_first(builder, vec, even_lanes(builder, low, high),
                    address_of(context, builder, sig.args[0], target, t), count)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line of array[index], which is read soon, in the second level; any address is harmless."""

    def codegen(context, builder, sig, args):
        ask_for(builder, address_of(context, builder, sig.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def copy(typingctx, target, t, source, s, count):
    """target[t:t + count] = source[s:s + count]; Numba's own loop would test every index for a negative one."""
    sig = types.void(target, types.intp, source, types.intp, types.intp)

    def codegen(context, builder, sig, args):
        target, t, source, s, count = args
        cgutils.raw_memcpy(builder, address_of(context, builder, sig.args[0], target, t),
                           address_of(context, builder, sig.args[2], source, s), count,
                           sig.args[0].dtype.bitwidth // 8, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def splat(typingctx, scalar):
    """The vector whose every lane holds `scalar`."""
    vec = vec_of(scalar)
    return vec(scalar), lambda context, builder, sig, args: broadcast(builder, args[0], vec.n)


def _define_operator(op, float_instruction, int_instruction):
    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vec) and args[0] == args[1]:
                return signature(args[0], *args)

    @lower_builtin(op, Vec, Vec)
    def _lower(context, builder, sig, args):
        if isinstance(sig.args[0].dtype, types.Float):
            return getattr(builder, float_instruction)(*args, flags=FAST)
        return getattr(builder, int_instruction)(*args)


for _op, _name in ((operator.add, "add"), (operator.sub, "sub"), (operator.mul, "mul")):
    _define_operator(_op, "f" + _name, _name)


def _magnitude(builder, value):
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(value.type, [value.type]),
        f"llvm.fabs.v{value.type.count}f{32 if isinstance(value.type.element, ir.FloatType) else 64}")
    return builder.call(function, [value])


@intrinsic
def larger_magnitude(typingctx, largest, value):
    """max(largest, |value|) lane by lane; a NaN in `value` is passed over."""

    def codegen(context, builder, sig, args):
        magnitude = _magnitude(builder, args[1])
        return builder.select(builder.fcmp_ordered(">", magnitude, args[0]), magnitude, args[0])

    return largest(largest, value), codegen


@intrinsic
def largest_or_nan(typingctx, largest, value):
    """max(largest, |value|) lane by lane, in which a NaN is larger than everything: magnitudes order like integers."""

    def codegen(context, builder, sig, args):
        bits = value.dtype.bitwidth
        integers = ir.VectorType(ir.IntType(bits), value.n)
        before = builder.bitcast(args[0], integers)
        after = builder.and_(builder.bitcast(args[1], integers), ir.Constant(integers, [2 ** (bits - 1) - 1] * value.n))
        return builder.bitcast(builder.select(builder.icmp_signed(">", after, before), after, before), args[0].type)

    return largest(largest, value), codegen


@intrinsic
def smallest_nonzero(typingctx, smallest, value):
    """min(smallest, value) lane by lane for values that are not negative; a zero is passed over."""

    def codegen(context, builder, sig, args):
        zero = ir.Constant(args[1].type, None)
        less = builder.and_(builder.fcmp_ordered("<", args[1], args[0]), builder.fcmp_ordered(">", args[1], zero))
        return builder.select(less, args[1], args[0])

    return smallest(smallest, value), codegen


def _chosen_lane(comparison):
    """`largest_lane` or `smallest_lane`."""

    def lane(typingctx, vector):
        def codegen(context, builder, sig, args):
            value, n = args[0], vector.n
            while n > 1:
                n //= 2
                low, high = (builder.shuffle_vector(value, value, ir.Constant(
                    ir.VectorType(ir.IntType(32), n), [start + i for i in range(n)])) for start in (0, n))
                value = builder.select(builder.fcmp_ordered(comparison, low, high), low, high)
            return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

        return vector.dtype(vector), codegen

    return intrinsic(lane)


largest_lane = _chosen_lane(">")
"""The largest lane of a vector without NaN."""
smallest_lane = _chosen_lane("<")
"""The smallest lane of a vector without NaN."""


@intrinsic
def lanes_of(typingctx, array):
    """`lanes` of an array's type, a constant in the kernel."""
    vec = vec_of(array.dtype)
    return types.intp(array), lambda context, builder, sig, args: ir.Constant(INT, vec.n)


def _limit_of(name):
    """`epsilon_of` and its like; `np.finfo` would be compiled, and sought by each process that loads a kernel."""

    def limit(typingctx, array):
        value = float(getattr(np.finfo(as_dtype(array.dtype)), name))
        return array.dtype(array), lambda context, builder, sig, args: context.get_constant(sig.return_type, value)

    return intrinsic(limit)


epsilon_of = _limit_of("eps")
"""The spacing of an array's type at one, a constant in the kernel."""
largest_of = _limit_of("max")
"""The largest number of an array's type, a constant in the kernel."""
exponents_of = _limit_of("maxexp")
"""The least power of two that an array's type cannot hold, as a number of that type."""


@intrinsic
def transpose_square(typingctx, target, t, ldt, source, s, lds):
    """target[t + j ldt + i] = source[s + i lds + j] for i, j < lanes, through registers."""
    vec = vec_of(source.dtype)
    n = vec.n
    sig = types.void(target, types.intp, types.intp, source, types.intp, types.intp)

    def codegen(context, builder, sig, args):
        target, t, ldt, source, s, lds = args
        vector_type = context.get_value_type(vec)
        align = vec.dtype.bitwidth // 8
        to = address_of(context, builder, sig.args[0], target, t)
        at = address_of(context, builder, sig.args[3], source, s)
        rows = [load_vector(builder, builder.gep(at, [builder.mul(lds, ir.Constant(INT, i))]), vector_type, align)
                for i in range(n)]
        for j, row in enumerate(transposed(builder, rows, vec.dtype.bitwidth)):
            store_vector(builder, row, builder.gep(to, [builder.mul(ldt, ir.Constant(INT, j))]), align)
        return context.get_dummy_value()

    return sig, codegen
