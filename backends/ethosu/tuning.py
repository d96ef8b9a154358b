"""Tuning of command streams: Vela's estimate of cycles is the oracle, without noise.

A model is one task, its candidates are choices of `arrangement.py`. Vela estimates what the
processor runs, and nothing tells what the host takes: a choice that has more operators on the host
than the base is none, whatever it saves, and neither is one that the memory does not hold; all
others are judged by cycles.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ...compiler.backend import Tuning
from ...compiler.compilation import CompileOptions, Stages
from ...compiler.errors import InternalError, ScheduleError, UsageError
from ...compiler.ir.graph import Graph
from ...compiler.kernel.cost.machine import Machine
from ...compiler.target import NpuTarget
from ...compiler.tuning.task import (
    Batch,
    Built,
    CallTimes,
    Candidate,
    GraphAlternative,
    MachineClass,
    Reading,
    Task,
    Turn,
    digest,
)
from .arrangement import Choice, arranged, choice_key, decisions_of
from .pipeline import integers_of, require_memory
from .placement import Placement
from .vela import core_clock
from .vela_package import installed_version, require_vela

_SECONDS = "seconds.json"  # of a batch: by position


class StreamsTunable:
    """The command streams of a model; see `Tunable`.

    Raises UsageError where the usual ones take more memory than the target says may be used.
    """

    def __init__(
        self, graph: Graph, target: NpuTarget, options: CompileOptions, stages: Stages
    ) -> None:
        self.target = target
        with stages.stage("integers"):
            self._graph = integers_of(graph, target, options)
        with stages.stage("vela"):
            self._decisions = {d.name: d for d in decisions_of(self._graph, target)}
            base = arranged(self._graph, target, {})
            require_memory(base, target)
            self._most_outside = base.outside
            self._placed: dict[str, Placement | str] = {json.dumps({}): base}
        key = choice_key(self._graph, target)
        self.tasks: Sequence[Task] = [
            Task(digest(key), "command streams", key, seconds=self._seconds(base), roof_share=0.5)
        ]

    def base(self, task: Task) -> Candidate:
        """What a compilation decides by itself."""
        return Candidate({})

    def candidate(self, task: Task, choice: Choice) -> Candidate:
        """A candidate that a record holds. Raises ScheduleError for a choice that is none."""
        for name, value in choice.items():
            known = self._decisions.get(name)
            if known is None or value not in known.values:
                raise ScheduleError(f"'{name}' cannot be decided as {value!r}")
        exact = all(self._decisions[name].exact for name in choice)
        return Candidate(dict(sorted(choice.items())), exact, steps=len(choice))

    def candidates(self, task: Task) -> Sequence[Candidate]:
        """The base, and all that differ from it by one decision."""
        return [self.base(task), *self.neighbours(task, self.base(task))]

    def neighbours(self, task: Task, candidate: Candidate) -> Sequence[Candidate]:
        """Those with one decision more, less or otherwise."""
        found = []
        for decision in self._decisions.values():
            others = {k: v for k, v in candidate.choice.items() if k != decision.name}
            if decision.name in candidate.choice:
                found.append(others)
            for value in decision.values:
                if candidate.choice.get(decision.name) != value:
                    found.append({**others, decision.name: value})
        return [self.candidate(task, choice) for choice in found]

    def graph_alternatives(self) -> Sequence[GraphAlternative]:
        """None: a choice is about the whole model."""
        return ()

    def codes(self, task: Task, candidates: Sequence[Candidate]) -> Sequence[Built]:
        """The digests of candidates' command streams, or why they have none."""
        return [self._built(candidate) for candidate in candidates]

    def build(self, task: Task, candidates: Sequence[Candidate]) -> Batch:
        """Command streams of the candidates, of which the first is the base, as far as they are to
        be measured: what they are estimated to take."""
        begin = time.perf_counter()
        built = tuple(self.codes(task, candidates))
        if not built or built[0].error:
            why = built[0].error if built else "there are no candidates"
            raise InternalError(f"the base of '{task.name}' cannot be built", why=why)
        seconds = {}
        for position, candidate in enumerate(candidates):
            placement = self._placement(candidate.choice)
            if not isinstance(placement, str):
                seconds[str(position)] = self._seconds(placement)
        files = {_SECONDS: json.dumps(seconds).encode()}
        return Batch(task.key, built, files, time.perf_counter() - begin)

    def _built(self, candidate: Candidate) -> Built:
        placement = self._placement(candidate.choice)
        if isinstance(placement, str):
            return Built(candidate.key, error=placement)
        code = hashlib.sha256()
        for stream in placement.streams:
            code.update(stream.commands + stream.weights)
        return Built(candidate.key, code=code.hexdigest())

    def _placement(self, choice: Choice) -> Placement | str:
        """The placement by a choice, or why there is none."""
        key = json.dumps(choice, sort_keys=True)
        if key not in self._placed:
            self._placed[key] = self._tried(choice)
        return self._placed[key]

    def _tried(self, choice: Choice) -> Placement | str:
        try:
            placement = arranged(self._graph, self.target, choice)
        except ScheduleError as error:
            return str(error)
        if (more := placement.outside - self._most_outside) > 0:
            return f"{more} more operators would run on the host"
        return placement.excess(self.target) or placement

    def _seconds(self, placement: Placement) -> float:
        """Of the streams, as Vela estimates them."""
        return placement.cycles / core_clock(self.target)


class VelaOracle:
    """Tells what Vela estimates; see `Measurer`."""

    exact = True

    def __init__(self, target: NpuTarget) -> None:
        self._target = target

    @cached_property
    def machine(self) -> MachineClass:
        """The processor with its memory, and the version of Vela that estimates."""
        target, version = self._target, installed_version()
        facts = {"macs": target.macs, "system_config": target.system_config,
                 "memory_mode": target.memory_mode, "vela": version}  # fmt: skip
        name = f"{target.architecture}-{target.macs} {target.system_config} {target.memory_mode}"
        return MachineClass(f"{name}, estimated by Vela {version}", facts)

    def check(self, batch: Batch) -> Mapping[int, str]:
        """Streams are right by construction; what Vela refuses is told."""
        return {n: built.error for n, built in enumerate(batch.built) if built.error}

    def time(self, batch: Batch, turn: Turn) -> Reading:
        """The estimates."""
        seconds: dict[str, Any] = json.loads(batch.files[_SECONDS])
        failures = {n: built.error for n, built in enumerate(batch.built) if built.error}
        samples = [
            CallTimes(position, *(float(seconds[str(position)]),) * 3, count=1)
            for position in turn.order
            if position not in failures
        ]
        return Reading(tuple(samples), 0.0, failures)

    def close(self) -> None:
        """Nothing is held."""


def open_streams(
    graph: Graph,
    target: NpuTarget,
    options: CompileOptions,
    stages: Stages,
    *,
    machine: Machine | None = None,
) -> StreamsTunable:
    """Open a graph for tuning; it is rewritten in place."""
    return StreamsTunable(graph, target, options, stages)


def oracle(target: NpuTarget, worker: str) -> VelaOracle:
    """What estimates; on this machine. Raises UsageError for another, and without Vela."""
    if worker != "local":
        raise UsageError(f"'{worker}' is no worker for '{target.name}'", remedy="--workers local")
    require_vela(f"nothing can be tuned for '{target.name}'")
    return VelaOracle(target)


def machine_of(target: NpuTarget) -> MachineClass:
    """What records are of."""
    return VelaOracle(target).machine


TUNING: Tuning[NpuTarget] = Tuning(
    open=open_streams, measurer=oracle, machine=machine_of, oracle=lambda machine: "Vela"
)
