"""The command line: thin commands over the public functions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

import nconv

_FUNCTIONS = ("convolve", "correlate", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
              "conv_transpose3d")


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise click.BadParameter(f"a shape is numbers with commas between them, not {text!r}") from None


class _Group(click.Group):
    """Failures end in one line that says why, and a status that is not zero."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, TypeError, MemoryError, OSError, ImportError, nconv.DeviceError) as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"nconv: {type(error).__name__}: {error}", err=True)
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(nconv.__version__, prog_name="nconv")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(debug: bool) -> None:
    """Convolution for NumPy arrays: what it does here, and how fast."""


_DEVICE = click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True,
                       help="Where it runs.")


def _problem(command: Any) -> Any:
    """The arguments that name a problem: nconv explain conv2d 1,64,56,56 64,64,3,3 --option padding=1."""
    command = click.option("--option", "options", multiple=True, metavar="NAME=VALUE",
                           help="An argument of the function, e.g. padding=1 or mode=same.")(command)
    command = click.option("--dtype", default="float32", show_default=True)(command)
    command = _DEVICE(command)
    command = click.argument("weight")(command)
    command = click.argument("input")(command)
    return click.argument("function", type=click.Choice(_FUNCTIONS))(command)


def _arguments(function: str, input: str, weight: str, dtype: str, options: tuple[str, ...],
               device: str = "cpu") -> tuple[Any, list, dict]:
    if function not in _FUNCTIONS:
        raise click.BadParameter(f"{function}: the functions are {', '.join(_FUNCTIONS)}")
    keywords = {}
    for option in options:
        name, separator, value = option.partition("=")
        if not separator:
            raise click.BadParameter(f"--option takes NAME=VALUE, not {option!r}")
        try:
            keywords[name] = json.loads(value)
        except json.JSONDecodeError:
            keywords[name] = value
    return (getattr(nconv, function), [nconv.ArraySpec(_shape(text), dtype, device) for text in (input, weight)],
            keywords)


@main.command()
@click.option("--output", default="nconv-demo.png", show_default=True, type=click.Path(dir_okay=False),
              help="Where the picture goes.")
def demo(output: str) -> None:
    """A real photograph and a real recording through every family.

    Example: nconv demo --output picture.png
    """
    from .demo import run

    run(output)


@main.command()
def info() -> None:
    """Machine, threads, GPU and caches. Example: nconv info"""
    import platform

    import numba
    import numpy
    import rich
    import rich.table
    import scipy

    from . import machine, threads, wisdom
    from .cuda import device

    here = machine.machine()
    table = rich.table.Table(show_header=False)
    for name, value in {
            "nconv": nconv.__version__, "Python": platform.python_version(), "NumPy": numpy.__version__,
            "SciPy": scipy.__version__, "Numba": numba.__version__, "machine": here.name,
            "rates": f"measured on {here.measured}" if here.measured else "the family's; nconv tune --machine measures",
            "cores": here.cores,
            "vector bytes": here.vector_bytes, "threads": nconv.get_num_threads(),
            "threading layer": numba.threading_layer() if threads.may_start() else "none: one thread",
            "GPU": f"none: {device.fault()}" if device.fault() else _named(machine.machine("cuda")),
            "learnt times": wisdom.path(),
            "compiled kernels": numba.config.CACHE_DIR or "beside the package, or Numba's cache of the user"}.items():
        table.add_row(name, str(value))
    rich.print(table)


def _named(gpu: Any) -> str:
    origin = "a data sheet's; nconv tune --machine --device cuda measures"
    if gpu.measured:
        origin = f"measured on {gpu.measured}"
    return f"{gpu.name}, rates {origin}"


@main.command()
@_problem
@click.option("--json", "as_json", is_flag=True, help="Print the candidates as JSON.")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False),
              help="Also draw which method wins over all sizes of such inputs and windows (needs matplotlib).")
def explain(function: str, input: str, weight: str, device: str, dtype: str, options: tuple[str, ...],
            as_json: bool, plot_path: str | None) -> None:
    """Which algorithm a problem gets, and why.

    Example: nconv explain conv2d 1,64,56,56 64,64,3,3 --option padding=1 --plot winners.png
    """
    target, arrays, keywords = _arguments(function, input, weight, dtype, options, device)
    plan = nconv.plan(target, *arrays, **keywords)
    click.echo(json.dumps([vars(c) for c in plan.candidates], default=str) if as_json else str(plan))
    if plot_path:
        _draw_winners(plot_path, target, arrays, keywords)


def _draw_winners(path: str, function: Any, arrays: list[nconv.ArraySpec], keywords: dict[str, Any]) -> None:
    """The map of winners around a problem: with its dtype, its number of axes, its channels and its keywords."""
    import nconv.plot

    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("--plot needs matplotlib: pip install 'nconv[plot]'") from None
    if function in (nconv.conv_transpose1d, nconv.conv_transpose2d, nconv.conv_transpose3d):
        raise ValueError(f"--plot draws signals, images and conv1d to conv3d, not {function.__name__}")
    x, weight = arrays
    layer = function not in (nconv.convolve, nconv.correlate)
    figure = Figure(figsize=(7, 5), layout="constrained")
    nconv.plot.winners(function, rank=x.ndim, channels=weight.shape[0] if layer else 1, dtype=str(x.dtype),
                       ax=figure.subplots(), **keywords)
    figure.savefig(path)
    click.echo(f"the map of winners is in {path}")


@main.command()
@click.argument("problem", nargs=-1)
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="An argument of the function.")
@click.option("--dtype", default="float32", show_default=True)
@_DEVICE
@click.option("--machine", "whole_machine", is_flag=True, help="Measure the rates of this machine, or GPU, instead.")
@click.option("--file", "path", type=click.Path(exists=True, dir_okay=False),
              help="Measure the problems of a file, one a line: FUNCTION INPUT WEIGHT [DTYPE] [NAME=VALUE ...].")
def tune(problem: tuple[str, ...], options: tuple[str, ...], dtype: str, device: str, whole_machine: bool,
         path: str | None) -> None:
    """Measure a problem's algorithms (FUNCTION INPUT WEIGHT) and remember the fastest.

    Example: nconv tune convolve 100000 1001, or for the rates of a GPU: nconv tune --machine --device cuda
    """
    from rich.progress import track

    if (len(problem) == 3) + whole_machine + (path is not None) != 1 or len(problem) not in (0, 3):
        raise click.UsageError("expected one of FUNCTION INPUT WEIGHT, --machine and --file")
    if whole_machine:
        _calibrate(device)
        return
    jobs = _listed(path, device) if path else [
        _arguments(problem[0], problem[1], problem[2], dtype, options, device)]
    for target, arrays, keywords in track(jobs, "compiling and measuring", transient=True):
        click.echo(str(nconv.tune(target, *arrays, **keywords)))


def _listed(path: str, device: str) -> list[tuple[Any, list, dict]]:
    """The problems of a file, as `_arguments` gives them; empty lines and what follows a # are left out."""
    jobs = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) < 3 or words[0] not in _FUNCTIONS:
            raise ValueError(f"{path}, line {number}: expected FUNCTION INPUT WEIGHT [DTYPE] [NAME=VALUE ...], the "
                             f"function one of {', '.join(_FUNCTIONS)}: {line.strip()!r}")
        plain = [word for word in words[3:] if "=" not in word]
        jobs.append(_arguments(words[0], words[1], words[2], plain[0] if plain else "float32",
                               tuple(word for word in words[3:] if "=" in word), device))
    return jobs


def _calibrate(device: str = "cpu") -> None:
    """Measure the rates of this machine or its GPU, with progress."""
    from rich.progress import track

    from . import calibrate, machine

    name = "machine" if device == "cpu" else "GPU"
    found = calibrate.calibrate(device, lambda probes: track(probes, f"measuring this {name}"))
    rates = found.rates()
    width = max(map(len, rates)) + 2
    for name, value in rates.items():
        click.echo(f"{name:<{width}}{value:.3g}")
    click.echo(f"kept in {machine.path()}")


@main.command()
@click.argument("action", type=click.Choice(("export", "import", "delete")))
@click.argument("path", required=False, type=click.Path(dir_okay=False))
def wisdom(action: str, path: str | None) -> None:
    """Carry the times that nconv tune has measured to a file, take those of a file, or delete them.

    Example: nconv wisdom export times.json
    """
    if (path is None) != (action == "delete"):
        raise click.UsageError("export and import take a file, delete takes none")
    if action == "delete":
        nconv.forget_wisdom()
        click.echo("all measured times are deleted")
        return
    count = nconv.export_wisdom(str(path)) if action == "export" else nconv.import_wisdom(str(path))
    click.echo(f"{action}ed {count} problem{'' if count == 1 else 's'}")


@main.command()
@click.option("--dtype", "dtypes", multiple=True, default=("float32", "float64"), show_default=True)
def warmup(dtypes: tuple[str, ...]) -> None:
    """Compile and keep the kernels ahead of their first use, then measure this machine's rates.

    Example: nconv warmup --dtype float32
    """
    import numpy as np
    from rich.progress import track

    from . import registry

    # Sizes: one for the serial kernel, one for the threads; then windows of single channels, and as many channels as
    # threads share the packing of.
    layers = [((K, 4, 3, 3), 1, size) for K in (1, 2, 4, 8) for size in (8, 256)]
    layers += [((64, 1, 3, 3), 64, 8), ((64, 1, 3, 3), 64, 256), ((64, 64, 3, 3), 1, 56)]
    jobs = [(method, dtype, *layer) for method in registry.names() for dtype in dtypes for layer in layers]
    for method, dtype, shape, groups, size in track(jobs, "compiling layers"):
        x, weight = np.zeros((1, shape[1] * groups, size, size), dtype), np.zeros(shape, dtype)
        spec = nconv.ArraySpec(weight.shape, weight.dtype)
        if any(c.name == method and not c.refused for c in nconv.plan(nconv.conv2d, x, spec, groups=groups).candidates):
            nconv.conv2d(x, weight, groups=groups, method=method)
    windows = [(method, dtype, k, stride) for method in ("direct", "depthwise") for dtype in dtypes
               for k, stride in ((5, 1), (7, 1), (3, 2))]
    for method, dtype, k, stride in track(windows, "compiling windows"):
        nconv.conv2d(np.zeros((1, 64, 56, 56), dtype), np.zeros((64, 1, k, k), dtype), groups=64, stride=stride,
                     method=method)
    for dtype, size in track([(dtype, size) for dtype in dtypes for size in (8, 256)], "compiling filters"):
        image = np.zeros((size, size), dtype)
        nconv.convolve(image, np.ones((5, 5), dtype), method="separable")
        nconv.ndimage.gaussian_filter(image, 2)
        nconv.ndimage.correlate(image, np.arange(9.0).reshape(3, 3))
        nconv.conv_transpose2d(np.zeros((1, size // 4, size // 8, size // 8), dtype),
                               np.zeros((size // 4, 32, 4, 4), dtype), stride=2, padding=1, method="col2im")
    _calibrate()


@main.command()
@click.option("--family", "families", multiple=True, help="Only these families, e.g. signal, image, layer.")
@click.option("--sweep", help="Instead, one kind of problem over its sizes, e.g. signals, images, volumes.")
@click.option("--dtype", "dtypes", multiple=True, default=("float32",), show_default=True)
@click.option("--methods", is_flag=True, help="Time every method of nconv, too.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False), help="Also write all figures to a file.")
@click.option("--rst", "rst_path", type=click.Path(dir_okay=False), help="Also write a page for the documentation.")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False), help="Also draw the ratios (needs matplotlib).")
@click.option("--plot-times", "times_path", type=click.Path(dir_okay=False), help="Also draw the times over the size.")
@click.option("--plot-roofline", "roofline_path", type=click.Path(dir_okay=False),
              help="Also draw the rates reached below this machine's peak and bandwidth.")
@click.option("--compare", "files", nargs=2, type=click.Path(exists=True, dir_okay=False), metavar="OLD NEW",
              help="Measure nothing: say what became slower between two files of --json; status 1 if anything did.")
def bench(families: tuple[str, ...], sweep: str | None, dtypes: tuple[str, ...], methods: bool, json_path: str | None,
          rst_path: str | None, plot_path: str | None, times_path: str | None, roofline_path: str | None,
          files: tuple[str, str] | None) -> None:
    """Against the peers that are installed, in one run, in turn.

    Example: nconv bench --family layer --dtype float32 --dtype float64
    """
    import rich
    import rich.table
    from rich.progress import track

    if files:
        _compare(*files)
        return
    from .bench import measure
    from .bench.cases import CASES, FAMILIES, SWEEPS

    drawings = [(name, path) for name, path in (
        ("ratios", plot_path), ("times", times_path), ("roofline", roofline_path)) if path]

    if unknown := set(families) - set(FAMILIES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: the families are {', '.join(FAMILIES)}")
    if sweep and sweep not in SWEEPS:
        raise click.BadParameter(f"{sweep}: the sweeps are {', '.join(SWEEPS)}")
    cases = SWEEPS[sweep] if sweep else [c for c in CASES if not families or c.family in families]
    jobs = [(case, dtype) for case in cases for dtype in dtypes]
    table = rich.table.Table("family", "problem", "dtype", "nconv [ms]", "fastest rival", "its time [ms]", "ratio")
    records = []
    for case, dtype in track(jobs, "measuring"):
        figures = measure.record(case, dtype, methods)
        records.append(figures)
        seconds, best = figures["seconds"], figures["best_rival"]
        ours = ", ".join(f"{name} {t * 1e3:.3g}" for name, t in seconds.items() if name not in measure.RIVALS)
        theirs = (best, f"{seconds[best] * 1e3:.3g}", f"{figures['ratio']:.2f}") if best else ("none", "-", "-")
        table.add_row(case.family, case.name, dtype, ours, *theirs)
    rich.print(table)
    for family in dict.fromkeys(r["family"] for r in records):
        ratios = [r["ratio"] for r in records if r["family"] == family and r["ratio"]]
        if ratios:
            click.echo(f"{family}: geometric mean {measure.geometric_mean(ratios):.2f}, least {min(ratios):.2f}")
    if json_path:
        measure.write_json(json_path, records)
    if rst_path:
        chosen = [f'--sweep "{sweep}"' if " " in sweep else f"--sweep {sweep}"] if sweep else [
            f"--family {family}" for family in families]
        command = " ".join(["nconv bench", *chosen, *(f"--dtype {d}" for d in dtypes)])
        title = ", ".join(["Against the rivals", *([f"{sweep} over their sizes"] if sweep else []), *dtypes])
        measure.write_rst(rst_path, measure.titled(title), command, records, [path for _, path in drawings])
    if drawings:
        from .bench import pictures  # which need matplotlib

        for name, path in drawings:
            getattr(pictures, name)(path, records)


def _compare(old: str, new: str) -> None:
    from .bench import compare

    changes = compare.compare(old, new)
    slower = [change for change in changes if change.factor > compare.TOLERANCE]
    for change in slower:
        click.echo(f"{change.factor:.2f} times slower: {change.name}: {change.before * 1e3:.3g} ms, now "
                   f"{change.after * 1e3:.3g} ms")
    click.echo(f"{len(slower)} of {len(changes)} times grew beyond the noise")
    sys.exit(1 if slower else 0)
