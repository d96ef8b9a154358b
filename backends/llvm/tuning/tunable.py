"""A model opened for tuning on a CPU: tasks, candidates, and batches of machine code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....compiler.compilation import CompileOptions, Stages
from ....compiler.errors import InternalError, ScheduleError
from ....compiler.ir.copying import copied
from ....compiler.ir.graph import Graph
from ....compiler.kernel.cost.machine import Machine, assumed_machine
from ....compiler.kernel.forms.other_forms import other_forms
from ....compiler.kernel.plan.control_steps import CONTROL
from ....compiler.kernel.plan.plan import PlannedKernel
from ....compiler.kernel.schedule.choices import Choices
from ....compiler.kernel.schedule.chooser import CpuChooser
from ....compiler.object_digest import object_digest
from ....compiler.scratch import temporary_folder
from ....compiler.target import CpuTarget
from ....compiler.tuning.task import Batch, Built, Candidate, GraphAlternative, Task
from ...common.zig import run_zig
from ..pipeline import form_groups, fuse_groups
from .batch import BatchFiles, Compiled, symbol
from .groups import FormedGroup, RecordingPlanner, groups_of, in_other_form
from .objects import kernel_object
from .segments import alternatives
from .tuned_work import Work, works_of
from .ways import Ways, worth_measuring

_KEPT = 256  # compiled candidates that are not compiled again


def open_cpu(
    graph: Graph,
    target: CpuTarget,
    options: CompileOptions,
    stages: Stages,
    *,
    machine: Machine | None = None,
) -> CpuTunable:
    """Open a graph for tuning; it is rewritten in place, and has to keep its constants.

    machine: of which times are predicted; a typical one of the target where there is none, of whose
    roof tasks have no share.
    Raises ScheduleError for given choices that no kernel can have.
    """
    return CpuTunable(graph, target, options, stages, machine)


class CpuTunable:
    """A model's kernels on a CPU target."""

    def __init__(
        self,
        graph: Graph,
        target: CpuTarget,
        options: CompileOptions,
        stages: Stages,
        machine: Machine | None,
    ) -> None:
        self.target, self.options = target, options
        self.machine = machine or assumed_machine(target)
        with stages.stage("passes"):
            self._imported = copied(graph)
            fuse_groups(graph, target, options)
            self._fused = graph
            formed = copied(graph)
            form_groups(formed, target, options)
        with stages.stage("kernels"):
            self._chooser = CpuChooser(target, options.opt_level, options.choices)
            planner = RecordingPlanner(formed, self._chooser, CONTROL)
            plan = planner.build()
        self._threads = max(1, options.threads)
        works = works_of(plan, planner.calls, options.sizes, target, machine, self._threads)
        self._works = {work.task.key: work for work in works}
        self._ways: dict[str, Ways] = {}
        self._candidates: dict[str, tuple[Candidate, ...]] = {}
        self._compiled: dict[tuple[str, str], Compiled | str] = {}

    @property
    def tasks(self) -> Sequence[Task]:
        """In the order of a run; kernels whose sizes only a run knows are left out."""
        return [work.task for work in self._works.values()]

    def base(self, task: Task) -> Candidate:
        """What a compilation takes by itself: the first candidate."""
        ways = self._ways_of(task)
        return ways.candidate(ways.base)

    def candidate(self, task: Task, choice: Mapping[str, Any]) -> Candidate:
        """A candidate that a record holds. Raises ScheduleError for a choice that is none."""
        ways = self._ways_of(task)
        return ways.candidate(ways.way(choice))

    def candidates(self, task: Task) -> Sequence[Candidate]:
        """All that are legal, fit the registers, and are not predicted to be far slower than the
        best; the base first, the others in turns of the decisions in which they differ from it."""
        if task.key not in self._candidates:
            ways = self._ways_of(task)
            found = worth_measuring([ways.candidate(way) for way in ways.all()])
            self._candidates[task.key] = tuple(found)
        return self._candidates[task.key]

    def neighbours(self, task: Task, candidate: Candidate) -> Sequence[Candidate]:
        """Those that differ from one by a single decision."""
        ways = self._ways_of(task)
        own = ways.way(candidate.choice)
        found = [ways.candidate(way) for way in ways.neighbours(own)]
        return worth_measuring([self.base(task), *found])[1:]

    def graph_alternatives(self) -> Sequence[GraphAlternative]:
        """What the whole model could do otherwise, that with most to be won first."""
        return alternatives(self._imported, self._fused, self.target, self.options)

    def codes(self, task: Task, candidates: Sequence[Candidate]) -> Sequence[Built]:
        """The digests of candidates' machine code, or why they have none."""
        return [self._built(c, self._compile(task, c)) for c in candidates]

    def build(self, task: Task, candidates: Sequence[Candidate]) -> Batch:
        """Machine code of the candidates, of which the first is the base, and what they work on.

        Raises InternalError where the base cannot be built, or a tool fails.
        """
        begin = time.perf_counter()
        compiled = [self._compile(task, candidate) for candidate in candidates]
        if not compiled or isinstance(compiled[0], str):
            why = str(compiled[0]) if compiled else "there are no candidates"
            raise InternalError(f"the base of '{task.name}' cannot be built", why=why)
        files = BatchFiles(self._works[task.key], self._threads)
        for candidate, made in zip(candidates, compiled, strict=True):
            files.add(candidate, None if isinstance(made, str) else made)
        content = {**files.content(), "code.so": self._link(compiled)}
        built = tuple(self._built(c, made) for c, made in zip(candidates, compiled, strict=True))
        return Batch(task.key, built, content, time.perf_counter() - begin)

    def _built(self, candidate: Candidate, made: Compiled | str) -> Built:
        if isinstance(made, str):
            return Built(candidate.key, error=made)
        return Built(candidate.key, code=made.code)

    def _compile(self, task: Task, candidate: Candidate) -> Compiled | str:
        """A candidate's object, or why it has none."""
        key = (task.key, candidate.key)
        if key not in self._compiled:
            while len(self._compiled) >= _KEPT:
                self._compiled.pop(next(iter(self._compiled)))
            try:
                self._compiled[key] = self._emitted(task, candidate)
            except (ScheduleError, InternalError) as error:
                self._compiled[key] = str(error)
        return self._compiled[key]

    def _emitted(self, task: Task, candidate: Candidate) -> Compiled:
        ways, work = self._ways_of(task), self._works[task.key]
        way = ways.way(candidate.choice)
        made = way.chosen
        general, sizes = ways.with_sizes(way, made.kernel)
        planned = PlannedKernel(symbol(0), general, made.schedule, work.aliased)
        code = kernel_object(planned, sizes, self.target)
        return Compiled(way.group, planned, dict(made.packings), sizes, code, object_digest(code))

    def _link(self, compiled: Sequence[Compiled | str]) -> bytes:
        """A library with the functions of candidates, called by their positions."""
        with temporary_folder("tensmith-batch-", near=self.options.work_dir) as name:
            folder = Path(name)
            names = []
            for position, made in enumerate(compiled):
                if not isinstance(made, str):
                    names.append(f"{position}.o")
                    (folder / names[-1]).write_bytes(made.at(position))
            run_zig(["ld.lld", "-shared", "-Bsymbolic", "-o", "code.so", *names], folder)
            return (folder / "code.so").read_bytes()

    def _ways_of(self, task: Task) -> Ways:
        if task.key not in self._ways:
            work = self._works[task.key]
            self._ways[task.key] = Ways(work, self._forms(work), self._chooser, self.machine)
        return self._ways[task.key]

    def _forms(self, work: Work) -> dict[str, FormedGroup]:
        """A task's group in every form that it can have, its own first.

        Each is that of the graph in which no other group's form changes: what surrounds tensors
        in memory follows from the forms of all who read them. A form is given to a whole group, so
        that a group whose kernels differ keeps its own.
        """
        own, key = work.group, work.task.choice_key
        found = {own.request.form: own}
        group = key.partition("+")[0]
        keys = {other.task.choice_key for other in self._works.values()}
        several = [other for other in keys if other.partition("+")[0] == group]
        if self.options.opt_level < 2 or len(several) > 1:
            return found
        for form in other_forms(work.node, self.target, self._threads):
            given = {**self.options.choices.by_key, key: {"form": str(form or "")}}
            graph = copied(self._fused)
            options = replace(self.options, choices=Choices(given), dump_after=None)
            try:
                form_groups(graph, self.target, options)
            except ScheduleError:
                continue  # beside these neighbours
            node = next(groups_of(graph, key), None)
            if node is not None and node.attrs["form"] == str(form or ""):
                found[node.attrs["form"]] = in_other_form(node, own.request)
        return found
