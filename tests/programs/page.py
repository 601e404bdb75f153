"""The results as a page of the documentation."""

import platform
from pathlib import Path

from nconv.bench.measure import environment

COMMAND = "python -m tests.programs --rst docs/results/programs.rst"
_TITLE = "Programs that others wrote"
_TEXT = f"""\
Published packages run their own tests twice: with SciPy alone, and with nconv behind SciPy's functions
(`nconv.patch_scipy`). Nothing in the packages is changed. A test that passes alone has to pass behind nconv.

``{COMMAND}`` installs each package into an environment of its own and prints this table anew. Only modules with tests
that come near a convolution are run; ``tests/programs/list.py`` names them. *First* is behind nconv with nothing
compiled before, *again* with the compiled code on disk. Times are the processor's, of all threads together, start and
imports included; tests are small, so that they say what a user pays at the start, not what large data gain
(:doc:`rivals` does)."""


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [header, *rows]:
        lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
    return [*lines, ""]


def write_page(path: Path, rows: list[dict]) -> None:
    """Write the page: who was tried, what passed, who ran the calls, how long it took."""
    outcome = [[row["program"].replace("==", " "), str(row["owed"]), str(row["owed"] - len(row["broken"])),
                str(sum(row["ran"].values())), str(sum(n for *_, n in row["handed_back"])),
                *(f"{row['seconds'][run]:.0f}" for run in ("alone", "first", "again"))] for row in rows]
    names = sorted({name for row in rows for name in row["ran"]})
    by_function = [[f"``{name}``", *(str(row["ran"].get(name, 0)) for row in rows)] for name in names]
    reasons = [[row["program"].split("==")[0], f"``{function}``", reason, str(n)]
               for row in rows for function, reason, n in sorted(row["handed_back"], key=lambda entry: -entry[2])]
    machine = environment()
    about = [f"Python {platform.python_version()}", f"SciPy {', '.join(sorted({row['scipy'] for row in rows}))}",
             machine["processor"], f"{machine['threads']} threads"]
    lines = [_TITLE, "=" * len(_TITLE), "", *_TEXT.splitlines(), "", f"{', '.join(about)}.", "",
             *_table(["package", "pass alone", "of these behind nconv", "calls run by nconv", "handed back to SciPy",
                      "alone [s]", "first [s]", "again [s]"], outcome),
             "Calls run by nconv, by function:", "",
             *_table(["function", *(row["program"].split("==")[0] for row in rows)], by_function)]
    if reasons:
        lines += ["Calls handed back to SciPy, with nconv's reason:", "",
                  *_table(["package", "function", "reason", "calls"], reasons)]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
