"""How far a right result may lie from the oracle's: rounding alone, from the type, the taps and the operands."""

import numpy as np


def bound(name, problem, magnitude):
    """Largest difference that is allowed, element by element, from the sums over magnitudes.

    A sum of T products errs by at most about T eps times the sum of magnitudes, a few eps more where blocks are summed;
    a transform spreads the error of the whole block or tile over it, so there the largest sum counts everywhere.
    """
    if problem.engine.kind == "i":
        return np.zeros_like(magnitude)
    eps = np.finfo(problem.engine).eps
    if name in ("fft", "fft_tiles", "winograd", "winograd_large"):
        spread = 128 if name == "winograd_large" else 32  # tiles of 8 inputs an axis: beyond the default error limit
        return np.full_like(magnitude, spread * eps * magnitude.max(initial=0)) + 1e-300
    if name == "separable":                             # each tap differs from the product by a few roundings
        return (8 + sum(problem.kernel)) * eps * magnitude + 1e-300
    return (2 + min(problem.taps, 512)) * eps * magnitude + 1e-300
