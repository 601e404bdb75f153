"""What is kept from one program to the next: readable, shared, and never a reason to fail."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from click.testing import CliRunner

import nconv
from nconv import calibrate, choice, machine, registry, store, wisdom
from nconv.cli import main

X, W = np.arange(30.0), np.arange(5.0)


@pytest.fixture(autouse=True)
def empty_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("NCONV_CACHE_DIR", str(tmp_path / "cache"))

    def forget():
        wisdom.forget()
        machine.machine.cache_clear()
        choice.forget_choices()

    forget()
    yield
    forget()


def test_wisdom_goes_from_file_to_file(tmp_path):
    problem = nconv.plan(nconv.convolve, X, W).problem
    wisdom.remember(problem, nconv.get_num_threads(), {"direct": 1e-9, "im2col": 1.0})
    assert nconv.export_wisdom(tmp_path / "copy.json") == 1
    nconv.forget_wisdom()
    assert not wisdom.path().exists()
    assert nconv.plan(nconv.convolve, X, W).method == "small"
    assert nconv.import_wisdom(tmp_path / "copy.json") == 1
    assert nconv.plan(nconv.convolve, X, W).method == "direct"
    assert json.loads(wisdom.path().read_text())["format"] == wisdom._FORMAT


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 0, "seconds": {}}', '{"format": 1, "seconds": [1]}'])
def test_what_is_no_wisdom_is_refused_and_changes_nothing(content, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json holds no wisdom"):
        nconv.import_wisdom(tmp_path / "bad.json")
    assert nconv.export_wisdom(tmp_path / "copy.json") == 0


def test_writers_lose_nothing_of_each_other():
    problem = nconv.plan(nconv.convolve, X, W).problem
    jobs = [threading.Thread(target=wisdom.remember, args=(problem, n, {"direct": 1.0})) for n in range(12)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    wisdom.forget()
    assert all(wisdom.recall(problem, n) for n in range(12))
    assert [path.name for path in store.folder().iterdir()] == [wisdom.path().name]


def test_the_command_line_carries_wisdom_and_deletes_it(tmp_path):
    def run(*arguments):
        result = CliRunner().invoke(main, ["wisdom", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    wisdom.remember(nconv.plan(nconv.convolve, X, W).problem, 1, {"direct": 1.0})
    copy = str(tmp_path / "copy.json")
    assert run("export", copy) == "exported 1 problem\n"
    run("delete")
    assert not wisdom.path().exists()
    assert run("import", copy) == "imported 1 problem\n"
    assert wisdom.recall(nconv.plan(nconv.convolve, X, W).problem, 1) == {"direct": 1.0}
    assert CliRunner().invoke(main, ["wisdom", "export"]).exit_code == 2
    result = CliRunner().invoke(main, ["wisdom", "import", str(tmp_path / "none.json")])
    assert result.exit_code == 1 and "none.json" in result.output


def test_processes_that_write_at_once_lose_nothing_of_each_other():
    program = """
import sys
from nconv import store
path = store.folder() / "shared.json"
for i in range(5):
    with store.turn(path):
        known = store.load(path, 1, "seconds", dict)
        store.save(path, 1, "seconds", {**known, f"{sys.argv[1]}-{i}": 1.0})
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(n)]) for n in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert len(store.load(store.folder() / "shared.json", 1, "seconds", dict)) == 20


def test_rates_are_found_from_predicted_times(monkeypatch):
    """The probes' times are those that the models predict for other rates: these must come out."""
    family = machine.Machine()
    sought = {"bandwidth", *(probe.rate for probe in calibrate.PROBES["cpu"])}            # the clock is not among them
    other = family.with_rates({name: value * 1.3 for name, value in family.rates().items()
                               if name.partition(".")[0] in sought})
    monkeypatch.setattr(calibrate, "_bandwidth", lambda device: other.bandwidth)
    monkeypatch.setattr(calibrate, "_time", lambda algorithm, problem: algorithm.cost(problem, other))
    found = calibrate.calibrate()
    assert machine.machine().rates() == found.rates() and machine.machine().measured
    for probe in calibrate.PROBES["cpu"]:
        algorithm = next(a for a in registry.algorithms() if probe.algorithm == a.NAME)
        expected = algorithm.cost(probe.problem, other)
        assert algorithm.cost(probe.problem, found) == pytest.approx(expected, rel=0.01), probe.rate


@pytest.mark.parametrize("content", ["{", '{"format": 2, "machines": {"NAME": {"date": "", "rates": {"call": -1}}}}'])
def test_bad_rates_are_ignored_with_a_warning(content):
    store.folder().mkdir(parents=True)
    machine.path().write_text(content)
    with pytest.warns(UserWarning, match="not readable"):
        assert machine.machine() == machine.Machine()


def test_a_gpu_is_not_measured_where_there_is_none(monkeypatch):
    monkeypatch.setattr("nconv.cuda.device.fault", lambda: "there is none; buy one")
    for arguments in (["--machine"], ["convolve", "40", "5"]):
        result = CliRunner().invoke(main, ["tune", *arguments, "--device", "cuda"])
        assert result.exit_code == 1
        assert result.output.strip() == "nconv: DeviceError: no GPU can be used: there is none; buy one"
    assert not store.folder().exists()


def test_tune_takes_a_file_of_problems(tmp_path):
    (tmp_path / "problems.txt").write_text("# signals\nconvolve 40 5 float64 mode=same\n\n")
    result = CliRunner().invoke(main, ["tune", "--file", str(tmp_path / "problems.txt")])
    assert result.exit_code == 0, result.output
    assert wisdom.recall(nconv.plan(nconv.convolve, np.ones(40), W, mode="same").problem, nconv.get_num_threads())
    (tmp_path / "problems.txt").write_text("convolve 40\n")
    result = CliRunner().invoke(main, ["tune", "--file", str(tmp_path / "problems.txt")])
    assert result.exit_code == 1 and "line 1" in result.output
    for wrong in ([], ["convolve", "40"], ["median", "40", "5"], ["convolve", "40", "5", "--machine"]):
        assert CliRunner().invoke(main, ["tune", *wrong]).exit_code == 2


def test_compare_tells_the_code_from_the_machine(tmp_path):
    def write(name, auto, rival):
        record = {"family": "signal", "name": "a", "dtype": "float32", "seconds": {"auto": auto, "numpy": rival}}
        (tmp_path / name).write_text(json.dumps({"records": [record]}))
        return str(tmp_path / name)

    old = write("old", 1e-3, 1e-3)
    for auto, rival, status in ((1e-3, 1e-3, 0), (2e-3, 1e-3, 1), (2e-3, 2e-3, 0), (1e-3, 0.5e-3, 1)):
        result = CliRunner().invoke(main, ["bench", "--compare", old, write("new", auto, rival)])
        assert result.exit_code == status, result.output
        assert ("slower: signal a float32 auto" in result.output) == bool(status)
    (tmp_path / "bad").write_text("{}")
    result = CliRunner().invoke(main, ["bench", "--compare", old, str(tmp_path / "bad")])
    assert result.exit_code == 1 and "no file of nconv bench" in result.output


def test_regret_is_drawn_by_its_seed():
    from nconv.bench import regret

    first, again = (list(regret.problems(3, 8)) for _ in range(2))
    assert first == again
    assert first != list(regret.problems(4, 8))


@pytest.fixture
def drawn():
    return {"family": "signal", "function": "convolve", "input": (40,), "weight": (5,), "dtype": "float64",
            "options": {"mode": "same"}, "macs": 200}


def test_regret_is_that_of_the_choice_beside_scipys(drawn):
    from nconv.bench import regret

    record = regret.judge(regret.measure(drawn, rounds=1))
    assert record["regret"] >= 1 and record["scipy_regret"] >= 1
    assert record["chosen"] == nconv.plan(nconv.convolve, nconv.ArraySpec((40,), "f8"), nconv.ArraySpec((5,), "f8"),
                                          mode="same").method
    assert {name for name, _ in regret.summary([record])} >= {"all", "signal"}


def test_regret_goes_on_where_it_ended(tmp_path, monkeypatch):
    from nconv.bench import regret

    measured = []
    monkeypatch.setattr(regret, "measure", lambda drawn, rounds: measured.append(drawn) or drawn | {
        "threads": 1, "seconds": {name: 1.0 + i for i, name in enumerate(registry.names())}})
    arguments = ["--seed", "3", "--count", "6", "--json", str(tmp_path / "times"), "--rst", str(tmp_path / "page")]
    for limit, count in (["--seconds", "1e-9"], 0), ([], 6), ([], 6):
        result = CliRunner().invoke(regret.main, arguments + limit)
        assert result.exit_code == 0 and len(measured) == count, result.output
    assert "--seed 3 --count 6" in (tmp_path / "page").read_text()
    result = CliRunner().invoke(regret.main, ["--seed", "4", *arguments[2:]])
    assert result.exit_code and "another seed" in result.output


def test_rates_are_fitted_to_times(drawn):
    from nconv.bench import fit, regret

    true = machine.machine().scaled("call", 0.5).scaled("work.direct", 2).scaled("work.im2col", 0.7)
    records = []
    for problem in regret.problems(0, 12):
        p = regret.described(problem)
        records.append(problem | {"threads": 1, "seconds": {
            a.NAME: a.cost(p, true) for a in registry.algorithms() if a.NAME in ("direct", "im2col")}})

    def error(rates):
        return sum(abs(np.log(a.cost(regret.described(r), rates) / r["seconds"][a.NAME]))
                   for r in records for a in registry.algorithms() if a.NAME in r["seconds"])

    found = machine.machine().with_rates(fit.fit(records, regret.described))
    assert error(found) < 0.3 * error(machine.machine())
