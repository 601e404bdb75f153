"""Largest errors of every algorithm on layers, as multiples of the direct method's: ``python -m nconv.bench.accuracy``.

With PyTorch installed its float32 errors stand beside them. Data is normal, with and without an offset of 3.
"""

from __future__ import annotations

import numpy as np

from .. import engine, registry
from ..problem import ConvProblem

_SIZES = {1: (4000,), 2: (48, 48), 3: (14, 14, 14)}


def _layer(rank: int, taps: int, channels: int, dtype: str) -> ConvProblem:
    ones = (1,) * rank
    return ConvProblem(N=1, groups=1, C=channels, K=16, size=_SIZES[rank], kernel=(taps,) * rank, stride=ones,
                       dilation=ones, padding=((taps // 2, taps // 2),) * rank, dtype=np.dtype(dtype))


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
    weight = rng.standard_normal(problem.weight_shape).astype("f4") / np.float32(problem.taps ** 0.5)
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
    for rank, taps in ((1, 3), (2, 3), (2, 5), (2, 9), (3, 3)):
        for channels in (1, 16, 64, 256):
            for offset in (0, 3):
                found = errors(_layer(rank, taps, channels, "f4"), offset)
                unit = found.pop("direct")
                print(f"{' x '.join([str(taps)] * rank)}, {channels}, {offset}: {unit:.1e}",
                      *(f"{name} {error / unit:.1f}" for name, error in found.items()), sep="  ", flush=True)


if __name__ == "__main__":
    main()
