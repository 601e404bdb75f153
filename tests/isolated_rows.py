"""Rows that behave as kernels may: what `test_isolated` asks a process of its own for."""

import ctypes
import os
import time

_lost = False


def answer(what, *more):
    """One row."""
    global _lost
    print("what a row prints")
    if what == "raise":
        raise ValueError("a word")
    if what == "poison":                     # as an address that is no address: from now on everything fails
        _lost = True
    if _lost:
        raise RuntimeError("the context is lost")
    if what == "exit":
        os._exit(7)
    if what == "abort":
        ctypes.string_at(0)
    if what == "hang":
        time.sleep(60)
    return {"ok": True, "pid": os.getpid(), "more": more}


def healthy():
    """Whether a row may follow in the same process."""
    return not _lost
