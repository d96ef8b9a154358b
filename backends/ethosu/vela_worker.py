"""Vela in a process of its own, so that an abort in it is a refusal and not the compiler's end.

Run as a program it answers requests on its standard input, one pickled tuple of arguments of
`regor.compile` after the other, by ("made", what Vela made) or ("refused", why) on its standard
output, until that ends; it imports nothing of the package.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

PROGRAM = (sys.executable, __file__)
_PERF = "perf"  # the table of operators


class VelaEndedError(Exception):
    """The process has ended instead of answering."""


class VelaProcess:
    """A process that is started at the first request, and anew after it has ended. program: its
    command."""

    def __init__(self, program: Sequence[str] = PROGRAM) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process that has started it: a copy of that starts its own
        atexit.register(self.close)

    def ask(self, *arguments: Any) -> tuple[str, Any]:
        """The answer to a request. Raises VelaEndedError where there is none."""
        with self._lock:
            if self._process is None or self._owner != os.getpid():
                self._process = subprocess.Popen(
                    self._program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                self._owner = os.getpid()
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                pickle.dump(arguments, self._process.stdin)
                self._process.stdin.flush()
                answer: tuple[str, Any] = pickle.load(self._process.stdout)
            except (EOFError, BrokenPipeError):
                code = self._process.wait()
                self._forget()
                how = f"signal {-code}" if code < 0 else f"exit status {code}"
                raise VelaEndedError(f"it ended by {how}") from None
            return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            self._forget()

    def _forget(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    _close(pipe)
        self._process = None


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return  # what was not written is lost with the process


def _plain(found: Any) -> dict[str, Any]:
    """What Vela made, as plain data."""
    report, table = found.perf_report, found.opt_database.tables[_PERF]
    return {
        "commands": bytes(found.command_stream),
        "weights": (bytes(found.read_only.data), found.read_only.region),
        "scratch": (found.scratch.size, found.scratch.region),
        "fast": (found.scratch_fast.size, found.scratch_fast.region),
        "inputs": [(t.region, t.address, t.size) for t in found.inputs],
        "outputs": [(t.region, t.address, t.size) for t in found.outputs],
        "cycles": int(report.totalCycles),
        "npu_cycles": int(report.npuCycles),
        "macs": int(report.macCount),
        "memories": {
            name: (
                int(memory.peakUsage),
                sum(int(access.bytesRead) for access in memory.accesses.values()),
                sum(int(access.bytesWritten) for access in memory.accesses.values()),
            )
            for name, memory in sorted(report.memories.items())
        },
        "operators": [dict(zip(table.header, row, strict=True)) for row in table.data],
    }


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    from ethosu import regor

    while True:
        try:
            architecture, blob, kind, configuration, options = pickle.load(source)
        except EOFError:
            return
        try:
            made = regor.compile(architecture, blob, kind, configuration, options=options)
            answer: tuple[str, Any] = ("made", _plain(made))
        except RuntimeError as error:
            answer = ("refused", str(error).strip())
        pickle.dump(answer, sink)
        sink.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what Vela prints is no answer
        serve(sys.stdin.buffer, answers)
