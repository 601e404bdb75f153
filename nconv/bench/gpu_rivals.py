"""nconv on a GPU against cuDNN (through PyTorch), cupyx.scipy.signal and cupyx.scipy.ndimage: CUDA events, medians."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np

from ..cuda.device import SIMULATED, cuda, kernel
from ..cuda.ptx import vload4, vstore
from ..geometry import product
from .isolated import fault_of

REPEATS = 1 if SIMULATED else 9
TOGETHER = 16                  # multiplications of a chain for which the loop counts once
PLUG = 40_000                  # turns of a kernel that keeps the GPU busy for some milliseconds
GOALS = {"dense": 1.0, "dense tf32": 0.8, "depthwise 2-D": 2.0, "depthwise conv1d": 2.0, "depthwise 3-D": 2.0,
         "long conv1d": 3.0, "images": 5.0, "volumes": 5.0}
"""How many times as fast as the fastest rival nconv should be, in the geometric mean."""


class Contest(NamedTuple):
    """One call of one family, as nconv and as its rivals run it."""

    family: str
    name: str
    call: str                    # public function of nconv
    x: tuple
    weight: tuple
    options: dict
    flops: float                 # multiplications and additions of the definition


def contests() -> list[Contest]:
    """The table of the issue: every family with its sizes."""
    table = []

    def layer(family, name, x, weight, **options):
        stride, groups = options.get("stride", 1), options.get("groups", 1)
        positions = np.prod([-(-n // stride) for n in x[2:]])
        flops = 2.0 * x[0] * positions * np.prod(weight)
        table.append(Contest(family, name, f"conv{len(x) - 2}d", x, weight,
                             {"padding": tuple(k // 2 for k in weight[2:]), **options, "groups": groups}, flops))

    for C, K, n, k, stride in ((64, 64, 56, 3, 1), (128, 128, 28, 3, 1), (256, 256, 14, 3, 1), (512, 512, 7, 3, 1),
                               (64, 256, 56, 1, 1), (3, 64, 224, 7, 2), (256, 256, 56, 3, 1)):
        layer("dense", f"{C}->{K} {k}x{k}/{stride} {n}x{n}", (32, C, n, n), (K, C, k, k), stride=stride)
    for k in (3, 5, 7, 31):
        layer("depthwise 2-D", f"384 {k}x{k} 56x56", (16, 384, 56, 56), (384, 1, k, k), groups=384)
    for k in (4, 15, 31):
        layer("depthwise conv1d", f"1024 taps {k}", (8, 1024, 4096), (1024, 1, k), groups=1024)
    layer("depthwise 3-D", "64 3x3x3 32^3", (2, 64, 32, 32, 32), (64, 1, 3, 3, 3), groups=64)
    for taps in (1024, 8192, 131_072):
        table.append(Contest("long conv1d", f"{taps} taps", "convolve", (1 << 20,), (taps,), {},
                             2.0 * taps * (1 << 20)))
    for k in (3, 15, 51, 101):
        table.append(Contest("images", f"{k}x{k} 2048^2", "ndimage.correlate", (2048, 2048), (k, k), {},
                             2.0 * k * k * 2048 ** 2))
    for k in (3, 7):
        table.append(Contest("volumes", f"{k}^3 192^3", "ndimage.correlate", (192,) * 3, (k,) * 3, {},
                             2.0 * k ** 3 * 192 ** 3))
    return table


# --------------------------------------------------------------------------------------------------- Clocks


def seconds(run: Callable[[], Any]) -> float:
    """Median of a call's seconds on the GPU, between two events; the first calls compile and warm up.

    A kernel in front keeps the GPU busy while Python queues the call, so that no rival's time is that of its Python.
    """
    for _ in range(2):
        run()
    plug = cuda.to_device(np.full(32, 1e-3, "f4"))
    cuda.synchronize()
    times = []
    for _ in range(REPEATS):
        start, end = cuda.event(), cuda.event()
        peak_kernel[1, 32 if not SIMULATED else 1](plug, PLUG if not SIMULATED else 1)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(np.median(times))


def call_seconds(run: Callable[[], Any]) -> float:
    """Seconds of one call of many as a program waits for them, Python's share included."""
    start = time.perf_counter()
    for _ in range(REPEATS):
        run()
    cuda.synchronize()
    return (time.perf_counter() - start) / REPEATS


@kernel
def peak_kernel(out, turns):
    """Sixteen independent chains of fused multiplications a thread. Parallel over the threads; each writes its own."""
    a = out[cuda.grid(1)]
    sums = cuda.local.array(16, numba.float32)
    for i in range(16):
        sums[i] = a + i
    for _ in range(turns):
        for _ in range(TOGETHER):
            for i in range(16):
                sums[i] = sums[i] * a + numba.float32(0.5)
    total = numba.float32(0)
    for i in range(16):
        total += sums[i]
    out[cuda.grid(1)] = total


@kernel
def bandwidth_kernel(source, target):
    """target = source, four numbers at once: `copy_kernel` divides for its strides, longer than the memory takes."""
    for i in range(cuda.grid(1), source.size // 4, cuda.gridsize(1)):
        vstore(target, 4 * i, vload4(source, 4 * i))


def peaks() -> dict[str, float]:
    """Measured float32 FLOP/s and bytes/s."""
    threads, blocks, turns = (256, 2048, 512) if not SIMULATED else (4, 1, 1)
    out = cuda.to_device(np.full(threads * blocks, 1e-3, "f4"))
    count = (1 << 28) if not SIMULATED else 16
    a, b = cuda.device_array(count, np.float32), cuda.device_array(count, np.float32)
    flops = seconds(lambda: peak_kernel[blocks, threads](out, turns))
    moved = seconds(lambda: bandwidth_kernel[16 * blocks, threads](a, b))
    return {"flops": 2 * 16 * TOGETHER * turns * threads * blocks / max(flops, 1e-12),
            "bandwidth": 8 * count / max(moved, 1e-12)}


# --------------------------------------------------------------------------------------------------- Rivals


def torch_here() -> Any:
    """PyTorch where it is installed and has a GPU, else None."""
    with contextlib.suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            return torch
    return None


def cupy_here() -> Any:
    """CuPy where it is installed, else None."""
    with contextlib.suppress(ImportError):
        import cupy

        return cupy
    return None


def on_device(array: np.ndarray) -> Any:
    """The array on the GPU, in a library with a pool of memory: no call must pay for the driver's allocator."""
    if torch := torch_here():
        return torch.from_numpy(array).cuda()
    if cupy := cupy_here():
        return cupy.asarray(array)
    return cuda.to_device(array)


def rivals(contest: Contest, x: np.ndarray, weight: np.ndarray, tf32: bool) -> dict[str, Callable[[], Any]]:
    """What can run the same call here, by name."""
    found: dict[str, Callable[[], Any]] = {}
    layer = contest.call in ("conv1d", "conv2d", "conv3d")
    if torch := torch_here():
        a, b = torch.from_numpy(x).cuda(), torch.from_numpy(weight).cuda()
        if layer:
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            function = getattr(torch.nn.functional, contest.call)
            options = dict(contest.options)
            found["cudnn"] = lambda: function(a, b, **options)
            if x.ndim > 3:
                layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
                last = [t.contiguous(memory_format=layout) for t in (a, b)]
                found["cudnn channels last"] = lambda: function(*last, **options)
        elif contest.call == "convolve":
            n = x.size + weight.size - 1
            found["torch.fft"] = lambda: torch.fft.irfft(torch.fft.rfft(a, n) * torch.fft.rfft(b, n), n)
    if not layer and (cupy := cupy_here()):
        import cupyx.scipy.ndimage
        import cupyx.scipy.signal

        signal, c, d = cupyx.scipy.signal, cupy.asarray(x), cupy.asarray(weight)
        if contest.call == "convolve":
            found |= {f"cupyx {name}": partial(getattr(signal, name), c, d)
                      for name in ("convolve", "fftconvolve", "oaconvolve")}
        else:
            found["cupyx ndimage"] = lambda: cupyx.scipy.ndimage.correlate(c, d)
            found["cupyx fftconvolve"] = lambda: signal.fftconvolve(c, d, "same")
    return found


# ---------------------------------------------------------------------------------------------------- Races


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """For each family the geometric mean of the fastest rival's time over nconv's; prints them beside the goals."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row.get("rivals") and "chosen" in row:
            ratio = min(row["rivals"].values()) / row["seconds"][row["chosen"]]
            ratios.setdefault(row["family"] + (" tf32" if row["tf32"] else ""), []).append(ratio)
    found = {family: float(np.exp(np.mean(np.log(values)))) for family, values in ratios.items()}
    for family, mean in found.items():
        verdict = "reached" if mean >= GOALS[family] else "missed"
        print(f"{family:<18}{mean:>6.2f} times the fastest rival, goal {GOALS[family]:g}: {verdict}")
    return found


def contest_row(index: int, tf32: bool, peak: dict[str, float]) -> dict[str, Any]:
    """Time one contest of the table."""
    import nconv

    contest = contests()[index]
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal(contest.x).astype("f4"), rng.standard_normal(contest.weight).astype("f4")
    row: dict[str, Any] = {}
    function: Any = nconv
    for part in contest.call.split("."):
        function = getattr(function, part)
    try:
        with nconv.allow_tf32(tf32):
            spec = nconv.ArraySpec(x.shape, x.dtype, "cuda")
            there, taps = on_device(x), on_device(weight)
            plan = nconv.plan(function, spec, taps, **contest.options)
            times = {plan.method: seconds(partial(plan, there))}
            best = next(c.seconds for c in plan.candidates if c.chosen)
            others = [c.name for c in plan.candidates if not c.refused and not c.chosen
                      and c.seconds < 20 * best and contest.call != "ndimage.correlate"]
            for method in others:
                with contextlib.suppress(MemoryError):
                    timed = nconv.plan(function, spec, taps, **contest.options, method=method)
                    times[method] = seconds(partial(timed, there))
        mine = times[plan.method]
        moved = x.nbytes + weight.nbytes + 4 * product(plan.problem.out_shape)
        row |= {"chosen": plan.method, "seconds": times, "call_seconds": call_seconds(partial(plan, there)),
                "of_peak": contest.flops / mine / peak["flops"], "of_bandwidth": moved / mine / peak["bandwidth"]}
    except Exception as error:                          # the rivals run all the same
        row |= fault_of(error)
    row["rivals"] = {}
    try:
        for name, run in rivals(contest, x, weight, tf32).items():
            with contextlib.suppress(Exception):        # a rival's fault, for example a full memory, is its own
                row["rivals"][name] = seconds(run)
    except Exception as error:
        row["rivals_fault"] = fault_of(error)["fault"]
    return row


HEADER = (f"{'family':<18}{'call':<28}{'tf32':>5}{'method':>9}{'nconv ms':>10}{'of peak':>9}{'of bw':>7}  rivals, ms")


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    nothing = float("nan")
    mine = row.get("seconds", {}).get(row.get("chosen"), nothing)
    return (f"{row['family']:<18}{row['call']:<28}{'yes' if row['tf32'] else 'no':>5}{row.get('chosen', '-'):>9}"
            f"{mine * 1e3:>10.3f}{row.get('of_peak', nothing):>9.0%}{row.get('of_bandwidth', nothing):>7.0%}  "
            + ", ".join(f"{name} {t * 1e3:.3f}" for name, t in row.get("rivals", {}).items())
            + row.get("fault", "") + row.get("rivals_fault", ""))
