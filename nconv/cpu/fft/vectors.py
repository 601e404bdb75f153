"""The vectors of the transforms: at most 32 bytes, also where registers hold 64.

Of longer vectors blocks would come in coarser sizes, and a core with units of 32 bytes would gain nothing; with these
AVX-512 has 32 registers of 32 bytes, enough for an eight of complex vectors.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...machine import vector_bytes
from .. import simd

WIDTH = min(vector_bytes(), 32)


def lanes(dtype) -> int:
    """Elements of a real `dtype` in one vector."""
    return WIDTH // np.dtype(dtype).itemsize


def vec(dtype) -> simd.Vec:
    """The vector of a Numba scalar type."""
    return simd.Vec(dtype, WIDTH * 8 // dtype.bitwidth)


def leaf_rows(lanes: int) -> int:
    """How many rings of as many points as a vector has lanes are split up together; see `butterflies`."""
    return min(lanes, 4)


@intrinsic
def lanes_of(typingctx, array):
    """`lanes` of an array's type, a constant in the kernel."""
    n = vec(array.dtype).n
    return types.intp(array), lambda context, builder, sig, args: ir.Constant(simd.INT, n)


@intrinsic
def load(typingctx, array, index):
    """The vector at array[index:]; `simd.vstore` writes it."""
    result = vec(array.dtype)

    def codegen(context, builder, sig, args):
        pointer = simd.address_of(context, builder, sig.args[0], args[0], args[1])
        return simd.load_vector(builder, pointer, context.get_value_type(result), array.dtype.bitwidth // 8)

    return result(array, types.intp), codegen


@intrinsic
def splat(typingctx, scalar):
    """The vector whose every lane holds `scalar`."""
    result = vec(scalar)
    return result(scalar), lambda context, builder, sig, args: simd.broadcast(builder, args[0], result.n)


@intrinsic
def store_pairs(typingctx, array, index, re, im):
    """array[index:] = re[0], im[0], re[1], im[1] ..."""

    def codegen(context, builder, sig, args):
        n = re.n
        for half in range(2):
            order = [i // 2 + half * n // 2 + i % 2 * n for i in range(n)]
            mixed = builder.shuffle_vector(args[2], args[3], ir.Constant(ir.VectorType(ir.IntType(32), n), order))
            pointer = simd.address_of(context, builder, sig.args[0], args[0],
                                    builder.add(args[1], ir.Constant(simd.INT, half * n)))
            simd.store_vector(builder, mixed, pointer, array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, re, im), codegen

