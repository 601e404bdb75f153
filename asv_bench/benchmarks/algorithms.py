"""Each method and each rival on each problem of `nconv.bench`."""

from functools import partial

from nconv import registry
from nconv.bench.cases import CASES, FAMILIES
from nconv.bench.rivals import RIVALS, prepare


class _Family:
    """All problems of one family; asv shows a rival that does not do a problem as missing."""

    param_names = ("problem", "dtype", "method")
    family = ""

    def setup(self, problem, dtype, method):
        case = next(c for c in CASES if c.family == self.family and c.name == problem)
        x, weight = case.arrays(dtype)
        if method in RIVALS:
            self.run = prepare(method, case, x, weight)
        elif method == "auto":
            self.run = partial(case.ours, x, weight)
        else:
            slow = "." in case.function or (method != "fft" and x.size * weight.size > 1e10)
            self.run = None if slow else partial(case.ours, x, weight, method=method)
        if self.run is None:
            raise NotImplementedError
        self.run()

    def time_run(self, problem, dtype, method):
        self.run()


for _family in FAMILIES:
    globals()[_family.capitalize()] = type(_family.capitalize(), (_Family,), {
        "__doc__": f"The family {_family!r}.", "__module__": __name__, "family": _family,
        "params": ([c.name for c in CASES if c.family == _family], ["float32", "float64"],
                   ["auto", *registry.names(), *RIVALS])})
