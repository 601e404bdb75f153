"""Transforms of boxes that a block's threads hold together, and blocks of every shape, in the simulator."""

from math import prod

import numpy as np
import pytest
import reference
from cases import CASES, operands
from numba import cuda, float64, int32
from tolerance import bound

from nconv import engine, registry
from nconv.cuda import fft
from nconv.cuda.device import launch
from nconv.cuda.fft import boxes

BOXES = [((1, 1, 64), 4), ((1, 1, 32), 8), ((1, 4, 8), 8), ((1, 16, 8), 16), ((2, 4, 8), 4), ((8, 2, 4), 8),
         ((4, 4, 4), 4)]


def transformed(lengths, most, x):
    """(the spectrum in the order of the last pass, that transformed back) by the threads of one block."""
    count, spot = prod(lengths) // most, 2 * boxes.spot(lengths, most, prod(lengths))
    numbers = 2 * most
    passes = boxes.passes_of(lengths, most)
    forward, back = boxes.transform_box(lengths, most, False), boxes.transform_box(lengths, most, True)
    first = [boxes.butterfly_of(lengths, most, 0, k) for k in range(most // passes[0].radix)]
    apart, radix = passes[0].apart, passes[0].radix

    @cuda.jit
    def kernel(source, turns, spectrum, target):
        shared, values = cuda.shared.array(spot, float64), cuda.local.array(numbers, float64)
        thread = int32(cuda.threadIdx.x)
        for k in range(len(first)):
            at = first[k](thread)[0]
            for q in range(radix):
                values[2 * (k * radix + q)] = source[at + q * apart].real
                values[2 * (k * radix + q) + 1] = source[at + q * apart].imag
        forward(values, shared, turns, thread)
        for i in range(most):
            spectrum[thread + i * count] = complex(values[2 * i], values[2 * i + 1])
        back(values, shared, turns, thread)
        for k in range(len(first)):
            at = first[k](thread)[0]
            for q in range(radix):
                target[at + q * apart] = complex(values[2 * (k * radix + q)], values[2 * (k * radix + q) + 1])

    spectrum, target = np.full((2, x.size), np.nan, complex)
    launch(kernel, 1, count, 0, x.ravel(), boxes.twiddles(lengths, most, np.dtype("f8")), spectrum, target)
    return spectrum, target.reshape(lengths)


@pytest.mark.parametrize("lengths, most", BOXES)
def test_a_box_is_transformed_and_back(lengths, most):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(lengths) + 1j * rng.standard_normal(lengths) for _ in range(2))
    spectrum, same = transformed(lengths, most, x)
    np.testing.assert_allclose(same, x.size * x, atol=1e-12 * x.size)
    # The order of the frequencies is the passes' own, and the same for every box of a shape.
    np.testing.assert_allclose(np.sort_complex(spectrum.round(9)), np.sort_complex(np.fft.fftn(x).ravel().round(9)))
    order = [int(np.argmin(np.abs(np.fft.fftn(x).ravel() - value))) for value in spectrum]
    assert sorted(order) == list(range(x.size))
    np.testing.assert_allclose(transformed(lengths, most, y)[0], np.fft.fftn(y).ravel()[order], atol=1e-11)


@pytest.mark.parametrize("lengths", [(1, 1, 1 << 14), (1, 64, 64), (1, 128, 128), (32, 16, 32), (8, 8, 16)])
@pytest.mark.parametrize("itemsize", [4, 8])
def test_threads_have_whole_butterflies_of_a_real_block(lengths, itemsize, monkeypatch):
    monkeypatch.setattr(boxes, "SIMULATED", False)
    most = boxes.held(lengths, itemsize)
    passes = boxes.passes_of(lengths, most)
    assert prod(lengths) // most <= 1024 and len(passes) > 1
    assert prod(p.radix for p in passes) == prod(lengths)
    assert all(most % p.radix == 0 for p in passes)
    # A butterfly's points lie whole butterflies of the last pass apart, by which room is left between them.
    assert all(p.apart % passes[-1].radix == 0 for p in passes[:-1]) and passes[-1].apart == 1


@pytest.mark.parametrize("case, lengths", [
    *(("signal-plain", lengths) for lengths in ((1, 1, 64), (1, 1, 256))),
    *((case, lengths) for case in ("image-asymmetric", "image-depthwise", "layer-stride", "image-dilation")
      for lengths in ((1, 8, 8), (1, 4, 64), (1, 32, 8), (1, 16, 16))),
    *((case, lengths) for case in ("volume-plain", "volume-reflect")
      for lengths in ((4, 4, 4), (2, 16, 8), (16, 4, 4)))])
def test_blocks_of_every_shape(case, lengths, monkeypatch):
    problem = CASES[case].replace(device="cuda", fill=CASES[case].fill + 0.5)       # no launch of another test is found
    monkeypatch.setattr(fft, "_shapes", lambda *_: [lengths])
    monkeypatch.setattr(fft, "_cut", fft._cut.__wrapped__)
    monkeypatch.setattr(fft, "_faster", lambda *_: None)
    monkeypatch.setattr(fft, "_read", fft._read.__wrapped__)
    algorithm = next(a for a in registry.algorithms("cuda") if a.NAME == "fft")
    assert not algorithm.why_not(problem)
    x, weight, bias = operands(problem)
    out = engine.run_algorithm(algorithm, problem, x, weight, bias)
    expected, magnitude = (f(problem, x, weight, bias) for f in (reference.convolution, reference.magnitude))
    assert (np.abs(out - expected) <= bound("fft", problem, magnitude)).all()
