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
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import store

_FORMAT = 1


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


def _arithmetic_bytes() -> int:
    """Bytes that the two fused units of one core take in a cycle, by family."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return 4 * 16 if sys.platform == "darwin" else 2 * 16       # Apple's cores have four units, most others two
    if vector_bytes() == 64 and "Intel" in processor():
        return 2 * 64
    return 2 * min(vector_bytes(), 32)                              # AMD splits what is wider, up to Zen 4


class _Rated:
    """What a machine and a GPU share: their rates by name, and copies with others."""

    efficiency: dict[str, float]

    def rates(self) -> dict[str, float]:
        """All that can be measured, by name; an efficiency as ``efficiency.<name>``."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "float"}  # type: ignore[arg-type]
        return plain | {f"efficiency.{name}": value for name, value in self.efficiency.items()}

    def with_rates(self, rates: dict[str, float], **changes: Any) -> Any:
        """A copy with these rates, named as in `rates`; unknown names are left out."""
        known = self.rates()
        plain: dict[str, Any] = {name: value for name, value in rates.items() if name in known and "." not in name}
        shares = {name.partition(".")[2]: value for name, value in rates.items() if name in known and "." in name}
        return replace(self, **plain, efficiency=self.efficiency | shares, **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class Machine(_Rated):
    """Rates of one core, in SI units. The defaults are measured on a Zen 4 server core and near most of its kind."""

    name: str = field(default_factory=lambda: f"{processor()}, {platform.system()}")
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    vector_bytes: int = field(default_factory=vector_bytes)
    arithmetic_bytes: int = field(default_factory=_arithmetic_bytes)
    measured: str = ""             # date of the calibration; empty: the rates of the family
    l2: int = 1 << 20              # bytes
    l3: int = 32 << 20             # bytes
    clock: float = 3.6e9           # Hz under vector load
    bandwidth: float = 10e9        # bytes/s through one core, out of cache
    cache_rate: float = 40e9       # bytes/s from the last level of cache into one core
    register_rate: float = 150e9   # bytes/s between registers and the nearest caches, in and out
    gather_rate: float = 12e9      # bytes/s of padded input copied into a tile
    call: float = 12e-6            # seconds of one kernel call with its preparation
    small_call: float = 2e-6       # seconds of one call of the kernel without preparation
    small_move: float = 0.8e-9     # seconds of one element moved by its address
    parallel_start: float = 8e-6   # seconds to start and join the threads
    efficiency: dict[str, float] = field(default_factory=lambda: {   # share of the peak that a kernel reaches
        "small": 0.4, "direct": 0.75, "direct_filter": 0.6, "direct_single": 0.35, "im2col": 0.9, "winograd": 0.9,
        "fft": 0.45, "separable": 0.4, "line": 0.5, "line_fft": 0.45}, hash=False)

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

    The number of multiprocessors and their clock are the driver's, where there is one.
    """

    name: str = "GPU"
    measured: str = ""             # date of the calibration; empty: the data sheet's rates
    processors: int = 132          # streaming multiprocessors
    clock: float = 1.7e9           # Hz
    bandwidth: float = 3.0e12      # bytes/s of its memory
    launch: float = 6e-6           # seconds from one kernel's start to the next one's
    tensor_cores: bool = True      # that multiply TF32 and float16: from compute capability 8.0 on
    efficiency: dict[str, float] = field(default_factory=lambda: {   # share of the peak that a kernel reaches
        "direct": 0.03, "direct_tile": 0.3, "im2col": 0.6, "im2col_tf32": 0.3, "im2col_half": 0.2, "fft": 0.026},
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
                   tensor_cores=tuple(gpu.compute_capability) >= (8, 0))
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
