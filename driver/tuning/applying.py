"""Records in a compilation: which choices it takes from them, and what it tells of that."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...compiler.artifact import Code
from ...compiler.backend import AnyBackend, Tuning
from ...compiler.compilation import Stages
from ...compiler.errors import UsageError
from ...compiler.ir.copying import copied
from ...compiler.kernel.cost.machine import Machine
from ...compiler.object_digest import object_digest
from ...compiler.tuning.exchange_checks import is_exported, read_tree
from ...compiler.tuning.lookup import (
    Improvement,
    RecordsSource,
    TreeSource,
    Usable,
    VerdictSource,
    look_up,
    short_key,
)
from ...compiler.tuning.merging import judged_anew, merged
from ...compiler.tuning.records import Records
from ...compiler.tuning.task import MachineClass, Tunable
from ...compiler.tuning.whole_model import Alternative, Decided, choices_in, decide, set_hash
from ..integer_ranges import with_ranges
from ..manifest import sha256_of
from ..model_build import ModelBuild, PreparedGraph
from ..request import SHIPPED, CompileRequest


@dataclass(frozen=True)
class AppliedRecords:
    """What a compilation takes from records. untimed: its choices were not timed together. oracle:
    what ranked them, where nothing was timed at all.

    without_graph: what it takes where choices about the whole graph do not hold.
    """

    lookup: Usable
    decided: Decided
    untimed: bool = False
    oracle: str = ""
    without_graph: AppliedRecords | None = None

    @property
    def choices(self) -> Mapping[str, Mapping[str, Any]]:
        """By the key under which a compilation looks them up."""
        return choices_in(self.decided.chosen)

    def why_stale(self, code: Code) -> str:
        """Why the choices about the whole graph do not hold; "" where they do, or there are none.

        code: of the binary with all choices. Other code is another binary than the one timed.
        """
        names = [own.name for own in self.decided.chosen if own.in_graph]
        outcome = self.decided.outcome
        if not names or outcome is None or outcome.get("machine_code") == machine_code(code):
            return ""
        return f"{', '.join(names)}: the machine code of the binary is not what was timed"

    def held(self, request: CompileRequest, why: str) -> AppliedRecords:
        """What is taken without choices about the whole graph, which do not hold.

        Raises UsageError where the request has `no_stale`.
        """
        other = self.without_graph
        assert other is not None
        stale = [*self.lookup.stale, why]
        _refuse(request, stale)
        return replace(other, lookup=replace(self.lookup, stale=stale))

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for everything that is not used, and why."""
        found = [f"stale: {line}" for line in self.lookup.stale]
        for names, why in (
            (
                self.lookup.elsewhere,
                "other machines, or of another way to measure: only `tensmith tune` looks at them",
            ),
            (self.lookup.inexact, "another order of sums: --allow-reordering takes them"),
        ):
            if names:
                found.append(f"records of {len(names)} kernel(s) are of {why}")
        if self.untimed and self.decided.chosen:
            found.append(
                f"the choices of {len(self.decided.chosen)} kernel(s) were confirmed one by one, "
                "and not timed together in this model: `tensmith tune` does that"
            )
        if self.oracle and self.decided.chosen:
            count = len(self.decided.chosen)
            found.append(f"nothing was measured: {self.oracle} has ranked {count} choice(s)")
        return tuple(found)

    def in_manifest(self) -> dict[str, Any]:
        """Entries of a manifest: equal for equal records."""
        chosen = {own.key for own in self.decided.chosen}
        every = sorted(self.lookup.improvements, key=lambda own: own.task.key)
        outcome = self.decided.outcome
        timed = {
            "session": short_key(outcome["session"]) if outcome else None,
            "ratio": outcome["ratio"] if outcome else None,
            "interval": [outcome["low"], outcome["high"]] if outcome else None,
            "noise": outcome["noise"] if outcome else None,
        }
        records = set_hash(self.decided.chosen) if chosen else None
        ranked = {"ranked_by": self.oracle} if self.oracle else {}
        return {
            "tuning_records_sha256": records,
            "tuning": {
                "records": records,
                **ranked,
                **timed,
                "used": [_told(own) for own in every if own.task.key in chosen],
                "graph": [own.name for own in self.decided.chosen if own.in_graph],
                "dropped": [own.task.name for own in every if own.task.key not in chosen],
                "stale": list(self.lookup.stale),
            },
        }


def _told(own: Improvement) -> dict[str, Any]:
    verdict = own.verdict
    interval = [verdict.low, verdict.high]
    return {"kernel": own.task.name, "task": own.task.key, "ratio": verdict.ratio,
            "interval": interval}  # fmt: skip


def looked_up(model: ModelBuild, prepared: PreparedGraph, stages: Stages) -> AppliedRecords:
    """What the records of a request hold for its model.

    Raises UsageError for records that cannot be read, a target that is not tuned or another
    machine's and, with `no_stale`, for verdicts that do not hold any more.
    """
    request, backend = model.request, model.backend
    assert request.records is not None
    tuning = tuning_of(backend)
    machine = MachineClass(request.machine) if request.machine else tuning.machine(model.target)
    with ExitStack() as stack, stages.stage("records"):
        source = _source(Path(request.records), backend, stack)
        tunable = opened(model, prepared, stages)
        digest = sha256_of(model.path)
        lookup = look_up(source, tunable, machine, digest, inexact=request.allow_reordering)
        _refuse(request, lookup.stale)
        told = source.outcomes(digest, model.target.name, machine.name)
        outcomes = outcomes_by_set(told, exact=not request.allow_reordering)
    oracle = tuning.oracle(machine.name)
    by_task = _taken(lookup, outcomes, (), oracle)
    taken = _taken(lookup, outcomes, graph_alternatives_in(outcomes), oracle)
    return replace(taken, without_graph=by_task)


def _refuse(request: CompileRequest, stale: Sequence[str]) -> None:
    if stale and request.no_stale:
        raise UsageError(
            f"verdicts of '{request.records}' are stale:\n  - " + "\n  - ".join(stale),
            remedy="`tensmith tune` measures them anew; leave out --no-stale",
        )


def _taken(
    lookup: Usable,
    outcomes: Mapping[str, Mapping[str, Any]],
    graph: Sequence[Alternative],
    oracle: str,
) -> AppliedRecords:
    alternatives = [alternative(own) for own in lookup.improvements]
    decided = decide(alternatives, outcomes, graph)
    if decided.following is None or decided.over is not None or decided.chosen:
        return AppliedRecords(lookup, replace(decided, following=None, over=None))
    if decided.outcome is not None:  # all of them together are no gain, of fewer nothing is known
        return AppliedRecords(lookup, replace(decided, following=None))
    return untimed_records(lookup, alternatives, oracle)


def untimed_records(
    lookup: Usable, alternatives: Sequence[Alternative], oracle: str
) -> AppliedRecords:
    """All choices, which were not timed together. oracle: what ranked them, or ""."""
    decided = Decided(tuple(alternatives))
    return AppliedRecords(lookup, decided, untimed=not oracle, oracle=oracle)


def alternative(own: Improvement) -> Alternative:
    """An improvement as the stage of whole models has it."""
    choices = {own.task.choice_key: own.verdict.choice}
    return Alternative(own.task.key, own.task.name, own.identity, choices)


def outcomes_by_set(
    outcomes: Sequence[Mapping[str, Any]],
    *,
    exact: bool,
    stale: Container[tuple[str, str | None]] = (),
) -> dict[str, Mapping[str, Any]]:
    """Outcomes that count: of binaries that this version of the compiler makes; the last of each
    set. exact: results have to be those of the untuned binary, bit for bit. stale: sets, each with
    a digest of machine code that its binary does not have any more."""
    made_by, found = code_version(), {}
    for own in outcomes:
        as_strict = own["exact"] == exact or (own["exact"] and not own["problem"])
        old = (own["records"], own.get("machine_code")) in stale
        if own["code"] == made_by and as_strict and not old:
            found[own["records"]] = own
    return found


def graph_alternatives_in(outcomes: Mapping[str, Mapping[str, Any]]) -> list[Alternative]:
    """What the whole graph was tried to do otherwise, in the order of that."""
    found: dict[str, Alternative] = {}
    for outcome in outcomes.values():
        for data in outcome["graph"]:
            own = Alternative.from_json(data)
            found.setdefault(own.identity, own)
    return list(found.values())


def machine_code(code: Code) -> str:
    """A digest of a model's machine code, whatever its name is (`object_digest.py`)."""
    digests = " ".join(object_digest(data) for _, data in code.objects)
    return hashlib.sha256(digests.encode()).hexdigest()


def code_version() -> list[str]:
    """What decides, beside model and options, what is compiled."""
    return [__version__, toolchain()]


def toolchain() -> str:
    """The version of what makes machine code."""
    return f"llvmlite {metadata.version('llvmlite')}"


def tuning_of(backend: AnyBackend) -> Tuning[Any]:
    """How a backend is tuned. Raises UsageError where it is not."""
    if backend.tuning is None:
        raise UsageError(
            f"kernels of the backend '{backend.name}' are not tuned",
            remedy="choose a target that generates code for this machine, such as 'native'",
        )
    return backend.tuning


def opened(
    model: ModelBuild, prepared: PreparedGraph, stages: Stages, machine: Machine | None = None
) -> Tunable:
    """A model that is open for tuning; the prepared graph stays as it is."""
    graph = copied(prepared.graph)
    prepared.precision.rewrite(graph)
    options = replace(prepared.options, dump_after=None, probe=None, texts=frozenset())
    tuning = tuning_of(model.backend)
    if model.backend.integers is not None:
        options = replace(options, work_dir=options.work_dir / "opened")
        options, _ = with_ranges(graph, model.target, model.backend, model.request, options)
        if model.request.has_budget:
            from ..budget.coarse_weights import coarse_weights

            options = coarse_weights(graph, model, options).in_options(options)
    return tuning.open(graph, model.target, options, stages, machine=machine)


def _source(records: Path, backend: AnyBackend, stack: ExitStack) -> VerdictSource:
    if str(records) == SHIPPED and not records.exists():
        return TreeSource(shipped(backend))
    if records.is_file() and is_exported(records):
        return TreeSource(judged_anew(read_tree(records)))
    return RecordsSource(stack.enter_context(Records(records, write=False)))


def shipped(backend: AnyBackend) -> dict[str, Any]:
    """The records that come with a backend: `backends/NAME/tuned/*.json`."""
    folder = Path(__file__).parents[2] / "backends" / backend.name / "tuned"
    return merged([read_tree(path) for path in sorted(folder.glob("*.json"))])
