"""Values that spoil others where they are not kept apart: loud, extreme and infinite ones, in the simulator."""

import numpy as np
import pytest
import reference
from cases import CASES, operands

import nconv
from nconv import engine, registry

ALGORITHMS = {a.NAME: a for a in registry.algorithms("cuda")}
rng = np.random.default_rng(0)


@pytest.mark.parametrize("name, changes", [*((name, {}) for name in ALGORITHMS), ("fft", {"C": 2})])
def test_large_samples_do_not_drown_small_outputs(name, changes):
    problem = CASES["long_signal-plain"].replace(dtype=np.dtype("f8"), device="cuda", **changes)
    x, weight, bias = operands(problem)
    x[..., x.shape[-1] // 2:x.shape[-1] // 2 + 3] = 1e13
    out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight, bias * 0)
    np.testing.assert_allclose(out, reference.convolution(problem, x, weight), rtol=1e-9)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("loud, quiet", [(1e30, 1e-25), (1e-30, 1e25), (1e-25, 1e-10)])
def test_products_stay_in_the_types_range(name, loud, quiet):
    problem = CASES["signal-grouped"].replace(device="cuda")
    x, weight, _ = operands(problem)
    x, weight = (x * loud).astype("f4"), (weight * quiet).astype("f4")
    out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight)
    largest = np.abs(x).max() * np.abs(weight).max()
    np.testing.assert_allclose(out, reference.convolution(problem, x, weight), rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("what", ["even", "loud", "infinite", "infinite tap", "quiet"])
@pytest.mark.parametrize("case", ["long_signal-plain", "image-depthwise"])
def test_transforms_of_whole_axes_leave_what_they_cannot_hold(case, what, whole_axes, monkeypatch):
    """To transforms of blocks, as the kernels see for themselves: on each run both are there."""
    problem = CASES[case].replace(dtype=np.dtype("f8"), device="cuda")
    x, weight, _ = operands(problem)
    middle = (0, 0, *(n // 2 for n in problem.size))
    if what == "loud":
        x[middle] = 1e13
    elif what == "infinite":
        x[middle] = -np.inf
    elif what == "infinite tap":
        weight[(0,) * weight.ndim] = np.inf
    elif what == "quiet":
        x = x * 1e-270
    asked = []
    run = whole_axes.planes.run
    monkeypatch.setattr(whole_axes.planes, "run", lambda *args: asked.append(run(*args)) or asked[-1])
    with np.errstate(invalid="ignore"):
        out = engine.run_algorithm(ALGORITHMS["fft"], problem, x, weight)
        expected = reference.convolution(problem, x, weight)
    assert asked[0][0] == (what != "even")
    np.testing.assert_allclose(out, expected, rtol=1e-8, atol=1e-12 * np.abs(x[np.abs(x) < 1e6]).max())


def same(result, expected):
    result = result.copy_to_host()
    for part in (np.isnan, np.isposinf, np.isneginf):
        if expected.dtype.kind != "c" or part is np.isnan:
            np.testing.assert_array_equal(part(result), part(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(result[finite], expected[finite], rtol=1e-4, atol=1e-4)
    return finite


SIGNALS = {
    "full": ("f4", (20,), (5,), {}), "same": ("f4", (20,), (5,), {"mode": "same"}),
    "valid": ("f4", (20,), (5,), {"mode": "valid"}), "image": ("f4", (6, 5), (4, 3), {"mode": "same"}),
    "rows": ("f4", (2, 1, 12), (1, 3, 4), {"axes": 2}), "longer taps": ("f4", (12,), (15,), {}),
    "complex": ("c16", (12,), (4,), {}), "four axes": ("f4", (3, 2, 2, 3), (2, 2, 1, 1), {})}


@pytest.mark.parametrize("method", ALGORITHMS)
@pytest.mark.parametrize("case", SIGNALS)
def test_infinite_taps_on_the_device_end_with_the_signal(method, case):
    from numba import cuda

    dtype, shape, taps, options = SIGNALS[case]
    x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal(taps).astype(dtype)
    w[(0,) * w.ndim] = np.inf
    w[(-1,) * w.ndim] = np.nan
    function = nconv.correlate if case in ("same", "complex") else nconv.convolve
    arrays = [cuda.to_device(a) for a in (x, w)]
    if len(shape) > 3 and method != "direct":
        with pytest.raises(ValueError, match="more than three axes"):
            function(*arrays, method=method)
        return
    with np.errstate(invalid="ignore"):
        expected = function(x, w, **options)
    same(function(*arrays, method=method, **options), expected)


def test_a_plan_keeps_infinite_taps_from_the_padding():
    from numba import cuda

    x, w = np.arange(1.0, 9), np.array([1.0, np.inf, 3.0])
    for method in ALGORITHMS:
        plan = nconv.plan(nconv.convolve, nconv.ArraySpec((8,), "f8", "cuda"), cuda.to_device(w), "full", method)
        for factor in (1, 2):
            finite = same(plan(cuda.to_device(factor * x)), nconv.convolve(factor * x, w))
            assert finite.sum() == 2
