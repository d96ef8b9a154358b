"""Vela in a process of its own, so that a crash of it is a refusal and not the compiler's end.

Run as a program it answers requests on its standard input, one pickled tuple of arguments of
`regor.compile` after the other, by ("made", what Vela made) or ("refused", why) on its standard
output, until that ends; it imports nothing of the package.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import IO, Any

PROGRAM = (sys.executable, __file__)
_PERF = "perf"  # the table of operators
_CRASHES = (
    signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP,
)  # fmt: skip
_PATIENCE = 10.0  # seconds for a process to end that answers no more
_LAST_BYTES = 4000  # of what a process printed, as it is told


class VelaEndedError(Exception):
    """The process has ended instead of answering. crashed: by a signal that its own instructions
    raise, as an abort is; else it was killed or failed otherwise. printed: the end of what it wrote
    to standard error."""

    def __init__(self, code: int, printed: str) -> None:
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        super().__init__(f"it ended by {how}")
        self.crashed = -code in _CRASHES
        self.printed = printed


class VelaProcess:
    """A process that is started at the first request, and anew after it has ended. program: its
    command."""

    def __init__(self, program: Sequence[str] = PROGRAM) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: IO[bytes] | None = None  # what it writes to standard error
        self._owner = 0  # the process that has started it: a copy of that starts its own
        atexit.register(self.close)

    def ask(self, *arguments: Any) -> tuple[str, Any]:
        """The answer to a request. Raises VelaEndedError where there is none.

        Whatever else interrupts it ends the process, whose answer the next request would be given.
        """
        with self._lock:
            try:
                return self._answer(self._started(), arguments)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End the process."""
        process = self._process
        if process is None or self._owner != os.getpid():
            return
        self._process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, self._printed):
            if pipe is not None:
                _close(pipe)

    def _started(self) -> subprocess.Popen[bytes]:
        """The process, which has printed nothing of this request yet."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None or self._owner != os.getpid():
            self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
            self._process = subprocess.Popen(
                self._program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
            )
            self._owner = os.getpid()
        assert self._printed is not None
        self._printed.seek(0)  # of the process as well, which shares the position
        self._printed.truncate()
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], arguments: Any) -> tuple[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(arguments, process.stdin)
            process.stdin.flush()
            answer: tuple[str, Any] = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):  # cut off, or nothing at all
            raise self._ended(process) from None
        return answer

    def _ended(self, process: subprocess.Popen[bytes]) -> VelaEndedError:
        """How a process ended that answers no more; one that does not end is killed."""
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        code = process.wait()
        assert self._printed is not None
        self._printed.seek(0)
        printed = self._printed.read().decode(errors="replace").strip()
        return VelaEndedError(code, printed[-_LAST_BYTES:])


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
