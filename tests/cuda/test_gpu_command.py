"""The command for a real GPU, in the simulator: its control flow, its oracle, its exit status."""

import contextlib
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
from nconv.bench.isolated import attempt


@pytest.mark.parametrize("case", ["signal-filled", "image-symmetric", "layer-stride", "four_axes-plain"])
def test_its_oracle_is_the_tests_oracle(case):
    arrays = operands(CASES[case])
    np.testing.assert_allclose(gpu.expected(CASES[case], *arrays), reference.convolution(CASES[case], *arrays))


class Here:
    """Workers in this process, where tests can change what they do."""

    lost = 0

    def __init__(self, module, count=1):
        assert module == gpu.MODULE and count == gpu.PROCESSES

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, *request, limit):
        assert limit > 0
        return json.loads(json.dumps(attempt(gpu.answer, *request)))


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(gpu, "Crew", Here)


def test_rows_run_in_a_process_of_their_own(tmp_path):
    path = tmp_path / "gpu.json"
    assert gpu.main(["--out", str(path), "--draws", "0", "--no-race", "--only", "signal f4"]) == 0
    report = json.loads(path.read_text())
    assert [row["algorithm"] for row in report["correctness"]] == list(gpu.ALGORITHMS)
    assert all(row["ok"] for row in report["correctness"])
    assert report["finished"] and report["wrong"] == 0 and report["device"] == "simulator"


def test_it_reports_and_goes_on(tmp_path, monkeypatch, capsys, here):
    path = tmp_path / "gpu.json"
    direct, im2col, fft = registry.algorithms("cuda")
    monkeypatch.setattr(direct, "run", lambda *_: 1 / 0)
    monkeypatch.setattr(im2col, "run", lambda problem, prepared, x, bias, out: out.__setitem__((), 3))
    assert gpu.main(["--out", str(path), "--draws", "0", "--no-race", "--only", "signal f4,signal f2"]) == 1
    report = json.loads(path.read_text())
    faults = [row for row in report["correctness"] if row["algorithm"] == "direct"]
    assert "ZeroDivisionError" in faults[0]["fault"] and "test_gpu_command.py" in faults[0]["traceback"]
    assert "traceback" not in faults[1] and report["wrong"] == 4
    others = {row["algorithm"]: row for row in report["correctness"][:3]}
    assert others["im2col"]["error_over_bound"] > 1 and others["fft"]["ok"]
    assert "WRONG direct, signal f4" in capsys.readouterr().out


def test_what_is_known_is_on_disk_when_it_is_stopped(tmp_path, monkeypatch, here):
    path, ask = tmp_path / "gpu.json", Here.ask

    def stopped(self, *request, limit):
        if request[-1] == "fft":
            raise KeyboardInterrupt
        return ask(self, *request, limit=limit)

    monkeypatch.setattr(Here, "ask", stopped)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--out", str(path), "--draws", "0", "--no-race", "--only", "signal f4"])
    report = json.loads(path.read_text())
    assert len(report["correctness"]) == 2 and not report["finished"]


def test_it_checks_the_public_calls(capsys, monkeypatch, tmp_path, here):
    names = list(gpu_calls.calls(contextlib.nullcontext))
    rows = [gpu_calls.verify_call("numba", name) for name in names]
    assert rows and all(row["ok"] for row in rows), rows
    broken = {"broken": lambda to: np.ones(1) / (to is np.asarray or 1 // 0), "wrong": lambda to: to(np.ones(1) + (
        to is np.asarray))}
    monkeypatch.setattr(gpu_calls, "calls", lambda stream: broken)
    run = gpu.Run(Here(gpu.MODULE), str(tmp_path / "gpu.json"))
    gpu.public_calls(run)
    broken_row, wrong_row = run.report["correctness"]
    assert "ZeroDivisionError" in broken_row["fault"] and not broken_row["ok"] and not wrong_row["ok"]
    assert "WRONG public calls on numba, wrong" in capsys.readouterr().out


def test_it_measures_and_goes_on(monkeypatch, capsys, tmp_path, here):
    families = {c.family for c in gpu_rivals.contests()}
    assert families | {"dense tf32"} == set(gpu_rivals.GOALS)
    monkeypatch.setattr(Event, "elapsed_time", lambda *_: 1.0)               # the simulator has no clock
    monkeypatch.setattr(gpu_rivals, "rivals", lambda *_: {"slow": lambda: None, "broken": lambda: 1 / 0})
    small = gpu_rivals.Contest("images", "3x3", "ndimage.correlate", (6, 7), (3, 3), {}, 1.0)
    short = gpu_rivals.Contest("long conv1d", "5 taps", "convolve", (40,), (5,), {}, 1.0)
    wrong = gpu_rivals.Contest("dense", "wrong", "conv2d", (1, 2, 5, 5), (3, 9, 3, 3), {}, 1.0)
    monkeypatch.setattr(gpu_rivals, "contests", lambda: [small, short, wrong])
    path = tmp_path / "gpu.json"
    assert gpu.main(["--out", str(path), "--draws", "0", "--only", "signal f4"]) == 1
    report = json.loads(path.read_text())
    rows = report["times"]
    assert rows[0]["seconds"] == {rows[0]["chosen"]: 1e-3} and rows[0]["rivals"] == {"slow": 1e-3}
    assert len(rows[1]["seconds"]) > 1 and rows[1]["call_seconds"] > 0 and rows[1]["of_bandwidth"] > 0
    assert [row["tf32"] for row in rows[2:]] == [False, True] and all("ValueError" in row["fault"] for row in rows[2:])
    assert report["means"] == pytest.approx({"images": 1.0, "long conv1d": 1.0}) and report["wrong"] == 2
    assert "goal 5: missed" in capsys.readouterr().out
    run = gpu.Run(Here(gpu.MODULE), str(path), seconds=0)
    gpu.race(run)
    assert "times" not in run.report and "out of time" in capsys.readouterr().out


def test_a_race_that_is_cut_short_has_met_every_family():
    entries = [(i, contest, False) for i, contest in enumerate(gpu_rivals.contests())]
    met = [contest.family for _, contest, _ in gpu._in_rounds(entries)]
    families = {contest.family for _, contest, _ in entries}
    assert sorted(met[:len(families)]) == sorted(families) and len(met) == len(entries)
    assert [i for i, contest, _ in gpu._in_rounds(entries) if contest.family == "dense"] == [
        i for i, contest, _ in entries if contest.family == "dense"]


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
