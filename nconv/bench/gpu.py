"""Everything that a GPU has to prove, in one command: ``python -m nconv.bench.gpu`` (`make gpu`).

Runs every kernel against float64 results of NumPy over a grid and over drawn problems, the public functions on arrays
of every library at hand, then a race against the rivals that are installed, then, in the time that is left,
compute-sanitizer where the machine has it; prints tables and writes everything to
``docs/results/gpu-<name>.json``. Needs numba-cuda, NumPy and SciPy; PyTorch and CuPy are measured where they are. A
kernel that fails is reported and the next one runs; the exit status is 1 where any result is wrong or any run failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .. import engine, registry
from ..boundary import FILL, MODES
from ..cuda.device import SIMULATED, check_usable, cuda
from ..problem import ConvProblem
from . import gpu_calls, gpu_rivals

SECONDS = 440                          # after which nothing new is begun: the whole stays below 8 minutes
DRAWS_SECONDS = 200                    # after which no problem at random is begun: the race needs its time, too
SANITIZED = "signal f4,image f4,layer f4,layer f2,depthwise f4"
ALGORITHMS = ("direct", "im2col", "fft")


# -------------------------------------------------------------------------------------------------- Problems


def _problem(size, kernel, N=1, groups=1, C=1, K=1, dtype="f4", stride=1, dilation=1, pad=None, **options):
    rank = len(size)
    low = tuple((k * dilation // 2, k * dilation // 2) for k in kernel) if pad is None else ((pad, pad),) * rank
    return ConvProblem(N=N, groups=groups, C=C, K=K, size=size, kernel=kernel, stride=(stride,) * rank,
                       dilation=(dilation,) * rank, padding=low, dtype=np.dtype(dtype), device="cuda", **options)


def grid() -> Iterator[tuple[str, ConvProblem]]:
    """Named problems: every kind of window, type, boundary and layout; sizes around the tiles' edges."""
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
    for name, base in bases.items():
        for dtype in ("f4", "f2", "f8", "c8", "c16", "i1", "i4", "i8"):
            yield f"{name} {dtype}", _problem(**base, dtype=dtype)
        yield f"{name} stride", _problem(**base, stride=2)
        yield f"{name} dilation", _problem(**base, dilation=2)
        yield f"{name} channels last", _problem(**base, channels_last=True)
        for mode in MODES[1:]:
            yield f"{name} {mode}", _problem(**base, boundary=(mode,) * len(base["size"]))
    if not SIMULATED:
        yield "wide window", _problem((300, 310), (101, 101))
        yield "long window", _problem((70_000,), (20_000,))
        yield "large layer", _problem((56, 56), (3, 3), N=4, C=64, K=64)
        yield "large layer f2", _problem((56, 56), (3, 3), N=4, C=64, K=130, dtype="f2")
        yield "layer tf32", _problem((56, 56), (3, 3), N=4, C=64, K=64, tf32=True)


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


def verify(name: str, problem: ConvProblem, algorithm: Any) -> dict[str, Any]:
    """Run one algorithm on one problem; its largest error over the bound, or why it did not run."""
    row: dict[str, Any] = {"problem": name, "algorithm": algorithm.NAME}
    try:
        if reason := algorithm.why_not(problem):
            return row | {"refused": reason}
        x, weight, bias = operands(problem)
        out = engine.run_algorithm(algorithm, problem, x, weight, bias)
        right, magnitude = solved(problem)
        if problem.dtype.kind in "iu":
            error = float(np.any(out != right.astype(problem.dtype))) * 2
        else:
            eps = np.finfo(problem.engine).eps
            allowed = eps * ((2 + min(problem.taps, 512)) * magnitude if algorithm.NAME != "fft"
                             else 32 * magnitude.max())
            if problem.dtype.char == "e":
                allowed = allowed + 2.0 ** -11 * abs(right)
            if problem.tf32 and algorithm.NAME == "im2col":
                allowed = allowed + 2.0 ** -10 * magnitude
            error = float((abs(out.astype(right.dtype) - right) / (allowed + 1e-300)).max(initial=0))
        return row | {"error_over_bound": error, "ok": bool(error <= 1)}
    except Exception as fault:                          # the next kernel runs all the same
        return row | {"ok": False, "fault": f"{type(fault).__name__}: {' '.join(str(fault).split())[:400]}"}


def correctness(names: tuple[str, ...], draws: int, deadline: float, only: str = "") -> list[dict[str, Any]]:
    """Every algorithm on every problem; prints what is wrong and a line for each algorithm."""
    rows: list[dict[str, Any]] = []
    chosen = [a for a in registry.algorithms("cuda") if a.NAME in names]
    for name, problem in [*grid(), *drawn(draws)]:
        if not any(part in name for part in only.split(",")):
            continue
        if name.startswith("drawn") and time.monotonic() > deadline - SECONDS + DRAWS_SECONDS:
            print(f"{name} of {draws} was not begun, nor those after it: time for the race")
            break
        if time.monotonic() > deadline:
            print("out of time: the remaining problems were not run")
            rows.append({"problem": name, "algorithm": "all", "ok": False, "fault": "out of time"})
            break
        for algorithm in chosen:
            rows.append(verify(name, problem, algorithm))
            if not rows[-1].get("ok", True):
                print(f"WRONG {algorithm.NAME} {name}: {rows[-1].get('fault', rows[-1].get('error_over_bound'))}",
                      flush=True)
    for algorithm in chosen:
        mine = [row for row in rows if row["algorithm"] == algorithm.NAME]
        ran = [row for row in mine if "ok" in row]
        worst = max((row.get("error_over_bound", 0) for row in ran), default=0)
        print(f"{algorithm.NAME:<8}{sum(row['ok'] for row in ran):>5} of {len(ran)} right, "
              f"{len(mine) - len(ran)} refused, largest error {worst:.3g} of the bound")
    return rows


def sanitize(deadline: float) -> list[dict[str, Any]]:
    """compute-sanitizer over a few problems; nothing where the machine has none."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or SIMULATED:
        print("compute-sanitizer: not on this machine")
        return []
    rows = []
    for check in ("memcheck", "racecheck"):
        left = deadline - time.monotonic()
        if left < 20:
            break
        command = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-m", "nconv.bench.gpu",
                   "--no-race", "--no-sanitizer", "--draws", "0", "--only", SANITIZED, "--no-file"]
        row: dict[str, Any] = {"problem": "sanitizer", "algorithm": check}
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
            row |= {"ok": said.returncode == 0, "words": (said.stdout + said.stderr)[-300:]}
        except subprocess.TimeoutExpired:
            row |= {"words": "not finished in its time"}
        verdict = {True: "ok", False: "FAULTS", None: "nothing known"}[row.get("ok")]
        print(f"compute-sanitizer {check}: {verdict} {row['words'].strip().splitlines()[-1:]}")
        rows.append(row)
    return rows


# ---------------------------------------------------------------------------------------------------- Report


def machine_name() -> dict[str, Any]:
    """The device and the versions that matter."""
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
    return {"device": name, "python": platform.python_version(), "versions": versions, "date": str(date.today())}


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m nconv.bench.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", help="where the results go; default docs/results/gpu-<device>.json")
    parser.add_argument("--draws", type=int, default=60, help="number of problems at random")
    parser.add_argument("--only", default="", help="problems whose name holds one of these, with commas between")
    parser.add_argument("--methods", default=",".join(ALGORITHMS))
    for part in ("race", "sanitizer", "file"):
        parser.add_argument(f"--no-{part}", action="store_true")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    check_usable()
    report = machine_name()
    print(f"{report['device']}, {report['versions']}")
    rows = correctness(tuple(options.methods.split(",")), options.draws, start + SECONDS, options.only)
    if not options.only:
        rows += gpu_calls.verify_calls()
    if not options.no_race:
        report |= gpu_rivals.measure(start + SECONDS)
    if not options.no_sanitizer:
        rows += sanitize(start + SECONDS)
    report |= {"correctness": rows}
    faults = [row for row in report.get("times", ()) if "fault" in row]
    wrong = [row for row in rows if not row.get("ok", True)] + faults
    report |= {"wrong": len(wrong), "seconds": round(time.monotonic() - start, 1)}
    if not options.no_file:
        label = "-".join("".join(c if c.isalnum() else " " for c in report["device"].lower()).split())
        path = Path(options.out or f"docs/results/gpu-{label}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
        print(f"written to {path}")
    print(f"{len(wrong)} wrong, {report['seconds']} s")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
