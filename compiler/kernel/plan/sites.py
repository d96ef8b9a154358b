"""How often a plan runs each kernel, and with which sizes: what a report multiplies times by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...errors import InternalError
from ...ir.dims import Dim, ceildiv, evaluate, product
from ..kernel import Kernel
from ..schedule.partition import outer_loops
from ..schedule.schedule import Schedule
from .plan import (
    Assign,
    Bind,
    Branch,
    Deliver,
    External,
    KernelCall,
    Place,
    Plan,
    Receive,
    Repeat,
    Step,
    Transfer,
)


@dataclass(frozen=True)
class KernelSite:
    """One kernel with one set of sizes.

    number: of the kernel in the plan. sizes: of its symbolic dims; None where only a run can tell.
    calls: of one run. certain: whether every run makes them (not in a branch, nor in a loop whose
    rounds depend on data; such a loop's body counts once). constants: parameters that are weights.
    """

    number: int
    sizes: tuple[tuple[str, int], ...] | None
    certain: bool
    constants: frozenset[str]
    calls: int


def sites_of(plan: Plan, sizes: Mapping[str, int], *, fitting: bool = False) -> list[KernelSite]:
    """Every site of a plan for sizes of the inputs' symbols, in the order of first calls.

    fitting: the sizes are made up, and those of real runs are supposed to fit together where the
    plan has versions of kernels for that (`versions.py`). A loop whose sizes change from round to
    round counts as if all rounds were its middle one.
    """
    walker = _Walker(plan, dict(sizes), fitting)
    walker.steps(plan.steps, 1, True)
    return [
        KernelSite(number, env, certain, constants, calls)
        for (number, env, certain, constants), calls in walker.found.items()
    ]


@dataclass(frozen=True)
class CopySite:
    """A copy between a host's memory and a device's. size: in bytes; None where only a run can
    tell. times: of one run."""

    size: int | None
    times: int


def copies_of(plan: Plan, sizes: Mapping[str, int]) -> list[CopySite]:
    """Every copy of a plan whose kernels run on a device, as `sites_of` counts, for sizes that are
    made up."""
    walker = _Walker(plan, dict(sizes), True)
    walker.steps(plan.steps, 1, True)
    return walker.copies


def parallel_iterations(kernel: Kernel, schedule: Schedule, sizes: Mapping[str, int]) -> int:
    """How many iterations the loops have that threads share: `end` of a whole call."""
    extents = {axis.name: axis.extent for axis in kernel.stages[0].axes}
    counts = (
        ceildiv(evaluate(extents[name], sizes), tile)
        for name, tile in outer_loops(kernel, schedule)
    )
    return evaluate(product(counts), {})


def functions_of(steps: Sequence[Step]) -> Iterator[str]:
    """Names of the runtime's functions that steps call, branches and loops included."""
    for step in steps:
        match step:
            case External(function=name):
                yield name
            case Branch():
                yield from functions_of((*step.then, *step.otherwise))
            case Repeat():
                yield from functions_of(step.body)


class _Walker:
    """Walks steps as a run would, with the dims that are known beforehand."""

    def __init__(self, plan: Plan, env: dict[str, int], fitting: bool) -> None:
        self.plan, self.env, self.fitting = plan, env, fitting
        self.found: dict[
            tuple[int, tuple[tuple[str, int], ...] | None, bool, frozenset[str]], int
        ] = {}
        self.copies: list[CopySite] = []

    def steps(self, steps: Sequence[Step], times: int, certain: bool) -> None:
        """Count the calls of steps that run `times` times."""
        for step in steps:
            match step:
                case KernelCall():
                    self._call(step, times, certain)
                case Bind(symbols=names):
                    self._forget(names)
                case Assign(symbols=names, dims=dims):
                    values = [self._value(dim) for dim in dims]
                    for name, value in zip(names, values, strict=True):
                        self._set(name, value)
                case Branch():
                    self._branch(step, times, certain)
                case Repeat():
                    self._repeat(step, times, certain)
                case Transfer(size=size) | Receive(size=size) | Deliver(size=size):
                    known = None if size is None else self._value(size)
                    self.copies.append(CopySite(known, times))

    def _call(self, step: KernelCall, times: int, certain: bool) -> None:
        kernel = self.plan.kernels[step.kernel].kernel
        values = [self._value(size) for size in step.sizes]
        known = [value for value in values if value is not None]
        sizes = None
        if len(known) == len(values):
            sizes = tuple(zip(kernel.symbols, known, strict=True))
        constants = frozenset(
            buffer.name
            for buffer, place in zip(kernel.params, step.places, strict=True)
            if place.kind == "weights"
        )
        key = (step.kernel, sizes, certain, constants)
        self.found[key] = self.found.get(key, 0) + times

    def _branch(self, step: Branch, times: int, certain: bool) -> None:
        if not isinstance(step.condition, Place):
            if self.fitting:
                self.steps(step.then, times, certain)
                return
            pairs = [[self._value(dim) for dim in pair] for pair in step.condition]
            if all(None not in pair for pair in pairs):
                equal = all(left == right for left, right in pairs)
                self.steps(step.then if equal else step.otherwise, times, certain)
                return
        before = dict(self.env)
        self.steps(step.then, times, False)
        self.env = before
        self.steps(step.otherwise, times, False)
        self._forget([name for name, _, _ in step.bound])

    def _repeat(self, step: Repeat, times: int, certain: bool) -> None:
        count = None if isinstance(step.count, Place) else self._value(step.count)
        known = count is not None and step.condition is None
        rounds = count if count is not None and known else 1
        self.env[step.counter] = max(0, rounds // 2)
        if rounds:
            self.steps(step.body, times * rounds, certain and known)
        self._set(step.counter, rounds if known else None)

    def _value(self, dim: Dim) -> int | None:
        try:
            return evaluate(dim, self.env)
        except InternalError:
            return None

    def _set(self, name: str, value: int | None) -> None:
        if value is None:
            self.env.pop(name, None)
        else:
            self.env[name] = value

    def _forget(self, names: Sequence[str]) -> None:
        for name in names:
            self.env.pop(name, None)
