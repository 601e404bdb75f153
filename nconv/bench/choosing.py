"""What it costs to choose: microseconds for a new problem and for one seen before, on problems drawn at random."""

from __future__ import annotations

import time

import click
import numpy as np

from .. import choice
from ..problem import ConvProblem
from .regret import described, problems


def seconds(asked: list[ConvProblem]) -> list[float]:
    """Seconds that the choice takes for each."""
    times = []
    for problem in asked:
        start = time.perf_counter()
        choice.decide(problem)
        times.append(time.perf_counter() - start)
    return times


def fresh(asked: list[ConvProblem]) -> list[ConvProblem]:
    """The same problems, of which nothing is known: each array is filled with another value outside."""
    value = np.random.default_rng().standard_normal()
    return [problem.replace(fill=value) for problem in asked]


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--count", default=300, show_default=True, help="Number of problems.")
@click.option("--rounds", default=5, show_default=True)
def main(seed: int, count: int, rounds: int) -> None:
    """Time the choice for problems of all families, new and seen.

    Example: python -m nconv.bench.choosing --seed 0
    """
    asked = list(map(described, problems(seed, count)))
    seconds(asked)
    new, seen = [], []
    for _ in range(rounds):
        now = fresh(asked)
        new.append(seconds(now))
        seen.append(seconds(now))
    for name, times in ("new", np.median(new, 0)), ("seen", np.median(seen, 0)):
        click.echo(f"{name:<6}median {np.median(times) * 1e6:6.2f} us, mean {np.mean(times) * 1e6:6.2f}, "
                   f"95 % {np.quantile(times, 0.95) * 1e6:6.2f}, worst {np.max(times) * 1e6:6.2f}")


if __name__ == "__main__":
    main()
