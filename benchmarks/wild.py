"""A sweep of model files as people have them: exported and rewritten, beside ONNX Runtime.

    python -m benchmarks.wild                          # everything: hours
    python -m benchmarks.wild --only bert swin         # some architectures or pipelines
    python -m benchmarks.wild --kinds tables           # networks or tables
    python -m benchmarks.wild --rewrites optimised qdq # none: only files as exported
    python -m benchmarks.wild --order random           # a part is a sample of all; or backwards

Needs `pip install -e '.[bench,wild]'`. Every file is compiled in a process of its own, run on two
sets of inputs, and compared with ONNX Runtime (without optimisation); then both engines take turns
on the larger set. One line per file, and all figures in `out/wild.json`. Exit status 1 where a file
is wrong or refused.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import logging
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[1] / "out"
TIME_LIMIT = 180  # seconds of CPU of the process of one file; those of its children do not count
PATIENCE = 20  # times as many seconds of the clock, on a machine that others use, too
SLOW_COMPILE, SLOW_RUN = 30.0, 1.1  # seconds; times ONNX Runtime's
Inputs = list[dict[str, np.ndarray]]
Export = Callable[[Path], Inputs]


@dataclass(frozen=True)
class Result:
    """What came of one file. status: right, wrong, refused, crashed, late, or not exported.

    Files that ONNX Runtime does not run are not exported, either. compile_seconds, and ours and
    theirs, those of a call: of CPU. None where it did not come so far. detail: why.
    """

    name: str
    status: str
    detail: str = ""
    compile_seconds: float | None = None
    ours: float | None = None
    theirs: float | None = None

    @property
    def line(self) -> str:
        """One line for people."""
        if self.ours is None or self.theirs is None or self.compile_seconds is None:
            return f"{self.name:44} {self.status:12} {self.detail}"
        marks = [f"compiled in {self.compile_seconds:.1f} s", f"{self.theirs / self.ours:.2f}x"]
        if self.compile_seconds > SLOW_COMPILE:
            marks.append("SLOW TO COMPILE")
        if self.ours > SLOW_RUN * self.theirs:
            marks.append("SLOWER")
        return f"{self.name:44} {self.status:12} {', '.join(marks)} {self.detail}"


def networks() -> Iterator[tuple[str, Export]]:
    """Architectures by both exporters."""
    from . import (
        wild_export,
        wild_joined,
        wild_models,
        wild_more,
        wild_newer,
        wild_plain,
        wild_torch,
    )

    rooms = (wild_models, wild_more, wild_joined, wild_torch, wild_newer, wild_plain)
    for room in rooms:
        for architecture in room.ARCHITECTURES:
            for exporter in wild_export.EXPORTERS:
                yield (
                    f"{architecture.name}.{exporter}",
                    lambda path, a=architecture, e=exporter: wild_export.export(a, e, path),
                )


def tables() -> Iterator[tuple[str, Export]]:
    """Pipelines of scikit-learn."""
    from . import wild_tables

    for name in wild_tables.CASES:
        yield name, lambda path, name=name: wild_tables.export(name, path)


def ordered(cases: list[tuple[str, Export]], order: str) -> list[tuple[str, Export]]:
    """The cases in one of the `ORDERS`; a random one is the same every time."""
    if order == "random":
        return random.Random(0).sample(cases, len(cases))
    return cases[::-1] if order == "backwards" else cases


ORDERS = ("listed", "backwards", "random")
KINDS = {"networks": networks, "tables": tables}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Throws away what this process prints, its libraries in C and C++ included."""
    flush = ctypes.CDLL(None).fflush  # of C's own buffers; None: all
    with contextlib.ExitStack() as undo:
        undo.enter_context(contextlib.redirect_stdout(io.StringIO()))
        undo.enter_context(contextlib.redirect_stderr(io.StringIO()))
        flush(None)
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            undo.callback(os.close, kept)
            undo.callback(os.dup2, kept, descriptor)
        undo.callback(flush, None)
        with open(os.devnull, "w") as nowhere:
            for descriptor in (1, 2):
                os.dup2(nowhere.fileno(), descriptor)
        yield


def _quietly(work: Callable[[], Inputs | None]) -> tuple[Inputs | None, str]:
    """What the work returns, or why it failed; what it prints is thrown away."""
    with silence():
        try:
            return work(), ""
        except Exception as error:  # exporters and tools raise what they like
            return None, f"{type(error).__name__}: {error}"[:160].replace("\n", " ")


def check(name: str, model: Path, inputs: Inputs) -> Result:
    """Compile, run and time one file in a process of its own."""
    samples = model.with_suffix("")
    files = []
    for number, arrays in enumerate(inputs):
        files.append(f"{samples}.{number}.npz")
        np.savez(files[-1], **arrays)
    command = [sys.executable, "-m", "benchmarks.wild_check", str(TIME_LIMIT), str(model), *files]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True,
                              timeout=PATIENCE * TIME_LIMIT, check=False,
                              env=environment)  # fmt: skip
    except subprocess.TimeoutExpired:
        return Result(name, "late", f"not done in {PATIENCE * TIME_LIMIT} s")
    if done.returncode == -signal.SIGXCPU:
        return Result(name, "late", f"not done in {TIME_LIMIT} s of CPU")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        last = done.stderr.strip().splitlines()[-1:]
        return Result(name, "crashed", f"exit status {done.returncode}: {' '.join(last)[:200]}")
    return Result(name, **json.loads(lines[-1]))


def results_of(
    name: str, export: Export, rewrites: Sequence[str], folder: Path
) -> Iterator[Result]:
    """The file as exported, then its rewrites."""
    from .wild_rewrites import rewrite

    model = folder / f"{name}.onnx"
    inputs, why = _quietly(lambda: export(model))
    if inputs is None:
        yield Result(name, "not exported", why)
        return
    yield check(name, model, inputs)
    for kind in rewrites:
        made = folder / f"{name}.{kind}.onnx"
        _, why = _quietly(lambda made=made, kind=kind: rewrite(kind, model, made, inputs))
        label = f"{name}.{kind}"
        yield Result(label, "not exported", why) if why else check(label, made, inputs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; 0 where every file is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="*", default=[], help="names, or parts before the dot")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--rewrites", nargs="*", default=["optimised", "dynamic", "qdq", "half"])
    parser.add_argument("--order", default=ORDERS[0], choices=ORDERS)
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    folder = chosen.out / "wild"
    folder.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for kind in chosen.kinds:
        rewrites = [r for r in chosen.rewrites if r != "none"] if kind == "networks" else []
        for name, export in ordered(list(KINDS[kind]()), chosen.order):
            if chosen.only and not {name, name.rpartition(".")[0]} & set(chosen.only):
                continue
            for result in results_of(name, export, rewrites, folder):
                results.append(result)
                print(result.line, flush=True)
                text = json.dumps([asdict(item) for item in results], indent=1)
                (chosen.out / "wild.json").write_text(text)
    tally = {s: sum(r.status == s for r in results) for s in sorted({r.status for r in results})}
    print(", ".join(f"{count} {status}" for status, count in tally.items()))
    return int(any(r.status not in ("right", "not exported") for r in results))


if __name__ == "__main__":
    sys.exit(main())
