"""Plans: a call prepared once that says why it runs as it does; measuring and remembering."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from . import registry, threads, wisdom
from .choice import Candidate, Decision, decide, decide_call, forget_choices, is_outer, separable_twin
from .engine import execute, finish, prepare, repeated, shortcut_of
from .lowering import Call, as_array, check_device, lower, on_gpu
from .problem import ArraySpec


class Plan:
    """A call prepared once: the choice is made, the weight is packed or transformed.

    Made by `nconv.plan`; calling it with an input of the planned shape and dtype gives the result.

    Attributes
    ----------
    method : str
        Name of the chosen algorithm.
    candidates : tuple of Candidate
        Every algorithm considered: name, estimated seconds, workspace bytes, expected error, why not if refused.
    workspace_bytes : int
        Memory that a call needs beside input and output.
    problem : ConvProblem
        What the engine is asked.
    """

    def __init__(self, call: Call, decision: Decision):
        self._call = call
        self.problem = decision.problem
        self.method: str = decision.algorithm.NAME
        self._decision = decision
        self.workspace_bytes = decision.workspace
        self._prepared = None
        self._bias = None
        self._shortcut = None
        if not isinstance(call.weight, ArraySpec) and call.instead is None:
            self._prepared, self._bias = registry.arrays(self.problem.device).keep(
                prepare(decision, call.route, call.weight, call.bias))
            self._shortcut = shortcut_of(call, decision, prepared=self._prepared[0])

    def __call__(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Convolve `x`, which must have the shape and dtype that were planned."""
        if isinstance(self._call.weight, ArraySpec):
            raise TypeError("this plan was made from the weight's ArraySpec and cannot run; give the weight to plan()")
        x = as_array(x, "x")
        check_device(self.problem.device if on_gpu(x) else None, x=x, **{"the planned input": self._call.x})
        if x.shape != self._call.x.shape or x.dtype != self._call.x.dtype:
            raise ValueError(f"the plan is for shape {self._call.x.shape} and dtype {self._call.x.dtype}, "
                             f"not {x.shape} and {x.dtype}")
        if self._shortcut is not None:
            result = self._shortcut(x, None, self._bias, out)
            if result is not None:
                return result
        if self._call.instead is not None:
            return execute(replace(self._call, x=x, out=out))
        return finish(self._call.route, self.problem, self._decision.algorithm, self._prepared, x, self._bias, out)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every algorithm considered: name, estimated seconds, workspace bytes, expected error, why not if refused."""
        return self._decision.candidates

    def __repr__(self) -> str:
        return f"<Plan {self.method} of {self.problem.rank} axes, {self.problem.dtype}>"

    def __str__(self) -> str:
        p = self.problem
        lines = [
            f"{p.N} x {p.groups} groups, {p.C} -> {p.K} channels, input {p.size}, window {p.kernel}, output {p.out}, "
            f"{p.dtype}, {p.threads} thread{'s' if p.threads > 1 else ''}",
            f"{'':2}{'method':<10}{'estimate':>12}{'measured':>12}{'workspace':>12}{'error':>8}  note"]
        for c in self.candidates:
            estimate = f"{c.seconds * 1e3:.4g} ms" if np.isfinite(c.seconds) else "-"
            measured = f"{c.measured * 1e3:.4g} ms" if c.measured is not None else "-"
            lines.append(f"{'*' if c.chosen else '':2}{c.name:<10}{estimate:>12}{measured:>12}"
                         f"{c.workspace / 2**20:>8.2f} MiB{c.error:>7.3g}x  {c.refused}".rstrip())
        return "\n".join(lines)


def plan(function: Callable, *args: Any, **kwargs: Any) -> Plan:
    """Prepare a call once and see how it will run.

    Parameters
    ----------
    function : callable
        A public function of nconv: `nconv.convolve`, `nconv.conv2d`, `nconv.ndimage.correlate`, ...
    *args, **kwargs
        Its arguments. The input may be an `nconv.ArraySpec`; if the weight is one too, the plan can be read but not
        run.

    Returns
    -------
    Plan
        Callable with an input of the planned shape and dtype; `print` shows every algorithm that was considered.

    Raises
    ------
    TypeError
        If `function` is none of nconv's.
    ValueError, MemoryError
        As the function itself would.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> p = nconv.plan(nconv.convolve, nconv.ArraySpec((4,), "float64"), np.array([1.0, 10.0]))
    >>> p(np.array([1.0, 2.0, 3.0, 4.0]))
    array([ 1., 12., 23., 34., 40.])
    >>> p.method
    'small'
    """
    call = _reusing(lower(function, *args, **kwargs))
    return Plan(call, decide_call(call))


def tune(function: Callable, *args: Any, repeats: int = 5, **kwargs: Any) -> Plan:
    """Measure every algorithm on a call and remember the fastest for this machine.

    Both are measured: the call as it stands, again and again with the same weight, and the call of a plan.

    Parameters
    ----------
    function : callable
        A public function of nconv.
    *args, **kwargs
        Its arguments; an `nconv.ArraySpec` stands for random values.
    repeats : int, default 5
        Rounds; the algorithms run in turn within each, and the median counts.

    Returns
    -------
    Plan
        As `plan` gives it from now on; the candidates carry the measured seconds of its calls.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As the function itself would.

    Examples
    --------
    >>> import nconv
    >>> p = nconv.tune(nconv.convolve, nconv.ArraySpec((1000,)), nconv.ArraySpec((9,)))
    >>> p.method in [algorithm.name for algorithm in nconv.algorithms()]
    True
    """
    call = lower(function, *args, **kwargs)
    call = replace(call, x=_example(call.x), weight=_example(call.weight), method="auto", out=None)
    twin = separable_twin(call.route.problem)
    if twin is not None and is_outer(call.route, call.weight):
        call = replace(call, route=replace(call.route, problem=twin))
    planned = _reusing(call)
    for measured in (call, planned):
        wisdom.remember(measured.route.problem, threads.get_num_threads(), measure(measured, repeats))
    forget_choices()
    return Plan(planned, decide(planned.route.problem))


def measure(call: Call, repeats: int = 5) -> dict[str, float]:
    """Median seconds of every algorithm that is allowed, by name; they run in turn.

    A call counts as its like would take again: past the choice, and where its algorithm keeps weights, with a known
    one.
    """
    call = replace(call, instead=None)
    problem = call.route.problem
    runs: list[tuple[str, Callable[[], Any], list[float]]] = []
    for candidate in decide(problem).candidates:
        if not candidate.refused:
            decision = decide(problem, candidate.name)
            again = partial(Plan(call, decision), call.x) if problem.reused else repeated(call, decision)
            runs.append((candidate.name, again, []))
    finished = registry.arrays(problem.device).synchronize
    for turn in range(repeats + 1):                       # the first one compiles and warms up
        for _, again, times in runs:
            start = time.perf_counter()
            again()
            finished()
            if turn:
                times.append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, _, times in runs}


def _reusing(call: Call) -> Call:
    """The call with a weight that is prepared once for many."""
    return replace(call, route=replace(call.route, problem=call.route.problem.replace(reused=True)))


def _example(array):
    if not isinstance(array, ArraySpec):
        return array
    values = np.random.default_rng(0).integers(0, 2, array.shape) if array.dtype.kind in "biu" else \
        np.random.default_rng(0).standard_normal(array.shape)
    return registry.arrays(array.device).from_host(values.astype(array.dtype))


@dataclass(frozen=True)
class Algorithm:
    """An entry of the registry, for people."""

    name: str
    device: str
    supports: str
    reference: str


def algorithms() -> tuple[Algorithm, ...]:
    """List the registry: what `method=` takes, with what each algorithm supports and where it is described.

    Returns
    -------
    tuple of Algorithm
        With the attributes name, device, supports and reference.

    Examples
    --------
    >>> import nconv
    >>> [a.name for a in nconv.algorithms() if a.device == "cpu"]
    ['small', 'direct', 'depthwise', 'im2col', 'col2im', 'winograd', 'winograd_large', 'fft_tiles', 'fft', 'separable']
    """
    return tuple(Algorithm(a.NAME, device, a.SUPPORTS, a.REFERENCE)
                 for device in registry.devices() for a in registry.algorithms(device))
