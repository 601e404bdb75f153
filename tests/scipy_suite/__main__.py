"""Runs SciPy's tests alone and behind nconv, and fails if any that passes alone does not pass behind nconv.

    python -m tests.scipy_suite [-n PROCESSES] [pytest arguments, such as -k oaconvolve]

The tests are those that SciPy's wheel ships. Arguments that are not ours go to pytest, in both runs.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MODULES = ("scipy.signal.tests.test_signaltools", "scipy.signal.tests.test_savitzky_golay",
           "scipy.ndimage.tests.test_filters")
FUNCTIONS = ("scipy.signal.convolve", "scipy.signal.correlate", "scipy.signal.fftconvolve", "scipy.signal.oaconvolve",
             "scipy.signal.convolve2d", "scipy.signal.correlate2d", "scipy.signal.choose_conv_method",
             "scipy.ndimage.convolve", "scipy.ndimage.correlate", "scipy.ndimage.convolve1d",
             "scipy.ndimage.correlate1d")
TESTS = Path(__file__).resolve().parent.parent


def run(folder: Path, processes: str, extra: list[str], behind_nconv: bool) -> dict:
    """One run of SciPy's tests: outcomes, texts of failures, counts of calls."""
    result = folder / f"outcomes-{behind_nconv}.json"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH")))),
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR") or str(folder / "numba"),
        "NCONV_CACHE_DIR": os.environ.get("NCONV_CACHE_DIR") or str(folder / "nconv"),
    }
    environment.pop("SCIPY_ARRAY_API", None)
    rootdir = Path(importlib.util.find_spec("scipy").origin).parent         # names the modules in the tests' names
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(rootdir), "-p", "no:cacheprovider",
               "-p", "scipy_suite.plugin", "-q", "-n", processes, "--tb=short", "--disable-warnings",
               "--outcomes", str(result), *(["--behind-nconv"] if behind_nconv else []), *extra, "--pyargs", *MODULES]
    start = time.perf_counter()
    output = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if not result.exists() or output.returncode not in (0, 1):
        sys.exit(f"{output.stdout[-5000:]}{output.stderr[-5000:]}\npytest ended with status {output.returncode}")
    report = json.loads(result.read_text())
    counts = Counter(report["outcomes"].values())
    print(f"{'behind nconv' if behind_nconv else 'SciPy alone':12}: "
          + ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
          + f" ({time.perf_counter() - start:.0f} s)", flush=True)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scipy_suite", description=__doc__.splitlines()[0])
    parser.add_argument("-n", dest="processes", default="auto", help="processes, as pytest-xdist's -n (default: auto)")
    options, extra = parser.parse_known_args()
    print(f"SciPy {importlib.metadata.version('scipy')}: {', '.join(MODULES)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="nconv-scipy-suite-") as folder:
        alone = run(Path(folder), options.processes, extra, behind_nconv=False)
        behind = run(Path(folder), options.processes, extra, behind_nconv=True)

    owed = sorted(test for test, outcome in alone["outcomes"].items() if outcome == "passed")
    broken = [test for test in owed if behind["outcomes"].get(test) != "passed"]
    for test in broken:
        print(f"\n--- {test}: {behind['outcomes'].get(test, 'not run')}\n{behind['failures'].get(test, '')}")
    print("\ncalls run by nconv, and calls handed back to SciPy:")
    back = Counter()
    for function, _, n in behind["handed_back"]:
        back[function] += n
    for function in FUNCTIONS:
        print(f"{function:33}{behind['ran'].get(function, 0):8}{back[function]:8}")
    for function, reason, n in sorted(behind["handed_back"], key=lambda entry: -entry[2])[:20]:
        print(f"    {n:6} x {function}: {reason}")
    idle = [] if extra else [function for function in FUNCTIONS if not behind["ran"].get(function)]
    if idle:
        print(f"nconv never ran {', '.join(idle)}: the patch was not at work")
    if not owed:
        print("no test passed with SciPy alone: nothing was proven")
    print(f"{len(owed) - len(broken)} passed, {len(broken)} failed")
    return bool(broken or idle or not owed)


if __name__ == "__main__":
    sys.exit(main())
