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


@pytest.mark.parametrize("method", ["direct", "im2col", "separable", "small", "fft", "winograd", "fft_tiles", "col2im"])
def test_kernels_from_the_cache_need_no_compiler(cache, method):
    """A third of a warm first call was Numba reading what it can compile, SciPy's linear algebra among it."""
    body = f"""
        maps, layer = x[:14_400].reshape(1, 16, 30, 30), np.ones((16, 16, 3, 3))
        if {method!r} == "col2im":
            nconv.conv_transpose2d(maps, layer, stride=2, method="col2im")
        elif {method!r} in ("im2col", "winograd", "fft_tiles"):
            nconv.conv2d(maps, layer, method={method!r})
        else:
            image = maps[0, 0] if {method!r} == "small" else x[:90_000].reshape(300, 300)
            nconv.convolve(image, np.ones((3, 3)), method={method!r})
    """
    survive(body, cache)
    survive(body + """
        assert "numba.np.arraymath" not in sys.modules and "scipy.linalg" not in sys.modules
    """, cache)


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="pages are closed by mprotect")
@pytest.mark.parametrize("method", ["depthwise", "direct", "im2col", "small"])
def test_nothing_beyond_an_array_is_touched(cache, method):
    """Arrays lie at the first or the last byte of pages whose neighbours must not be read."""
    survive(f"""
        import ctypes, mmap
        PAGE, rng, pages = mmap.PAGESIZE, np.random.default_rng(1), []
        def fenced(shape, dtype, at_end):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            count = -(-size // PAGE)
            pages.append(mmap.mmap(-1, (count + 2) * PAGE))
            first = ctypes.addressof(ctypes.c_char.from_buffer(pages[-1]))
            for page in (0, count + 1):
                assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(first + page * PAGE), PAGE, 0) == 0
            return np.ndarray(shape, dtype, pages[-1], PAGE + at_end * (count * PAGE - size))
        windows, tried = [[rng.integers(1, 6, rank) for _ in range(6)] for rank in (1, 2, 3)], 0
        for _ in range(150):
            rank, depthwise, dtype = int(rng.integers(1, 4)), rng.random() < 0.6, np.float32
            groups, (C, K) = int(rng.integers(1, 4)), (1, 1) if depthwise else rng.integers(1, 6, 2)
            if "{method}" == "depthwise":
                groups, C, K = int(rng.integers(16, 40)), 1, 1
            size, kernel = rng.integers(3, 40 if rank < 3 else 14, rank), windows[rank - 1][rng.integers(6)]
            options = dict(stride=int(rng.integers(1, 3)), padding=int(rng.integers(0, 2)), groups=groups,
                           layout=str(rng.choice(["channels_first", "channels_last"])))
            if (kernel > size + 2 * options["padding"]).any():
                continue
            function = getattr(nconv, f"conv{{rank}}d")
            for at_end in (0, 1):
                inside = (groups * C, *size) if options["layout"] == "channels_first" else (*size, groups * C)
                x, w = fenced((2, *inside), dtype, at_end), fenced((groups * K, C, *kernel), dtype, at_end)
                x[...], w[...] = rng.standard_normal(x.shape), rng.standard_normal(w.shape)
                right = function(x.copy(), w.copy(), method="{method}", **options)
                out = function(x, w, method="{method}", out=fenced(right.shape, dtype, at_end), **options)
                tried += 1
                assert np.array_equal(out, right)
        assert tried > 40, tried
    """, cache)


def heap_checker():
    """glibc's library that looks at the bytes around each piece of memory, or None."""
    name = "libc_malloc_debug.so.0"
    done = subprocess.run([sys.executable, "-c", "import sys"], env={**os.environ, "LD_PRELOAD": name},
                          capture_output=True, text=True)
    return name if sys.platform == "linux" and not done.returncode and not done.stderr else None


@pytest.mark.parametrize("method", ["direct", "small", "fft", "im2col"])
def test_kernels_stay_within_their_own_memory(cache, method):
    checker = heap_checker()
    if checker is None:
        pytest.skip("no glibc that checks its heap")
    survive(f"""
        for taps in ((9,), (17,), (33,), (64,), (131,), (5, 6), (1, 33), (3, 4, 5)):
            size = [(300,), (40, 51), (12, 13, 14)][len(taps) - 1]
            for dtype in ("f4", "f8"):
                a, b = (np.random.default_rng(2).standard_normal(n).astype(dtype) for n in (size, taps))
                for window in (b, b + np.flip(b)):
                    for mode in ("full", "valid"):
                        nconv.convolve(a, window, mode, method={method!r})
    """, cache, LD_PRELOAD=checker, GLIBC_TUNABLES="glibc.malloc.check=3")
