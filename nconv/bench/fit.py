"""The rates with which the cost models err least on measured times: how the defaults in `machine.py` are found.

A probe of `nconv.calibrate` scales an algorithm's rates on one problem in a second. Here hundreds of problems of all
families are weighed together, once for a family of processors:
``python -m nconv.bench.regret --seed 1 --count 400 --json times.json --fit``.

A cost is a sum of counts times rates, so this is a problem of least squares, with rates that stay positive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import choice, registry, threads
from ..machine import Machine, machine
from ..problem import ConvProblem

_CLOSE = 0.15                  # relative errors beyond which a time counts by its distance, not by the square
_ROUNDS = 20
_LEAST = 0.3                   # of a rate as it is: what drawn problems have little of, larger ones may be made of
_SETTLED = "byte", "start"     # whose prices stand
_FAITH = 0.1                   # in a rate as it is, beside what one time at the best method's says


def fit(records: list[dict[str, Any]], described: Callable[[dict], ConvProblem]) -> dict[str, float]:
    """Rates, as `Machine.rates` names them, that bring the estimates closest to the times of `regret.measure`.

    Errors are relative. Each problem weighs the same, and a method the more the nearer its time is to the best one's:
    far from it the estimate decides nothing. The methods of a problem ran in turn, so what slowed all of them down was
    the machine: each problem has such a factor. A rate that no time depends on stays as it is, as do the memory's,
    which is the machine's own, and that of starting threads: in loops, where times are measured, they are still awake.
    """
    from scipy.optimize import lsq_linear

    known = machine()
    samples = list(_samples(records, described, known))
    names = sorted({name for sample in samples for name in sample.counts})
    counted = np.array([[sample.counts.get(name, 0) for name in names] for sample in samples], float)
    settled = np.array([[name in _SETTLED for name in names]])
    importance = np.array([sample.near for sample in samples])
    record = np.array([sample.record for sample in samples])
    before = np.array([known.price(name) for name in names])
    times = np.array([sample.seconds for sample in samples])
    measured = np.maximum(times - np.where(settled, counted, 0) @ before, _LEAST * times)
    counted = np.where(settled, 0, counted)
    weights, seconds = importance, measured
    for _ in range(_ROUNDS):
        scale = weights / seconds
        found = lsq_linear(np.vstack([counted * before * scale[:, None], _FAITH * np.eye(len(names))]),
                           np.concatenate([seconds * scale, np.full(len(names), _FAITH)]), (_LEAST, np.inf)).x
        estimates = counted @ (before * found)
        slower = np.bincount(record, importance * np.log(measured / estimates)) / np.bincount(record, importance)
        seconds = measured / np.exp(slower - np.median(slower))[record]
        errors = np.abs(estimates / seconds - 1)
        weights = importance * np.sqrt(np.minimum(1, _CLOSE / np.maximum(errors, _CLOSE)))
    return {"call" if name == "call" else f"work.{name}": value
            for name, value in zip(names, before * found, strict=True) if name not in _SETTLED}


class _Sample(NamedTuple):
    """One method on one problem."""

    record: int                # number of the problem
    counts: dict[str, float]
    seconds: float
    near: float                # the best method's seconds over these


def _samples(records: list[dict[str, Any]], described: Callable[[dict], ConvProblem],
             known: Machine) -> Iterator[_Sample]:
    for number, record in enumerate(records):
        best = min(record["seconds"].values())
        for algorithm in registry.algorithms():
            if seconds := record["seconds"].get(algorithm.NAME):
                with threads.limited(record["threads"]):
                    problem = choice.decide(described(record), algorithm.NAME).problem
                yield _Sample(number, algorithm.counts(problem, known), seconds, best / seconds)
