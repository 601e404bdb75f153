"""What the values of a signal's call ask for, beside its shapes: nothing to add up, large integers, infinite taps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from . import choice, engine
from .lowering import Call, check_out
from .machine import WORTH_THE_LONG_WAY


def execute(call: Call) -> np.ndarray:
    """Run a call; integers go through an FFT only where that is exact."""
    problem = call.route.problem
    if 0 in call.weight.shape or (0 in call.x.shape and problem.fill == 0):
        return _empty_sums(call)
    if problem.dtype.kind in "biu" and problem.device == "cpu":     # a look at values would wait for the GPU
        if call.method == "fft":
            if not fft_is_exact(call.x, call.weight):
                raise ValueError(f"method='fft' cannot hold integers this large exactly (dtype {problem.dtype}); "
                                 "methods that do: 'direct', 'im2col'")
            call = in_float64(call)
        elif call.method == "auto" and problem.macs > WORTH_THE_LONG_WAY:
            exact = in_float64(call)
            faster = choice.decide(exact.route.problem).algorithm.NAME == "fft" and (
                choice.seconds(exact.route.problem) < choice.seconds(problem))
            if faster and fft_is_exact(call.x, call.weight):
                call = exact
    return scalar(engine.execute(call), call)


def scalar(result: np.ndarray, call: Call) -> Any:
    """Zero-dimensional results as NumPy gives products of them; others as they are."""
    return result[()] if isinstance(result, np.ndarray) and result.ndim == 0 and call.out is None else result


def _empty_sums(call: Call) -> np.ndarray:
    """The result where there is nothing to add up: zeros."""
    route = call.route
    if min(route.shape) < 0:
        raise ValueError(f"two empty inputs have no full convolution: shapes {call.x.shape} and {call.weight.shape}")
    check_out(call.out, route.shape, route.dtype, like=call.x)
    return engine.empty_result(call)


def fft_is_exact(x: np.ndarray, weight: np.ndarray) -> bool:
    """Whether a float64 FFT gives these integers exactly: its error stays below a quarter.

    The bound is eps log2(n) ||x|| ||weight|| with a factor of 8, norms from the largest magnitudes.
    """
    largest = [max(abs(int(a.max())), abs(int(a.min()))) if a.size else 0 for a in (x, weight)]
    norms = largest[0] * largest[1] * math.sqrt(x.size * weight.size)
    return bool(8 * np.finfo(float).eps * math.log2(x.size + weight.size + 2) * norms < 0.25)


def in_float64(call: Call) -> Call:
    """The same integer problem in float64, rounded at the end."""
    dtype = call.route.dtype

    def to_integers(result, _):
        rounded = np.rint(result)
        return rounded != 0 if dtype.kind == "b" else rounded.astype(np.int64).astype(dtype)

    problem = call.route.problem.replace(dtype=np.dtype("f8"))
    return replace(call, route=replace(call.route, problem=problem, cast=to_integers))


def with_infinite_taps(call: Call) -> np.ndarray:
    """Run a call whose weight holds NaN or infinity.

    A signal ends where it ends: the engine's zeros beyond its edges must not meet an infinite tap, for 0 * inf is NaN.
    So the engine gets the finite values, and products with any other are added one by one, only where they exist.
    """
    problem = call.route.problem
    x, weight = (np.where(np.isfinite(a), a, 0).astype(a.dtype) for a in (call.x, call.weight))
    clean = replace(call, out=None, x=x, weight=weight, instead=None)
    x = call.route.enter(call.x).astype(problem.dtype, copy=False)
    weight = call.route.weigh(call.weight).astype(problem.dtype, copy=False)
    extra = np.zeros(problem.out_shape, problem.dtype)
    low = [pair[0] for pair in problem.padding]
    with np.errstate(invalid="ignore", over="ignore"):
        for k, c, *tap in np.argwhere(~np.isfinite(weight)):             # out[o] += tap * x[o + tap - low]
            o0 = [max(0, b - r) for r, b in zip(tap, low, strict=True)]
            o1 = [max(a, min(o, n + b - r))
                  for a, o, n, r, b in zip(o0, problem.out, problem.size, tap, low, strict=True)]
            places = tuple(map(slice, o0, o1))
            sources = tuple(slice(a + r - b, e + r - b) for a, e, r, b in zip(o0, o1, tap, low, strict=True))
            extra[(slice(None), k, *places)] += weight[(k, c, *tap)] * x[(slice(None), k // problem.K, *sources)]
        for n, g, *at in np.argwhere(~np.isfinite(x)):                   # out[at + low - tap] += x[at] * finite tap
            o0 = [max(0, i + b - (t - 1)) for i, b, t in zip(at, low, problem.kernel, strict=True)]
            o1 = [max(a, min(o, i + b + 1)) for a, o, i, b in zip(o0, problem.out, at, low, strict=True)]
            taps = np.ix_(*(i + b - np.arange(a, e) for a, e, i, b in zip(o0, o1, at, low, strict=True)))
            rows = slice(g * problem.K, (g + 1) * problem.K)
            w = weight[(rows, 0, *taps)]
            extra[(n, rows, *map(slice, o0, o1))] += np.where(np.isfinite(w), x[(n, g, *at)] * w, 0)
        result = engine.execute(clean) + call.route.leave(extra)
    if call.out is None:
        return result
    check_out(call.out, call.route.shape, call.route.dtype)
    call.out[...] = result
    return call.out
