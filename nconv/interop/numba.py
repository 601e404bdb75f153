"""nconv's functions inside a user's own compiled code: ``nconv.convolve(x, h)`` in a function under ``@numba.njit``.

Numba calls `init` when it makes its first function (the entry point ``numba_extensions``), so an import of nconv is
all that a user needs. Types, words and unsupported arguments are settled while the user's function is compiled; shapes
reach `cpu.inline` at run time. Everything runs serially in the caller's thread, without the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload, register_jitable
from numba.np.numpy_support import as_dtype

from .. import functional, signal
from ..machine import machine
from ..problem import engine_dtype

_MODES = tuple(signal.RANGES)
_METHODS = ("auto", "direct", "fft")
_ready = False


def init() -> None:
    """Make the functions known to Numba; a second call does nothing."""
    global _ready
    if _ready:
        return
    _ready = True
    overload(signal.convolve, prefer_literal=True)(_overload_convolve)
    overload(signal.correlate, prefer_literal=True)(_overload_correlate)
    for rank, layer in enumerate((functional.conv1d, functional.conv2d, functional.conv3d), 1):
        overload(layer, prefer_literal=True)(_overload_layer(rank))


# --------------------------------------------------------------------------------------------------- Arguments


def _value(argument: Any) -> Any:
    """What a compile-time argument holds: the value of a literal or of a default, else its type."""
    if isinstance(argument, types.Omitted):
        return argument.value
    if isinstance(argument, types.NoneType):
        return None
    return argument.literal_value if isinstance(argument, types.Literal) else argument


def _dtype(argument: Any, name: str) -> np.dtype:
    """Type of an array argument's elements."""
    if not isinstance(argument, types.Array):
        raise TypingError(f"{name} must be an array, not {argument}")
    try:
        dtype = as_dtype(argument.dtype)
        engine_dtype(dtype)
        if dtype == np.float16:
            raise TypeError("float16 has no arithmetic in compiled code; expected float32 or float64")
    except (TypeError, NotImplementedError) as error:
        raise TypingError(f"{name}: {error}") from None
    return dtype


def _word(argument: Any, name: str, words: tuple[str, ...]) -> str | None:
    """A word known while compiling, in lower case; None for a string known at run time only."""
    value = _value(argument)
    if isinstance(value, types.UnicodeType):
        return None
    if not isinstance(value, str) or value.lower() not in words:
        raise TypingError(f"unknown {name}: {name}={value!r}, expected one of {', '.join(map(repr, words))}")
    return value.lower()


def _constant(argument: Any, name: str, words: tuple[str, ...]) -> str:
    """As `_word`, of a word that must be known while compiling."""
    word = _word(argument, name, words)
    if word is None:
        raise TypingError(f"{name} must be a constant inside compiled code, one of {', '.join(map(repr, words))}")
    return word


def _absent(**arguments: Any) -> None:
    """Refuse what compiled code does not take."""
    for name, argument in arguments.items():
        if _value(argument) is not None:
            raise TypingError(f"{name} cannot be given inside compiled code: {name}={_value(argument)}")


# ------------------------------------------------------------------------------------------ Arrays in and out


def _enter(array: types.Array, engine: np.dtype) -> Callable:
    """A function that gives an array of this type as flat contiguous memory of the engine's type."""
    from ..cpu.inline import lend

    if array.layout == "C" and array.aligned and as_dtype(array.dtype) == engine:
        def enter(a):
            return lend(a).reshape(a.size)
    else:
        number = engine.type

        def enter(a):
            return np.ascontiguousarray(a).astype(number).reshape(a.size)
    return register_jitable(enter)


def _leave(dtype: np.dtype, engine: np.dtype) -> Callable:
    """A function that narrows an array of the engine's type to the result's."""
    if dtype == engine:
        def leave(y):
            return y
    elif dtype.kind == "b":
        def leave(y):
            return y != 0
    else:
        number = dtype.type

        def leave(y):
            return y.astype(number)
    return register_jitable(leave)


def _types(**arrays: Any) -> tuple[np.dtype, np.dtype, np.ndarray]:
    """(the result's dtype, the engine's, an array of its real numbers) of the array arguments."""
    dtype = np.result_type(*(_dtype(array, name) for name, array in arrays.items()))
    engine = engine_dtype(dtype)
    return dtype, engine, np.zeros(1, engine).real.copy()


# Triples stand for one to three axes, the first ones filled up.
_SHAPES = {1: lambda n: (n[2],), 2: lambda n: (n[1], n[2]), 3: lambda n: (n[0], n[1], n[2])}
_TRIPLES = {1: lambda n, fill: (fill, fill, n[0]), 2: lambda n, fill: (fill, n[0], n[1]),
            3: lambda n, fill: (n[0], n[1], n[2])}


# ----------------------------------------------------------------------------------------------------- Signals


def _range(mode: str | None) -> Callable:
    """First position and number of positions that a mode keeps, of a mode known while compiling or not."""
    from ..cpu.inline import RANGES

    full, same, valid = (RANGES[word] for word in _MODES)
    if mode is not None:
        known = RANGES[mode]

        def kept(n1, n2, mode):
            return known(n1, n2)
    else:
        def kept(n1, n2, mode):
            if mode == "full":
                return full(n1, n2)
            if mode == "same":
                return same(n1, n2)
            if mode == "valid":
                return valid(n1, n2)
            raise ValueError("unknown mode: expected 'full', 'same' or 'valid'")
    return register_jitable(kept)


def _signal(correlate: bool, in1, in2, mode, method, axes, out, device) -> Callable:
    """The implementation of `convolve` or `correlate` for arguments of these types."""
    from ..cpu import inline

    dtype, engine, real = _types(in1=in1, in2=in2)
    rank = in1.ndim
    if in2.ndim != rank:
        raise TypingError("in1 and in2 should have the same dimensionality: "
                          f"in1.ndim={in1.ndim}, in2.ndim={in2.ndim}")
    if rank not in _SHAPES:
        raise TypingError(f"in1 and in2 must have 1 to 3 dimensions inside compiled code: in1.ndim={rank}")
    word = _word(mode, "mode", _MODES)
    method = _constant(method, "method", _METHODS)
    ratio = inline.rate_ratio(engine, machine(), method)
    if engine.kind == "i" and method == "fft":
        raise TypingError("method='fft' would round integers; methods that do not: 'auto', 'direct'")
    _absent(axes=axes, out=out, device=device)
    kept, enter1, enter2, leave = _range(word), _enter(in1, engine), _enter(in2, engine), _leave(dtype, engine)

    if rank == 1:
        lines = inline.convolve_complex_lines if engine.kind == "c" else inline.convolve_lines

        def implementation(in1, in2, mode="full", method="auto", axes=None, out=None, device=None):
            if in1.size == 0 or in2.size == 0:
                raise ValueError("in1 and in2 must not be empty: sizes", in1.size, in2.size)
            start, length = kept(in1.size, in2.size, mode)
            return leave(lines(enter1(in1), enter2(in2), start, length, correlate, ratio))

        return implementation

    images, shape_of, triple = inline.convolve_images, register_jitable(_SHAPES[rank]), register_jitable(_TRIPLES[rank])
    image_ratio = None if engine.kind == "c" else ratio
    may_be_valid = word in (None, "valid")
    number = real.dtype.type

    def images_implementation(in1, in2, mode="full", method="auto", axes=None, out=None, device=None):
        if in1.size == 0 or in2.size == 0:
            raise ValueError("in1 and in2 must not be empty: sizes", in1.size, in2.size)
        size1, size2 = triple(in1.shape, 1), triple(in2.shape, 1)
        p, q, r = (kept(size1[0], size2[0], mode), kept(size1[1], size2[1], mode), kept(size1[2], size2[2], mode))
        start, length = (p[0], q[0], r[0]), (p[1], q[1], r[1])
        if may_be_valid and mode == "valid":
            larger = size1[0] > size2[0] or size1[1] > size2[1] or size1[2] > size2[2]
            smaller = size1[0] < size2[0] or size1[1] < size2[1] or size1[2] < size2[2]
            if larger and smaller:
                raise ValueError("for mode='valid' one input must be at least as large as the other in every "
                                 "dimension: shapes", in1.shape, in2.shape)
        y = images(enter1(in1), enter2(in2), size1, size2, start, length, correlate, np.empty(0, number),
                   image_ratio)
        return leave(y.reshape(shape_of(length)))

    return images_implementation


def _overload_convolve(in1, in2, mode="full", method="auto", axes=None, out=None, device=None):
    return _signal(False, in1, in2, mode, method, axes, out, device)


def _overload_correlate(in1, in2, mode="full", method="auto", axes=None, out=None, device=None):
    return _signal(True, in1, in2, mode, method, axes, out, device)


# ------------------------------------------------------------------------------------------------------ Layers


def _per_axis(argument: Any, name: str, rank: int) -> Callable:
    """A function that makes a triple of an argument of this type: one integer, or one for each axis."""
    value = _value(argument)
    triple = register_jitable(_TRIPLES[rank])
    if isinstance(value, (int, types.Integer)) and not isinstance(value, (bool, types.Boolean)):
        everywhere = register_jitable((lambda v, fill: (fill, fill, v), lambda v, fill: (fill, v, v),
                                       lambda v, fill: (v, v, v))[rank - 1])
        return everywhere
    if isinstance(value, types.BaseTuple) and len(value) == rank and all(isinstance(t, types.Integer) for t in value):
        return triple
    raise TypingError(f"{name} must be an integer or a tuple of {rank} of them inside compiled code: {name}={value}")


def _padding(argument: Any, rank: int) -> tuple[Callable, Callable, bool]:
    """Functions that give the low and the high padding of an argument of this type, and whether it is 'same'."""
    value = _value(argument)
    nothing = register_jitable(lambda padding, fill: (0, 0, 0))
    if isinstance(value, (str, types.UnicodeType)):
        return nothing, nothing, _constant(argument, "padding", ("same", "valid")) == "same"
    if isinstance(value, types.BaseTuple) and len(value) == rank and all(
            isinstance(t, types.BaseTuple) and len(t) == 2 for t in value):
        triple = register_jitable(_TRIPLES[rank])
        sides = [register_jitable((lambda v: (v[0][0],), lambda v: (v[0][0], v[1][0]),
                                   lambda v: (v[0][0], v[1][0], v[2][0]))[rank - 1]),
                 register_jitable((lambda v: (v[0][1],), lambda v: (v[0][1], v[1][1]),
                                   lambda v: (v[0][1], v[1][1], v[2][1]))[rank - 1])]
        low, high = (_side(triple, side) for side in sides)
        return low, high, False
    both = _per_axis(argument, "padding", rank)
    return both, both, False


def _side(triple: Callable, side: Callable) -> Callable:
    return register_jitable(lambda v, fill: triple(side(v), fill))


def _layer(rank: int, input, weight, bias, stride, padding, dilation, groups, padding_mode, layout, method, out,
           device) -> Callable:
    """The implementation of conv1d, conv2d or conv3d for arguments of these types."""
    from ..cpu import inline

    biased = _value(bias) is not None
    dtype, engine, real = _types(input=input, weight=weight, **({"bias": bias} if biased else {}))
    if weight.ndim != rank + 2:
        raise TypingError(f"weight must have {rank + 2} dimensions: weight.ndim={weight.ndim}")
    if input.ndim not in (rank + 1, rank + 2):
        raise TypingError(f"input must have {rank + 2} dimensions, or {rank + 1} without a batch: "
                          f"input.ndim={input.ndim}")
    if biased and bias.ndim != 1:
        raise TypingError(f"bias must have one dimension: bias.ndim={bias.ndim}")
    _constant(padding_mode, "padding_mode", ("zeros",))
    _constant(layout, "layout", ("channels_first",))
    if _constant(method, "method", _METHODS) == "fft":
        raise TypingError("method='fft' is for signals inside compiled code; methods for layers: 'auto', 'direct'")
    _absent(out=out, device=device)
    if not isinstance(_value(groups), (int, types.Integer)):
        raise TypingError(f"groups must be an integer: groups={_value(groups)}")
    strides, dilations = _per_axis(stride, "stride", rank), _per_axis(dilation, "dilation", rank)
    lows, highs, same = _padding(padding, rank)
    enter, enter_weight, leave = _enter(input, engine), _enter(weight, engine), _leave(dtype, engine)
    batched = input.ndim == rank + 2
    triple, shape_of = register_jitable(_TRIPLES[rank]), register_jitable(_SHAPES[rank])
    make, check, run = inline.layer_of, inline.check_layer, inline.convolve_layer
    number, real_number = engine.type, real.dtype.type
    if biased:
        biases, count = _enter(bias, engine), register_jitable(lambda b: b.size)
    else:
        biases, count = register_jitable(lambda b: np.zeros(1, number)), register_jitable(lambda b: -1)

    def implementation(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros",
                       layout="channels_first", method="auto", out=None, device=None):
        shape, window = input.shape[1:] if batched else input.shape, weight.shape
        layer, high = make(input.shape[0] if batched else 1, groups, shape[0], window[0], triple(shape[1:], 1),
                           triple(window[2:], 1), strides(stride, 1), dilations(dilation, 1), lows(padding, 0),
                           highs(padding, 0), same)
        check(layer, shape[0], window[1], window[0], count(bias), high)
        y = run(layer, enter(input), enter_weight(weight), biases(bias), np.empty(0, real_number))
        extent = shape_of(layer.out)
        if batched:
            return leave(y.reshape((layer.batch, window[0]) + extent))
        return leave(y.reshape((window[0],) + extent))

    return implementation


def _overload_layer(rank: int) -> Callable:
    """What Numba calls to compile conv1d, conv2d or conv3d."""

    def overloaded(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros",
                   layout="channels_first", method="auto", out=None, device=None):
        return _layer(rank, input, weight, bias, stride, padding, dilation, groups, padding_mode, layout, method, out,
                      device)

    return overloaded
