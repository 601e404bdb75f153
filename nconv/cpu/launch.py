"""From arrays to an algorithm's kernels, in two ways: for any arrays, and for those that lie as an earlier call's did.

An algorithm is bound to a problem once: ``bind(problem)`` looks up all tables and returns a function
``(x, prepared, bias, out)`` of operands that only starts kernels. `entries` makes of it what the engine calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..problem import ConvProblem
from .arrays import Operand, operand, parts

Bind = Callable[[ConvProblem], Callable[[Operand, Any, np.ndarray | None, Operand], None]]


def entries(prepare: Callable[[ConvProblem, np.ndarray], Any], bind: Bind,
            in_c_order: bool = True) -> tuple[Callable, Callable]:
    """``(run, shortcut)`` of an algorithm, as `registry` and `shortcuts` want them.

    `prepare` gets weights in C order, if they are not to come as they lie.
    """

    def run(problem, prepared, x, bias, out):
        """Fill `out`; see `registry` for the shapes."""
        bind(problem)(operand(x), prepared, bias, operand(out))

    def shortcut(problem, x, weight, out, prepared=None, is_right=None):
        """See `shortcuts`."""
        source, target, read = _strides(problem, *x), _strides(problem, *out), _reader(*weight, in_c_order)
        if source is None or target is None or read is None:
            return None
        start = bind(problem)
        real = problem.real if parts(problem) == 2 else None

        def fill(x, weight, bias, out):
            if prepared is not None:
                packed = prepared
            elif is_right is not None and not is_right(weight):
                return False
            else:
                packed = prepare(problem, read(weight))
            if real is not None:
                x, out = x.view(real), out.view(real)
            start(Operand(x, source), packed, bias, Operand(out, target))
            return True

        return fill

    return run, shortcut


def address(view: np.ndarray, base: np.ndarray) -> tuple[int, ...] | None:
    """(place of the first element in the flat memory of `base`, strides) of a view, in elements; None if it is none."""
    if view.dtype != base.dtype or not np.may_share_memory(view, base):
        return None
    first = view.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return tuple(n // base.itemsize for n in (first, *view.strides))


def _strides(problem: ConvProblem, view: np.ndarray, base: np.ndarray) -> np.ndarray | None:
    """The strides of an operand whose flat memory is that of `base`, where `view` is one."""
    if (address(view, base) or (1,))[0] != 0 or view.size != base.size:
        return None
    seen = operand(view)
    return seen.strides if np.may_share_memory(seen.flat, base) else None


def _reader(view: np.ndarray, base: np.ndarray, in_c_order: bool) -> Callable[[np.ndarray], np.ndarray] | None:
    """How to see an array that lies as `base` does in the way that `view` sees it, maybe in C order."""
    found = address(view, base)
    if found is None:
        return None
    shape, dtype, strides, offset = view.shape, view.dtype, view.strides, found[0] * base.itemsize
    if view.flags.c_contiguous and not offset:
        return lambda array: array.reshape(shape)
    if not in_c_order:
        return lambda array: np.ndarray(shape, dtype, array, offset, strides)
    return lambda array: np.ascontiguousarray(np.ndarray(shape, dtype, array, offset, strides))
