"""The rates with which the cost models err least on measured times: how the defaults in `machine.py` are found.

A probe of `nconv.calibrate` shows one rate on one problem in a few seconds. Here hundreds of problems of all families
are weighed together, which takes minutes, once for a family of processors:
``python -m nconv.bench.regret --seed 1 --count 400 --json times.json --fit``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import registry
from ..machine import Machine, machine
from ..problem import ConvProblem

_CLOSE = 0.3                   # errors of logarithms beyond which a time counts by its distance, not by the square
_SWEEPS = 4


def fit(records: list[dict[str, Any]], described: Callable[[dict], ConvProblem]) -> dict[str, float]:
    """Rates, as `Machine.rates` names them, that bring the estimates closest to the times of `regret.measure`.

    Each problem weighs the same, and a method the more the nearer its time is to the best one's: far from it the
    estimate decides nothing. A rate that no time depends on stays as it is.
    """
    samples = [sample for record in records for sample in _samples(record, described(record))]
    found = machine()
    for step in np.geomspace(1.3, 1.03, _SWEEPS):
        for rate in found.rates():
            found = _better(found, rate, float(step), samples)
    return found.rates()


def _samples(record: dict[str, Any], problem: ConvProblem) -> list[tuple]:
    """(weight, seconds, algorithm, the problem on one thread and on all) of each method."""
    best = min(record["seconds"].values())
    shared = problem.with_threads(record["threads"])
    return [((best / seconds) ** 2, seconds, algorithm, problem, shared) for algorithm in registry.algorithms()
            if (seconds := record["seconds"].get(algorithm.NAME))]


def _error(rates: Machine, samples: list[tuple]) -> float:
    """Weighted sum of the errors of the logarithms, as Huber counts them."""
    total = 0.0
    for weight, seconds, algorithm, serial, shared in samples:
        off = abs(np.log(min(algorithm.cost(serial, rates), algorithm.cost(shared, rates)) / seconds))
        total += weight * (off**2 / 2 if off < _CLOSE else _CLOSE * (off - _CLOSE / 2))
    return total


def _better(known: Machine, rate: str, step: float, samples: list[tuple]) -> Machine:
    """Rates with this one moved by `step` up or down as long as that lessens the error."""
    error = _error(known, samples)
    for factor in step, 1 / step:
        while True:
            moved = known.with_rates({rate: known.rates()[rate] * factor})
            other = _error(moved, samples)
            if other >= error:
                break
            known, error = moved, other
    return known
