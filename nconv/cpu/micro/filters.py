"""Register tiles of one channel, or of another channel in each lane.

`filter_rows`: rows are output rows of one channel, which grow together from the first to the last, columns positions,
so that a vector of the input serves all rows whose windows hold it. `filter_lanes`: the same with another channel in
each lane. `filter_line`: one row of one channel, in which a vector of the input serves several taps.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...boundary import FILL
from ...machine import vector_registers
from ..simd import (
    INT,
    Vec,
    address_of,
    alternate_lanes,
    ask_for,
    broadcast,
    lanes_of_bits,
    load_vector,
    masked,
    multiply_add,
    store_first,
    store_last,
    store_vector,
    vec_of,
)
from .emit import Tile, as_value, choose, const, loop, size_of, turns

_TOGETHER = 4                  # taps of `filter_line` that are summed at once



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
        offset_base = address_of(context, builder, sig.args[6], offsets, const(0))
        weight_base = address_of(context, builder, sig.args[8], weight, w)
        tile = Tile(context, builder, vec, {(0, j): builder.gep(out_base, [const(j * vec.n)]) for j in range(V)},
                     const(1), width)
        lanes, most = const(vec.n), const(_TOGETHER * vec.n)

        def add_together(taps, x_taps, w_taps, b, sums):
            """The taps b, b + lanes, ..., so many."""
            x_tap, w_tap = builder.gep(x_taps, [b]), builder.gep(w_taps, [b])
            scalars = [broadcast(builder, builder.load(builder.gep(w_tap, [const(k * vec.n)])), vec.n)
                       for k in range(taps)]
            after = dict(sums)
            for i in range(V + taps - 1):
                column = load_vector(builder, builder.gep(x_tap, [const(i * vec.n)]), tile.type, align)
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
                full = builder.icmp_signed("==", whole, const(taps))
                more = builder.icmp_signed("==", whole, const(taps - 1))
                low = builder.select(full, rest, const(0))
                high = builder.select(full, lanes, builder.select(more, rest, const(0)))
                sums = loop(builder, f"taps.{taps}", low, high, sums,
                             lambda b, sums, taps=taps: add_together(taps, x_taps, w_taps, b, sums))
            return sums

        def add_run(r, sums):
            t = builder.mul(r, run)
            x_run = builder.gep(x_base, [builder.load(builder.gep(offset_base, [t]))])
            w_run = builder.gep(weight_base, [t])
            pieces = builder.sdiv(builder.add(run, const(_TOGETHER * vec.n - 1)), most)
            return loop(builder, "pieces", const(0), pieces, sums,
                         lambda n, sums: add_some(const(0), run, x_run, w_run, n, sums))

        first = broadcast(builder, start, vec.n)
        runs = builder.sdiv(size_of(context, builder, sig.args[6], offsets), run)
        tile.store(loop(builder, "runs", const(0), runs, dict.fromkeys(tile.targets, first), add_run))
        return context.get_dummy_value()

    return sig, codegen


def _grow_rows(builder, dtype, tile, counts, steps, first, line_base, piece, store):
    """The loops of `filter_rows` and `filter_lanes`, for a tile of A rows and some vectors.

    `counts`: of the pieces of A rows, of all pieces, of the taps of a line. ``piece(place of its line, e, height)``
    gives a function that for a tap loads the vectors and the rows' weights; ``store(row, sums)`` takes those of an
    output row, the oldest, once they are finished.
    """
    A, vectors = tile
    whole, pieces, taps = counts

    def add_piece(line, height, e, sums):
        load = piece(builder.gep(line, [as_value(e)]), e, height)

        def add_tap(s, sums):
            loaded, weights = load(s)
            return {**sums, **{(a, j): multiply_add(builder, dtype, weight, value, sums[a, j])
                               for a, weight in enumerate(weights) for j, value in enumerate(loaded)}}

        return turns(builder, "taps", 0, taps, sums, add_tap, short=True)

    def store_last(m, sums):
        store(builder.sub(m, const(A)), [sums[A, j] for j in range(vectors)])

    def add_step(m, sums):
        # What the step before has finished: with a branch behind the products LLVM would sink some of them below it,
        # and keep all that they need in memory meanwhile.
        with builder.if_then(builder.icmp_signed(">=", m, const(A)), likely=True):
            store_last(m, sums)
        line = builder.gep(line_base, [builder.mul(m, as_value(pieces))])
        for height, from_, behind in ((A, 0, whole), (A - 1, whole, pieces)):
            if height:
                sums = turns(builder, "pieces", from_, behind, sums,
                             lambda e, sums, height=height: add_piece(line, height, e, sums))
        return {(a, j): sums[a - 1, j] if a else first for a, j in sums}

    places = [(a, j) for a in range(A + 1) for j in range(vectors)]          # the last row of sums is finished
    store_last(steps, loop(builder, "steps", const(0), steps, dict.fromkeys(places, first), add_step))


def _strips(builder, count, V, begin, end, edges, add_strip):
    """``add_strip(at, size, edge)`` for strips of as many of `count` vectors as make them even, V at most.

    `edge`: some lie before `begin` or from `end` on, but none except the first and the last ones, as many as `edges`;
    where more do, strips are as short as these together.
    """
    def add(at, _):
        left = builder.sub(count, at)
        strips = builder.sdiv(builder.add(left, const(V - 1)), const(V))
        size = builder.sdiv(builder.add(left, builder.sub(strips, const(1))), strips)

        def inside(but_first, but_last):
            low, high = builder.add(at, const(but_first)), builder.sub(builder.add(at, size), const(but_last))
            return builder.and_(builder.icmp_signed(">=", low, begin), builder.icmp_signed("<=", high, end))

        few = const(sum(edges))
        few = builder.select(builder.icmp_signed("<", size, few), size, few)
        size = builder.select(inside(*edges), size, few)
        case = builder.add(builder.mul(size, const(2)), builder.zext(inside(0, 0), INT))
        choose(builder, builder.sub(case, const(2)), [
            lambda number=number: add_strip(at, 1 + number // 2, number % 2 == 0) or {} for number in range(2 * V)])
        return {"next": builder.add(at, size)}

    loop(builder, "strips", const(0), count, {}, add)


@intrinsic
def filter_rows(typingctx, out, o, ldo, count, width, start, x, p, fill, lines, n, places, whole, distance, taps,
                weight, w, masks, begin, end, ahead, rows, columns, step, half, tall, short, line):
    """Rows of sums of one channel, from the first to the last: A rows and up to V vectors of positions grow at a time.

    The window's rows lie in pieces of A, or A - 1, that follow each other. Piece e, of A rows where e < `whole`, has
    its first weights at places[e], those of its next row `distance` further, and its row a meets output row i in line
    ``lines[n + (i + a) E + e]`` of the input, with E pieces::

        out[o + i ldo + j] = start + sum over e < E, a < A (or A - 1), s < taps.size of
            weight[w + places[e] + a distance + s] * x[p + lines[n + (i + a) E + e] + taps[s] + j len(step)]

    for i < count and j < width; a line that is `FILL` lies in `fill`, an array, from its beginning. So each turn takes
    one line of each piece, whose vectors are loaded once for A products, and each sum goes on to the next row of its
    window; the oldest is stored, and a new one begins.

    What lies `ahead` of each line, in the tile that comes next, is asked for: a strip is read from line to line, which
    the processor does not foresee.

    Of vectors of positions before `begin` or from `end` on some elements lie beside the input: they are ``fill[0]``
    where the bits of ``masks[(s vectors + j) len(step)]`` and behind are not set, one number a vector that is loaded.
    Of a step of 2 two are loaded, and every other element is taken. Vectors fill a register; half of one where `half`
    has an element.

    `tall`, `short` and `line` are empty, or have as many elements as there are pieces of A rows, shorter ones and taps.
    Then no loop goes over these, and weights wait in registers: a turn of a narrow map has so few products that loops
    would take as long. Here ``taps[s]`` must be ``s taps[1]``, and s where the step is 2: two taps share the vectors
    that it parts.
    """
    A, V, step = rows.count, columns.count, step.count
    vec = Vec(out.dtype, vec_of(out.dtype).n >> half.count)
    align = vec.dtype.bitwidth // 8
    index = types.intp
    sig = types.void(out, index, index, index, index, out.dtype, x, index, fill, lines, index, places, index, index,
                     taps, weight, index, masks, index, index, index, rows, columns,
                     types.UniTuple(types.int64, step), half, tall, short, line)

    def codegen(context, builder, sig, args):
        (out, o, ldo, count, width, start, x, p, fill, lines, n, places, whole, distance, taps, weight, w, masks, begin,
         end, ahead, *_) = args

        def base(number, array, at=None):
            return address_of(context, builder, sig.args[number], array, const(0) if at is None else at)

        out_base, x_base, fill_base, line_base = base(0, out, o), base(6, x, p), base(8, fill), base(9, lines, n)
        place_base, tap_base, weight_base = base(11, places), base(14, taps), base(15, weight, w)
        mask_base = base(17, masks)
        vectors = builder.sdiv(builder.add(width, const(vec.n - 1)), const(vec.n))
        first = broadcast(builder, start, vec.n)
        distances = [builder.mul(distance, const(a)) for a in range(A)]
        heights = [A] * tall.count + [A - 1] * short.count
        known = line.count > 0
        apart = const(1) if step > 1 or line.count < 2 else builder.load(builder.gep(tap_base, [const(1)]))
        counts = ((tall.count, len(heights), line.count) if known else
                  (whole, *(size_of(context, builder, sig.args[i], array) for i, array in ((11, places), (14, taps)))))

        def row_weights(e, height):
            """Where the weights of a piece's rows begin."""
            weights = builder.gep(weight_base, [builder.load(builder.gep(place_base, [as_value(e)]))])
            return [builder.gep(weights, [distances[a]]) for a in range(height)]

        def weights_of(rows, s):
            return [broadcast(builder, builder.load(builder.gep(row, [as_value(s)])), vec.n) for row in rows]

        def add_strip(at, size, edge):
            to = builder.gep(out_base, [builder.mul(at, const(vec.n))])
            left = builder.sub(width, builder.mul(at, const(vec.n)))
            all_wanted = builder.icmp_signed(">=", left, const(size * vec.n))
            held = (A + 1) * size + sum(heights) * line.count <= vector_registers() * 3 // 4
            kept_weights = {(e, s): weights_of(row_weights(e, height), s) for e, height in enumerate(heights)
                            for s in range(line.count)} if held else {}

            def mask(s, j, i):
                """Which lanes of the i-th vector loaded for the strip's j-th lie in the input; None for all."""
                if not edge or 0 < j < size - 2:
                    return None
                place = builder.add(builder.mul(as_value(s), vectors), builder.add(at, const(j)))
                bits = builder.load(builder.gep(mask_base, [builder.add(builder.mul(place, const(step)), const(i))]))
                return lanes_of_bits(builder, vec, bits)

            kept_masks = {(s, j, i): mask(s, j, i) for s in range(0, line.count, step) for j in range(size)
                          for i in range(step)}

            def load(row, offset, s, j, i):
                pointer = builder.gep(row, [builder.add(offset, const((j * step + i) * vec.n))])
                lanes = kept_masks[s, j, i] if known else mask(s, j, i)
                if lanes is None:
                    return load_vector(builder, pointer, first.type, align)
                return masked(builder, "load", vec, [
                    builder.bitcast(pointer, first.type.as_pointer()), ir.Constant(ir.IntType(32), align), lanes,
                    broadcast(builder, builder.load(fill_base), vec.n)], first.type)

            def piece(place, e, height):
                offset = builder.load(place)
                row = builder.select(builder.icmp_signed("==", offset, const(FILL)), fill_base,
                                     builder.gep(x_base, [builder.add(offset, builder.mul(at, const(step * vec.n)))]))
                for j in range(0, size * step * vec.n, 64 // align):
                    ask_for(builder, builder.gep(row, [builder.add(ahead, const(j))]))
                weight_rows = [] if kept_weights else row_weights(e, height)
                pairs = {}                              # loaded for a tap and its neighbour

                def load_tap(s):
                    offset = (builder.mul(apart, const(s)) if known else
                              builder.load(builder.gep(tap_base, [s])))
                    parity = s % step if known else 0
                    if parity == 0:
                        pairs.update({j: [load(row, offset, s, j, i) for i in range(step)] for j in range(size)})
                    loaded = [pairs[j][0] if step == 1 else alternate_lanes(builder, *pairs[j], parity)
                              for j in range(size)]
                    return loaded, kept_weights[e, s] if kept_weights else weights_of(weight_rows, s)

                return load_tap

            def store(row, sums):
                target = builder.gep(to, [builder.mul(ldo, row)])
                places = [builder.gep(target, [const(j * vec.n)]) for j in range(size)]
                for value, place in zip(sums[:-1], places, strict=False):
                    store_vector(builder, value, place, align)
                with builder.if_else(all_wanted) as (wholly, partly):
                    with wholly:
                        store_vector(builder, sums[-1], places[-1], align)
                    with partly:
                        store_first(builder, vec, sums[-1], places[-1], builder.sub(left, const((size - 1) * vec.n)))

            _grow_rows(builder, vec.dtype, (A, size), counts, builder.add(count, const(A - 1)), first, line_base, piece,
                       store)

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
            return address_of(context, builder, sig.args[number], array, const(0) if at is None else at)

        out_base, x_base, fill_base, line_base = base(0, out, o), base(9, x, p), base(13, fill), base(14, lines, n)
        place_base, tap_base, weight_base = base(16, places), base(19, taps), base(20, weight, w)
        position_base = base(22, positions)
        vector_type = context.get_value_type(vec)
        first = load_vector(builder, base(7, start, b), vector_type, align)
        distances = [builder.mul(distance, const(a * vec.n)) for a in range(A)]
        all_lanes = builder.icmp_signed("==", before, const(0))

        def add_strip(at, size, edge):
            to, begins = builder.gep(out_base, [builder.mul(at, apart)]), builder.mul(at, stride)

            def piece(place, e, height):
                offset = builder.load(place)
                outside = builder.icmp_signed("==", offset, const(FILL))
                line = builder.select(outside, fill_base, builder.gep(x_base, [offset]))
                step = builder.select(outside, const(0), unit)        # all positions of `fill` are one
                next_ = builder.mul(stride, step)
                weights = builder.gep(weight_base, [builder.mul(builder.load(builder.gep(place_base, [e])),
                                                                const(vec.n))])
                window = [builder.gep(weights, [distances[a]]) for a in range(height)]

                def mapped(u):
                    """Where the map says that padded position u lies."""
                    there = builder.load(builder.gep(position_base, [u]))
                    nowhere = builder.or_(outside, builder.icmp_signed("==", there, const(FILL)))
                    return builder.select(nowhere, fill_base, builder.gep(x_base, [builder.add(offset, there)]))

                def load_tap(s):
                    u = builder.add(builder.load(builder.gep(tap_base, [s])), begins)
                    at_once = builder.gep(line, [builder.mul(u, step)])
                    addresses = []
                    for _ in range(size):
                        addresses.append(mapped(u) if edge else at_once)
                        u, at_once = builder.add(u, stride), builder.gep(at_once, [next_])
                    s = builder.mul(s, const(vec.n))
                    return tuple([load_vector(builder, address, vector_type, align) for address in some]
                                 for some in (addresses, [builder.gep(row, [s]) for row in window]))

                return load_tap

            def store(row, sums):
                target = builder.gep(to, [builder.mul(ldo, row)])
                with builder.if_else(all_lanes) as (wholly, partly):
                    for some in (wholly, partly):
                        with some:
                            for j, value in enumerate(sums):
                                place = builder.gep(target, [builder.mul(apart, const(j))])
                                if some is wholly:
                                    store_vector(builder, value, place, align)
                                else:
                                    store_last(builder, vec, value, place, before)

            _grow_rows(builder, vec.dtype, (A, size),
                       (whole, size_of(context, builder, sig.args[16], places),
                        size_of(context, builder, sig.args[19], taps)),
                       builder.add(count, const(A - 1)), first, line_base, piece, store)

        _strips(builder, width, V, begin, end, (V, V), add_strip)
        return context.get_dummy_value()

    return sig, codegen
