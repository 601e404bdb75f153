"""The six register tiles that do all multiplications: sums of products that never leave the registers.

Each has M rows and V vectors of columns. `multiply_tile`: rows are output channels, columns positions.
`multiply_patches`: rows are positions, columns output channels; `multiply_rows`: the same of a matrix in memory, with a
bound on how far roundings pile up. `filter_rows`: rows are output rows of one channel, which grow together from the
first to the last, columns positions, so that a vector of the input serves all rows whose windows hold it.
`filter_lanes`: the same with another channel in each lane. `filter_line`: one row of one channel, in which a vector of
the input serves several taps. Tuples whose lengths are M, or A, and V say how large a tile is: types reach the
compiler, values do not.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..boundary import FILL
from .simd import (
    INT,
    address_of,
    broadcast,
    even_lanes,
    first_lanes,
    load_vector,
    masked,
    multiply_add,
    store_first,
    store_last,
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


def _loop(builder, name, first, end, sums, body, short=False):
    """The sums after ``body(t, sums)`` for first <= t < end; the body's "next" is where it goes on, else at t + 1.

    A `short` loop is not unrolled: what LLVM puts in front of it would take longer than a few turns.
    """
    entry = builder.block
    loop = builder.append_basic_block(name)
    done = builder.append_basic_block(f"{name}.done")
    builder.cbranch(builder.icmp_signed("<", first, end), loop, done)

    builder.position_at_end(loop)
    t = builder.phi(INT)
    running = {n: builder.phi(value.type) for n, value in sums.items()}
    after = {**running, **body(t, running)}
    following = after.pop("next", None) or builder.add(t, _const(1))
    branch = builder.cbranch(builder.icmp_signed("<", following, end), loop, done)
    if short:
        known = builder.module.metadata
        mark = builder.module.add_metadata([f"loop {len(known)}"])
        mark.operands = (mark, builder.module.add_metadata(["llvm.loop.unroll.disable"]))
        branch.set_metadata("llvm.loop", mark)
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


def _grow_rows(builder, dtype, tile, pieces, whole, taps, steps, first, line_base, piece, store):
    """The loops of `filter_rows` and `filter_lanes`, for a tile of A rows and some vectors.

    ``piece(place of its line, e, height)`` gives a function that for a tap loads the vectors and the rows' weights;
    ``store(row, sums)`` takes the sums of the oldest row after each step but the first A - 1.
    """
    A, vectors = tile

    def add_piece(line, height, e, sums):
        load = piece(builder.gep(line, [e]), e, height)

        def add_tap(s, sums):
            loaded, weights = load(s)
            return {(a, j): multiply_add(builder, dtype, weight, value, sums[a, j])
                    for a, weight in enumerate(weights) for j, value in enumerate(loaded)}

        return _loop(builder, "taps", _const(0), taps, sums, add_tap, short=True)

    def add_step(m, sums):
        line = builder.gep(line_base, [builder.mul(m, pieces)])
        for height, from_, behind in ((A, _const(0), whole), (A - 1, whole, pieces)):
            if height:
                sums = _loop(builder, "pieces", from_, behind, sums,
                             lambda e, sums, height=height: add_piece(line, height, e, sums))
        row = builder.sub(m, _const(A - 1))
        with builder.if_then(builder.icmp_signed(">=", row, _const(0)), likely=True):
            store(row, [sums[A - 1, j] for j in range(vectors)])
        return {(a, j): sums[a - 1, j] if a else first for a, j in sums}

    _loop(builder, "steps", _const(0), steps,
          dict.fromkeys(((a, j) for a in range(A) for j in range(vectors)), first), add_step)


def _strips(builder, count, V, begin, end, edges, add_strip):
    """``add_strip(at, size, edge)`` for strips of as many of `count` vectors as make them even, V at most.

    `edge`: some lie before `begin` or from `end` on, but none except the first and the last ones, as many as `edges`;
    where more do, strips are as short as these together.
    """
    def add(at, _):
        left = builder.sub(count, at)
        strips = builder.sdiv(builder.add(left, _const(V - 1)), _const(V))
        size = builder.sdiv(builder.add(left, builder.sub(strips, _const(1))), strips)

        def inside(but_first, but_last):
            low, high = builder.add(at, _const(but_first)), builder.sub(builder.add(at, size), _const(but_last))
            return builder.and_(builder.icmp_signed(">=", low, begin), builder.icmp_signed("<=", high, end))

        few = _const(sum(edges))
        few = builder.select(builder.icmp_signed("<", size, few), size, few)
        size = builder.select(inside(*edges), size, few)
        case = builder.add(builder.mul(size, _const(2)), builder.zext(inside(0, 0), INT))
        _choose(builder, builder.sub(case, _const(2)), [
            lambda number=number: add_strip(at, 1 + number // 2, number % 2 == 0) or {} for number in range(2 * V)])
        return {"next": builder.add(at, size)}

    _loop(builder, "strips", _const(0), count, {}, add)


@intrinsic
def filter_rows(typingctx, out, o, ldo, count, width, start, x, p, fill, lines, n, places, whole, distance, taps,
                weight, w, masks, begin, end, rows, columns, step):
    """Rows of sums of one channel, from the first to the last: A rows and up to V vectors of positions grow at a time.

    The window's rows lie in pieces of A, or A - 1, that follow each other. Piece e, of A rows where e < `whole`, has
    its first weights at places[e], those of its next row `distance` further, and its row a meets output row i in line
    ``lines[n + (i + a) E + e]`` of the input, with E pieces::

        out[o + i ldo + j] = start + sum over e < E, a < A (or A - 1), s < taps.size of
            weight[w + places[e] + a distance + s] * x[p + lines[n + (i + a) E + e] + taps[s] + j len(step)]

    for i < count and j < width; a line that is `FILL` lies in `fill`, an array, from its beginning. So each turn takes
    one line of each piece, whose vectors are loaded once for A products, and each sum goes on to the next row of its
    window; the oldest is stored, and a new one begins.

    Of vectors of positions before `begin` or from `end` on some elements lie beside the input: they are ``fill[0]``
    where the bits of ``masks[(s vectors + j) len(step)]`` and behind are not set, one number a vector that is loaded.
    Of a step of 2 two are loaded, and every other element is taken.
    """
    A, V, step = rows.count, columns.count, step.count
    vec = vec_of(out.dtype)
    align = vec.dtype.bitwidth // 8
    index = types.intp
    sig = types.void(out, index, index, index, index, out.dtype, x, index, fill, lines, index, places, index, index,
                     taps, weight, index, masks, index, index, rows, columns, types.UniTuple(types.int64, step))

    def codegen(context, builder, sig, args):
        (out, o, ldo, count, width, start, x, p, fill, lines, n, places, whole, distance, taps, weight, w, masks, begin,
         end, *_) = args

        def base(number, array, at=None):
            return address_of(context, builder, sig.args[number], array, _const(0) if at is None else at)

        out_base, x_base, fill_base, line_base = base(0, out, o), base(6, x, p), base(8, fill), base(9, lines, n)
        place_base, tap_base, weight_base = base(11, places), base(14, taps), base(15, weight, w)
        mask_base = base(17, masks)
        vectors = builder.sdiv(builder.add(width, _const(vec.n - 1)), _const(vec.n))
        first = broadcast(builder, start, vec.n)
        distances = [builder.mul(distance, _const(a)) for a in range(A)]

        def load(pointer, bits):
            """The vector at an address; of which not all `bits` are set where there are some."""
            if bits is None:
                return load_vector(builder, pointer, first.type, align)
            mask = builder.bitcast(builder.trunc(builder.load(bits), ir.IntType(vec.n)),
                                   ir.VectorType(ir.IntType(1), vec.n))
            return masked(builder, "load", vec, [
                builder.bitcast(pointer, first.type.as_pointer()), ir.Constant(ir.IntType(32), align), mask,
                broadcast(builder, builder.load(fill_base), vec.n)], first.type)

        def load_step(pointer, bits):
            """Every `step`-th element from an address on."""
            loaded = [load(builder.gep(pointer, [_const(i * (vec.n - 1))]), bits and builder.gep(bits, [_const(i)]))
                      for i in range(step)]
            return loaded[0] if step == 1 else even_lanes(builder, *loaded)

        def add_strip(at, size, edge):
            to = builder.gep(out_base, [builder.mul(at, _const(vec.n))])
            left = builder.sub(width, builder.mul(at, _const(vec.n)))
            all_wanted = builder.icmp_signed(">=", left, _const(size * vec.n))

            def piece(place, e, height):
                offset = builder.load(place)
                row = builder.select(builder.icmp_signed("==", offset, _const(FILL)), fill_base,
                                     builder.gep(x_base, [builder.add(offset, builder.mul(at, _const(step * vec.n)))]))
                weights = builder.gep(weight_base, [builder.load(builder.gep(place_base, [e]))])
                window = [builder.gep(weights, [distances[a]]) for a in range(height)]

                def load_tap(s):
                    tap = builder.gep(row, [builder.load(builder.gep(tap_base, [s]))])
                    bits = builder.gep(mask_base, [builder.mul(builder.add(builder.mul(s, vectors), at), _const(step))])
                    return ([load_step(builder.gep(tap, [_const(j * step * vec.n)]),
                                       builder.gep(bits, [_const(j * step)]) if edge and not 0 < j < size - 2 else None)
                             for j in range(size)],
                            [broadcast(builder, builder.load(builder.gep(row, [s])), vec.n) for row in window])

                return load_tap

            def store(row, sums):
                target = builder.gep(to, [builder.mul(ldo, row)])
                places = [builder.gep(target, [_const(j * vec.n)]) for j in range(size)]
                for value, place in zip(sums[:-1], places, strict=False):
                    store_vector(builder, value, place, align)
                with builder.if_else(all_wanted) as (wholly, partly):
                    with wholly:
                        store_vector(builder, sums[-1], places[-1], align)
                    with partly:
                        store_first(builder, vec, sums[-1], places[-1], builder.sub(left, _const((size - 1) * vec.n)))

            _grow_rows(builder, vec.dtype, (A, size), _size_of(context, builder, sig.args[11], places), whole,
                       _size_of(context, builder, sig.args[14], taps), builder.add(count, _const(A - 1)), first,
                       line_base, piece, store)

        _strips(builder, vectors, V, begin, end, (1, 2), add_strip)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def filter_lanes(typingctx, out, o, ldo, apart, before, count, width, start, b, x, p, unit, stride, fill, lines, n,
                 places, whole, distance, taps, weight, w, positions, begin, end, rows, columns):
    """`filter_rows` of as many channels as a vector has lanes, L: columns are single positions, V at a time.

    A position is `unit` elements from the next one, and `stride` of them are between an output's and the next one's::

        out[o + i ldo + j apart + l] = start[b + l] + sum over e < E, a < A (or A - 1), s < taps.size of
            weight[w + (places[e] + a distance + s) L + l]
            * x[p + lines[n + (i + a) E + e] + (taps[s] + j stride) unit + l]

    for i < count, j < width and before <= l < L. All positions of a line that is `FILL` are the vector `fill`. Under
    positions before `begin` or from `end` on the input runs unevenly: what lies there is at
    ``positions[taps[s] + j stride]`` in place of ``(taps[s] + j stride) unit``, or it is `fill`, too.
    """
    A, V = rows.count, columns.count
    vec = vec_of(out.dtype)
    align = vec.dtype.bitwidth // 8
    index = types.intp
    sig = types.void(out, index, index, index, index, index, index, start, index, x, index, index, index, fill, lines,
                     index, places, index, index, taps, weight, index, positions, index, index, rows, columns)

    def codegen(context, builder, sig, args):
        (out, o, ldo, apart, before, count, width, start, b, x, p, unit, stride, fill, lines, n, places, whole,
         distance, taps, weight, w, positions, begin, end, *_) = args

        def base(number, array, at=None):
            return address_of(context, builder, sig.args[number], array, _const(0) if at is None else at)

        out_base, x_base, fill_base, line_base = base(0, out, o), base(9, x, p), base(13, fill), base(14, lines, n)
        place_base, tap_base, weight_base = base(16, places), base(19, taps), base(20, weight, w)
        position_base = base(22, positions)
        vector_type = context.get_value_type(vec)
        first = load_vector(builder, base(7, start, b), vector_type, align)
        distances = [builder.mul(distance, _const(a * vec.n)) for a in range(A)]
        all_lanes = builder.icmp_signed("==", before, _const(0))

        def add_strip(at, size, edge):
            to, begins = builder.gep(out_base, [builder.mul(at, apart)]), builder.mul(at, stride)

            def piece(place, e, height):
                offset = builder.load(place)
                outside = builder.icmp_signed("==", offset, _const(FILL))
                line = builder.select(outside, fill_base, builder.gep(x_base, [offset]))
                step = builder.select(outside, _const(0), unit)        # all positions of `fill` are one
                next_ = builder.mul(stride, step)
                weights = builder.gep(weight_base, [builder.mul(builder.load(builder.gep(place_base, [e])),
                                                                _const(vec.n))])
                window = [builder.gep(weights, [distances[a]]) for a in range(height)]

                def mapped(u):
                    """Where the map says that padded position u lies."""
                    there = builder.load(builder.gep(position_base, [u]))
                    nowhere = builder.or_(outside, builder.icmp_signed("==", there, _const(FILL)))
                    return builder.select(nowhere, fill_base, builder.gep(x_base, [builder.add(offset, there)]))

                def load_tap(s):
                    u = builder.add(builder.load(builder.gep(tap_base, [s])), begins)
                    at_once = builder.gep(line, [builder.mul(u, step)])
                    addresses = []
                    for _ in range(size):
                        addresses.append(mapped(u) if edge else at_once)
                        u, at_once = builder.add(u, stride), builder.gep(at_once, [next_])
                    s = builder.mul(s, _const(vec.n))
                    return tuple([load_vector(builder, address, vector_type, align) for address in some]
                                 for some in (addresses, [builder.gep(row, [s]) for row in window]))

                return load_tap

            def store(row, sums):
                target = builder.gep(to, [builder.mul(ldo, row)])
                with builder.if_else(all_lanes) as (wholly, partly):
                    for some in (wholly, partly):
                        with some:
                            for j, value in enumerate(sums):
                                place = builder.gep(target, [builder.mul(apart, _const(j))])
                                if some is wholly:
                                    store_vector(builder, value, place, align)
                                else:
                                    store_last(builder, vec, value, place, before)

            _grow_rows(builder, vec.dtype, (A, size), _size_of(context, builder, sig.args[16], places), whole,
                       _size_of(context, builder, sig.args[19], taps), builder.add(count, _const(A - 1)), first,
                       line_base, piece, store)

        _strips(builder, width, V, begin, end, (V, V), add_strip)
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
