"""How right the choice is: 'auto' over the best of all methods, on problems drawn at random.

``python -m nconv.bench.regret --seed 0 --count 200`` draws signals, images and volumes, some with windows that are
outer products, and layers with channels, groups, strides and dilation, in float32 and float64; times every method that
supports the problem, in turn, half of the calls with a new kernel and half with that of the call before, of which some
methods keep what they prepared; prints the table and writes the page. A regret of 1 is a perfect choice. On one- and
two-dimensional signals the same is asked of `scipy.signal.choose_conv_method` between SciPy's own two methods.

With ``--json`` the times are kept, and a later call goes on where ``--seconds`` ended this one. Times are the kernels',
estimates the model's: a file of times serves every model, and ``--fit`` finds the rates with which it errs least.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial, reduce
from pathlib import Path
from typing import Any

import click
import numpy as np

import nconv

from .. import choice, factors, registry, threads
from ..cpu import kept
from ..lowering import lower
from ..problem import ConvProblem
from .measure import environment, geometric_mean, median_seconds, titled

_MOST_MACS = 3e8               # multiplications: what takes longer, the direct methods need not be timed for
_BUDGET = 0.08                 # seconds for each method of one problem, with a new kernel and again with the known one
_OUTER = 0.25                  # share of images and volumes whose window is an outer product
_FAMILIES = ("signal", "image", "volume", "layer1d", "layer", "layer3d")


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """One problem: family, function, shapes of input and weight, dtype, options."""
    def log(low, high):
        return int(round(np.exp(rng.uniform(np.log(low), np.log(high)))))

    family = str(rng.choice(_FAMILIES))
    dtype = str(rng.choice(["float32", "float64"]))
    if family in ("signal", "image", "volume"):
        rank = _FAMILIES.index(family) + 1
        largest, widest = ((300_000, 3_000), (700, 60), (60, 12))[rank - 1]
        size = tuple(log(8, largest) for _ in range(rank))
        window = tuple(min(n, log(2, widest)) for n in size)
        options: dict[str, Any] = {"mode": str(rng.choice(["full", "same", "valid"]))}
        return {"family": family, "function": "convolve", "input": size, "weight": window, "dtype": dtype,
                "outer": rank > 1 and bool(rng.random() < _OUTER), "options": options}
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
    return {"family": family, "function": f"conv{rank}d", "input": (log(1, 8), groups * C, *size),
            "weight": (groups * K, C, *window), "dtype": dtype, "options": options}


def described(record: dict[str, Any]) -> ConvProblem:
    """What the engine is asked."""
    x, weight = (nconv.ArraySpec(record[name], record["dtype"]) for name in ("input", "weight"))
    problem = lower(getattr(nconv, record["function"]), x, weight, **record["options"]).route.problem
    return record.get("outer") and choice.separable_twin(problem) or problem


def problems(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """`count` problems that are drawn anew until they take no longer than can be waited for."""
    rng = np.random.default_rng(seed)
    while count:
        drawn = draw(rng)
        try:
            macs = described(drawn).macs
        except ValueError:                              # a window that the padded input does not hold
            continue
        if 0 < macs < _MOST_MACS:
            count -= 1
            yield drawn | {"macs": macs}


def measure(drawn: dict[str, Any], rounds: int | None = None) -> dict[str, Any]:
    """The problem with the seconds of each method that 'auto' may take; for signals, of SciPy's two beside them."""
    function, options = getattr(nconv, drawn["function"]), drawn["options"]
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(drawn[name]) for name in ("input", "weight"))
    if drawn.get("outer"):
        weight = reduce(np.multiply.outer, map(rng.standard_normal, drawn["weight"]))
    x, weight = (array.astype(drawn["dtype"]) for array in (x, weight))

    def run(method, anew):
        if anew:                                        # as if with another kernel than the call before
            kept.forget()
            factors.kept_factors.cache_clear()
        return function(x, weight, method=method, **options)

    names = [c.name for c in choice.decide(described(drawn)).candidates if not c.refused]
    runs = [partial(run, name, anew) for name in names for anew in (True, False)]
    rivals: list[str] = []
    if drawn["family"] in ("signal", "image"):
        import scipy.signal

        rivals = ["direct", "fft"]
        runs += [partial(scipy.signal.convolve, x, weight, method=name, **options) for name in rivals]
    seconds = median_seconds(*runs, rounds=rounds, budget=_BUDGET)
    times = {name: dict(zip(("new", "known"), seconds[2 * i:2 * i + 2], strict=True)) for i, name in enumerate(names)}
    record = drawn | {"threads": threads.get_num_threads(), "times": times,
                      "seconds": {name: kept.NEW * pair["new"] + (1 - kept.NEW) * pair["known"]
                                  for name, pair in times.items()}}
    if rivals:
        theirs = dict(zip(rivals, seconds[2 * len(names):], strict=True))
        chosen = scipy.signal.choose_conv_method(x, weight, options["mode"])
        record |= {"scipy": theirs, "scipy_regret": theirs[chosen] / min(theirs.values())}
    return record


def judge(record: dict[str, Any]) -> dict[str, Any]:
    """A record with what 'auto' takes now, the best method and the regret of the choice."""
    seconds = record["seconds"]
    chosen = choice.decide(described(record)).algorithm.NAME
    best = min(seconds, key=seconds.__getitem__)
    return record | {"chosen": chosen, "best": best, "regret": seconds[chosen] / seconds[best]}


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
    """Regret over the problem's size, and which method was best over the sizes of output and window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    over_size, where = figure.subplots(2, 1)
    for method in registry.names():
        mine = [r for r in records if r["best"] == method]
        if mine:
            over_size.plot([r["macs"] for r in mine], [r["regret"] for r in mine], "o", markersize=4,
                           label=f"{method} is best")
            shapes = list(map(described, mine))
            where.plot([p.N * p.groups * p.K * p.positions for p in shapes], [p.taps for p in shapes], "o",
                       markersize=4)
    over_size.axhline(1.1, color="grey", linewidth=0.8)
    over_size.set(xscale="log", yscale="log", xlabel="multiplications", ylabel="time of 'auto' over the best method's")
    where.set(xscale="log", yscale="log", xlabel="elements of the output", ylabel="products summed for each")
    figure.legend(*over_size.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=110)


def write_rst(path: str, command: str, records: list[dict], picture: str | None) -> None:
    """The table as a page of the documentation."""
    title = titled("Regret: how right the choice is")
    lines = [title, "=" * len(title), "", f"``{command}``", "",
             ", ".join(f"{name} {value}" for name, value in environment().items()) + ".", "",
             "Time of the method that 'auto' takes over that of the best method, on problems drawn at random. "
             f"{kept.NEW:.0%} of the calls bring a new kernel, the others one of the calls before.", "",
             ".. list-table::", "   :header-rows: 1", "", "   * - problems", "     - number", "     - geometric mean",
             "     - within 10 %", "     - worst"]
    for name, regrets in summary(records):
        lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(_cells(name, regrets))]
    if picture:
        lines += ["", f".. image:: {Path(picture).name}",
                  "   :alt: regret over the size of the problem, and the best method over output and window"]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _known(path: str | None) -> list[dict]:
    if path is None or not Path(path).exists():
        return []
    return json.loads(Path(path).read_text(encoding="utf-8"))["records"]


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--count", default=200, show_default=True, help="Number of problems.")
@click.option("--rounds", type=int, help=f"Rounds of each timing; by default as many as {_BUDGET} seconds allow.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False),
              help="Keep the times in a file; where it has some of these problems, go on after them.")
@click.option("--seconds", type=float, help="Measure no longer than about this, then judge what there is.")
@click.option("--fit", "fitted", is_flag=True, help="Print the rates with which the model errs least on these times.")
@click.option("--rst", "rst_path", type=click.Path(dir_okay=False), help="Also write a page for the documentation.")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False), help="Also draw regret and winners over size.")
def main(seed: int, count: int, rounds: int | None, json_path: str | None, seconds: float | None, fitted: bool,
         rst_path: str | None, plot_path: str | None) -> None:
    """Time 'auto' and every method on problems drawn at random.

    Example: python -m nconv.bench.regret --seed 0 --count 200
    """
    from rich.progress import track

    records, end = _known(json_path)[:count], time.perf_counter() + (seconds or float("inf"))
    drawn = list(problems(seed, count))
    if any(record["input"] != list(problem["input"]) for record, problem in zip(records, drawn, strict=False)):
        raise click.UsageError(f"{json_path} holds problems of another seed")
    for problem in track(drawn[len(records):], "compiling and measuring"):
        if time.perf_counter() > end:
            break
        records.append(measure(problem, rounds))
        if json_path:
            Path(json_path).write_text(json.dumps({"environment": environment(), "records": records}) + "\n")
    if fitted:
        from .fit import fit

        for name, value in fit(records, described).items():
            click.echo(f"{name:<28}{value:.3g}")
        return
    records = list(map(judge, records))
    for name, regrets in summary(records):
        click.echo("{:<55}{:>5}{:>8}{:>8}{:>8}".format(*_cells(name, regrets)))
    for r in sorted(records, key=lambda r: -r["regret"])[:5]:
        click.echo(f"{r['regret']:.2f}: {r['family']} {r['input']} {r['weight']} {r['dtype']} {r['options']}: took "
                   f"{r['chosen']}, best {r['best']}")
    if plot_path:
        write_plot(plot_path, records)
    if rst_path:
        chosen = f" --rounds {rounds}" if rounds else ""
        write_rst(rst_path, f"python -m nconv.bench.regret --seed {seed} --count {len(records)}{chosen}", records,
                  plot_path)


if __name__ == "__main__":
    main()
