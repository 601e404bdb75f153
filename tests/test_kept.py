"""Weights of earlier calls: found by their bytes alone, in memory of their own, bounded, with threads and forks."""

import gc
import os
import sys
import threading
import weakref

import numpy as np
import pytest

import nconv
from nconv.cpu import arrays, direct, fft, im2col, kept, winograd
from nconv.lowering import lower

RNG = np.random.default_rng(27)
MAPS = RNG.standard_normal((1, 40, 20, 20))
LAYER = RNG.standard_normal((30, 40, 3, 3))
METHODS = ["direct", "im2col", "winograd", "winograd_large", "fft"]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(kept, "_entries", {})
    monkeypatch.setattr(kept, "_marks", set())


def problem(n=20, taps=3, **options):
    arrays = nconv.ArraySpec((1, 4, n)), nconv.ArraySpec((5, 4, taps))
    return lower(nconv.conv1d, *arrays).route.problem.replace(**options)


def counted():
    """A function that is kept, and how often it was asked."""
    calls = []

    def make(problem, weight, *more):
        calls.append(more)
        return weight * 2, len(calls)

    return kept.kept(make), calls


def test_a_weight_is_made_twice_then_found():
    make, calls = counted()
    weight = RNG.standard_normal((5, 4, 3))
    for times in (1, 2, 2, 2):
        made, number = make(problem(), weight)
        np.testing.assert_array_equal(made, weight * 2)
        assert number == len(calls) == times
    make(problem(), weight.copy())                      # not the array, its content counts
    assert len(calls) == 2


@pytest.mark.parametrize("at", [0, 1, 17, -1])
@pytest.mark.parametrize("size", [60, 1 << 17])
def test_one_other_bit_is_another_weight(at, size):
    make, calls = counted()
    weight = RNG.standard_normal(size)
    for _ in range(3):
        make(problem(), weight)
    weight.view(np.int64)[at] ^= 1                      # also where the numbers that name it do not show it
    for times in (3, 4, 4):
        np.testing.assert_array_equal(make(problem(), weight)[0], weight * 2)
        assert len(calls) == times


def test_zeros_of_both_signs_and_kinds_of_nan_are_told_apart():
    make, calls = counted()
    for weight in (np.zeros(60), -np.zeros(60), np.full(60, np.nan), np.full(60, -np.nan)):
        before = len(calls)
        for _ in range(4):
            np.testing.assert_array_equal(make(problem(), weight)[0], weight * 2)
        assert len(calls) == before + 2


def test_what_was_made_depends_on_problem_function_and_all_else():
    make, calls = counted()
    other, others = counted()
    weight = RNG.standard_normal((5, 4, 3))
    for _ in range(3):
        make(problem(), weight)
        make(problem(n=21), weight)
        make(problem(), weight, 8)
        other(problem(), weight)
    assert len(calls) == 6 and len(others) == 2


def test_a_plan_keeps_its_own():
    make, calls = counted()
    weight = RNG.standard_normal((5, 4, 3))
    for _ in range(3):
        make(problem(reused=True), weight)
    assert len(calls) == 3 and not kept._entries and not kept._marks


def test_several_weights_of_one_shape_stay():
    make, calls = counted()
    weights = RNG.standard_normal((20, 5, 4, 3))
    for _ in range(4):
        for weight in weights:
            np.testing.assert_array_equal(make(problem(), weight)[0], weight * 2)
    assert len(calls) == 40


def held():
    return sum(entry.size for entry in kept._entries.values())


def test_what_is_kept_is_bounded_and_the_first_ones_stay(monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 100_000)
    make, calls = counted()
    weights = RNG.standard_normal((20, 1000))           # of 16,000 bytes each, with what is made of it
    for _ in range(3):
        for weight in weights:
            make(problem(), weight)
            assert held() <= 100_000
    assert len(kept._entries) == 6
    before = len(calls)
    for weight in weights[:6]:
        make(problem(), weight)
    assert len(calls) == before
    for _ in range(2):
        make(problem(), np.ones(10_000))                # more than half of all: not even looked at
    assert len(calls) == before + 2 and len(kept._entries) == 6


def test_the_number_of_kept_weights_is_bounded(monkeypatch):
    monkeypatch.setattr(kept, "_MOST", 7)
    make, _ = counted()
    for i in range(20):
        for _ in range(2):
            make(problem(), np.full(9, float(i)))
        assert len(kept._entries) == min(i + 1, 7)


def test_what_nobody_asks_for_makes_room(monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 40_000)
    make, _ = counted()
    old, new = RNG.standard_normal((2, 2000))
    for weight in (old, old, new, new):
        make(problem(), weight)
    assert [entry.made[0][0] for entry in kept._entries.values()] == [old[0] * 2]
    for i in range(kept._STALE):
        make(problem(), np.full(9, float(i)))
    for _ in range(2):
        make(problem(), new)
    assert [entry.made[0][0] for entry in kept._entries.values()] == [new[0] * 2]


def test_marks_are_bounded(monkeypatch):
    monkeypatch.setattr(kept, "_MARKS", 10)
    make, _ = counted()
    for i in range(50):
        make(problem(), np.full(9, float(i)))
        assert len(kept._marks) <= 10
    assert not kept._entries


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8"])
def test_calls_give_the_same_bits_whether_the_weight_is_new_or_known(method, dtype):
    maps, layer = MAPS.astype(dtype), LAYER.astype(dtype)
    results = []
    for _ in range(5):
        results.append(nconv.conv2d(maps, layer, padding=1, method=method))
        other = nconv.conv2d(maps, layer[::-1].copy(), padding=1, method=method)
        np.testing.assert_array_equal(other, results[-1][:, ::-1])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    layer[3, 5, 1, 1] += 1                              # written into: another weight
    changed = nconv.conv2d(maps, layer, padding=1, method=method)
    assert np.abs(changed[:, 3] - results[0][:, 3]).max() > 0.1
    np.testing.assert_array_equal(changed[:, 4:], results[0][:, 4:])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_a_known_weight_that_is_not_finite_spoils_what_it_did(method, value):
    layer = LAYER.copy()
    layer[2, 1, 0, 0] = value
    for _ in range(4):
        with np.errstate(invalid="ignore"):
            out = nconv.conv2d(MAPS, layer, padding=1, method=method)
        assert np.isfinite(np.delete(out, 2, 1)).all() and not np.isfinite(out[:, 2, 1:-1, 1:-1]).any()


@pytest.mark.parametrize("algorithm", [direct, fft, im2col, winograd])
def test_no_memory_of_the_caller_is_kept(algorithm):
    maps, original = MAPS + 1j, LAYER - 2j              # with real numbers im2col packs nothing for so small maps
    layer = original.copy()
    expected = nconv.conv2d(maps, layer, padding=1, method=algorithm.NAME)
    for _ in range(3):
        nconv.conv2d(maps, layer, padding=1, method=algorithm.NAME)
    assert kept._entries
    gone = weakref.ref(layer)
    layer[...] = 0
    del layer
    gc.collect()
    assert gone() is None
    np.testing.assert_array_equal(nconv.conv2d(maps, original, padding=1, method=algorithm.NAME), expected)


@pytest.mark.parametrize("taps, stride", [(3, 2), (4, 2), (5, 2), (2, 2), (3, 3)])
def test_a_weight_of_several_phases_is_kept_as_a_whole(taps, stride, monkeypatch):
    maps, weight = RNG.standard_normal((1, 12, 9, 7)), RNG.standard_normal((12, 6, taps, taps))
    asked = []
    original = arrays.weight_of
    monkeypatch.setattr(arrays, "weight_of", lambda *rest: asked.append(1) or original(*rest))
    results = [nconv.conv_transpose2d(maps, weight, stride=stride, method="im2col") for _ in range(5)]
    parts = len(asked) // 2
    assert parts >= 1 and len(asked) == 2 * parts
    assert len(kept._entries) == 1                      # and not each phase once more
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    weight[2, 3, 0, 1] += 1
    changed = nconv.conv_transpose2d(maps, weight, stride=stride, method="im2col")
    assert len(asked) == 3 * parts
    assert np.abs(changed[:, 3] - results[0][:, 3]).max() > 0.1
    np.testing.assert_array_equal(np.delete(changed, 3, 1), np.delete(results[0], 3, 1))


def test_parts_of_outputs_share_memory_but_with_those_in_use():
    part = problem()
    with arrays.part_target(part, None, ()) as first:
        with arrays.part_target(part, None, ()) as second:  # as in a signal's handler, in the midst of a call
            assert not np.shares_memory(first, second)
    with arrays.part_target(part, None, ()) as third:
        assert np.shares_memory(first, third)


def test_how_a_weight_lies_counts():
    make, calls = counted()
    square = RNG.standard_normal((6, 6))
    views = [square, square.T, square[::-1], square[:, ::-1], square[::2], square[::-1].T]
    for _ in range(4):
        for view in views:
            np.testing.assert_array_equal(make(problem(), view)[0], view * 2)
    assert len(calls) == 2 * len(views)


def test_images_that_tiles_cannot_hold_take_the_known_weight():
    maps = MAPS.copy()
    maps[0, 0, 0, 0] = 1e308
    expected = nconv.conv2d(maps, LAYER, padding=1, method="im2col")
    layer = LAYER.copy()
    for _ in range(3):
        nconv.conv2d(MAPS, layer, padding=1, method="winograd")
    layer[...] = 0                                      # no sum may read it any more
    np.testing.assert_allclose(nconv.conv2d(maps, LAYER, padding=1, method="winograd"), expected, rtol=1e-12)


def test_forgotten_weights_are_found_again_at_the_next_call():
    make, calls = counted()
    weight = RNG.standard_normal((5, 4, 3))
    for _ in range(2):
        make(problem(), weight)
    kept.forget()
    assert not kept._entries
    for _ in range(3):
        make(problem(), weight)
    assert len(calls) == 3


def test_threads_share_what_is_kept(monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 60_000)     # room for a part, so that entries come and go
    monkeypatch.setattr(kept, "_STALE", 3)
    make, _ = counted()
    weights = RNG.standard_normal((12, 500))
    wrong, interval = [], sys.getswitchinterval()

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, 12, 600):
            if not np.array_equal(make(problem(), weights[i])[0], weights[i] * 2):
                wrong.append(i)

    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong and held() <= 60_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_while_another_thread_looks_does_not_wait():
    make, _ = counted()
    weight = RNG.standard_normal(500)
    done = threading.Event()

    def work():
        while not done.is_set():
            make(problem(), weight)
            kept.forget()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(20):
            child = os.fork()
            if not child:
                os._exit(0 if np.array_equal(make(problem(), weight)[0], weight * 2) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        worker.join()
