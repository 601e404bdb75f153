"""What was measured, as files that users keep, copy and delete (FFTW calls it wisdom)."""

from __future__ import annotations

import os

from . import choice, wisdom


def export_wisdom(path: str | os.PathLike) -> int:
    """Write the times that `nconv.tune` has measured to a file.

    Parameters
    ----------
    path : path-like
        A readable JSON file; replaced as a whole.

    Returns
    -------
    int
        Number of problems in it.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, nconv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = nconv.export_wisdom(f"{folder}/wisdom.json")
    ...     nconv.import_wisdom(f"{folder}/wisdom.json") == count
    True
    """
    return wisdom.export(path)


def import_wisdom(path: str | os.PathLike) -> int:
    """Add the times in a file of `export_wisdom` to what is known here; they count on machines of the same name.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    int
        Number of problems in the file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no file of `export_wisdom`, or of another version; nothing is added.

    Examples
    --------
    >>> import tempfile, nconv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = nconv.export_wisdom(f"{folder}/wisdom.json")
    ...     nconv.import_wisdom(f"{folder}/wisdom.json") == count
    True
    """
    count = wisdom.take(path)
    choice.forget_choices()
    return count


def forget_wisdom() -> None:
    """Delete all measured times, also from the user's cache; the rates of the machine stay.

    Examples
    --------
    >>> import nconv
    >>> nconv.forget_wisdom()
    """
    wisdom.delete()
    choice.forget_choices()
