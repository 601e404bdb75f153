"""Work that threads take as they get to it: one that wakes late, or runs on a slower core, takes less."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from . import simd


@intrinsic
def next_item(typingctx, counter):
    """The value of counter[0], which becomes one more; no two threads get the same. `counter` is int64."""

    def codegen(context, builder, sig, args):
        pointer = simd.address_of(context, builder, sig.args[0], args[0], ir.Constant(simd.INT, 0))
        return builder.atomic_rmw("add", pointer, ir.Constant(simd.INT, 1), "monotonic")

    return types.int64(counter), codegen
