"""From a public call to the engine: what every family's function hands to the planner.

A public function checks its arguments once and returns a `Call`: the frozen problem, the arrays, and two views that
lead from the user's axes to the engine's and back. Nothing below knows of modes, flips or the user's axis order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from . import registry
from .errors import DeviceError
from .problem import ArraySpec, ConvProblem, engine_dtype


@dataclass(frozen=True, eq=False)
class Route:
    """How one kind of call (these shapes, dtypes and parameters) reaches the engine; cached by the families."""

    problem: ConvProblem
    enter: Callable[[np.ndarray], np.ndarray]        # the user's input as (N, groups C, *size)
    weigh: Callable[[np.ndarray], np.ndarray]        # the user's weight as (groups K, C, *kernel)
    leave: Callable[[np.ndarray], np.ndarray]        # (N, groups K, *out) as the user's result, a view
    shape: tuple[int, ...]                           # of the user's result
    dtype: np.dtype                                  # of the user's result
    cast: Callable[[np.ndarray, np.dtype], np.ndarray] | None = None   # how results become `dtype`; None: NumPy's way
    looks: bool = False                              # whether a weight that is not finite takes `Call.instead`


@dataclass(frozen=True, eq=False)
class Call:
    """One public call: its route and its arrays."""

    route: Route
    x: Any                                           # array or ArraySpec
    weight: Any
    bias: Any = None
    method: str = "auto"
    out: np.ndarray | None = None
    instead: Callable[[Call], np.ndarray] | None = None   # runs the call where the engine alone would not be right
    swapped: bool = False                            # whether the user gave the weight first


F = TypeVar("F", bound=Callable)
_lowerings: dict[Callable, Callable[..., Call]] = {}


def lowered_by(lower: Callable[..., Call]) -> Callable[[F], F]:
    """Mark a public function as the one that `lower` turns into a `Call` (this is how `plan` finds it)."""

    def mark(function: F) -> F:
        _lowerings[function] = lower
        return function

    return mark


def lower(function: Callable, *args, **kwargs) -> Call:
    """The `Call` of ``function(*args, **kwargs)``, without running it."""
    try:
        lowering = _lowerings[function]
    except (KeyError, TypeError):
        names = sorted(f"nconv.{f.__name__}" for f in _lowerings)
        raise TypeError(f"cannot plan {function!r}; expected one of {', '.join(names)}") from None
    return lowering(*args, **kwargs)


def as_array(value: Any, name: str, *, lists: bool = True) -> Any:
    """`value` as a NumPy array of a supported type; an `ArraySpec` stays one.

    Raises TypeError for objects, strings, dates and, unless `lists`, for anything that is not an array.
    """
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, ArraySpec):
        return value
    elif on_gpu(value):
        array = registry.arrays("cuda").view(value, name)
    elif lists or hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be an array, not {type(value).__name__}: {error}") from None
    else:
        raise TypeError(f"{name} must be an array, not {type(value).__name__}")
    try:
        engine_dtype(array.dtype)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    return array


def on_gpu(value: Any) -> bool:
    """Whether an array, or what an `ArraySpec` stands for, lies in the memory of a GPU."""
    if isinstance(value, np.ndarray):
        return False
    if isinstance(value, ArraySpec):
        return value.device == "cuda"
    if (said := getattr(value, "is_cuda", None)) is not None:         # PyTorch's tensors have the interface only there
        return bool(said)
    return hasattr(value, "__cuda_array_interface__") or hasattr(value, "__cuda_ndarray__")


def check_device(device: str | None, **arrays: Any) -> str:
    """The device of a call: that of its arrays, or the one that is asked for where they lie on the host.

    Raises DeviceError where arrays lie on both sides, where those of a GPU are to be computed on the CPU, and where no
    GPU can be used.
    """
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"unknown device: device={device!r}, expected 'cpu' or 'cuda'")
    there = [name for name, array in arrays.items() if on_gpu(array)]
    here = [name for name, array in arrays.items() if array is not None and name not in there]
    if not there and device != "cuda":
        return "cpu"
    if there and here:
        raise DeviceError(f"{' and '.join(there)} on the GPU, {' and '.join(here)} on the host: bring all to one side, "
                          "for example with cupy.asarray or cupy.asnumpy, and describe those of a GPU by "
                          "ArraySpec(..., device='cuda')")
    if there and device == "cpu":
        raise DeviceError(f"device='cpu', but {' and '.join(there)} on the GPU: bring them to the host, for example "
                          "with cupy.asnumpy, or leave device out")
    registry.arrays("cuda").check_usable()
    return "cuda"


def check_word(value: Any, name: str, words: tuple[str, ...]) -> str:
    """`value` in lower case where it is one of `words`; ValueError that names them all otherwise."""
    word = value.lower() if isinstance(value, str) else value
    if word not in words:
        raise ValueError(f"unknown {name}: {name}={value!r}, expected one of {', '.join(map(repr, words))}")
    return word


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype, name: str = "out", like: Any = None) -> None:
    """Refuse an `out` that cannot take the result, before anything is computed; it must lie where `like` lies."""
    if out is None:
        return
    if on_gpu(out) or on_gpu(like):
        check_device(None, input=like, **{name: out})
        out = as_array(out, name)
    elif not isinstance(out, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, not {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"{name} has the wrong dtype: {name}.dtype={out.dtype}, expected {dtype}")
    if out.shape != shape:
        raise ValueError(f"{name} has the wrong shape: {name}.shape={out.shape}, expected {shape}")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError(f"{name} is read-only")
