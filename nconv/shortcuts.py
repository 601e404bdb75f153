"""Calls whose like was seen before: straight from the public function to the kernel.

To lower, choose and prepare takes hundreds of microseconds, to sum 200 samples by 9 taps less than one. So the second
call of its kind may leave a shortcut under its signature: shapes, dtypes, options, number of threads. The next call of
this kind gets its result from there, and goes the long way only where the shortcut says that it must. The first leaves
none, for to make one costs time, too, which calls with ever new shapes would spend in vain.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from . import threads
from .geometry import product
from .lowering import Call, Route
from .phases import phases_for
from .problem import ConvProblem

Shortcut = Callable[..., Any]
"""(x, weight, bias=None, out=None) to the result, or None: this call must go the long way. The arrays in the order in

which the user gave them.
"""

_MOST = 256                    # signatures that are kept
_SHOWN = 1 << 26               # bytes of arrays made to be shown only; beside larger ones a call costs nothing
_COPIED = 1 << 16              # bytes of an input that are copied in less time than another way takes
_known: dict[tuple, Shortcut | None] = {}


def signature(arrays: tuple, options: tuple, out: Any) -> tuple | None:
    """All on which a call's result depends beside the values in its arrays; None where no shortcut can serve it.

    Options, the name of the function among them, are compared as bytes: 1, 1.0 and True are equal as keys, but not as
    a stride.
    """
    for array in arrays:
        if type(array) is not np.ndarray and array is not None:
            return None
    if out is not None and type(out) is not np.ndarray:
        return None
    try:
        words = marshal.dumps(options, 2)
    except ValueError:                                  # not made of plain values
        return None
    return (words, threads.get_num_threads(), out if out is None else out.dtype,
            *[a if a is None else (a.shape, a.dtype) for a in arrays])


def find(key: tuple | None) -> Shortcut | None:
    """The shortcut that was left under a signature."""
    return None if key is None else _known.get(key)


def leave(key: tuple | None, options: tuple, make: Callable[[], Shortcut | None]) -> None:
    """Keep what `make` gives under a signature that was seen once; it is not asked under one that was not."""
    if key is None or not _is_plain(options):
        return
    if key not in _known:
        if len(_known) >= _MOST:
            _known.clear()
        _known[key] = _seen
    elif _known[key] is _seen:
        _known[key] = make()


def _seen(x, weight, bias=None, out=None):
    """The long way, for one call more."""


def forget() -> None:
    """Drop all shortcuts, because something changed on which a choice depends."""
    _known.clear()


def _is_plain(value: Any) -> bool:
    """Whether the bytes of `marshal` stand for this value alone; other objects it writes as they lie in memory."""
    if type(value) in (tuple, list):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value.items()))
    return value is None or type(value) in (bool, int, float, complex, str)


def shortcut(call: Call, problem: ConvProblem, algorithm: ModuleType, allocate: Callable[[ConvProblem], np.ndarray],
             otherwise: Shortcut | None, prepared: Any = None) -> Shortcut | None:
    """The shortcut for calls like this one, where the algorithm offers one and only views lie between.

    The algorithm's ``shortcut(problem, x, weight, out, prepared, is_right)`` is shown pairs of (array in the engine's
    order, the dense array of which it is a view) and gives a function ``(x, weight, bias, out)`` of dense arrays, those
    of x and out flat, that fills `out`; or that returns False where the weight is not right for it, but holds a NaN or
    an infinity. With a `prepared` weight none needs to be given.

    `allocate` makes an output in the engine's order. Inputs that do not lie dense go to `otherwise`, unless a copy
    costs less.
    """
    route = call.route
    dtype = problem.engine
    parted = phases_for(algorithm, problem)[0].problem != problem
    if not hasattr(algorithm, "shortcut") or not _is_usual(call) or parted:
        return None
    if (product(call.x.shape) + product(call.weight.shape) + product(route.shape)) * dtype.itemsize > _SHOWN:
        return None
    x, weight, result = np.empty(call.x.shape, dtype), np.empty(call.weight.shape, dtype), allocate(problem)
    dense = route.leave(result)
    if not dense.flags.c_contiguous:
        return None
    fill = algorithm.shortcut(problem, (route.enter(x), x), (route.weigh(weight), weight), (result, dense), prepared,
                              _is_finite if route.looks else None)
    if fill is None:
        return None
    swapped, shape, copies = call.swapped, route.shape, x.nbytes <= _COPIED

    def run(x, weight=None, bias=None, out=None):
        if swapped:
            x, weight = weight, x
        if not _takes(out, route):
            return None                                 # the long way casts or refuses
        if not x.flags.carray:
            if not copies:
                return otherwise and otherwise(*((weight, x) if swapped else (x, weight)), bias, out)
            x = x.copy()
        if weight is not None and not weight.flags.carray:
            weight = weight.copy()
        if bias is not None and not bias.flags.carray:
            bias = bias.copy()
        result = None if out is None else lend(out, (x, weight, bias))
        if result is None:
            result = np.empty(shape, dtype)
        if not fill(x.ravel(), weight, bias, result.ravel()):
            return None
        if out is None or result is out:
            return result
        out[...] = result
        return out

    return run


def lend(out: np.ndarray, inputs: tuple) -> np.ndarray | None:
    """The caller's `out`, of the right shape and dtype, where kernels can write there; else None."""
    apart = not any(array is not None and np.may_share_memory(out, array) for array in inputs)
    return out if apart and out.flags.carray else None


def past_the_choice(call: Call, run: Callable[..., Any]) -> Shortcut | None:
    """The shortcut for calls like this one to ``run(x, weight, bias, out)``, which already knows the way."""
    route, swapped = call.route, call.swapped
    if not _is_usual(call) or route.dtype.kind not in "fc" or route.problem.device != "cpu":
        return None                                     # values of integers may have a say

    def usual(x, weight, bias=None, out=None):
        if swapped:
            x, weight = weight, x
        if not _takes(out, route) or (route.looks and not _is_finite(weight)):
            return None
        return run(x, weight, bias, out)

    return usual


def _is_usual(call: Call) -> bool:
    """Whether a call has a result of some axes and elements, and one dtype for all."""
    route = call.route
    given = [a.dtype for a in (call.x, call.weight, call.bias) if a is not None]
    return (call.instead is None and bool(route.shape) and 0 not in route.shape
            and all(dtype == route.problem.engine for dtype in (*given, route.dtype)))


def _is_finite(array: np.ndarray) -> bool:
    return np.count_nonzero(np.isfinite(array)) == array.size       # in half the time of `all`


def _takes(out: np.ndarray | None, route: Route) -> bool:
    """Whether the result can go to `out` as it is."""
    return out is None or (out.shape == route.shape and out.dtype == route.dtype and out.flags.writeable)
