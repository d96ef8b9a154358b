"""Plans whose kernels run on a device, of which every second one, or none, stays on the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from plan_runs import PlannedGraph
from suites.case import BOOL, CLOSE, F32, CaseBuilder
from suites.cases import ALL_CASES, Case, compare

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import InternalError
from tensmith.compiler.ir import Value
from tensmith.compiler.ir.dims import symbols_of
from tensmith.compiler.kernel.plan.devices import all_steps, host_inputs, on_device
from tensmith.compiler.kernel.plan.plan import (
    Deliver,
    DeviceFunction,
    External,
    KernelCall,
    Launch,
    OpenOutput,
    Place,
    Plan,
    Receive,
    Space,
    Transfer,
)
from tensmith.compiler.kernel.plan.verify_plan import verify_plan

TARGET = resolve_target("x86-64-v3")[1]
NAMES = (
    "two_layers", "self_attention", "dense_block", "joined_heads", "cache", "overwritten",
    "passed_through", "expand_2x9x2x9", "expand_2x1x1x40", "concat_symbolic", "checks",
    "read_dims", "if_then", "if_else", "if_shapes_then", "if_shapes_else", "if_bordered",
    "scan_forward", "scan_backward", "scan_no_step", "scan_lstm", "loop_counted", "loop_no_step",
    "loop_while", "loop_growing", "nonzero_67", "unique_rows_True", "argsort_rows", "nms_False",
    "reduce_sum_empty", "matmul_symbolic_batch",
)  # fmt: skip
CASES = [case for case in ALL_CASES if case.name in NAMES]


def move(plan: Plan, chosen: Callable[[int], bool] = lambda number: True) -> None:
    """Have chosen kernels run on the device, each as one function."""
    functions = {}
    for number, planned in enumerate(plan.kernels):
        if chosen(number):
            kernel, name = planned.kernel, f"f{number}"
            params = tuple(range(len(kernel.params)))
            functions[number] = [DeviceFunction(name, number, params, kernel.symbols, 1)]
    on_device(plan, functions)


def test_all_cases_are_there() -> None:
    assert len(CASES) == len(NAMES)


@pytest.mark.parametrize("part", ["all", "even", "odd", "none"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_are_those_of_the_graph(case: Case, part: str) -> None:
    chosen: dict[str, Callable[[int], bool]] = {
        "all": lambda number: True,
        "even": lambda number: number % 2 == 0,
        "odd": lambda number: number % 2 == 1,
        "none": lambda number: False,
    }
    inputs = case.inputs()
    planned = PlannedGraph(case.graph(), TARGET, level=0)
    move(planned.plan, chosen[part])
    got, want = planned.run(inputs), run_graph(case.graph(), inputs)
    for name, array in want.items():
        compare(name, got[name], np.asarray(array), case.tolerance)


def plan_of(c: CaseBuilder) -> Plan:
    return PlannedGraph(c.graph(), TARGET).plan


def test_what_lies_between_kernels_stays_on_the_device() -> None:
    c = CaseBuilder("chain")
    x = c.op("matmul", c.input(6, 24), c.weight(24, 40))
    c.output(c.op("softmax", c.op("matmul", x, c.weight(40, 10)), axis=1))
    plan = plan_of(c)
    move(plan)
    assert not [step for step in plan.steps if isinstance(step, Transfer)]
    assert host_inputs(plan) == set()
    first, last = plan.steps[0], plan.steps[-1]
    assert isinstance(first, Receive)
    assert isinstance(last, Deliver)
    assert (first.size, last.size) == (6 * 24 * 4, 6 * 10 * 4)
    assert last.on_device
    assert not [step for step in plan.steps if isinstance(step, KernelCall)]
    for step in plan.steps:
        if isinstance(step, Launch):
            assert {place.space for place in step.places} == {Space.DEVICE}


def test_the_host_finds_what_it_reads() -> None:
    c = CaseBuilder("sorted")
    order = c.op("argsort", c.op("exp", c.input(7)), count=7, descending=True)
    c.output(c.op("neg", order))
    plan = plan_of(c)
    move(plan)
    external = next(n for n, step in enumerate(plan.steps) if isinstance(step, External))
    around = [plan.steps[external - 1], plan.steps[external + 1]]
    assert [step.target.space for step in around if isinstance(step, Transfer)] == [
        Space.HOST,
        Space.DEVICE,
    ]


def places(c: CaseBuilder, x: Value) -> Value:
    """The place of each of 8 elements among them in order, as f32: the host finds it in two steps,
    the first of which is read no more when the device has it."""
    order = c.op("argsort", x, count=8, descending=False)
    ranks = c.op("argsort", c.op("neg", c.op("neg", order)), count=8, descending=False)
    return c.op("tanh", c.op("cast", ranks, dtype=F32))


def branching(c: CaseBuilder) -> None:
    cond, found = c.input(dtype=BOOL, name="cond"), places(c, c.input(8))
    one, other = c.region("then"), c.region("else")
    one.output(one.op("add", found, one.weight(8)))
    other.output(other.op("neg", places(other, found)))
    c.output(c.op("exp", c.node("if", [cond], {}, [one.graph(), other.graph()]).output))


def stepping(c: CaseBuilder) -> None:
    start, steps = places(c, c.input(8)), c.input(3, 8)
    body = c.region("body")
    found = places(body, body.op("add", body.input(8), body.input(8)))
    body.output(found, body.op("exp", found))
    attrs = {"num_state": 1, "trip": 3, "reverse_in": (False,), "reverse_out": (False,)}
    c.output(*c.node("scan", [start, steps], attrs, [body.graph()]).outputs)


@pytest.mark.parametrize("given", [{"cond": True}, {"cond": False}, {}])
def test_what_is_read_no_more_is_not_copied_over_what_lies_there_now(
    given: dict[str, bool],
) -> None:
    case = Case("dead", branching if given else stepping, CLOSE, {}, given)
    inputs = case.inputs()
    planned = PlannedGraph(case.graph(), TARGET)
    move(planned.plan)
    got = planned.run(inputs)
    for name, array in run_graph(case.graph(), inputs).items():
        compare(name, got[name], np.asarray(array), case.tolerance)


def test_sizes_that_a_run_finds_size_memory_of_both() -> None:
    case = next(case for case in CASES if case.name == "loop_growing")
    plan = PlannedGraph(case.graph(), TARGET).plan
    known = set(plan.symbols)
    assert any(symbols_of(value.type.elements) - known for value in plan.outputs)
    move(plan)
    opened = [step.staging for step in all_steps(plan.steps) if isinstance(step, OpenOutput)]
    assert [place.kind for place in opened if place] == ["heap"]
    assert isinstance(plan.steps[-1], Deliver)


def test_what_the_host_reads_of_the_inputs_is_known() -> None:
    c = CaseBuilder("both")
    x = c.input(7)
    c.output(c.op("argsort", x, count=7, descending=True))
    c.output(c.op("exp", x))
    c.output(c.op("neg", c.input(3)))
    plan = plan_of(c)
    move(plan)
    assert host_inputs(plan) == {0}
    received = {step.number for step in plan.steps if isinstance(step, Receive)}
    assert received == {0, 1}
    delivered = [step.on_device for step in plan.steps if isinstance(step, Deliver)]
    assert delivered == [False, True, True]


def test_a_device_reaches_its_own_memory_only() -> None:
    c = CaseBuilder("one")
    c.output(c.op("exp", c.input(5)))
    plan = plan_of(c)
    move(plan)
    steps = plan.steps
    launch = next(step for step in steps if isinstance(step, Launch))
    plan.steps = (*steps, Launch(0, (Place("input", 0), *launch.places[1:]), (), 1))
    with pytest.raises(InternalError, match="cannot reach"):
        verify_plan(plan)
    for kind in (Receive, OpenOutput):
        plan.steps = tuple(step for step in steps if not isinstance(step, kind))
        with pytest.raises(InternalError, match="which is not there"):
            verify_plan(plan)
    for wrong, what in (
        (Launch(7, launch.places, (), 1), "no function 7"),
        (Launch(0, launch.places, (3,), 1), "takes 2 tensors and 0 sizes, not 2 and 1"),
        (Transfer(launch.places[0], launch.places[1], 20), "leads nowhere"),
    ):
        plan.steps = (*steps, wrong)
        with pytest.raises(InternalError, match=what):
            verify_plan(plan)
