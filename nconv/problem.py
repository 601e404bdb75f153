"""The frozen description of a convolution: made and validated once, hashable, the key of every cache below.

The engine knows one operation, the cross-correlation of layers (capitals count, small letters point)::

    out[n, g K + k, p...] = bias[g K + k]
        + sum over c, r... of weight[g K + k, c, r...] * padded[n, g C + c, p * stride + r * dilation ...]

A true convolution is this with a flipped kernel; signals are layers with one channel; a transposed convolution is
this over an input with `upsample` - 1 zeros between its elements; the weight gradient is this with batch and
channels exchanged. Modes ('full', 'same', 'valid', padding words) end where a problem is made: here are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from . import boundary as _boundary
from .geometry import out_size, product, span

_ENGINE_DTYPE: dict[str, np.dtype] = {"e": np.dtype("f4"), "f": np.dtype("f4"), "d": np.dtype("f8"),
                                      "F": np.dtype("c8"), "D": np.dtype("c16")}


def engine_dtype(dtype: np.dtype) -> np.dtype:
    """Type in which the kernels hold and sum values of `dtype`.

    Floating and complex types as they are, float16 in float32. Integers are summed modulo 2**32 (or 2**64), which is
    exact modulo the size of every narrower type, so signed arithmetic serves the unsigned ones too.
    """
    dtype = np.dtype(dtype)
    if dtype.kind in "fc":
        if dtype.char in _ENGINE_DTYPE:
            return _ENGINE_DTYPE[dtype.char]
    elif dtype.kind in "biu":
        return np.dtype("i8") if dtype.itemsize == 8 else np.dtype("i4")
    raise TypeError(f"dtype {dtype} is not supported; expected bool, integer, float16/32/64 or complex64/128")


@dataclass(frozen=True)
class ArraySpec:
    """What planning needs to know of an array: its shape, dtype and device.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype, default float32
    device : {'cpu', 'cuda'}, default 'cpu'

    Examples
    --------
    >>> import nconv
    >>> spec = nconv.ArraySpec((1, 3, 32, 32), "float32")
    >>> spec.ndim, spec.dtype
    (4, dtype('float32'))
    """

    shape: tuple[int, ...]
    dtype: np.dtype = np.dtype("f4")
    device: str = "cpu"

    if TYPE_CHECKING:                       # what the constructor takes is wider than what the fields hold
        def __init__(self, shape: int | Sequence[int], dtype: DTypeLike = ..., device: str = ...) -> None: ...

    def __post_init__(self):
        shape = (self.shape,) if isinstance(self.shape, int) else self.shape
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if any(n < 0 for n in self.shape):
            raise ValueError(f"shape must not be negative: shape={self.shape}")

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)


class _Once:
    """`functools.cached_property` without the lock that it takes up to Python 3.11, which costs two microseconds."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function, self._name, self.__doc__ = function, function.__name__, function.__doc__

    def __get__(self, problem: Any, kind: Any) -> Any:
        if problem is None:
            return self
        value = problem.__dict__[self._name] = self._function(problem)
        return value


if TYPE_CHECKING:
    _once = property
else:
    _once = _Once


@dataclass(frozen=True)
class ConvProblem:
    """One convolution, as every room below the public functions sees it. Any number of spatial axes, at least one."""

    N: int                                   # batch
    groups: int
    C: int                                   # input channels of one group
    K: int                                   # output channels of one group
    size: tuple[int, ...]                    # input extents
    kernel: tuple[int, ...]                  # window extents
    stride: tuple[int, ...]
    dilation: tuple[int, ...]                # 1 is dense
    padding: tuple[tuple[int, int], ...]     # (low, high); negative crops
    dtype: np.dtype                          # of input, weight and output, already promoted
    boundary: tuple[str, ...] = ()           # boundary.MODES, one an axis; () is 'constant' everywhere
    fill: complex = 0.0                      # value outside under 'constant'
    ends: bool = False                       # nothing lies outside: an infinite tap there adds nothing (GPU)
    upsample: tuple[int, ...] = ()           # () is 1 everywhere
    has_bias: bool = False
    separable: bool = False                  # the weight is known to be an outer product of one vector for each axis
    channels_last: bool = False
    device: str = "cpu"
    threads: int = 1
    tf32: bool = False                       # float32 products may be rounded to TF32 (tensor cores of a GPU)
    reused: bool = False                     # the weight is prepared once for many calls: that costs none of them

    def __post_init__(self):
        rank = len(self.size)
        if not self.boundary:
            object.__setattr__(self, "boundary", ("constant",) * rank)
        if not self.upsample:
            object.__setattr__(self, "upsample", (1,) * rank)
        lengths = {len(v) for v in (self.size, self.kernel, self.stride, self.dilation, self.padding, self.boundary,
                                    self.upsample)}
        if lengths != {rank} or rank == 0:
            raise ValueError(f"every axis needs one entry of each: {self}")
        if unknown := set(self.boundary) - set(_boundary.MODES):
            raise ValueError(f"unknown boundary: {sorted(unknown)}, expected {_boundary.MODES}")
        engine_dtype(self.dtype)

    def __hash__(self):
        return self._hash

    @_once
    def _hash(self) -> int:
        return hash(_fields_of(self))

    def replace(self, **changes) -> ConvProblem:
        """A copy with changes, validated again."""
        return replace(self, **changes)

    def derived(self, **changes) -> ConvProblem:
        """A copy with changes that are known to be valid, in a fifth of the time."""
        copy = object.__new__(ConvProblem)
        copy.__dict__.update(zip(_FIELDS, _fields_of(self), strict=True))
        copy.__dict__.update(changes)
        return copy

    def with_threads(self, threads: int) -> ConvProblem:
        """A copy for so many threads, always the same one; it keeps what was already worked out of the extents.

        Caches find the same object without comparing its fields, which takes microseconds.
        """
        if threads == self.threads:
            return self
        copy = self._copies.get(threads)
        if copy is None:
            copy = object.__new__(ConvProblem)
            copy.__dict__.update(self.__dict__, threads=threads)
            copy.__dict__.pop("_hash", None)
            self._copies[threads] = copy                # which shares `_copies`
        return copy

    @_once
    def _copies(self) -> dict[int, ConvProblem]:
        return {self.threads: self}

    @_once
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @_once
    def out(self) -> tuple[int, ...]:
        """Output extents."""
        return tuple(
            out_size((n - 1) * u + 1 if n else 0, r, s, d, low, high)
            for n, u, r, s, d, (low, high) in zip(
                self.size, self.upsample, self.kernel, self.stride, self.dilation, self.padding, strict=True))

    @_once
    def engine(self) -> np.dtype:
        """Type in which the kernels compute: float32, float64, complex64, complex128, int32 or int64."""
        return engine_dtype(self.dtype)

    @_once
    def real(self) -> np.dtype:
        """Type of the real numbers that make up an element of `engine`."""
        return np.zeros(0, self.engine).real.dtype if self.engine.kind == "c" else self.engine

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input in the engine's order (N, groups C, *size)."""
        return (self.N, self.groups * self.C, *self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight (groups K, C, *kernel)."""
        return (self.groups * self.K, self.C, *self.kernel)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output in the engine's order (N, groups K, *out)."""
        return (self.N, self.groups * self.K, *self.out)

    @_once
    def taps(self) -> int:
        """Products summed for one output element: C times the window's volume."""
        return self.C * product(self.kernel)

    @_once
    def positions(self) -> int:
        """Output elements of one channel of one image."""
        return product(self.out)

    @_once
    def macs(self) -> int:
        """Multiplications of the definition."""
        return self.N * self.groups * self.K * self.taps * self.positions

    @_once
    def reach(self) -> tuple[int, ...]:
        """Padded extent that the outputs read, per axis."""
        return tuple(span(o, s) + span(r, d) - 1 if o else 0
                     for o, s, r, d in zip(self.out, self.stride, self.kernel, self.dilation, strict=True))

    def calls(self, unprepared: float) -> float:
        """What a call takes beside its work, from that of one that prepares its weight; in calls of others."""
        return min(unprepared, 1.0) if self.reused else unprepared

    def index_maps(self) -> tuple[np.ndarray, ...]:
        """For each axis, the input index under each padded position that is read (`boundary.FILL`: the fill value)."""
        return tuple(
            _boundary.index_map(mode, n, low, count, u)
            for mode, n, (low, _), count, u in zip(
                self.boundary, self.size, self.padding, self.reach, self.upsample, strict=True))


_FIELDS = tuple(ConvProblem.__dataclass_fields__)
_fields_of = attrgetter(*_FIELDS)
