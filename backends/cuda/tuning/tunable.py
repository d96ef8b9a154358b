"""A model opened for tuning on a GPU: its contractions, the tiles of each, and their code."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ....compiler.compilation import CompileOptions, Stages
from ....compiler.errors import InternalError, UsageError
from ....compiler.ir.graph import Graph
from ....compiler.kernel.cost.machine import Machine
from ....compiler.kernel.kernel import kernel_text
from ....compiler.kernel.plan.plan import Plan
from ....compiler.kernel.schedule.choice import TileChoice
from ....compiler.kernel.schedule.tiles import Tiles
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
from ..alternatives import ProductPart, adds_equally, product_parts
from ..candidates import CLOCK, Taken, blocks_of, every, predicted
from ..choosing import TENSOR_MAPS, can_map, given_tiles
from ..compiling import Image
from ..kernels import GpuKernels, part_with, product_of, vet_kernels, with_shape
from ..pipeline import form_kernels
from ..vetting import Part, Vetted, compile_parts
from .launches import LAUNCHES, buffers_of, launches_of

SECONDS = "seconds.json"  # of a batch: predicted by what the code takes, by position
FAR = 2.0  # of the base's predicted time, from which on tiles are not tried: assumed, not measured
REGISTER_UNIT = 8  # registers of a thread are given out so many at once
Choice = Mapping[str, Any]


@dataclass(frozen=True)
class GpuWork:
    """A task: one kernel with its tiles. parts: as a compilation makes them; products: those that
    are contractions, by place. buffers: of `buffers_of`."""

    task: Task
    number: int
    parts: tuple[Part, ...]
    products: Mapping[int, ProductPart]
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
    """The contractions of a model whose sizes are known, on a GPU; see `Tunable`."""

    def __init__(
        self, graph: Graph, target: GpuTarget, options: CompileOptions, stages: Stages
    ) -> None:
        self.target = target
        plan, kernels = form_kernels(graph, target, options, stages)
        with stages.stage("gpu code"):
            kernels, _ = vet_kernels(plan, kernels, target, options)
        self.plan = plan
        works = _works(plan, kernels, target)
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
                for place, own in work.products.items()
                for usual in every(own.problem, self.target)
                for tiles in (usual, *self._around(own, usual))
            ]
            near = [one for one in found if one.predicted <= FAR * base.predicted and one.steps]
            near.sort(key=lambda one: one.predicted)
            self._candidates[task.key] = (base, *near)
        return self._candidates[task.key]

    def _around(self, own: ProductPart, tiles: Tiles) -> Iterator[Tiles]:
        """Tiles whose programs go over several blocks, from the architecture on that has tensor
        maps, and with these."""
        few = blocks_of(own.problem, tiles) <= self.target.sms
        if TENSOR_MAPS not in self.target.instructions or tiles.split > 1 or few:
            return
        persistent = replace(tiles, programs=self.target.sms)
        yield persistent
        kernel = product_of(self.plan, own.number, own.part, self.target)
        if all(own.part[0].aligned) and can_map(kernel, self.target):
            yield replace(persistent, maps=True)

    def neighbours(self, task: Task, candidate: Candidate) -> Sequence[Candidate]:
        """Those that differ from one in a single number."""
        return [one for one in self.candidates(task) if _steps(one.choice, candidate.choice) == 1]

    def product(self, task: Task) -> ProductPart:
        """The first contraction of a task."""
        return next(iter(self._works[task.key].products.values()))

    def parts(self, task: Task, candidate: Candidate) -> tuple[Part, ...]:
        """The functions of a kernel with a candidate's tiles."""
        work = self._works[task.key]
        chosen = [TileChoice(**data) for data in candidate.choice["tiles"]]
        return tuple(
            part
            if choice == TileChoice.of(part[0].tiles)
            else part_with(self.plan, work.number, part, choice.applied(part[0].tiles), self.target)
            for part, choice in zip(work.parts, chosen, strict=True)
        )

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
            launches[str(position)], code = launches_of(vetted, f"{position}_")
            files |= code
        files[SECONDS] = json.dumps(seconds).encode()
        rates = sorted({own.problem.rate for own in work.products.values()})
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
            exact=all(adds_equally(own.problem, a, b) for own, a, b in _pairs(work, tiles)),
            predicted=seconds,
            steps=_steps(choice, usual),
            expected=math.log(seconds / self._predicted(work, work.tiles)),
        )

    def _predicted(self, work: GpuWork, tiles: Sequence[Tiles]) -> float:
        return sum(predicted(own.problem, tiles[place], self.target)
                   for place, own in work.products.items()) / CLOCK  # fmt: skip

    def _seconds(self, work: GpuWork, vetted: Sequence[Vetted]) -> float:
        """Of contractions, as predicted by the registers and shared memory of their code."""
        return sum(predicted(own.problem, vetted[place].part[0].tiles, self.target,
                             _taken(vetted[place]))
                   for place, own in work.products.items()) / CLOCK  # fmt: skip


def _works(plan: Plan, kernels: GpuKernels, target: GpuTarget) -> list[GpuWork]:
    """One for every key of a kernel that has contractions and no sizes that only a run knows."""
    by_kernel: dict[int, dict[int, ProductPart]] = {}
    for own in product_parts(plan, kernels, target):
        by_kernel.setdefault(own.number, {})[own.part[0].place] = own
    found = []
    for number, products in by_kernel.items():
        planned, buffers = plan.kernels[number], buffers_of(plan, number)
        if planned.kernel.symbols or buffers is None:
            continue
        own = next(iter(products.values()))
        calls = max(1, own.calls // len(planned.keys))
        seconds = sum(p.cycles / p.calls for p in products.values()) / CLOCK
        for key in planned.keys:
            facts = (PROTOCOL, kernel_text(replace(planned.kernel, name="")), key, target)
            task = Task(
                digest("\n".join(map(str, facts))), planned.symbol, key, calls=calls,
                seconds=seconds,
            )  # fmt: skip
            found.append(GpuWork(task, number, kernels.parts[number], products, buffers))
    return found


def _with(tiles: Sequence[Tiles], place: int, own: Tiles) -> tuple[Tiles, ...]:
    """Tiles with others in one place."""
    new = with_shape(tiles[place], own)
    return tuple(new if n == place else old for n, old in enumerate(tiles))


def _pairs(work: GpuWork, tiles: Sequence[Tiles]) -> list[tuple[ProductPart, Tiles, Tiles]]:
    return [(own, work.tiles[place], tiles[place]) for place, own in work.products.items()]


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
