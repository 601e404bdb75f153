"""Tests of the GPU's wing in Numba's CUDA simulator: ``NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda`` (`make test-cuda`).

The simulator replaces Numba's CUDA target for the whole process, so these do not run beside the others.
"""

import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    collect_ignore_glob = ["test_*.py"]
else:
    import numba
    import numpy as np
    import pytest
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    _one_at_a_time, _array = threading.Lock(), FakeCUDAShared.array

    def _shared_array(self, shape, dtype):
        """One array for each line of a kernel, as in the simulator, where two threads at once would get one each."""
        if shape == 0:                                  # dynamic: the block's one memory
            return _array(self, shape, dtype)
        frame = sys._getframe(1)
        line = frame.f_code.co_filename, frame.f_lineno
        with _one_at_a_time:
            if line not in self._allocations:
                self._allocations[line] = np.empty(shape, numba.np.numpy_support.as_dtype(dtype))
            return self._allocations[line]

    FakeCUDAShared.array = _shared_array

    # The simulator's main thread asks in a loop whether all threads of a block wait; at each barrier it keeps the
    # interpreter for one interval: the usual 5 ms make up more than half of the tests' time.
    sys.setswitchinterval(5e-4)

    @pytest.fixture
    def whole_axes(monkeypatch):
        """Transforms of whole axes wherever they can be."""
        from nconv.cuda import fft

        monkeypatch.setattr(fft.planes, "seconds", lambda *_: 0.0)
        fft._faster.cache_clear()
        yield fft
        fft._faster.cache_clear()

    @pytest.fixture
    def real_blocks(monkeypatch):
        """Blocks of transforms as they are on a GPU, for what is reckoned and not run: the simulator's are small."""
        from nconv.cuda import fft

        caches = fft._shapes, fft._cut, fft._faster, fft._transform
        monkeypatch.setattr(fft, "_SIZES", (10, 11, 12, 13, 14))
        monkeypatch.setattr(fft, "_LEAST_ROW", 8)
        monkeypatch.setattr(fft.boxes, "SIMULATED", False)
        for cached in caches:
            cached.cache_clear()
        yield
        for cached in caches:
            cached.cache_clear()
