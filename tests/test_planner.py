"""The choice: forced, limited, explained, measured and remembered."""

import numpy as np
import pytest

import nconv
from nconv import choice, registry, wisdom
from nconv.cpu import direct

X, W = np.random.default_rng(0).standard_normal(300), np.random.default_rng(1).standard_normal(40)


@pytest.fixture
def memory(tmp_path, monkeypatch):
    monkeypatch.setenv("NCONV_CACHE_DIR", str(tmp_path))
    wisdom.forget()
    choice._decide.cache_clear()
    yield tmp_path
    wisdom.forget()
    choice._decide.cache_clear()


@pytest.mark.parametrize("name", registry.names())
def test_a_forced_method_runs_alone(name, monkeypatch):
    for algorithm in registry.algorithms():
        if algorithm.NAME != name:
            monkeypatch.setattr(algorithm, "run", lambda *_: pytest.fail("a rival ran"))
    taps = W[:5]                                        # which every algorithm takes
    if name == "depthwise":                             # where each signal has its own
        signals, windows = np.multiply.outer(np.arange(1.0, 20), X), np.tile(taps, (19, 1))
        np.testing.assert_allclose(nconv.convolve(signals, windows, method=name, axes=-1),
                                   np.multiply.outer(np.arange(1.0, 20), np.convolve(X, taps)), atol=1e-12)
        return
    if name == "col2im":                                # with zeros between the samples
        spread = np.zeros(2 * X.size - 1)
        spread[::2] = X
        np.testing.assert_allclose(nconv.conv_transpose1d(X[None, None], taps[None, None], stride=2, method=name)[0, 0],
                                   np.convolve(spread, taps), atol=1e-12)
        return
    np.testing.assert_allclose(nconv.convolve([X, 2 * X], [taps, -taps], method=name),
                               np.multiply.outer([1, 1, -2], np.convolve(X, taps)), atol=1e-12)


def test_a_plan_explains_itself_and_runs():
    plan = nconv.plan(nconv.convolve, X, W)
    assert [c.name for c in plan.candidates] == list(registry.names())
    assert [c.chosen for c in plan.candidates].count(True) == 1
    assert plan.method in str(plan)
    assert plan.workspace_bytes == next(c.workspace for c in plan.candidates if c.chosen)
    np.testing.assert_allclose(plan(X), np.convolve(X, W))
    with pytest.raises(ValueError, match=r"\(300,\)"):
        plan(X[1:])
    with pytest.raises(TypeError, match="cannot run"):
        nconv.plan(nconv.convolve, nconv.ArraySpec((9,)), nconv.ArraySpec((3,)))(np.ones(9, "f4"))
    with pytest.raises(TypeError, match="cannot plan"):
        nconv.plan(np.convolve, X, W)


def test_workspace_limit():
    try:
        nconv.set_workspace_limit(10)
        with pytest.raises(MemoryError, match=r"\d+ bytes needed, 10 allowed"):
            nconv.convolve(X, W)
    finally:
        nconv.set_workspace_limit(None)
    with pytest.raises(ValueError, match="n_bytes=-1"):
        nconv.set_workspace_limit(-1)


def test_error_limit():
    x, w = nconv.ArraySpec((1_000_000,)), nconv.ArraySpec((5_000,))
    assert nconv.plan(nconv.convolve, x, w).method == "fft"
    with nconv.set_error_limit(1):
        plan = nconv.plan(nconv.convolve, x, w)
        assert plan.method != "fft"
        assert any("limit is 1" in c.refused for c in plan.candidates)
    assert nconv.plan(nconv.convolve, x, w).method == "fft"
    with pytest.raises(ValueError, match="times=0"):
        nconv.set_error_limit(0)


def test_integers_are_refused_by_the_transform():
    plan = nconv.plan(nconv.convolve, X.astype(int), W.astype(int))
    assert "integers" in next(c for c in plan.candidates if c.name == "fft").refused
    with pytest.raises(ValueError, match="'direct', 'im2col'"):
        nconv.convolve(np.full(9, 2**60), np.full(9, 2**60), method="fft")


def test_tune_remembers(memory):
    plan = nconv.tune(nconv.convolve, X, W, repeats=1)
    measured = [c for c in plan.candidates if not c.refused]
    assert len(measured) >= 3 and all(c.measured > 0 for c in measured)
    assert plan.method == min(measured, key=lambda c: c.measured).name
    assert wisdom.path().parent == memory
    wisdom.forget()
    choice._decide.cache_clear()
    assert nconv.plan(nconv.convolve, X, W).method == plan.method


def test_tune_measures_calls_and_plans(memory, monkeypatch):
    packed = []
    pack = direct.packed_weight
    monkeypatch.setattr(direct, "packed_weight", lambda problem, *rest: packed.append(problem) or pack(problem, *rest))
    plan = nconv.tune(nconv.conv2d, nconv.ArraySpec((1, 3, 12, 12)), nconv.ArraySpec((8, 3, 3, 3)), repeats=3)
    assert [p.reused for p in packed].count(False) == 4              # a call asks for its weight each time
    assert [p.reused for p in packed].count(True) == 1 + (plan.method == "direct")
    assert plan.problem.reused
    known = wisdom._read()
    assert len(known) == 2 and all({"small", "direct", "im2col", "fft"} <= set(seconds) for seconds in known.values())
    for problem in (plan.problem, plan.problem.replace(reused=False)):
        assert wisdom.recall(problem, nconv.get_num_threads())


def test_damaged_wisdom_is_ignored(memory):
    wisdom.path().write_text("{")
    with pytest.warns(UserWarning, match="not readable"):
        np.testing.assert_allclose(nconv.convolve(X, W), np.convolve(X, W))


def test_large_samples_do_not_drown_small_outputs():
    x, h = np.ones(50_000), np.full(3_000, 1e-6)
    x[20_000:20_100] = 1e12
    sums = np.concatenate([[0], np.cumsum(x.astype(np.longdouble))])
    p = np.arange(x.size + h.size - 1)
    exact = (sums[np.minimum(p + 1, x.size)] - sums[np.maximum(p - 2_999, 0)]) * np.longdouble(1e-6)
    assert np.abs((nconv.convolve(x, h) - exact) / exact).max() <= 1e-7


@pytest.mark.parametrize("method", ["auto", "direct", "im2col", "winograd", "fft"])
def test_a_plan_keeps_infinite_taps_from_the_padding(method):
    x, w = np.arange(1.0, 9), np.array([1.0, np.inf, 3.0])
    expected = nconv.convolve(x, w, "full", method)
    assert np.isfinite(expected[0]) and np.isfinite(expected[-1]) and np.isposinf(expected[1:-1]).all()
    out = np.empty(10)
    assert nconv.plan(nconv.convolve, nconv.ArraySpec((8,), "float64"), w, "full", method)(x, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("method", ["small", "direct", "im2col", "winograd", "fft"])
def test_a_plan_keeps_its_own_weight_and_bias(method):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape) for shape in ((1, 3, 9, 10), (5, 3, 3, 3), (5,)))
    plan = nconv.plan(nconv.conv2d, x, weight, bias, method=method)
    large = x * 1e306                                       # beyond what winograd's tiles hold
    expected, products = plan(x), plan(large)
    weight[:], bias[:] = np.nan, np.nan
    for other in (x, np.asfortranarray(x), x):
        np.testing.assert_allclose(plan(other), expected, atol=1e-12)
    np.testing.assert_allclose(plan(large), products, rtol=1e-9)
    assert np.isfinite(products).all()


def test_a_plan_of_an_outer_product():
    window = np.outer([1.0, 2.0, 1.0], [1.0, 0.0, -1.0])
    image = np.random.default_rng(0).standard_normal((30, 31))
    plan = nconv.plan(nconv.convolve, image, window, "same", method="separable")
    for x in (image, image[::-1], np.asfortranarray(image)):
        np.testing.assert_allclose(plan(x), nconv.convolve(x, window, "same", method="direct"), atol=1e-12)
