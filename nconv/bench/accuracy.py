"""Largest errors of every algorithm on layers, as multiples of the direct method's: ``python -m nconv.bench.accuracy``.

With PyTorch installed its float32 errors stand beside them. Data is normal, with and without an offset of 3.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from .. import engine, registry
from ..problem import ConvProblem

_SIZES = {1: (4000,), 2: (48, 48), 3: (14, 14, 14)}
_FILTERED = {2: (96, 96), 3: (28, 28, 28)}           # images under windows that are an outer product


def _layer(rank: int, taps: int, channels: int, dtype: str) -> ConvProblem:
    ones = (1,) * rank
    return ConvProblem(N=1, groups=1, C=channels, K=16, size=_SIZES[rank], kernel=(taps,) * rank, stride=ones,
                       dilation=ones, padding=((taps // 2, taps // 2),) * rank, dtype=np.dtype(dtype))


def _passes(rank: int, taps: int, dtype: str) -> ConvProblem:
    return _layer(rank, taps, 1, dtype).replace(K=1, size=_FILTERED[rank], separable=True)


def _weight(problem: ConvProblem, rng: np.random.Generator) -> np.ndarray:
    """Normal, of unit norm on average; an outer product where the problem says so."""
    if problem.separable:
        weight = reduce(np.multiply.outer, [rng.standard_normal(n) for n in problem.kernel])
    else:
        weight = rng.standard_normal(problem.weight_shape)
    return weight.reshape(problem.weight_shape).astype("f4") / np.float32(problem.taps ** 0.5)


def _torch(problem: ConvProblem, x: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    try:
        import torch
    except ImportError:
        return None
    function = getattr(torch.nn.functional, f"conv{problem.rank}d")
    return function(torch.from_numpy(x), torch.from_numpy(weight), padding=problem.padding[0][0]).numpy()


def errors(problem: ConvProblem, offset: float, seed: int = 0) -> dict[str, float]:
    """Largest difference of each algorithm's float32 result, and PyTorch's, from the direct method's in float64."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(problem.x_shape) + offset).astype("f4")
    weight = _weight(problem, rng)
    algorithms = {a.NAME: a for a in registry.algorithms() if not a.why_not(problem)}
    exact = engine.run_algorithm(algorithms["direct"], problem.replace(dtype=np.dtype("f8")), x, weight)
    results = {name: engine.run_algorithm(a, problem, x, weight) for name, a in algorithms.items()}
    theirs = _torch(problem, x, weight)
    if theirs is not None:
        results["torch"] = theirs
    return {name: float(np.abs(y - exact).max()) for name, y in results.items()}


def main() -> None:
    """Print the table."""
    print("window, channels, offset: largest error of the direct method, then multiples of it")
    problems = [_layer(rank, taps, channels, "f4") for rank, taps in ((1, 3), (2, 3), (2, 5), (2, 9), (3, 3))
                for channels in (1, 16, 64, 256)]
    problems += [_passes(rank, taps, "f4") for rank, taps in ((2, 3), (2, 5), (2, 9), (2, 15), (2, 41), (3, 3), (3, 7))]
    for problem in problems:
        for offset in (0, 3):
            found = errors(problem, offset)
            unit = found.pop("direct")
            print(f"{' x '.join(map(str, problem.kernel))}, {problem.C}, {offset}: {unit:.1e}",
                  *(f"{name} {error / unit:.1f}" for name, error in found.items()), sep="  ", flush=True)


if __name__ == "__main__":
    main()
