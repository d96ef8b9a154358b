"""What a plan may speak of: memory that is there, and that the host can reach."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan_runs import PlannedGraph
from suites.case import BOOL, CaseBuilder

from tensmith.backends.llvm import codegen
from tensmith.backends.llvm.emit.plan_function import emit_plan
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import InternalError
from tensmith.compiler.ir.types import DType
from tensmith.compiler.kernel import expr as ex
from tensmith.compiler.kernel.expr import Buffer
from tensmith.compiler.kernel.kernel import Kernel, Stage, Store
from tensmith.compiler.kernel.plan.in_place import aliased
from tensmith.compiler.kernel.plan.plan import (
    Allocate,
    Bind,
    Branch,
    External,
    KernelCall,
    OpenOutput,
    Place,
    Plan,
    Repeat,
    Space,
    Step,
    View,
)
from tensmith.compiler.kernel.plan.verify_plan import verify_plan

TARGET = resolve_target("x86-64-v3")[1]
INPUT, HEAP = Place("input", 0), Place("heap", 1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Two products, of a tensor that the arena holds."""
    c = CaseBuilder("products")
    hidden = c.op("matmul", c.input(6, 24), c.weight(24, 40))
    c.output(c.op("matmul", c.op("softmax", hidden, axis=1), c.weight(40, 10)))
    c.output(c.op("not", c.input(3, dtype=BOOL)))
    return PlannedGraph(c.graph(), TARGET).plan


def with_steps(plan: Plan, *steps: Step) -> Plan:
    return replace(plan, steps=(*plan.steps, *steps))


def moved(plan: Plan, kind: str, space: Space) -> Plan:
    """The plan, with all places of a kind in another memory."""

    def there(place: Place) -> Place:
        return replace(place, space=space) if place.kind == kind else place

    steps = [
        replace(step, places=tuple(map(there, step.places)))
        if isinstance(step, KernelCall)
        else step
        for step in plan.steps
    ]
    return replace(plan, steps=tuple(steps))


@pytest.mark.parametrize("kind", ["input", "output", "weights", "arena"])
def test_kernels_of_the_host_reach_its_memory_only(plan: Plan, kind: str) -> None:
    verify_plan(moved(plan, kind, Space.HOST))
    for space in (Space.DEVICE, Space.SRAM):
        wrong = moved(plan, kind, space)
        assert wrong != plan
        with pytest.raises(InternalError, match=f"cannot reach {space.value} {kind} 0"):
            verify_plan(wrong)
        module = codegen.new_module("m", TARGET)
        with pytest.raises(InternalError, match=f"no address for {space.value} {kind}"):
            emit_plan(module, wrong, "plan")


@pytest.mark.parametrize(
    "step",
    [
        External("ts_rt_det", (INPUT,), ()),
        Bind(("n",), INPUT),
        View(1, INPUT),
        Branch(INPUT, (), ()),
        Branch((), (Bind(("n",), INPUT),), ()),
        Branch((), (), (Bind(("n",), INPUT),)),
        Repeat("i", INPUT, ()),
        Repeat("i", 3, (), INPUT),
        Repeat("i", 3, (Bind(("n",), INPUT),)),
    ],
    ids=lambda step: type(step).__name__,
)
def test_no_step_reaches_other_memory(plan: Plan, step: Step) -> None:
    verify_plan(with_steps(plan, step))
    far = replace(INPUT, space=Space.DEVICE)

    def elsewhere(part: object) -> object:
        if isinstance(part, tuple):
            return tuple(elsewhere(item) for item in part)
        if part == INPUT:
            return far
        if isinstance(part, Bind):
            return replace(part, place=far)
        return part

    fields = {name: elsewhere(value) for name, value in vars(step).items()}
    with pytest.raises(
        InternalError, match=r"cannot reach device input 0|device input 0, which is not there"
    ):
        verify_plan(with_steps(plan, type(step)(**fields)))


@pytest.mark.parametrize(
    "place",
    [Place("input", 2), Place("input", -1), Place("weights", 2), Place("arena", 9), HEAP,
     Place("output", 2), Place("stack", 0)],
    ids=str,
)  # fmt: skip
def test_memory_has_to_be_there(plan: Plan, place: Place) -> None:
    with pytest.raises(InternalError, match=f"is given {place}, which is not there"):
        verify_plan(with_steps(plan, Bind(("n",), place)))


def test_memory_is_there_from_its_step_on(plan: Plan) -> None:
    use = Bind(("n",), HEAP)
    made: tuple[Step, ...] = (Allocate(1, 64), View(1, INPUT))
    for step in made:
        verify_plan(with_steps(plan, step, use))
        verify_plan(with_steps(plan, Branch((), (step, use), (step,)), use))
        verify_plan(with_steps(plan, step, Repeat("i", 3, (use,)), use))
        for wrong in (
            (use, step),
            (Branch((), (step,), ()), use),
            (Branch((), (), (step,)), use),
            (Branch((), (step,), (use,)),),
            (Repeat("i", 3, (step,)), use),
        ):
            with pytest.raises(InternalError, match="heap 1, which is not there"):
                verify_plan(with_steps(plan, *wrong))


def test_outputs_are_opened_first(plan: Plan) -> None:
    closed = tuple(step for step in plan.steps if not isinstance(step, OpenOutput))
    assert len(closed) == len(plan.steps) - 2
    with pytest.raises(InternalError, match="output 0, which is not there"):
        verify_plan(replace(plan, steps=closed))


def test_calls_have_what_kernels_take(plan: Plan) -> None:
    call = next(step for step in plan.steps if isinstance(step, KernelCall))
    for wrong in (
        replace(call, places=call.places[1:]),
        replace(call, sizes=(3,)),
    ):
        with pytest.raises(InternalError, match=r"takes \d tensors and 0 sizes"):
            verify_plan(with_steps(plan, wrong))
    for number in (-1, len(plan.kernels)):
        with pytest.raises(InternalError, match=f"no kernel {number}"):
            verify_plan(with_steps(plan, replace(call, kernel=number)))


def test_text_names_other_memory_than_the_hosts() -> None:
    assert str(Place("arena", 3)) == "arena 3"
    assert str(Place("arena", 3, 64)) == "arena 3 + 64"
    assert str(Place("arena", 3, 64, Space.SRAM)) == "sram arena 3 + 64"


def test_equal_numbers_in_two_memories_are_no_alias() -> None:
    source, result = (Buffer(name, DType.F32) for name in ("a", "b"))
    stage = Stage((), (), (), (Store(result, 0, ex.Load(source, 0)),))
    kernel = Kernel("copy", (source, result), 1, (stage,))
    here = Place("arena", 0)
    assert aliased(kernel, (here, replace(here, offset=64))) == {"a", "b"}
    assert not aliased(kernel, (here, replace(here, space=Space.DEVICE)))
