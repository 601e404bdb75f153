"""Pictures: kernels, feature maps, frequency responses, which method wins where, how fast each is.

Every function draws into one matplotlib axes, its `ax` or a new one, and returns it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import nconv
from nconv.bench.measure import median_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIGNED = "RdBu_r"                     # zero is white
_COLOURS = {"direct": "#4477aa", "im2col": "#ccbb44", "fft": "#ee6677", "winograd": "#228833"}
_MORE = ("#aa3377", "#66ccee", "#bbbbbb", "#000000")


def _axes(ax: Axes | None, width: float = 6.4, height: float = 4.8) -> Axes:
    """`ax`, or the axes of a new figure of this size in inches."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("nconv.plot needs matplotlib: pip install 'nconv[plot]'") from None
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


# ---------------------------------------------------------------------------------------- Kernels, feature maps


def kernels(layer: Any, *, limit: int = 64, columns: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw the kernels of a layer side by side, on one scale.

    Three input channels are shown as colour, one channel in shades around zero, more as one row of windows for each
    output channel. Volumes are shown slice by slice, signals as strips.

    Parameters
    ----------
    layer : layer or array_like
        A layer with a `weight`, or the weight: (K, C, taps) with one to three axes of taps.
    limit : int, default 64
        At most so many output channels are drawn, and so many windows in a row.
    columns : int, optional
        Windows in a row; by default near a square.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the weight does not have three to five dimensions.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> import numpy as np, nconv.plot
    >>> ax = nconv.plot.kernels(np.arange(18.0).reshape(2, 1, 3, 3))
    >>> ax.get_title()
    '2 kernels of 3 x 3'
    """
    weight = np.asarray(getattr(layer, "weight", layer))
    if not 3 <= weight.ndim <= 5 or weight.size == 0:
        raise ValueError(f"the weight must be (K, C, taps) with one to three axes of taps: shape={weight.shape}")
    count, channels, *taps = weight.shape
    name = f"{count} kernel{'s' if count > 1 else ''} of {' x '.join(map(str, taps))}"
    if channels > 1:
        name += f", {channels} channels"
    shown = weight[:limit]
    if len(shown) < count:
        name += f": the first {limit}"
    if weight.ndim == 4 and channels == 3:
        peak = abs(shown).max() or 1
        tiles, labels = np.moveaxis(shown, 1, -1) / (2 * peak) + 0.5, [str(k) for k in range(len(shown))]
        return _mosaic(tiles, labels, columns, name, _axes(ax))
    # (K, C, *taps) as rows of windows: the channels, and a volume's slices, side by side.
    if weight.ndim == 3:                                 # a strip that is high enough to be seen
        shown = np.repeat(shown[:, :, None], math.ceil(taps[0] / 8), axis=2)
    windows = shown.reshape(len(shown), -1, *shown.shape[-2:])
    per_kernel = min(windows.shape[1], limit)
    if per_kernel > 1:
        columns = per_kernel
    labels = [str(k) if c == 0 else "" for k in range(len(shown)) for c in range(per_kernel)]
    return _mosaic(windows[:, :per_kernel].reshape(-1, *windows.shape[2:]), labels, columns, name, _axes(ax),
                   signed=True)


def feature_maps(layer: Callable[[NDArray], NDArray], image: ArrayLike, *, limit: int = 64, columns: int | None = None,
                 ax: Axes | None = None) -> Axes:
    """Draw what a layer makes of an image: every output channel, on one scale.

    Parameters
    ----------
    layer : callable
        A layer, a network, a plan: anything that takes (1, C, H, W).
    image : array_like
        (H, W), (H, W, 3), (C, H, W) or (1, C, H, W).
    limit : int, default 64
        At most so many channels are drawn.
    columns : int, optional
        Maps in a row; by default near a square.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the image has other dimensions, or the layer's output is not (1, K, P, Q).
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> import numpy as np, nconv.plot
    >>> from nconv import nn
    >>> ax = nconv.plot.feature_maps(nn.Conv2d(1, 4, 3), np.ones((8, 8), "float32"))
    >>> ax.get_title()
    '4 maps of 6 x 6'
    """
    x = np.asarray(image)
    if x.ndim == 3 and x.shape[-1] == 3 and x.shape[0] != 3:
        x = np.moveaxis(x, -1, 0)
    x = x.reshape(1, *(1,) * (3 - x.ndim), *x.shape) if x.ndim in (2, 3) else x
    if x.ndim != 4 or len(x) != 1:
        raise ValueError(f"image must be (H, W), (H, W, 3), (C, H, W) or (1, C, H, W): shape={np.shape(image)}")
    maps = np.asarray(layer(x))
    if maps.ndim != 4 or len(maps) != 1:
        raise ValueError(f"the layer must give (1, K, P, Q): shape={maps.shape}")
    count, *size = maps.shape[1:]
    name = f"{count} map{'s' if count > 1 else ''} of {' x '.join(map(str, size))}"
    if count > limit:
        name += f": the first {limit}"
    maps = maps[0, :limit]
    return _mosaic(maps, [str(k) for k in range(len(maps))], columns, name, _axes(ax), signed=maps.min() < 0)


def _mosaic(tiles: NDArray, labels: Sequence[str], columns: int | None, name: str, ax: Axes,
            signed: bool = False) -> Axes:
    """Tiles (n, H, W) or (n, H, W, 3) in rows, each with its label, on one scale with a colour bar."""
    n, H, W = tiles.shape[:3]
    columns = columns or math.ceil(math.sqrt(n * H / W))
    columns = max(min(columns, n), 1)
    rows = math.ceil(n / columns)
    gap = max(1, round(min(H, W) / 12))
    canvas = np.full((rows * (H + gap) - gap, columns * (W + gap) - gap, *tiles.shape[3:]), np.nan)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (H + gap), i % columns * (W + gap)
        canvas[top:top + H, left:left + W] = tile
    if tiles.ndim == 4:
        ax.imshow(np.where(np.isnan(canvas), 1, canvas), interpolation="nearest")
    else:
        low, high = np.nanmin(tiles), np.nanmax(tiles)
        peak = max(abs(low), abs(high)) or 1
        shown = ax.imshow(canvas, cmap=_SIGNED if signed else "gray", interpolation="nearest",
                          vmin=-peak if signed else low, vmax=peak if signed else high)
        ax.figure.colorbar(shown, ax=ax, shrink=0.7, pad=0.02)
    # Labels stand above their tiles, at a size that fits between the rows of a figure this wide.
    size = min(8.0, 90 / max(columns, rows) + 2)
    for i, label in enumerate(labels):
        ax.annotate(label, (i % columns * (W + gap) - 0.5, i // columns * (H + gap) - 0.5), xytext=(1.5, -1.5),
                    textcoords="offset points", va="top", ha="left", fontsize=size,
                    bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7})
    ax.set_axis_off()
    ax.set_title(name, fontsize="medium")
    return ax


# ------------------------------------------------------------------------------------------- Frequency response


def response(kernel: ArrayLike | Sequence[ArrayLike], *, rate: float = 1.0, floor: float = -100.0,
             ax: Axes | None = None) -> Axes:
    """Draw how strongly a kernel lets each frequency through.

    ``|H(f)| = |sum over t of kernel[t] exp(-2 pi i f t)|``, in decibels: ``20 log10 |H|``. In one dimension a curve
    over frequency, in two a picture with frequency zero in the middle.

    Parameters
    ----------
    kernel : array_like
        (S,), or a list of such arrays, which need not be equally long; or one (R, S) array.
    rate : float, default 1
        Samples per unit; frequencies go to half of it.
    floor : float, default -100
        Nothing below so many decibels under the largest value is drawn.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the kernel is neither one- nor two-dimensional, or is zero.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> import numpy as np, nconv.plot
    >>> ax = nconv.plot.response([0.5, 0.5], rate=48_000)
    >>> frequency, decibels = ax.lines[0].get_data()
    >>> float(frequency[-1]), float(decibels[0])
    (24000.0, 0.0)
    """
    several = isinstance(kernel, (list, tuple)) and np.ndim(kernel[0]) == 1
    taps = list(map(np.asarray, kernel)) if several else [np.asarray(kernel)]      # type: ignore[arg-type]
    if any(k.ndim not in (1, 2) or not np.any(k) for k in taps):
        raise ValueError("kernel must have one or two dimensions and not be zero: "
                         f"shape={', '.join(str(k.shape) for k in taps)}")
    ax = _axes(ax)
    if taps[0].ndim == 2:
        n = max(256, *taps[0].shape)
        level = _decibels(np.fft.fftshift(np.fft.fft2(taps[0], (n, n))), floor)
        edge = rate / 2
        shown = ax.imshow(level, cmap="magma", extent=(-edge, edge, -edge, edge), origin="lower")
        ax.figure.colorbar(shown, ax=ax, label="dB", shrink=0.9)
        ax.set(xlabel=_frequency(rate) + ", horizontal", ylabel="vertical")
        return ax
    for k in taps:
        n = max(4096, 2 * k.size)
        spectrum = np.fft.fft(k, n)[:n // 2 + 1]
        ax.plot(np.arange(n // 2 + 1) / n * rate, _decibels(spectrum, floor), label=f"{k.size} taps")
    ax.set(xlabel=_frequency(rate), ylabel="gain [dB]", xlim=(0, rate / 2))
    ax.grid(alpha=0.3)
    if len(taps) > 1:
        ax.legend()
    return ax


def _decibels(spectrum: NDArray, floor: float) -> NDArray:
    size = abs(spectrum)
    return 20 * np.log10(np.maximum(size, size.max() * 10 ** (floor / 20)))


def _frequency(rate: float) -> str:
    return "frequency [cycles per sample]" if rate == 1 else "frequency [Hz]"


# ------------------------------------------------------------------------------------------------- The methods


def winners(function: Callable = nconv.convolve, *, sizes: Sequence[int] | None = None,
            windows: Sequence[int] | None = None, rank: int = 1, channels: int = 1, dtype: str = "float32",
            measure: bool = False, ax: Axes | None = None, **options: Any) -> Axes:
    """Draw which method wins on this machine, over the size of the input and of the window.

    Parameters
    ----------
    function : callable, default `nconv.convolve`
        `nconv.convolve`, `nconv.correlate`, a filter of `nconv.ndimage`, or `nconv.conv1d` to `nconv.conv3d`.
    sizes, windows : sequence of int, optional
        Extents along every axis; by default powers of two, and windows that are one larger.
    rank : int, default 1
        Axes of the input; that of a layer is in its name.
    channels : int, default 1
        Input and output channels of a layer.
    dtype : dtype, default float32
    measure : bool, default False
        Time every method with `nconv.tune` (which remembers the result) in place of the estimates.
    ax : matplotlib.axes.Axes, optional
    **options
        Other arguments of the function.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If rank is not from 1 to 3.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> import nconv, nconv.plot
    >>> ax = nconv.plot.winners(sizes=[100, 10_000, 1_000_000], windows=[3, 101, 3001])
    >>> ax.get_ylabel()
    'window'
    """
    ax = _axes(ax)
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    layer = function in (nconv.conv1d, nconv.conv2d, nconv.conv3d)
    if layer:
        rank = int(function.__name__[-2])
    if not 1 <= rank <= 3:
        raise ValueError(f"rank must be from 1 to 3: rank={rank!r}")
    largest, widest = ((22, 16), (12, 8), (9, 6))[rank - 1]
    sizes = [2**k for k in range(3 if rank > 1 else 6, largest)] if sizes is None else sizes
    windows = [2**k + 1 for k in range(1, widest)] if windows is None else windows
    input_lead, weight_lead = ((1, channels), (channels, channels)) if layer else ((), ())
    decide = nconv.tune if measure else nconv.plan
    found: list[str] = []
    grid = np.full((len(windows), len(sizes)), -1)
    for row, window in enumerate(windows):
        for column, size in enumerate(sizes):
            if window <= size:
                x = nconv.ArraySpec((*input_lead, *(size,) * rank), dtype)
                weight = nconv.ArraySpec((*weight_lead, *(window,) * rank), dtype)
                method = decide(function, x, weight, **options).method
                found += [method] if method not in found else []
                grid[row, column] = found.index(method)
    spare = iter(_MORE)
    colours = [_COLOURS.get(method) or next(spare) for method in found]
    ax.pcolormesh(np.ma.masked_less(grid, 0), cmap=ListedColormap(colours), edgecolors="white", linewidth=0.5,
                  norm=BoundaryNorm(np.arange(len(found) + 1) - 0.5, len(found)))
    ax.set_xticks(np.arange(len(sizes)) + 0.5, [f"{n:,}" for n in sizes], rotation=45, ha="right", fontsize="small")
    ax.set_yticks(np.arange(len(windows)) + 0.5, [f"{n:,}" for n in windows], fontsize="small")
    axes = " along each axis" if rank > 1 else ""
    ax.set(xlabel="input" + axes, ylabel="window" + axes)
    ax.set_title(f"nconv.{function.__name__}, {np.dtype(dtype)}: {'measured' if measure else 'by the estimates'}",
                 fontsize="medium", loc="left")
    ax.legend([Patch(color=colour) for colour in colours], found, loc="upper left", fontsize="small")
    return ax


def compare(function: Callable, *args: Any, rivals: Mapping[str, Callable[[], Any]] | None = None,
            ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Time a call by every method, and rivals beside them, and draw the times.

    Parameters
    ----------
    function : callable
        A public function of nconv that takes `method`.
    *args, **kwargs
        Its arguments.
    rivals : mapping of str to callable, optional
        Functions without arguments that compute the same by other means; they run in turn with nconv's methods.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        One bar each, the fastest on top; the bar of the method that 'auto' takes is marked.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As the function itself would.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> import numpy as np, nconv.plot
    >>> ax = nconv.plot.compare(nconv.convolve, np.ones(1000), np.ones(9),
    ...                         rivals={"numpy": lambda: np.convolve(np.ones(1000), np.ones(9))})
    >>> sorted(label.get_text().split(" (")[0] for label in ax.get_yticklabels())
    ['direct', 'fft', 'fft_tiles', 'im2col', 'numpy', 'small']
    """
    ax = _axes(ax, height=2.4)
    plan = nconv.plan(function, *args, **kwargs)
    runs: dict[str, Callable[[], Any]] = {
        c.name: partial(function, *args, **kwargs, method=c.name) for c in plan.candidates if not c.refused}
    runs |= dict(rivals or {})
    seconds = dict(zip(runs, median_seconds(*runs.values()), strict=True))
    order = sorted(runs, key=seconds.__getitem__, reverse=True)
    colours = [_COLOURS.get(name, _MORE[0]) if name not in (rivals or {}) else _MORE[2] for name in order]
    milliseconds = [seconds[name] * 1e3 for name in order]
    bars = ax.barh([f"{name} (auto)" if name == plan.method else name for name in order], milliseconds, color=colours)
    ax.bar_label(bars, [f" {t:.3g} ms, {t / milliseconds[-1]:.3g}x" if t > milliseconds[-1] else f" {t:.3g} ms"
                        for t in milliseconds], fontsize="small")
    ax.set(xlabel="time [ms]", xlim=(0, 1.3 * milliseconds[0]))
    ax.spines[["top", "right"]].set_visible(False)
    return ax
