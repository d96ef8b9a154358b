"""Compiled models called in a process of its own: a crash or a hang is the result of that call."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from compiled import Arrays, Library, Setting

from tensmith.compiler.ir import Graph
from tensmith.runtime.loader import Module, ModuleError, load

SECONDS = 60  # that one call may take on a machine that is busy with other things
Result = dict[str, Any] | Exception


class CallDied(Exception):
    """The process ended, or was ended because it hung, within a call."""


@dataclass(frozen=True)
class Calls:
    """A graph to compile (it is rewritten) and the inputs to call it with, one after the other."""

    graph: Graph
    feeds: Sequence[Arrays]


def call_all(jobs: Mapping[str, Calls], setting: Setting, folder: Path) -> dict[str, list[Result]]:
    """The result of every call by the name of its model; errors where it did not compile."""
    library = Library({name: job.graph for name, job in jobs.items()}, setting, folder)
    names = list(library.models)
    pairs = [(number, feed) for number, name in enumerate(names) for feed in jobs[name].feeds]
    found = iter(_results(library.binary, pairs, folder))
    results: dict[str, list[Result]] = {
        name: [error] * len(jobs[name].feeds) for name, error in library.errors.items()
    }
    results |= {name: [next(found) for _ in jobs[name].feeds] for name in names}
    return {name: results[name] for name in jobs}


def _results(library: Path, calls: Sequence[tuple[int, Arrays]], folder: Path) -> list[Result]:
    """One after the other; behind a call that ends the process a new one goes on."""
    results: list[Result] = []
    while len(results) < len(calls):
        asked, answered = folder / "calls.pickle", folder / "results.pickle"
        asked.write_bytes(pickle.dumps((library, calls[len(results) :])))
        how = _serve(asked, answered)
        with answered.open("rb") as file:
            results += _read_all(file)
        if len(results) < len(calls):
            results.append(CallDied(how))
    return results


def _serve(asked: Path, answered: Path) -> str:
    """Run the child process; how it ended."""
    command = [sys.executable, __file__, str(asked), str(answered)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode == -signal.SIGALRM:
        return f"no answer within {SECONDS} s"
    return f"exit status {done.returncode}: {done.stderr[-300:].strip()}"


def _read_all(file: BinaryIO) -> list[Result]:
    found: list[Result] = []
    while True:
        try:
            found.append(pickle.load(file))
        except EOFError:
            return found


def main(asked: str, answered: str) -> None:
    """The child process: calls in order, each answered before the next begins."""
    library, calls = pickle.loads(Path(asked).read_bytes())
    module: Module | None = None
    loaded = -1
    with Path(answered).open("wb") as file:
        for number, feed in calls:
            if number != loaded:
                os.environ["CHOSEN_MODEL"] = str(number)
                module, loaded = load(library, threads=2), number
            assert module is not None
            signal.alarm(SECONDS)
            try:
                answer: Result = dict(module(dict(feed)))
            except ModuleError as error:
                answer = error
            signal.alarm(0)
            pickle.dump(answer, file)
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
