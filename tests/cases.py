"""Named small problems, each with its variants, and drawn ones."""

from functools import reduce

import numpy as np
from hypothesis import strategies as st

from nconv.boundary import MODES
from nconv.geometry import product
from nconv.problem import ConvProblem

_BASES = {
    "signal": dict(N=1, groups=1, C=1, K=1, size=(23,), kernel=(5,)),
    "long_signal": dict(N=1, groups=1, C=1, K=1, size=(511,), kernel=(37,)),
    "long_line": dict(N=1, groups=1, C=1, K=1, size=(703,), kernel=(6,)),
    "image": dict(N=1, groups=1, C=1, K=1, size=(13, 17), kernel=(3, 4)),
    "wide_image": dict(N=1, groups=1, C=1, K=1, size=(9, 75), kernel=(3, 5)),
    "wide_window": dict(N=1, groups=1, C=1, K=1, size=(7, 6), kernel=(9, 8), padding=((8, 8), (7, 7))),
    "volume": dict(N=1, groups=1, C=1, K=1, size=(5, 6, 7), kernel=(3, 2, 3)),
    "four_axes": dict(N=1, groups=1, C=1, K=1, size=(3, 4, 3, 5), kernel=(2, 2, 2, 3)),
    "layer": dict(N=2, groups=1, C=3, K=5, size=(7, 9), kernel=(3, 3)),
    "many_channels": dict(N=1, groups=1, C=9, K=17, size=(5, 5), kernel=(3, 3)),
    "pointwise": dict(N=2, groups=1, C=5, K=4, size=(3, 5), kernel=(1, 1)),
    "wide_pointwise": dict(N=2, groups=1, C=3, K=130, size=(9, 31), kernel=(1, 1)),
    "one_element": dict(N=1, groups=1, C=1, K=1, size=(1,), kernel=(1,)),
    "outer_image": dict(N=1, groups=1, C=1, K=2, size=(13, 37), kernel=(3, 4), separable=True),
    "outer_volume": dict(N=1, groups=1, C=1, K=1, size=(5, 6, 19), kernel=(3, 1, 3), separable=True),
    "own_windows": dict(N=2, groups=37, C=1, K=1, size=(9, 20), kernel=(3, 3)),
    "own_windows_short": dict(N=1, groups=33, C=1, K=1, size=(4, 5), kernel=(3, 2)),
    "own_windows_line": dict(N=1, groups=18, C=1, K=1, size=(71,), kernel=(5,)),
    "own_windows_volume": dict(N=1, groups=21, C=1, K=1, size=(5, 6, 7), kernel=(3, 2, 3)),
    "thin": dict(N=1, groups=1, C=2, K=3, size=(1, 19), kernel=(1, 7)),
}


def _variants(base):
    rank = len(base["size"])
    base = {"stride": (1,) * rank, "dilation": (1,) * rank, "padding": ((0, 0),) * rank, **base}
    roomy = tuple((low + 3, high + 3) for low, high in base["padding"])
    yield "plain", base
    yield "tail", {**base, "size": tuple(n + 1 for n in base["size"])}
    yield "stride", {**base, "stride": (2, 3, 2, 2)[:rank], "padding": roomy}
    yield "halved", {**base, "stride": (2,) * rank, "padding": tuple((a + 1, b) for a, b in base["padding"])}
    yield "dilation", {**base, "dilation": (2, 1, 2, 2)[-rank:], "padding": tuple(
        (low + k, high + k) for (low, high), k in zip(base["padding"], base["kernel"], strict=True))}
    yield "spread", {**base, "stride": (2,) * rank, "dilation": (2,) * rank, "padding": tuple(
        (low + k, high + k) for (low, high), k in zip(base["padding"], base["kernel"], strict=True))}
    yield "asymmetric", {**base, "padding": tuple((a + 1, b + 2) for a, b in base["padding"])}
    yield "grouped", {**base, "groups": 3}
    yield "depthwise", {**base, "groups": 4, "C": 1, "K": 1}
    yield "batch", {**base, "N": 3, "channels_last": True}
    yield "upsampled", {**base, "upsample": (2, 3, 2, 1)[:rank], "padding": roomy}
    yield "filled", {**base, "fill": 1.5, "padding": roomy}
    for mode in MODES[1:]:
        yield mode, {**base, "boundary": (mode,) * rank, "padding": roomy}


def _problems():
    for name, base in _BASES.items():
        for variant, values in _variants(base):
            values = {**values, "fill": 2 if "fill" in values else 0}
            problem = ConvProblem(**values, dtype=np.dtype("f4"))
            if 0 not in problem.out:
                yield f"{name}-{variant}", problem


CASES = dict(_problems())


def operands(problem, seed=0):
    """(x, weight, bias) of the problem's engine type."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        if problem.engine.kind == "i":
            return rng.integers(-9, 9, shape).astype(problem.engine)
        values = rng.standard_normal(shape)
        if problem.engine.kind == "c":
            values = values + 1j * rng.standard_normal(shape)
        return values.astype(problem.engine)

    x = draw(problem.x_shape)
    if problem.channels_last:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    weight = draw(problem.weight_shape)
    if problem.separable:
        windows = weight.reshape(-1, *problem.kernel)
        for i, window in enumerate(windows):
            first = (0,) * problem.rank
            windows[i] = reduce(np.multiply.outer, [window[(*first[:a], slice(None), *first[a + 1:])]
                                                    for a in range(problem.rank)])
    return x, weight, draw((problem.groups * problem.K,))


def problems(largest=60, work=200_000):
    """Valid problems of any kind whose arrays stay small, as does the oracle's `work`: output positions by taps."""
    return _problem(largest).filter(lambda p: 0 < p.positions * product(p.kernel) <= work)


@st.composite
def _problem(draw, largest):
    rank = draw(st.integers(1, 4))
    each = lambda strategy: tuple(draw(strategy) for _ in range(rank))                 # noqa: E731
    limit = (largest, 14, 7, 4)[rank - 1]
    kernel = each(st.integers(1, (9, 5, 3, 3)[rank - 1]))
    size = each(st.integers(1, limit))
    dilation = each(st.integers(1, 3))
    padding = tuple(tuple(draw(st.integers(0, 4)) + (d * (k - 1) + 1) // 2 for _ in range(2))
                    for k, d in zip(kernel, dilation, strict=True))
    upsample = each(st.integers(1, 3)) if draw(st.booleans()) else (1,) * rank
    plain = upsample == (1,) * rank
    return ConvProblem(
        N=draw(st.integers(1, 3)), groups=draw(st.integers(1, 3)), C=draw(st.integers(1, 3)), K=draw(st.integers(1, 9)),
        size=size, kernel=kernel, stride=each(st.integers(1, 3)) if plain else (1,) * rank, dilation=dilation,
        padding=padding, upsample=upsample,
        boundary=each(st.sampled_from(MODES)) if plain else (), fill=draw(st.integers(-2, 2)),
        dtype=np.dtype(draw(st.sampled_from(["f4", "f8", "c16", "i4"]))), channels_last=draw(st.booleans()),
        threads=draw(st.integers(1, 3)))
