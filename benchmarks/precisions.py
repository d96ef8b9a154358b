"""Models in lower precisions, as `tensmith.compile` gives them, timed in turns with f32.

    python -m benchmarks.precisions --models resnet18,vit-small
    python -m benchmarks.precisions --models kws,mnist --builds bf16,int8,auto --json out.json

A precision that is asked for is kept where it is faster on this machine; else the binary is one of
f32. Which of the two each is, and what the compiler measured before it chose, is told beside times
that are taken anew. What was kept and takes longer than f32 is named; the exit code is 1 then.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import tensmith
from tensmith.compiler.errors import ModelWarning, TensmithError
from tensmith.compiler.tuning.statistics import interval

from .cases import Case, exported_zoo, find_cases
from .process import one_cpu_per_core
from .provenance import machine, revision

FP32 = "fp32"
DYNAMIC = "int8-dynamic"  # int8 without data to calibrate with
BUILDS = ("bf16", "fp16", "int8", DYNAMIC, "int8-weights", "auto")
CALIBRATED = ("int8", "auto")  # with the inputs of the model, the first of which are timed
DEFAULT_BUILDS = f"bf16,{DYNAMIC}"
SECONDS, ROUND_SECONDS = 5.0, 0.05  # of all rounds of a model; of a build in a round, at least
FEWEST_ROUNDS, MOST_ROUNDS = 5, 25
log = Console(stderr=True, width=140)

Feed = dict[str, np.ndarray]
Times = Mapping[str, list[float]]  # seconds of a call, the median of every round, by build


@dataclass(frozen=True)
class PrecisionBuild:
    """A model that was asked for in a precision.

    kept: the precision of the binary, and why it is another (`reason`); "" where there is none,
    which `refused` tells the reason of. predicted: the time of what was asked for, as a share of
    f32's, as the compiler measured it; None: it did not. compiling: seconds that it took. seconds:
    of a call; ratio: to f32's in the same round, the median, and its interval at 95 %.
    """

    model: str
    build: str
    kept: str = ""
    reason: str = ""
    refused: str = ""
    predicted: float | None = None
    compiling: float = 0.0
    seconds: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def is_slower(self) -> bool:
        """Whether a lower precision was kept that surely takes longer than f32."""
        return self.kept not in ("", FP32) and self.low is not None and self.low > 1.0


def feeds(case: Case) -> list[Feed]:
    """The input sets of a case; of inputs that stack the steps of a sequence the first step."""
    found = []
    for path, per_step in zip(case.inputs, case.per_step, strict=True):
        with np.load(path) as arrays:
            loaded = {name: arrays[name] for name in arrays.files}
        found.append({n: a[0] if n in per_step else a for n, a in loaded.items()})
    return found


def compiled(
    case: Case, build: str, threads: int, folder: Path
) -> tuple[PrecisionBuild, Path | None]:
    """Compile a model as a user would, and what came of it; the binary, if there is one."""
    begun = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)
            artifact = tensmith.compile(
                case.model,
                precision="int8" if build == DYNAMIC else build,
                calibration=feeds(case) if build in CALIBRATED else None,
                threads=threads,
            )
        binary = folder / f"{build}.so"
        artifact.save(binary)
    except TensmithError as error:
        return PrecisionBuild(case.name, build, refused=error.what), None
    seconds = time.perf_counter() - begun
    choice = artifact.choice
    if choice is None:
        return PrecisionBuild(case.name, build, FP32, compiling=seconds), binary
    timed = choice.seconds
    asked = choice.kept if choice.kept != FP32 else choice.asked
    predicted = timed[asked] / timed[FP32] if asked in timed else None
    told = PrecisionBuild(
        case.name, build, choice.kept, choice.reason, predicted=predicted, compiling=seconds
    )
    return told, binary


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """This process on as many cores as there are threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, one_cpu_per_core(threads))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def timed(
    runs: Mapping[str, Callable[[], object]], threads: int, seconds: float = SECONDS
) -> dict[str, list[float]]:
    """Seconds of a call by name, the median of every round: in each all are called, in an order
    that turns. Of one thread they are processor time. seconds: of all rounds, about."""
    clock = time.process_time if threads == 1 else time.perf_counter
    once = {name: median(_series(run, 2, clock)) for name, run in runs.items()}
    calls = {name: max(1, round(ROUND_SECONDS / one)) for name, one in once.items()}
    whole = sum((calls[name] + 1) * one for name, one in once.items())
    rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, round(seconds / whole)))
    found: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for _ in range(rounds):
        for name in order:
            found[name].append(median(_series(runs[name], calls[name], clock)))
        order = order[1:] + order[:1]
    return found


def _series(run: Callable[[], object], calls: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of so many calls, behind one that is not counted."""
    run()
    found = []
    for _ in range(calls):
        begun = clock()
        run()
        found.append(clock() - begun)
    return found


def with_times(builds: list[PrecisionBuild], times: Times) -> list[PrecisionBuild]:
    """Builds with what a call of theirs takes, those that were timed."""
    found = []
    for row in builds:
        if row.build in times:
            ratios = [a / b for a, b in zip(times[row.build], times[FP32], strict=True)]
            low, high = interval(ratios)
            seconds = median(times[row.build])
            row = replace(row, seconds=seconds, ratio=median(ratios), low=low, high=high)
        found.append(row)
    return found


def measured(case: Case, names: Sequence[str], threads: int) -> list[PrecisionBuild]:
    """One model in f32, and in what else is asked for."""
    with tempfile.TemporaryDirectory(prefix="bench-precisions-") as scratch:
        builds: list[PrecisionBuild] = []
        binaries: dict[str, Path] = {}
        for name in (FP32, *names):
            told, binary = compiled(case, name, threads, Path(scratch))
            builds.append(told)
            if binary is not None:
                binaries[name] = binary
        if FP32 not in binaries:
            return builds
        feed = feeds(case)[0]
        with pinned(threads):
            modules = {name: tensmith.load(path, threads) for name, path in binaries.items()}
            runs = {name: partial(module, feed) for name, module in modules.items()}
            return with_times(builds, timed(runs, threads))


def table(rows: list[PrecisionBuild]) -> Table:
    """For people."""
    found = Table(box=None, pad_edge=False)
    for title in ("model", "asked for", "kept"):
        found.add_column(title, no_wrap=True)
    for title in ("ms", "of fp32", "95 %", "as compiled", "compiled in s"):
        found.add_column(title, justify="right", no_wrap=True)
    found.add_column("")
    for row in rows:
        told = "slower" if row.is_slower else row.refused or row.reason
        if row.seconds is None or row.ratio is None:
            found.add_row(row.model, row.build, row.kept or "none", "", "", "", "", "", told)
            continue
        predicted = "" if row.predicted is None else f"{row.predicted:.3f}"
        found.add_row(
            row.model, row.build, row.kept, f"{row.seconds * 1e3:.4g}", f"{row.ratio:.3f}",
            f"{row.low:.3f} .. {row.high:.3f}", predicted, f"{row.compiling:.1f}", told,
        )  # fmt: skip
    return found


def main(
    models: Annotated[
        str, typer.Option(help="Zoo names, folders, .onnx files, with commas; default: the zoo.")
    ] = "",
    builds: Annotated[str, typer.Option(help="Of " + ", ".join(BUILDS))] = DEFAULT_BUILDS,
    threads: Annotated[int, typer.Option(min=1, help="Of every binary.")] = 1,
    output: Annotated[Path | None, typer.Option("--json", help="File for the results.")] = None,
) -> None:
    """Compile models in every precision, and say whether any that was kept is slower than f32."""
    names = [name for name in builds.split(",") if name]
    if unknown := [name for name in names if name not in BUILDS]:
        raise typer.BadParameter(f"unknown builds {unknown}; known: {', '.join(BUILDS)}")
    rows: list[PrecisionBuild] = []
    with tempfile.TemporaryDirectory(prefix="bench-inputs-") as scratch:
        try:
            cases = find_cases(
                [name for name in models.split(",") if name] or exported_zoo(), Path(scratch)
            )
        except FileNotFoundError as error:
            raise typer.BadParameter(str(error)) from error
        for case in cases:
            rows += (own := measured(case, names, threads))
            log.print(table(own))
            if output is not None:
                told = {"machine": machine(), "revision": revision(), "threads": threads}
                told["builds"] = [asdict(row) for row in rows]
                output.write_text(json.dumps(told, indent=1) + "\n")
    Console(width=140).print(table(rows))
    slower = [f"{row.model} in {row.kept} ({row.ratio:.3f})" for row in rows if row.is_slower]
    print(f"{len(cases)} models; slower than in fp32: {', '.join(slower) or 'none'}")
    raise typer.Exit(int(bool(slower)))


if __name__ == "__main__":
    typer.run(main)
