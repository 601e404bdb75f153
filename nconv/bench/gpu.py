"""Everything that a GPU has to prove, in one command: ``python -m nconv.bench.gpu`` (`make gpu`).

Runs every kernel against float64 results of NumPy over a grid and over drawn problems, the public functions on arrays
of every library at hand, then a race against the rivals that are installed, then compute-sanitizer where the machine
has it; prints tables and writes everything to ``docs/results/gpu-<name>.json``, anew after every row. Needs numba-cuda,
NumPy and SciPy; PyTorch and CuPy are measured where they are. Rows run in a process of their own: one that ends, hangs
or loses its GPU costs a row, and the next one runs in a new process. The exit status is 1 where any result is wrong or
any row failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

if not hasattr(np, "row_stack"):       # numba-cuda 0.30 looks for it, NumPy 2.5 has it no more
    np.row_stack = np.vstack  # noqa: NPY201

from .. import engine, registry
from ..boundary import FILL, MODES
from ..cuda.device import SIMULATED, check_usable, cuda
from ..problem import ConvProblem
from . import gpu_calls, gpu_rivals
from .isolated import Crew, Worker

SECONDS = 440                          # after which nothing new is begun, unless the command says otherwise
LAST_SECONDS = 20                      # that what was begun may take then: the whole stays below 8 minutes
DRAWS_SHARE = 0.45                     # of them, after which no problem at random is begun: the race needs time, too
RACE_SHARE = 0.78                      # after which no contest is begun: the rest is compute-sanitizer's
ROW_SECONDS = 60                       # that a row may take, a new process and what it compiles included
SANITIZED = ("signal f4", "image f4", "layer f4", "layer f2", "depthwise f4")
ALGORITHMS = ("direct", "im2col", "fft")
PROCESSES = 1 if SIMULATED else max(1, min(8, (os.cpu_count() or 1) // 2))     # mostly they compile, each for itself
MODULE = "nconv.bench.gpu"             # whatever this file is run as


# -------------------------------------------------------------------------------------------------- Problems


def _problem(size, kernel, N=1, groups=1, C=1, K=1, dtype="f4", stride=1, dilation=1, pad=None, **options):
    rank = len(size)
    low = tuple((k * dilation // 2, k * dilation // 2) for k in kernel) if pad is None else ((pad, pad),) * rank
    return ConvProblem(N=N, groups=groups, C=C, K=K, size=size, kernel=kernel, stride=(stride,) * rank,
                       dilation=(dilation,) * rank, padding=low, dtype=np.dtype(dtype), device="cuda", **options)


def grid() -> Iterator[tuple[str, ConvProblem]]:
    """Named problems: every kind of window, type, boundary and layout; sizes around the tiles' edges.

    The kinds of window come first, the variants after them: a command that is cut short has met every kernel.
    """
    small = 8 if SIMULATED else 1
    bases: dict[str, dict[str, Any]] = {
        "signal": dict(size=(5000 // small ** 2,), kernel=(31,)),
        "image": dict(size=(129 // small, 131 // small), kernel=(7, 5)),
        "volume": dict(size=(17 // small + 3, 18 // small + 3, 19 // small + 3), kernel=(3, 3, 3)),
        "layer": dict(N=2, C=19 // small + 1, K=130 // small, size=(33 // small, 31 // small), kernel=(3, 3)),
        "depthwise": dict(groups=9 // small + 1, size=(65 // small, 67 // small), kernel=(5, 5)),
        "pointwise": dict(N=2, C=64 // small, K=72 // small, size=(30 // small, 30 // small), kernel=(1, 1)),
        "four axes": dict(size=(5, 4, 6, 7), kernel=(2, 3, 2, 3)),
    }

    def of_all(label, **options):
        for name, base in bases.items():
            yield f"{name} {label}", _problem(**base, **options)

    for dtype in ("f4", "f2"):
        yield from of_all(dtype, dtype=dtype)
    if not SIMULATED:
        yield "large layer", _problem((56, 56), (3, 3), N=4, C=64, K=64)
        yield "large layer f2", _problem((56, 56), (3, 3), N=4, C=64, K=130, dtype="f2")
        yield "layer tf32", _problem((56, 56), (3, 3), N=4, C=64, K=64, tf32=True)
        yield "wide window", _problem((300, 310), (101, 101))
        yield "long window", _problem((70_000,), (20_000,))
    for dtype in ("f8", "c8", "i4", "c16", "i8", "i1"):
        yield from of_all(dtype, dtype=dtype)
    yield from of_all("stride", stride=2)
    yield from of_all("dilation", dilation=2)
    yield from of_all("channels last", channels_last=True)
    for mode in MODES[1:]:
        for name, base in bases.items():
            yield f"{name} {mode}", _problem(**base, boundary=(mode,) * len(base["size"]))


def drawn(count: int, seed: int = 0) -> Iterator[tuple[str, ConvProblem]]:
    """Problems at random, the same for the same seed."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        rank = int(rng.integers(1, 4))
        most = (400, 40, 12)[rank - 1] // (4 if SIMULATED else 1)
        kernel = tuple(int(rng.integers(1, (40, 8, 4)[rank - 1] // (2 if SIMULATED else 1))) for _ in range(rank))
        dilation = int(rng.integers(1, 3))
        size = tuple(int(rng.integers(1, most)) for _ in range(rank))
        pads = tuple((int(rng.integers(0, 3)) + k * dilation // 2, k * dilation) for k in kernel)
        yield f"drawn {i}", ConvProblem(
            N=int(rng.integers(1, 3)), groups=int(rng.integers(1, 3)), C=int(rng.integers(1, 6)),
            K=int(rng.integers(1, 9)), size=size, kernel=kernel, stride=(int(rng.integers(1, 3)),) * rank,
            dilation=(dilation,) * rank, padding=pads, dtype=np.dtype(str(rng.choice(["f4", "f8", "c8", "i4"]))),
            boundary=tuple(str(rng.choice(MODES)) for _ in range(rank)), fill=int(rng.integers(-2, 3)), device="cuda")


def operands(problem: ConvProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, weight, bias) in the problem's own type."""
    rng = np.random.default_rng(1)

    def draw(shape):
        if problem.dtype.kind in "iu":
            return rng.integers(-5, 5, shape).astype(problem.dtype)
        values = rng.standard_normal(shape)
        return (values + 1j * rng.standard_normal(shape) if problem.dtype.kind == "c" else values).astype(problem.dtype)

    return draw(problem.x_shape), draw(problem.weight_shape), draw((problem.groups * problem.K,))


def expected(problem: ConvProblem, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The definition in float64 (or whole numbers): for each tap, one product of matrices over the channels."""
    p = problem
    wide = {"f": np.float64, "c": np.complex128}.get(p.dtype.kind, np.int64)
    padded: np.ndarray = x.astype(wide)
    outside: Any = False
    for a, m in enumerate(p.index_maps()):
        padded = np.take(padded, np.where(m == FILL, 0, m), axis=2 + a)
        outside = outside | (m == FILL).reshape(-1, *(1,) * (p.rank - 1 - a))
    padded = np.where(outside, wide(p.fill), padded)
    factor: np.ndarray = weight.astype(wide).reshape(p.groups, p.K, p.C, *p.kernel)
    result: np.ndarray = np.zeros((p.N, p.groups, p.K, p.positions), wide)
    for tap in np.ndindex(*p.kernel):
        places = (slice(t * d, t * d + (o - 1) * s + 1, s)
                  for t, d, o, s in zip(tap, p.dilation, p.out, p.stride, strict=True))
        seen = padded[(slice(None), slice(None), *places)]
        result += factor[(slice(None), slice(None), slice(None), *tap)] @ seen.reshape(p.N, p.groups, p.C, -1)
    return result.reshape(p.out_shape) + bias.astype(wide).reshape(-1, *(1,) * p.rank)


@lru_cache(maxsize=2)
def solved(problem: ConvProblem) -> tuple[np.ndarray, np.ndarray]:
    """(the definition, the same sums over magnitudes) for the problem's operands; one answer serves every algorithm."""
    arrays = operands(problem)
    plain = problem.replace(dtype=np.dtype("f8"), fill=abs(problem.fill))
    return expected(problem, *arrays), expected(plain, *map(np.abs, arrays))


# --------------------------------------------------------------------------------------------------- Right?


@cache
def problems(draws: int) -> dict[str, ConvProblem]:
    """All of them by name, in the order in which they run."""
    return dict([*grid(), *drawn(draws)])


def verify(draws: int, name: str, method: str) -> dict[str, Any]:
    """Run one algorithm on one problem: its largest error over the bound, or why it did not run."""
    problem = problems(draws)[name]
    algorithm = next(a for a in registry.algorithms("cuda") if method == a.NAME)
    if reason := algorithm.why_not(problem):
        return {"refused": reason}
    x, weight, bias = operands(problem)
    out = engine.run_algorithm(algorithm, problem, x, weight, bias)
    right, magnitude = solved(problem)
    if problem.dtype.kind in "iu":
        error = float(np.any(out != right.astype(problem.dtype))) * 2
    else:
        eps = np.finfo(problem.engine).eps
        allowed = eps * ((2 + min(problem.taps, 512)) * magnitude if method != "fft" else 32 * magnitude.max())
        if problem.dtype.char == "e":
            allowed = allowed + 2.0 ** -11 * abs(right)
        if problem.tf32 and method == "im2col":
            allowed = allowed + 2.0 ** -10 * magnitude
        error = float((abs(out.astype(right.dtype) - right) / (allowed + 1e-300)).max(initial=0))
    return {"error_over_bound": error, "ok": bool(error <= 1)}


# ------------------------------------------------------------------------------ What runs in a process of its own


def answer(what: str, *request: Any) -> dict[str, Any]:
    """One row; see `isolated.Worker`."""
    rows: dict[str, Callable[..., dict[str, Any]]] = {
        "machine": machine_facts, "problem": verify, "call": gpu_calls.verify_call, "peaks": gpu_rivals.peaks,
        "contest": gpu_rivals.contest_row}
    return rows[what](*request)


def healthy() -> bool:
    """Whether the GPU still serves this process: after a bad address it refuses whatever follows."""
    try:
        return bool(cuda.to_device(np.ones(1)).copy_to_host()[0] == 1)
    except Exception:
        return False


def machine_facts() -> dict[str, Any]:
    """The device, the versions that matter and the libraries whose arrays can be tried."""
    versions = {}
    for package in ("nconv", "numba", "numba-cuda", "numpy", "scipy", "torch", "cupy-cuda13x", "cupy-cuda12x"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            pass
    name = "simulator"
    if not SIMULATED:
        name = cuda.get_current_device().name
        name = name.decode() if isinstance(name, bytes) else str(name)
    return {"device": name, "python": platform.python_version(), "versions": versions, "date": str(date.today()),
            "libraries": list(gpu_calls.libraries())}


# ----------------------------------------------------------------------------------------------------- The run


class Run:
    """The command as it goes: its clock, the process that answers, and what is known so far, on disk after every row.

    Parameters
    ----------
    worker : Worker or Crew
        Whom rows are asked of.
    out : str, optional
        Where the results go; by default to docs/results, by the device's name.
    seconds : float, optional
        After which nothing new is begun.
    """

    def __init__(self, worker: Any, out: str | None = None, seconds: float = SECONDS):
        self.worker, self.seconds, self._start = worker, seconds, time.monotonic()
        self._told: set[str] = set()
        facts = self.ask("machine")
        label = "-".join("".join(c if c.isalnum() else " " for c in facts.get("device", "unknown").lower()).split())
        self._path = Path(out or f"docs/results/gpu-{label}.json")
        self.report: dict[str, Any] = {"finished": False, "wrong": int("fault" in facts), **facts, "correctness": []}
        self.save()

    def before(self, share: float) -> bool:
        """Whether the command has not yet spent that share of its seconds."""
        return self.left(share * self.seconds) > 0

    def left(self, seconds: float) -> float:
        """Seconds until the command is so old."""
        return self._start + seconds - time.monotonic()

    def ask(self, *request: Any) -> dict[str, Any]:
        """The answer, within what a row may take and the command has left."""
        return self.worker.ask(*request, limit=max(1.0, min(ROW_SECONDS, self.left(self.seconds + LAST_SECONDS))))

    def add(self, group: str, row: dict[str, Any]) -> None:
        """Take a row into a list of the report; the first fault of each kind keeps where it came from."""
        if not row.get("ok", True):
            self.report["wrong"] += 1
            kind = row.get("fault", "")[:40]
            if kind in self._told:
                row.pop("traceback", None)
            self._told.add(kind)
            if "problem" in row:
                print(f"WRONG {row['algorithm']}, {row['problem']}: {row.get('fault', row)}", flush=True)
        self.report.setdefault(group, []).append(row)
        self.save()

    def save(self) -> None:
        """Write the report in one step, so that it is whole whenever the command is stopped."""
        self.report |= {"seconds": round(-self.left(0), 1), "lost_processes": self.worker.lost}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
        part.replace(self._path)

    def finish(self) -> int:
        """Close the report; the exit status."""
        self.report["finished"] = True
        self.save()
        print(f"{self.report['wrong']} wrong, {self.report['seconds']} s; written to {self._path}")
        return int(bool(self.report["wrong"]))


def correctness(run: Run, methods: tuple[str, ...], draws: int, only: str) -> None:
    """Every algorithm on every problem; prints a line for each algorithm."""
    chosen = [name for name in problems(draws) if any(part in name for part in only.split(","))]

    requests = [(name, method) for name in chosen for method in methods]

    def answer_in_time(request: tuple[str, str]) -> dict[str, Any] | None:
        name, method = request
        if name.startswith("drawn") and not run.before(DRAWS_SHARE):
            return None
        return run.ask("problem", draws, name, method) if run.before(RACE_SHARE) else {
            "ok": False, "fault": "out of time"}

    pool, skipped = ThreadPoolExecutor(PROCESSES), 0
    try:
        for (name, method), row in zip(requests, pool.map(answer_in_time, requests), strict=True):
            if row is None:
                skipped += 1
            else:
                run.add("correctness", {"problem": name, "algorithm": method, **row})
    finally:
        pool.shutdown(wait=False, cancel_futures=True)      # who is being asked ends with the processes
    if skipped:
        print(f"{skipped} rows of problems at random were not begun: time for the race")
    for method in methods:
        mine = [row for row in run.report["correctness"] if row["algorithm"] == method]
        ran = [row for row in mine if "ok" in row]
        worst = max((row.get("error_over_bound", 0) for row in ran), default=0)
        print(f"{method:<8}{sum(row['ok'] for row in ran):>5} of {len(ran)} right, "
              f"{len(mine) - len(ran)} refused, largest error {worst:.3g} of the bound", flush=True)


def public_calls(run: Run) -> None:
    """The public functions on the arrays of every library; prints a line for each."""
    for library in run.report.get("libraries", ()):
        algorithm, right, names = f"public calls on {library}", 0, list(gpu_calls.calls(contextlib.nullcontext))
        for name in names:
            row = {"problem": name, "algorithm": algorithm, **run.ask("call", library, name)}
            run.add("correctness", row)
            right += row["ok"]
        print(f"{algorithm}: {right} of {len(names)} right", flush=True)


def _in_rounds(entries: list[tuple[int, Any, bool]]) -> list[tuple[int, Any, bool]]:
    """One contest of each family, then another of each: a race that is cut short has met all of them."""
    known: Counter[tuple[str, bool]] = Counter()
    turns = []
    for _, contest, tf32 in entries:
        known[contest.family, tf32] += 1
        turns.append(known[contest.family, tf32])
    return [entries[i] for i in sorted(range(len(entries)), key=turns.__getitem__)]


def race(run: Run) -> None:
    """Every contest while there is time; prints a line for each, then how the families stand to their goals."""
    peak = run.ask("peaks")
    run.report["peak"] = peak
    if "fault" in peak:
        run.add("correctness", {"problem": "peaks", "algorithm": "race", **peak})
        return
    print(f"measured peak {peak['flops'] / 1e12:.1f} TFLOP/s float32, {peak['bandwidth'] / 1e9:.0f} GB/s")
    print(gpu_rivals.HEADER)
    for index, contest, tf32 in _in_rounds([(i, c, tf32) for i, c in enumerate(gpu_rivals.contests())
                                            for tf32 in ((False, True) if c.family == "dense" else (False,))]):
        if not run.before(RACE_SHARE):
            print("out of time: the remaining contests were not run")
            break
        row = {"family": contest.family, "call": contest.name, "tf32": tf32, **run.ask("contest", index, tf32, peak)}
        run.add("times", row)
        print(gpu_rivals.line(row), flush=True)
    run.report["means"] = gpu_rivals.means(run.report.get("times", []))


def sanitize(run: Run) -> None:
    """compute-sanitizer over a few problems, in the time that is kept for it; nothing where the machine has none."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or SIMULATED:
        print("compute-sanitizer: not on this machine")
        return
    for check, share in (("memcheck", 2), ("racecheck", 1)):
        end = run.seconds - run.left(run.seconds) * (share - 1) / share
        row: dict[str, Any] = {"problem": "sanitizer", "algorithm": check}
        prefix = [tool, "--tool", check, "--error-exitcode", "9", "--log-file"]
        with tempfile.TemporaryDirectory() as folder, Worker(MODULE, [*prefix, f"{folder}/log"]) as worker:
            answers = []
            for name, method in ((name, method) for name in SANITIZED for method in ALGORITHMS):
                if run.left(end) > 0:
                    answers.append(worker.ask("problem", 0, name, method, limit=run.left(end)))
            status = worker.close(max(1.0, run.left(end) + LAST_SECONDS))
            log = Path(folder, "log")
            row |= {"rows": len(answers), "of": len(SANITIZED) * len(ALGORITHMS), "status": status,
                    "words": log.read_text(errors="replace")[-1000:] if log.exists() else ""}
        if status == 9 or any(not answer.get("ok", True) and not answer.get("fault", "").startswith("no answer")
                              for answer in answers):
            row["ok"] = False
        elif status == 0 and answers:
            row["ok"] = True
        verdict = {True: "ok", False: "FAULTS", None: "nothing known"}[row.get("ok")]
        print(f"compute-sanitizer {check}: {verdict}, {row['rows']} of {row['of']} rows")
        run.add("correctness", row)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m nconv.bench.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", help="where the results go; default docs/results/gpu-<device>.json")
    parser.add_argument("--draws", type=int, default=60, help="number of problems at random")
    parser.add_argument("--only", default="", help="problems whose name holds one of these, with commas between")
    parser.add_argument("--methods", default=",".join(ALGORITHMS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which nothing new is begun (%(default)s)")
    for part in ("race", "sanitizer"):
        parser.add_argument(f"--no-{part}", action="store_true")
    options = parser.parse_args(arguments)
    check_usable()
    # The choice is by the rates that everybody has, whatever this machine has learnt.
    os.environ["NCONV_CACHE_DIR"] = tempfile.mkdtemp(prefix="nconv-gpu-")
    with Crew(MODULE, PROCESSES) as crew:
        run = Run(crew, options.out, options.seconds)
        print(f"{run.report.get('device', run.report.get('fault'))}, {run.report.get('versions')}", flush=True)
        correctness(run, tuple(options.methods.split(",")), options.draws, options.only)
        if not options.only:
            public_calls(run)
        if not options.no_race:
            race(run)
    if not options.no_sanitizer:
        sanitize(run)
    return run.finish()


if __name__ == "__main__":
    sys.exit(main())
