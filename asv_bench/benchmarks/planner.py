"""What choosing costs."""

import nconv
from nconv import choice
from nconv.bench import choosing
from nconv.bench.regret import described, problems


class Choices:
    """Time to choose for a hundred problems of all families."""

    def setup(self):
        self.problems = list(map(described, problems(0, 100)))
        choosing.seconds(self.problems)

    def time_seen(self):
        choosing.seconds(self.problems)


class NewChoices:
    """The same for problems that were never asked about."""

    number = 1

    def setup(self):
        asked = list(map(described, problems(0, 100)))
        choosing.seconds(asked)
        self.problems = choosing.fresh(asked)

    def time_new(self):
        choosing.seconds(self.problems)


class Plans:
    """Time of `nconv.plan` with all that it checks and describes."""

    def setup(self):
        self.x, self.w = nconv.ArraySpec((100_000,)), nconv.ArraySpec((1001,))

    def time_seen(self):
        nconv.plan(nconv.convolve, self.x, self.w)

    def time_new(self):
        choice._decide.cache_clear()
        nconv.plan(nconv.convolve, self.x, self.w)
