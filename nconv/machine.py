"""What the cost models know of the machine: widths, caches and rates.

The algorithms count operations and bytes; the constants that turn counts into seconds stand here and nowhere else. They
are those of the processor's family until `nconv tune --machine` or `nconv warmup` has measured this machine
(`calibrate.py`).
"""

from __future__ import annotations

import os
import platform
import sys
import warnings
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import store
from .geometry import product
from .problem import ConvProblem

_FORMAT = 6                    # of the file: those before had rates of other models

WORTH_THE_LONG_WAY = 1 << 20
"""Multiplications from which a call's overhead, or a look at its values, costs little beside the work."""


@cache
def vector_bytes() -> int:
    """Bytes of the machine's widest vector register: 64 (AVX-512), 32 (AVX), else 16 (SSE, NEON)."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


@cache
def vector_registers() -> int:
    """Number of vector registers: 32 with AVX-512 and on 64-bit Arm, else 16."""
    return 32 if vector_bytes() == 64 or platform.machine().lower() in ("aarch64", "arm64") else 16


@cache
def processor() -> str:
    """The processor as it calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@cache
def arithmetic_bytes() -> int:
    """Bytes that the two fused units of one core take in a cycle, by family."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return 4 * 16 if sys.platform == "darwin" else 2 * 16       # Apple's cores have four units, most others two
    if vector_bytes() == 64 and "Intel" in processor():
        return 2 * 64
    return 2 * min(vector_bytes(), 32)                              # AMD splits what is wider, up to Zen 4


class _Rated:
    """What a machine and a GPU share: their rates by name, and copies with others."""

    def rates(self) -> dict[str, float]:
        """All that can be measured, by name; an entry of a table as ``<table>.<entry>``."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "float"}  # type: ignore[arg-type]
        for table in self._tables():
            known |= {f"{table}.{name}": value for name, value in getattr(self, table).items()}
        return known

    def with_rates(self, rates: dict[str, float], **changes: Any) -> Any:
        """A copy with these rates, named as in `rates`; unknown names are left out."""
        known = {name: value for name, value in rates.items() if name in self.rates()}
        for table in self._tables():
            mine = {name.partition(".")[2]: known.pop(name) for name in list(known) if name.startswith(f"{table}.")}
            changes[table] = getattr(self, table) | mine
        return replace(self, **known, **changes)  # type: ignore[type-var]

    def scaled(self, rates: str, factor: float) -> Any:
        """A copy with a rate, or all those of a part of a table, multiplied."""
        return self.with_rates({name: factor * value for name, value in self.rates().items()
                                if f"{name}.".startswith(f"{rates}.")})

    def _tables(self) -> list[str]:
        return [f.name for f in fields(self) if f.type == "dict[str, float]"]  # type: ignore[arg-type]


_RATES = {
    "call": (2.38e-5, 18.7e-6),
    "small.products_one": (2.58, 2.01), "small.products_many": (2.05, 1.23), "small.tiles_one": (3.28e-9, 4.65e-10),
    "small.tiles_many": (5.4e-9, 5.38e-9), "small.products_line": (1.44, 1.15),
    "small.tiles_line": (4.54e-9, 5.99e-9), "small.elements": (1.59e-10, 9.98e-11),
    "small.elements_apart": (1.19e-10, 3.51e-10), "small.runs": (4.26e-9, 6e-9),
    "small.weights": (3e-9, 2.77e-9), "small.rows": (7.28e-10, 6.69e-11),
    "direct.products_channels": (2.74, 1.33), "direct.products_filters": (2.84, 1.08),
    "direct.products_single": (2.88, 1.9), "direct.products_line": (1.74, 1.08),
    "direct.lines_line": (6.11e-9, 6.83e-9), "direct.tiles_line": (2.14e-9, 1.92e-9),
    "direct.lines_channels": (2.89e-8, 3.08e-9), "direct.lines_filters": (9.15e-10, 8e-10),
    "direct.lines_looped": (3.05e-9, 2.4e-9),
    "direct.lines_single": (2.85e-9, 2.44e-9), "direct.tiles_channels": (1.23e-10, 1.04e-10),
    "direct.tiles_filters": (2.25e-8, 6e-8), "direct.tiles_single": (7.85e-9, 1.05e-9),
    "direct.edges": (5.23e-11, 2e-11), "direct.parted": (2.74e-10, 3.2e-10), "direct.picked": (1.1e-9, 1.1e-9),
    "direct.rows": (2.06e-10, 6.95e-10), "direct.rows_apart": (3.12e-10, 6.59e-9),
    "direct.gathered": (5.63e-11, 1.97e-11), "direct.gathered_apart": (4.7e-11, 3.21e-12),
    "direct.weights": (7.79e-9, 4.56e-9),
    "depthwise.products": (2.56, 1.12), "depthwise.loaded": (1.92e-11, 1e-11), "depthwise.lines": (4.07e-9, 5e-10),
    "depthwise.squares": (2.88e-9, 1.1e-8), "depthwise.tiles": (3.58e-7, 2.6e-7), "depthwise.rows": (3.38e-9, 2.4e-8),
    "depthwise.weights": (5.04e-10, 9e-10),
    "im2col.products": (2.58, 1.5), "im2col.products_lone": (3.14, 1.5), "im2col.tiles": (6.87e-9, 1.53e-8),
    "im2col.rows": (1.96e-9, 9.27e-9), "im2col.gathered": (4.23e-11, 3.17e-12), "im2col.positions": (3.53e-9, 3.05e-9),
    "im2col.panels": (3.85e-11, 1.01e-10), "im2col.packed": (2.58e-10, 5.15e-10),
    "col2im.products": (1.8, 1.05), "col2im.tiles": (1.8e-9, 2.3e-9), "col2im.rows": (8.4e-9, 6.8e-9),
    "col2im.gathered": (6.5e-12, 3.6e-12), "col2im.added": (1.8e-9, 6e-10), "col2im.stored": (1.4e-9, 2.8e-9),
    "col2im.joined": (9.1e-9, 5.1e-9), "col2im.lines": (2.5e-8, 1.1e-8), "col2im.packed": (1e-9, 4e-10),
    "col2im.items": (2.8e-6, 1.8e-6), "phases.calls": (5.5e-5, 1.5e-5), "phases.placed": (4e-10, 3.3e-10),
    "winograd.products": (3.83, 1.36), "winograd.loaded": (7.54e-11, 3.9e-11), "winograd.spilled": (3.36e-11, 3.5e-11),
    "winograd.tiles": (2.43e-7, 3.8e-8), "winograd.gathered": (4.65e-10, 2.2e-10), "winograd.rows": (1.68e-9, 7.7e-9),
    "winograd.transformed": (6.86e-11, 2.2e-11), "winograd.weights": (2.99e-10, 4.2e-10),
    "fft_tiles.products": (3.28, 1.43), "fft_tiles.loaded": (8.33e-12, 5.7e-12),
    "fft_tiles.spilled": (4.87e-11, 3.7e-11), "fft_tiles.tiles": (8.2e-8, 3.6e-8),
    "fft_tiles.gathered": (5.99e-11, 5.2e-11), "fft_tiles.rows": (4.39e-9, 1.1e-8),
    "fft_tiles.transformed": (3.53e-11, 1.5e-11), "fft_tiles.weights": (8.12e-10, 5.5e-10),
    "fft.points": (5.64, 4.32), "fft.blocks": (2.6e-7, 3.27e-7), "fft.rows": (3.45e-8, 2.4e-8),
    "fft.products": (1.81, 2.2), "fft.kernels": (8.86, 6), "fft.weights": (8.79e-8, 1.2e-8),
    "separable.products": (1.28, 0.783), "separable.gathered": (3.91e-10, 4.17e-10),
}
"""What a public call takes that prepares a small weight, and one piece of an algorithm's work as its `counts` names it.

Of processors without AVX-512 and with it; `phases` is what it takes to bring those of a problem to their places, beside
the algorithm that computes them. Seconds; but of `products`, `points` and `kernels` the algorithms count the seconds at
the peak. Found by ``python -m nconv.bench.regret --fit``: on a Zen 3 core without AVX-512 all but those that its drawn
problems say nothing of (`col2im`, `phases`, `direct.picked`); on a Zen 4 core with AVX-512 those of `call`, `small`,
`im2col`, `fft`, `separable` and of direct sums of many channels or in lines, but for the products of `fft`, of which
they have too few: by larger layers. The others are by drawn problems of their kind; without AVX-512 those of `col2im`
are as on a core with it that was held to vectors of 32 bytes, times 1.75.
"""


def _rates() -> dict[str, float]:
    """Those of this machine's kind."""
    kind = vector_bytes() == 64
    return {name: rates[kind] for name, rates in _RATES.items()}


def _call() -> float:
    return _rates()["call"]


def _work() -> dict[str, float]:
    return {name: rate for name, rate in _rates().items() if name != "call"}


@dataclass(frozen=True)
class Machine(_Rated):
    """Rates of one core, in SI units. The defaults are measured on AMD server cores and near most of their kind."""

    name: str = field(default_factory=lambda: f"{processor()}, {platform.system()}")
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    vector_bytes: int = field(default_factory=vector_bytes)
    arithmetic_bytes: int = field(default_factory=arithmetic_bytes)
    measured: str = ""             # date of the calibration; empty: the rates of the family
    l2: int = 1 << 20              # bytes
    l3: int = 32 << 20             # bytes
    clock: float = 3.6e9           # Hz under vector load
    bandwidth: float = 10e9        # bytes/s through one core, out of cache
    call: float = field(default_factory=_call)     # seconds of a public call that prepares a small weight
    parallel_start: float = 12e-6  # seconds to start and join the threads
    work: dict[str, float] = field(default_factory=_work, hash=False)    # of one piece, by algorithm
    efficiency: dict[str, float] = field(default_factory=lambda: {   # share of the peak that a kernel reaches
        "line": 0.5, "line_fft": 0.45, "stream": 0.35, "stream_fft": 0.45}, hash=False)

    def seconds(self, counts: dict[str, float]) -> float:
        """What so many pieces of work take: 'call', 'start' of the threads, 'byte' of memory, and entries of `work`."""
        prices, total = self._prices, 0.0
        for name, count in counts.items():             # twice as fast as a sum, of which a choice takes ten
            total += count * prices[name]
        return total

    def price(self, name: str) -> float:
        """What one piece of work takes, by its name among counts."""
        return self._prices[name]

    def streamed(self, size: int) -> int:
        """Bytes of an array that leave the nearest caches for memory."""
        return max(size - self.l2, 0)

    def traffic(self, problem: ConvProblem) -> int:
        """Bytes of a problem's input and output that come from memory or go there."""
        return self.streamed((product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize)

    @cached_property
    def _prices(self) -> dict[str, float]:
        return {"call": self.call, "start": self.parallel_start, "byte": 1 / self.bandwidth, **self.work}

    def flops(self, dtype: np.dtype) -> float:
        """Peak additions and multiplications per second of one core in the real numbers that make up `dtype`."""
        size = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        # A fused operation counts twice; integer products take about three float ones.
        peak = 2 * self.arithmetic_bytes / size * self.clock
        return peak if dtype.kind in "fc" else peak / 3


@dataclass(frozen=True)
class Gpu(_Rated):
    """Rates of a whole GPU, in SI units: the data sheet's of an H100 SXM.

    The shares of them that the kernels of `direct` and `fft` reach are measured on an H200.

    The number of multiprocessors, their clock and shared memory are the driver's, where there is one.
    """

    name: str = "GPU"
    measured: str = ""             # date of the calibration; empty: the data sheet's rates
    processors: int = 132          # streaming multiprocessors
    clock: float = 1.7e9           # Hz
    bandwidth: float = 3.0e12      # bytes/s of its memory
    launch: float = 6e-6           # seconds from one kernel's start to the next one's
    shared: int = 227 << 10        # bytes of shared memory that a block may hold
    tensor_cores: bool = True      # that multiply TF32 and float16: from compute capability 8.0 on
    warp_groups: bool = False      # of four warps that multiply together: compute capability 9.0 alone
    efficiency: dict[str, float] = field(default_factory=lambda: {   # share of the peak that a kernel reaches
        "direct": 0.03, "direct_tile": 0.58, "im2col": 0.63, "im2col_tf32": 0.52, "im2col_half": 0.5, "fft": 0.55},
        hash=False)

    def flops(self, dtype: np.dtype, tensor: str = "") -> float:
        """Peak additions and multiplications per second in the real numbers of `dtype`, or of the tensor cores."""
        real = np.zeros(0, dtype).real.dtype
        lanes = {"f4": 128, "f8": 64, "i4": 64, "i8": 16}[real.str[1:]]        # of one multiprocessor
        return 2 * {"": lanes, "tf32": 1024, "half": 2048}[tensor] * self.processors * self.clock


@cache
def machine(device: str = "cpu") -> Any:
    """This machine as the cost models of a device know it: a `Machine`, or a `Gpu` for 'cuda'.

    The rates are those that were measured on it where there are some.
    """
    here = family(device)
    found = store.load(path(), _FORMAT, "machines", _check).get(here.name)
    return here if found is None else here.with_rates(found["rates"], measured=found["date"])


def family(device: str = "cpu") -> Any:
    """This machine with the rates of its kind, none of them measured here."""
    if device == "cpu":
        return Machine()
    from numba import cuda

    try:
        gpu = cuda.get_current_device()
        name = gpu.name.decode() if isinstance(gpu.name, bytes) else str(gpu.name)
        return Gpu(name, processors=int(gpu.MULTIPROCESSOR_COUNT), clock=1e3 * gpu.CLOCK_RATE,
                   shared=int(gpu.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
                   tensor_cores=tuple(gpu.compute_capability) >= (8, 0),
                   warp_groups=tuple(gpu.compute_capability) == (9, 0))
    except Exception:                              # no driver, or a simulated device: the data sheet must do
        return Gpu()


def path() -> Path:
    """The file of measured rates: one entry for each machine that shares it."""
    return store.folder() / f"machines-{_FORMAT}.json"


def remember(calibrated: Machine | Gpu) -> None:
    """Keep rates, also in the file, and use them from now on."""
    entry = {"date": calibrated.measured, "rates": calibrated.rates()}
    try:
        with store.turn(path()):
            known = store.load(path(), _FORMAT, "machines", _check)
            store.save(path(), _FORMAT, "machines", {**known, calibrated.name: entry})
    except OSError as error:
        warnings.warn(f"the measured rates could not be kept: {error}", stacklevel=3)
    machine.cache_clear()


def _check(content: Any) -> dict[str, dict]:
    known = {}
    for name, entry in content.items():
        rates = {str(rate): float(value) for rate, value in entry["rates"].items()}
        if bad := [rate for rate, value in rates.items() if not 0 < value < float("inf")]:
            raise ValueError(f"{name}: {bad[0]} must be positive and finite: {rates[bad[0]]}")
        known[str(name)] = {"date": str(entry["date"]), "rates": rates}
    return known
