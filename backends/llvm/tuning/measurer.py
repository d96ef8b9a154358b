"""The measurer of CPUs: batches are checked and timed by the measuring program."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Mapping, Sequence
from functools import cached_property

from ....compiler.errors import InternalError, UsageError
from ....compiler.target import CpuTarget
from ....compiler.tuning.task import (
    Batch,
    CallTimes,
    MachineClass,
    Reading,
    Turn,
    Waiting,
    machine_of,
)
from ...common.running import runs_here
from .host import Ended, LocalHost, MeasuringHost
from .machine import machine_class
from .ssh import SshHost

CHECK_SECONDS = 10.0  # of one candidate: what takes longer hangs
START_SECONDS = 60.0  # to load a batch
ENTRY_SECONDS = 20.0  # of an entry of a turn, beside those that it is to take: long calls
MOST_STOLEN = 0.01  # of the time of a turn that other guests of the host may take


class CpuMeasurer:
    """Measures on one machine; see `Measurer`."""

    exact = False

    def __init__(self, host: MeasuringHost) -> None:
        self._host = host
        self.waiting: Waiting = lambda seconds: False
        self._placed: tuple[str, str] = ("", "")  # digest of the files that lie there, and where

    @cached_property
    def machine(self) -> MachineClass:
        """On which it measures."""
        ended = self._host.run(["machine"], START_SECONDS)
        if ended.code:
            raise InternalError("the measuring program does not run", why=_ending(ended))
        return machine_class(ended.output)

    def check(self, batch: Batch) -> Mapping[int, str]:
        """Why candidates of a batch do not compute what its base does, by position."""
        folder, present = self._place(batch), _present(batch)
        milliseconds = str(int(CHECK_SECONDS * 1000))
        limit = START_SECONDS + 2 * CHECK_SECONDS * (1 + len(present))
        ended = self._host.run(["check", folder, milliseconds], limit)
        found = {n: b.error for n, b in enumerate(batch.built) if b.error}
        told: set[int] = set()
        for words in _lines(ended, "check"):
            position = int(words[0])
            told.add(position)
            if words[1] != "same":
                found[position] = _difference(words[1:])
        for position in present:
            if position not in told:
                base = f"the base: {found[0]}" if 0 in found else _ending(ended)
                found.setdefault(position, f"it was not checked: {base}")
        return found

    def time(self, batch: Batch, turn: Turn) -> Reading:
        """One turn. What a candidate that crashes would have left to do is done by another
        process, without that candidate."""
        folder = self._place(batch)
        samples: list[CallTimes] = []
        failures = {n: b.error for n, b in enumerate(batch.built) if b.error}
        seconds, disturbed = 0.0, ""
        left = list(turn.order)
        while left := [position for position in left if position not in failures]:
            ended = self._host.run(
                ["time", folder, self._host.lock, str(int(turn.seconds * 1e9)), *map(str, left)],
                START_SECONDS + len(left) * (ENTRY_SECONDS + 2 * turn.seconds),
                self.waiting,
            )
            found = [_times(words) for words in _lines(ended, "time")]
            samples += found
            seconds += ended.seconds
            disturbed = disturbed or _disturbance(ended)
            if len(found) == len(left):
                break
            if not any(_lines(ended, "begin")):
                raise OSError(f"the measuring program does not run: {_ending(ended)}")
            failures[left[len(found)]] = _ending(ended)
            left = left[len(found) + 1 :]
        return Reading(tuple(samples), seconds, failures, disturbed)

    def close(self) -> None:
        """Remove what it has put on the machine."""
        self._host.close()

    def _place(self, batch: Batch) -> str:
        """The folder with the files of a batch; those of the latest stay there."""
        digest = hashlib.sha256()
        for name, content in sorted(batch.files.items()):
            digest.update(name.encode() + hashlib.sha256(content).digest())
        if self._placed[0] != digest.hexdigest():
            self._placed = digest.hexdigest(), self._host.put(batch.files)
        return self._placed[1]


def measurer_cpu(target: CpuTarget, worker: str) -> CpuMeasurer:
    """What measures code of a target. worker: "local", or "ssh://HOST" (see `SshHost`).

    Raises UsageError for another worker, and where the target's code does not run there.
    """
    if worker.startswith("ssh:"):
        return CpuMeasurer(SshHost(target, worker))
    if worker != "local":
        raise UsageError(f"'{worker}' is no worker", remedy="local, or ssh://HOST")
    reason = runs_here(target)
    if reason:
        raise UsageError(
            f"kernels for '{target.name}' cannot be timed on this machine", why=reason,
            remedy="tune on a machine of that kind (ssh://HOST): an emulator's times mean nothing",
        )  # fmt: skip
    return CpuMeasurer(LocalHost(target))


def machine_cpu(target: CpuTarget) -> MachineClass:
    """The class of this machine. Raises UsageError where the target's code does not run on it."""
    return machine_of(measurer_cpu(target, "local"))


def _present(batch: Batch) -> list[int]:
    return [position for position, built in enumerate(batch.built) if not built.error]


def _lines(ended: Ended, kind: str) -> list[list[str]]:
    """The words behind the first of every line that begins with it."""
    rows = (line.split() for line in ended.output.splitlines())
    return [row[1:] for row in rows if row and row[0] == kind]


def _times(words: Sequence[str]) -> CallTimes:
    position, least, quartile, median, count = map(int, words)
    return CallTimes(position, least * 1e-12, quartile * 1e-12, median * 1e-12, count)


def _disturbance(ended: Ended) -> str:
    for stolen, whole in (map(int, words) for words in _lines(ended, "stolen")):
        if whole and stolen > MOST_STOLEN * whole:
            return f"other guests of the host had {stolen / whole:.0%} of the time"
    return ""


def _difference(words: Sequence[str]) -> str:
    """What the program says of a candidate that is not like the base."""
    match words:
        case ["differs", output, place, got, wanted, largest]:
            return (
                f"element {place} of output {output} is {got}, of the base {wanted}; "
                f"the largest is {largest}"
            )
        case ["beyond", output]:
            return f"it writes behind output {output}"
        case ["signal", number]:
            return _signal(int(number))
        case ["hang"]:
            return f"it takes longer than {CHECK_SECONDS:.0f} s"
    return " ".join(words)


def _signal(number: int) -> str:
    if number == signal.SIGILL:
        return "this processor lacks an instruction of it"
    return f"it was ended by {signal.Signals(number).name}"


def _ending(ended: Ended) -> str:
    if ended.late:
        return "it did not end in time"
    if ended.code < 0:
        return _signal(-ended.code)
    return f"it ended with code {ended.code}: {ended.errors.strip()[-500:]}"
