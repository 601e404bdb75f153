"""nconv.convolve against numpy.convolve, both inside a compiled function: ``python -m nconv.bench.compiled``.

Prints what compiling the first caller takes, then how many times as fast nconv is, size by size. Ends with status 1
where it is slower at any.
"""

from __future__ import annotations

import sys
import time

import numba
import numpy as np

import nconv

from .measure import median_seconds

_SAMPLES = (3, 10, 30, 100, 300, 1_000, 10_000, 100_000, 1_000_000)
_TAPS = (1, 3, 10, 31, 100, 316, 1_000, 10_000, 100_000)
_MOST = 2e8                      # products that NumPy shall sum at most: a fifth of a second
_WORTH = 400_000                 # products of one measurement, so that the clock is fine enough


@numba.njit
def _ours(x, h, times):
    total = 0.0
    for _ in range(times):
        total += nconv.convolve(x, h)[0]
    return total


@numba.njit
def _numpys(x, h, times):
    total = 0.0
    for _ in range(times):
        total += np.convolve(x, h)[0]
    return total


def compile_seconds(function, dtype: str) -> float:
    """Processor time of a compiled function's first call."""
    start = time.process_time()
    function(np.ones(4, dtype), np.ones(3, dtype), 1)
    return time.process_time() - start


def times_faster(samples: int, taps: int, dtype: str) -> float:
    """How many times as long NumPy's full convolution takes."""
    rng = np.random.default_rng(0)
    x, h = (rng.standard_normal(n).astype(dtype) for n in (samples, taps))
    times = min(max(_WORTH // (samples * taps), 1), 2_000)
    ours, numpys = median_seconds(lambda: _ours(x, h, times), lambda: _numpys(x, h, times), rounds=5)
    return numpys / ours


def main() -> int:
    least = float("inf")
    for dtype in "float32", "float64":
        print(f"{dtype}: compiled in {compile_seconds(_ours, dtype):.1f} s of processor time with nconv.convolve, in "
              f"{compile_seconds(_numpys, dtype):.1f} s with numpy.convolve")
        for samples in _SAMPLES:
            row = {taps: times_faster(samples, taps, dtype) for taps in _TAPS
                   if taps <= samples and samples * taps <= _MOST}
            least = min(least, *row.values())
            print(f"{samples:>9,} samples by " + ", ".join(f"{taps:,}: {ratio:.1f}x" for taps, ratio in row.items()),
                  flush=True)
    print(f"at least {least:.2f} times as fast")
    return int(least < 1)


if __name__ == "__main__":
    sys.exit(main())
