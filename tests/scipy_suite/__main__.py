"""Runs SciPy's tests alone and behind nconv, and fails if any that passes alone does not pass behind nconv.

    python -m tests.scipy_suite [-n PROCESSES] [pytest arguments, such as -k oaconvolve]

The tests are those that SciPy's wheel ships. Arguments that are not ours go to pytest, in both runs.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
import tempfile
from collections import Counter
from pathlib import Path

from . import outcomes

MODULES = ("scipy.signal.tests.test_signaltools", "scipy.signal.tests.test_savitzky_golay",
           "scipy.ndimage.tests.test_filters")
FUNCTIONS = ("scipy.signal.convolve", "scipy.signal.correlate", "scipy.signal.fftconvolve", "scipy.signal.oaconvolve",
             "scipy.signal.convolve2d", "scipy.signal.correlate2d", "scipy.signal.choose_conv_method",
             "scipy.ndimage.convolve", "scipy.ndimage.correlate", "scipy.ndimage.convolve1d",
             "scipy.ndimage.correlate1d")


def run(folder: Path, processes: str, extra: list[str], behind_nconv: bool) -> dict:
    """One run of SciPy's tests."""
    rootdir = Path(importlib.util.find_spec("scipy").origin).parent         # names the modules in the tests' names
    try:
        report = outcomes.run(MODULES, python=sys.executable, rootdir=rootdir, folder=folder,
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
        alone = run(Path(folder), options.processes, extra, behind_nconv=False)
        behind = run(Path(folder), options.processes, extra, behind_nconv=True)

    owed, broken = outcomes.owed(alone), outcomes.broken(alone, behind)
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
