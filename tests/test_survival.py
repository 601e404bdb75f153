"""What a user's program does to us: forks, threads, Ctrl-C, bad disks. Each case is a process of its own."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import multiprocessing, os, signal, sys, threading, time
import numpy as np
import nconv
x, w = np.random.default_rng(0).standard_normal(150_000), np.random.default_rng(1).standard_normal(33)
expected = np.convolve(x, w)
def right(_=None):
    return bool(np.allclose(nconv.convolve(x, w, method="direct"), expected))
def in_threads(n):
    results = []
    threads = [threading.Thread(target=lambda: results.append(right())) for _ in range(n)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert results == [True] * n, results
"""


def survive(body, cache, **environment):
    program = PRELUDE + textwrap.dedent(body) + "\nprint('survived')\n"
    env = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "NUMBA_NUM_THREADS": "2", **environment}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], env=env, capture_output=True, text=True,
                          timeout=240)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.endswith("survived\n")
    return done.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_after_parallel_use(layer, cache):
    survive("""
        assert right()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert all(pool.map(right, range(4)))
        assert right()
    """, cache, NUMBA_THREADING_LAYER=layer)


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_first_calls_race_and_eight_threads(layer, cache):
    survive("""
        in_threads(8)
        assert right()
        in_threads(8)
    """, cache, NUMBA_THREADING_LAYER=layer)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")
def test_interrupt(cache):
    survive("""
        right()
        long, window = np.ones(400_000), np.ones(20_000)
        nconv.convolve(long, window, method="direct")      # compiled: the call is interrupted, not the compiler
        signal.signal(signal.SIGINT, signal.default_int_handler)    # ignored in a program that a script starts with &
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2, 0.5)  # again, as a person would: Python drops one in a callback
            while True:
                nconv.convolve(long, window, method="direct")
        except KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert right()
        in_threads(4)
    """, cache)


def test_a_cache_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    survive("assert right()", blocked / "cache")


def test_a_damaged_cache(tmp_path):
    survive("assert right()", tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:20])
    survive("assert right()", tmp_path)


def test_twins_do_not_share_a_cache_entry(cache):
    body = """
        nconv.set_num_threads({first})
        assert right()
        nconv.set_num_threads({second})
        assert right()
    """
    survive(body.format(first=1, second=2), cache)
    survive(body.format(first=2, second=1), cache)


def test_thread_count_from_the_environment(cache):
    survive("assert nconv.get_num_threads() == 1", cache, NCONV_NUM_THREADS="1")
    survive("""
        try:
            right()
        except ValueError as error:
            assert "NCONV_NUM_THREADS='many'" in str(error)
        else:
            raise AssertionError
    """, cache, NCONV_NUM_THREADS="many")


def test_odd_memory(cache):
    survive("""
        def same(a, b):
            assert np.allclose(nconv.convolve(a, b), np.convolve(a, b))
        same(x[::-1], w[::-1]), same(x[::3], w[::2])
        same(x.astype(">f8"), w)
        frozen = x.copy()
        frozen.flags.writeable = False
        same(frozen, w)
        windows = np.lib.stride_tricks.sliding_window_view(x[:200], 50)
        assert np.allclose(nconv.convolve(windows, w[None], axes=1)[3], np.convolve(windows[3], w))
        image = np.asfortranarray(x[:10_000].reshape(100, 100))
        kernel = w[:9].reshape(3, 3)
        assert np.allclose(nconv.convolve(image, kernel), nconv.convolve(image.copy("C"), kernel))
    """, cache)
