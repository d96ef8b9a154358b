"""What compiled programs tell with `--measure --json` (runtime/probe.c): here, or on a machine that
they were copied to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.economics.queue_simulation import Times
from ...compiler.errors import UsageError

SCHEMA = "tensmith-probe/1"
_CLOCK = 0.01  # by which processor time may be told too low
_REMEDY = "give what `PROGRAM --measure --json` printed, of a program that --emit exe made"


@dataclass(frozen=True)
class ProbeReport:
    """processor, cores: of the machine. load: calls per second that came by chance, None where each
    began when the one before was done. quantiles: seconds of calls, evenly spaced, ascending.
    cpu_seconds: of all threads, for a call. stolen: share of the instances' time that the system
    gave to others. joules: of the whole processor, while all calls ran; None: see `no_energy`.
    """

    model: str
    processor: str
    cores: int
    instances: int
    threads: int
    batch: int
    load: float | None
    calls: int
    quantiles: tuple[float, ...]
    p99: float
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    joules: float | None
    no_energy: str

    @property
    def times(self) -> Times:
        """Seconds of calls, to draw from: those in which the program ran.

        Calls take less wall time than processor time together, or others ran in some of them: the
        longest are left out until it is so. On a quiet machine that is none.
        """
        ordered = np.asarray(self.quantiles, np.float64)
        means = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
        kept = int(np.searchsorted(means, self.cpu_seconds * (1 + _CLOCK), side="right"))
        return ordered[: max(1, kept)]

    @property
    def mean(self) -> float:
        """Seconds of a call."""
        return float(np.mean(self.times))

    @property
    def service_p99(self) -> float:
        """Seconds that 99 of 100 calls take at most, without any wait."""
        return float(np.percentile(self.times, 99))

    @property
    def stolen(self) -> float:
        """Of instances of one thread that ran without a pause: what others took of their time."""
        own = self.calls * self.cpu_seconds / (self.wall_seconds * self.instances * self.threads)
        return max(0.0, 1.0 - own)

    def to_json(self) -> dict[str, Any]:
        """What `probe_of` reads."""
        return {
            "schema": SCHEMA, "model": self.model,
            "machine": {"processor": self.processor, "cores": self.cores},
            "instances": self.instances, "threads": self.threads, "batch": self.batch,
            "load": self.load, "calls": self.calls, "wall_seconds": self.wall_seconds,
            "cpu_seconds_per_call": self.cpu_seconds, "peak_bytes": self.peak_bytes,
            "joules": self.joules, "no_energy": self.no_energy,
            "seconds": {"p99": self.p99, "quantiles": list(self.quantiles)},
        }  # fmt: skip


def probe_of(told: Mapping[str, Any], where: str) -> ProbeReport:
    """The report of a JSON object. Raises UsageError for anything else."""
    if told.get("schema") != SCHEMA:
        raise UsageError(
            f"{where} is no measurement of a program",
            why=f"its schema is {told.get('schema')!r}, not '{SCHEMA}'",
            remedy=_REMEDY,
        )
    try:
        quantiles = tuple(float(value) for value in told["seconds"]["quantiles"])
        report = ProbeReport(
            model=str(told["model"]), processor=str(told["machine"]["processor"]),
            cores=int(told["machine"]["cores"]), instances=int(told["instances"]),
            threads=int(told["threads"]), batch=int(told["batch"]),
            load=None if told["load"] is None else float(told["load"]), calls=int(told["calls"]),
            quantiles=quantiles, p99=float(told["seconds"]["p99"]),
            cpu_seconds=float(told["cpu_seconds_per_call"]),
            wall_seconds=float(told["wall_seconds"]), peak_bytes=int(told["peak_bytes"]),
            joules=None if told["joules"] is None else float(told["joules"]),
            no_energy=str(told["no_energy"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{where} is damaged", why=f"{type(error).__name__}: {error}", remedy=_REMEDY
        ) from None
    if not quantiles or min(quantiles) <= 0 or not np.isfinite(quantiles).all() or report.calls < 1:
        raise UsageError(f"{where} holds no times", remedy=_REMEDY)
    return report


def read_probes(paths: Sequence[Path]) -> tuple[ProbeReport, ...]:
    """The reports of files, each with one or several, a line each."""
    found: list[ProbeReport] = []
    for path in paths:
        try:
            data = path.read_bytes()
            text = data.decode(json.detect_encoding(data))
        except FileNotFoundError:
            raise UsageError(f"there is no file '{path}'", remedy=_REMEDY) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"'{path}' cannot be read", why=str(error), remedy=_REMEDY) from None
        for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
            where = f"'{path}', report {number}"
            try:
                told = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{where} is no JSON", why=str(error), remedy=_REMEDY) from None
            found.append(probe_of(told if isinstance(told, dict) else {}, where))
    if paths and not found:
        raise UsageError("the measurements are empty", remedy=_REMEDY)
    return tuple(found)
