"""Direct sums: what their results do not show."""

import numpy as np
import pytest

from nconv.cpu.arrays import operand
from nconv.cpu.direct import filters
from nconv.cpu.direct.tiles import direct_place_kernel
from nconv.jit import kernel
from nconv.problem import ConvProblem

direct_ahead_kernel = filters.direct_ahead_kernel


@kernel
def distances(window, groups, source, step, out):
    """What `direct_ahead_kernel` says for each piece of work, in their order."""
    rank, images = window.tile.size, window.batch * groups
    origin, extent, next_origin = np.empty(rank, np.int64), np.empty(rank, np.int64), np.empty(rank, np.int64)
    for item in range(out.size):
        direct_place_kernel(window, item // images, origin, extent)
        out[item] = direct_ahead_kernel(window, groups, source, item // images, item % images // groups, item % groups,
                                        origin, next_origin, extent, step)


@pytest.mark.parametrize("size, stride", [((700, 900), (1, 1)), ((900, 700), (3, 2)), ((70, 80, 90), (2, 1, 2))])
def test_what_is_asked_for_is_where_the_next_piece_of_work_begins(size, stride):
    rank = len(size)
    problem = ConvProblem(N=2, groups=3, C=1, K=1, size=size, kernel=(3,) * rank, stride=stride, dilation=(1,) * rank,
                          padding=((1, 1),) * rank, dtype=np.dtype("f4"))
    window, _ = filters._lay_out(problem)
    source = operand(np.empty(problem.x_shape, np.float32))
    origins = [place * window.tile for place in map(np.array, np.ndindex(*window.grid))]
    assert len(origins) > 2
    begins = [n * source.strides[0] + g * source.strides[1] + (origin * stride * source.strides[3:]).sum()
              for origin in origins for n in range(2) for g in range(3)]
    out = np.empty(len(begins), np.int64)
    distances(window, problem.groups, source, stride[-1], out)
    assert out[:-1].tolist() == np.diff(begins).tolist()
