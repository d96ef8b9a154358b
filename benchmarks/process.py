"""The calling side of `server.py`: an engine in a process of its own."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("server.py")
SAMPLE_SECONDS = 0.02


class EngineError(Exception):
    """The engine failed, ended, or took too long."""


class EngineSkipped(EngineError):
    """The engine cannot take the model; the message says why."""


def one_cpu_per_core(count: int) -> list[int]:
    """`count` CPUs that this process may use, on different physical cores.

    Raises ValueError when there are fewer cores.
    """
    chosen: list[int] = []
    seen: set[str] = set()
    for cpu in sorted(os.sched_getaffinity(0)):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = topology.read_text().strip() if topology.exists() else str(cpu)
        if core not in seen:
            seen.add(core)
            chosen.append(cpu)
    if len(chosen) < count:
        raise ValueError(f"{count} threads asked for, {len(chosen)} cores available")
    return chosen[:count]


def tree_bytes(pid: int, *, shared_once: bool, parent: bytes = b"") -> int:
    """Memory of a process and its descendants, in bytes; 0 for one that has ended.

    shared_once: what several of them share counts once, which takes long to read (the proportional
    set size); else in each. A child that does not run its own program yet (`parent`: the command
    line of the one that started it) has its parent's memory, and counts nothing.
    """
    folder = Path(f"/proc/{pid}")
    try:
        command = (folder / "cmdline").read_bytes()
        if command == parent:
            return 0
        rows = (folder / ("smaps_rollup" if shared_once else "status")).read_text().splitlines()
        children = [
            int(child)
            for task in (folder / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it ended while we looked
        return 0
    label = "Pss:" if shared_once else "VmRSS:"
    own = sum(int(row.split()[1]) << 10 for row in rows if row.startswith(label))
    return own + sum(tree_bytes(c, shared_once=shared_once, parent=command) for c in children)


def high_water_bytes(pid: int) -> int:
    """Largest resident memory that a process has had, in bytes; 0 for one that has ended.

    From VmHWM: `ru_maxrss` of a child starts at its parent's size.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


class Worker:
    """One engine, pinned to `cpus`, one thread for each. Use as a context manager.

    timeout: seconds that one request may take. peak_rss: the largest memory of the process and
    its children together since the start, in bytes, sampled every 20 ms (that of the process
    itself is exact).
    """

    def __init__(self, engine: str, cpus: list[int], timeout: float = 600.0) -> None:
        self.engine = engine
        self.timeout = timeout
        self._sampled = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        environment = dict(os.environ)
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[variable] = str(len(cpus))
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), engine, ",".join(map(str, cpus))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            if tree_bytes(self._process.pid, shared_once=False) > self._sampled:
                now = tree_bytes(self._process.pid, shared_once=True)
                self._sampled = max(self._sampled, now)

    @property
    def peak_rss(self) -> int:
        return max(self._sampled, high_water_bytes(self._process.pid))

    def stop_sampling(self) -> None:
        """End the sampling of children's memory: nothing else may run while engines are timed."""
        self._ended.set()
        self._sampler.join()

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One answer of the protocol. Raises EngineError or EngineSkipped."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise EngineError(self._last_words()) from error
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(self.timeout):
                self._process.kill()
                raise EngineError(f"no answer to '{do}' in {self.timeout:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise EngineError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "skipped" in answer:
            raise EngineSkipped(answer["skipped"])
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        tail = self._log.read()[-400:].decode(errors="replace").strip()
        return f"{self.engine} ended with {code}: {tail}"

    def close(self) -> None:
        """End the process."""
        self.stop_sampling()
        assert self._process.stdin
        assert self._process.stdout
        if self._process.poll() is None:
            self._process.stdin.close()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()
        self._log.close()
