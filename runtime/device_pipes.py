"""The other end of the pipes of `bare/npu_driver.c`: runs what a program hands to its device.

Stdlib and numpy only.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Device = Callable[[bytes, dict[int, Array]], None]
REQUESTS, ANSWERS = "npu_requests", "npu_answers"
_HEAD, _SIZE = struct.Struct("<II"), struct.Struct("<I")
_FAILED = struct.pack("<i", -1)
_PART = 1 << 20  # bytes read at once


class DeviceError(RuntimeError):
    """The device refuses what it was handed."""


class _Ended(Exception):
    """The program has."""


def run_beside(command: Sequence[str], folder: Path, device: Device) -> tuple[int, str]:
    """(exit status, what it said) of a program that is started in a folder, with a device.

    Raises DeviceError, when the program has ended, for the first request that the device refused.
    """
    paths = [folder / name for name in (REQUESTS, ANSWERS)]
    files: list[int] = []
    try:
        for path in paths:
            os.mkfifo(path)
            # Open at both ends: neither waits for the program, nor breaks when it dies.
            files.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        with (folder / "said.txt").open("w+", errors="replace") as said:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
            try:
                failure = _Pipes(files[0], files[1], process).serve(device)
                status = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
            said.seek(0)
            words = said.read()
    finally:
        for file in files:
            os.close(file)
        for path in paths:
            path.unlink(missing_ok=True)
    if failure:
        raise DeviceError(f"what stands in for the device says: {failure}") from failure
    return status, words


class _Pipes:
    """Of a program that runs."""

    def __init__(self, requests: int, answers: int, program: subprocess.Popen[bytes]) -> None:
        self._requests, self._answers = requests, answers
        self._program = program

    def serve(self, device: Device) -> Exception | None:
        """Answer requests until the program ends; the first error of the device, if it had any.

        The program is told of an error by a status other than 0.
        """
        failure: Exception | None = None
        process = os.pidfd_open(self._program.pid)
        try:
            while True:
                commands, memory = self._request(process)
                before = {number: array.copy() for number, array in memory.items()}
                try:
                    device(commands, memory)
                except Exception as error:
                    failure = failure or error
                    memory = before
                    status = _FAILED
                else:
                    status = bytes(len(_FAILED))
                self._answer(process, status, before, memory)
        except _Ended:
            return failure
        finally:
            os.close(process)

    def _request(self, process: int) -> tuple[bytes, dict[int, Array]]:
        count, size = _HEAD.unpack(self._read(process, _HEAD.size))
        commands = bytes(self._read(process, size))
        memory: dict[int, Array] = {}
        for number in range(count):
            (size,) = _SIZE.unpack(self._read(process, _SIZE.size))
            if size:
                memory[number] = np.frombuffer(self._read(process, size), np.uint8)
            else:
                memory[number] = np.zeros(0, np.uint8)
        return commands, memory

    def _answer(
        self, process: int, status: bytes, before: dict[int, Array], after: dict[int, Array]
    ) -> None:
        parts = [status]
        for number, array in after.items():
            changed = b"" if np.array_equal(before[number], array) else array.tobytes()
            parts += [_SIZE.pack(len(changed)), changed]
        left = memoryview(b"".join(parts))
        while left:
            self._wait(process, [], [self._answers])
            left = left[os.write(self._answers, left) :]

    def _read(self, process: int, size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            self._wait(process, [self._requests], [])
            data += os.read(self._requests, min(size - len(data), _PART))
        return data

    @staticmethod
    def _wait(process: int, readable: list[int], writable: list[int]) -> None:
        """Until a pipe is ready. Raises _Ended when the program ends first."""
        ready, writing, _ = select.select([*readable, process], writable, [])
        if not writing and not set(ready) & set(readable):
            raise _Ended
