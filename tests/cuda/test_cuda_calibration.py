"""The rates of a GPU: found from times, kept, and used, in the simulator."""

import pytest
from click.testing import CliRunner

import nconv
from nconv import calibrate, choice, machine, registry
from nconv.cli import main


@pytest.fixture(autouse=True)
def empty_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("NCONV_CACHE_DIR", str(tmp_path / "cache"))
    machine.machine.cache_clear()
    yield
    machine.machine.cache_clear()
    choice.forget_choices()


def test_rates_are_found_from_predicted_times(monkeypatch, real_blocks):
    family = machine.family("cuda")
    other = family.with_rates({name: value * 1.3 for name, value in family.rates().items() if name != "clock"})
    monkeypatch.setattr(calibrate, "_bandwidth", lambda device: other.bandwidth)
    monkeypatch.setattr(calibrate, "_time", lambda algorithm, problem: algorithm.cost(problem, other))
    found = calibrate.calibrate("cuda")
    assert found.rates() == pytest.approx(other.rates(), rel=0.1)
    assert machine.machine("cuda").rates() == found.rates() and machine.machine("cuda").measured
    assert not machine.machine().measured                                  # the processor's are another entry


def test_tune_measures_the_gpu(monkeypatch):
    probes = tuple(probe._replace(problem=probe.problem.replace(
        size=(6,) * probe.problem.rank, kernel=(3,) * probe.problem.rank, padding=((1, 1),) * probe.problem.rank,
        C=min(probe.problem.C, 2), K=min(probe.problem.K, 3))) for probe in calibrate.PROBES["cuda"])
    monkeypatch.setitem(calibrate.PROBES, "cuda", probes)
    monkeypatch.setitem(calibrate._COPIED, "cuda", 64)
    monkeypatch.setattr(calibrate, "_SECONDS", 0)
    ran = []
    for algorithm in registry.algorithms("cuda"):
        monkeypatch.setattr(algorithm, "run",
                            lambda *args, name=algorithm.NAME, run=algorithm.run: (ran.append(name), run(*args)))
    result = CliRunner().invoke(main, ["tune", "--machine", "--device", "cuda"])
    assert result.exit_code == 0, result.output
    assert set(ran) == {"direct", "im2col", "fft"}
    assert "efficiency.im2col_half" in result.output and machine.machine("cuda").measured
    result = CliRunner().invoke(main, ["tune", "convolve", "12", "3", "--device", "cuda"])
    assert result.exit_code == 0 and "im2col" in result.output, result.output
    spec = nconv.plan(nconv.convolve, nconv.ArraySpec((12,), "f4", "cuda"), nconv.ArraySpec((3,), "f4", "cuda"))
    assert all(c.measured is not None for c in spec.candidates)
    nconv.forget_wisdom()
