"""scipy.signal's convolutions: the same names and meaning, for any number of dimensions and batches of signals.

A true convolution is the engine's correlation with the kernel reversed. With ``full[p] = sum over t of a[t] b[p - t]``
of length n1 + n2 - 1, a mode is a range of p: a start and a length per axis, which become the padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from operator import gt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import choice, engine, planner, registry, values
from .geometry import full_range, product, same_range, valid_range
from .lowering import Call, Route, as_array, check_device, check_word, lowered_by
from .problem import ArraySpec, ConvProblem

RANGES = {"full": full_range, "same": same_range, "valid": valid_range}
_MODES = tuple(RANGES)
_BOUNDARIES = {"fill": "constant", "pad": "constant", "wrap": "wrap", "circular": "wrap", "symm": "symmetric",
               "symmetric": "symmetric"}


def _range(mode: str, n1: int, n2: int) -> tuple[int, int]:
    """First position and number of positions of the full convolution that a mode keeps."""
    if mode == "same, centred down":                    # correlate2d's: differs for even kernels
        return n2 // 2, n1
    return RANGES[mode](n1, n2)


def _padding(sizes: Sequence[int], taps: Sequence[int], ranges: Sequence[tuple[int, int]]) -> tuple:
    """(low, high) of each axis, with which the engine's outputs are those positions of the full convolution."""
    return tuple((k - 1 - start, start + length - n)
                 for n, k, (start, length) in zip(sizes, taps, ranges, strict=True))


def _reversed(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return array[tuple(slice(None, None, -1 if a in axes else 1) for a in range(array.ndim))]


@lru_cache(maxsize=1024)
def _route(shape1: tuple, dtype1: np.dtype, shape2: tuple, dtype2: np.dtype, mode: str, axes: tuple[int, ...],
           correlate: bool, swap: bool, boundary: str, fill: complex, device: str) -> Route:
    """The way to the engine; in2 is the weight unless they are swapped, which a convolution allows.

    Beside the convolved axes, one along which both inputs vary is a group, only the signal: batch, only the kernel:
    output channels. Inputs without any axis are signals of one sample.
    """
    batch = [a for a in range(len(shape1)) if a not in axes]
    for a in batch:
        if shape1[a] != shape2[a] and 1 not in (shape1[a], shape2[a]):
            raise ValueError(f"incompatible shapes for in1 and in2: in1.shape={shape1}, in2.shape={shape2}; axis {a} "
                             f"is not in axes={axes} and must have equal sizes or size 1")
    if mode == "valid":
        if not (all(shape1[a] >= shape2[a] for a in axes) or all(shape2[a] >= shape1[a] for a in axes)):
            raise ValueError("for mode='valid' one input must be at least as large as the other in every dimension: "
                             f"in1.shape={shape1}, in2.shape={shape2}")
        boundary, fill = "constant", 0                  # no output sees the edge of the larger input
    if boundary != "constant" and 0 in shape1:
        raise ValueError(f"in1 must not be empty for this boundary: in1.shape={shape1}")
    ranges = [_range(mode, shape1[a], shape2[a]) for a in axes] or [(0, 1)]
    x_shape, w_shape = (shape2, shape1) if swap else (shape1, shape2)
    sizes = [x_shape[a] for a in axes] or [1]
    taps = [w_shape[a] for a in axes] or [1]

    dtype = np.result_type(dtype1, dtype2)
    padding = _padding(sizes, taps, ranges)
    reaches_out = boundary == "constant" and fill == 0 and any(max(pair) > 0 for pair in padding)

    groups = [a for a in batch if x_shape[a] == w_shape[a] != 1]
    kernels = [a for a in batch if a not in groups and w_shape[a] != 1]
    images = [a for a in batch if a not in groups and a not in kernels]
    problem = ConvProblem(
        N=product(x_shape[a] for a in images), groups=product(x_shape[a] for a in groups), C=1,
        K=product(w_shape[a] for a in kernels), size=tuple(sizes), kernel=tuple(taps), stride=(1,) * len(sizes),
        dilation=(1,) * len(sizes),
        padding=padding, dtype=dtype, boundary=(boundary,) * len(sizes), fill=fill, device=device,
        ends=device == "cuda" and reaches_out and dtype.kind in "fc")

    order = [*images, *groups, *kernels, *axes]
    weight_order = [*groups, *kernels, *images, *axes]
    shape = {a: x_shape[a] if a in images else w_shape[a] for a in batch}
    shape |= {a: length for a, (_, length) in zip(axes, ranges, strict=False)}
    inner = [shape[a] for a in order]
    back = np.argsort(order).astype(int).tolist()

    def oriented(array, second):
        """in2 of a correlation is the reversed conjugate of a convolution's."""
        if not (correlate and second):
            return array
        return _reversed(np.conj(array) if array.dtype.kind == "c" else array, axes)

    def enter(x):
        return oriented(x, swap).transpose(order).reshape(problem.x_shape)

    def weigh(w):
        return _reversed(oriented(w, not swap), axes).transpose(weight_order).reshape(problem.weight_shape)

    def leave(out):
        return out.reshape(inner).transpose(back)

    # On a GPU the kernels keep to the samples that exist: a look at the weight would wait.
    looks = device == "cpu" and fill == 0 and (dtype2 if not swap else dtype1).kind in "fc"
    return Route(problem, enter, weigh, leave, tuple(shape[a] for a in range(len(shape1))), dtype, looks=looks)


def normalize_axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """Sorted axes, all of them for None."""
    if axes is None:
        return tuple(range(ndim))
    given = (axes,) if isinstance(axes, (int, np.integer)) else tuple(axes)
    if not all(isinstance(a, (int, np.integer)) for a in given):
        raise ValueError(f"axes must be a scalar or iterable of integers: axes={axes!r}")
    if not given:
        raise ValueError(f"when provided, axes cannot be empty: axes={axes!r}")
    if any(not -ndim <= a < ndim for a in given):
        raise ValueError(f"axes exceeds dimensionality of input: axes={axes!r}, the inputs have {ndim} dimensions")
    normal = {int(a) % ndim for a in given}
    if len(normal) != len(given):
        raise ValueError(f"all axes must be unique: axes={axes!r}")
    return tuple(sorted(normal))


def _lower(in1, in2, mode="full", method="auto", *, axes=None, out=None, device=None, correlate=False, may_swap=False,
           boundary="constant", fill=0.0) -> Call:
    """The call of every function below. A plan keeps in2 as the weight; a single call may swap for speed."""
    in1, in2 = as_array(in1, "in1"), as_array(in2, "in2")
    device = check_device(device, in1=in1, in2=in2)
    if in1.ndim != in2.ndim:
        raise ValueError(f"in1 and in2 should have the same dimensionality: in1.ndim={in1.ndim}, in2.ndim={in2.ndim}")
    axes = normalize_axes(axes, in1.ndim)
    method = check_word(method, "method", ("auto", *registry.names()))
    mode = mode if mode == "same, centred down" else check_word(mode, "mode", _MODES)
    swap = (may_swap and boundary == "constant" and fill == 0
            and product(in2.shape[a] for a in axes) > product(in1.shape[a] for a in axes))
    route = _route(in1.shape, in1.dtype, in2.shape, in2.dtype, mode, axes, correlate, swap, boundary, fill, device)
    x, weight = (in2, in1) if swap else (in1, in2)
    infinite = route.looks and isinstance(weight, np.ndarray) and not np.isfinite(weight).all()
    return Call(route, x, weight, None, method, out, values.with_infinite_taps if infinite else None, swap)


def _lower_convolve(in1, in2, mode="full", method="auto", *, axes=None, out=None, device=None, **options) -> Call:
    in1, in2 = as_array(in1, "in1"), as_array(in2, "in2")
    call = _lower(in1, in2, mode, method, axes=axes, out=out, device=device, **options)
    empty = next((name for name, array in (("in1", in1), ("in2", in2)) if 0 in array.shape), None)
    if empty:
        # SciPy refuses where it calls numpy.convolve, an FFT, the largest integer, or pads in2's lack to less than in1.
        mode = check_word(mode, "mode", _MODES)
        takes = in1.ndim > 1 if mode == "valid" else mode == "same" and empty == "in1" and 0 not in in2.shape
        integers = "i" in (kinds := in1.dtype.kind + in2.dtype.kind) or "u" in kinds
        if not takes or call.method == "fft" or (call.method == "auto" and integers):
            raise ValueError(f"{empty} cannot be empty: in1.shape={in1.shape}, in2.shape={in2.shape}")
    return call


def _lower_correlate(in1, in2, mode="full", method="auto", *, axes=None, out=None, device=None, **options) -> Call:
    return _lower_convolve(in1, in2, mode, method, axes=axes, out=out, device=device, correlate=True, **options)


@lru_cache
def _plain(rank: int, dtype: np.dtype) -> ConvProblem:
    """A problem of one signal of so many axes and one kernel, from which others are derived."""
    ones = (1,) * rank
    return ConvProblem(N=1, groups=1, C=1, K=1, size=ones, kernel=ones, stride=ones, dilation=ones,
                       padding=((0, 0),) * rank, dtype=dtype)


def _at_once(in1: Any, in2: Any, mode: str, correlate: bool, method: str, *options: Any) -> np.ndarray | None:
    """The result of a call with 'auto' and no other option, where that is soon found; None for the long way.

    Signals of ever new lengths leave no shortcut that would serve again. To lower such a call, choose for it and run it
    takes a fifth of a millisecond, most of their sums a hundredth: those that surely belong to one algorithm go there.
    """
    if (not type(in1) is type(in2) is np.ndarray or any(option is not None for option in options) or method != "auto"
            or mode not in _MODES):
        return None
    dtype = in1.dtype
    if (in2.dtype != dtype or dtype.char not in "fd" or not dtype.isnative or not 0 < in1.ndim == in2.ndim
            or not in1.size or not in2.size or not in1.flags.carray or not in2.flags.carray):
        return None
    swap = in2.size > in1.size
    x, weight = (in2, in1) if swap else (in1, in2)
    if any(map(gt, weight.shape, x.shape)):
        return None
    ranges = [_range(mode, n1, n2) for n1, n2 in zip(in1.shape, in2.shape, strict=True)]
    problem = _plain(x.ndim, dtype).derived(size=x.shape, kernel=weight.shape,
                                            padding=_padding(x.shape, weight.shape, ranges))
    algorithm = choice.surely_best(problem)
    if algorithm is None:
        return None
    backwards = (slice(None, None, -1),) * x.ndim
    entered = x[backwards] if correlate and swap else x
    weighed = weight if correlate and not swap else weight[backwards]
    out = np.empty([length for _, length in ranges], dtype)
    fill = algorithm.shortcut(problem, (entered.reshape(problem.x_shape), x),
                              (weighed.reshape(problem.weight_shape), weight), (out.reshape(problem.out_shape), out))
    return out if fill is not None and fill(x.ravel(), weight, None, out.ravel()) else None


# ------------------------------------------------------------------------------------------------ Public names


@lowered_by(_lower_convolve)
def convolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto", *,
             axes: int | Sequence[int] | None = None, out: NDArray | None = None,
             device: str | None = None) -> NDArray:
    """Convolve two n-dimensional arrays.

    ``out[p] = sum over t of in1[t] in2[p - t]`` along `axes`, broadcast along the others.

    Parameters
    ----------
    in1, in2 : array_like
        Real, complex, integer or boolean arrays with the same number of dimensions.
    mode : {'full', 'same', 'valid'}
        'full' (n1 + n2 - 1 positions), 'same' (those of in1, centred) or 'valid' (where the smaller input lies wholly
        inside the other).
    method : str
        'auto', or an algorithm of `nconv.algorithms`: 'direct', 'im2col', 'winograd', 'winograd_large', 'fft'.
    axes : int or sequence of int, optional
        Convolve along these axes; along the others the inputs are broadcast. All axes by default.
    out : ndarray, optional
        Takes the result; must have its shape and dtype.
    device : {'cpu', 'cuda'}, optional
        Where to compute; by default where the arrays are.

    Returns
    -------
    ndarray
        Of the dtype to which NumPy promotes those of the inputs. Integers are exact modulo their size.

    Raises
    ------
    ValueError
        For different numbers of dimensions, an unknown mode or method, empty inputs, 'valid' where neither input
        contains the other, a method that does not support the problem, or `out` of the wrong shape.
    TypeError
        For objects, strings and dates, or `out` of the wrong dtype.
    MemoryError
        If no algorithm fits the workspace limit.
    nconv.DeviceError
        If the device cannot be used.

    See Also
    --------
    correlate, fftconvolve, oaconvolve, convolve2d

    References
    ----------
    .. [1] Oppenheim, Schafer: Discrete-Time Signal Processing, section 2.3.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> nconv.convolve([1, 2, 3], [0, 1, 10])
    array([ 0,  1, 12, 23, 30])
    >>> nconv.convolve([[1, 2, 3], [4, 5, 6]], [[0, 1, 10]], mode="same", axes=-1)
    array([[ 1, 12, 23],
           [ 4, 45, 56]])
    """
    return engine.answer((in1, in2), ("convolve", mode, method, axes, device), out, lambda: _lower_convolve(
        in1, in2, mode, method, axes=axes, out=out, device=device, may_swap=True), values.execute,
        lambda: _at_once(in1, in2, mode, False, method, axes, device, out))


@lowered_by(_lower_correlate)
def correlate(in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto", *,
              axes: int | Sequence[int] | None = None, out: NDArray | None = None,
              device: str | None = None) -> NDArray:
    """Cross-correlate two n-dimensional arrays.

    ``out[p] = sum over t of in1[t + p - (n2 - 1)] conj(in2[t])`` along `axes`, broadcast along the others.

    Parameters
    ----------
    in1, in2 : array_like
        Real, complex, integer or boolean arrays with the same number of dimensions.
    mode, method, axes, out, device
        As in `convolve`.

    Returns
    -------
    ndarray
        Of the dtype to which NumPy promotes those of the inputs.

    Raises
    ------
    ValueError, TypeError, MemoryError, nconv.DeviceError
        As in `convolve`.

    References
    ----------
    .. [1] Oppenheim, Schafer: Discrete-Time Signal Processing, section 2.9.

    Examples
    --------
    >>> import nconv
    >>> nconv.correlate([1, 2, 3], [0, 1, 10])
    array([10, 21, 32,  3,  0])
    >>> nconv.correlate([1j, 2], [1, 1j], mode="valid")
    array([0.-1.j])
    """
    return engine.answer((in1, in2), ("correlate", mode, method, axes, device), out, lambda: _lower_correlate(
        in1, in2, mode, method, axes=axes, out=out, device=device, may_swap=True), values.execute,
        lambda: _at_once(in1, in2, mode, True, method, axes, device, out))


def _as_scipy_fft(array: Any) -> Any:
    """Integers and booleans as float64, float16 as float32: the types that scipy.fft gives them."""
    wider = np.dtype("f8") if array.dtype.kind in "biu" else np.dtype("f4") if array.dtype.char == "e" else array.dtype
    return ArraySpec(array.shape, wider) if isinstance(array, ArraySpec) else array.astype(wider, copy=False)


def _lower_fft(in1, in2, mode="full", axes=None, **options) -> Call:
    in1, in2 = as_array(in1, "in1"), as_array(in2, "in2")
    mode = check_word(mode, "mode", _MODES)
    if in1.ndim != in2.ndim:
        return _lower(in1, in2)                         # which says so
    # As SciPy: along an axis where one has a single element there is nothing to transform, only to broadcast, and
    # 'same' has in1's shape along the axes that are broadcast too.
    axes = normalize_axes(axes, in1.ndim)
    transformed = tuple(a for a in axes if 1 not in (in1.shape[a], in2.shape[a]))
    if mode == "same":
        axes = tuple(a for a in range(in1.ndim) if a in axes or in1.shape[a] == 1 != in2.shape[a])
    elif mode == "valid":
        axes, mode = (transformed, mode) if transformed else (axes, "full")
    if transformed:
        in1, in2 = _as_scipy_fft(in1), _as_scipy_fft(in2)
    return _lower(in1, in2, mode, "fft" if transformed else "auto", axes=axes or None, **options)


@lowered_by(_lower_fft)
def fftconvolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full",
                axes: int | Sequence[int] | None = None) -> NDArray:
    """Convolve two n-dimensional arrays by fast Fourier transforms.

    ``out[p] = sum over t of in1[t] in2[p - t]``, as `convolve` with ``method='fft'``; integers become float64.

    Parameters
    ----------
    in1, in2 : array_like
        Arrays with the same number of dimensions.
    mode : {'full', 'same', 'valid'}
        As in `convolve`.
    axes : int or sequence of int, optional
        Convolve along these axes and broadcast along the others.

    Returns
    -------
    ndarray
        float32, float64, complex64 or complex128.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `convolve`; an empty input gives an empty result.

    References
    ----------
    .. [1] Oppenheim, Schafer: Discrete-Time Signal Processing, section 8.7.

    Examples
    --------
    >>> import nconv
    >>> nconv.fftconvolve([1, 2, 3], [0, 1, 10]).round(6) + 0.0
    array([ 0.,  1., 12., 23., 30.])
    """
    a, b = as_array(in1, "in1"), as_array(in2, "in2")
    if a.ndim == b.ndim and (0 in a.shape or 0 in b.shape):
        arrays = registry.arrays(check_device(None, in1=a, in2=b))
        return arrays.deliver(arrays.zeros((0,), np.dtype("f8"), a), a)
    call = _lower_fft(a, b, mode, axes, may_swap=True)
    return values.scalar(engine.execute(call), call)


@lowered_by(_lower_fft)
def oaconvolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full",
               axes: int | Sequence[int] | None = None) -> NDArray:
    """Convolve two n-dimensional arrays by fast Fourier transforms of blocks.

    SciPy's name for the overlap-add method. The blocks of `fftconvolve` are chosen by cost, so that the two are one.

    Parameters
    ----------
    in1, in2 : array_like
        Arrays with the same number of dimensions.
    mode : {'full', 'same', 'valid'}
        As in `convolve`.
    axes : int or sequence of int, optional
        Convolve along these axes and broadcast along the others.

    Returns
    -------
    ndarray
        float32, float64, complex64 or complex128.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As in `fftconvolve`.

    References
    ----------
    .. [1] Oppenheim, Schafer: Discrete-Time Signal Processing, section 8.7.3.

    Examples
    --------
    >>> import nconv
    >>> nconv.oaconvolve([1, 2, 3], [0, 1, 10]).round(6) + 0.0
    array([ 0.,  1., 12., 23., 30.])
    """
    return fftconvolve(in1, in2, mode, axes)


def _lower_2d(in1, in2, mode="full", boundary="fill", fillvalue=0, *, correlate=False, may_swap=False) -> Call:
    in1, in2 = as_array(in1, "in1"), as_array(in2, "in2")
    if not in1.ndim == in2.ndim == 2:
        raise ValueError(f"in1 and in2 must both be 2-D arrays: in1.ndim={in1.ndim}, in2.ndim={in2.ndim}")
    mode = check_word(mode, "mode", _MODES)
    if correlate and mode == "same":
        mode = "same, centred down"
    boundary = _BOUNDARIES[check_word(boundary, "boundary", tuple(_BOUNDARIES))]
    fill = np.asarray(fillvalue)
    if fill.size != 1 or fill.dtype.kind not in "biufc":
        raise ValueError(f"fillvalue must be a number: fillvalue={fillvalue!r}")
    fill = fill.reshape(())
    if not np.can_cast(fill.dtype, np.result_type(in1.dtype, in2.dtype), "same_kind"):
        fill = fill.real if fill.imag == 0 else fill
    if fill.dtype.kind == "c" and np.result_type(in1.dtype, in2.dtype).kind != "c":
        raise ValueError(f"fillvalue must be real where the arrays are: fillvalue={fillvalue!r}")
    return _lower(in1, in2, mode, correlate=correlate, may_swap=may_swap, boundary=boundary, fill=fill.item())


def _lower_correlate2d(in1, in2, mode="full", boundary="fill", fillvalue=0) -> Call:
    return _lower_2d(in1, in2, mode, boundary, fillvalue, correlate=True)


@lowered_by(_lower_2d)
def convolve2d(in1: ArrayLike, in2: ArrayLike, mode: str = "full", boundary: str = "fill",
               fillvalue: complex = 0) -> NDArray:
    """Convolve two two-dimensional arrays, with a choice of what lies beyond the edges of in1.

    ``out[p, q] = sum over r, s of in1[p - r, q - s] in2[r, s]``

    Parameters
    ----------
    in1, in2 : array_like
        Two-dimensional arrays.
    mode : {'full', 'same', 'valid'}
        As in `convolve`.
    boundary : {'fill', 'wrap', 'symm'}
        Beyond the edges lie `fillvalue`, in1 repeated, or in1 mirrored with its edge repeated.
    fillvalue : scalar
        For boundary 'fill'.

    Returns
    -------
    ndarray
        Of the dtype to which NumPy promotes those of the inputs.

    Raises
    ------
    ValueError
        For inputs that are not two-dimensional, or an unknown mode or boundary.
    TypeError
        For objects, strings and dates.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import nconv
    >>> nconv.convolve2d([[1, 2, 3]], [[0, 1, 10]], mode="same", boundary="wrap")
    array([[31, 12, 23]])
    """
    return engine.answer((in1, in2), ("convolve2d", mode, boundary, fillvalue), None, lambda: _lower_2d(
        in1, in2, mode, boundary, fillvalue, may_swap=True), values.execute)


@lowered_by(_lower_correlate2d)
def correlate2d(in1: ArrayLike, in2: ArrayLike, mode: str = "full", boundary: str = "fill",
                fillvalue: complex = 0) -> NDArray:
    """Cross-correlate two two-dimensional arrays, with a choice of what lies beyond the edges of in1.

    ``out[p, q] = sum over r, s of in1[p + r, q + s] conj(in2[r, s])``, p and q counted from 1 - n2 under 'full'.

    Parameters
    ----------
    in1, in2 : array_like
        Two-dimensional arrays.
    mode, boundary, fillvalue
        As in `convolve2d`.

    Returns
    -------
    ndarray
        Of the dtype to which NumPy promotes those of the inputs.

    Raises
    ------
    ValueError, TypeError
        As in `convolve2d`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import nconv
    >>> nconv.correlate2d([[1, 2, 3]], [[0, 1, 10]], mode="same", boundary="wrap")
    array([[21, 32, 13]])
    """
    return engine.answer((in1, in2), ("correlate2d", mode, boundary, fillvalue), None, lambda: _lower_2d(
        in1, in2, mode, boundary, fillvalue, correlate=True, may_swap=True), values.execute)


def choose_conv_method(in1: ArrayLike, in2: ArrayLike, mode: str = "full", measure: bool = False) -> Any:
    """Tell whether `convolve` would sum directly or use an FFT.

    Parameters
    ----------
    in1, in2 : array_like
        The inputs of `convolve`.
    mode : {'full', 'same', 'valid'}
        As in `convolve`.
    measure : bool, default False
        Measure the methods instead of predicting their times.

    Returns
    -------
    method : {'direct', 'fft'}
        SciPy's two words; 'direct' stands for every algorithm that sums products.
    times : dict, only if `measure`
        Seconds of both.

    Raises
    ------
    ValueError, TypeError
        As in `convolve`.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> nconv.choose_conv_method(np.ones(100), np.ones(3))
    'direct'
    """
    call = _lower_convolve(in1, in2, mode, may_swap=True)
    if call.route.dtype.kind in "biu":
        if call.route.problem.device == "cuda" or not values.fft_is_exact(call.x, call.weight):
            return ("direct", {}) if measure else "direct"
        call = values.in_float64(call)
    times = planner.measure(call) if measure else {
        c.name: c.seconds for c in choice.decide(call.route.problem).candidates if not c.refused}
    seconds = {"direct": min((s for name, s in times.items() if name != "fft"), default=math.inf),
               "fft": times.get("fft", math.inf)}
    best = min(seconds, key=seconds.__getitem__)
    return (best, seconds) if measure else best
