"""Tests of the GPU's wing in Numba's CUDA simulator: ``NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda`` (`make test-cuda`).

The simulator replaces Numba's CUDA target for the whole process, so these do not run beside the others.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    collect_ignore_glob = ["test_*.py"]
