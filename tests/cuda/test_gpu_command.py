"""The command for a real GPU, in the simulator: its control flow, its oracle, its exit status."""

import json
import sys
import types

import numpy as np
import pytest
import reference
import scipy.ndimage
import scipy.signal
from cases import CASES, operands
from numba.cuda.simulator.api import Event

from nconv import registry
from nconv.bench import gpu, gpu_calls, gpu_rivals


@pytest.mark.parametrize("case", ["signal-filled", "image-symmetric", "layer-stride", "four_axes-plain"])
def test_its_oracle_is_the_tests_oracle(case):
    arrays = operands(CASES[case])
    np.testing.assert_allclose(gpu.expected(CASES[case], *arrays), reference.convolution(CASES[case], *arrays))


def test_it_reports_and_goes_on(tmp_path, monkeypatch, capsys):
    path = tmp_path / "gpu.json"
    options = ["--out", str(path), "--draws", "1", "--no-race", "--only", "signal f4"]
    assert gpu.main(options) == 0
    report = json.loads(path.read_text())
    assert {row["algorithm"] for row in report["correctness"]} == set(gpu.ALGORITHMS)
    assert all(row["ok"] for row in report["correctness"]) and report["wrong"] == 0
    direct, im2col, fft = registry.algorithms("cuda")
    monkeypatch.setattr(direct, "run", lambda *_: 1 / 0)
    monkeypatch.setattr(im2col, "run", lambda problem, prepared, x, bias, out: out.__setitem__((), 3))
    assert gpu.main(options) == 1
    faults = {row["algorithm"]: row for row in json.loads(path.read_text())["correctness"]}
    assert "ZeroDivisionError" in faults["direct"]["fault"]
    assert faults["im2col"]["error_over_bound"] > 1 and faults["fft"]["ok"]
    assert "WRONG direct signal f4" in capsys.readouterr().out


def test_it_checks_the_public_calls(capsys, monkeypatch):
    rows = gpu_calls.verify_calls()
    assert rows and all(row["ok"] for row in rows), [row for row in rows if not row["ok"]]
    broken = {"broken": lambda to: np.ones(1) / (to is np.asarray or 1 // 0), "wrong": lambda to: to(np.ones(1) + (
        to is np.asarray))}
    monkeypatch.setattr(gpu_calls, "calls", lambda stream: broken)
    broken_row, wrong_row = gpu_calls.verify_calls()
    assert "ZeroDivisionError" in broken_row["fault"] and not broken_row["ok"] and not wrong_row["ok"]
    assert "WRONG public calls on numba, wrong" in capsys.readouterr().out


def test_it_measures_and_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(Event, "elapsed_time", lambda *_: 1.0)               # the simulator has no clock
    monkeypatch.setattr(gpu_rivals, "rivals", lambda *_: {"slow": lambda: None, "broken": lambda: 1 / 0})
    small = gpu_rivals.Contest("images", "3x3", "ndimage.correlate", (6, 7), (3, 3), {}, 1.0)
    short = gpu_rivals.Contest("long conv1d", "5 taps", "convolve", (40,), (5,), {}, 1.0)
    wrong = gpu_rivals.Contest("dense", "wrong", "conv2d", (1, 2, 5, 5), (3, 9, 3, 3), {}, 1.0)
    report = gpu_rivals.measure(float("inf"), [small, short, wrong])
    rows = report["times"]
    assert rows[0]["seconds"] == {rows[0]["chosen"]: 1e-3} and rows[0]["rivals"] == {"slow": 1e-3}
    assert len(rows[1]["seconds"]) > 1 and rows[1]["call_seconds"] > 0 and rows[1]["of_bandwidth"] > 0
    assert [row["tf32"] for row in rows[2:]] == [False, True] and all("ValueError" in row["fault"] for row in rows[2:])
    assert report["means"] == pytest.approx({"images": 1.0, "long conv1d": 1.0})
    assert gpu_rivals.measure(0.0, [small])["times"] == []
    said = capsys.readouterr().out
    assert "out of time" in said and "goal 5: missed" in said
    families = {c.family for c in gpu_rivals.contests()}
    assert families | {"dense tf32"} == set(gpu_rivals.GOALS)


def test_a_faulty_contest_makes_the_command_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_rivals, "measure", lambda deadline: {"times": [{"fault": "none"}]})
    assert gpu.main(["--out", str(tmp_path / "gpu.json"), "--draws", "0", "--only", "signal f4"]) == 1


class Borrowed:
    """A library of the GPU played by one of the host, as far as the races use it."""

    def __init__(self, module, **more):
        self.__dict__.update(vars(module), **more)


def test_the_rivals_are_called_as_their_libraries_are(monkeypatch):
    cupy = Borrowed(np)
    modules = {"cupyx": types.ModuleType("cupyx"), "cupyx.scipy": types.ModuleType("cupyx.scipy"),
               "cupyx.scipy.ndimage": scipy.ndimage, "cupyx.scipy.signal": scipy.signal}
    modules["cupyx"].scipy = modules["cupyx.scipy"]
    modules["cupyx.scipy"].ndimage, modules["cupyx.scipy"].signal = scipy.ndimage, scipy.signal
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(gpu_rivals, "torch_here", lambda: None)
    monkeypatch.setattr(gpu_rivals, "cupy_here", lambda: cupy)
    for family, call, shape, taps in (("images", "ndimage.correlate", (8, 9), (3, 3)),
                                      ("long conv1d", "convolve", (50,), (7,))):
        x, w = np.ones(shape, "f4"), np.ones(taps, "f4")
        contest = gpu_rivals.Contest(family, "", call, shape, taps, {}, 1.0)
        found = gpu_rivals.rivals(contest, x, w, False)
        assert len(found) > 1
        for run in found.values():
            assert run().shape in (shape, (56,))
    assert gpu_rivals.on_device(np.ones(3)) is not None
