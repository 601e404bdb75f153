"""The rates with which the cost models err least on measured times: how the defaults in `machine.py` are found.

A probe of `nconv.calibrate` scales an algorithm's rates on one problem in a second. Here hundreds of problems of all
families are weighed together, once for a family of processors:
``python -m nconv.bench.regret --seed 1 --count 400 --json times.json --fit``.

A cost is a sum of counts times rates, so this is a problem of least squares, with rates that are not negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import choice, registry, threads
from ..machine import Machine, machine
from ..problem import ConvProblem

_CLOSE = 0.15                  # relative errors beyond which a time counts by its distance, not by the square
_ROUNDS = 20
_FAITH = 0.1                   # in a rate as it is, beside what one time at the best method's says


def fit(records: list[dict[str, Any]], described: Callable[[dict], ConvProblem]) -> dict[str, float]:
    """Rates, as `Machine.rates` names them, that bring the estimates closest to the times of `regret.measure`.

    Errors are relative. Each problem weighs the same, and a method the more the nearer its time is to the best one's:
    far from it the estimate decides nothing. A rate that no time depends on stays as it is; the memory's is the
    machine's own.
    """
    from scipy.optimize import nnls

    known = machine()
    samples = list(_samples(records, described, known))
    names = sorted({name for counts, _, _ in samples for name in counts})
    counted = np.array([[counts.get(name, 0) for name in names] for counts, _, _ in samples], float)
    seconds = np.array([s - counts.get("byte", 0) / known.bandwidth for counts, s, _ in samples])
    importance = np.array([near for _, _, near in samples])
    before = np.array([known.price(name) for name in names])
    counted[:, names.index("byte")] = 0
    weights = importance
    for _ in range(_ROUNDS):
        scale = weights / seconds
        found, _ = nnls(np.vstack([counted * before * scale[:, None], _FAITH * np.eye(len(names))]),
                        np.concatenate([seconds * scale, np.full(len(names), _FAITH)]))
        errors = np.abs(counted @ (before * found) / seconds - 1)
        weights = importance * np.sqrt(np.minimum(1, _CLOSE / np.maximum(errors, _CLOSE)))
    return {_rate_of(name): value for name, value in zip(names, before * found, strict=True) if name != "byte"}


def _samples(records: list[dict[str, Any]], described: Callable[[dict], ConvProblem],
             known: Machine) -> Iterator[tuple[dict[str, float], float, float]]:
    """(counts, seconds, best method's seconds over these) of each method."""
    for record in records:
        best = min(record["seconds"].values())
        for algorithm in registry.algorithms():
            if seconds := record["seconds"].get(algorithm.NAME):
                with threads.limited(record["threads"]):
                    problem = choice.decide(described(record), algorithm.NAME).problem
                yield algorithm.counts(problem, known), seconds, best / seconds


def _rate_of(name: str) -> str:
    return {"call": "call", "start": "parallel_start"}.get(name, f"work.{name}")
