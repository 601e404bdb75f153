"""A signal without end, filtered block by block: state in, samples out, nothing recomputed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import planner, registry, threads
from .geometry import ceil_div, product, round_up
from .lowering import as_array, check_device, check_word, on_gpu
from .machine import machine
from .problem import ArraySpec, engine_dtype
from .signal import convolve

if TYPE_CHECKING:                       # kernels load with the first samples
    from .cpu.fft.partitions import Level

_UNIT = 64                     # a block is a multiple: whole vectors of every type on every machine
_BLOCK = 1024                  # the longest block that is taken where none is given
_LARGEST = 8192                # samples of the longest parts: their transform is the most that one call has to do
_WORTH_THREADS = 1 << 20       # operations from which the start of threads costs little beside the work


class Stream:
    """Convolve a signal that arrives in pieces: what `feed` and `flush` return is one full convolution.

    ``y[n] = sum over t of h[t] x[n - t]``, x being all samples that were fed, zero before the first.

    Parameters
    ----------
    h : array_like
        The kernel, shape (taps,) for all channels, or (..., taps) with one for each: its leading axes are broadcast
        with those of the signal. Must be finite.
    block : int, optional
        Samples that the method 'fft' takes at once, its latency: a multiple of 64 without prime factors above 5, such
        as 128 or 960. By default up to 1024, less for short kernels.
    method : {'auto', 'direct', 'fft'}
        'direct' has no latency and `taps` products for each sample. 'fft' cuts the kernel into parts of one block and,
        further behind, of longer ones (non-uniformly partitioned convolution), so that each sample costs little and no
        call has much more to do than the others. 'auto' takes the one that costs less. Integers are exact and always
        direct.

    Attributes
    ----------
    taps : int
        Length of the kernel.
    latency : int
        Samples that `feed` may hold back: those of a block that is not whole, 0 for the direct method; None before
        the first samples have come.

    Raises
    ------
    ValueError
        For a kernel without taps or with NaN or infinity, a block that is no such number or stands beside
        ``method='direct'``, or an unknown method.
    TypeError
        For objects, strings and dates.

    Notes
    -----
    On a GPU (h and every x are arrays of CuPy, PyTorch or Numba) each piece is filtered behind the last samples by the
    algorithm that `nconv.plan` would choose, or by the one that `method` names: nothing is held back, unless `block` is
    given, and then whole blocks go through one plan. Nobody looks there whether h is finite. Such a stream can be
    copied, but not pickled.

    The memory is that of the kernel's spectra and of as many of each channel's last samples; it does not grow. A NaN or
    an infinity spoils only the outputs whose window holds it. Rounding of 'fft' is relative to the loudest
    sample of the window. A stream can be copied (`copy.copy`, `copy.deepcopy`) and pickled at any moment; copy and
    original go on independently.

    References
    ----------
    .. [1] Gardner 1995, Efficient Convolution without Input-Output Delay.
    .. [2] Wefers 2015, Partitioned Convolution Algorithms for Real-Time Auralization, chapters 5 and 6.

    Examples
    --------
    >>> import numpy as np, nconv
    >>> stream = nconv.Stream([1, 10, 100])
    >>> stream.feed([1, 2])
    array([ 1, 12])
    >>> stream.feed([3])
    array([123])
    >>> stream.flush()
    array([230, 300])

    Two channels, one kernel, blocks of 64:

    >>> stream = nconv.Stream(np.ones(50), block=64, method="fft")
    >>> stream.feed(np.ones((2, 80))).shape, stream.feed(np.ones((2, 80))).shape, stream.flush().shape
    ((2, 64), (2, 64), (2, 81))
    """

    def __init__(self, h: ArrayLike, block: int | None = None, method: str = "auto"):
        self._device = check_device(None, h=h)
        taps = as_array(h, "h")
        if isinstance(taps, ArraySpec):
            raise TypeError("h must be an array, not an ArraySpec")
        if taps.ndim == 0 or taps.shape[-1] == 0:
            raise ValueError(f"h must have at least one tap: h.shape={taps.shape}")
        if self._device == "cpu" and taps.dtype.kind in "fc" and not np.isfinite(taps).all():
            raise ValueError("h must be finite: it has NaN or infinity")
        self._method = check_word(method, "method", ("auto", "direct", "fft"))
        if block is not None:
            if isinstance(block, bool) or not isinstance(block, (int, np.integer)):
                raise ValueError(f"block must be an integer: block={block!r}")
            if block < 1 or block % _UNIT or not _is_smooth(int(block)):
                raise ValueError(f"block must be a multiple of {_UNIT} without prime factors above 5: block={block}")
            if self._method == "direct":
                raise ValueError(f"the direct method has no blocks: block={block}, method='direct'")
        self._h: Any = taps.copy()
        self._block = None if block is None else int(block)
        self.taps: int = taps.shape[-1]
        self.reset()

    def reset(self) -> None:
        """Forget all samples, and with them the channels and the dtype: the next `feed` begins a new signal."""
        self._shape: tuple[int, ...] | None = None       # leading axes of the signal, as they were fed
        self._dtype: np.dtype = self._h.dtype            # of the result
        self._out_shape: tuple[int, ...] = self._h.shape[:-1]
        self._levels: tuple[Level, ...] = ()  # none: the direct method
        self._work = 0.0
        self._fed = 0
        self._given = 0
        self._held: Any = None                           # direct: the last taps - 1 samples; fft: those of no block yet
        self._strange: Any = None                        # what NaN and infinity add to the outputs to come
        self._unit = 1                                   # direct: samples that go through the engine at once
        self._plan: planner.Plan | None = None           # direct: for inputs of the last shape
        self._planned: tuple[int, ...] = ()

    @property
    def latency(self) -> int | None:
        """Samples that `feed` may hold back."""
        if self._shape is None:
            return None
        return self._levels[0].parts.n if self._levels else self._unit if self._unit > 1 else 0

    def feed(self, x: ArrayLike) -> NDArray:
        """Take the next samples and return those outputs that are ready.

        Parameters
        ----------
        x : array_like
            Shape (..., count), any count, also 0. The leading axes are channels and stay as in the first call.

        Returns
        -------
        ndarray
            Shape (..., ready), of the dtype to which NumPy promotes those of x and h. ready is count for the direct
            method, else what completes a block.

        Raises
        ------
        ValueError
            For channels that differ from those of the calls before, or do not fit the kernel's; for integers with
            ``method='fft'``.
        TypeError
            For objects, strings and dates, or a dtype with which the result would change its own.
        """
        check_device(self._device if on_gpu(x) else None, x=x, h=self._h)
        samples = as_array(x, "x")
        if isinstance(samples, ArraySpec) or samples.ndim == 0:
            raise ValueError("x must be an array with an axis of samples")
        if self._shape is None:
            self._begin(samples)
        elif samples.shape[:-1] != self._shape:
            raise ValueError(f"the channels must stay as they were: x.shape={samples.shape}, "
                             f"before {(*self._shape, '...')}")
        elif np.result_type(samples.dtype, self._h.dtype) != self._dtype:
            raise TypeError(f"the dtype must stay as it was: x.dtype={samples.dtype} would give "
                            f"{np.result_type(samples.dtype, self._h.dtype)}, this stream gives {self._dtype}")
        count = samples.shape[-1]
        rows = _spread(samples, (*self._out_shape, count)).reshape(product(self._out_shape), count)
        self._fed += count
        return self._shaped(self._through_blocks(rows) if self._levels else self._through_sums(rows), samples)

    def flush(self) -> NDArray:
        """Return the outputs that remain once the signal has ended, and begin anew.

        Returns
        -------
        ndarray
            Shape (..., rest): with all that `feed` has returned, as many samples as were fed, and taps - 1. Empty where
            nothing was fed. The stream is then as if new: what is fed next is another signal.
        """
        arrays = registry.arrays(self._device)
        if self._shape is None:
            return arrays.deliver(arrays.zeros((*self._out_shape, 0), self._dtype, self._h), self._h)
        rest = self._fed + self.taps - 1 - self._given if self._fed else 0
        pending = self._held.shape[-1] - (0 if self._levels else self.taps - 1)
        missing = round_up(rest, self._levels[0].parts.n if self._levels else self._unit) - pending
        zeros = arrays.zeros((product(self._out_shape), missing), self._dtype, self._held)
        tail = self._through_blocks(zeros) if self._levels else self._through_sums(zeros)
        tail = self._shaped(tail[:, :rest], self._held)
        self.reset()
        return tail

    def __copy__(self) -> Stream:
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": None}          # plans belong to the process

    def __repr__(self) -> str:
        way = "not begun" if self._shape is None else f"fft, blocks of {self.latency}" if self._levels else "direct"
        return f"<Stream of {self.taps} taps, {way}, {self._fed} samples fed>"

    # ------------------------------------------------------------------------------------------------ Beginning

    def _begin(self, x: np.ndarray) -> None:
        """Choose the method for these channels and this dtype, and make the state."""
        try:
            out_shape = np.broadcast_shapes(x.shape[:-1], self._h.shape[:-1])
        except ValueError:
            raise ValueError(f"the channels of x and h do not fit: x.shape={x.shape}, "
                             f"h.shape={self._h.shape}") from None
        dtype = np.result_type(x.dtype, self._h.dtype)
        engine = engine_dtype(dtype)
        if engine.kind == "i" and self._method == "fft":
            raise ValueError(f"method='fft' would round integers (dtype {dtype}); expected 'auto' or 'direct'")
        channels = product(out_shape)
        real = np.zeros(0, engine).real.dtype
        rows = channels if engine.kind != "c" else 2 * channels if self._h.dtype.kind != "c" else 4 * channels
        if self._device == "cuda":
            self._shape, self._out_shape, self._dtype = x.shape[:-1], out_shape, dtype
            self._held = registry.arrays("cuda").zeros((channels, self.taps - 1), dtype, x)
            self._unit = self._block or 1
            return
        block = self._block or min(_BLOCK, round_up(self.taps, _UNIT), key=lambda n: (not _is_smooth(n), n))
        sizes, work = _levels(self.taps, block, rows)
        rates = machine().efficiency
        sums = 2 * self.taps * channels * (4 if engine.kind == "c" else 1)
        fft = engine.kind != "i" and self._method != "direct" and channels > 0 and (
            self._method == "fft" or work / rates["stream_fft"] < sums / rates["stream"])
        self._shape, self._out_shape, self._dtype = x.shape[:-1], out_shape, dtype
        self._held = np.zeros((channels, 0 if fft else self.taps - 1), dtype)
        if fft:
            self._work = work
            self._levels = self._make_levels(sizes, real, channels)

    def _make_levels(self, sizes: tuple[int, ...], real: np.dtype, channels: int) -> tuple[Level, ...]:
        """Complex numbers are rows of real ones: re, im by the real taps, then re, im by the imaginary ones."""
        from .cpu.fft import partitions

        kernels = self._h.reshape(-1, self.taps)
        index = np.arange(len(kernels)).reshape(self._h.shape[:-1])
        kernel_of = np.broadcast_to(index, self._out_shape).reshape(-1)
        if self._dtype.kind == "c":
            kernel_of = np.tile(kernel_of, 2)
        if kernels.dtype.kind == "c":
            kernel_of = np.concatenate([kernel_of, kernel_of + len(kernels)])
            kernels = np.concatenate([kernels.real, kernels.imag])
        bounds = [0, *sizes[1:], self.taps]
        return tuple(partitions.level(np.ascontiguousarray(kernels[:, begin:end], real), n, sizes[0],
                                      kernel_of.astype(np.int64), begin > 0)
                     for n, begin, end in zip(sizes, bounds[:-1], bounds[1:], strict=True))

    # ------------------------------------------------------------------------------------------------ Samples

    def _shaped(self, rows: Any, like: Any) -> Any:
        self._given += rows.shape[-1]
        return registry.arrays(self._device).deliver(rows.reshape(*self._out_shape, rows.shape[-1]), like)

    def _through_sums(self, rows: Any) -> Any:
        """The outputs of samples [channels, count], by the engine, in 'valid' on what came before and them."""
        x = _joined(self._held, rows.astype(self._dtype, copy=False))
        count = (x.shape[1] - (self.taps - 1)) // self._unit * self._unit
        self._held = x[:, count:].copy()
        if count == 0 or x.shape[0] == 0:
            return registry.arrays(self._device).zeros((x.shape[0], count), self._dtype, x)
        x = x[:, :count + self.taps - 1]
        if self._plan is None or self._planned != x.shape:
            h = _spread(self._h, (*self._out_shape, self.taps)) if self._h.ndim > 1 else self._h
            self._plan = planner.plan(convolve, ArraySpec(x.shape, self._dtype, self._device),
                                      h.reshape(-1, self.taps), "valid", self._method, axes=-1)
            self._planned = x.shape
        return as_array(self._plan(x), "y")

    def _through_blocks(self, rows: np.ndarray) -> np.ndarray:
        """The outputs of all blocks that samples [channels, count] make whole."""
        from .cpu.fft import partitions

        rows = rows.astype(self._dtype, copy=False)
        if not np.isfinite(rows).all():
            rows = self._take_strange(rows)
        x = np.concatenate([self._held, rows], axis=1) if self._held.size else rows
        count = x.shape[1] - x.shape[1] % self._levels[0].parts.n
        self._held = x[:, count:].copy()
        if count == 0:
            return np.empty((len(x), 0), self._dtype)
        x = x[:, :count]
        real = self._levels[0].parts.past.dtype
        if self._dtype.kind == "c":
            x = np.concatenate([x.real, x.imag])
        if self._h.dtype.kind == "c":
            x = np.concatenate([x, x])
        workers = threads.get_num_threads() if self._work * count > _WORTH_THREADS else 1
        y = partitions.advance(self._levels, np.ascontiguousarray(x, real), workers)
        if self._h.dtype.kind == "c":
            a, b, c, d = np.split(y, 4)
            y = np.concatenate([a - d, b + c])
        if self._dtype.kind == "c":
            y = np.stack(np.split(y, 2), axis=-1).view(engine_dtype(self._dtype))[..., 0]
        y = y.astype(self._dtype, copy=False)
        if self._strange is not None:
            ready = min(count, self._strange.shape[1])
            y[:, :ready] += self._strange[:, :ready]
            self._strange = self._strange[:, ready:] if self._strange.shape[1] > ready else None
        return y

    def _take_strange(self, rows: np.ndarray) -> np.ndarray:
        """The samples with zeros for NaN and infinity, whose products are kept for the outputs that they belong to."""
        finite = np.isfinite(rows)
        length = self._held.shape[1] + rows.shape[1] + self.taps - 1
        before, self._strange = self._strange, np.zeros((len(rows), length), self._dtype)
        if before is not None:
            self._strange[:, :before.shape[1]] = before
        h = np.broadcast_to(self._h, (*self._out_shape, self.taps)).reshape(-1, self.taps)
        with np.errstate(invalid="ignore"):
            for channel in np.flatnonzero(~finite.all(axis=1)):
                target = self._strange[channel, self._held.shape[1]:]
                lost = np.isnan(rows[channel])
                edges = np.flatnonzero(np.diff(lost, prepend=False, append=False))
                for begin, end in zip(edges[::2], edges[1::2], strict=True):      # a NaN spoils its whole window
                    target[begin:end - 1 + self.taps] = np.nan
                for n in np.flatnonzero(~finite[channel] & ~lost):
                    target[n:n + self.taps] += rows[channel, n] * h[channel]
        return np.where(finite, rows, 0).astype(self._dtype)


def _spread(array: Any, shape: tuple[int, ...]) -> Any:
    """An array, of the host or of a GPU, repeated to a shape."""
    return array.broadcast_to(shape) if on_gpu(array) else np.broadcast_to(array, shape)


def _joined(before: Any, after: Any) -> Any:
    """Samples behind samples."""
    if not on_gpu(after):
        return np.concatenate([before, after], axis=1)
    n = before.shape[1]
    x = registry.arrays("cuda").zeros((after.shape[0], n + after.shape[1]), after.dtype, after)
    x[:, :n] = before
    x[:, n:] = after
    return x


def _levels(taps: int, block: int, rows: int) -> tuple[tuple[int, ...], float]:
    """(samples of a part, for each level; operations for each sample): the least work of one level or two.

    Parts of n begin n taps behind the first: by then n samples have come, and there is a whole block's time to sum.
    """
    from .cpu.fft import partitions

    choices = [(block,)] + [(block, block * r) for r in (4, 8, 16, 32, 64)
                            if block * r <= _LARGEST and block * r < taps]

    def work(sizes):
        bounds = [0, *sizes[1:], taps]
        return sum(partitions.work(rows, n, ceil_div(end - begin, n))
                   for n, begin, end in zip(sizes, bounds[:-1], bounds[1:], strict=True))

    best = min(choices, key=work)
    return best, work(best)


def _is_smooth(n: int) -> bool:
    """Whether the transforms take n."""
    from .cpu.fft.transforms import is_smooth

    return is_smooth(n)
