"""The ways to do a task: which candidates there are, and what becomes of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ....compiler.errors import ScheduleError
from ....compiler.ir.dims import evaluate
from ....compiler.kernel.cost.cost import KernelCost, kernel_cost
from ....compiler.kernel.cost.machine import Machine
from ....compiler.kernel.forms.channel_blocks import BLOCKS as CHANNEL_BLOCKS
from ....compiler.kernel.forms.form import algorithm, parse_form
from ....compiler.kernel.instruction import GENERIC, INSTRUCTIONS
from ....compiler.kernel.kernel import Kernel
from ....compiler.kernel.plan.parameters import parametrised
from ....compiler.kernel.schedule.choice import Choice, StageChoice
from ....compiler.kernel.schedule.chooser import Chosen, CpuChooser, Loops, Request, chosen
from ....compiler.kernel.schedule.partition import is_by_rows
from ....compiler.kernel.schedule.schedule import Schedule
from ....compiler.kernel.schedule.space import (
    differing,
    legal_schedule,
    registers_needed,
    single_steps,
)
from ....compiler.kernel.schedule.sums import sum_order
from ....compiler.target import CpuTarget
from ....compiler.tuning.task import Candidate
from .features import features_of
from .groups import FormedGroup
from .prior import expected
from .tuned_work import Work

MOST = 300  # candidates of a task
WORST = 1.5  # of the best predicted time: more is not measured
# decisions that are tried together with another tile
_BESIDE_TILES = ("order", "prefetch", "panel", "unroll", "blocks")


@dataclass(frozen=True)
class Way:
    """A choice that is legal, with the group and the loops that it is for."""

    group: FormedGroup
    loops: Loops
    choice: Choice
    schedule: Schedule

    @property
    def chosen(self) -> Chosen:
        """The kernel as it is emitted."""
        return chosen(self.loops, self.choice, self.schedule, self.group.request.key)


class Ways:
    """All ways to do one task. forms: its group in every form, its own first."""

    def __init__(
        self, work: Work, forms: Mapping[str, FormedGroup], chooser: CpuChooser, machine: Machine
    ) -> None:
        self.work, self.forms, self.chooser, self.machine = work, forms, chooser, machine
        self._loops: dict[tuple[str, int, str], Loops | None] = {}
        self._symbolic: dict[str, bool] = {}

    @property
    def target(self) -> CpuTarget:
        """What it is compiled for."""
        return self.chooser.target

    @cached_property
    def base(self) -> Way:
        """What a compilation takes by itself."""
        return self._usual(self.work.group)

    @cached_property
    def base_order(self) -> object:
        """In which order the base adds up its sums."""
        return _sums(self.base)

    def candidate(self, way: Way) -> Candidate:
        """A way as a candidate."""
        cost = self._cost(way)
        features = features_of(way.loops.kernel, way.schedule, cost, self.target)
        return Candidate(
            choice=way.choice.to_json(),
            exact=_sums(way) == self.base_order,
            predicted=cost.seconds,
            features=features,
            steps=differing(self.base.choice, way.choice),
            expected=expected(features, self._base_features),
        )

    @cached_property
    def _base_features(self) -> tuple[float, ...]:
        way = self.base
        return features_of(way.loops.kernel, way.schedule, self._cost(way), self.target)

    def _cost(self, way: Way) -> KernelCost:
        """What a call is predicted to take."""
        made = way.chosen
        general, sizes = self.with_sizes(way, made.kernel)
        return kernel_cost(
            general,
            made.schedule,
            self.target,
            self.machine,
            sizes,
            constants=self.work.constants,
            constant_bytes=self.work.constant_bytes,
        )

    def with_sizes(self, way: Way, kernel: Kernel) -> tuple[Kernel, dict[str, int]]:
        """A way's kernel with sizes for parameters, as a plan has it, and their values."""
        if not self._has_symbols(way.group.request):
            return kernel, {}
        general, values = parametrised(kernel)
        numbers = (evaluate(value, self.work.env) for value in values)
        return general, dict(zip(general.symbols, numbers, strict=True))

    def _has_symbols(self, request: Request) -> bool:
        if request.form not in self._symbolic:
            self._symbolic[request.form] = bool(request.kernel.symbols)
        return self._symbolic[request.form]

    def way(self, choice: Mapping[str, Any]) -> Way:
        """The way that a choice as files hold it describes, which names everything.

        Raises ScheduleError for one that is illegal, or no whole choice.
        """
        form = str(choice.get("form", ""))
        if form not in self.forms:
            raise ScheduleError(f"the group '{self.work.task.choice_key}' has no form '{form}'")
        group = self.forms[form]
        loops = self.chooser.loops(group.request, choice)
        blank = Choice(stages=(StageChoice(),) * len(loops.kernel.stages))
        full = blank.with_json(choice)
        schedule = legal_schedule(full, loops.kernel, self.target)
        if schedule is None:
            raise ScheduleError(f"the choice is illegal: {full}")
        return Way(group, loops, full, schedule)

    def all(self) -> list[Way]:
        """The base, then the others in turns of the decisions in which they differ."""
        others = [self._usual(group) for form, group in self.forms.items()]
        others = [way for way in others if way.choice != self.base.choice]
        groups: dict[str, Iterator[Way]] = {"form": iter(others)}
        single = self.steps(self.base, forms=False)
        groups |= single
        for other in others:
            steps = self.steps(other, forms=False)
            groups |= {f"'{other.choice.form}' {name}": found for name, found in steps.items()}
        for name in single:
            if name.endswith("tile"):
                groups |= self._beside_tiles(name)
        return self._pruned([self.base], in_turns(groups))

    def neighbours(self, way: Way) -> list[Way]:
        """The ways that are a single decision away from one."""
        return self._pruned([way], in_turns(self.steps(way)))[1:]

    def steps(self, way: Way, forms: bool = True) -> dict[str, Iterator[Way]]:
        """Legal ways that are a single decision away, by that. forms: whether they count."""
        found = {name: self._legal(way, steps) for name, steps in self._single(way).items()}
        found["loops"] = (other for other in self._other_loops(way) if other.choice != way.choice)
        if forms:
            others = [group for form, group in self.forms.items() if form != way.choice.form]
            found["form"] = map(self._usual, others)
        return found

    def _single(self, way: Way) -> dict[str, Iterator[Choice]]:
        shared = self.work.task.threads > 1
        return single_steps(way.loops.kernel, way.choice, self.target, shared=shared)

    def _legal(self, way: Way, changed: Iterable[Choice]) -> Iterator[Way]:
        """The legal ones among choices for the loops of a way."""
        for choice in changed:
            schedule = legal_schedule(choice, way.loops.kernel, self.target)
            if schedule is not None:
                yield Way(way.group, way.loops, choice, schedule)

    def _beside_tiles(self, name: str) -> dict[str, Iterator[Way]]:
        """Other tiles than the base's together with another decision about the same stage."""
        stage = name.split()[0]
        tiles = [t for t in self.steps(self.base, forms=False)[name] if not self._spills(t)]

        def beside(what: str) -> Iterator[Way]:
            for tile in tiles:
                yield from self._legal(tile, self._single(tile).get(f"{stage} {what}", ()))

        return {f"{name} {what}": beside(what) for what in _BESIDE_TILES}

    def _other_loops(self, way: Way) -> Iterator[Way]:
        """Other blocks of channels, other instructions."""
        own = way.choice
        for size in (0, *CHANNEL_BLOCKS, 16, 128):
            if size != own.channels:
                yield from self._relooped(way, size, own.instruction)
        if own.instruction:
            op = INSTRUCTIONS[own.instruction].op
            names = GENERIC | set(self.target.instructions)
            for item in INSTRUCTIONS.values():
                if item.op == op and item.name in names and item.name != own.instruction:
                    yield from self._relooped(way, own.channels, item.name)

    def _relooped(self, way: Way, channels: int, instruction: str) -> Iterator[Way]:
        """The usual way with these loops, if they are possible."""
        form = way.choice.form
        key = (form, channels, instruction)
        if key not in self._loops:
            data = {"form": form, "channels": channels, "instruction": instruction}
            try:
                self._loops[key] = self.chooser.loops(self.forms[form].request, data)
            except ScheduleError:
                self._loops[key] = None
        loops = self._loops[key]
        if loops is not None:
            yield self._scheduled(way.group, loops)

    def _usual(self, group: FormedGroup) -> Way:
        """What the heuristic, or a choice that was given, makes of a group."""
        data = self.chooser.given.of(group.request.key)
        if data is not None and data.get("form", group.request.form) == group.request.form:
            made = self.chooser(group.request)
            return Way(group, self.chooser.loops(group.request, data), made.choice, made.schedule)
        return self._scheduled(group, self.chooser.loops(group.request))

    def _scheduled(self, group: FormedGroup, loops: Loops) -> Way:
        choice, schedule = self.chooser.usual(loops, group.request.rows_divided)
        return Way(group, loops, choice, schedule)

    def _pruned(self, first: list[Way], others: Iterator[Way]) -> list[Way]:
        """Each choice once, without tiles that do not fit the registers, but for the first."""
        found = {way.choice: way for way in first}
        for way in others:
            if len(found) == MOST:
                break
            if way.choice not in found and not self._spills(way) and self._as_divided(way):
                found[way.choice] = way
        return list(found.values())

    def _as_divided(self, way: Way) -> bool:
        """Whether threads divide rows of the result if they do in the base: it is part of the keys
        of kernels that read it."""
        return is_by_rows(way.loops.kernel, way.schedule) == is_by_rows(
            self.base.loops.kernel, self.base.schedule
        )

    def _spills(self, way: Way) -> bool:
        """Whether a tile does not fit the registers, though the base's does."""
        if way.choice.instruction != self.base.choice.instruction:
            return False
        for number, stage in enumerate(way.loops.kernel.stages):
            needed = registers_needed(stage, way.schedule, number)
            own = way.schedule.stages[number].tile
            wide = -(-own.lanes * 32 // self.target.vector_bits) if own.lanes > 1 else 1
            if needed * max(1, wide) > self.target.vector_registers:
                return True
        return False


def _sums(way: Way) -> tuple[object, ...]:
    """In which order sums are added up."""
    return (algorithm(parse_form(way.choice.form)), sum_order(way.loops.kernel, way.schedule))


def in_turns(groups: Mapping[str, Iterator[Way]]) -> Iterator[Way]:
    """One of each group after the other, until all are at their end."""
    left = list(groups.values())
    while left:
        for group in tuple(left):
            way = next(group, None)
            if way is None:
                left.remove(group)
            else:
                yield way


def worth_measuring(candidates: list[Candidate]) -> list[Candidate]:
    """The first, and those whose predicted time is not far from the best."""
    best = min((c.predicted for c in candidates), default=math.inf)
    return [c for n, c in enumerate(candidates) if not n or c.predicted <= WORST * best]
