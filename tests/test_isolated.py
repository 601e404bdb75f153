"""Rows that kill, poison or stop their process cost themselves and no other."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nconv.bench.isolated import Crew, Worker


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    with Worker("isolated_rows") as worker:
        yield worker


def test_rows_share_a_process(worker):
    first, second = worker.ask("well", 1, [2], limit=60), worker.ask("well", limit=60)
    assert first["ok"] and first["more"] == [1, [2]]
    assert first["pid"] == second["pid"] != os.getpid()


def test_an_error_is_a_row_and_its_process_goes_on(worker):
    pid = worker.ask("well", limit=60)["pid"]
    row = worker.ask("raise", limit=60)
    assert row["fault"] == "ValueError: a word" and not row["ok"] and "isolated_rows.py" in row["traceback"]
    assert worker.ask("well", limit=60)["pid"] == pid and worker.lost == 0


@pytest.mark.parametrize("how, word", [("exit", "status 7"), ("abort", "status -11"), ("poison", "context is lost")])
def test_after_a_lost_process_comes_a_new_one(worker, how, word):
    pid = worker.ask("well", limit=60)["pid"]
    row = worker.ask(how, limit=60)
    assert not row["ok"] and word in row["fault"]
    if how == "abort":
        assert "Segmentation fault" in row["traceback"] and "isolated_rows.py" in row["traceback"]
    following = worker.ask("well", limit=60)
    assert following["ok"] and following["pid"] != pid and worker.lost == 1


def test_a_row_that_hangs_is_given_up(worker):
    pid = worker.ask("well", limit=60)["pid"]
    start = time.monotonic()
    row = worker.ask("hang", limit=0.5)
    assert row["fault"] == "no answer within 0.5 s"
    assert time.monotonic() - start < 20 and not row["ok"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert worker.ask("well", limit=60)["pid"] != pid


def test_a_process_that_cannot_start_is_a_fault(worker):
    with Worker("no_such_module") as absent:
        for _ in range(2):
            row = absent.ask("well", limit=60)
            assert not row["ok"] and "status 1" in row["fault"] and "no_such_module" in row["traceback"]


def test_it_ends_when_it_is_closed_and_runs_under_another_command(worker):
    with Worker("isolated_rows", prefix=["env", "A_NAME=3"]) as under:
        assert under.close(1) is None
        assert under.ask("well", limit=60)["ok"] and under.close(60) == 0


def test_a_crew_answers_several_at_once(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    with Crew("isolated_rows", 2) as crew:
        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(lambda i: crew.ask("well", i, limit=60), range(8)))
        assert [row["more"] for row in rows] == [[i] for i in range(8)] and len({row["pid"] for row in rows}) <= 2
        assert not crew.ask("exit", limit=60)["ok"] and crew.lost == 1
        one, two = crew.ask("well", limit=60), crew.ask("well", limit=60)
        assert one["pid"] == two["pid"]
