"""Work that may take its process down, done row by row in a process of its own.

A kernel that reads outside its memory leaves a process without its GPU, a driver's fault ends it, a kernel without end
never gives it back. None of these may cost the rows after it: they are asked of a new process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from queue import LifoQueue
from threading import Timer
from typing import Any


class Worker:
    """A process that answers one request after the other; where it is lost, the next request starts a new one.

    Parameters
    ----------
    module : str
        It has ``answer(*request)``, which returns a dictionary, and ``healthy()``, which is asked after a fault: where
        it says False, the process has answered for the last time.
    prefix : sequence of str
        A command that the process runs under.
    """

    def __init__(self, module: str, prefix: Sequence[str] = ()):
        self._command = [*prefix, sys.executable, "-X", "faulthandler", "-m", __name__, module]
        self._child: Any = None
        self.lost = 0                       # processes so far

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._child:
            self._signal()
            self._end()

    def ask(self, *request: Any, limit: float) -> dict[str, Any]:
        """The answer, or a row with `fault` where there is none within `limit` seconds."""
        start = time.monotonic()
        if self._child is None:
            self._said = tempfile.TemporaryFile()
            self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                           stderr=self._said, start_new_session=True)
        timer = Timer(limit, self._signal)
        timer.start()
        try:
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:             # it had ended before
            line = ""
        finally:
            timer.cancel()
        row = json.loads(line) if line.endswith("\n") else None
        if row is None or row.get("lost"):
            late = time.monotonic() - start >= limit
            status = self._end()
            self.lost += 1
            row = row or {"ok": False, "fault": f"no answer within {limit:.3g} s" if late else
                          f"the process ended with status {status}", "traceback": self._words()}
        return row

    def close(self, limit: float) -> int | None:
        """Let the process end by itself; its exit status, None where there is none within `limit` seconds."""
        if self._child is None:
            return None
        self._child.stdin.close()
        try:
            return self._child.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self._end()

    def _signal(self) -> None:
        """Kill the process and those that it started."""
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _end(self) -> int:
        """Leave the process behind; its exit status."""
        try:
            status = self._child.wait(1)    # what ends by itself tells how
        except subprocess.TimeoutExpired:
            self._signal()
            status = self._child.wait()
        self._child.stdout.close()
        self._child = None
        return status

    def _words(self) -> str:
        """The end of what the process said."""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 3000))
        return self._said.read().decode(errors="replace")


class Crew:
    """Several such processes; whoever asks, also from several threads, gets the answer of one that is idle.

    The latest to answer is asked first: who asks one after the other always asks the same.
    """

    def __init__(self, module: str, count: int):
        self._workers = [Worker(module) for _ in range(count)]
        self._idle: LifoQueue[Worker] = LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self._workers:
            worker.__exit__()

    @property
    def lost(self) -> int:
        """Processes that were lost so far."""
        return sum(worker.lost for worker in self._workers)

    def ask(self, *request: Any, limit: float) -> dict[str, Any]:
        """See `Worker.ask`; the limit begins once a process is idle."""
        worker = self._idle.get()
        try:
            return worker.ask(*request, limit=limit)
        finally:
            self._idle.put(worker)


def fault_of(error: BaseException) -> dict[str, Any]:
    """What a row says of an error."""
    return {"ok": False, "fault": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
            "traceback": "".join(traceback.format_exception(error))[-3000:]}


def attempt(answer: Callable[..., dict[str, Any]], *request: Any) -> dict[str, Any]:
    """The answer, or what is known of the error."""
    try:
        return answer(*request)
    except Exception as error:              # the next row runs all the same
        return fault_of(error)


def serve(name: str) -> None:
    """The process: a line of JSON for each line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                           # what a row prints is no answer
    module = import_module(name)
    for request in sys.stdin:
        row = attempt(module.answer, *json.loads(request))
        if "fault" in row and not module.healthy():
            row["lost"] = True
        print(json.dumps(row, default=str), file=answers, flush=True)
        if row.get("lost"):
            os._exit(1)                     # without a device, what runs at the end could hang


if __name__ == "__main__":
    serve(sys.argv[1])
