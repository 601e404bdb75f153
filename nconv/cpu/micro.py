"""The six register tiles that do all multiplications: sums of products that never leave the registers.

Each has M rows and V vectors of columns. `multiply_tile`: rows are output channels, columns positions.
`multiply_patches`: rows are positions, columns output channels; `multiply_rows`: the same of a matrix in memory, with a
bound on how far roundings pile up. `filter_rows`: rows are output rows of one channel, columns positions, so that a
vector of the input serves all rows whose windows hold it. `filter_line`: one row of one channel, in which a vector of
the input serves several taps. `filter_lanes`: rows are positions, and each lane is another channel. Tuples whose
lengths are M and V say how large a tile is: types reach the compiler, values do not.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .simd import (
    INT,
    address_of,
    broadcast,
    first_lanes,
    load_vector,
    masked,
    multiply_add,
    store_first,
    store_vector,
    vec_of,
)

_TOGETHER = 4                  # taps of `filter_line` that are summed at once


def _const(n):
    return ir.Constant(INT, n)


class _Tile:
    """Where a tile's sums lie in the output: `height` of M rows and `width` of V vectors of columns are wanted."""

    def __init__(self, context, builder, vec, targets, height, width):
        self.builder, self.vec, self.targets = builder, vec, targets
        self.height, self.width = height, width
        self.type = context.get_value_type(vec)
        self.align = vec.dtype.bitwidth // 8
        self.rows = 1 + max(i for i, _ in targets)
        self.columns = 1 + max(j for _, j in targets)
        whole = builder.icmp_signed(">=", width, _const(self.columns * vec.n))
        self.whole = builder.and_(whole, builder.icmp_signed(">=", height, _const(self.rows)))

    def _masks(self):
        """For each vector of columns, which lanes are wanted."""
        for j in range(self.columns):
            left = self.builder.sub(self.width, _const(j * self.vec.n))
            yield first_lanes(self.builder, self.vec.n, left)

    def load(self):
        """The sums that lie there; zeros in place of what is not wanted."""
        builder = self.builder
        align = ir.Constant(ir.IntType(32), self.align)
        nothing = ir.Constant(self.type, [0] * self.vec.n)
        masks = list(self._masks())
        sums = {}
        for (i, j), target in self.targets.items():
            inside = broadcast(builder, builder.icmp_signed("<", _const(i), self.height), self.vec.n)
            pointer = builder.bitcast(target, self.type.as_pointer())
            sums[i, j] = masked(builder, "load", self.vec, [pointer, align, builder.and_(masks[j], inside), nothing],
                                self.type)
        return sums

    def store(self, sums):
        """Write what is wanted of the sums to its place."""
        builder = self.builder
        with builder.if_else(self.whole) as (whole, partly):
            with whole:
                for n, target in self.targets.items():
                    store_vector(builder, sums[n], target, self.align)
            with partly:
                for j in range(self.columns):
                    left = builder.sub(self.width, _const(j * self.vec.n))
                    full = builder.icmp_signed(">=", left, _const(self.vec.n))
                    with builder.if_else(full) as (all_lanes, some_lanes):
                        with all_lanes:
                            self._store_column(sums, j, lambda value, to: store_vector(builder, value, to, self.align))
                        with some_lanes:
                            with builder.if_then(builder.icmp_signed(">", left, _const(0))):
                                self._store_column(sums, j, lambda value, to, left=left: store_first(
                                    builder, self.vec, value, to, left))

    def _store_column(self, sums, j, store):
        """``store(sum, its place)`` for the wanted rows of a column."""
        for i in range(self.rows):
            with self.builder.if_then(self.builder.icmp_signed("<", _const(i), self.height)):
                store(sums[i, j], self.targets[i, j])


def _start(builder, add, fresh, so_far):
    """`fresh` sums, or what ``so_far()`` loads where `add`."""
    entry = builder.block
    with builder.if_then(add):
        old = so_far()
        loaded = builder.block
    sums = {}
    for n, value in fresh.items():
        sums[n] = builder.phi(value.type)
        sums[n].add_incoming(value, entry)
        sums[n].add_incoming(old[n], loaded)
    return sums


def _loop(builder, name, first, end, sums, body):
    """The sums after ``body(t, sums)`` for first <= t < end."""
    entry = builder.block
    loop = builder.append_basic_block(name)
    done = builder.append_basic_block(f"{name}.done")
    builder.cbranch(builder.icmp_signed("<", first, end), loop, done)

    builder.position_at_end(loop)
    t = builder.phi(INT)
    running = {n: builder.phi(value.type) for n, value in sums.items()}
    after = {**running, **body(t, running)}
    following = builder.add(t, _const(1))
    builder.cbranch(builder.icmp_signed("<", following, end), loop, done)
    t.add_incoming(first, entry)
    t.add_incoming(following, builder.block)
    for n, value in sums.items():
        running[n].add_incoming(value, entry)
        running[n].add_incoming(after[n], builder.block)

    last = builder.block
    builder.position_at_end(done)
    result = {}
    for n, value in sums.items():
        result[n] = builder.phi(value.type)
        result[n].add_incoming(value, entry)
        result[n].add_incoming(after[n], last)
    return result


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
        offset_base = address_of(context, builder, sig.args[10], offsets, _const(0))
        weight_base = address_of(context, builder, sig.args[11], weight, w)
        tile = _Tile(context, builder, vec, {
            (i, j): builder.gep(builder.gep(out_base, [builder.mul(ldo, _const(i))]), [_const(j * vec.n)])
            for i in range(M) for j in range(V)}, height, width)
        biases = _row_biases(context, builder, vec, sig.args[6], bias, b, M)

        def add_tap(t, sums):
            x_tap = builder.gep(x_base, [builder.load(builder.gep(offset_base, [t]))])
            weight_tap = builder.gep(weight_base, [builder.mul(t, _const(M))])
            vectors = [load_vector(builder, builder.gep(x_tap, [_const(j * vec.n)]), tile.type, align)
                       for j in range(V)]
            return _add_products(builder, vec, sums, range(M), lambda i: builder.gep(weight_tap, [_const(i)]), vectors)

        sums = _start(builder, add, {(i, j): biases[i] for i, j in tile.targets}, tile.load)
        tile.store(_loop(builder, "taps", t0, t1, sums, add_tap))
        return context.get_dummy_value()

    return sig, codegen


def _row_biases(context, builder, vec, bias_type, bias, b, rows):
    """Vectors of ``bias[(b + i) % bias.size]`` for each row i."""
    size = _size_of(context, builder, bias_type, bias)
    starts = []
    for i in range(rows):
        place = builder.srem(builder.add(b, _const(i)), size)
        starts.append(broadcast(builder, builder.load(address_of(context, builder, bias_type, bias, place)), vec.n))
    return starts


@intrinsic
def filter_line(typingctx, out, o, width, start, x, p, offsets, run, weight, w, columns):
    """A line of sums of one channel: a register tile of V vectors of positions, for taps that follow each other.

    ``out[o + j] = start + sum over t < offsets.size of weight[w + t] * x[p + offsets[t] + j]`` for j < width <= V
    lanes, where in each `run` of taps the offsets grow by one.

    Taps that lie a vector apart read the same vectors, each but one position further: up to four such taps are summed
    at once, so that a vector, which memory gives in two pieces where it is not aligned, serves four products.
    """
    V = columns.count
    vec = vec_of(out.dtype)
    align = vec.dtype.bitwidth // 8
    index = types.intp
    sig = types.void(out, index, index, out.dtype, x, index, offsets, index, weight, index, columns)

    def codegen(context, builder, sig, args):
        out, o, width, start, x, p, offsets, run, weight, w, _ = args
        out_base = address_of(context, builder, sig.args[0], out, o)
        x_base = address_of(context, builder, sig.args[4], x, p)
        offset_base = address_of(context, builder, sig.args[6], offsets, _const(0))
        weight_base = address_of(context, builder, sig.args[8], weight, w)
        tile = _Tile(context, builder, vec, {(0, j): builder.gep(out_base, [_const(j * vec.n)]) for j in range(V)},
                     _const(1), width)
        lanes, most = _const(vec.n), _const(_TOGETHER * vec.n)

        def add_together(taps, x_taps, w_taps, b, sums):
            """The taps b, b + lanes, ..., so many."""
            x_tap, w_tap = builder.gep(x_taps, [b]), builder.gep(w_taps, [b])
            scalars = [broadcast(builder, builder.load(builder.gep(w_tap, [_const(k * vec.n)])), vec.n)
                       for k in range(taps)]
            after = dict(sums)
            for i in range(V + taps - 1):
                column = load_vector(builder, builder.gep(x_tap, [_const(i * vec.n)]), tile.type, align)
                for k, scalar in enumerate(scalars):
                    if 0 <= i - k < V:
                        after[0, i - k] = multiply_add(builder, vec.dtype, scalar, column, after[0, i - k])
            return after

        def add_some(first, end, x_run, w_run, n, sums):
            """The n-th taps of a run that are summed together: `whole` for each lane, of the first lanes one more."""
            begin = builder.add(first, builder.mul(n, most))
            count = builder.sub(end, begin)
            count = builder.select(builder.icmp_signed("<", count, most), count, most)
            whole, rest = builder.sdiv(count, lanes), builder.srem(count, lanes)
            x_taps, w_taps = builder.gep(x_run, [begin]), builder.gep(w_run, [begin])
            for taps in range(_TOGETHER, 0, -1):
                full = builder.icmp_signed("==", whole, _const(taps))
                more = builder.icmp_signed("==", whole, _const(taps - 1))
                low = builder.select(full, rest, _const(0))
                high = builder.select(full, lanes, builder.select(more, rest, _const(0)))
                sums = _loop(builder, f"taps.{taps}", low, high, sums,
                             lambda b, sums, taps=taps: add_together(taps, x_taps, w_taps, b, sums))
            return sums

        def add_run(r, sums):
            t = builder.mul(r, run)
            x_run = builder.gep(x_base, [builder.load(builder.gep(offset_base, [t]))])
            w_run = builder.gep(weight_base, [t])
            pieces = builder.sdiv(builder.add(run, _const(_TOGETHER * vec.n - 1)), most)
            return _loop(builder, "pieces", _const(0), pieces, sums,
                         lambda n, sums: add_some(_const(0), run, x_run, w_run, n, sums))

        first = broadcast(builder, start, vec.n)
        runs = builder.sdiv(_size_of(context, builder, sig.args[6], offsets), run)
        tile.store(_loop(builder, "runs", _const(0), runs, dict.fromkeys(tile.targets, first), add_run))
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def filter_rows(typingctx, out, o, ldo, height, width, start, x, p, ldx, planes, taps, weight, w, rows, columns):
    """Rows of sums of one channel: register tiles of M output rows and V vectors of positions, of fewer at the end.

    A plane n is a set of window rows, ``planes[4 n:4 n + 4]`` = (offset of the first in x, their number R, place of
    their weights, distance of these from row to row)::

        out[o + i ldo + j] = start + sum over planes, r < R, s < taps.size of
            weight[w + place + r distance + s] * x[p + offset + (i + r) ldx + taps[s] + j]

    for i < height <= M and j < width.

    Output row i takes a plane's window rows from the i-th last on, so that at turn r all output rows up to r read
    row r of the input and all others row r + R: each vector serves all rows that read it, and all sums grow at once.
    In a plane of few rows every output row takes row r of the window.
    """
    M, V = rows.count, columns.count
    vec = vec_of(out.dtype)
    align = vec.dtype.bitwidth // 8
    index = types.intp
    sig = types.void(out, index, index, index, index, out.dtype, x, index, index, planes, taps, weight, index, rows,
                     columns)

    def codegen(context, builder, sig, args):
        out, o, ldo, height, width, start, x, p, ldx, planes, taps, weight, w, _, _ = args
        out_base = address_of(context, builder, sig.args[0], out, o)
        x_base = address_of(context, builder, sig.args[6], x, p)
        plane_base = address_of(context, builder, sig.args[9], planes, _const(0))
        tap_base = address_of(context, builder, sig.args[10], taps, _const(0))
        weight_base = address_of(context, builder, sig.args[11], weight, w)
        plane_count = builder.sdiv(_size_of(context, builder, sig.args[9], planes), _const(4))
        tap_count = _size_of(context, builder, sig.args[10], taps)
        first = broadcast(builder, start, vec.n)

        def add_taps(groups, vectors, sums):
            """The window's columns; a group is (input row, {output row: its row of weights})."""

            def add_tap(s, sums):
                at = builder.load(builder.gep(tap_base, [s]))
                after = {}
                for row, weights in groups:
                    tap = builder.gep(row, [at])
                    loaded = [load_vector(builder, builder.gep(tap, [_const(j * vec.n)]), first.type, align)
                              for j in range(vectors)]
                    after |= _add_products(builder, vec, sums, weights,
                                           lambda i, weights=weights: builder.gep(weights[i], [s]), loaded)
                return after

            return _loop(builder, "taps", _const(0), tap_count, sums, add_tap)

        def add_plane(x_base, vectors, n, sums):
            entry = builder.gep(plane_base, [builder.mul(n, _const(4))])
            offset, R, place, distance = (builder.load(builder.gep(entry, [_const(k)])) for k in range(4))
            x_plane = builder.gep(x_base, [offset])
            w_plane = builder.gep(weight_base, [place])

            def input_row(q):
                return builder.gep(x_plane, [builder.mul(q, ldx)])

            def weight_row(r):
                return builder.gep(w_plane, [builder.mul(r, distance)])

            def groups_of(case, r):
                if case == M:                                         # few rows: each reads its own
                    weights = weight_row(r)
                    return [(input_row(builder.add(r, _const(i))), {i: weights}) for i in range(M)]
                halves = ((range(case + 1), r), (range(case + 1, M), builder.add(r, R)))
                return [(input_row(q), {i: weight_row(builder.sub(q, _const(i))) for i in members})
                        for members, q in halves if members]

            def add_row(r, sums):
                few = builder.icmp_signed("<", R, _const(M - 1))
                early = builder.icmp_signed("<", r, _const(M - 1))
                case = builder.select(few, _const(M), builder.select(early, r, _const(M - 1)))
                return _choose(builder, case, [lambda case=case: add_taps(groups_of(case, r), vectors, sums)
                                               for case in range(M + 1)])

            return _loop(builder, "rows", _const(0), R, sums, add_row)

        def add_tiles(vectors, begin, end):
            """Tiles of so many vectors from one vector of the rows to another."""

            def add_tile(t, _):
                at = builder.mul(builder.add(begin, builder.mul(t, _const(vectors))), _const(vec.n))
                to = builder.gep(out_base, [at])
                from_ = builder.gep(x_base, [at])
                tile = _Tile(context, builder, vec, {
                    (i, j): builder.gep(builder.gep(to, [builder.mul(ldo, _const(i))]), [_const(j * vec.n)])
                    for i in range(M) for j in range(vectors)}, height, builder.sub(width, at))
                tile.store(_loop(builder, "planes", _const(0), plane_count, dict.fromkeys(tile.targets, first),
                                 lambda n, sums: add_plane(from_, vectors, n, sums)))
                return {}

            tiles = builder.sdiv(builder.sub(end, begin), _const(vectors))
            _loop(builder, "tiles", _const(0), tiles, {}, add_tile)

        done, vectors = _const(0), builder.sdiv(builder.add(width, _const(vec.n - 1)), _const(vec.n))
        for size in dict.fromkeys((V, min(V, 2), 1)):
            end = builder.add(done, builder.mul(builder.sdiv(builder.sub(vectors, done), _const(size)), _const(size)))
            add_tiles(size, done, end)
            done = end
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def filter_lanes(typingctx, out, o, width, start, b, x, p, step, offsets, weight, w, rows):
    """A row of sums of as many channels as a vector has lanes, in tiles of M positions, at its end of M / 2.

    With L lanes::

        out[o + i L + l] = start[b + l]
            + sum over t < offsets.size of weight[w + t L + l] * x[p + offsets[t] + i step + l]

    for l < L and i < width; up to M / 2 - 1 positions more are computed and stored.
    """
    M = rows.count
    vec = vec_of(out.dtype)
    align = vec.dtype.bitwidth // 8
    index = types.intp
    sig = types.void(out, index, index, start, index, x, index, index, offsets, weight, index, rows)

    def codegen(context, builder, sig, args):
        out, o, width, start, b, x, p, step, offsets, weight, w, _ = args
        out_base = address_of(context, builder, sig.args[0], out, o)
        start_base = address_of(context, builder, sig.args[3], start, b)
        x_base = address_of(context, builder, sig.args[5], x, p)
        offset_base = address_of(context, builder, sig.args[8], offsets, _const(0))
        weight_base = address_of(context, builder, sig.args[9], weight, w)
        taps = _size_of(context, builder, sig.args[8], offsets)
        vector_type = context.get_value_type(vec)
        first = load_vector(builder, start_base, vector_type, align)

        def add_tiles(size, begin, count):
            """So many tiles of `size` positions from one of them on."""

            def add_tile(n, _):
                at = builder.add(begin, builder.mul(n, _const(size)))
                from_ = builder.gep(x_base, [builder.mul(at, step)])
                places = [builder.mul(step, _const(i)) for i in range(size)]

                def add_tap(t, sums):
                    tap = builder.gep(from_, [builder.load(builder.gep(offset_base, [t]))])
                    weights = load_vector(builder, builder.gep(weight_base, [builder.mul(t, _const(vec.n))]),
                                          vector_type, align)
                    return {i: multiply_add(builder, vec.dtype, weights, load_vector(
                        builder, builder.gep(tap, [places[i]]), vector_type, align), sums[i]) for i in range(size)}

                sums = _loop(builder, "taps", _const(0), taps, dict.fromkeys(range(size), first), add_tap)
                to = builder.gep(out_base, [builder.mul(at, _const(vec.n))])
                for i, value in sums.items():
                    store_vector(builder, value, builder.gep(to, [_const(i * vec.n)]), align)
                return {}

            _loop(builder, "tiles", _const(0), count, {}, add_tile)

        whole = builder.sdiv(width, _const(M))
        done = builder.mul(whole, _const(M))
        rest = builder.add(builder.sub(width, done), _const(M // 2 - 1))
        add_tiles(M, _const(0), whole)
        add_tiles(M // 2, done, builder.sdiv(rest, _const(M // 2)))
        return context.get_dummy_value()

    return sig, codegen


def _size_of(context, builder, array_type, array):
    """How many elements an array has."""
    return cgutils.create_struct_proxy(array_type)(context, builder, value=array).nitems


def _choose(builder, case, bodies):
    """What the `case`-th of the bodies returns: sums by their place."""
    joined = builder.append_basic_block("chosen")
    switch = builder.switch(case, builder.append_basic_block("never"))
    results = []
    for number, body in enumerate(bodies):
        block = builder.append_basic_block(f"case.{number}")
        switch.add_case(_const(number), block)
        builder.position_at_end(block)
        values = body()
        results.append((builder.block, values))
        builder.branch(joined)
    builder.position_at_end(switch.default)
    builder.unreachable()
    builder.position_at_end(joined)
    chosen = {n: builder.phi(value.type) for n, value in results[0][1].items()}
    for block, values in results:
        for n, phi in chosen.items():
            phi.add_incoming(values[n], block)
    return chosen


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
        offset_base = address_of(context, builder, sig.args[8], offsets, _const(0))
        weight_base = address_of(context, builder, sig.args[9], weight, w)
        patches = [address_of(context, builder, sig.args[5], x, builder.load(builder.gep(start_base, [_const(i)])))
                   for i in range(M)]
        targets = {(i, j): builder.gep(out_base, [_const((i * V + j) * vec.n)]) for i in range(M) for j in range(V)}

        def vectors(base):
            return [load_vector(builder, builder.gep(base, [_const(j * vec.n)]), vector_type, align) for j in range(V)]

        def sums_so_far():
            return {n: load_vector(builder, target, vector_type, align) for n, target in targets.items()}

        def add_tap(t, sums):
            offset = builder.load(builder.gep(offset_base, [t]))
            weights = vectors(builder.gep(weight_base, [builder.mul(t, _const(V * vec.n))]))
            return _add_products(builder, vec, sums, range(M), lambda i: builder.gep(patches[i], [offset]), weights)

        first = vectors(bias_base)
        sums = _start(builder, add, {(i, j): first[j] for i, j in targets}, sums_so_far)
        for n, value in _loop(builder, "taps", _const(0), taps, sums, add_tap).items():
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
        lines = [builder.gep(x_base, [builder.mul(ldx, _const(i))]) for i in range(M)]
        targets = {(i, j): builder.gep(out_base, [_const((i * V + j) * vec.n)]) for i in range(M) for j in range(V)}

        def add_tap(t, sums):
            panel = builder.gep(weight_base, [builder.mul(t, _const(V * vec.n))])
            places = [builder.gep(panel, [_const(j * vec.n)]) for j in range(V)]
            weights = [load_vector(builder, place, vector_type, align) for place in places]
            return _add_products(builder, vec, sums, range(M), lambda i: builder.gep(lines[i], [t]), weights)

        zeros = dict.fromkeys(targets, ir.Constant(vector_type, None))
        sums = _loop(builder, "taps", _const(0), taps, zeros, add_tap)
        before = _start(builder, add, zeros, lambda: {n: load_vector(builder, target, vector_type, align)
                                                      for n, target in targets.items()})
        for n, target in targets.items():
            store_vector(builder, builder.fadd(before[n], sums[n]), target, align)
        return context.get_dummy_value()

    return sig, codegen
