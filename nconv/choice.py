"""The choice of an algorithm: refuse, cost, rank.

Selection is data: every algorithm of the device is scored by its own `why_not`, `cost`, `workspace` and `error`, and
the cheapest that is allowed wins. Measurements (`tune`) stand above predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from heapq import heapify, heappop, heappush
from math import inf
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from . import registry, shortcuts, wisdom
from .factors import outer_factors
from .geometry import product
from .limits import conditions, tf32_allowed
from .lowering import Call, Route
from .machine import machine
from .phases import phases_for, takes_whole
from .problem import ConvProblem

_WORTH_A_LOOK = 1 << 20        # products of one of many windows beside which it costs little to see what its weight is
_SURELY_SHARED = 8            # so many starts of the threads: work from which on one thread alone cannot serve best


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

    problem: ConvProblem             # with the number of threads that serves it best
    algorithm: ModuleType
    seconds: float                   # measured where it was, else estimated
    _table: Callable[[], tuple[Candidate, ...]]

    @cached_property
    def workspace(self) -> int:
        """Peak bytes beside input and output."""
        return _workspace(self.algorithm, _parts(self.algorithm, self.problem), machine(self.problem.device))

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every algorithm; those that could not win are asked now, which takes longer than the choice."""
        return tuple(replace(c, chosen=c.name == self.algorithm.NAME) for c in self._table())


def decide(problem: ConvProblem, method: str = "auto") -> Decision:
    """The algorithm for a problem under the limits in force."""
    if problem.device == "cuda" and tf32_allowed():
        problem = problem.replace(tf32=True)
    return _decide(problem, method, *conditions())


@lru_cache(maxsize=1024)
def _decide(problem: ConvProblem, method: str, num_threads: int, workspace_limit: int | None,
            error_limit: float) -> Decision:
    names = registry.names(problem.device)
    if method != "auto" and method not in names:
        raise ValueError(f"unknown method: method={method!r}, expected 'auto' or one of {', '.join(map(repr, names))}")
    limits = workspace_limit, error_limit if method == "auto" else inf
    winner: _Score | None
    scores = _Scores(problem, num_threads, *limits)
    if method != "auto":
        winner = scores.score(_all_traits(problem.device)[names.index(method)])
    elif (twin := separable_twin(problem)) is None or scores.measured or wisdom.recall(twin, num_threads):
        winner = scores.best()
    else:
        # Passes apart, to know that the weight is an outer product changes nothing; most calls ask for both.
        known = _decide(twin, method, num_threads, workspace_limit, error_limit)
        if known.algorithm.NAME != "separable":
            return replace(known, problem=problem.with_threads(known.problem.threads), _table=scores.table)
        winner = _Scores(twin, num_threads, *limits).best(without=known.algorithm)
    if winner is None or winner.refused:
        _refuse(method, scores.table(), workspace_limit)
    return Decision(problem.with_threads(winner.problem.threads), winner.algorithm, winner.seconds, scores.table)


def surely_best(problem: ConvProblem) -> ModuleType | None:
    """The algorithm of the shortest calls, where `decide` would take it and that is soon seen; else None.

    It is where all its work takes less time than a call of any other alone.
    """
    num_threads, workspace_limit, _ = conditions()
    known = machine(problem.device)
    first, second = _shortest_calls(problem.device)
    if first.why_not(problem) or first.cost(problem, known) > known.call * problem.calls(_calls(second)):
        return None
    return None if workspace_limit is not None or wisdom.recall(problem, num_threads) else first


@cache
def _shortest_calls(device: str) -> tuple[ModuleType, ModuleType]:
    """The two algorithms whose calls take least beside their work."""
    first, second, *_ = sorted(registry.algorithms(device), key=_calls)
    return first, second


def _calls(algorithm: ModuleType) -> float:
    """What a call takes beside its work, in calls that prepare a small weight."""
    return getattr(algorithm, "CALLS", 1.0)


class _Traits(NamedTuple):
    """What `registry` says of an algorithm, looked up once."""

    algorithm: ModuleType
    calls: float
    serial: bool                     # takes one thread, whatever it is given; then `least` is its cost
    whole: bool                      # takes problems with zeros between the elements of their input as they are
    least: Callable[..., tuple[float, float]] | None


@cache
def _all_traits(device: str) -> tuple[_Traits, ...]:
    return tuple(_Traits(a, _calls(a), hasattr(a, "SERIAL"), takes_whole(a), getattr(a, "least", None))
                 for a in registry.algorithms(device))


class _Score(NamedTuple):
    """An algorithm's answers."""

    algorithm: ModuleType
    problem: ConvProblem             # with the number of threads that serves it best
    parts: list[ConvProblem]         # in which the algorithm takes it
    estimate: float                  # seconds; infinite where refused
    error: float
    refused: str
    measured: float | None           # seconds

    @property
    def seconds(self) -> float:
        """Measured where it was, else estimated."""
        return self.estimate if self.measured is None else self.measured


class _Scores:
    """The algorithms' answers about one problem, each asked when it is needed.

    A good answer costs tens of microseconds, and there are ten algorithms. Most need not be asked: each knows at once
    a time that it cannot undercut.
    """

    def __init__(self, problem: ConvProblem, num_threads: int, workspace_limit: int | None, error_limit: float):
        self._limits = workspace_limit, error_limit
        self._machine = machine(problem.device)
        self._algorithms = _all_traits(problem.device)
        self.measured = wisdom.recall(problem, num_threads)
        self._serial = self._shared = problem               # for one thread, and for all
        self._parted: dict[bool, tuple[list[ConvProblem], list[ConvProblem]]] = {}
        self._start = self._call = 0.0
        if problem.device == "cpu":
            self._call = self._machine.call
            if num_threads > 1:
                self._shared = problem.with_threads(num_threads)
                self._start = self._machine.parallel_start

    def best(self, without: ModuleType | None = None) -> _Score | None:
        """The cheapest that is allowed; None where none is."""
        # Measured seconds and predicted ones do not compare: where some are measured, only they compete.
        known = [self.score(traits) for traits in self._algorithms if traits.algorithm.NAME in self.measured]
        if any(not score.refused for score in known):
            return min((score for score in known if not score.refused), key=lambda score: score.seconds)
        # The next to be asked is the one with the lowest bound: first that of a call alone, then that of its work.
        bids: list[tuple[float, int, float | None]] = [
            (self._call_of(traits), i, None) for i, traits in enumerate(self._algorithms)
            if traits.algorithm is not without]
        heapify(bids)
        best = None
        while bids and (best is None or bids[0][0] < best.seconds):
            _, i, least = heappop(bids)
            traits = self._algorithms[i]
            if least is not None:
                score = self._priced(traits, least)
                if not score.refused and (best is None or score.seconds < best.seconds):
                    best = score
            elif not any(map(traits.algorithm.why_not, self._parts(traits)[0])):
                least, error = self._least(traits)
                if error <= self._limits[1]:
                    heappush(bids, (self._least_of_any(traits, least), i, least))
        return best

    def table(self) -> tuple[Candidate, ...]:
        """All of them, refused ones too."""
        return tuple(Candidate(score.algorithm.NAME, score.estimate,
                               _workspace(score.algorithm, score.parts, self._machine), score.error, score.refused,
                               False, score.measured) for score in map(self.score, self._algorithms))

    def score(self, traits: _Traits) -> _Score:
        """The answers of one algorithm."""
        refused = next(filter(None, map(traits.algorithm.why_not, self._parts(traits)[0])), "")
        if refused:
            return _Score(traits.algorithm, self._serial, [], inf, inf, refused, None)
        return self._priced(traits, self._least(traits)[0])

    def _parts(self, traits: _Traits) -> tuple[list[ConvProblem], list[ConvProblem]]:
        """The problems in which an algorithm takes this one, for one thread and for all."""
        found = self._parted.get(traits.whole)
        if found is None:
            serial = _parts(traits.algorithm, self._serial)
            found = self._parted[traits.whole] = serial, [part.with_threads(self._shared.threads) for part in serial]
        return found

    def _priced(self, traits: _Traits, least: float) -> _Score:
        """The answers of an algorithm that supports the problem and takes at least so many seconds on one thread."""
        algorithm, best, rates = traits.algorithm, self._serial, self._machine
        parts, shared_parts = self._parts(traits)
        seconds = inf
        if traits.serial:
            seconds = least
        elif least <= len(parts) * (_SURELY_SHARED * self._start + self._call_of(traits)) or not self._start:
            seconds = sum([algorithm.cost(part, rates) for part in parts])
        if self._least_of_any(traits, least) < seconds and self._start > 0:       # a small one is not worth the threads
            shared = sum([algorithm.cost(part, rates) for part in shared_parts])
            if shared < seconds:
                seconds, best, parts = shared, self._shared, shared_parts
        if parts and parts[0] is not best and parts[0] != best and self._call > 0:
            seconds += rates.seconds({"phases.calls": 1, "phases.placed": product(best.out_shape)})
        error = max(map(algorithm.error, parts), default=1.0)
        return _Score(algorithm, best, parts, seconds, error, self._over_limit(algorithm, parts, error),
                      self.measured.get(algorithm.NAME))

    def _call_of(self, traits: _Traits) -> float:
        """What a call of an algorithm takes beside its work."""
        return self._call * self._serial.calls(traits.calls)

    def _over_limit(self, algorithm: ModuleType, parts: list[ConvProblem], error: float) -> str:
        workspace_limit, error_limit = self._limits
        if workspace_limit is not None and (needed := _workspace(algorithm, parts, self._machine)) > workspace_limit:
            return f"needs {needed} bytes of workspace, the limit is {workspace_limit}"
        if error > error_limit:
            return f"expected error is {error:.3g} times the direct method's, the limit is {error_limit:.3g}"
        return ""

    def _least(self, traits: _Traits) -> tuple[float, float]:
        """(seconds on one thread, error) that the algorithm cannot undercut."""
        parts, _ = self._parts(traits)
        if traits.least is None or not parts:
            return 0.0, 1.0
        if len(parts) == 1:
            return traits.least(parts[0], self._machine)
        answers = [traits.least(part, self._machine) for part in parts]
        return sum(seconds for seconds, _ in answers), max(error for _, error in answers)

    def _least_of_any(self, traits: _Traits, seconds: float) -> float:
        """The least with any number of threads, from that on one."""
        return seconds if traits.serial else min(seconds, seconds / self._shared.threads + self._start)


def _workspace(algorithm: ModuleType, parts: list[ConvProblem], rates: Any) -> int:
    """Peak bytes beside input and output of an algorithm that computes so many parts."""
    return sum(algorithm.workspace(part, rates) for part in parts)


def forget_choices() -> None:
    """Choose anew from now on: what is known of times has changed."""
    _decide.cache_clear()
    shortcuts.forget()


def decide_call(call: Call) -> Decision:
    """The algorithm for a call. Its weight is looked at only where passes would win if it were an outer product."""
    if depends_on_weight(call):
        return decide_for(call.route, call.weight, call.method)
    return decide(call.route.problem, call.method)


def decide_for(route: Route, weight: np.ndarray, method: str) -> Decision:
    """The algorithm for a weight on which the choice depends."""
    outer = is_outer(route, weight)
    return decide(separable_twin(route.problem) if outer else route.problem, method)  # type: ignore[arg-type]


def depends_on_weight(call: Call) -> bool:
    """Whether passes would win if the call's weight were an outer product, and looking costs little beside them."""
    problem = call.route.problem
    twin = separable_twin(problem)
    if twin is None or call.method not in ("auto", "separable") or not isinstance(call.weight, np.ndarray):
        return False
    dear = problem.groups * problem.K > 1 and problem.positions * problem.taps < _WORTH_A_LOOK
    return call.method == "separable" or (not dear and decide(twin).algorithm.NAME == "separable")


@lru_cache(maxsize=1024)
def separable_twin(problem: ConvProblem) -> ConvProblem | None:
    """The problem with the knowledge that its weight is an outer product; None where that would not matter."""
    matters = (problem.device == "cpu" and not problem.separable and problem.C == 1 and set(problem.stride) == {1}
               and sum(k > 1 for k in problem.kernel) > 1)
    return problem.derived(separable=True) if matters else None


def is_outer(route: Route, weight: np.ndarray) -> bool:
    """Whether each window of the weight is an outer product of one vector for each axis."""
    weight = registry.arrays(route.problem.device).widen(route.weigh(weight), route.problem)
    return all(outer_factors(window) is not None for window in weight[:, 0])


def _parts(algorithm: ModuleType, problem: ConvProblem) -> list[ConvProblem]:
    """The problems in which an algorithm takes one, as far as they are computed at all."""
    if product(problem.out_shape) == 0:
        return []
    if set(problem.upsample) == {1}:                   # as `phases` would say, in a tenth of the time
        return [problem]
    return [phase.problem for phase in phases_for(algorithm, problem) if phase.problem is not None]


def seconds(problem: ConvProblem) -> float:
    """Predicted, or measured, time of the algorithm that 'auto' takes."""
    return decide(problem).seconds


def _refuse(method: str, candidates: tuple[Candidate, ...], workspace_limit: int | None) -> NoReturn:
    considered = [c for c in candidates if method in ("auto", c.name)]
    if workspace_limit is not None and any(c.workspace > workspace_limit for c in considered):
        least = min(c.workspace for c in considered if c.workspace > workspace_limit)
        raise MemoryError(f"no algorithm fits the workspace limit: {least} bytes needed, {workspace_limit} allowed")
    supported = [c.name for c in candidates if not c.refused]
    raise ValueError(f"method={method!r} does not support this problem: {considered[0].refused}; "
                     f"methods that do: {', '.join(map(repr, supported)) or 'none'}")
