"""The rates of this machine, measured in a few seconds: each is the one with which a model predicts its probe's time.

An algorithm's cost has many terms; a probe is a problem in which one of them outweighs the others. So nothing has to be
known here of what an algorithm counts, and a model that was changed is calibrated by the same probes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import date
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from . import choice, engine, machine, registry, threads
from .cpu import kept
from .lowering import Call, Route
from .machine import Gpu, Machine
from .problem import ConvProblem

_SECONDS = 0.15                # for each probe, once it is compiled
_PASSES = 3                    # over all rates, because each model holds several
_REACH = 3.0                   # a rate lies within this factor of its family's: a busy machine must not mislead
_COPIED = {"cpu": 1 << 26, "cuda": 1 << 29}       # bytes, more than any cache holds


class Probe(NamedTuple):
    """A rate, or a part of a table of them, and the problem of an algorithm that shows by how much they differ here."""

    rate: str
    algorithm: str
    problem: ConvProblem
    parallel: bool = False


def _signal(n: int, taps: int, **options: Any) -> ConvProblem:
    return ConvProblem(N=1, groups=1, C=1, K=1, size=(n,), kernel=(taps,), stride=(1,), dilation=(1,),
                       padding=((taps // 2, taps // 2),), dtype=np.dtype("f4"), **options)


def _square(n: int, window: int, C: int = 1, K: int = 1, dtype: str = "f4", **options: Any) -> ConvProblem:
    return ConvProblem(N=1, groups=1, C=C, K=K, size=(n, n), kernel=(window, window), stride=(1, 1), dilation=(1, 1),
                       padding=((window // 2, window // 2),) * 2, dtype=np.dtype(dtype), **options)


def _volume(n: int, window: int, **options: Any) -> ConvProblem:
    return ConvProblem(N=1, groups=1, C=1, K=1, size=(n,) * 3, kernel=(window,) * 3, stride=(1,) * 3, dilation=(1,) * 3,
                       padding=((window // 2, window // 2),) * 3, dtype=np.dtype("f4"), **options)


PROBES = {"cpu": (
    Probe("call", "direct", _signal(64, 3)),
    Probe("work", "small", _signal(8_000, 31)),
    Probe("work", "direct", _square(28, 3, 64, 64)),
    Probe("work", "direct", _square(256, 15)),
    Probe("work", "direct", _signal(20_000, 101)),
    Probe("work", "im2col", _square(28, 3, 64, 64)),
    Probe("work", "winograd", _square(56, 3, 64, 64)),
    Probe("work", "fft", _signal(200_000, 501)),
    Probe("parallel_start", "direct", _signal(16_000, 9), parallel=True),
), "cuda": (
    Probe("launch", "direct", _signal(64, 3, device="cuda")),
    Probe("efficiency.direct", "direct", _square(224, 3, 64, 64, device="cuda")),
    Probe("efficiency.direct_tile", "direct", _square(4096, 15, device="cuda")),
    Probe("efficiency.im2col", "im2col", _square(224, 3, 128, 128, device="cuda")),
    Probe("efficiency.im2col_tf32", "im2col", _square(224, 3, 256, 256, device="cuda", tf32=True)),
    Probe("efficiency.im2col_half", "im2col", _square(224, 3, 256, 256, "f2", device="cuda")),
    Probe("efficiency.fft", "fft", _volume(192, 7, device="cuda")),
)}
"""In the order in which the rates are found; the bandwidth is a plain copy's.

The work of all algorithms of the CPU has one pace, the mean of its probes': a single problem says less of the rates of
one algorithm beside another's than `bench.fit` has seen on hundreds (a pace for each made a regret of 1.08 from 1.01).
"""


def calibrate(device: str = "cpu", track: Callable[[Iterable[Probe]], Iterable[Probe]] = iter) -> Machine | Gpu:
    """Measure this machine, or its GPU, remember the rates and choose by them from now on.

    Parameters
    ----------
    device : {'cpu', 'cuda'}
    track : callable, optional
        Gets the probes and gives them one by one: for a progress bar.

    Returns
    -------
    Machine or Gpu

    Raises
    ------
    DeviceError
        Where no GPU can be used.
    """
    registry.arrays(device).check_usable()
    algorithms = {algorithm.NAME: algorithm for algorithm in registry.algorithms(device)}
    found = machine.machine(device).with_rates({"bandwidth": _bandwidth(device)}, measured=date.today().isoformat())
    measured = []
    for probe in track(PROBES[device]):
        count = threads.get_num_threads() if probe.parallel else 1
        if count > 1 or not probe.parallel:
            problem = probe.problem.replace(threads=count)
            algorithm = algorithms[probe.algorithm]
            measured.append((probe.rate, algorithm, problem, _time(algorithm, problem)))
    family = machine.family(device).rates()
    for _ in range(_PASSES):
        for rate in dict.fromkeys(rate for rate, *_ in measured):
            plain = found.with_rates({name: value for name, value in family.items()
                                      if f"{name}.".startswith(f"{rate}.")})
            factors = [_factor(plain, *probe) for probe in measured if probe[0] == rate]
            found = plain.scaled(rate, float(np.exp(np.mean(np.log(factors)))))
    machine.remember(found)
    choice.forget_choices()
    return found


def _time(algorithm: ModuleType, problem: ConvProblem) -> float:
    """Least seconds of a call, the mean of as many as bring one new weight: what disturbs them only adds to it."""
    rng = np.random.default_rng(0)
    arrays = registry.arrays(problem.device)
    x = arrays.from_host(rng.standard_normal(problem.x_shape).astype(problem.dtype))
    weight = arrays.from_host(np.ones(problem.weight_shape, problem.dtype))  # an outer product; times know no values
    calls = 1
    if problem.device == "cpu":                                  # as a user's calls, which these models count
        calls = round(1 / kept.NEW)

        def same(array):
            return array

        route = Route(problem, same, same, same, problem.out_shape, problem.dtype)
        call = Call(route, x, weight, method=algorithm.NAME)
        known = engine.known_way(call, choice.Decision(problem, algorithm, 0.0, tuple))

        def run():
            kept.forget()
            for _ in range(calls):
                known(x, weight) if known else engine.run_algorithm(algorithm, problem, x, weight)
    else:
        prepared, out = algorithm.prepare(problem, weight), arrays.allocate(problem, x)

        def run():
            algorithm.run(problem, prepared, x, None, out)
            arrays.synchronize()
    run()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 200):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) / calls)
    return min(times)


def _bandwidth(device: str) -> float:
    """Bytes read and written per second by a copy that leaves the cache."""
    arrays = registry.arrays(device)
    source = arrays.from_host(np.ones(_COPIED[device] // 8))
    target = arrays.zeros(source.shape, source.dtype, None)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        arrays.assign(target, source)
        arrays.synchronize()
        times.append(time.perf_counter() - start)
    return _near(2 * _COPIED[device] / min(times), machine.family(device).bandwidth)


def _near(value: float, family: float) -> float:
    return min(max(value, family / _REACH), family * _REACH)


def _factor(known: Any, rate: str, algorithm: Any, problem: ConvProblem, seconds: float) -> float:
    """By how much a rate must differ for the model to predict `seconds`, by bisection of its logarithm."""
    def predicted(factor):
        return algorithm.cost(problem, known.scaled(rate, factor))

    low, high = 1 / _REACH, _REACH
    if abs(predicted(high) / predicted(low) - 1) < 0.05:       # this model does not ask for this rate any more
        return 1.0
    rises = predicted(high) > predicted(low)
    for _ in range(30):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if (predicted(middle) < seconds) == rises else (low, middle)
    return float(np.sqrt(low * high))
