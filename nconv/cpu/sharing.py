"""Work that threads take as they get to it: one that wakes late, or runs on a slower core, takes less."""

from __future__ import annotations

from numba.core import types
from numba.extending import intrinsic

from ..geometry import share_start
from ..jit import compiled, inlined, inner_kernel
from . import simd

LINE = 8                       # numbers of a thread, which fill a line of the cache: none waits for another's
_BATCHES = 8                   # in which a thread takes its own share: the fewer, the more is left to one at the end

share_start_ = compiled(share_start)


@intrinsic
def _add_at_once(typingctx, array, index, count):
    """The value of array[index], to which `count` is added before another thread can read it; int64."""

    def codegen(context, builder, sig, args):
        pointer = simd.address_of(context, builder, sig.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "monotonic")

    return types.int64(array, types.int64, types.int64), codegen


@inner_kernel
def _take_batch(shares, items, thread):
    """(first piece of work, behind the last) that are taken at once; (`items`, `items`) where nothing is left."""
    threads = shares.size // LINE
    count = max(items // (_BATCHES * threads), 1)
    for i in range(threads):
        owner = (thread + i) % threads
        first, end = share_start_(items, threads, owner), share_start_(items, threads, owner + 1)
        first += _add_at_once(shares, owner * LINE, count)
        if first < end:
            return first, min(first + count, end)
    return items, items


@inlined
def take(shares, items, thread):
    """A thread's next piece of work, of so many, or -1: first of its own share, as neighbours have data in common.

    `shares` are `LINE` numbers for each thread, zeros at first: how many of its share are taken, where the batch goes
    on that the thread has taken last, and where that ends.
    """
    mine = thread * LINE
    item = shares[mine + 1]
    if item == shares[mine + 2]:
        item, shares[mine + 2] = _take_batch(shares, items, thread)
        if item == items:
            return -1
    shares[mine + 1] = item + 1
    return item
