"""Work that threads take as they get to it."""

import numpy as np
import pytest

from nconv.cpu.sharing import LINE, take
from nconv.jit import kernel, parallel_kernel, prange


@kernel
def taken_in_turn(items, threads, order, out):
    """What the threads of `order` take, one after the other, until one finds nothing; how many pieces that were."""
    shares = np.zeros(LINE * threads, np.int64)
    for n in range(out.size):
        out[n] = take(shares, items, order[n % order.size])
        if out[n] < 0:
            return n
    return out.size


@parallel_kernel
def counted(items, times, threads):
    """How often each piece of work is taken."""
    shares = np.zeros(LINE * threads, np.int64)
    for thread in prange(threads):
        item = take(shares, items, np.int64(thread))
        while item >= 0:
            times[item] += 1
            item = take(shares, items, np.int64(thread))


@pytest.mark.parametrize("items", [0, 1, 2, 3, 7, 40, 1000])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_each_piece_is_taken_once(items, threads):
    times = np.zeros(items, np.int64)
    counted(items, times, threads)
    assert (times == 1).all()
    for order in ([threads - 1], range(threads), [0, 0, threads - 1]):
        out = np.empty(items + threads, np.int64)
        n = taken_in_turn(items, threads, np.array(order), out)
        assert len(set(out[:n])) == n <= items
        if len(set(order)) == 1:
            assert n == items


def test_a_thread_begins_with_its_own_share_and_goes_on_with_those_of_others():
    out = np.empty(13, np.int64)
    assert taken_in_turn(12, 3, np.array([1]), out) == 12
    assert out.tolist() == [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, -1]


def test_what_a_late_thread_has_not_begun_is_done_by_the_others():
    out = np.empty(13, np.int64)
    assert taken_in_turn(12, 2, np.array([0, 0, 0, 1]), out) == 12
    assert out.tolist() == [0, 1, 2, 6, 3, 4, 5, 7, 8, 9, 10, 11, -1]
