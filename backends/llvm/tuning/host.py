"""Machines that run the measuring program."""

from __future__ import annotations

import fcntl
import os
import selectors
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from ....compiler.scratch import make_folder
from ....compiler.target import CpuTarget
from ....compiler.tuning.task import WaitEndedError, Waiting
from .program import build_program

_PREFIX, _OWNER = "tensmith-tuning-", "owner"
_NEW_SECONDS = 60.0  # that a folder may be without a lock
POLL_SECONDS = 0.25
_LOCK = "tensmith-measuring.lock"


@dataclass(frozen=True)
class Ended:
    """A program that ended. code: less than 0: the signal that ended it. late: it was ended as it
    took too long. seconds: that it ran, without waiting for its turn."""

    code: int
    output: str
    errors: str
    seconds: float
    late: bool = False


class MeasuringHost(Protocol):
    """A machine with the measuring program.

    lock: path of the file that whoever measures there locks.
    """

    @property
    def lock(self) -> str: ...

    def put(self, files: Mapping[str, bytes]) -> str:
        """Write files to a folder there, in the place of those before; its path.

        Raises OSError when the machine is lost.
        """
        ...

    def run(
        self, arguments: Sequence[str], seconds: float, waiting: Waiting | None = None
    ) -> Ended:
        """Run the program, for at most so many seconds after it begins to measure.

        waiting: asked while it waits for its turn. Raises WaitEndedError when that
        says so, and OSError when the machine is lost.
        """
        ...

    def close(self) -> None:
        """Remove everything."""
        ...


class LocalHost:
    """This machine."""

    def __init__(self, target: CpuTarget) -> None:
        self._folder = make_folder(_PREFIX)
        self._owned = (self._folder / _OWNER).open("w")
        try:
            fcntl.flock(self._owned, fcntl.LOCK_EX)
            remove_left(self._folder.parent)
            self._program = build_program(target, self._folder)
        except BaseException:
            self.close()
            raise

    @property
    def lock(self) -> str:
        """One for all users of the machine."""
        return str(Path(tempfile.gettempdir()) / _LOCK)

    def put(self, files: Mapping[str, bytes]) -> str:
        """Write files to a folder."""
        folder = self._folder / "batch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return str(folder)

    def run(
        self, arguments: Sequence[str], seconds: float, waiting: Waiting | None = None
    ) -> Ended:
        """Run the program; what it starts ends with it."""
        command = [str(self._program), *arguments]
        return run_limited(command, seconds, waits=arguments[0] == "time", waiting=waiting)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._owned.close()


def remove_left(parent: Path) -> None:
    """Remove what programs that were killed have left among the temporary files.

    Whoever uses a folder locks a file in it for as long as it lives.
    """
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            status = folder.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if not is_ours or time.time() - status.st_mtime < _NEW_SECONDS:
                continue
            with (folder / _OWNER).open("r+") as owned:
                fcntl.flock(owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # in use, or another program removes it


def run_limited(
    command: Sequence[str], seconds: float, *, waits: bool, waiting: Waiting | None = None
) -> Ended:
    """Run a program in a process group of its own, for at most so many seconds.

    waits: it waits for its turn first, however long that takes, and says "locked" then. waiting:
    asked meanwhile; WaitEndedError is raised when it says so.
    """
    late = threading.Event()
    errors: list[str] = []
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        reader = threading.Thread(target=lambda s: errors.append(s.read()), args=(process.stderr,))
        reader.start()
        limit = threading.Timer(seconds, end)
        begin = time.monotonic()
        try:
            if not waits:
                limit.start()
            elif waiting is not None:
                _wait(process.stdout, begin, waiting)
            for line in process.stdout:
                lines.append(line)
                if waits and line == "locked\n":
                    begin = time.monotonic()
                    limit.start()
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            limit.cancel()
            reader.join()
    return Ended(code, "".join(lines), "".join(errors), time.monotonic() - begin, late.is_set())


def _wait(stream: IO[str], begin: float, waiting: Waiting) -> None:
    """Until a program says something."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not selector.select(POLL_SECONDS):
            if waiting(time.monotonic() - begin):
                raise WaitEndedError
