"""Timing in one run, in turn, after the results were compared; records, tables, files."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import nconv

from .. import planner, threads
from ..cpu import kept
from ..machine import processor, vector_bytes
from .cases import Case
from .rivals import RIVALS, Run, prepare

_BUDGET = 0.6                    # seconds for each function of one case
_SHORT = 2e-3                    # seconds of a function that runs as it does in a user's loop: after itself
AUTO = "auto"                    # nconv by its own choice, among the seconds of a record


def median_seconds(*functions: Callable[[], Any], rounds: int | None = None, budget: float = _BUDGET) -> list[float]:
    """Median time of each function; they run in turn, after one round that does not count.

    A short function runs twice each time, and the second run counts: after another function it would meet caches that
    hold the other's code and data, which can double its time, while users call it in loops. Without `rounds`, there are
    as many as the budget of seconds for each function allows, from 3 to 200.
    """
    first = []
    for function in functions:
        function()                                     # compiles, plans, fills caches
        start = time.perf_counter()
        function()
        first.append(time.perf_counter() - start)
    if rounds is None:
        rounds = int(min(max(budget * len(functions) / max(sum(first), 1e-9), 3), 200))
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken, once in zip(functions, times, first, strict=True):
            if once < _SHORT:
                function()
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [float(np.median(taken)) for taken in times]


def _difference(result, expected) -> float:
    """Largest difference, relative to the largest value."""
    expected = np.asarray(expected)
    return float(np.abs(np.asarray(result) - expected).max() / np.abs(expected).max())


def _methods(case: Case, x, weight) -> dict[str, Run]:
    """nconv's forced methods on a case; gradients and image filters have no `method`."""
    if "." in case.function:
        return {}
    plan = planner.plan(getattr(nconv, case.function), x, weight, **case.options)
    return {c.name: partial(case.ours, x, weight, method=c.name) for c in plan.candidates if not c.refused}


def record(case: Case, dtype: str, methods: bool = False) -> dict[str, Any]:
    """Seconds of nconv (`methods`: of every method) and of every rival on one case, with its multiplications and bytes.

    Raises
    ------
    AssertionError
        If a result differs from nconv's by more than rounding: what differs is not timed.
    """
    kept.forget()                                      # each case as if alone: others' weights may fill the memory
    x, weight = case.arrays(dtype)
    runs: dict[str, Run] = {AUTO: lambda: case.ours(x, weight)}
    runs |= _methods(case, x, weight) if methods else {}
    runs |= {name: run for name in RIVALS if (run := prepare(name, case, x, weight))}
    expected = runs[AUTO]()
    tolerance = 1e-3 if np.finfo(dtype).eps > 1e-10 else 1e-10
    for name, run in runs.items():
        difference = _difference(run(), expected)
        assert difference < tolerance, f"{name} differs by {difference:.1e} on {case.name}, {dtype}"
    macs = case.macs(x, weight)
    moved = sum(array.nbytes for array in (x, weight, np.asarray(expected)))
    seconds = dict(zip(runs, median_seconds(*runs.values()), strict=True))
    theirs = {name: seconds[name] for name in RIVALS if name in seconds}
    best = min(theirs, key=theirs.__getitem__) if theirs else None
    return {"family": case.family, "name": case.name, "dtype": dtype, "macs": macs, "bytes": moved,
            "seconds": seconds, "best_rival": best, "ratio": theirs[best] / seconds[AUTO] if best else None}


def geometric_mean(values: Iterable[float]) -> float:
    """Mean of ratios."""
    return float(np.exp(np.mean(np.log(list(values)))))


def titled(title: str) -> str:
    """The title of a page of figures, of which there may be one for each kind of machine."""
    return f"{title}, vectors of {8 * vector_bytes()} bits"


def environment() -> dict[str, str]:
    """Machine and versions that belong to every figure."""
    versions = {}
    for package in ("nconv", "numba", "numpy", "scipy", "torch", "opencv-python-headless"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"processor": processor(), "threads": str(threads.get_num_threads()),
            "Python": platform.python_version(), **versions}


def write_json(path: str, records: list[dict]) -> None:
    """All figures in one file."""
    Path(path).write_text(json.dumps({"environment": environment(), "records": records}, indent=1) + "\n")


def write_rst(path: str, title: str, command: str, records: list[dict], plots: Sequence[str] = ()) -> None:
    """The figures as a page of the documentation, with pictures from the same folder."""
    lines = [title, "=" * len(title), "", f"``{command}``", "",
             ", ".join(f"{name} {value}" for name, value in environment().items()) + ".", "",
             "Ratio: time of the fastest rival over nconv's; above 1, nconv is faster.", "",
             *(line for plot in plots for line in (
                 f".. image:: {Path(plot).name}", "   :alt: the figures of the table below", "")),
             ".. list-table::",
             "   :header-rows: 1", "", "   * - problem", "     - dtype", "     - nconv [ms]", "     - fastest rival",
             "     - its time [ms]", "     - ratio"]
    for family in dict.fromkeys(r["family"] for r in records):
        mine = [r for r in records if r["family"] == family]
        for r in mine:
            best = r["best_rival"]
            cells = [f"{family}: {r['name']}", r["dtype"], f"{r['seconds'][AUTO] * 1e3:.3g}", best or "none",
                     f"{r['seconds'][best] * 1e3:.3g}" if best else "-", f"{r['ratio']:.2f}" if best else "-"]
            lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(cells)]
        ratios = [r["ratio"] for r in mine if r["ratio"]]
        if ratios:
            mean = f"     - **{geometric_mean(ratios):.2f}**"
            lines += [f"   * - **{family}, geometric mean**", *["     -"] * 4, mean]
    Path(path).write_text("\n".join(lines) + "\n")
