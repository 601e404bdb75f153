"""The command line."""

import json

import pytest
from click.testing import CliRunner

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
    assert names == ["direct", "im2col", "fft"]


def test_a_failure_is_one_line():
    result = run("explain", "conv2d", "1,4,8,8", "5,3,3,3")
    assert result.exit_code == 1
    assert "channels" in result.output
    assert result.output.count("\n") == 1
