"""What a call holds in memory at its peak, by the system's own count."""

import sys

import numpy as np
import pytest

from nconv.bench import held
from nconv.bench.cases import CASES
from nconv.bench.measure import AUTO

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the count is Linux's")


def test_what_a_call_holds_is_seen():
    def run():
        return np.ones(4 << 20) + np.ones(4 << 20)     # three arrays of 32 MiB, two where the sum takes one's place

    assert 60 <= held.held_by(run) / 2**20 <= 100


@pytest.mark.parametrize("name", ["1,000,000 x 100,000", "1024 x 1024, 101 x 101", "100 cubed, 11 cubed",
                                  "500 images 84 x 84, 13 x 13", "VGG 224, 64-64, 3x3"])
def test_no_call_holds_more_than_it_may(name):
    record = held.measure(next(case for case in CASES if case.name == name), "float32", rivals=())
    assert held.over(record) <= 1
    assert record["held"][AUTO] >= 0.9 * record["output"]


def test_those_that_are_large_are_asked_once():
    asked = held.cases("float32")
    assert len(asked) > 30 and len({(case.x, case.weight) for case in asked}) == len(asked)
