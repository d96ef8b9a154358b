"""A process that holds one engine: `python -m tensmith.driver.worker`, driven by `processes.py`.

Requests and answers are single lines of JSON on stdin and stdout; tensors travel in .npz files.
Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from ..compiler.errors import TensmithError
from ..runtime.loader import ModuleError
from .engines import CrashError, EngineSpec, Run, engine_version, open_engine
from .tensor_files import Arrays, as_types, narrow_types, read_file, write_npz


class Session:
    """The engine of this process and the inputs that it was given."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.inputs: Arrays = {}

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request: "open", "run" or "measure"."""
        kind = request["request"]
        if kind == "open":
            return self._open(request)
        if kind == "run":
            return self._run(request)
        return self._measure(request)

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        spec = EngineSpec(
            kind=request["kind"],
            path=Path(request["path"]),
            threads=request["threads"],
            shapes={name: tuple(dims) for name, dims in request["shapes"].items()},
            emulator=tuple(request["emulator"]),
            plain=request["plain"],
            precision=request["precision"],
            target=request["target"],
            nudged=request["nudged"],
            stand_in=request["stand_in"],
            ranges=tuple((low, high) for low, high in request["ranges"]),
            choices=request["choices"],
        )
        self.run = open_engine(spec)
        return {
            "seconds": time.perf_counter() - start,
            "version": engine_version(request["kind"]),
        }

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run once on the inputs of a file, which stay for "measure"; write the outputs."""
        assert self.run is not None
        self.inputs = as_types(read_file(Path(request["inputs"])), request["types"])
        start = time.perf_counter()
        outputs = self.run(self.inputs)
        seconds = time.perf_counter() - start
        write_npz(Path(request["outputs"]), outputs)
        return {"seconds": seconds, "types": narrow_types(outputs)}

    def _measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time calls, each by itself: `warmup` untimed ones, then until both the number of
        iterations and the duration are reached (a negative one does not count)."""
        assert self.run is not None
        run, inputs = self.run, self.inputs
        for _ in range(request["warmup"]):
            run(inputs)
        iterations, duration = request["iterations"], request["duration"] * 1e9
        times: list[int] = []
        cpu = time.process_time()
        begin = now = time.perf_counter_ns()
        while len(times) < iterations or now - begin < duration:
            run(inputs)
            last, now = now, time.perf_counter_ns()
            times.append(now - last)
        return {"nanoseconds": times, "cpu_seconds": time.process_time() - cpu}


def serve(source: TextIO, sink: TextIO) -> None:
    """Answer requests until the source ends; an error is an answer too."""
    session = Session()
    for line in source:
        try:
            answer = session.handle(json.loads(line))
        except CrashError as error:
            answer = {"error": error.what, "crash": True}
        except TensmithError as error:
            answer = {"error": error.what, "why": error.why, "remedy": error.remedy}
        except ModuleError as error:
            answer = {"error": str(error), "why": "", "remedy": ""}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "why": "", "remedy": ""}
        sink.write(json.dumps(answer) + "\n")
        sink.flush()


def main() -> None:
    """Keep stdout for answers: libraries that print get stderr instead."""
    sink = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, sink)


if __name__ == "__main__":
    main()
