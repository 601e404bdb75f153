"""The oracle: the definition of a convolution, loop by loop, in float64 and in the field's letters.

It knows boundaries only as Python arithmetic on one index, and shares no code with the package but the frozen problem.
"""

import itertools

import numpy as np


def source_index(mode, i, size):
    """Index of the input element that stands at position i of an axis, or None for the fill value."""
    if 0 <= i < size:
        return i
    if mode == "constant":
        return None
    if mode == "edge":
        return 0 if i < 0 else size - 1
    if mode == "wrap":
        while i < 0:
            i += size
        while i >= size:
            i -= size
        return i
    while not 0 <= i < size:                    # symmetric: the edge is repeated; reflect: it is not
        repeated = mode == "symmetric"
        if size == 1:
            return 0
        i = -i - repeated if i < 0 else 2 * size - 1 - i - (not repeated)
    return i


def padded_values(problem, x, position):
    """The input, padded and with zeros between its elements, at one position: [N, channels]."""
    index = []
    for a, p in enumerate(position):
        low = problem.padding[a][0]
        if problem.upsample[a] > 1:
            q, rest = divmod(p - low, problem.upsample[a])
            i = q if rest == 0 and 0 <= q < problem.size[a] else None
        else:
            i = source_index(problem.boundary[a], p - low, problem.size[a])
        if i is None:
            return np.full(x.shape[:2], problem.fill, x.dtype)
        index.append(i)
    return x[(slice(None), slice(None), *index)]


def convolution(problem, x, weight, bias=None):
    """out[n, k, p...] = bias[k] + sum over c, r of weight[k, c, r...] padded[n, g C + c, p stride + r dilation]."""
    p = problem
    wide = {"c": np.complex128, "f": np.float64}.get(p.dtype.kind, object)
    x, weight = x.astype(wide), weight.astype(wide)
    out = np.zeros((p.N, p.groups * p.K, *p.out), wide)
    for o in itertools.product(*map(range, p.out)):
        for r in itertools.product(*map(range, p.kernel)):
            position = [oi * s + ri * d for oi, s, ri, d in zip(o, p.stride, r, p.dilation, strict=True)]
            values = padded_values(p, x, position).reshape(p.N, p.groups, 1, p.C)
            taps = weight[(slice(None), slice(None), *r)].reshape(p.groups, p.K, p.C)
            out[(slice(None), slice(None), *o)] += (values * taps).sum(-1).reshape(p.N, -1)
    if bias is not None:
        out += bias.astype(wide).reshape(-1, *(1,) * len(p.out))
    if wide is object:
        bits = 8 * p.engine.itemsize
        return np.vectorize(lambda v: (int(v) + 2 ** (bits - 1)) % 2 ** bits - 2 ** (bits - 1), otypes=[p.engine])(out)
    return out


def magnitude(problem, x, weight, bias=None):
    """The same sum over magnitudes: what rounding errors are measured by."""
    absolute = problem.replace(dtype=np.dtype("f8"), fill=abs(problem.fill))
    return convolution(absolute, np.abs(x), np.abs(weight), None if bias is None else np.abs(bias))
