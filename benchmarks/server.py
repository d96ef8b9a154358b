"""Serve one engine on standard input and output (`process.py` is the other end).

    python benchmarks/server.py ENGINE CPUS      # CPUS: "0,1", one for each thread

The process pins itself, then answers each JSON line with a JSON line:

    {"do": "load", "model": PATH, "inputs": NPZ, "per_step": [NAME, ...]}
        -> {"version", "compile_seconds", "load_seconds", "first_run_seconds", "base_rss"}
    {"do": "compile", "model": PATH}
        -> {"compile_seconds", "base_rss", "artifact_bytes", "sha256"}
    {"do": "outputs", "inputs": NPZ, "per_step": [...], "to": PATH}   -> {}
    {"do": "time", "iterations": K}   -> {"seconds": [...], "processor_seconds"}: of all K runs
    {"do": "arrive", "gaps": [SECONDS, ...]}
        -> {"seconds": [...], "processor_seconds"}: calls that come after these gaps, and wait for
           each other; seconds from coming to being done

An answer with "skipped" says why the engine cannot take the model, "error" that it failed. The
inputs of the last "load" are those that are timed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engines import ENGINES, Engine, Feed, Skip

WARM_UP = 1  # untimed runs before each series: another engine has just used the caches


def read_feed(path: str, per_step: list[str]) -> Feed:
    """Arrays of an .npz by input name; of `per_step` inputs the first along the leading axis."""
    with np.load(path) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    for name in per_step:
        feed[name] = feed[name][0]
    return {name: np.asarray(array, order="C") for name, array in feed.items()}


def resident_bytes() -> int:
    """Memory of this process that is resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Server:
    """Answers the requests of the module docstring for one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.prepared: Any = None

    def start(self) -> int:
        """Import the engine; the resident bytes then, before any model."""
        try:
            importlib.import_module(self.engine.module)
        except ImportError as error:
            raise Skip(f"not installed: {error}") from error
        return resident_bytes()

    def compile(self, model: str) -> dict[str, Any]:
        base = self.start()
        started = time.perf_counter()
        self.engine.compile(Path(model))
        seconds = time.perf_counter() - started
        digest, size = hashlib.sha256(), 0
        for path in self.engine.files():
            size += path.stat().st_size
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return {
            "compile_seconds": seconds,
            "base_rss": base,
            "artifact_bytes": size,
            "sha256": digest.hexdigest(),
        }

    def load(self, model: str, inputs: str, per_step: list[str]) -> dict[str, Any]:
        base = self.start()
        if self.engine.precision == "int8":
            self.engine.sample = read_feed(inputs, per_step)
        marks = [time.perf_counter()]
        self.engine.compile(Path(model))
        marks.append(time.perf_counter())
        self.engine.load()
        marks.append(time.perf_counter())
        self.prepared = self.engine.prepare(read_feed(inputs, per_step))
        started = time.perf_counter()
        self.engine.run(self.prepared)
        return {
            "version": self.engine.version(),
            "compile_seconds": marks[1] - marks[0],
            "load_seconds": marks[2] - marks[1],
            "first_run_seconds": time.perf_counter() - started,
            "base_rss": base,
        }

    def outputs(self, inputs: str, per_step: list[str], to: str) -> dict[str, Any]:
        result = self.engine.run(self.engine.prepare(read_feed(inputs, per_step)))
        np.savez(to, *self.engine.arrays(result))
        return {}

    def time(self, iterations: int) -> dict[str, Any]:
        run, prepared, clock = self.engine.run, self.prepared, time.perf_counter
        for _ in range(WARM_UP):
            run(prepared)
        seconds = []
        before = time.process_time()
        for _ in range(iterations):
            started = clock()
            run(prepared)
            seconds.append(clock() - started)
        return {"seconds": seconds, "processor_seconds": time.process_time() - before}

    def arrive(self, gaps: list[float]) -> dict[str, Any]:
        run, prepared, clock = self.engine.run, self.prepared, time.perf_counter
        run(prepared)
        seconds = []
        before, due = time.process_time(), clock()
        for gap in gaps:
            due += gap
            if (early := due - clock()) > 0:
                time.sleep(early)
            run(prepared)
            seconds.append(clock() - due)
        return {"seconds": seconds, "processor_seconds": time.process_time() - before}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        handlers: dict[str, Callable[..., dict[str, Any]]] = {
            "compile": self.compile,
            "load": self.load,
            "outputs": self.outputs,
            "time": self.time,
            "arrive": self.arrive,
        }
        try:
            return handlers[request.pop("do")](**request)
        except Skip as skip:
            return {"skipped": str(skip)}
        except Exception as error:  # whatever an engine raises is a result of the comparison
            return {"error": f"{type(error).__name__}: {error}"}


def main() -> int:
    name, cpus = sys.argv[1], [int(cpu) for cpu in sys.argv[2].split(",")]
    os.sched_setaffinity(0, cpus)
    sys.path.pop(0)  # this folder: engines must not import a sibling by mistake
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what engines print must not mix with the answers
    server = Server(ENGINES[name](len(cpus)))
    for line in sys.stdin:
        answers.write(json.dumps(server.answer(json.loads(line))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
