"""The figures of `nconv bench` as pictures: ratios to the rivals, times over sizes, rates below the machine's roof."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .. import threads
from ..machine import machine
from .measure import AUTO


def _panels(records: list[dict], width: float, height: float, **options: Any) -> tuple[Figure, list[tuple]]:
    """A figure with a panel below the other for each dtype: (dtype, its records, axes)."""
    dtypes = list(dict.fromkeys(r["dtype"] for r in records))
    figure = Figure(figsize=(width, height * (1 + len(dtypes))), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(dtypes), 1, **options))
    return figure, [(dtype, [r for r in records if r["dtype"] == dtype], panel)
                    for dtype, panel in zip(dtypes, axes, strict=True)]


def ratios(path: str, records: list[dict]) -> None:
    """How many times faster than the fastest rival, a bar for each problem."""
    figure, panels = _panels(records, 9, 2.2, sharex=True)
    for dtype, mine, axes in panels:
        raced = [r for r in mine if r["ratio"]]
        axes.bar([r["name"] for r in raced], [r["ratio"] for r in raced], color="tab:blue")
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
        axes.set_ylabel(f"{dtype}: times faster")
        axes.tick_params(axis="x", rotation=75, labelsize=8)
    figure.savefig(path)


def times(path: str, records: list[dict]) -> None:
    """Milliseconds of nconv and of every rival over the multiplications of the definition."""
    figure, panels = _panels(records, 8, 3)
    names = list(dict.fromkeys(name for r in records for name in r["seconds"]))
    for dtype, mine, axes in panels:
        for name in names:
            run = sorted((r["macs"], r["seconds"][name] * 1e3) for r in mine if name in r["seconds"])
            style = "o" if name == AUTO else "x"
            axes.plot(*zip(*run, strict=True), style, markersize=5, label="nconv" if name == AUTO else name)
        axes.set(xscale="log", yscale="log", xlabel="multiplications of the definition", ylabel=f"{dtype}: time [ms]")
    figure.legend(*panels[0][2].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=110)


def roofline(path: str, records: list[dict]) -> None:
    """Operations per second over operations per byte, below what the machine's arithmetic and memory allow.

    Both count the definition's work, input, weight and output once; an algorithm that multiplies less, as an FFT does,
    may lie above the roof.
    """
    figure, panels = _panels(records, 8, 3)
    here, count = machine(), threads.get_num_threads()
    for dtype, mine, axes in panels:
        peak = here.flops(np.dtype(dtype)) * count
        shares = np.geomspace(0.1, max(2 * r["macs"] / r["bytes"] for r in mine) * 2, 200)
        axes.plot(shares, np.minimum(peak, shares * here.bandwidth * count) / 1e9, color="black", linewidth=1,
                  label=f"{count} cores: {peak / 1e9:.0f} Gflop/s, {here.bandwidth * count / 1e9:.0f} GB/s")
        for family in dict.fromkeys(r["family"] for r in mine):
            run = [(2 * r["macs"] / r["bytes"], 2 * r["macs"] / r["seconds"][AUTO] / 1e9) for r in mine
                   if r["family"] == family]
            axes.plot(*zip(*run, strict=True), "o", markersize=5, label=family)
        axes.set(xscale="log", yscale="log", xlabel="operations per byte of input, weight and output",
                 ylabel=f"{dtype}: Gflop/s")
    figure.legend(*panels[0][2].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=110)
