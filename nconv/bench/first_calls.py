"""What a first call costs: ``python -m nconv.bench.first_calls`` runs each in a process of its own.

Once with an empty cache of compiled code and once with what that run has left; the processor's time of all threads and
the clock's, Numba's import included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

_CALLS = {
    "import numba": "import numba",
    "numpy.convolve": "np.convolve(x, h)",
    "small": "nconv.convolve(x[:200], h[:9])",
    "direct, signal": "nconv.convolve(x, h[:31], method='direct')",
    "direct, image": "nconv.ndimage.convolve(x.reshape(400, 250), h[:9].reshape(3, 3))",
    "depthwise": "nconv.conv2d(maps, layer[:40, :1], groups=40, method='depthwise')",
    "im2col": "nconv.conv2d(maps, layer, method='im2col')",
    "fft_tiles": "nconv.conv2d(maps, layer, method='fft_tiles')",
    "winograd": "nconv.conv2d(maps, layer, method='winograd')",
    "fft": "nconv.convolve(x, h, method='fft')",
    "separable": "nconv.convolve(x.reshape(400, 250), np.outer(h[:15], h[:15]), method='separable')",
}
_PROGRAM = """
import time
start = time.perf_counter(), time.process_time()
import numpy as np, nconv
x, h = np.ones(100_000, "f4"), np.ones(1_000, "f4")
maps, layer = x.reshape(1, 40, 50, 50), np.ones((64, 40, 3, 3), "f4")
{call}
print(time.process_time() - start[1], time.perf_counter() - start[0])
"""


def seconds(call: str, cache: str) -> tuple[float, float]:
    """(processor's, clock's) seconds of a program that makes one call."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "NCONV_CACHE_DIR": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)        # what pip installs has its bytecode
    said = subprocess.run([sys.executable, "-c", _PROGRAM.format(call=call)], env=environment, check=True,
                          capture_output=True, text=True).stdout
    processor, clock = map(float, said.split())
    return processor, clock


def main() -> None:
    """Print a line for each kind of call."""
    print(f"{'first call':<18}{'empty cache: processor':>24}{'clock':>8}{'warm: processor':>18}{'clock':>8}   [s]")
    for name, call in _CALLS.items():
        with tempfile.TemporaryDirectory() as cache:
            (cold, cold_clock), (warm, warm_clock) = (seconds(call, cache) for _ in range(2))
        print(f"{name:<18}{cold:>24.2f}{cold_clock:>8.2f}{warm:>18.2f}{warm_clock:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
