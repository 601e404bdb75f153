"""Correlation and convolution of images: the output has the input's size, a mode says what lies beyond each edge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import engine
from ..geometry import product
from ..lowering import Call, Route, as_array, check_device, check_out, check_word, lowered_by, on_gpu
from ..problem import ConvProblem

_MODES = {"reflect": "symmetric", "grid-mirror": "symmetric", "constant": "constant", "grid-constant": "constant",
          "nearest": "edge", "mirror": "reflect", "wrap": "wrap", "grid-wrap": "wrap"}

_WORTH_ROWS = 16               # elements that lie together, from which it pays to leave them so


def truncated(result: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats as integers the way of scipy.ndimage: towards zero, and modulo the type's size beyond its range."""
    if result.dtype.kind != "f" or dtype.kind not in "biu":
        return np.asarray(result != 0) if dtype.kind == "b" else result.astype(dtype)
    with np.errstate(invalid="ignore"):
        if dtype.kind == "u" and dtype.itemsize == 8:
            return np.where(result < 0, result.astype(np.int64).astype(dtype), result.astype(dtype))
        whole = result.astype(np.int64)
    return np.asarray(whole != 0) if dtype.kind == "b" else whole.astype(dtype)


def _compute_dtype(x: np.dtype, weights: np.dtype, out: np.dtype, whole_cval: bool) -> np.dtype:
    """Type of the sums: float64 where integers meet anything else, integers among themselves exactly."""
    if "c" in (x.kind, weights.kind):
        return np.result_type(x, weights, out, np.complex64)
    if x.kind in "biu":
        if weights.kind in "biu" and out.kind in "biu" and whole_cval:
            return np.dtype("i8") if out.itemsize == 8 else np.dtype("i4")
        return np.dtype("f8")
    return np.result_type(x, weights, out if out.kind == "f" else np.float64)


@lru_cache(maxsize=1024)
def _route(shape, dtype, taps, weight_dtype, out_dtype, modes, cval, origins, axes, convolution, device) -> Route:
    low = []
    for n, origin in zip(taps, origins, strict=True):
        shift = (-origin - (n % 2 == 0)) if convolution else origin
        if not -(n // 2) <= shift <= (n - 1) // 2:
            raise ValueError(f"origin must lie within the window: origin={origin} for {n} weights along the axis")
        low.append(n // 2 + shift)
    batch = [a for a in range(len(shape)) if a not in axes]
    behind = [a for a in batch if axes and a > axes[-1]]
    rows = product(shape[a] for a in behind)
    if behind and rows >= _WORTH_ROWS:                  # vectors run along what lies behind the filtered axes
        batch = batch[:-len(behind)]
        sizes, kernel = (*(shape[a] for a in axes), rows), (*taps, 1)
    else:
        behind = []
        sizes, kernel = tuple(shape[a] for a in axes) or (1,), taps or (1,)
    order = [*batch, *axes, *behind]
    back = np.argsort(order).astype(int).tolist()
    whole_cval = "constant" not in modes or (not isinstance(cval, complex) and float(cval).is_integer())
    compute = _compute_dtype(dtype, weight_dtype, out_dtype, whole_cval)
    problem = ConvProblem(
        N=product(shape[a] for a in batch), groups=1, C=1, K=1, size=sizes, kernel=kernel, stride=(1,) * len(kernel),
        dilation=(1,) * len(kernel),
        padding=(*((b, n - 1 - b) for b, n in zip(low, taps, strict=True)), (0, 0))[:len(kernel)], dtype=compute,
        boundary=(*modes, "constant")[:len(kernel)],
        fill=int(cval) if compute.kind == "i" and whole_cval else cval, device=device)
    conjugate = weight_dtype.kind == "c" and not convolution

    def enter(x):
        return x.transpose(order).reshape(problem.x_shape)

    def weigh(w):
        w = np.flip(w) if convolution else np.conj(w) if conjugate else w
        return w.reshape(problem.weight_shape)

    def leave(y):
        return y.reshape([shape[a] for a in order]).transpose(back)

    return Route(problem, enter, weigh, leave, shape, out_dtype, truncated)


def _are_whole(weights: Any) -> bool:
    """Whether floats, where they are given, are integers that int64 holds."""
    if not isinstance(weights, np.ndarray):
        return False
    return bool(np.all((np.abs(weights) < 2.0**63) & (weights == np.trunc(weights))))


def exact(weights: Any, dtype: np.dtype, out_dtype: np.dtype) -> Any:
    """Weights of integers in integers where they are whole: [-1.0, 0.0, 1.0] is as exact as [-1, 0, 1]."""
    if dtype.kind in "biu" and out_dtype.kind in "biu" and weights.dtype.kind == "f" and _are_whole(weights):
        return weights.astype(np.int64)
    return weights


def normalize_axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """Non-negative axes in the order in which they are given, all of them for None."""
    given = tuple(range(ndim)) if axes is None else (axes,) if isinstance(axes, (int, np.integer)) else tuple(axes)
    if any(not isinstance(a, (int, np.integer)) or not -ndim <= a < ndim for a in given):
        raise ValueError(f"axes must be integers within the {ndim} dimensions of input: axes={axes!r}")
    given = tuple(int(a) % ndim for a in given)
    if len(set(given)) != len(given):
        raise ValueError(f"axes must be unique: axes={axes!r}")
    return given


def one_an_axis(value: Any, name: str, count: int) -> list:
    """One value for each axis, from one for all or one for each."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise ValueError(f"{name} must be one value or one for each of {count} axes: {name}={value!r}")
    return values


def output_of(output: Any, x: Any, is_complex: bool) -> tuple[np.dtype, np.ndarray | None]:
    """(dtype of the result, array that takes it or None)."""
    natural = np.promote_types(x.dtype, np.complex64) if is_complex else x.dtype.newbyteorder("=")
    if output is None:
        return natural, None
    if isinstance(output, np.ndarray) or on_gpu(output):
        given, output = output, as_array(output, "output")
        if is_complex and output.dtype.kind != "c":
            raise TypeError(f"output must have a complex dtype: output.dtype={output.dtype}")
        check_out(output, x.shape, output.dtype, "output", like=x)
        return output.dtype, given
    try:
        dtype = np.dtype(output)
    except TypeError:
        raise TypeError(f"output must be an array or a dtype: output={output!r}") from None
    if dtype.kind not in "biufc":
        raise TypeError(f"output must have a numeric dtype: output={output!r}")
    if is_complex and dtype.kind != "c":
        raise TypeError(f"output must have a complex dtype: output={output!r}")
    return dtype, None


def _lower(input, weights, output=None, mode="reflect", cval=0.0, origin=0, *, axes=None, convolution=False) -> Call:
    input, weights = as_array(input, "input"), as_array(weights, "weights")
    ndim = input.ndim
    given = normalize_axes(axes, ndim)
    if weights.ndim != len(given):
        raise ValueError(f"weights must have one dimension for each of {len(given)} axes: "
                         f"weights.ndim={weights.ndim}, input.ndim={ndim}, axes={axes!r}")
    if 0 in weights.shape:
        raise ValueError(f"no filter weights given: weights.shape={weights.shape}")
    modes = [_MODES[check_word(m, "mode", tuple(_MODES))] for m in one_an_axis(mode, "mode", len(given))]
    origins = one_an_axis(origin, "origin", len(given))
    if any(isinstance(o, bool) or not isinstance(o, (int, np.integer)) for o in origins):
        raise ValueError(f"origin must be an integer or one for each axis: origin={origin!r}")
    modes = [m for _, m in sorted(zip(given, modes, strict=True))]
    if len(given) < ndim:                               # as SciPy, which leaves the origins of all axes in their order
        origins = [o for _, o in sorted(zip(given, origins, strict=True))]
    is_complex = "c" in (input.dtype.kind, weights.dtype.kind)
    if not np.isscalar(cval) or not isinstance(cval, (int, float, complex, np.number)):
        raise ValueError(f"cval must be a number: cval={cval!r}")
    kind: Any = complex if np.iscomplexobj(cval) else float if isinstance(cval, (float, np.floating)) else int
    cval = kind(cval)
    if isinstance(cval, complex) and input.dtype.kind != "c":
        raise ValueError(f"cval must be real where input is: cval={cval!r}")
    dtype, target = output_of(output, input, is_complex)
    weights = exact(weights, input.dtype, dtype)
    device = check_device(None, input=input, weights=weights)
    route = _route(input.shape, input.dtype, weights.shape, weights.dtype, dtype, tuple(modes), cval,
                   tuple(map(int, origins)), tuple(sorted(given)), convolution, device)
    # Truncated sums show the last bit: through an FFT, 3 - 1e-13 would become 2 where the sum of products is exactly 3.
    shows = dtype.kind in "biu" and route.problem.dtype.kind == "f"
    return Call(route, input, weights, None, "direct" if shows else "auto", target)


def _lower_convolve(input, weights, output=None, mode="reflect", cval=0.0, origin=0, *, axes=None) -> Call:
    return _lower(input, weights, output, mode, cval, origin, axes=axes, convolution=True)


def _lower_1d(input, weights, axis=-1, output=None, mode="reflect", cval=0.0, origin=0, *, convolution=False) -> Call:
    input, weights = as_array(input, "input"), as_array(weights, "weights")
    if weights.ndim != 1:
        raise ValueError(f"weights must have one dimension: weights.ndim={weights.ndim}")
    if not isinstance(axis, (int, np.integer)) or not -input.ndim <= axis < input.ndim:
        raise ValueError(f"axis must lie within the {input.ndim} dimensions of input: axis={axis!r}")
    return _lower(input, weights, output, mode, cval, origin, axes=(axis,), convolution=convolution)


def _lower_convolve1d(input, weights, axis=-1, output=None, mode="reflect", cval=0.0, origin=0) -> Call:
    return _lower_1d(input, weights, axis, output, mode, cval, origin, convolution=True)


@lowered_by(_lower)
def correlate(input: ArrayLike, weights: ArrayLike, output: NDArray | DTypeLike | None = None,
              mode: str | Sequence[str] = "reflect", cval: complex = 0.0, origin: int | Sequence[int] = 0, *,
              axes: int | Sequence[int] | None = None) -> NDArray:
    """Correlate an n-dimensional image with a window of weights.

    ``out[p] = sum over t of weights[t] input[p + t - n // 2 - origin]``, complex weights conjugated.

    Parameters
    ----------
    input : array_like
        The image, of any number of dimensions.
    weights : array_like
        One dimension for each of `axes`.
    output : ndarray or dtype, optional
        Takes the result, or says its dtype; by default the input's, complex where the weights are.
    mode : str or sequence of str
        Beyond the edges: 'reflect' or 'grid-mirror' (d c b a | a b c d | d c b a), 'mirror' (d c b | a b c d | c b a),
        'nearest' (a a a | a b c d | d d d), 'wrap' or 'grid-wrap' (b c d | a b c d | a b c), 'constant' or
        'grid-constant' (`cval`). One for all axes or one for each.
    cval : scalar, default 0.0
        What lies beyond the edges under 'constant'.
    origin : int or sequence of int, default 0
        Shifts the window; positive to the left.
    axes : int or sequence of int, optional
        Filter along these axes only; all by default.

    Returns
    -------
    ndarray
        Of the input's shape. Sums of integers with other weights are made in float64 and truncated.

    Raises
    ------
    ValueError
        For an unknown mode, weights of the wrong number of dimensions or without elements, an origin outside of the
        window, or `output` of the wrong shape.
    TypeError
        For objects, strings and dates, or a dtype of `output` that cannot hold the result.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.correlate([1, 2, 3, 4], [0, 1, 10])
    array([21, 32, 43, 44])
    """
    return engine.answer((input, weights), ("image correlate", mode, cval, origin, axes), output, lambda: _lower(
        input, weights, output, mode, cval, origin, axes=axes))


@lowered_by(_lower_convolve)
def convolve(input: ArrayLike, weights: ArrayLike, output: NDArray | DTypeLike | None = None,
             mode: str | Sequence[str] = "reflect", cval: complex = 0.0, origin: int | Sequence[int] = 0, *,
             axes: int | Sequence[int] | None = None) -> NDArray:
    """Convolve an n-dimensional image with a window of weights.

    ``out[p] = sum over t of weights[t] input[p - t + n // 2 - origin]``, n // 2 rounded down for even windows too.

    Parameters
    ----------
    input, weights, output, mode, cval, origin, axes
        As in `correlate`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.convolve([1, 2, 3, 4], [0, 1, 10])
    array([11, 12, 23, 34])
    """
    return engine.answer((input, weights), ("image convolve", mode, cval, origin, axes), output,
                          lambda: _lower_convolve(input, weights, output, mode, cval, origin, axes=axes))


@lowered_by(_lower_1d)
def correlate1d(input: ArrayLike, weights: ArrayLike, axis: int = -1, output: NDArray | DTypeLike | None = None,
                mode: str = "reflect", cval: complex = 0.0, origin: int = 0) -> NDArray:
    """Correlate the lines of an array along one axis with a window of weights.

    ``out[p] = sum over t of weights[t] input[p + t - n // 2 - origin]``

    Parameters
    ----------
    input : array_like
        The image, of any number of dimensions.
    weights : array_like
        One-dimensional.
    axis : int, default -1
        The axis to filter along.
    output, mode, cval, origin
        As in `correlate`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.correlate1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([ 8, 26,  8, 12,  7, 28, 36,  9])
    """
    return engine.answer((input, weights), ("image correlate1d", axis, mode, cval, origin), output, lambda: _lower_1d(
        input, weights, axis, output, mode, cval, origin))


@lowered_by(_lower_convolve1d)
def convolve1d(input: ArrayLike, weights: ArrayLike, axis: int = -1, output: NDArray | DTypeLike | None = None,
               mode: str = "reflect", cval: complex = 0.0, origin: int = 0) -> NDArray:
    """Convolve the lines of an array along one axis with a window of weights.

    ``out[p] = sum over t of weights[t] input[p - t + n // 2 - origin]``

    Parameters
    ----------
    input, weights, axis, output, mode, cval, origin
        As in `correlate1d`.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    ValueError, TypeError
        As in `correlate`.

    References
    ----------
    .. [1] Gonzalez, Woods: Digital Image Processing, section 3.4.

    Examples
    --------
    >>> import nconv
    >>> nconv.ndimage.convolve1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([14, 24,  4, 13, 12, 36, 27,  0])
    """
    return engine.answer((input, weights), ("image convolve1d", axis, mode, cval, origin), output,
                          lambda: _lower_convolve1d(input, weights, axis, output, mode, cval, origin))
