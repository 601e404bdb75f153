"""How functions become kernels."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pytest

from nconv.cpu.borrowed import borrow
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


class Inner(NamedTuple):
    weights: np.ndarray
    scale: float


class Outer(NamedTuple):
    count: int
    turned: bool
    inner: Inner
    table: np.ndarray          # of two axes


@inner_kernel
def weighed(outer, i):
    sign = -1 if outer.turned else 1
    return sign * outer.inner.scale * outer.inner.weights[i] + outer.table[i % 2, 1]


@owning_kernel
def weighed_share(outer, out, thread, threads):
    kept = np.zeros(1) + outer.count
    weights = outer.inner.weights
    for i in range(thread, out.size, threads):
        out[i] = weighed(outer, i) + kept[0] * weights[-1]


@parallel_kernel
def weighed_all(outer, out, threads):
    outer = borrow(outer)
    for thread in prange(threads):
        weighed_share(outer, out, thread, threads)


@kernel
def moved(values, flags, last, first):
    """Elements by indices of every kind, into arrays of another type."""
    values[-1] = last
    values[np.uint64(0)] = first
    values[np.int32(1)] = values[-1] + flags[-2]
    flags[0] = not flags[0]
    return values[values.size - 3]


@kernel
def spoilt(values):
    return values.there_is_no_such_field


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


@pytest.mark.parametrize("threads", [1, 2])
def test_borrowed_tuples_are_what_they_were(threads):
    outer = Outer(3, True, Inner(np.arange(6.0), 0.5), np.arange(6.0).reshape(3, 2))
    arrays = outer.inner.weights, outer.table
    counts = list(map(sys.getrefcount, arrays))
    out = np.empty(6)
    for _ in range(3):
        out[:] = np.nan
        weighed_all(outer, out, threads)
        np.testing.assert_array_equal(out, -0.5 * np.arange(6) + np.tile([1, 3], 3) + 15)
    assert list(map(sys.getrefcount, arrays)) == counts


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_elements_by_every_index(dtype):
    values, flags = np.full(5, 7, dtype), np.array([False, True, False])
    assert moved(values, flags, 2.0, 3) == 7
    assert values.tolist() == [3, 3, 7, 7, 2] and flags.tolist() == [True, True, False]
    complex_values = values.astype(complex)
    assert moved(complex_values, flags, 2.0, 3) == 7 and complex_values[1] == 3


def test_what_does_not_compile_leaves_numba_as_it_was():
    rules = numba.types.Function.get_call_type
    with pytest.raises(numba.TypingError, match="there_is_no_such_field"):
        spoilt(np.zeros(3))
    assert numba.types.Function.get_call_type is rules
