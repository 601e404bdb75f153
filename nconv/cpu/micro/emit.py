"""What register tiles are made of: loops over sums in registers, a choice of code, the way of sums to memory."""

from llvmlite import ir
from numba.core import cgutils

from ..simd import INT, broadcast, first_lanes, masked, store_first, store_vector


def const(n):
    return ir.Constant(INT, n)


class Tile:
    """Where a tile's sums lie in the output: `height` of M rows and `width` of V vectors of columns are wanted."""

    def __init__(self, context, builder, vec, targets, height, width):
        self.builder, self.vec, self.targets = builder, vec, targets
        self.height, self.width = height, width
        self.type = context.get_value_type(vec)
        self.align = vec.dtype.bitwidth // 8
        self.rows = 1 + max(i for i, _ in targets)
        self.columns = 1 + max(j for _, j in targets)
        whole = builder.icmp_signed(">=", width, const(self.columns * vec.n))
        self.whole = builder.and_(whole, builder.icmp_signed(">=", height, const(self.rows)))

    def _masks(self):
        """For each vector of columns, which lanes are wanted."""
        for j in range(self.columns):
            left = self.builder.sub(self.width, const(j * self.vec.n))
            yield first_lanes(self.builder, self.vec.n, left)

    def load(self):
        """The sums that lie there; zeros in place of what is not wanted."""
        builder = self.builder
        align = ir.Constant(ir.IntType(32), self.align)
        nothing = ir.Constant(self.type, [0] * self.vec.n)
        masks = list(self._masks())
        sums = {}
        for (i, j), target in self.targets.items():
            inside = broadcast(builder, builder.icmp_signed("<", const(i), self.height), self.vec.n)
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
                    left = builder.sub(self.width, const(j * self.vec.n))
                    full = builder.icmp_signed(">=", left, const(self.vec.n))
                    with builder.if_else(full) as (all_lanes, some_lanes):
                        with all_lanes:
                            self._store_column(sums, j, lambda value, to: store_vector(builder, value, to, self.align))
                        with some_lanes:
                            with builder.if_then(builder.icmp_signed(">", left, const(0))):
                                self._store_column(sums, j, lambda value, to, left=left: store_first(
                                    builder, self.vec, value, to, left))

    def _store_column(self, sums, j, store):
        """``store(sum, its place)`` for the wanted rows of a column."""
        for i in range(self.rows):
            with self.builder.if_then(self.builder.icmp_signed("<", const(i), self.height)):
                store(sums[i, j], self.targets[i, j])


def loop(builder, name, first, end, sums, body, short=False):
    """The sums after ``body(t, sums)`` for first <= t < end; the body's "next" is where it goes on, else at t + 1.

    A `short` loop is not unrolled: what LLVM puts in front of it would take longer than a few turns.
    """
    entry = builder.block
    turn = builder.append_basic_block(name)
    done = builder.append_basic_block(f"{name}.done")
    builder.cbranch(builder.icmp_signed("<", first, end), turn, done)

    builder.position_at_end(turn)
    t = builder.phi(INT)
    running = {n: builder.phi(value.type) for n, value in sums.items()}
    after = {**running, **body(t, running)}
    following = after.pop("next", None) or builder.add(t, const(1))
    branch = builder.cbranch(builder.icmp_signed("<", following, end), turn, done)
    if short:                                           # a loop's mark must name itself first
        module = builder.module
        mark = module.add_metadata([f"loop {len(module.metadata)}"])
        mark.operands = (mark, module.add_metadata(["llvm.loop.unroll.disable"]))
        branch.set_metadata("llvm.loop", mark)
    t.add_incoming(first, entry)
    t.add_incoming(following, builder.block)
    for n, value in sums.items():
        running[n].add_incoming(value, entry)
        running[n].add_incoming(after[n], builder.block)

    last = builder.block
    builder.position_at_end(done)
    return merged(builder, (entry, sums), (last, after))


def as_value(t):
    """A number as the compiler's value, which it may be already."""
    return const(t) if isinstance(t, int) else t


def turns(builder, name, first, end, sums, body, short=False):
    """A `loop`; none at all where both ends are known: the body is written out for each number."""
    if isinstance(first, int) and isinstance(end, int):
        for t in range(first, end):
            sums = {**sums, **body(t, sums)}
        return sums
    return loop(builder, name, as_value(first), end, sums, body, short)


def merged(builder, *branches):
    """Sums by their place, from whichever of the (block, its sums) was run."""
    sums = {}
    for n, value in branches[0][1].items():
        sums[n] = builder.phi(value.type)
        for block, values in branches:
            sums[n].add_incoming(values[n], block)
    return sums


def choose(builder, case, bodies):
    """What the `case`-th of the bodies returns: sums by their place."""
    joined = builder.append_basic_block("chosen")
    switch = builder.switch(case, builder.append_basic_block("never"))
    results = []
    for number, body in enumerate(bodies):
        block = builder.append_basic_block(f"case.{number}")
        switch.add_case(const(number), block)
        builder.position_at_end(block)
        values = body()
        results.append((builder.block, values))
        builder.branch(joined)
    builder.position_at_end(switch.default)
    builder.unreachable()
    builder.position_at_end(joined)
    return merged(builder, *results)


def size_of(context, builder, array_type, array):
    """How many elements an array has."""
    return cgutils.create_struct_proxy(array_type)(context, builder, value=array).nitems
