"""What the cost models know of the machine: widths, caches and rates.

The algorithms count operations and bytes; the constants that turn counts into seconds stand here and nowhere else.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np


@cache
def vector_bytes() -> int:
    """Bytes of the machine's widest vector register: 64 (AVX-512), 32 (AVX), else 16 (SSE, NEON)."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


def vector_registers() -> int:
    """Number of vector registers: 32 with AVX-512 and on 64-bit Arm, else 16."""
    return 32 if vector_bytes() == 64 or platform.machine().lower() in ("aarch64", "arm64") else 16


@dataclass(frozen=True)
class Machine:
    """Rates of one core, in SI units. The defaults are measured on a Zen 4 server core and near most of its kind."""

    name: str = field(default_factory=lambda: f"{platform.machine()} {platform.system()}")
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    vector_bytes: int = field(default_factory=vector_bytes)
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
    efficiency: dict = field(default_factory=lambda: {   # share of the peak that a kernel reaches
        "small": 0.4, "direct": 0.75, "direct_filter": 0.6, "direct_single": 0.35, "im2col": 0.9, "winograd": 0.9,
        "fft": 0.45, "separable": 0.3, "line": 0.5, "line_fft": 0.45}, hash=False)

    def flops(self, dtype: np.dtype) -> float:
        """Peak additions and multiplications per second of one core in the real numbers that make up `dtype`."""
        real = np.zeros(0, dtype).real.dtype
        # Two fused units of at most 32 bytes a cycle; integer products take about three float ones.
        peak = 2 * 2 * min(self.vector_bytes, 32) / real.itemsize * self.clock
        return peak if real.kind == "f" else peak / 3


@dataclass(frozen=True)
class Gpu:
    """Rates of a whole GPU, in SI units. The defaults are the data sheet's of an H100 SXM, not measured.

    Half of the multiprocessors' figures can be asked of the driver and are, where there is one.
    """

    name: str = "GPU"
    processors: int = 132          # streaming multiprocessors
    clock: float = 1.7e9           # Hz
    bandwidth: float = 3.0e12      # bytes/s of its memory
    launch: float = 6e-6           # seconds from one kernel's start to the next one's
    efficiency: dict = field(default_factory=lambda: {   # share of the peak that a kernel reaches
        "direct": 0.12, "direct_tile": 0.4, "im2col": 0.6, "im2col_tensor": 0.3, "fft": 0.2}, hash=False)

    def flops(self, dtype: np.dtype, tensor: bool = False) -> float:
        """Peak additions and multiplications per second in the real numbers that make up `dtype`."""
        real = np.zeros(0, dtype).real.dtype
        lanes = {"f4": 128, "f8": 64, "i4": 64, "i8": 16}[real.str[1:]]        # of one multiprocessor
        return 2 * (1024 if tensor else lanes) * self.processors * self.clock


@cache
def machine(device: str = "cpu") -> Any:
    """This machine as the cost models of a device know it: a `Machine`, or a `Gpu` for 'cuda'."""
    if device == "cpu":
        return Machine()
    from numba import cuda

    try:
        gpu = cuda.get_current_device()
        name = gpu.name.decode() if isinstance(gpu.name, bytes) else str(gpu.name)
        return Gpu(name, int(gpu.MULTIPROCESSOR_COUNT), 1e3 * gpu.CLOCK_RATE)
    except Exception:                              # no driver, or a simulated device: the data sheet must do
        return Gpu()
