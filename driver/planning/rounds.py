"""Service times of binaries with all cores at work, in rounds in which they take turns."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ...compiler.economics.serving import ServingLayout
from ...compiler.errors import RunError
from ..journal import Journal
from .builds import Build
from .probe_reports import ProbeReport, probe_of

ROUNDS = 5
VISIT_SECONDS = 0.25  # of a binary in a round
LATE_SECONDS = 120.0  # beyond its duration, after which a program is taken to hang


class RunProbe(Protocol):
    """What measures a program: all instances of a layout at once, on rows of a file. cache: bytes
    of one of responses, which all instances share; 0: none."""

    def __call__(
        self, build: Build, layout: ServingLayout, rows: Path, *, seconds: float,
        load: float | None = None, cache: int = 0,
    ) -> ProbeReport: ...  # fmt: skip


def run_probe(
    build: Build,
    layout: ServingLayout,
    rows: Path,
    *,
    seconds: float,
    load: float | None = None,
    cache: int = 0,
) -> ProbeReport:
    """Run the program itself. Raises RunError where it fails or hangs."""
    command = [
        str(build.program), "--measure", "--json", "--input", str(rows), "--duration",
        f"{seconds:g}", "--threads", str(layout.threads), "--instances", str(layout.instances),
        "--batch", str(layout.batch),
    ]  # fmt: skip
    command += [] if load is None else ["--load", f"{load:.9g}"]
    command += ["--cache", str(cache)] if cache else []
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + LATE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{build.variant.name} did not end in time") from None
    if result.returncode:
        raise RunError(f"{build.variant.name}: {result.stderr.strip()}", where="measuring")
    return probe_of(json.loads(result.stdout), build.variant.name)


def measured_rounds(
    builds: Sequence[tuple[Build, ServingLayout]],
    rows: Path,
    journal: Journal,
    probe: RunProbe,
    note: Callable[[str], None],
) -> list[list[ProbeReport]]:
    """The reports of every binary, one of each round. The order turns with the rounds; each report
    is in the journal before the next is made."""
    found: list[list[ProbeReport]] = [[] for _ in builds]
    for number in range(ROUNDS):
        turn = number % len(builds) if builds else 0
        for place in [*range(turn, len(builds)), *range(turn)]:
            build, layout = builds[place]
            key = ("visit", build.variant.name, build.sha256, str(layout), number)
            kept = journal.get(*key)
            if kept is None:
                note(f"round {number + 1} of {ROUNDS}: {build.variant.name}")
                report = probe(build, layout, rows, seconds=VISIT_SECONDS)
                kept = report.to_json()
                journal.put(kept, *key)
            found[place].append(probe_of(kept, build.variant.name))
    return found


def joined(reports: Sequence[ProbeReport]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Service times of all rounds together, to draw from."""
    return np.sort(np.concatenate([report.times for report in reports]))
