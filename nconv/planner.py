"""The choice of an algorithm: refuse, cost, rank; a plan that says why; measuring and remembering.

Selection is data: every algorithm of the device is scored by its own `why_not`, `cost`, `workspace` and `error`, and
the cheapest that is allowed wins. Measurements (`tune`) stand above predictions.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from . import registry, shortcuts, threads, wisdom
from .factors import outer_factors
from .geometry import product
from .lowering import Call, Route, as_array, check_device, check_out, lower, on_gpu
from .machine import machine
from .phases import phases
from .problem import ArraySpec, ConvProblem

_limits: dict[str, Any] = {"workspace": None, "error": 8.0, "tf32": False}


@dataclass(frozen=True)
class Candidate:
    """One algorithm as the dispatcher saw it."""

    name: str
    seconds: float               # estimated; infinite where refused
    workspace: int               # bytes beside input and output
    error: float                 # expected largest error, times the direct method's
    refused: str = ""            # why not; empty: allowed
    chosen: bool = False
    measured: float | None = None   # seconds, where `tune` has measured


@dataclass(frozen=True, eq=False)
class Decision:
    """The outcome for one problem."""

    problem: ConvProblem
    algorithm: ModuleType
    candidates: tuple[Candidate, ...]
    workspace: int


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
        self._algorithm = decision.algorithm
        self.problem = decision.problem
        self.method: str = decision.algorithm.NAME
        self.candidates = decision.candidates
        self.workspace_bytes = decision.workspace
        self._prepared = None
        self._bias = None
        self._shortcut = None
        if not isinstance(call.weight, ArraySpec) and call.instead is None:
            self._prepared, self._bias = _prepare(decision, call)
            self._shortcut = _shortcut(call, decision)
            if self._shortcut is not None:             # takes the weight as it is, and it may change in the meantime
                bias = None if call.bias is None else call.bias.copy()
                self._call = replace(call, weight=call.weight.copy(), bias=bias)

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
            result = self._shortcut(x, self._call.weight, self._call.bias, out)
            if result is not None:
                return result
        if self._call.instead is not None:
            return execute(replace(self._call, x=x, out=out))
        return _finish(self._call.route, self.problem, self._algorithm, self._prepared, x, self._bias, out)

    def __repr__(self) -> str:
        return f"<Plan {self.method}: {len(self.candidates)} candidates>"

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


# ----------------------------------------------------------------------------------------------------- Limits


def set_workspace_limit(n_bytes: int | None) -> None:
    """Let no algorithm be chosen that needs more than `n_bytes` beside input and output.

    Parameters
    ----------
    n_bytes : int or None
        None lifts the limit.

    Raises
    ------
    TypeError, ValueError
        If `n_bytes` is not an integer or is negative.
    MemoryError
        Later, from a call for which no algorithm fits.

    Examples
    --------
    >>> import nconv
    >>> nconv.set_workspace_limit(64 * 2**20)
    >>> nconv.set_workspace_limit(None)
    """
    if n_bytes is not None:
        if isinstance(n_bytes, bool) or not isinstance(n_bytes, (int, np.integer)):
            raise TypeError(f"n_bytes must be an integer or None: n_bytes={n_bytes!r}")
        if n_bytes < 0:
            raise ValueError(f"n_bytes must not be negative: n_bytes={n_bytes}")
    _limits["workspace"] = None if n_bytes is None else int(n_bytes)
    shortcuts.forget()


class set_error_limit(contextlib.AbstractContextManager):
    """Let 'auto' choose only algorithms whose expected error is at most `times` the direct method's.

    As a function it sets the limit for the whole program, as a context manager for a block.

    Parameters
    ----------
    times : float
        At least 1; 8 unless set.

    Raises
    ------
    ValueError
        If `times` is below 1 or not a number.

    Examples
    --------
    >>> import nconv
    >>> with nconv.set_error_limit(1):
    ...     nconv.plan(nconv.convolve, nconv.ArraySpec((100_000,)), nconv.ArraySpec((5_000,))).method != "fft"
    True
    """

    def __init__(self, times: float):
        if not isinstance(times, (int, float, np.number)) or not times >= 1:
            raise ValueError(f"times must be a number of at least 1: times={times!r}")
        self._before = _limits["error"]
        _limits["error"] = float(times)
        shortcuts.forget()

    def __exit__(self, *exc) -> None:
        _limits["error"] = self._before
        shortcuts.forget()


class allow_tf32(contextlib.AbstractContextManager):
    """Let layers of float32 on a GPU round their factors to TF32 (eleven bits), so that tensor cores multiply them.

    Off by default: it is many times faster and errs some thousand times more. Sums stay float32. As a function it sets
    this for the whole program, as a context manager for a block; plans keep what was allowed when they were made.

    Parameters
    ----------
    allowed : bool, default True

    Raises
    ------
    TypeError
        If `allowed` is not a bool.

    Examples
    --------
    >>> import nconv
    >>> with nconv.allow_tf32():
    ...     y = "layers on a GPU run in TF32 here"
    """

    def __init__(self, allowed: bool = True):
        if not isinstance(allowed, (bool, np.bool_)):
            raise TypeError(f"allowed must be True or False: allowed={allowed!r}")
        self._before = _limits["tf32"]
        _limits["tf32"] = bool(allowed)

    def __exit__(self, *exc) -> None:
        _limits["tf32"] = self._before


# ----------------------------------------------------------------------------------------------------- Choice


def decide(problem: ConvProblem, method: str = "auto") -> Decision:
    """The algorithm for a problem under the limits in force."""
    if problem.device == "cuda" and _limits["tf32"]:
        problem = problem.replace(tf32=True)
    return _decide(problem, method, *conditions())


def conditions() -> tuple[int, int | None, float]:
    """(threads, workspace limit, error limit) in force: a decision holds as long as these do."""
    return threads.get_num_threads(), _limits["workspace"], _limits["error"]


@lru_cache(maxsize=1024)
def _decide(problem: ConvProblem, method: str, num_threads: int, workspace_limit: int | None,
            error_limit: float) -> Decision:
    algorithms = registry.algorithms(problem.device)
    forced = method != "auto"
    rates = machine(problem.device)
    if forced and method not in registry.names(problem.device):
        raise ValueError(f"unknown method: method={method!r}, expected 'auto' or one of "
                         f"{', '.join(map(repr, registry.names(problem.device)))}")
    measured = wisdom.recall(problem, num_threads)
    parts = _parts(problem)
    scored = []
    for algorithm in algorithms:
        refused = next(filter(None, map(algorithm.why_not, parts)), "")
        if refused:
            scored.append((Candidate(algorithm.NAME, float("inf"), 0, float("inf"), refused), problem, algorithm))
            continue
        # A small problem is not worth the start of the threads.
        best = min((problem.replace(threads=n) for n in {1, num_threads}),
                   key=lambda p: sum(algorithm.cost(part, rates) for part in _parts(p)))
        parts_of_best = _parts(best)
        candidate = Candidate(
            algorithm.NAME, sum(algorithm.cost(part, rates) for part in parts_of_best),
            sum(algorithm.workspace(part, rates) for part in parts_of_best),
            max(map(algorithm.error, parts_of_best), default=1.0), measured=measured.get(algorithm.NAME))
        if workspace_limit is not None and candidate.workspace > workspace_limit:
            candidate = replace(candidate, refused=f"needs {candidate.workspace} bytes of workspace, the limit is "
                                                   f"{workspace_limit}")
        elif not forced and candidate.error > error_limit:
            candidate = replace(candidate, refused=f"expected error is {candidate.error:.3g} times the direct "
                                                   f"method's, the limit is {error_limit:.3g}")
        scored.append((candidate, best, algorithm))

    allowed = [entry for entry in scored if not entry[0].refused and method in ("auto", entry[0].name)]
    if not allowed:
        _refuse(problem, method, [entry[0] for entry in scored], workspace_limit)
    # Measured seconds and predicted ones do not compare: where some are measured, only they compete.
    known = [entry for entry in allowed if entry[0].measured is not None] or allowed
    winner = min(known, key=lambda entry: entry[0].measured if entry[0].measured is not None else entry[0].seconds)
    candidates = tuple(replace(c, chosen=c is winner[0]) for c, _, _ in scored)
    return Decision(winner[1], winner[2], candidates, winner[0].workspace)


def forget_choices() -> None:
    """Choose anew from now on: what is known of times has changed."""
    _decide.cache_clear()
    shortcuts.forget()


def _decide_call(call: Call) -> Decision:
    """The algorithm for a call. Its weight is looked at only where passes would win if it were an outer product."""
    problem = call.route.problem
    twin = _separable_twin(problem)
    if twin is not None and call.method in ("auto", "separable") and isinstance(call.weight, np.ndarray):
        decision = decide(twin, call.method)
        if decision.algorithm.NAME == "separable" and _is_outer(call):
            return decision
    return decide(problem, call.method)


@lru_cache(maxsize=1024)
def _separable_twin(problem: ConvProblem) -> ConvProblem | None:
    """The problem with the knowledge that its weight is an outer product; None where that would not matter."""
    matters = (problem.device == "cpu" and problem.C == 1 and sum(k > 1 for k in problem.kernel) > 1
               and set(problem.stride) == {1})
    return problem.replace(separable=True) if matters else None


def _is_outer(call: Call) -> bool:
    problem = call.route.problem
    weight = registry.arrays(problem.device).widen(call.route.weigh(call.weight), problem)
    return all(outer_factors(window) is not None for window in weight[:, 0])


def _parts(problem: ConvProblem) -> list[ConvProblem]:
    """The plain problems of which one consists, as far as they are computed at all."""
    if product(problem.out_shape) == 0:
        return []
    return [phase.problem for phase in phases(problem) if phase.problem is not None]


def seconds(problem: ConvProblem) -> float:
    """Predicted, or measured, time of the algorithm that 'auto' takes."""
    chosen = next(c for c in decide(problem).candidates if c.chosen)
    return chosen.seconds if chosen.measured is None else chosen.measured


def _refuse(problem, method, candidates, workspace_limit):
    considered = [c for c in candidates if method in ("auto", c.name)]
    if workspace_limit is not None and any(c.workspace > workspace_limit for c in considered):
        least = min(c.workspace for c in considered if c.workspace > workspace_limit)
        raise MemoryError(f"no algorithm fits the workspace limit: {least} bytes needed, {workspace_limit} allowed")
    supported = [c.name for c in candidates if not c.refused]
    raise ValueError(f"method={method!r} does not support this problem: {considered[0].refused}; "
                     f"methods that do: {', '.join(map(repr, supported)) or 'none'}")


# -------------------------------------------------------------------------------------------------------- Run


def run_algorithm(algorithm: ModuleType, problem: ConvProblem, x: Any, weight: Any, bias: Any = None,
                  prepared: Any = None) -> Any:
    """Run one algorithm on arrays in the engine's order; the result has `problem.dtype`."""
    arrays = registry.arrays(problem.device)
    if prepared is None:
        prepared = algorithm.prepare(problem, arrays.widen(weight, problem))
    out = arrays.allocate(problem, x)
    if out.size:
        algorithm.run(problem, prepared, arrays.widen(x, problem), arrays.widen(bias, problem), out)
    return arrays.deliver(arrays.narrow(out, problem.dtype), x)


def answer(arrays: tuple, options: tuple, out: Any, lower: Callable[[], Call],
           run: Callable[[Call], Any] | None = None) -> Any:
    """The result of a public function: by the shortcut of an earlier call of its kind, else by lowering this one.

    `arrays` are its input, its weight and, where it takes one, its bias; `options` are its name and all else on which
    the result depends; `run` is `execute` unless the family has something to add.
    """
    key = shortcuts.signature(arrays, options, out)
    shortcut = shortcuts.find(key)
    if shortcut is not None:
        result = shortcut(*arrays, out=out)
        if result is not None:
            return result
    call = lower()
    result = (run or execute)(call)
    shortcuts.leave(key, options, lambda: _shortcut(call, _decide_call(call)))
    return result


def _shortcut(call: Call, decision: Decision) -> shortcuts.Shortcut | None:
    if decision.problem.separable:                     # holds for this weight, not for calls of this kind
        return None
    allocate = registry.arrays(decision.problem.device).allocate
    return shortcuts.shortcut(call, decision.problem, decision.algorithm, allocate)


def execute(call: Call) -> np.ndarray:
    """Run a call: the one way from every public function to a kernel."""
    route = call.route
    check_out(call.out, route.shape, route.dtype, like=call.x)
    if call.instead is not None:
        return call.instead(call)
    decision = _decide_call(call)                      # a wrong method is refused for empty outputs too
    if product(route.shape) == 0:
        return empty_result(call)
    prepared, bias = _prepare(decision, call)
    return _finish(route, decision.problem, decision.algorithm, prepared, call.x, bias, call.out)


def empty_result(call: Call) -> Any:
    """The result where there is nothing to add up: zeros, or no element at all."""
    route = call.route
    arrays = registry.arrays(route.problem.device)
    result = arrays.zeros(route.shape, route.dtype, call.x)
    if call.out is None:
        return arrays.deliver(result, call.x)
    arrays.assign(call.out, result)
    return call.out


def _prepare(decision: Decision, call: Call) -> tuple[tuple, Any]:
    """(the packed weight of each phase, the bias)."""
    problem = decision.problem
    arrays = registry.arrays(problem.device)
    weight = arrays.widen(call.route.weigh(call.weight), problem)
    prepare = decision.algorithm.prepare
    prepared = tuple(phase.problem and prepare(phase.problem, arrays.contiguous(weight[phase.taps]))
                     for phase in phases(problem)) if product(problem.out_shape) else ()
    return prepared, arrays.widen(call.bias, problem)


def _finish(route: Route, problem: ConvProblem, algorithm, prepared, x, bias, out) -> Any:
    arrays = registry.arrays(problem.device)
    result = arrays.allocate(problem, x)
    if result.size:
        _run_phases(arrays, algorithm, problem, prepared, arrays.widen(route.enter(x), problem), bias, result)
    result = arrays.narrow(route.leave(result), route.dtype, route.cast)
    if out is None:
        return arrays.deliver(result, x)
    check_out(out, route.shape, route.dtype, like=x)
    arrays.assign(out, result)
    return out


def _run_phases(arrays, algorithm, problem, prepared, x, bias, result) -> None:
    parts = phases(problem)
    if len(parts) == 1 and parts[0].problem is not None:
        algorithm.run(problem, prepared[0], x, bias, result)
        return
    for part, packed in zip(parts, prepared, strict=True):
        if part.problem is None:
            result[part.places] = 0 if bias is None else bias.reshape(-1, *(1,) * problem.rank)
            continue
        y = arrays.part_target(part.problem, result, part.places)
        algorithm.run(part.problem, packed, x, bias, y)
        result[part.places] = y


# ------------------------------------------------------------------------------------------------- Plan, tune


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
    call = lower(function, *args, **kwargs)
    reused = call.route.problem.replace(reused=True)
    call = replace(call, route=replace(call.route, problem=reused))
    return Plan(call, _decide_call(call))


def tune(function: Callable, *args: Any, repeats: int = 5, **kwargs: Any) -> Plan:
    """Measure every algorithm on a call and remember the fastest for this machine.

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
        As `plan` gives it from now on; the candidates carry the measured seconds.

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
    twin = _separable_twin(call.route.problem)
    if twin is not None and _is_outer(call):
        call = replace(call, route=replace(call.route, problem=twin))
    problem = call.route.problem
    wisdom.remember(problem, threads.get_num_threads(), measure(call, repeats))
    forget_choices()
    return Plan(call, decide(problem))


def measure(call: Call, repeats: int = 5) -> dict[str, float]:
    """Median seconds of every algorithm that is allowed, by name; they run in turn."""
    runs: list[tuple[Decision, Any, Any, list[float]]] = []
    for candidate in decide(call.route.problem).candidates:
        if not candidate.refused:
            decision = decide(call.route.problem, candidate.name)
            runs.append((decision, *_prepare(decision, call), []))
    finished = registry.arrays(call.route.problem.device).synchronize
    for turn in range(repeats + 1):                       # the first one compiles and warms up
        for decision, prepared, bias, times in runs:
            start = time.perf_counter()
            _finish(call.route, decision.problem, decision.algorithm, prepared, call.x, bias, None)
            finished()
            if turn:
                times.append(time.perf_counter() - start)
    return {decision.algorithm.NAME: float(np.median(times)) for decision, _, _, times in runs}


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
    ['small', 'direct', 'im2col', 'winograd', 'winograd_large', 'fft', 'separable']
    """
    return tuple(Algorithm(a.NAME, device, a.SUPPORTS, a.REFERENCE)
                 for device in registry.devices() for a in registry.algorithms(device))
