"""The algorithms of each device: to add one, write its module and name it here.

An algorithm is a module with a few names::

    NAME = "im2col"                                   # what `method=` takes
    SUPPORTS = "..."                                  # what it is for, in one line
    REFERENCE = "..."                                 # where it is described
    def why_not(problem) -> str                       # "" = supported, else the reason, in words
    def cost(problem, machine) -> float               # predicted seconds
    def counts(problem, machine) -> dict[str, float]  # on the CPU: the pieces of work of which `cost` is the sum
    def workspace(problem, machine) -> int            # peak extra bytes
    def error(problem) -> float                       # expected largest error over the direct method's
    def prepare(problem, weight) -> object            # packs or transforms the weight, once a plan
    def run(problem, prepared, x, bias, out) -> None  # fills out; validates nothing; on the CPU made of `bind`, as is
    def shortcut(problem, x, weight, out, ...)        # `shortcut`, by `cpu.launch.entries`
    def least(problem, machine) -> (float, float)     # (seconds on one thread, error) that `cost` and `error` cannot
                                                      # undercut, soon counted; only where `cost` takes long
    CALLS = 2.4                                       # only where a call with preparation takes other than 1 beside its
                                                      # work; with the weight prepared it takes 1 at most
    WHOLE = True                                      # only where it takes problems with zeros between the elements of
                                                      # their input as they are, and weights as they lie; else `phases`
                                                      # parts them before
    SERIAL = True                                     # only where it has no threads, and `least` is its cost

`weight` has shape `problem.weight_shape`, `x` and `out` have `problem.x_shape` and `problem.out_shape` (as views in
that order when channels lie last in memory), `bias` has shape (groups K,) or is None; all are of `problem.engine`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

_MODULES = {"cpu": ("small", "direct", "depthwise", "im2col", "col2im", "winograd", "winograd_large", "fft_tiles",
                    "fft", "separable"),
            "cuda": ("direct", "im2col", "fft")}


def devices() -> tuple[str, ...]:
    """The devices that have algorithms."""
    return tuple(_MODULES)


@cache
def algorithms(device: str = "cpu") -> tuple[ModuleType, ...]:
    """The algorithms of a device, in the order in which ties are decided."""
    return tuple(import_module(f"nconv.{device}.{name}") for name in _MODULES[device])


@cache
def arrays(device: str = "cpu") -> ModuleType:
    """The module of a device that allocates, converts and delivers arrays; the same names in every wing."""
    return import_module(f"nconv.{device}.arrays")


def names(device: str = "cpu") -> tuple[str, ...]:
    """What `method=` takes besides 'auto', without importing a kernel."""
    return _MODULES[device]
