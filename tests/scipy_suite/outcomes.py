"""One run of somebody's tests in a process of its own, alone or behind nconv, and what differs between two runs."""

import json
import os
import subprocess
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


class NotRun(Exception):
    """pytest ended before it could run the tests; the text says why."""


def run(tests, *, python, rootdir, folder, behind_nconv, arguments=()) -> dict:
    """Outcomes, texts of failures, counts of calls and seconds of one run.

    The seconds are the processor's, summed over threads, so that what else the machine does is not counted; where the
    system does not tell them (Windows) those that went by.

    `tests` are what pytest takes, with its ``--pyargs``; `rootdir` names them; `folder` takes the caches, and is where
    the tests run.
    """
    result = folder / f"outcomes-{behind_nconv}.json"
    result.unlink(missing_ok=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH")))),
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR") or str(folder / "numba"),
        "NCONV_CACHE_DIR": os.environ.get("NCONV_CACHE_DIR") or str(folder / "nconv"),
    }
    environment.pop("SCIPY_ARRAY_API", None)
    command = [python, "-m", "pytest", "-c", os.devnull, "--rootdir", str(rootdir), "-p", "no:cacheprovider",
               "-p", "scipy_suite.plugin", "-q", "--tb=short", "--disable-warnings", "--outcomes", str(result),
               *(["--behind-nconv"] if behind_nconv else []), *arguments, "--pyargs", *tests]
    start = _seconds()
    output = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if not result.exists() or output.returncode not in (0, 1):
        raise NotRun(f"{output.stdout[-5000:]}{output.stderr[-5000:]}\npytest ended with status {output.returncode}")
    return json.loads(result.read_text()) | {"seconds": _seconds() - start}


def _seconds() -> float:
    """Processor time of all processes that this one has started and seen end."""
    spent = os.times()
    return spent.children_user + spent.children_system if os.name == "posix" else time.perf_counter()


def passed(report: dict) -> set[str]:
    """The tests of a run that passed."""
    return {test for test, outcome in report["outcomes"].items() if outcome == "passed"}


def broken(alone: dict, behind: dict) -> list[str]:
    """The tests that pass alone, as they would have to behind nconv, and do not pass there."""
    return sorted(passed(alone) - passed(behind))
