"""The other end of `worker.py`: engines in processes of their own, with deadlines."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from ..compiler.errors import RunError
from ..compiler.knobs import child_environment
from ..compiler.scratch import temporary_folder
from .engines import CrashError, EngineSpec
from .tensor_files import Arrays, as_types, narrow_types, read_file, write_npz

_MESSAGE_BYTES = 1 << 16


class DeadlineError(Exception):
    """The engine did not answer in time; its process has been ended."""


class EngineProcess:
    """One engine in one process; use it in a `with` statement.

    Every method raises RunError when the engine refuses (its own message), CrashError when its
    process dies, and DeadlineError when `deadline` (a `time.monotonic()` value) passes.
    """

    def __init__(self, spec: EngineSpec, deadline: float | None = None) -> None:
        self.spec = spec
        self.deadline = deadline
        self.version = ""
        self._folder = temporary_folder("tensmith-engine-", near=spec.path.parent)
        self._log = Path(self._folder.name, "stderr")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tensmith.driver.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(spec.threads, self._folder.name),
                start_new_session=True,
            )
        self._pending = b""

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and remove its files."""
        self._kill()
        self._process.communicate()
        self._folder.cleanup()

    def _kill(self) -> None:
        """End the process and those that it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def open(self) -> float:
        """Load the model; returns the seconds it took."""
        spec = self.spec
        answer = self._request(
            request="open",
            kind=spec.kind,
            path=str(spec.path),
            threads=spec.threads,
            emulator=spec.emulator,
            plain=spec.plain,
            precision=spec.precision,
            target=spec.target,
            nudged=spec.nudged,
            stand_in=spec.stand_in,
            ranges=spec.ranges,
            choices=spec.choices,
            shapes={name: list(dims) for name, dims in spec.shapes.items()},
        )
        self.version = str(answer["version"])
        return float(answer["seconds"])

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name for inputs by name."""
        source, sink = Path(self._folder.name, "inputs.npz"), Path(self._folder.name, "out.npz")
        write_npz(source, inputs)
        types = narrow_types(inputs)
        answer = self._request(request="run", inputs=str(source), types=types, outputs=str(sink))
        return as_types(read_file(sink), answer["types"])

    def measure(self, *, warmup: int, iterations: int, duration: float) -> list[int]:
        """Nanoseconds of each call on the inputs of the last `run` (see `worker.Session`)."""
        return self.timed(warmup=warmup, iterations=iterations, duration=duration)[0]

    def timed(self, *, warmup: int, iterations: int, duration: float) -> tuple[list[int], float]:
        """As `measure`; and seconds of processor time of all calls, of all threads."""
        answer = self._request(
            request="measure", warmup=warmup, iterations=iterations, duration=duration
        )
        return [int(value) for value in answer["nanoseconds"]], float(answer["cpu_seconds"])

    def _request(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._crash() from None
        answer: dict[str, Any] = json.loads(self._read_line())
        if answer.get("crash"):
            raise CrashError(answer["error"], where=self.spec.kind)
        if "error" in answer:
            raise RunError(answer["error"], where=self.spec.kind, remedy=answer["remedy"])
        return answer

    def _read_line(self) -> bytes:
        stream = self._process.stdout
        assert stream is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                left = None if self.deadline is None else max(0, self.deadline - time.monotonic())
                if not selector.select(left):
                    self._kill()
                    raise DeadlineError
                chunk = os.read(stream.fileno(), _MESSAGE_BYTES)
                if not chunk:
                    raise self._crash()
                self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _crash(self) -> CrashError:
        status = self._process.wait()
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        why = f": {last[0]}" if last else ""
        return CrashError(f"the process of the engine died ({cause}){why}", where=self.spec.kind)


def _environment(threads: int, folder: str) -> dict[str, str]:
    """The child finds the same modules, uses no more threads than asked for, and `folder` for
    whatever it writes."""
    limits = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)
    )
    path = os.pathsep.join(filter(None, sys.path))
    return child_environment(PYTHONPATH=path, TMPDIR=folder, **limits)
