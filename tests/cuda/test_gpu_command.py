"""The command for a real GPU, in the simulator: its control flow, its oracle, its exit status."""

import json

import numpy as np
import pytest
import reference
from cases import CASES, operands

from nconv import registry
from nconv.bench import gpu, gpu_rivals


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


def test_it_measures_and_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(gpu_rivals, "seconds", lambda run: (run(), 1e-3)[1])
    monkeypatch.setattr(gpu_rivals, "rivals", lambda *_: {"slow": lambda: None, "broken": lambda: 1 / 0})
    small = gpu_rivals.Contest("images", "3x3", "ndimage.correlate", (6, 7), (3, 3), {}, 1.0)
    wrong = gpu_rivals.Contest("dense", "wrong", "conv2d", (1, 2, 5, 5), (3, 9, 3, 3), {}, 1.0)
    rows = gpu_rivals.measure(float("inf"), [small, wrong])["times"]
    assert rows[0]["chosen"] in rows[0]["seconds"] and rows[0]["rivals"] == {"slow": 1e-3}
    assert [row["tf32"] for row in rows[1:]] == [False, True] and all("ValueError" in row["fault"] for row in rows[1:])
    assert gpu_rivals.measure(0.0, [small])["times"] == []
    assert "out of time" in capsys.readouterr().out
    assert {c.family for c in gpu_rivals.contests()} >= {"dense", "images", "long conv1d"}
