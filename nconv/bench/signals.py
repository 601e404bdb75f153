"""What values and windows cost: ``python -m nconv.bench.signals [separable] [filters] [gaps] [denormals] [stream]``.

Rivals are SciPy and astropy. What stands in one line ran in turn in one process, after its results were compared.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import numpy as np

import nconv

from .measure import median_seconds


def _random(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def _line(name: str, runs: Mapping[str, Callable[[], Any]], tolerance: float) -> None:
    """Print the milliseconds of each run, and how many times as long as the first the others take."""
    expected = next(iter(runs.values()))()
    for label, run in runs.items():
        np.testing.assert_allclose(run(), expected, rtol=0, atol=tolerance * np.nanmax(abs(expected)), err_msg=label)
    seconds = dict(zip(runs, median_seconds(*runs.values()), strict=True))
    first = next(iter(seconds.values()))
    print(f"{name}: " + ", ".join(f"{label} {t * 1e3:.3g} ms ({t / first:.2f}x)" for label, t in seconds.items()))


def separable() -> None:
    """Windows that are an outer product: 'auto' and what it chose from."""
    for shape, taps, dtype in (((1024, 1024), 3, "float32"), ((1024, 1024), 5, "float32"), ((1024, 1024), 9, "float32"),
                               ((1024, 1024), 15, "float32"), ((1024, 1024), 41, "float32"),
                               ((1024, 1024), 15, "float64"), ((128, 128, 128), 3, "float32"),
                               ((128, 128, 128), 11, "float32")):
        x, row = _random(shape, dtype), np.hanning(taps + 2)[1:-1]
        w = reduce(np.multiply.outer, [row] * len(shape)).astype(dtype)
        runs = {m: partial(nconv.convolve, x, w, "same", m) for m in ("auto", "direct", "fft", "separable")
                if m != "direct" or w.size * x.size < 1e9}
        _line(f"{shape} by {taps} cubed {dtype}, auto is {nconv.plan(nconv.convolve, x, w, 'same').method}", runs, 1e-4)


def filters() -> None:
    """scipy.ndimage's smoothing and derivative filters."""
    import scipy.ndimage

    for shape in (1024, 1024), (128, 128, 128):
        x = _random(shape, "float32")
        for name, args in (("gaussian_filter", (1,)), ("gaussian_filter", (3,)), ("gaussian_filter", (8,)),
                           ("uniform_filter", (5,)), ("uniform_filter", (25,)), ("sobel", ()), ("laplace", ()),
                           ("gaussian_laplace", (2,)), ("gaussian_gradient_magnitude", (2,))):
            _line(f"{name}{args} on {shape} float32",
                  {"nconv": partial(getattr(nconv.ndimage, name), x, *args),
                   "SciPy": partial(getattr(scipy.ndimage, name), x, *args)}, 1e-4)


def gaps() -> None:
    """Images with NaN: astropy, and one plain convolution without any."""
    import astropy.convolution

    for shape, taps in (((512, 512), 9), ((512, 512), 31), ((64, 64, 64), 7)):
        x = _random(shape, "float64")
        h = reduce(np.multiply.outer, [np.hanning(taps + 2)[1:-1]] * len(shape))
        holes = np.where(np.random.default_rng(1).random(shape) < 0.05, np.nan, x)
        _line(f"{shape} by {taps} cubed float64, 5 % NaN",
              {"nconv": partial(nconv.normalized_convolve, holes, h),
               "astropy": partial(astropy.convolution.convolve, holes, h)}, 1e-9)
        _line("  without NaN", {"normalized": partial(nconv.normalized_convolve, x, h),
                                "plain": partial(nconv.ndimage.convolve, x, h / h.sum(), mode="constant")}, 1e-9)


def denormals() -> None:
    """Signals and images too quiet for normal numbers, or fading into silence, beside loud ones of the same size."""
    for dtype in "float32", "float64":
        smallest = np.finfo(dtype).tiny
        for kind, shape, weight, methods, call in (
                ("signal", (200_000,), (64,), ("direct", "fft"), nconv.convolve),
                ("layer", (64, 56, 56), (64, 64, 3, 3), ("direct", "im2col", "winograd", "fft"), nconv.conv2d)):
            x, w = _random(shape, dtype), _random(weight, dtype)
            quiet = (x * (smallest / 100)).astype(dtype)
            fading = (x * np.exp(np.linspace(0, 1.05 * np.log(smallest), shape[-1]))).astype(dtype)
            for method in methods:
                loud, *others = median_seconds(*(partial(call, v, w, method=method) for v in (x, quiet, fading)))
                print(f"{kind} {dtype} {method}: {loud * 1e3:.3g} ms, denormal {others[0] / loud:.2f}x, fading "
                      f"{others[1] / loud:.2f}x")


def stream() -> None:
    """A reverb of 480,000 taps at 48 kHz in blocks: the share of one core, and the longest call."""
    rng, rate = np.random.default_rng(0), 48_000
    h = (rng.standard_normal(480_000) * np.exp(-np.arange(480_000) / 60_000)).astype("float32")
    threads = nconv.get_num_threads()
    nconv.set_num_threads(1)
    for block, channels in ((64, 1), (128, 1), (128, 2), (128, 16), (1024, 2)):
        x = rng.standard_normal((channels, 10 * rate // block * block)).astype("float32")
        s = nconv.Stream(h, block=block)
        s.feed(x[:, :block])                            # compiles, makes the state
        times = []
        for at in range(block, x.shape[1], block):
            begin = time.perf_counter()
            s.feed(x[:, at:at + block])
            times.append(time.perf_counter() - begin)
        period = block / rate
        share = sum(times) / (len(times) * period)
        median, late, longest = (1e3 * np.quantile(times, q) for q in (0.5, 0.999, 1))
        print(f"block {block} ({period * 1e3:.2f} ms), {channels} channels: {share:.1%} of one core, median call "
              f"{median:.3f} ms, 99.9 % within {late:.2f} ms, longest {longest:.2f} ms")
    nconv.set_num_threads(threads)


if __name__ == "__main__":
    parts = {f.__name__: f for f in (separable, filters, gaps, denormals, stream)}
    for name in sys.argv[1:] or parts:
        print(f"-- {name}")
        parts[name]()
