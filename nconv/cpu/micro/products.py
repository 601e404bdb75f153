"""Register tiles over many channels.

`multiply_tile`: rows are output channels, columns positions. `multiply_patches`: rows are positions, columns output
channels; `multiply_rows`: the same of a matrix in memory, with a bound on how far roundings pile up.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..simd import address_of, broadcast, load_vector, multiply_add, store_vector, vec_of
from .emit import Tile, const, loop, merged, size_of


def _start(builder, add, fresh, so_far):
    """`fresh` sums, or what ``so_far()`` loads where `add`."""
    entry = builder.block
    with builder.if_then(add):
        old = so_far()
        loaded = builder.block
    return merged(builder, (entry, fresh), (loaded, old))


def _add_products(builder, vec, sums, rows, address, columns):
    """sums[i, j] + scalar of row i * vector of column j, for some rows; `address` gives a row's scalar."""
    after = {}
    for i in rows:
        scalar = broadcast(builder, builder.load(address(i)), vec.n)
        for j, column in enumerate(columns):
            after[i, j] = multiply_add(builder, vec.dtype, scalar, column, sums[i, j])
    return after


@intrinsic
def multiply_tile(typingctx, out, o, ldo, height, width, add, bias, b, x, p, offsets, weight, w, t0, t1, rows, columns):
    """A tile of sums over taps of shifted vectors: rows are output channels, columns run along positions.

    ``out[o + i ldo + j] = start(i) + sum over t0 <= t < t1 of weight[w + t M + i] * x[p + offsets[t] + j]`` for
    i < height <= M and j < width <= V lanes; what lies beyond is computed but not stored. ``start(i)`` is what `out`
    holds where `add`, else ``bias[(b + i) % bias.size]``.
    """
    M, V = rows.count, columns.count
    vec = vec_of(out.dtype)
    align = vec.dtype.bitwidth // 8
    index = types.intp
    sig = types.void(out, index, index, index, index, types.boolean, bias, index, x, index, offsets, weight, index,
                     index, index, rows, columns)

    def codegen(context, builder, sig, args):
        out, o, ldo, height, width, add, bias, b, x, p, offsets, weight, w, t0, t1, _, _ = args
        out_base = address_of(context, builder, sig.args[0], out, o)
        x_base = address_of(context, builder, sig.args[8], x, p)
        offset_base = address_of(context, builder, sig.args[10], offsets, const(0))
        weight_base = address_of(context, builder, sig.args[11], weight, w)
        tile = Tile(context, builder, vec, {
            (i, j): builder.gep(builder.gep(out_base, [builder.mul(ldo, const(i))]), [const(j * vec.n)])
            for i in range(M) for j in range(V)}, height, width)
        biases = _row_biases(context, builder, vec, sig.args[6], bias, b, M)

        def add_tap(t, sums):
            x_tap = builder.gep(x_base, [builder.load(builder.gep(offset_base, [t]))])
            weight_tap = builder.gep(weight_base, [builder.mul(t, const(M))])
            vectors = [load_vector(builder, builder.gep(x_tap, [const(j * vec.n)]), tile.type, align)
                       for j in range(V)]
            return _add_products(builder, vec, sums, range(M), lambda i: builder.gep(weight_tap, [const(i)]), vectors)

        sums = _start(builder, add, {(i, j): biases[i] for i, j in tile.targets}, tile.load)
        tile.store(loop(builder, "taps", t0, t1, sums, add_tap))
        return context.get_dummy_value()

    return sig, codegen


def _row_biases(context, builder, vec, bias_type, bias, b, rows):
    """Vectors of ``bias[(b + i) % bias.size]`` for each row i."""
    size = size_of(context, builder, bias_type, bias)
    starts = []
    for i in range(rows):
        place = builder.srem(builder.add(b, const(i)), size)
        starts.append(broadcast(builder, builder.load(address_of(context, builder, bias_type, bias, place)), vec.n))
    return starts


@intrinsic
def multiply_patches(typingctx, out, o, add, bias, b, x, starts, p, offsets, weight, w, taps, rows, columns):
    """A tile of a matrix product [patches x taps] [taps x channels]: columns run along output channels.

    ``out[o + i L + j] = start(j) + sum over t < taps of x[starts[p + i] + offsets[t]] * weight[w + t L + j]`` for i < M
    and j < L = V * lanes; ``start(j)`` is what `out` holds where `add`, else ``bias[b + j]``. The patches are never
    stored: one table says where each begins, one where its taps lie.
    """
    M, V = rows.count, columns.count
    vec = vec_of(out.dtype)
    align = vec.dtype.bitwidth // 8
    index = types.intp
    sig = types.void(out, index, types.boolean, bias, index, x, starts, index, offsets, weight, index, index, rows,
                     columns)

    def codegen(context, builder, sig, args):
        out, o, add, bias, b, x, starts, p, offsets, weight, w, taps, _, _ = args
        vector_type = context.get_value_type(vec)
        out_base = address_of(context, builder, sig.args[0], out, o)
        bias_base = address_of(context, builder, sig.args[3], bias, b)
        start_base = address_of(context, builder, sig.args[6], starts, p)
        offset_base = address_of(context, builder, sig.args[8], offsets, const(0))
        weight_base = address_of(context, builder, sig.args[9], weight, w)
        patches = [address_of(context, builder, sig.args[5], x, builder.load(builder.gep(start_base, [const(i)])))
                   for i in range(M)]
        targets = {(i, j): builder.gep(out_base, [const((i * V + j) * vec.n)]) for i in range(M) for j in range(V)}

        def vectors(base):
            return [load_vector(builder, builder.gep(base, [const(j * vec.n)]), vector_type, align) for j in range(V)]

        def sums_so_far():
            return {n: load_vector(builder, target, vector_type, align) for n, target in targets.items()}

        def add_tap(t, sums):
            offset = builder.load(builder.gep(offset_base, [t]))
            weights = vectors(builder.gep(weight_base, [builder.mul(t, const(V * vec.n))]))
            return _add_products(builder, vec, sums, range(M), lambda i: builder.gep(patches[i], [offset]), weights)

        first = vectors(bias_base)
        sums = _start(builder, add, {(i, j): first[j] for i, j in targets}, sums_so_far)
        for n, value in loop(builder, "taps", const(0), taps, sums, add_tap).items():
            store_vector(builder, value, targets[n], align)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def multiply_rows(typingctx, out, o, add, x, p, ldx, weight, w, taps, rows, columns):
    """A tile of a matrix product [positions x taps] [taps x channels]: columns run along output channels.

    ``out[o + i L + j] = sum over t < taps of x[p + i ldx + t] * weight[w + t L + j]`` for i < M and j < L = V * lanes,
    or += where `add`. The sum begins at zero, so that roundings pile up over these taps alone.
    """
    M, V = rows.count, columns.count
    vec = vec_of(out.dtype)
    align = vec.dtype.bitwidth // 8
    index = types.intp
    sig = types.void(out, index, types.boolean, x, index, index, weight, index, index, rows, columns)

    def codegen(context, builder, sig, args):
        out, o, add, x, p, ldx, weight, w, taps, _, _ = args
        vector_type = context.get_value_type(vec)
        out_base = address_of(context, builder, sig.args[0], out, o)
        x_base = address_of(context, builder, sig.args[3], x, p)
        weight_base = address_of(context, builder, sig.args[6], weight, w)
        lines = [builder.gep(x_base, [builder.mul(ldx, const(i))]) for i in range(M)]
        targets = {(i, j): builder.gep(out_base, [const((i * V + j) * vec.n)]) for i in range(M) for j in range(V)}

        def add_tap(t, sums):
            panel = builder.gep(weight_base, [builder.mul(t, const(V * vec.n))])
            places = [builder.gep(panel, [const(j * vec.n)]) for j in range(V)]
            weights = [load_vector(builder, place, vector_type, align) for place in places]
            return _add_products(builder, vec, sums, range(M), lambda i: builder.gep(lines[i], [t]), weights)

        zeros = dict.fromkeys(targets, ir.Constant(vector_type, None))
        sums = loop(builder, "taps", const(0), taps, zeros, add_tap)
        before = _start(builder, add, zeros, lambda: {n: load_vector(builder, target, vector_type, align)
                                                      for n, target in targets.items()})
        for n, target in targets.items():
            store_vector(builder, builder.fadd(before[n], sums[n]), target, align)
        return context.get_dummy_value()

    return sig, codegen
