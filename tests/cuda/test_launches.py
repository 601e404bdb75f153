"""What a launch is made of: the kernels' types are ones that were proven, and arguments lie where the driver looks."""

import ctypes
import json
import os
import struct
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from numba import from_dtype, types

from nconv import engine, registry
from nconv.bench import gpu
from nconv.cuda import device

PROVEN = """
import json
from nconv.cuda.specimens import specimens
print(json.dumps([[s.kernel.py_func.__name__, *map(str, s.types)] for s in specimens()]))
"""


class Layout(NamedTuple):
    rows: int
    columns: int


def test_arguments_lie_where_the_driver_looks():
    memory = device.Memory(None, 1 << 40, 7, np.dtype("i4"))
    args = (Layout(3, True), memory, 5, np.float32(2.5), 1 - 2j)
    kinds = tuple(map(device._kind, args))
    assert kinds[1] == types.int32[::1] and kinds[3] == types.float32
    parameters = device.Parameters(kinds)
    parameters.fill(args)
    pointers = (ctypes.c_void_p * len(parameters.places)).from_address(parameters.address)
    whole = [ctypes.c_int64.from_address(at).value for at in pointers[:-3]]
    assert whole == [3, 1, 0, 0, 7, 4, 1 << 40, 7, 4, 5]
    assert ctypes.c_float.from_address(pointers[-3]).value == 2.5
    assert [ctypes.c_double.from_address(at).value for at in pointers[-2:]] == [1, -2]


@pytest.mark.parametrize("wrong", [(Layout(3, 1.5), 5), (Layout(3, 1), 2.0), (Layout(3, 1), "5")])
def test_an_argument_of_another_type_is_no_launch(wrong):
    parameters = device.Parameters(tuple(map(device._kind, (Layout(3, 1), 5))))
    with pytest.raises(struct.error):
        parameters.fill(wrong)


def test_every_kernel_of_an_algorithm_is_launched_with_types_that_were_proven(monkeypatch):
    launched, algorithms, launch = set(), registry.algorithms("cuda"), device.launch

    def record(kernel, blocks, threads, stream, *args, shared=0):
        kinds = [from_dtype(a.dtype)[::1] if isinstance(a, np.ndarray) else device._kind(a) for a in args]
        launched.add((kernel.fn.__name__, *map(str, kinds)))

    for name, module in list(sys.modules.items()):
        if name.startswith("nconv.cuda") and getattr(module, "launch", None) is launch:
            monkeypatch.setattr(module, "launch", record)
    for problem in gpu.problems(0).values():
        for algorithm in algorithms:
            if not algorithm.why_not(problem):
                engine.run_algorithm(algorithm, problem, *gpu.operands(problem))
    said = subprocess.run([sys.executable, "-c", PROVEN], check=True, capture_output=True, text=True,
                          env={**os.environ, "NUMBA_ENABLE_CUDASIM": "0"})
    proven = {tuple(entry) for entry in json.loads(said.stdout)}
    of_algorithms = {entry for entry in launched if entry[0].partition("_")[0] in ("direct", "im2col", "fft", "ends")}
    assert of_algorithms
    assert sorted(of_algorithms - proven) == []
