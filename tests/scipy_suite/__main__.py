"""Runs SciPy's tests behind nconv, and fails if any that passes with SciPy alone does not pass there.

    python -m tests.scipy_suite [-n PROCESSES] [pytest arguments, such as -k oaconvolve]

The tests are those that SciPy's wheel ships. What does not pass behind nconv is run again with SciPy alone. Arguments
that are not ours go to pytest, in both runs.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from . import outcomes

MODULES = ("scipy.signal.tests.test_signaltools", "scipy.signal.tests.test_savitzky_golay",
           "scipy.ndimage.tests.test_filters")
FUNCTIONS = ("scipy.signal.convolve", "scipy.signal.correlate", "scipy.signal.fftconvolve", "scipy.signal.oaconvolve",
             "scipy.signal.convolve2d", "scipy.signal.correlate2d", "scipy.signal.choose_conv_method",
             "scipy.ndimage.convolve", "scipy.ndimage.correlate", "scipy.ndimage.convolve1d",
             "scipy.ndimage.correlate1d")
ROOT = Path(importlib.util.find_spec("scipy").origin).parent               # names the modules in the tests' names


def run(tests: Iterable[str], folder: Path, processes: str, extra: list[str], behind_nconv: bool) -> dict:
    """One run of some of SciPy's tests."""
    try:
        report = outcomes.run(tests, python=sys.executable, rootdir=ROOT, folder=folder,
                              behind_nconv=behind_nconv, arguments=["-n", processes, *extra])
    except outcomes.NotRun as error:
        sys.exit(str(error))
    counts = Counter(report["outcomes"].values())
    print(f"{'behind nconv' if behind_nconv else 'SciPy alone':12}: "
          + ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
          + f" ({report['seconds']:.0f} s)", flush=True)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scipy_suite", description=__doc__.splitlines()[0])
    parser.add_argument("-n", dest="processes", default="auto", help="processes, as pytest-xdist's -n (default: auto)")
    options, extra = parser.parse_known_args()
    print(f"SciPy {importlib.metadata.version('scipy')}: {', '.join(MODULES)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="nconv-scipy-suite-") as folder:
        behind = run(MODULES, Path(folder), options.processes, extra, behind_nconv=True)
        passed = outcomes.passed(behind)
        rest = [str(ROOT / test) for test in behind["outcomes"] if test not in passed]
        alone = run(rest, Path(folder), options.processes, extra, behind_nconv=False) if rest else {"outcomes": {}}

    broken = outcomes.broken(alone, behind)
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
    if not passed:
        print("no test passed: nothing was proven")
    print(f"{len(passed)} passed, {len(broken)} failed")
    return bool(broken or idle or not passed)


if __name__ == "__main__":
    sys.exit(main())
