"""A model opened for tuning on a GPU: its kernels, the tiles of each, and their code."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ....compiler.compilation import CompileOptions, Stages
from ....compiler.errors import InternalError, UsageError
from ....compiler.ir.graph import Graph
from ....compiler.kernel.cost.machine import Machine
from ....compiler.kernel.kernel import kernel_text
from ....compiler.kernel.plan.devices import all_steps
from ....compiler.kernel.plan.plan import KernelCall, Plan
from ....compiler.kernel.schedule.choice import TileChoice
from ....compiler.kernel.schedule.tiles import Kind, Tiles
from ....compiler.target import GpuTarget
from ....compiler.tuning.task import (
    PROTOCOL,
    Batch,
    Built,
    Candidate,
    GraphAlternative,
    Task,
    digest,
)
from ..candidates import Taken
from ..choosing import busy_programs, can_map, given_tiles
from ..compiling import Image
from ..kernels import GpuKernels, part_kernel, part_with, vet_kernels, with_shape
from ..pipeline import form_kernels
from ..vetting import Part, Vetted, compile_parts
from .launches import LAUNCHES, buffers_of, first_call, launches_of, sizes_of
from .spaces import TileSpace, space_of

SECONDS = "seconds.json"  # of a batch: predicted by what the code takes, by position
FAR = 2.0  # of the base's predicted time, from which on tiles are not tried: assumed, not measured
REGISTER_UNIT = 8  # registers of a thread are given out so many at once
Choice = Mapping[str, Any]


@dataclass(frozen=True)
class GpuWork:
    """A task: one kernel with its tiles. parts: as a compilation makes them; spaces: what each may
    be tuned to. sizes: of the kernel's symbols. buffers: of `buffers_of`."""

    task: Task
    number: int
    parts: tuple[Part, ...]
    spaces: tuple[TileSpace, ...]
    sizes: Mapping[str, int]
    buffers: Sequence[Mapping[str, Any]]

    @property
    def tiles(self) -> tuple[Tiles, ...]:
        """Of every part."""
        return tuple(part[0].tiles for part in self.parts)


def open_gpu(
    graph: Graph,
    target: GpuTarget,
    options: CompileOptions,
    stages: Stages,
    *,
    machine: Machine | None = None,
) -> GpuTunable:
    """Open a graph for tuning; it is rewritten in place, and has to keep its constants.

    Raises UsageError for a target of several architectures, ScheduleError for given choices that
    no kernel can have.
    """
    if len(target.architectures) > 1:
        names = ", ".join(f"cuda:sm_{number}" for number in target.architectures)
        raise UsageError(
            f"a file for several GPUs ('{target.name}') is not tuned as one",
            remedy=f"tune for each of them ({names}), and give what is chosen by --choices",
        )
    return GpuTunable(graph, target, options, stages)


class GpuTunable:
    """The kernels of a model on a GPU, at the usual sizes of its inputs; see `Tunable`."""

    def __init__(
        self, graph: Graph, target: GpuTarget, options: CompileOptions, stages: Stages
    ) -> None:
        self.target = target
        plan, kernels = form_kernels(graph, target, options, stages)
        with stages.stage("gpu code"):
            kernels, _ = vet_kernels(plan, kernels, target, options)
        self.plan = plan
        works = works_of(plan, kernels, target, options.sizes)
        self._works = {work.task.key: work for work in works}
        self._vetted: dict[Part, Vetted] = {}
        self._candidates: dict[str, tuple[Candidate, ...]] = {}

    @property
    def tasks(self) -> Sequence[Task]:
        """In the order of kernels."""
        return [work.task for work in self._works.values()]

    def base(self, task: Task) -> Candidate:
        """What a compilation takes by itself."""
        work = self._works[task.key]
        return self._candidate(work, work.tiles)

    def candidate(self, task: Task, choice: Choice) -> Candidate:
        """A candidate that a record holds. Raises ScheduleError for a choice that is none."""
        work = self._works[task.key]
        kernel = self.plan.kernels[work.number].kernel
        (number,) = self.target.architectures
        tiles = given_tiles(kernel, {number: work.tiles}, choice, self.target)[number]
        return self._candidate(work, tiles)

    def candidates(self, task: Task) -> Sequence[Candidate]:
        """The base, and those whose tiles of one part are others that are not predicted to be far
        slower, in the order of what is predicted."""
        if task.key not in self._candidates:
            work = self._works[task.key]
            base = self._candidate(work, work.tiles)
            found = [
                self._candidate(work, _with(work.tiles, place, tiles))
                for place, space in enumerate(work.spaces)
                for tiles in space.tiles(self.target)
            ]
            near = [one for one in found if one.predicted <= FAR * base.predicted and one.steps]
            near.sort(key=lambda one: one.predicted)
            self._candidates[task.key] = (base, *near)
        return self._candidates[task.key]

    def neighbours(self, task: Task, candidate: Candidate) -> Sequence[Candidate]:
        """Those that differ from one in a single number."""
        return [one for one in self.candidates(task) if _steps(one.choice, candidate.choice) == 1]

    def space(self, task: Task) -> TileSpace:
        """Of the first part of a task."""
        return self._works[task.key].spaces[0]

    def parts(self, task: Task, candidate: Candidate) -> tuple[Part, ...]:
        """The functions of a kernel with a candidate's tiles."""
        work = self._works[task.key]
        chosen = [TileChoice(**data) for data in candidate.choice["tiles"]]
        return tuple(
            part if choice == TileChoice.of(part[0].tiles) else self._part(work, part, choice)
            for part, choice in zip(work.parts, chosen, strict=True)
        )

    def _part(self, work: GpuWork, part: Part, choice: TileChoice) -> Part:
        tiles = choice.applied(part[0].tiles)
        kernel = part_kernel(self.plan, work.number, part, self.target)
        busy = busy_programs(kernel, self.target) if tiles.split > 1 else 1
        return part_with(self.plan, work.number, part, replace(tiles, busy=busy), self.target)

    def graph_alternatives(self) -> Sequence[GraphAlternative]:
        """None: choices are about kernels."""
        return ()

    def codes(self, task: Task, candidates: Sequence[Candidate]) -> Sequence[Built]:
        """The digests of candidates' code, or why they have none that passes."""
        work = self._works[task.key]
        parts = [self.parts(task, candidate) for candidate in candidates]
        self._compile([part for own in (work.parts, *parts) for part in own])
        most = max(self._vetted[part].excess for part in work.parts)
        return [self._built(c, own, most) for c, own in zip(candidates, parts, strict=True)]

    def build(self, task: Task, candidates: Sequence[Candidate]) -> Batch:
        """Code of the candidates, of which the first is the base, with what a launch of each takes
        and the seconds that are predicted of it.

        Raises InternalError where the base cannot be built.
        """
        begin = time.perf_counter()
        built = tuple(self.codes(task, candidates))
        if not built or built[0].error:
            why = built[0].error if built else "there are no candidates"
            raise InternalError(f"the base of '{task.name}' cannot be built", why=why)
        work = self._works[task.key]
        seconds: dict[str, float] = {}
        files: dict[str, bytes] = {}
        launches: dict[str, Any] = {}
        for position, (candidate, one) in enumerate(zip(candidates, built, strict=True)):
            if one.error:
                continue
            vetted = [self._vetted[part] for part in self.parts(task, candidate)]
            seconds[str(position)] = self._seconds(work, vetted)
            launches[str(position)], code = launches_of(vetted, work.sizes, f"{position}_")
            files |= code
        files[SECONDS] = json.dumps(seconds).encode()
        rates = sorted({space.rate for space in work.spaces})
        told = {"buffers": work.buffers, "launches": launches, "rates": rates}
        files[LAUNCHES] = json.dumps(told).encode()
        return Batch(task.key, built, files, time.perf_counter() - begin)

    def _compile(self, parts: Sequence[Part]) -> None:
        missing = list(dict.fromkeys(part for part in parts if part not in self._vetted))
        self._vetted |= dict(zip(missing, compile_parts(missing, self.target), strict=True))

    def _built(self, candidate: Candidate, parts: Sequence[Part], most: int) -> Built:
        """most: bytes of registers that the base spills."""
        found = [self._vetted[part] for part in parts]
        wrong = next((own.reason for own in found if own.excess > most), "")
        if wrong:
            return Built(candidate.key, error=wrong)
        images = [image for own in found for of in own.images for image in of]
        return Built(candidate.key, code=hashlib.sha256(b"".join(map(_code, images))).hexdigest())

    def _candidate(self, work: GpuWork, tiles: Sequence[Tiles]) -> Candidate:
        choice = {"tiles": [asdict(TileChoice.of(own)) for own in tiles]}
        usual = {"tiles": [asdict(TileChoice.of(own)) for own in work.tiles]}
        seconds = self._predicted(work, tiles)
        return Candidate(
            choice,
            exact=all(
                space.adds_equally(a, b)
                for space, a, b in zip(work.spaces, work.tiles, tiles, strict=True)
            ),
            predicted=seconds,
            steps=_steps(choice, usual),
            expected=math.log(seconds / self._predicted(work, work.tiles)),
        )

    def _predicted(self, work: GpuWork, tiles: Sequence[Tiles]) -> float:
        clock = self.target.clock
        return sum(space.cycles(own, self.target)
                   for space, own in zip(work.spaces, tiles, strict=True)) / clock  # fmt: skip

    def _seconds(self, work: GpuWork, vetted: Sequence[Vetted]) -> float:
        """As predicted by the registers and shared memory of the code; of what predictions do not
        decide, as long as the usual tiles take."""
        return sum(
            space.cycles(own.part[0].tiles, self.target, _taken(own)) if space.ranks
            else space.cycles(usual, self.target)
            for space, own, usual in zip(work.spaces, vetted, work.tiles, strict=True)
        ) / self.target.clock  # fmt: skip


def works_of(
    plan: Plan, kernels: GpuKernels, target: GpuTarget, sizes: Mapping[str, int]
) -> list[GpuWork]:
    """One for every key of a kernel of the device. sizes: of the model's inputs; kernels whose
    sizes do not follow from these are left out."""
    counts = Counter(s.kernel for s in all_steps(plan.steps) if isinstance(s, KernelCall))
    found = []
    for number, parts in kernels.parts.items():
        planned, call = plan.kernels[number], first_call(plan, number)
        own_sizes = sizes_of(plan, number, call, sizes) if call else None
        buffers = buffers_of(plan, number, call, sizes) if call else None
        if own_sizes is None or buffers is None:
            continue
        spaces = tuple(_space(plan, number, part, own_sizes, target) for part in parts)
        cycles = sum(
            space.cycles(part[0].tiles, target) for space, part in zip(spaces, parts, strict=True)
        )
        seconds = cycles / target.clock
        text = kernel_text(replace(planned.kernel, name=""))
        for key in planned.keys:
            facts = (PROTOCOL, text, key, target, *sorted(own_sizes.items()))
            task = Task(
                digest("\n".join(map(str, facts))), planned.symbol, key, own_sizes,
                calls=max(1, counts[number] // len(planned.keys)), seconds=seconds,
            )  # fmt: skip
            found.append(GpuWork(task, number, parts, spaces, own_sizes, buffers))
    return found


def _space(
    plan: Plan, number: int, part: Part, sizes: Mapping[str, int], target: GpuTarget
) -> TileSpace:
    kernel = part_kernel(plan, number, part, target)
    maps = part[0].tiles.kind is Kind.PRODUCT and all(part[0].aligned) and can_map(kernel, target)
    return space_of(kernel, part[0].tiles, sizes, maps, busy_programs(kernel, target))


def _with(tiles: Sequence[Tiles], place: int, own: Tiles) -> tuple[Tiles, ...]:
    """Tiles with others in one place."""
    new = with_shape(tiles[place], own)
    return tuple(new if n == place else old for n, old in enumerate(tiles))


def _steps(one: Choice, other: Choice) -> int:
    """In how many numbers two choices differ."""
    return sum(
        a[name] != b[name] for a, b in zip(one["tiles"], other["tiles"], strict=True) for name in a
    )


def _taken(vetted: Vetted) -> Taken:
    image = vetted.images[0][0]
    units = math.ceil(image.registers / REGISTER_UNIT)
    return Taken(units * REGISTER_UNIT, image.shared)


def _code(image: Image) -> bytes:
    return hashlib.sha256(image.data).digest()
