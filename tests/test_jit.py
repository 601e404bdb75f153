"""How functions become kernels."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from nconv.jit import inner_kernel, kernel, owning_kernel, parallel_kernel, prange, settled, stay_a_function


@owning_kernel
def third(values, i):
    """Allocates, divides, branches: code with an environment, errors and references of its own."""
    copy = np.zeros(3)
    copy[:] = values[i]
    return copy.sum() / 3 if i else copy[0]


@inner_kernel
def add_third(values, i, more):
    return third(values, i) + more


@inner_kernel
def called(value):
    stay_a_function()
    return value + 1


@inner_kernel
def taken_in(value):
    return value + 2


@numba.njit
def three_more(value):
    return called(taken_in(value))


@parallel_kernel
def thirds(values, out, threads):
    for thread in prange(threads):
        for i in range(thread, values.size, threads):
            out[i] = add_third(values, i, 0) + add_third(values, i, 1) - 1


@kernel
def first_third(values):
    return add_third(values, 0, 0)


@kernel
def twice_first(values):
    return 2 * first_third(values)


@numba.njit
def users_own(values):
    return add_third(values, 1, 1)


def test_kernels_are_built_from_parts():
    values, out = np.arange(8.0), np.empty(8)
    for threads in (1, 2):
        out[:] = np.nan
        thirds(values, out, threads)
        np.testing.assert_array_equal(out, 2 * values)


def test_kernels_call_kernels():
    values = np.array([7.0, 2.0])
    assert twice_first(values) == 14
    assert first_third(values) == 7


def test_parts_serve_code_that_is_compiled_elsewhere():
    values = np.arange(4.0)
    first_third(values)
    assert users_own(values) == 2


def test_a_part_can_stay_a_function():
    assert three_more(1) == 4
    (assembly,) = three_more.inspect_asm().values()
    bodies = [line for line in assembly.splitlines() if line.startswith("_ZN") and line.endswith(":")]
    assert any("called" in line for line in bodies)
    assert not any("taken_in" in line for line in bodies)


def test_parts_have_no_entry():
    with pytest.raises(TypeError, match="add_third is a part of kernels"):
        add_third(np.arange(4.0), 0, 0)


def test_a_number_in_a_call_compiles_nothing_more():
    first_third(np.arange(4.0))
    assert not any(isinstance(kind, numba.types.Literal) for signature in add_third.signatures for kind in signature)


def test_a_kernel_loaded_as_part_of_another_keeps_its_entry(tmp_path):
    """The first process leaves the called kernel on disk; the second loads it while it compiles the caller."""
    programs = ("assert first_third(values) == 7", "assert twice_first(values) == 14; assert first_third(values) == 7")
    for program in programs:
        subprocess.run(
            [sys.executable, "-c", f"from tests.test_jit import *; values = np.array([7.0, 2.0]); {program}"],
            check=True, cwd=Path(__file__).parents[1], env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})


@pytest.mark.parametrize("threads", [1, 2])
def test_a_settled_kernel_asks_for_types_once(threads, monkeypatch):
    values, expected = np.arange(7.0), np.zeros(7)
    thirds(values, expected, threads)
    call, out = settled(thirds), np.zeros(7)
    frozen = values.copy()
    frozen.flags.writeable = False
    call(values, out, threads)                              # it may be the only one
    call(frozen, out, threads)                              # of another type: not the one to settle on
    call(values, out, threads)
    side = "parallel" if threads > 1 else "serial"
    monkeypatch.setattr(thirds, side, lambda *_: pytest.fail("types were asked for again"))
    for array in (values, frozen):
        out[:] = 0
        call(array, out, threads)
        np.testing.assert_array_equal(out, expected)


def test_a_settled_kernel_takes_the_serial_code_where_threads_may_not_start(monkeypatch):
    values, expected, out = np.arange(7.0), np.zeros(7), np.zeros(7)
    thirds(values, expected, 1)
    call = settled(thirds)
    call(values, out, 2)
    monkeypatch.setattr("nconv.threads.may_start", lambda: False)
    monkeypatch.setattr(thirds, "parallel", lambda *_: pytest.fail("threads were started"))
    for _ in range(2):
        out[:] = 0
        call(values, out, 2)
        np.testing.assert_array_equal(out, expected)


def test_parts_that_one_function_makes_have_names_of_their_own():
    """One of a kernel from the disk would else be taken for another's, compiled by another program."""
    def made(n):
        @inner_kernel
        def add(x):
            return x + n

        return add

    parts = list(map(made, range(3)))
    assert len({part.py_func.__qualname__ for part in parts}) == 3
    assert {part.py_func.__module__ for part in parts} == {__name__}
