"""What the dispatcher may leave unasked: bounds that hold, and a choice that is the cheapest of its own table."""

import pytest
from cases import CASES, problems
from hypothesis import given, settings

import nconv
from nconv import choice, registry
from nconv.limits import conditions
from nconv.lowering import lower
from nconv.machine import machine
from nconv.threads import limited

ALGORITHMS = [a for a in registry.algorithms("cpu") if hasattr(a, "least")]


def check_bounds(problem):
    rates = machine()
    for algorithm in ALGORITHMS:
        if algorithm.why_not(problem):
            continue
        seconds, error = algorithm.least(problem, rates)
        assert error <= algorithm.error(problem) * (1 + 1e-9), algorithm.NAME
        for threads in 1, 2, 7:
            least = seconds if threads == 1 else min(seconds, seconds / threads + rates.parallel_start)
            assert least <= algorithm.cost(problem.with_threads(threads), rates) * (1 + 1e-9), (algorithm.NAME, threads)


def check_choice(problem, threads):
    """Bounds may leave the threads' number unasked where a few per cent hang on it, never the algorithm."""
    choice._decide.cache_clear()
    decision = choice._decide(problem, "auto", threads, *conditions()[1:])
    allowed = [c for c in decision.candidates if not c.refused]
    assert decision.seconds <= 1.1 * min(c.seconds for c in allowed)
    assert [c.name for c in decision.candidates if c.chosen] == [decision.algorithm.NAME]


@pytest.mark.parametrize("name", CASES)
def test_no_cost_undercuts_its_bound(name):
    check_bounds(CASES[name])


@settings(max_examples=200, deadline=None)
@given(problems(largest=3000, work=10**9))
def test_no_cost_undercuts_its_bound_on_any_problem(problem):
    check_bounds(problem.with_threads(1))


@settings(max_examples=200, deadline=None)
@given(problems(largest=3000, work=10**9))
def test_what_is_chosen_is_the_cheapest_of_its_table(problem):
    for threads in 1, 2:
        check_choice(problem.with_threads(1), threads)


def test_a_copy_for_threads_is_another_problem_with_the_same_extents():
    problem = next(iter(CASES.values()))
    copy = problem.with_threads(3)
    assert copy.threads == 3 and copy != problem and copy.out == problem.out
    assert copy == problem.replace(threads=3) and hash(copy) == hash(problem.replace(threads=3))
    assert copy.with_threads(problem.threads) == problem and hash(copy.with_threads(problem.threads)) == hash(problem)


def test_candidates_are_asked_only_when_somebody_looks(monkeypatch):
    problem = CASES["signal-plain"].replace(size=(4001,))
    asked = []
    for algorithm in ALGORITHMS:
        monkeypatch.setattr(algorithm, "cost",
                            lambda p, m, name=algorithm.NAME, cost=algorithm.cost: asked.append(name) or cost(p, m))
    decision = choice.decide(problem)
    few = set(asked)
    assert decision.algorithm.NAME in few and len(decision.candidates) == len(registry.names())
    assert few < set(asked)


@pytest.mark.parametrize("method", ["auto", "direct", "im2col", "fft"])
def test_a_tiny_problem_takes_one_thread(method):
    call = lower(nconv.conv2d, nconv.ArraySpec((1, 4, 5, 5)), nconv.ArraySpec((4, 4, 3, 3)), method=method)
    with limited(2):
        assert choice.decide(call.route.problem, method).problem.threads == 1
