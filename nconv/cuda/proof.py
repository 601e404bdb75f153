"""What can be proven of the kernels without a GPU: ``python -m nconv.cuda.proof``.

Every kernel is compiled to PTX for two compute capabilities and assembled with ptxas, which says how many registers and
how much shared memory a thread and a block need, and whether anything spills. The table goes to the output; the exit
status is 1 where a kernel spills or uses local memory beyond what its specimen names, needs more than its launch
allows, or lacks the instructions that its inner loop is written for. Words as arguments choose kernels by name. Needs
``pip install "nconv[cuda]" nvidia-cuda-nvcc``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CAPABILITIES = ((8, 0, ""), (9, 0, "a"))      # as Numba compiles for them: from 9.0 on with what that GPU alone has
REGISTERS = 65536                     # of a multiprocessor
STATIC_SHARED, ASKED_SHARED = 48 * 1024, 163 * 1024    # bytes of a block; where it asks, on those GPUs


@dataclass(frozen=True)
class Specimen:
    """One kernel for one set of types, and what is expected of it."""

    name: str
    kernel: Any
    types: tuple
    threads: int = 256                # of a block
    blocks: int = 1                   # that a multiprocessor should hold at once, as far as registers go
    shared: int = 0                   # bytes asked for at launch
    fma: int = 0                      # fused multiplications that the inner loop is unrolled to, at least
    wide_loads: int = 0               # 128-bit loads, at least
    tensor: int = 0                   # tensor-core instructions, at least
    spills: int = 0                   # bytes that it may spill: measured to be faster than fewer threads
    capabilities: tuple = CAPABILITIES    # that the kernel is for


def ptxas() -> str:
    """Path of the assembler: that of the pip package, which fits Numba's PTX, else the one on the path."""
    spec = find_spec("nvidia")
    for root in spec.submodule_search_locations if spec else ():
        for path in sorted(Path(root).glob("*/bin/ptxas*")):
            return str(path)
    if found := shutil.which("ptxas"):
        return found
    raise FileNotFoundError("ptxas was not found; pip install nvidia-cuda-nvcc")


def library(specimen: Specimen) -> Any:
    """The kernel as LLVM's code, from which Numba makes PTX for each capability; most of the time goes here."""
    from numba.cuda import compiler, dispatcher

    # Numba asks the driver for the capability even where it is given, once for each block function.
    asked, capability = dispatcher.get_current_device, specimen.capabilities[0]
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        # What `cuda.compile_ptx` does before it asks for the PTX of one capability.
        return compiler._compile_pyfunc_with_fixup(
            specimen.kernel.py_func, specimen.types, device=False, abi="numba", cc=capability,
            launch_bounds=specimen.kernel.targetoptions.get("launch_bounds"))[0]
    finally:
        dispatcher.get_current_device = asked


def examine(specimen: Specimen, code: Any, capability: tuple[int, int, str], assembler: str) -> dict[str, int]:
    """Make PTX of a kernel's `library`, assemble, count."""
    ptx = code.get_asm_str(cc=capability)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        said = subprocess.run(
            [assembler, "-v", "-arch=sm_{}{}{}".format(*capability), str(source), "-o", str(source) + ".cubin"],
            capture_output=True, text=True, check=False)
    if said.returncode:
        raise RuntimeError(f"ptxas refuses {specimen.name}: {said.stderr.strip()[:500]}")

    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, said.stderr)))

    return {
        "registers": max(map(int, re.findall(r"Used (\d+) registers", said.stderr)), default=0),
        "shared": number(r"(\d+) bytes smem") + specimen.shared,
        "spills": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        "stack": number(r"(\d+) bytes stack frame"),
        "fma": len(re.findall(r"\bfma\.rn", ptx)),
        "wide_loads": len(re.findall(r"\bld\.\w+(?:\.nc)?\.v4\.[fbu]32|\bld\.\w+(?:\.nc)?\.v2\.[fbu]64", ptx)),
        "tensor": len(re.findall(r"\bmma\.sync|\bwgmma\.mma_async", ptx)),
    }


def faults(specimen: Specimen, found: dict[str, int]) -> list[str]:
    """What is not as it should be, in words."""
    shared = ASKED_SHARED if specimen.shared else STATIC_SHARED
    allowed = min(REGISTERS // (specimen.threads * specimen.blocks), 255)
    return [text for wrong, text in (
        (found["spills"] > specimen.spills, f"{found['spills']} bytes spilled"),
        (found["stack"] > specimen.spills, f"{found['stack']} bytes of local memory"),
        (found["registers"] > allowed, f"{found['registers']} registers, {allowed} allowed"),
        (found["shared"] > shared, f"{found['shared']} bytes of shared memory, {shared} allowed"),
        (found["fma"] < specimen.fma, f"{found['fma']} FMA, {specimen.fma} expected"),
        (found["wide_loads"] < specimen.wide_loads,
         f"{found['wide_loads']} 128-bit loads, {specimen.wide_loads} expected"),
        (found["tensor"] < specimen.tensor, f"{found['tensor']} mma, {specimen.tensor} expected"),
    ) if wrong]


def _kept(found: dict[str, int]) -> str:
    """The note of a kernel that is as it should be."""
    return f"ok, {found['spills']} bytes spilled" if found["spills"] else "ok"


def lines(index: int) -> list[tuple[bool, str]]:
    """(whether all is well, the table's line) of a specimen for each capability; runs in a process of its own."""
    from .specimens import specimens

    specimen = list(specimens())[index]
    result, code = [], None
    for capability in specimen.capabilities:
        label = f"{specimen.name:<56}{capability[0]}.{capability[1]:<3}"
        try:
            code = code or library(specimen)
            found = examine(specimen, code, capability, ptxas())
        except Exception as error:                     # one kernel's fault must not hide the others'
            result.append((False, f"{label}{'-':>9}  {type(error).__name__}: {' '.join(str(error).split())[:300]}"))
            continue
        notes = faults(specimen, found)
        result.append((not notes, f"{label}{found['registers']:>10}{found['shared']:>8}{found['fma']:>6}"
                                  f"{found['wide_loads']:>8}{found['tensor']:>5}  {'; '.join(notes) or _kept(found)}"))
    return result


_PAGE = """The GPU's kernels as machine code
=================================

Assembled by ``ptxas``, without a GPU; {versions}. The command that writes this page (``make prove-cuda`` prints the
table):

.. code-block:: console

   $ python -m nconv.cuda.proof --rst docs/results/gpu-kernels.rst

A kernel's name is followed by the types that it reads and writes, and by sizes that it is compiled for. Registers are a
thread's, shared memory (bytes) is that of a block of 256 threads. Instructions are counted in the PTX: fused
multiplications, 128-bit loads, products on tensor cores.

.. code-block:: text

{table}
"""


def page(table: list[str]) -> str:
    """The table as a page of the documentation."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("numba-cuda", "nvidia-cuda-nvcc"))
    return _PAGE.format(versions=versions, table="\n".join(f"   {line}" for line in table))


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 where anything is wrong."""
    from .specimens import specimens

    parser = argparse.ArgumentParser(prog="python -m nconv.cuda.proof", description=__doc__.split("\n\n")[0])
    parser.add_argument("words", nargs="*", help="only kernels whose name holds one of these")
    parser.add_argument("--rst", help="also write the table as a page of the documentation")
    options = parser.parse_args(arguments)
    chosen = [i for i, s in enumerate(specimens())
              if not options.words or any(word in s.name for word in options.words)]
    ptxas()                                            # its absence is one error, not one a kernel
    table = [f"{'kernel':<56}{'cc':>5}{'registers':>11}{'shared':>8}{'fma':>6}{'ld.128':>8}{'mma':>5}  note"]
    print(table[0])
    wrong = 0
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for well, text in chain.from_iterable(pool.map(lines, chosen)):
            wrong += not well
            table.append(text)
            print(text, flush=True)
    assembled = len(table) - 1
    table.append(f"{wrong} of {assembled} wrong" if wrong else f"{assembled} assembled, no spills but those noted")
    print(table[-1])
    if options.rst:
        Path(options.rst).write_text(page(table), encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
