"""Joules of an inference: by counters where this machine has some, else why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...compiler.economics.estimate import Estimate, Provenance
from ...compiler.economics.serving import ServingLayout
from ..journal import Journal
from .builds import Build
from .energy_readers import (
    WORK_SECONDS,
    EnergyCounter,
    EnergyReading,
    Sleep,
    Unreadable,
    counters,
    measured_energy,
)
from .plan_request import PlanRequest
from .points import PlanPoint
from .rounds import RunProbe

FindCounters = Callable[[], tuple[list[EnergyCounter], list[Unreadable]]]
_FIELDS = ("gross", "net", "idle")


@dataclass(frozen=True)
class EnergyMeter:
    """Measures programs by the most direct counter of this machine. find: looks for counters."""

    probe: RunProbe
    journal: Journal
    request: PlanRequest
    find: FindCounters = counters
    clock: Callable[[], float] = time.monotonic
    sleep: Sleep = time.sleep

    def reading(
        self, build: Build, layout: ServingLayout, rows: Path, machine: str
    ) -> EnergyReading | None:
        """Idle, calls on all cores, idle again; of an inference. None where nothing counts."""
        found, _ = self.find()
        if not found:
            return None
        key = ("energy", build.variant.name, build.sha256, str(layout), found[0].source)
        kept = self.journal.get(*key)
        if kept is None:
            self.request.note(f"measuring the energy of {build.variant.name}")

            def work() -> int:
                return self.probe(build, layout, rows, seconds=WORK_SECONDS).calls * layout.batch

            told = measured_energy(
                found[0], work, machine, self.request.today.isoformat(), clock=self.clock,
                sleep=self.sleep,
            )  # fmt: skip
            kept = {name: getattr(told, name).to_json() for name in _FIELDS}
            kept["calls"] = told.calls
            self.journal.put(kept, *key)
        parts = [Estimate.from_json(kept[name]) for name in _FIELDS]
        return EnergyReading(parts[0], parts[1], parts[2], int(kept["calls"]))

    def reasons(self) -> list[str]:
        """Why energy is modelled, and what would help; none where it is measured."""
        found, unreadable = self.find()
        return [] if found else [f"energy is modelled; {own}" for own in unreadable]


def ranking_note(request: PlanRequest, points: Sequence[PlanPoint]) -> str:
    """What a user has to know of an order of points by energy or carbon; "" where nothing."""
    objective = request.objective
    if objective not in ("energy", "carbon"):
        return ""
    found = [own.carbon if objective == "carbon" else own.energy for own in points]
    kinds = sorted({str(own.kind) for own in found if own is not None})
    notes = []
    places = {own.offer.region or own.offer.label for own in points if own.carbon is None}
    if objective == "carbon" and places:
        notes.append(f"no carbon is known of {', '.join(sorted(places))}: machines there rank last")
    if kinds == [str(Provenance.MODELLED)]:
        notes.append(
            f"ranked by {objective} that is modelled (time x power, +-50 %): differences within "
            "that say nothing"
        )
    elif len(kinds) > 1:
        notes.append(f"ranked by {objective} of different kinds: {' beside '.join(kinds)}")
    return "; ".join(notes)
