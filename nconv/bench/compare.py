"""What became slower from one result file of `nconv bench` to another, beyond the noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from .measure import geometric_mean
from .rivals import RIVALS

TOLERANCE = 1.15
"""A time that grew by less is noise, unless the rivals of the case say that the machine was quieter."""


class Change(NamedTuple):
    """One time in both files."""

    name: str
    before: float              # seconds
    after: float
    machine: float             # by which factor the rivals' times on the same case grew: the machine, not the code

    @property
    def factor(self) -> float:
        """Growth of the time beside the rivals'."""
        return self.after / self.before / self.machine


def compare(old: str, new: str) -> list[Change]:
    """Every time of nconv that is in both files, the one that grew most first.

    Raises
    ------
    ValueError
        If a file is none of ``nconv bench --json``, or the two have no problem in common.
    """
    before, after = _read(old), _read(new)
    changes = []
    for key in before.keys() & after.keys():
        rivals = [after[key][name] / before[key][name] for name in before[key].keys() & after[key].keys() & set(RIVALS)]
        machine = geometric_mean(rivals) if rivals else 1.0
        for method in before[key].keys() & after[key].keys() - set(RIVALS):
            changes.append(Change(" ".join((*key, method)), before[key][method], after[key][method], machine))
    if not changes:
        raise ValueError(f"{old} and {new} have no problem in common")
    return sorted(changes, key=lambda change: (-change.factor, change.name))


def _read(path: str) -> dict[tuple[str, str, str], dict[str, float]]:
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))["records"]
        return {(r["family"], r["name"], r["dtype"]): r["seconds"] for r in records}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of nconv bench --json: {type(error).__name__}: {error}") from None
