"""What a call holds in memory at its peak, beside rivals: ``python -m nconv.bench.held``.

Linux only: the system's own count of the pages that the process holds, set back before each call.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..geometry import product
from .cases import CASES, SWEEPS, Case
from .measure import AUTO, environment
from .rivals import RIVALS, prepare

_FROM = 8 << 20                # bytes of input and output: below, the pages of code that a first call reads outweigh it
ALLOWED = 64 << 20             # bytes beside twice the input and the output


def peak_memory() -> int | None:
    """Largest number of bytes that this process has held in memory, code and shared libraries among them."""
    return _status("VmHWM")


def _status(entry: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{entry}:"))


def held_by(run: Callable[[], Any]) -> int:
    """Bytes that a call holds at its peak beside what was held before it, its result among them.

    Raises
    ------
    OSError
        Where the system does not count so.
    """
    run()                                              # compiles, loads libraries
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)                   # what was freed but kept would be taken again unseen
    Path("/proc/self/clear_refs").write_text("5")      # sets the peak back
    before = _status("VmRSS") or 0
    result = run()
    peak = peak_memory() or 0
    del result
    return peak - before


def measure(case: Case, dtype: str, rivals: Iterable[str] = RIVALS) -> dict[str, Any]:
    """Bytes of the arrays, and what nconv and each rival hold beside their inputs."""
    x, weight = case.arrays(dtype)
    result = case.ours(x, weight)
    arrays = x.nbytes + weight.nbytes + result.nbytes
    output = result.nbytes
    del result
    runs = {AUTO: lambda: case.ours(x, weight)}
    runs |= {name: run for name in rivals if (run := prepare(name, case, x, weight))}
    return {"name": f"{case.family}: {case.name}", "dtype": dtype, "arrays": arrays, "output": output,
            "held": {name: held_by(run) for name, run in runs.items()}}


def cases(dtype: str) -> list[Case]:
    """Those of `nconv bench` and of its sweeps that are large enough to count, none twice."""
    every = {(case.x, case.weight): case for case in (*CASES, *chain.from_iterable(SWEEPS.values()))}
    return [case for case in every.values() if 2 * product(case.x) * np.dtype(dtype).itemsize >= _FROM]


def over(record: dict[str, Any]) -> float:
    """What nconv holds, its inputs included, over what it may: twice input and output and 64 MiB."""
    return (record["held"][AUTO] + record["arrays"] - record["output"]) / (2 * record["arrays"] + ALLOWED)


def _cells(record: dict[str, Any]) -> list[str]:
    mib = {name: f"{held / 2**20:.0f}" for name, held in record["held"].items()}
    rivals = [name for name in mib if name != AUTO]
    return [record["name"], f"{record['arrays'] / 2**20:.0f}", f"{record['output'] / 2**20:.0f}", mib[AUTO],
            ", ".join(f"{name} {mib[name]}" for name in rivals) or "none"]


def write_rst(path: str, command: str, records: list[dict[str, Any]]) -> None:
    """The table as a page of the documentation."""
    title = "Memory: what a call holds at its peak"
    heads = ["problem", "input and output [MiB]", "output alone", "nconv", "rivals"]
    lines = [title, "=" * len(title), "", f"``{command}``", "",
             ", ".join(f"{name} {value}" for name, value in environment().items()) + ".", "",
             "MiB that a call holds at its peak beside what was held before it, its result included.", "",
             ".. list-table::", "   :header-rows: 1", ""]
    for row in [heads, *map(_cells, records)]:
        lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


@click.command()
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float64"]))
@click.option("--rst", "rst_path", type=click.Path(dir_okay=False), help="Also write a page for the documentation.")
def main(dtype: str, rst_path: str | None) -> None:
    """Print what nconv and its rivals hold at their peak on large problems; exit with 1 if nconv holds too much.

    Example: python -m nconv.bench.held --dtype float64
    """
    from rich.progress import track

    records = [measure(case, dtype) for case in track(cases(dtype), "measuring")]
    for record in records:
        click.echo("{:<45} arrays {:>5}  output {:>4}  nconv {:>5}  rivals: {}".format(*_cells(record)))
    worst = max(records, key=over)
    click.echo(f"nconv holds at most {over(worst):.2f} of twice input and output and 64 MiB: {worst['name']}")
    if rst_path:
        write_rst(rst_path, f"python -m nconv.bench.held --dtype {dtype}", records)
    if over(worst) > 1:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
