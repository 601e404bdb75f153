"""Runs other people's tests alone and behind nconv, and fails if any that passes alone does not pass behind nconv.

    python -m tests.programs [--folder FOLDER] [--rst PAGE] [NAME ...]

Each package is installed from the package index into an environment of its own, with nconv from this folder. Its tests
run three times: alone, behind nconv with nothing compiled, and again. Only tests that come near a convolution are
run: `list.py` names them. Takes half an hour or more, most of it in the packages' own tests.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from pathlib import Path

from ..scipy_suite import outcomes
from .list import PROGRAMS, Program
from .page import write_page

ROOT = outcomes.TESTS.parent
_ABOUT = """
import importlib.metadata, json, sysconfig
print(json.dumps([sysconfig.get_path("platlib"), importlib.metadata.version("scipy")]))
"""


def install(program: Program, folder: Path) -> tuple[str, Path, str]:
    """(interpreter, folder of the installed packages, version of SciPy) of a program's environment, made if missing."""
    home = folder / program.name / "venv"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = home / ".requirements"
    wanted = "\n".join(program.requirements)
    if not done.exists() or done.read_text() != wanted:
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "pytest",
                        *program.requirements, "--editable", ROOT], check=True)
        done.write_text(wanted)
    site, scipy = json.loads(subprocess.check_output([python, "-c", _ABOUT], text=True))
    return str(python), Path(site), scipy


def attempt(program: Program, folder: Path) -> dict:
    """One line of the table: what one program's tests say."""
    print(f"{program.requirements[0]}: ", end="", flush=True)
    (folder / program.name).mkdir(parents=True, exist_ok=True)
    python, site, scipy = install(program, folder)
    home = folder / program.name
    reports = {}
    with tempfile.TemporaryDirectory(prefix="run-", dir=home) as scratch:
        for run, behind in (("alone", False), ("first", True), ("again", True)):
            reports[run] = outcomes.run(program.tests, python=python, rootdir=site, folder=Path(scratch),
                                        behind_nconv=behind, arguments=program.offline)
            counts = Counter(reports[run]["outcomes"].values())
            print(f"{run} {counts['passed']} passed, {reports[run]['seconds']:.0f} s; ", end="", flush=True)
    broken = sorted({*outcomes.broken(reports["alone"], reports["first"]),
                     *outcomes.broken(reports["alone"], reports["again"])})
    calls = sum(reports["again"]["ran"].values())
    print(f"{calls} calls run by nconv, {len(broken)} broken", flush=True)
    for test in broken:
        texts = [reports[run]["failures"].get(test) for run in ("first", "again")]
        print(f"\n--- {program.name} {test}\n{next(filter(None, texts), 'not run')}")
    return {"program": program.requirements[0], "scipy": scipy, "broken": broken,
            "passed": {run: Counter(r["outcomes"].values())["passed"] for run, r in reports.items()},
            "owed": len(outcomes.passed(reports["alone"])),
            "seconds": {run: r["seconds"] for run, r in reports.items()},
            "ran": reports["again"]["ran"], "handed_back": reports["again"]["handed_back"]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.programs", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(p.name for p in PROGRAMS)}; all")
    parser.add_argument("--folder", type=Path, help="keeps the environments for the next time")
    parser.add_argument("--json", type=Path, help="takes all figures")
    parser.add_argument("--rst", type=Path, help="takes the table, as a page of the documentation")
    options = parser.parse_args()
    unknown = set(options.names) - {p.name for p in PROGRAMS}
    if unknown:
        parser.error(f"unknown program: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="nconv-programs-") as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        rows, not_run = [], []
        for program in PROGRAMS:
            if program.name in options.names or not options.names:
                try:
                    rows.append(attempt(program, folder))
                except (outcomes.NotRun, subprocess.CalledProcessError) as error:
                    print(f"not run: {error}", flush=True)
                    not_run.append(program.name)
    if options.json:
        options.json.write_text(json.dumps({"python": platform.python_version(), "rows": rows}, indent=1) + "\n")
    if options.rst:
        write_page(options.rst, rows)
    idle = [row["program"] for row in rows if not sum(row["ran"].values())]
    if idle:
        print(f"nconv never ran in {', '.join(idle)}: nothing was proven there")
    return bool(not_run or idle or any(row["broken"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
