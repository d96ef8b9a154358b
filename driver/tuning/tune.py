"""Tuning a model: what is compiled, opened, searched, timed as a whole and written."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import inf
from pathlib import Path
from typing import Any

from ...compiler.backend import AnyBackend
from ...compiler.compilation import Stages
from ...compiler.errors import RunError, TensmithError, UsageError, system_refusals
from ...compiler.kernel.cost.machine import Machine
from ...compiler.target import Target
from ...compiler.tuning.events import Event
from ...compiler.tuning.exchange import damage_told, tree_of
from ...compiler.tuning.history import History, SessionKey
from ...compiler.tuning.jobs import Pool
from ...compiler.tuning.lookup import RecordsSource, TreeSource, look_up, seeds_in
from ...compiler.tuning.records import Records
from ...compiler.tuning.session import Settings, TuningSession
from ...compiler.tuning.shares import Budget
from ...compiler.tuning.summaries import SessionSummary, summary_of
from ...compiler.tuning.task import Task, Tunable
from ...compiler.tuning.whole_model import Alternative, Decided, alternative_in_graph, decide
from ..argument_checks import (
    check_choice,
    check_writable,
    make_work_dir,
    measures_of,
    remove_work_dir,
    require_available,
)
from ..artifacts import Artifact
from ..choosing import compiled
from ..given import ModelLike, model_file
from ..manifest import sha256_of
from ..model_build import ModelBuild, prepare
from ..request import CompileRequest
from .applying import (
    AppliedRecords,
    alternative,
    machine_code,
    opened,
    outcomes_by_set,
    shipped,
    toolchain,
    tuning_of,
    untimed_records,
)
from .places import records_refusals, records_to_write
from .stage import WholeModelStage
from .workers import LOCAL, pool_of

USUAL_SECONDS = 600.0  # of a session, where no budget is given
KERNELS_SHARE = 0.8  # of a time budget; the rest is for whole binaries
_NAMED = 8  # kernels, in a message
OBJECTIVES = ("latency",)


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What tuning is told besides what a compilation is.

    records: the file; None: the user's own. trials, seconds: the budget of the session in all,
    however often it is continued; None: no limit, or `USUAL_SECONDS` where neither is given.
    kernels: a pattern for names of kernels, as file names have them. workers: what measures
    (`workers.py`); machine: of which class, where there are several.
    """

    records: Path | None = None
    trials: int | None = None
    seconds: float | None = None
    kernels: str = "*"
    seed: int = 0
    workers: str = LOCAL
    machine: str = ""
    objective: str = "latency"

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, OBJECTIVES)
        numbers = (
            ("number of trials", self.trials, int), ("seed", self.seed, int),
            ("time budget", self.seconds, (int, float)),
        )  # fmt: skip
        for name, value, kind in numbers:
            if value is None and name != "seed":
                continue
            if not isinstance(value, kind) or isinstance(value, bool) or not value >= 0:
                raise UsageError(f"{value!r} is no {name}", remedy="give a number, 0 or greater")
        for name, text in (
            ("kernels", self.kernels), ("workers", self.workers), ("machine", self.machine)
        ):  # fmt: skip
            if not isinstance(text, str):
                raise UsageError(f"{text!r} is no text", where=name)

    @property
    def budget(self) -> Budget:
        """Of the search; what whole binaries need is taken off."""
        seconds = self.seconds
        if self.trials is None and seconds is None:
            seconds = USUAL_SECONDS
        limit = inf if seconds is None else KERNELS_SHARE * seconds
        return Budget(inf if self.trials is None else self.trials, limit)


class TuneWatch:
    """Who watches; does nothing by itself."""

    def opened(self, session: TuningSession, trials: int) -> None:
        """A session is about to run. trials: that it has done before."""

    def told(self, event: Event) -> None:
        """Something happened."""

    def stopped(self) -> bool:
        """Whether to end as soon as that can be done well."""
        return False


@dataclass(frozen=True)
class TuneResult:
    """What tuning came to. artifact: the tuned binary where that is faster as a whole, or the
    untuned one. outcome: of the whole binary that decided, or None. stopped: before the budget was
    used. trials_before: of earlier runs of the session. failure: what ended it early, or None."""

    artifact: Artifact
    session: SessionSummary
    records: Path
    outcome: Mapping[str, Any] | None
    chosen: tuple[str, ...]
    stopped: bool
    trials_before: int
    failure: Exception | None = None
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "files": {str(path): path.stat().st_size for path in self.files},
            "records": str(self.records), "outcome": self.outcome, "chosen": list(self.chosen),
            "stopped": self.stopped, "trials_before": self.trials_before,
            "failure": None if self.failure is None else str(self.failure),
            "notes": list(self.notes), "session": self.session.to_json(),
            "manifest": self.artifact.manifest,
        }  # fmt: skip


def tune_request(
    model: ModelLike,
    request: CompileRequest,
    options: TuneOptions,
    watch: TuneWatch,
    output: Path | None = None,
    emit: str | None = None,
    check: Callable[[Artifact], None] = lambda artifact: None,
) -> TuneResult:
    """Tune a model as a request compiles it, and write the binary.

    check: called with what is to be written, unless it was stopped.

    Raises what `api.compile` raises, UsageError for a target that is not tuned or another
    machine's, or records that another program writes.
    """
    if output is not None:
        check_writable(output)
    backend, target = request.resolve()
    require_available(backend)
    tuning_of(backend)
    path = records_to_write(options.records)
    own = make_work_dir(request.work_dir)
    try:
        with system_refusals("cannot write the files of tuning"), ExitStack() as stack:
            pool = pool_of(options.workers, backend, target, watch.told, options.machine)
            stack.callback(pool.close)
            records = stack.enter_context(Records(path))
            file = model_file(model, request.folder, own)
            result = _Run(
                file, request, options, watch, backend, target, pool, own, records
            ).result()
            if not result.stopped:
                check(result.artifact)
            result = replace(result, stopped=result.stopped or watch.stopped())
            files = result.artifact.save(output, emit) if output is not None else []
    except BaseException:
        remove_work_dir(own)
        raise
    weakref.finalize(result.artifact, remove_work_dir, own)
    return replace(result, files=tuple(files))


class _Run:
    """One call of `tune_request`."""

    def __init__(
        self,
        path: Path,
        request: CompileRequest,
        options: TuneOptions,
        watch: TuneWatch,
        backend: AnyBackend,
        target: Target,
        pool: Pool,
        folder: Path,
        records: Records,
    ) -> None:
        self.options, self.watch, self.folder = options, watch, folder
        self.backend, self.target = backend, target
        self.pool, self.machine = pool, pool.machine
        self.records, self.source = records, RecordsSource(records)
        self.shipped = TreeSource(shipped(backend))
        self.stages = Stages(progress=request.progress)
        self.untuned = compiled(path, request, backend, target, self._new_folder("untuned"))
        assert self.untuned.build is not None
        self.model: ModelBuild = self.untuned.build
        self.request = request
        self.digest = sha256_of(self.model.path)
        self.failure: Exception | None = None

    def _new_folder(self, name: str) -> Path:
        """A folder of its own: what failed half-way may have left one of the same name."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def result(self) -> TuneResult:
        """Search, time what was found as a whole, and take what is faster."""
        prepared = prepare(self.model, self._new_folder("graph"), self.stages)
        tunable = opened(self.model, prepared, self.stages, self._predicting())
        check_pattern(self.options.kernels, [task.name for task in tunable.tasks])
        with damage_told(self.records.path), records_refusals(self.records.path):
            history = History(self.records, self._key(), toolchain())
        before = sum(past.trials for past in history.tasks)
        session = TuningSession(history, tunable, self.pool, self._settings(), self.watch.told)
        self.watch.opened(session, before)
        try:
            with records_refusals(self.records.path):
                session.run()
        except (OSError, TensmithError) as error:
            self.failure = error
        applied, artifact = self._whole(session, tunable)
        tree = tree_of(self.records)
        return TuneResult(
            artifact, summary_of(tree, history.key.text), self.records.path,
            applied.decided.outcome, tuple(own.name for own in applied.decided.chosen),
            session.stops > 0 or self.watch.stopped(), before, self.failure,
            notes=(*self.untuned.notes, *applied.notes),
        )  # fmt: skip

    def _is_here(self) -> bool:
        """Whether binaries run on this machine, and it is of the class that is tuned for."""
        if self.backend.runs_here(self.target):
            return False
        return tuning_of(self.backend).machine(self.target).name == self.machine.name

    def _predicting(self) -> Machine | None:
        """What times are predicted by: this machine, where it is the one that is tuned for, and the
        backend measures what it can do."""
        known = self.backend.measures is not None and self._is_here()
        return measures_of(self.backend).machine(self.target) if known else None

    def _key(self) -> SessionKey:
        request, options = self.model.request, self.options
        told = {
            "precision": self.untuned.manifest["precision"],
            "opt_level": request.opt_level,
            "threads": request.threads,
            "shapes": {name: list(dims) for name, dims in request.shapes.items()},
            "choices": sha256_of(request.choices) if request.choices else "",
            "allow_reordering": request.allow_reordering,
            "kernels": options.kernels,
            "objective": options.objective,
        }
        name = self.model.given.stem
        return SessionKey(self.digest, name, self.target.name, self.machine, told, options.seed)

    def _settings(self) -> Settings:
        def skip(task: Task) -> str:
            pattern = self.options.kernels
            return "" if fnmatchcase(task.name, pattern) else f"its name is not '{pattern}'"

        def seeds(task: Task) -> list[Mapping[str, Any]]:
            return [*seeds_in(self.source, task), *seeds_in(self.shipped, task)]

        return Settings(
            self.options.budget, self.options.seed, self.request.allow_reordering, seeds, skip
        )

    # ------------------------------------------------------------------ whole binaries

    def _whole(self, session: TuningSession, tunable: Tunable) -> tuple[AppliedRecords, Artifact]:
        """What of the verdicts is taken, and the binary with that."""
        inexact = self.request.allow_reordering
        usable = look_up(self.source, tunable, self.machine, self.digest, inexact=inexact)
        alternatives = [alternative(own) for own in usable.improvements]
        stage = WholeModelStage(session, self.untuned, self.request, self._new_folder, self.watch)
        if not self._is_here():
            oracle = tuning_of(self.backend).oracle(self.machine.name)
            applied = untimed_records(usable, alternatives, oracle)
            return applied, self._told(stage, applied)
        graph = [
            alternative_in_graph(own, self.machine.name)
            for own in tunable.graph_alternatives()
            if own.exact or inexact
        ]
        decided = self._decided(alternatives, graph, stage)
        while decided.following is not None and not self._ends(session):
            if decided.over is not None and self._is_spent(session):
                break
            if not self._time(stage, decided):
                break
            decided = self._decided(alternatives, graph, stage)
        # of a set that was not timed nothing is known: it is not taken
        applied = AppliedRecords(usable, replace(decided, following=None))
        return applied, self._told(stage, applied)

    def _time(self, stage: WholeModelStage, decided: Decided) -> bool:
        """Time what is to be timed next; whether that is written down."""
        assert decided.following is not None
        exact = not self.request.allow_reordering
        try:
            with records_refusals(self.records.path):
                return stage.time(decided.following, exact=exact, over=decided.over) is not None
        except UsageError as error:
            self.failure = error
            return False

    def _told(self, stage: WholeModelStage, applied: AppliedRecords) -> Artifact:
        chosen = applied.decided.chosen
        artifact = stage.binary(chosen) if chosen else self.untuned
        artifact.manifest |= applied.in_manifest()
        return artifact

    def _is_spent(self, session: TuningSession) -> bool:
        """Whether the budget is used; what tasks have found is timed in any case."""
        whole = sum(float(own.result["seconds"]) for own in session.history.outcomes)
        return session.spent + whole >= self.options.budget.seconds / KERNELS_SHARE

    def _ends(self, session: TuningSession) -> bool:
        return session.stops > 0 or self.watch.stopped() or self.failure is not None

    def _decided(
        self, alternatives: list[Alternative], graph: list[Alternative], stage: WholeModelStage
    ) -> Decided:
        """What outcomes say; those of binaries that have other machine code now do not count."""
        outcomes = self.source.outcomes(self.digest, self.target.name, self.machine.name)
        exact = not self.request.allow_reordering
        stale: set[tuple[str, str | None]] = set()
        while True:
            decided = decide(
                alternatives, outcomes_by_set(outcomes, exact=exact, stale=stale), graph
            )
            outcome = decided.outcome
            is_whole = any(own.in_graph for own in decided.chosen)
            if outcome is None or not is_whole:
                return decided
            measured = outcome.get("machine_code")
            if measured == machine_code(stage.binary(decided.chosen).code):
                return decided
            stale.add((outcome["records"], measured))


def check_pattern(pattern: str, names: Sequence[str]) -> None:
    """Raise UsageError where a pattern is the name of none of these kernels."""
    if names and not any(fnmatchcase(name, pattern) for name in names):
        some = sorted(set(names))
        more = f" and {len(some) - _NAMED} more" if len(some) > _NAMED else ""
        raise UsageError(
            f"no kernel's name is '{pattern}'", why=f"there are {', '.join(some[:_NAMED])}{more}",
            remedy="a part of a name needs stars: --kernels '*conv*'",
        )  # fmt: skip


def error_of(result: TuneResult) -> TensmithError | None:
    """What a result that was written all the same is to be called an error for."""
    if isinstance(result.failure, TensmithError):
        return result.failure
    if result.failure is not None:
        return RunError(
            f"measuring ended early: {result.failure}",
            remedy="the same command goes on; the binary has what was confirmed before",
        )
    budget = result.artifact.budget
    return budget.error() if budget else None
