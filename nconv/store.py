"""What is kept from one program to the next: small readable files, each changed as a whole or not at all.

A file that cannot be read is ignored with a warning, a folder that cannot be written costs the memory, never the call.
Writers take turns, so that none loses what another has learnt.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_PATIENCE = 2.0                # seconds to wait for another writer; one that takes longer has died


def folder() -> Path:
    """Where nconv keeps what it has learnt: NCONV_CACHE_DIR, else the platform's cache of the user."""
    if chosen := os.environ.get("NCONV_CACHE_DIR"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("nconv", appauthor=False))


def load(path: Path, form: int, key: str, check: Callable[[Any], dict]) -> dict:
    """What a file of this format holds under `key`, as `check` accepts it; nothing where it cannot be read."""
    if not path.exists():
        return {}
    try:
        return parse(path, form, key, check)
    except (OSError, ValueError) as error:
        warnings.warn(f"{path} is not readable and is ignored: {error}", stacklevel=4)
        return {}


def parse(path: Path, form: int, key: str, check: Callable[[Any], dict]) -> dict:
    """`load` that raises: OSError, or ValueError for what is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != form:
            raise ValueError(f"format {content['format']}, expected {form}")
        return check(content[key])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def save(path: Path, form: int, key: str, content: dict) -> None:
    """Write a file as a whole: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"format": form, key: content}, file, indent=1)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def turn(path: Path) -> Iterator[None]:
    """Keep other writers, of this process and of others, from a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    start = time.monotonic()
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except (FileExistsError, PermissionError):      # Windows refuses while the other one deletes it
            if time.monotonic() - start > _PATIENCE:    # left by a process that died
                lock.unlink(missing_ok=True)
                start = time.monotonic()
            time.sleep(0.01)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
