"""From a call to its result: prepare the weight, run the algorithm that was chosen, deliver the output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from . import registry, shortcuts
from .choice import Decision, decide, decide_call, decide_for, depends_on_weight, is_outer
from .geometry import product
from .lowering import Call, Route, check_out
from .phases import at_once, phases, phases_for, takes_whole
from .problem import ConvProblem


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
           run: Callable[[Call], Any] | None = None, at_once: Callable[[], Any] = lambda: None) -> Any:
    """The result of a public function: by the shortcut of an earlier call of its kind, else by lowering this one.

    `arrays` are its input, its weight and, where it takes one, its bias; `options` are its name and all else on which
    the result depends; `run` is `execute` unless the family has something to add; `at_once` gives the result of a
    small call whose like was not seen, or None.
    """
    key = shortcuts.signature(arrays, options, out)
    shortcut = shortcuts.find(key)
    result = shortcut(*arrays, out=out) if shortcut is not None else at_once()
    if result is not None:
        if shortcut is None:
            shortcuts.leave(key, options, lambda: None)
        return result
    call = lower()
    result = (run or execute)(call)
    if call.instead is None:                            # this call's values say nothing of its kind
        shortcuts.leave(key, options, lambda: known_way(call, decide_call(call)))
    return result


def known_way(call: Call, decision: Decision) -> shortcuts.Shortcut | None:
    """The algorithm's shortcut for calls like this one, or at least one past lowering and choice."""
    route, method = call.route, call.method             # not the call, which would keep its arrays
    if not depends_on_weight(call):
        return _known_algorithm(call, decision)
    usual = None if method == "separable" else _known_algorithm(call, decide(route.problem, method))
    swapped = call.swapped

    def run(x, weight, bias, out):
        result = None
        if usual is not None and not is_outer(route, weight):
            result = usual(*((weight, x) if swapped else (x, weight)), bias, out)
        return _run(route, decide_for(route, weight, method), x, weight, bias, out) if result is None else result

    return shortcuts.past_the_choice(call, run)


def _known_algorithm(call: Call, decision: Decision) -> shortcuts.Shortcut | None:
    """The same where the decision holds for every call like this one."""
    general = shortcuts.past_the_choice(call, _straight(call.route, decision))
    return shortcut_of(call, decision, general) or general


def _straight(route: Route, decision: Decision) -> Callable[..., Any]:
    """`_run` for arrays of the problem's own type on the CPU, with all settled that does not depend on them."""
    problem, algorithm = decision.problem, decision.algorithm
    if phases_for(algorithm, problem)[0].problem != problem:
        return partial(_run, route, decision)
    allocate = registry.arrays(problem.device).allocate
    whole = takes_whole(algorithm)

    def run(x, weight, bias, out):
        if out is not None:
            return _run(route, decision, x, weight, bias, out)
        weight = route.weigh(weight)
        prepared = algorithm.prepare(problem, weight if whole else np.ascontiguousarray(weight))
        result = allocate(problem)
        algorithm.run(problem, prepared, route.enter(x), bias, result)
        return route.leave(result)

    return run


def shortcut_of(call: Call, decision: Decision, otherwise: shortcuts.Shortcut | None = None,
                prepared: Any = None) -> shortcuts.Shortcut | None:
    """The shortcut for calls like this one, where there can be one."""
    if decision.problem.separable and prepared is None:      # holds for this weight, not for calls of this kind
        return None
    allocate = registry.arrays(decision.problem.device).allocate
    return shortcuts.shortcut(call, decision.problem, decision.algorithm, allocate, otherwise, prepared)


def repeated(call: Call, decision: Decision) -> Callable[[], Any]:
    """A function that runs a call as one whose like was seen before, by the algorithm of `decision`."""
    known = _known_algorithm(call, decision)
    arrays = (call.weight, call.x) if call.swapped else (call.x, call.weight)

    def run():
        result = None if known is None else known(*arrays, call.bias)
        return _run(call.route, decision, call.x, call.weight, call.bias, None) if result is None else result

    return run


def execute(call: Call) -> np.ndarray:
    """Run a call: the one way from every public function to a kernel."""
    route = call.route
    check_out(call.out, route.shape, route.dtype, like=call.x)
    if call.instead is not None:
        return call.instead(call)
    decision = decide_call(call)                      # a wrong method is refused for empty outputs too
    if product(route.shape) == 0:
        return empty_result(call)
    return _run(route, decision, call.x, call.weight, call.bias, call.out)


def _run(route: Route, decision: Decision, x: Any, weight: Any, bias: Any, out: Any) -> Any:
    prepared, bias = prepare(decision, route, weight, bias)
    return finish(route, decision.problem, decision.algorithm, prepared, x, bias, out)


def empty_result(call: Call) -> Any:
    """The result where there is nothing to add up: zeros, or no element at all."""
    route = call.route
    arrays = registry.arrays(route.problem.device)
    result = arrays.zeros(route.shape, route.dtype, call.x)
    if call.out is None:
        return arrays.deliver(result, call.x)
    arrays.assign(call.out, result)
    return call.out


def prepare(decision: Decision, route: Route, weight: Any, bias: Any) -> tuple[tuple, Any]:
    """(the packed weight of each phase, the bias)."""
    problem = decision.problem
    arrays = registry.arrays(problem.device)
    weight = arrays.widen(route.weigh(weight), problem)
    algorithm = decision.algorithm
    plain = phases_for(algorithm, problem)[0].problem == problem       # then it keeps what it makes of weights itself
    make = _prepare_phases if plain else arrays.kept(_prepare_phases)
    prepared = make(problem, weight, algorithm) if product(problem.out_shape) else ()
    return prepared, arrays.widen(bias, problem)


def _prepare_phases(problem: ConvProblem, weight: Any, algorithm: ModuleType) -> tuple:
    if takes_whole(algorithm):
        return (algorithm.prepare(problem, weight),)
    arrays = registry.arrays(problem.device)
    return tuple(phase.problem and algorithm.prepare(phase.problem, arrays.weight_of(problem, phase, weight))
                 for phase in phases(problem))


def finish(route: Route, problem: ConvProblem, algorithm, prepared, x, bias, out) -> Any:
    """The result of a prepared call in the caller's kind and axes, or `out`, which takes it."""
    arrays = registry.arrays(problem.device)
    check_out(out, route.shape, route.dtype, like=x)
    entered = arrays.widen(route.enter(x), problem)
    lent = None
    if out is not None and route.dtype == problem.engine:
        lent = arrays.lend(out, problem, route.leave, (entered, bias, *prepared))
    result = arrays.allocate(problem, x) if lent is None else lent
    if result.size:
        _run_phases(arrays, algorithm, problem, prepared, entered, bias, result)
    if lent is not None:
        return out
    result = arrays.narrow(route.leave(result), route.dtype, route.cast)
    if out is None:
        return arrays.deliver(result, x)
    arrays.assign(out, result)
    return out


def _run_phases(arrays, algorithm, problem, prepared, x, bias, result) -> None:
    parts = phases_for(algorithm, problem)
    if parts[0].problem == problem:
        algorithm.run(problem, prepared[0], x, bias, result)
    elif at_once(parts):
        _run_at_once(arrays, algorithm, problem, parts, prepared, x, bias, result)
    else:
        for part, packed in zip(parts, prepared, strict=True):
            places = part.blocks[0].places
            if part.problem is None:
                result[places] = 0 if bias is None else bias.reshape(-1, *(1,) * problem.rank)
                continue
            with arrays.part_target(part.problem, result, places) as y:
                algorithm.run(part.problem, packed, x, bias, y)
                result[places] = y


def _run_at_once(arrays, algorithm, problem, parts, prepared, x, bias, result) -> None:
    """Run all phases, one behind the other in memory, and bring the blocks of all to their places."""
    if bias is not None:
        bias = np.repeat(bias.reshape(problem.groups, 1, problem.K), len(parts[0].blocks), 1).reshape(-1)
    with arrays.phase_targets(parts[0].problem, len(parts)) as y:
        for n, (part, packed) in enumerate(zip(parts, prepared, strict=True)):
            algorithm.run(part.problem, packed, x, bias, y[n * problem.N:(n + 1) * problem.N])
        arrays.place_blocks(problem, y, result)
