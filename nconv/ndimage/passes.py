"""Sequences of one-dimensional windows, one for each axis: what the filters of this family are made of.

In floating types the windows of all axes are one call where the engine's model finds that cheaper: their outer product
is run as passes within the cache. In integers each axis is a call, for SciPy truncates what each axis gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import numpy as np

from .. import choice, registry
from ..geometry import product
from ..lowering import as_array, lower, on_gpu
from ..problem import ArraySpec
from .correlation import correlate, correlate1d, exact, output_of, truncated

_LARGEST_WINDOW = 1 << 15      # taps of an outer product: to make more would cost as much as a pass


class Step(NamedTuple):
    """What happens along one axis."""

    axis: int
    weights: np.ndarray        # float64, or integers
    mode: str
    origin: int = 0


def run(input: np.ndarray, steps: Sequence[Step], output: Any, cval: complex) -> np.ndarray:
    """Correlate along one axis after the other."""
    dtype, target = output_of(output, input, input.dtype.kind == "c")
    wing = wing_of(input)
    if not steps:
        result = wing.narrow(input, dtype, truncated)
        result = input.astype(dtype) if result is input else result
    elif input.dtype.kind in "fc" and dtype.kind in "fc":
        result = _in_floats(input, steps, dtype, cval)
    else:
        result = input
        for step in steps:
            weights = wing.beside(exact(step.weights, input.dtype, dtype), input)
            result = correlate1d(result, weights, step.axis, dtype, step.mode, cval, step.origin)
    return hand_over(result, target, input)


def wing_of(x: Any) -> Any:
    """The module of arrays of the device on which `x` lies."""
    return registry.arrays("cuda" if on_gpu(x) else "cpu")


def hand_over(result: Any, target: Any, x: Any) -> Any:
    """The result in the caller's kind, or in the array that takes it."""
    wing = wing_of(x)
    if target is None:
        return wing.deliver(seen(result), x)
    wing.assign(target, seen(result))
    return target


def seen(result: Any) -> Any:
    """What a function of this family gave, as NumPy's algebra takes it: on a GPU a view of the caller's array."""
    return as_array(result, "result") if on_gpu(result) else result


def _in_floats(x: np.ndarray, steps: Sequence[Step], dtype: np.dtype, cval: complex) -> np.ndarray:
    """All axes in one call, or one after the other, whichever the engine's model prefers."""
    single = np.result_type(x.dtype, dtype, np.float32).char in "fF"
    steps = [s._replace(weights=s.weights.astype(np.float32 if single else np.float64)) for s in steps]
    # What an axis makes of a constant outside is the next one's input; a window of the whole sees the constant itself.
    alike = cval == 0 or not any("constant" in s.mode.lower() for s in steps)
    axes, windows, modes, origins = zip(*sorted(steps, key=lambda s: s.axis), strict=True)
    taps = tuple(w.size for w in windows)
    device, beside = "cuda" if on_gpu(x) else "cpu", wing_of(x).beside
    if alike and _together(x.shape, x.dtype, dtype, axes, taps, modes, windows[0].dtype, device):
        return correlate(x, beside(reduce(np.multiply.outer, windows), x), dtype, modes, cval, origins, axes=axes)
    y = x
    for step in steps:
        y = correlate1d(y, beside(step.weights, x), step.axis, dtype, step.mode, cval, step.origin)
    return y


@lru_cache(maxsize=256)
def _together(shape, dtype, out_dtype, axes, taps, modes, weight_dtype, device="cpu") -> bool:
    """Whether one call with the outer product of all windows is predicted to take no longer than one for each axis."""
    if len(axes) < 2 or product(taps) > _LARGEST_WINDOW or 0 in shape:
        return False
    x = ArraySpec(shape, dtype, device)
    whole = lower(correlate, x, ArraySpec(taps, weight_dtype, device), out_dtype, modes, axes=axes).route.problem
    single = [lower(correlate1d, x, ArraySpec((n,), weight_dtype, device), axis, out_dtype, mode).route.problem
              for axis, n, mode in zip(axes, taps, modes, strict=True)]
    return choice.seconds(whole.replace(separable=device == "cpu")) <= sum(map(choice.seconds, single))


def as_input(input: Any) -> np.ndarray:
    """The array to filter; these functions have no plans."""
    array = as_array(input, "input")
    if isinstance(array, ArraySpec):
        raise TypeError("input must be an array, not an ArraySpec")
    return array


def as_axis(axis: Any, ndim: int) -> int:
    """A non-negative axis."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -ndim <= axis < ndim:
        raise ValueError(f"axis must lie within the {ndim} dimensions of input: axis={axis!r}")
    return int(axis) % ndim
