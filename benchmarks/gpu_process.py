"""A process that does stages: what breaks a GPU, hangs or dies takes this process alone."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOLD = 500  # characters of what a process that died has printed last


class StageProcess:
    """Does one stage after the other, in a process that is made anew where one fails: an illegal
    access, for instance, leaves a process no GPU. What a process has begun ends with it, as it may
    use the GPU. folder: of the builds."""

    def __init__(self, folder: Path, dry: bool) -> None:
        self._command = [sys.executable, "-m", f"{__package__}.gpu_stages", str(folder)]
        self._command += ["--dry-run"] * dry
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="tensmith-gpu-")
        self._log = Path(self._folder.name, "log")

    def run(self, stage: str, seconds: float) -> dict[str, Any] | None:
        """What a stage gives; `error` says how it failed. None: it took longer than so many
        seconds, and was ended."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(stage.encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:  # it ended behind the last stage
            return {"error": self._last_words(process)}
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self.close()
                return None
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            return {"error": self._last_words(process)}
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            self.close()
        return found

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
        return self._process

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        """How a process that ends by itself ended."""
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its group stays until `close`
        self.close()
        told = self._log.read_text(errors="replace").strip()[-TOLD:]
        return f"the process ended with status {process.returncode}: {told}"

    def close(self) -> None:
        """End the process and those that it has begun, whatever they do."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
