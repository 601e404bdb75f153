"""How right the choice is: 'auto' over the best of all methods, on problems drawn at random.

``python -m nconv.bench.regret --seed 0 --count 200`` draws signals, images and volumes, and layers with channels,
groups, strides and dilation, in float32 and float64; times every method that supports the problem, in turn; prints the
table and writes the page. A regret of 1 is a perfect choice. On the one- and two-dimensional signals the same is asked
of `scipy.signal.choose_conv_method` between SciPy's own two methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

import nconv

from .. import registry
from .measure import environment, geometric_mean, median_seconds

_MOST_MACS = 3e8               # multiplications: what takes longer, the direct methods need not be timed for
_FAMILIES = ("signal", "image", "volume", "layer1d", "layer", "layer3d")


def draw(rng: np.random.Generator) -> tuple[str, Any, tuple, tuple, str, dict]:
    """(family, function, shape of the input, of the weight, dtype, options) of one problem."""
    def log(low, high):
        return int(round(np.exp(rng.uniform(np.log(low), np.log(high)))))

    family = str(rng.choice(_FAMILIES))
    dtype = str(rng.choice(["float32", "float64"]))
    if family in ("signal", "image", "volume"):
        rank = _FAMILIES.index(family) + 1
        largest, widest = ((300_000, 3_000), (700, 60), (60, 12))[rank - 1]
        size = tuple(log(8, largest) for _ in range(rank))
        window = tuple(min(n, log(2, widest)) for n in size)
        return family, nconv.convolve, size, window, dtype, {"mode": str(rng.choice(["full", "same", "valid"]))}
    rank = ("layer1d", "layer", "layer3d").index(family) + 1
    largest = (4_000, 100, 20)[rank - 1]
    size = tuple(log(6, largest) for _ in range(rank))
    window = (log(1, (31, 9, 4)[rank - 1]),) * rank
    groups, C, K = log(1, 16) if rng.random() < 0.4 else 1, log(1, 96), log(1, 96)
    if rng.random() < 0.25:                             # depthwise
        groups, C, K = log(4, 128), 1, 1
    dilation = int(rng.choice([1, 1, 1, 2]))
    options = {"stride": int(rng.choice([1, 1, 1, 2])), "dilation": dilation, "groups": groups,
               "padding": dilation * (window[0] - 1) // 2 + 1}
    function = getattr(nconv, f"conv{rank}d")
    return family, function, (log(1, 8), groups * C, *size), (groups * K, C, *window), dtype, options


def problems(seed: int, count: int) -> Iterator[tuple]:
    """`count` problems that are drawn anew until they take no longer than can be waited for."""
    rng = np.random.default_rng(seed)
    while count:
        family, function, x, weight, dtype, options = draw(rng)
        macs = nconv.plan(function, nconv.ArraySpec(x, dtype), nconv.ArraySpec(weight, dtype), **options).problem.macs
        if 0 < macs < _MOST_MACS:
            count -= 1
            yield family, function, x, weight, dtype, options, macs


def measure(problem: tuple, rounds: int | None = None) -> dict[str, Any]:
    """Seconds of each method that 'auto' may take and of the one it took; for signals, of SciPy's two beside them."""
    family, function, x_shape, weight_shape, dtype, options, macs = problem
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, weight_shape))
    plan = nconv.plan(function, x, weight, **options)
    names = [c.name for c in plan.candidates if not c.refused]
    runs = [lambda name=name: function(x, weight, method=name, **options) for name in names]
    rivals: list[str] = []
    if family in ("signal", "image"):
        import scipy.signal

        rivals = ["direct", "fft"]
        runs += [lambda name=name: scipy.signal.convolve(x, weight, method=name, **options) for name in rivals]
    seconds = median_seconds(*runs, rounds=rounds)
    ours = dict(zip(names, seconds, strict=False))
    record = {"family": family, "input": x_shape, "weight": weight_shape, "dtype": dtype, "options": options,
              "macs": macs, "seconds": ours, "chosen": plan.method, "best": min(ours, key=ours.__getitem__),
              "regret": ours[plan.method] / min(ours.values())}
    if rivals:
        theirs = dict(zip(rivals, seconds[len(names):], strict=True))
        choice = scipy.signal.choose_conv_method(x, weight, options["mode"])
        record |= {"scipy": theirs, "scipy_regret": theirs[choice] / min(theirs.values())}
    return record


def summary(records: list[dict]) -> list[tuple[str, list[float]]]:
    """(name, regrets) of every line of the table."""
    lines = [("all", [r["regret"] for r in records])]
    lines += [(family, [r["regret"] for r in records if r["family"] == family]) for family in _FAMILIES]
    signals = [r for r in records if "scipy_regret" in r]
    lines += [("signal and image, nconv's choice", [r["regret"] for r in signals]),
              ("signal and image, SciPy's choice between its methods", [r["scipy_regret"] for r in signals])]
    return [(name, regrets) for name, regrets in lines if regrets]


def _cells(name: str, regrets: list[float]) -> list[str]:
    within = np.mean(np.array(regrets) <= 1.1)
    return [name, str(len(regrets)), f"{geometric_mean(regrets):.3f}", f"{100 * within:.0f} %", f"{max(regrets):.2f}"]


def write_plot(path: str, records: list[dict]) -> None:
    """Regret over the problem's size; the colour is the method that was best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for method in registry.names():
        mine = [r for r in records if r["best"] == method]
        axes.plot([r["macs"] for r in mine], [r["regret"] for r in mine], "o", markersize=4, label=f"{method} is best")
    axes.axhline(1.1, color="grey", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="multiplications", ylabel="time of 'auto' over the best method's")
    axes.legend()
    figure.savefig(path, dpi=110)


def write_rst(path: str, command: str, records: list[dict], picture: str | None) -> None:
    """The table as a page of the documentation."""
    title = "Regret: how right the choice is"
    lines = [title, "=" * len(title), "", f"``{command}``", "",
             ", ".join(f"{name} {value}" for name, value in environment().items()) + ".", "",
             "Time of the method that 'auto' takes over that of the best method, on problems drawn at random.", "",
             ".. list-table::", "   :header-rows: 1", "", "   * - problems", "     - number", "     - geometric mean",
             "     - within 10 %", "     - worst"]
    for name, regrets in summary(records):
        lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(_cells(name, regrets))]
    if picture:
        lines += ["", f".. image:: {Path(picture).name}", "   :alt: regret over the size of the problem"]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--count", default=200, show_default=True, help="Number of problems.")
@click.option("--rounds", type=int, help="Rounds of each timing; by default as many as 0.6 seconds allow.")
@click.option("--rst", "rst_path", type=click.Path(dir_okay=False), help="Also write a page for the documentation.")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False), help="Also draw regret over size.")
def main(seed: int, count: int, rounds: int | None, rst_path: str | None, plot_path: str | None) -> None:
    """Time 'auto' and every method on problems drawn at random.

    Example: python -m nconv.bench.regret --seed 0 --count 200
    """
    from rich.progress import track

    records = [measure(problem, rounds)
               for problem in track(list(problems(seed, count)), "compiling and measuring")]
    for name, regrets in summary(records):
        click.echo("{:<55}{:>5}{:>8}{:>8}{:>8}".format(*_cells(name, regrets)))
    for r in sorted(records, key=lambda r: -r["regret"])[:5]:
        click.echo(f"{r['regret']:.2f}: {r['family']} {r['input']} {r['weight']} {r['dtype']} {r['options']}: took "
                   f"{r['chosen']}, best {r['best']}")
    if plot_path:
        write_plot(plot_path, records)
    if rst_path:
        chosen = f" --rounds {rounds}" if rounds else ""
        write_rst(rst_path, f"python -m nconv.bench.regret --seed {seed} --count {count}{chosen}", records, plot_path)


if __name__ == "__main__":
    main()
