"""Kernels that differ in nothing but which of their numbers are the same one become one kernel.

Numbers of a network's layers (scales and zero points) are operands of one element. Where two of a
layer are equal by chance, they are one operand, and the layer's kernel is another than that of the
layers around it. The kernel that stands for all takes as many as any of them tells apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..expr import Apply, Buffer, Expr, Guarded, Load
from ..kernel import Kernel, Stage, kernel_text
from .plan import Branch, KernelCall, Place, Plan, PlannedKernel, Repeat, Step
from .verify_plan import verify_plan

StandIn = Callable[[int, Buffer], Load]


def share_kernels(plan: Plan) -> None:
    """Make one kernel of those that differ so alone; the plan is changed in place."""
    numbers = _numbers(plan)
    likely: dict[object, list[int]] = {}
    for number, planned in enumerate(plan.kernels):
        likely.setdefault(_likeness(planned, numbers[number]), []).append(number)
    merged: dict[int, _Merged] = {}
    for family in likely.values():
        if len(family) > 1:
            for alike in _alike(plan, family, numbers):
                merged.update(_merged(plan, alike, numbers))
    if merged:
        _renumber(plan, merged)
        verify_plan(plan)


@dataclass(frozen=True)
class _Merged:
    """A kernel that another stands for. operands: which of its own that one takes, in order."""

    first: int
    operands: tuple[int, ...]


def _steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Steps and those within them."""
    for step in steps:
        yield step
        if isinstance(step, Branch):
            yield from _steps((*step.then, *step.otherwise))
        elif isinstance(step, Repeat):
            yield from _steps(step.body)


def _numbers(plan: Plan) -> list[frozenset[str]]:
    """Of every kernel the operands that are a constant of one element in all its calls."""
    single = {
        Place("weights", number)
        for number, weight in enumerate(plan.weights)
        if weight.packing is None and weight.value.type.elements == 1
    }
    found = [
        {buffer.name for buffer in planned.kernel.params[: -planned.kernel.outputs or None]}
        for planned in plan.kernels
    ]
    for step in _steps(plan.steps):
        if isinstance(step, KernelCall):
            pairs = zip(plan.kernels[step.kernel].kernel.params, step.places, strict=True)
            found[step.kernel] -= {buffer.name for buffer, at in pairs if at not in single}
    return [frozenset(names) for names in found]


def _likeness(planned: PlannedKernel, numbers: frozenset[str]) -> object:
    """What kernels have in common that may differ in their numbers alone, found soon."""
    kernel = planned.kernel
    others = tuple(buffer.dtype for buffer in kernel.params if buffer.name not in numbers)
    return planned.schedule, others, kernel.outputs, kernel.most_stack


def _renamed(kernel: Kernel, numbers: frozenset[str]) -> dict[str, Buffer]:
    """The inputs that are not numbers, by the names that they have in kernels that are alike."""
    inputs = kernel.params[: len(kernel.params) - kernel.outputs]
    others = [buffer for buffer in inputs if buffer.name not in numbers]
    return {buffer.name: replace(buffer, name=f"t{n}") for n, buffer in enumerate(others)}


@dataclass
class _Reads:
    """Rewrites a kernel. found: which number it reads, for every time that it does; each is read
    from what `stand_in` says then. Parts that are one object stay one."""

    numbers: frozenset[str]
    renamed: Mapping[str, Buffer]
    stand_in: StandIn
    found: list[str] = field(default_factory=list)
    done: dict[int, tuple[Expr, Expr]] = field(default_factory=dict)

    def kernel(self, kernel: Kernel) -> Kernel:
        """The kernel with other expressions."""
        return replace(kernel, stages=tuple(map(self._stage, kernel.stages)))

    def _stage(self, stage: Stage) -> Stage:
        reductions = tuple(r.with_parts(self._part) for r in stage.reductions)
        stores = tuple(
            replace(
                s,
                value=self._part(s.value),
                dynamic=tuple((self._part(index), stride) for index, stride in s.dynamic),
            )
            for s in stage.stores
        )
        return replace(stage, reductions=reductions, stores=stores)

    def _part(self, expression: Expr) -> Expr:
        if isinstance(expression, Load) and expression.buffer.name in self.numbers:
            self.found.append(expression.buffer.name)
            return self.stand_in(len(self.found) - 1, expression.buffer)
        if id(expression) not in self.done:
            self.done[id(expression)] = expression, self._changed(expression)
        return self.done[id(expression)][1]

    def _changed(self, expression: Expr) -> Expr:
        match expression:
            case Load(buffer=buffer, dynamic=dynamic):
                parts = tuple((self._part(index), stride) for index, stride in dynamic)
                name = (
                    self.renamed[buffer.name].name if buffer.name in self.renamed else buffer.name
                )
                return replace(expression, buffer=replace(buffer, name=name), dynamic=parts)
            case Apply(args=args):
                return replace(expression, args=tuple(map(self._part, args)))
            case Guarded(bounds=bounds, value=value, other=other):
                return Guarded(bounds, self._part(value), self._part(other))
            case _:
                return expression


def _masked(n: int, number: Buffer) -> Load:
    """What stands for a number in kernels that are compared, whose text tells its type."""
    return Load(replace(number, name=f"n{n}_{number.dtype}"), 0)


def _alike(
    plan: Plan, family: Sequence[int], numbers: Sequence[frozenset[str]]
) -> list[dict[int, list[str]]]:
    """The kernels that are the same but for their numbers, of two or more: which each reads."""
    kinds: dict[str, dict[int, list[str]]] = {}
    for number in family:
        kernel, own = plan.kernels[number].kernel, numbers[number]
        renamed = _renamed(kernel, own)
        reads = _Reads(own, renamed, _masked)
        masked = replace(reads.kernel(kernel), params=tuple(renamed.values()))
        kinds.setdefault(kernel_text(masked), {})[number] = reads.found
    return [alike for alike in kinds.values() if len(alike) > 1]


def _merged(
    plan: Plan, alike: Mapping[int, list[str]], numbers: Sequence[frozenset[str]]
) -> dict[int, _Merged]:
    """Let the first of kernels that are alike stand for all; what each of them takes."""
    first = next(iter(alike))
    kernel = plan.kernels[first].kernel
    types = {buffer.name: buffer.dtype for buffer in kernel.params}
    columns = list(zip(*alike.values(), strict=True))
    loads = {
        column: Load(Buffer(f"n{n}", types[column[0]]), 0)
        for n, column in enumerate(dict.fromkeys(columns))
    }
    renamed = _renamed(kernel, numbers[first])
    reads = _Reads(numbers[first], renamed, lambda n, _: loads[columns[n]])
    outputs = kernel.params[len(kernel.params) - kernel.outputs :]
    params = (*renamed.values(), *(load.buffer for load in loads.values()), *outputs)
    every = [plan.kernels[number] for number in alike]
    plan.kernels[first] = replace(
        every[0],
        kernel=replace(reads.kernel(kernel), params=params),
        aliased=frozenset[str]().union(*(_aliased(plan.kernels[n], numbers[n]) for n in alike)),
        nodes=tuple(dict.fromkeys(name for each in every for name in each.nodes)),
        keys=tuple(dict.fromkeys(key for each in every for key in each.keys)),
    )
    found = {}
    for k, (number, each) in enumerate(zip(alike, every, strict=True)):
        at = {buffer.name: place for place, buffer in enumerate(each.kernel.params)}
        others = _renamed(each.kernel, numbers[number])
        own = (*others, *(column[k] for column in loads), *(buffer.name for buffer in outputs))
        found[number] = _Merged(first, tuple(at[name] for name in own))
    return found


def _aliased(planned: PlannedKernel, numbers: frozenset[str]) -> frozenset[str]:
    """What may lie in one memory, by the names that it has in kernels that are alike."""
    renamed = _renamed(planned.kernel, numbers)
    names = planned.aliased - numbers
    return frozenset(renamed[name].name if name in renamed else name for name in names)


def _renumber(plan: Plan, merged: Mapping[int, _Merged]) -> None:
    """Drop the kernels that others stand for, and give calls what these take."""
    gone = {number for number, own in merged.items() if own.first != number}
    kept = [number for number in range(len(plan.kernels)) if number not in gone]
    at = {number: place for place, number in enumerate(kept)}
    at.update({number: at[own.first] for number, own in merged.items()})

    def renumbered(step: Step) -> Step:
        match step:
            case KernelCall(kernel=number, places=places):
                if number in merged:
                    places = tuple(places[n] for n in merged[number].operands)
                return replace(step, kernel=at[number], places=places)
            case Branch(then=then, otherwise=otherwise):
                left, right = (tuple(map(renumbered, part)) for part in (then, otherwise))
                return replace(step, then=left, otherwise=right)
            case Repeat(body=body):
                return replace(step, body=tuple(map(renumbered, body)))
            case _:
                return step

    plan.steps = tuple(map(renumbered, plan.steps))
    calls: dict[int, int] = {}
    for number, count in plan.calls.items():
        calls[at[number]] = calls.get(at[number], 0) + count
    plan.kernels[:] = [plan.kernels[number] for number in kept]
    plan.calls = calls
