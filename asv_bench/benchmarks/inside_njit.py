"""nconv.convolve inside compiled code, and what Numba offers there."""

import numba
import numpy as np

import nconv


@numba.njit
def _nconv(x, h, times):
    for _ in range(times):
        nconv.convolve(x, h)


@numba.njit
def _numpy(x, h, times):
    for _ in range(times):
        np.convolve(x, h)


class Lines:
    """One full convolution, by calls enough to outlast the clock."""

    param_names = ("sizes", "dtype", "function")
    params = ([(3, 3), (200, 9), (10_000, 3), (10_000, 31), (5_000, 500), (1_000_000, 3), (100_000, 257),
               (100_000, 5_000), (100_000, 100_000)], ["float32", "float64"], ["nconv", "numpy"])

    def setup(self, sizes, dtype, function):
        rng = np.random.default_rng(0)
        self.x, self.h = (rng.standard_normal(n).astype(dtype) for n in sizes)
        self.function = {"nconv": _nconv, "numpy": _numpy}[function]
        self.times = max(1, 100_000 // (sizes[0] * sizes[1]))
        self.function(self.x, self.h, 1)

    def time_run(self, sizes, dtype, function):
        self.function(self.x, self.h, self.times)
