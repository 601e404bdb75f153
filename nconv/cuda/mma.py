"""The tensor cores' product as intrinsics of Numba, with a body in plain Python for the simulator.

A word of 32 bits is a float32, of which the tensor cores read eleven bits of precision (TF32), or two float16.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .device import SIMULATED, block_function, cuda

__all__ = ["WORDS", "Product", "nearest_tf32", "product_of", "round_tf32", "share", "swizzled"]


WORDS = 32                     # of a step: a row of shared memory as the tensor cores read it
EIGHTS = WORDS // 16           # products of eight words in half a step


class Product(NamedTuple):
    """What the lanes of a warp multiply in a step: [16 high x WORDS] [WORDS x 8 wide].

    The first factor lies in memory as fragments of 16 rows x 8 words, four words of a lane side by side: rows lane / 4
    and 8 below of word lane % 4, then the same of word lane % 4 + 4. The second lies in shared memory, [columns,
    WORDS], groups of four words where `swizzled` says. A lane's sums are those of rows lane / 4 and 8 below, columns
    2 (lane % 4) and the next: (row, column), (row, next), (below, column), (below, next).
    """

    kind: str                  # 'tf32' or 'half'
    group: bool                # four warps multiply together, as compute capability 9.0 has it
    high: int
    wide: int
    apart: int                 # fragments from one of the warp's to the next
    tiles: int                 # fragments from eight words to the next

    @property
    def held(self) -> int:
        """Words of the first factor that a lane holds before half a step."""
        return 4 * self.high * (EIGHTS if self.group else 1)


@block_function
def swizzled(chunk, row):
    """Where in its row of shared memory a group of four words lies, so that neither rows nor groups meet in a bank."""
    return chunk ^ (row & 7)


if SIMULATED or cuda is None:

    def product_of(p: Product):
        """(begin, release, finish).

        begin(half, rows, weight, at_row, columns, at_column, lane, sums) adds half a step, 0 or 1, to the lane's sums
        (high, wide, 4): `rows` are the words that it holds of `weight`, the first of them at `at_row`. release(rows)
        waits until the last begin but one no longer needs its rows, finish(rows, sums) for the sums.
        """
        @block_function
        def begin(half, rows, weight, at_row, columns, at_column, lane, sums):
            held = np.positive(columns[at_column:at_column + 8 * p.wide * WORDS]).reshape(8 * p.wide, -1, 4)
            second = np.stack([row[[swizzled(c, n) for c in range(WORDS // 4)]]
                               for n, row in enumerate(held)]).reshape(8 * p.wide, 2, WORDS // 2)[:, half]
            for i in range(p.high):
                first = np.stack([np.positive(weight[at:at + 128]) for at in (
                    at_row - 4 * lane + 128 * (q * p.tiles + i * p.apart) for q in range(EIGHTS))])
                first = first.reshape(EIGHTS, 8, 4, 2, 2).transpose(4, 1, 0, 3, 2).reshape(16, WORDS // 2)
                for j in range(p.wide):
                    for l in range(4):
                        a, b = (_numbers(words) for words in (first[lane // 4 + l // 2 * 8],
                                                              second[8 * j + lane % 4 * 2 + l % 2]))
                        sums[i, j, l] += np.float32(np.dot(a, b))

        def _numbers(words):
            return ((words & np.uint32(0xFFFFE000)).view(np.float32) if p.kind == "tf32"
                    else words.view(np.float16)).astype(float)

        @block_function
        def release(rows):
            pass

        @block_function
        def finish(rows, sums):
            pass

        return begin, release, finish

    @block_function
    def share():
        """Let the tensor cores see what this thread has written to shared memory; before a barrier."""

    @block_function
    def nearest_tf32(word):
        """The bits of a float32 raised by half of a unit of TF32: the tensor cores, which drop the rest, round it."""
        value, unit = np.array([word, int(word) & 0xFF800000], np.uint32).view(np.float32)
        return np.float32(value + unit * np.float32(2.0 ** -11)).view(np.uint32)

    @block_function
    def round_tf32(value):
        """A float32 rounded to TF32."""
        return np.uint32(int(nearest_tf32(np.float32(value).view(np.uint32))) & 0xFFFFE000).view(np.float32)

else:
    from llvmlite import ir
    from numba import types
    from numba.cuda.extending import intrinsic

    SINGLE, WORD, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
    SHAPES = {"tf32": ("k8", "tf32"), "half": ("k16", "f16")}

    def _word(value):
        return ir.Constant(WORD, value)

    def _assembly(builder, text, results, constraints, arguments, pure=False):
        """Inline instructions. Those that are not pure keep their place, and no access of memory crosses them."""
        kind = ir.FunctionType(results, [a.type for a in arguments])
        constraints = ",".join(constraints if pure else [*constraints, "~{memory}"])
        return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=not pure), arguments)

    def _pointer(context, builder, kind, array, of):
        return builder.bitcast(context.make_array(kind)(context, builder, array).data, ir.PointerType(of))

    def _elements(context, builder, kind, array, of, count):
        """Pointers to the elements of a local array, which LLVM keeps in registers."""
        pointer = _pointer(context, builder, kind, array, of)
        return [builder.gep(pointer, [_word(i)]) for i in range(count)]

    def _shared_address(context, builder, kind, array, at):
        there = builder.gep(_pointer(context, builder, kind, array, WORD), [at])
        return builder.ptrtoint(builder.addrspacecast(there, ir.PointerType(WORD, 3)), WORD)

    def _change(builder, text, sums, others, constraints):
        """Instructions that read and write all the sums; `constraints` are those of the other operands."""
        results = ir.LiteralStructType([SINGLE] * len(sums))
        constraints = [*["=f"] * len(sums), *map(str, range(len(sums))), *constraints]
        result = _assembly(builder, text, results, constraints, [*map(builder.load, sums), *others])
        for i, place in enumerate(sums):
            builder.store(builder.extract_value(result, i), place)

    def _names(first, count):
        return "{" + ", ".join(f"${first + i}" for i in range(count)) + "}"

    def _multiply_together(p, builder, rows, sums, address, half):
        """wgmma: queued, in one piece for every 16 rows of a warp, so that nothing touches the sums in between."""
        # The second factor: where it begins and how far apart eight of its rows are, in units of 16 bytes, and that
        # they are swizzled by 128 bytes.
        begins = builder.lshr(builder.and_(address, _word(0x3FFFF)), _word(4))
        matrix = builder.or_(builder.zext(begins, LONG), ir.Constant(LONG, 1 << 62 | 2 * WORDS << 32 | 1 << 16))
        shape, number = SHAPES[p.kind]
        count = 4 * p.wide
        product = f"wgmma.mma_async.sync.aligned.m64n{8 * p.wide}{shape}.f32.{number}.{number}"
        last = "all, 1, 1" if p.kind == "tf32" else "all, 1, 1, 0"
        text = " ".join((
            "{.reg .pred all; .reg .b64 matrix; setp.ne.b32 all, 1, 0; wgmma.fence.sync.aligned;",
            *(f"add.s64 matrix, ${2 * count + 4 * EIGHTS}, {2 * (half * EIGHTS + q)}; {product} {_names(0, count)}, "
              f"{_names(2 * count + 4 * q, 4)}, matrix, {last};" for q in range(EIGHTS)),
            "wgmma.commit_group.sync.aligned;}"))
        for i in range(p.high):
            mine = [builder.load(rows[4 * (q * p.high + i) + l]) for q in range(EIGHTS) for l in range(4)]
            _change(builder, text, sums[i * count:i * count + count], [*mine, matrix], [*"r" * len(mine), "l"])

    def _multiply_alone(p, builder, rows, sums, address, half, lane, fragments):
        """mma of one warp; the first factor's words are loaded eight words ahead of their use."""
        shape, number = SHAPES[p.kind]
        product = f"mma.sync.aligned.m16n8{shape}.row.col.f32.{number}.{number}.f32"
        four_words, four_sums = ir.LiteralStructType([WORD] * 4), ir.LiteralStructType([SINGLE] * 4)
        # A lane gives ldmatrix the address of a row of one of four matrices of 8 columns x 4 words: two neighbours
        # along the words, the same of the next eight columns.
        row, odd, below = (builder.and_(lane, _word(7)), builder.and_(builder.lshr(lane, _word(3)), _word(1)),
                           builder.lshr(lane, _word(4)))
        column = builder.add(builder.mul(below, _word(8)), row)
        start = builder.add(address, builder.mul(column, _word(4 * WORDS)))
        following = [builder.load(r) for r in rows]
        for q in range(EIGHTS):
            chunk = builder.xor(builder.add(odd, _word(2 * (half * EIGHTS + q))), row)
            at = builder.add(start, builder.mul(chunk, _word(16)))
            own, following = following, []
            for i in range(p.high if q + 1 < EIGHTS else 0):
                place = builder.gep(fragments, [_word(128 * ((q + 1) * p.tiles + i * p.apart))])
                four = builder.load(builder.bitcast(place, ir.PointerType(ir.VectorType(WORD, 4))), align=16)
                following += [builder.extract_element(four, _word(l)) for l in range(4)]
            for j in range(0, p.wide, 2):
                loaded = _assembly(
                    builder, f"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {_names(0, 4)}, [$4 + {32 * WORDS * j}];",
                    four_words, ["=r"] * 4 + ["r"], [at])
                for i in range(p.high):
                    for k in range(2):
                        mine = sums[4 * (i * p.wide + j + k):][:4]
                        result = _assembly(
                            builder, f"{product} {_names(0, 4)}, {_names(4, 4)}, {_names(8, 2)}, {_names(10, 4)};",
                            four_sums, [*["=f"] * 4, *"rrrrrrffff"],
                            [*own[4 * i:4 * i + 4], *(builder.extract_value(loaded, 2 * k + l) for l in range(2)),
                             *map(builder.load, mine)], pure=True)
                        for l in range(4):
                            builder.store(builder.extract_value(result, l), mine[l])

    def product_of(p: Product):
        @intrinsic
        def begin(typingctx, half, rows, weight, at_row, columns, at_column, lane, sums):
            if not isinstance(half, types.IntegerLiteral):
                return None

            def generate(context, builder, signature, args):
                kinds = signature.args
                held = _elements(context, builder, kinds[1], args[1], WORD, p.held)
                totals = _elements(context, builder, kinds[7], args[7], SINGLE, 4 * p.high * p.wide)
                address = _shared_address(context, builder, kinds[4], args[4], args[5])
                if p.group:
                    _multiply_together(p, builder, held, totals, address, half.literal_value)
                else:
                    fragments = builder.gep(_pointer(context, builder, kinds[2], args[2], WORD), [args[3]])
                    _multiply_alone(p, builder, held, totals, address, half.literal_value,
                                    context.cast(builder, args[6], kinds[6], types.int32), fragments)
                return context.get_dummy_value()

            return types.void(half, rows, weight, at_row, columns, at_column, lane, sums), generate

        @intrinsic
        def release(typingctx, rows):
            def generate(context, builder, signature, args):
                if p.group:
                    held = _elements(context, builder, signature.args[0], args[0], WORD, p.held)
                    _assembly(builder, f"wgmma.wait_group.sync.aligned {p.high};", ir.VoidType(), "r" * len(held),
                              [*map(builder.load, held)])
                return context.get_dummy_value()

            return types.void(rows), generate

        @intrinsic
        def finish(typingctx, rows, sums):
            def generate(context, builder, signature, args):
                if p.group:
                    held = _elements(context, builder, signature.args[0], args[0], WORD, p.held)
                    totals = _elements(context, builder, signature.args[1], args[1], SINGLE, 4 * p.high * p.wide)
                    _change(builder, "wgmma.wait_group.sync.aligned 0;", totals, [*map(builder.load, held)],
                            "r" * len(held))
                return context.get_dummy_value()

            return types.void(rows, sums), generate

        return begin, release, finish

    @intrinsic
    def share(typingctx):
        def generate(context, builder, signature, args):
            _assembly(builder, "fence.proxy.async.shared::cta;", ir.VoidType(), [], [])
            return context.get_dummy_value()

        return types.void(), generate

    @intrinsic
    def nearest_tf32(typingctx, word):
        def generate(context, builder, signature, args):
            unit = builder.bitcast(builder.and_(args[0], _word(0xFF800000)), SINGLE)
            raised = builder.fma(unit, ir.Constant(SINGLE, 2.0 ** -11), builder.bitcast(args[0], SINGLE))
            return builder.bitcast(raised, WORD)

        return types.uint32(types.uint32), generate

    @intrinsic
    def round_tf32(typingctx, value):
        def generate(context, builder, signature, args):
            return builder.bitcast(_assembly(builder, "cvt.rna.tf32.f32 $0, $1;", WORD, ["=r", "f"], args, pure=True),
                                   SINGLE)

        return types.float32(types.float32), generate
