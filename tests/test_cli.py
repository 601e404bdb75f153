"""The command line."""

import json

import pytest
from click.testing import CliRunner

import nconv
from nconv import cli, registry
from nconv.bench import cases
from nconv.cli import main


def run(*arguments):
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("command", ["demo", "info", "explain", "tune", "warmup", "bench"])
def test_help(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output


def test_info():
    result = run("info")
    assert result.exit_code == 0
    assert "Numba" in result.output


def test_explain():
    result = run("explain", "conv2d", "1,4,8,8", "5,4,3,3", "--option", "padding=1", "--json")
    assert result.exit_code == 0
    names = [candidate["name"] for candidate in json.loads(result.output)]
    assert names == list(registry.names())


def test_warmup_calls_every_algorithm(monkeypatch):
    called = []

    def record(name):
        return lambda *arrays, method="auto", **options: called.append((name, arrays[0].dtype.name, method))

    for name in ("conv2d", "conv_transpose2d", "convolve"):
        monkeypatch.setattr(nconv, name, record(name))
    for name in ("gaussian_filter", "correlate"):
        monkeypatch.setattr(nconv.ndimage, name, record(name))
    # What is planned is what the recorder stands for.
    plan, conv2d = nconv.plan, nconv.functional.conv2d
    monkeypatch.setattr(nconv, "plan", lambda function, *args, **options: plan(conv2d, *args, **options))
    monkeypatch.setattr(cli, "_calibrate", lambda: called.append(("rates", "", "")))
    result = run("warmup", "--dtype", "float32")
    assert result.exit_code == 0, result.output
    assert {dtype for _, dtype, _ in called[:-1]} == {"float32"} and called[-1][0] == "rates"
    beyond = {"winograd_large"}                        # the limit of errors that holds where none was set
    assert {method for *_, method in called} - {"auto", ""} == set(registry.names()) - beyond
    assert {name for name, *_ in called} == {
        "conv2d", "conv_transpose2d", "convolve", "gaussian_filter", "correlate", "rates"}


def test_a_failure_is_one_line():
    result = run("explain", "conv2d", "1,4,8,8", "5,3,3,3")
    assert result.exit_code == 1
    assert "channels" in result.output
    assert result.output.count("\n") == 1


def test_bench_measures_against_rivals(monkeypatch, tmp_path):
    small = (cases.Case("signal", "tiny", "convolve", (64,), (5,), {"mode": "same"}),
             cases.Case("image", "tiny", "ndimage.correlate", (9, 8), (3, 3), {"mode": "mirror"}))
    monkeypatch.setattr(cases, "CASES", small)
    result = run("bench", "--dtype", "float64", "--methods", "--json", str(tmp_path / "a.json"),
                 "--rst", str(tmp_path / "a.rst"))
    assert result.exit_code == 0, result.output
    records = json.loads((tmp_path / "a.json").read_text())["records"]
    assert [r["family"] for r in records] == ["signal", "image"]
    assert {"auto", "direct", "im2col", "fft", "numpy", "scipy.convolve"} <= set(records[0]["seconds"])
    assert all(r["ratio"] > 0 for r in records)
    assert "geometric mean" in (tmp_path / "a.rst").read_text()


def test_bench_sweeps_over_sizes(monkeypatch, tmp_path):
    monkeypatch.setitem(cases.SWEEPS, "tiny", tuple(cases._signal(f"{n} x 5", n, 5) for n in (32, 64)))
    result = run("bench", "--sweep", "tiny", "--rst", str(tmp_path / "a.rst"), "--plot", str(tmp_path / "a.svg"))
    assert result.exit_code == 0, result.output
    assert "nconv bench --sweep tiny" in (tmp_path / "a.rst").read_text()
    assert "a.svg" in (tmp_path / "a.rst").read_text()
    assert (tmp_path / "a.svg").read_text().count("64 x 5") > 0


@pytest.mark.parametrize("option", ["--family", "--sweep"])
def test_bench_refuses_what_it_does_not_know(option):
    result = run("bench", option, "nothing")
    assert result.exit_code != 0
    assert "nothing" in result.output


def test_explain_draws_the_winners(tmp_path):
    for function, x, weight in ("convolve", "40,40", "5,5"), ("conv1d", "1,4,40", "4,4,3"):
        result = run("explain", function, x, weight, "--plot", str(tmp_path / f"{function}.png"))
        assert result.exit_code == 0, result.output
        assert (tmp_path / f"{function}.png").read_bytes()[1:4] == b"PNG"
    result = run("explain", "conv_transpose1d", "1,4,40", "4,4,3", "--plot", str(tmp_path / "none.png"))
    assert result.exit_code == 1 and "conv_transpose1d" in result.output
