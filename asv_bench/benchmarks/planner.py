"""What choosing costs."""

import nconv
from nconv import choice


class Plans:
    """Time to plan a problem for the first time and again."""

    def setup(self):
        self.x, self.w = nconv.ArraySpec((100_000,)), nconv.ArraySpec((1001,))

    def time_seen(self):
        nconv.plan(nconv.convolve, self.x, self.w)

    def time_new(self):
        choice._decide.cache_clear()
        nconv.plan(nconv.convolve, self.x, self.w)
