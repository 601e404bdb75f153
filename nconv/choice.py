"""The choice of an algorithm: refuse, cost, rank.

Selection is data: every algorithm of the device is scored by its own `why_not`, `cost`, `workspace` and `error`, and
the cheapest that is allowed wins. Measurements (`tune`) stand above predictions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType

import numpy as np

from . import registry, shortcuts, wisdom
from .factors import outer_factors
from .geometry import product
from .limits import conditions, tf32_allowed
from .lowering import Call
from .machine import machine
from .phases import phases
from .problem import ConvProblem


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


def decide(problem: ConvProblem, method: str = "auto") -> Decision:
    """The algorithm for a problem under the limits in force."""
    if problem.device == "cuda" and tf32_allowed():
        problem = problem.replace(tf32=True)
    return _decide(problem, method, *conditions())


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


def decide_call(call: Call) -> Decision:
    """The algorithm for a call. Its weight is looked at only where passes would win if it were an outer product."""
    problem = call.route.problem
    twin = separable_twin(problem)
    if twin is not None and call.method in ("auto", "separable") and isinstance(call.weight, np.ndarray):
        decision = decide(twin, call.method)
        if decision.algorithm.NAME == "separable" and is_outer(call):
            return decision
    return decide(problem, call.method)


@lru_cache(maxsize=1024)
def separable_twin(problem: ConvProblem) -> ConvProblem | None:
    """The problem with the knowledge that its weight is an outer product; None where that would not matter."""
    matters = (problem.device == "cpu" and problem.C == 1 and sum(k > 1 for k in problem.kernel) > 1
               and set(problem.stride) == {1})
    return problem.replace(separable=True) if matters else None


def is_outer(call: Call) -> bool:
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
