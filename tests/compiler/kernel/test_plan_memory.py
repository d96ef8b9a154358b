"""Plans on memory full of garbage: what shares memory, and when it may be reused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from plan_runs import PlannedGraph
from random_graphs import build_tangled
from suites import control, patterns
from suites.case import BOOL, I64, Case, CaseBuilder, N, S

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import InternalError
from tensmith.compiler.ir import DENSE, Dim, Graph, Node, Value
from tensmith.compiler.ir.dims import dbroadcast, evaluate
from tensmith.compiler.kernel.plan import (
    arena,
    concat_parts,
    control_steps,
    in_place,
    planner,
)
from tensmith.compiler.kernel.plan.planner import Planner
from tensmith.passes.grouping import concat_views
from tensmith.passes.grouping.concat_views import _Views

Array = np.ndarray[Any, Any]
TARGETS = [resolve_target(name)[1] for name in ("x86-64-v3", "x86-64-v4", "aarch64")]
CASES = [
    case
    for case in (*control.CASES, *patterns.CASES)
    if all(node.op != "fused" for node in case.graph().nodes)
]


def tangled(seed: int) -> tuple[Callable[[], Graph], dict[str, Array]]:
    """What builds a random graph, and inputs for it."""
    rng = np.random.default_rng(seed)
    numbers = [int(number) for number in rng.integers(0, 9999, rng.integers(5, 14))]
    symbols, sizes = seed % 4, {"n": int(rng.integers(1, 4)), "s": int(rng.integers(1, 9))}

    def graph() -> Graph:
        return build_tangled(numbers, symbols=symbols)

    drawn = {
        value.name: rng.uniform(-2, 2, [evaluate(dim, sizes) for dim in value.shape])
        for value in graph().inputs
    }
    return graph, {name: array.astype(np.float32) for name, array in drawn.items()}


def check(graph: Callable[[], Graph], inputs: Mapping[str, Array], seed: int = 0) -> None:
    want = run_graph(graph(), inputs)
    target = TARGETS[seed % len(TARGETS)]
    got = PlannedGraph(graph(), target, threads=1 + seed % 2).run(inputs, seed)
    for name, array in want.items():
        wide = [np.asarray(a, np.float64) for a in (got[name], array)]
        scale = max(1.0, float(np.abs(wide[1][np.isfinite(wide[1])]).max(initial=0)))
        np.testing.assert_allclose(*wide, rtol=1e-3, atol=1e-3 * scale, err_msg=name, strict=True)


def expanded(c: CaseBuilder) -> None:
    """An operand that a run may find to need no copy; its own last reader comes before those."""
    x = c.op("matmul", c.input(N, 4, 6), c.weight(6, 6))
    wide = c.op("expand", x, shape=(dbroadcast(N, S), 4, 6))
    first = c.op("softmax", x, axis=0)
    like = c.op("matmul", c.input(S, 4, 6), c.weight(6, 6))
    c.output(first, c.op("softmax", c.op("matmul", wide, c.weight(6, 6)), axis=0), like)


def captured(c: CaseBuilder) -> None:
    """A value whose last reader is a loop's body, which captures it."""
    x = c.input(4, 6)
    held = c.op("matmul", x, c.weight(6, 6))
    other = c.op("softmax", held, axis=0)
    body = c.region("body")
    body.input(dtype=I64)
    going, state = body.input(dtype=BOOL), body.input(4, 6)
    body.results = [going, body.op("tanh", body.op("add", state, held))]
    loop = c.node("loop", [c.scalar(3, I64), c.scalar(1, BOOL), x], {}, [body.graph()])
    c.output(c.op("softmax", loop.output, axis=0), c.op("matmul", other, c.weight(6, 6)))


def traded(c: CaseBuilder) -> None:
    """States of a loop that trade places."""
    starts = [c.op("matmul", c.input(4, 6), c.weight(6, 6)) for _ in range(2)]
    body = c.region("body")
    body.input(dtype=I64)
    going, one, other = body.input(dtype=BOOL), body.input(4, 6), body.input(4, 6)
    body.results = [going, other, one]
    loop = c.node("loop", [c.scalar(3, I64), c.scalar(1, BOOL), *starts], {}, [body.graph()])
    c.output(*loop.outputs)


def sorted_part(c: CaseBuilder) -> None:
    """A part of a concat that a function of the runtime reads as well."""
    x = c.op("softmax", c.input(3, 16), axis=1)
    joined = c.op("concat", x, c.op("softmax", c.input(3, 16), axis=0), axis=1)
    order = c.op("argsort", x, count=16, descending=True)
    c.output(c.op("softmax", joined, axis=0), order)


def halo(c: CaseBuilder) -> None:
    """Two convolutions in bands, of which each reads what the next one's result would overwrite."""
    plain = {"strides": (1, 1), "dilations": (1, 1)}
    x = c.op("softmax", c.input(1, 16, 24, 20), axis=3)
    y = c.op("conv", x, c.weight(16, 16, 1, 1), **plain, pads=(0,) * 4, groups=1)
    y = c.op("max", y, c.scalar(0))
    z = c.op("conv", y, c.weight(16, 1, 3, 3), **plain, pads=(1,) * 4, groups=16)
    c.output(c.op("softmax", z, axis=3))


SHARING = [
    Case("expanded", expanded, sizes={"n": 3, "s": 3}),
    Case("expanded_from_one", expanded, sizes={"n": 1, "s": 3}),
    Case("captured", captured),
    Case("traded", traded),
    Case("sorted_part", sorted_part),
    Case("halo", halo),
]


@pytest.mark.parametrize("first", range(0, 40, 8))
def test_tangled_graphs(first: int) -> None:
    for seed in range(first, first + 8):
        check(*tangled(seed), seed)


@pytest.mark.slow
def test_many_tangled_graphs() -> None:
    for seed in range(40, 1000):
        check(*tangled(seed), seed)


@pytest.fixture(autouse=True)
def bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions come in several bands however small they are."""
    choice = "tensmith.compiler.kernel.forms.bands_choice"
    monkeypatch.setattr(f"{choice}.MIN_BETWEEN_BYTES", 0)
    monkeypatch.setattr(f"{choice}.SLOW_BYTES_PER_CYCLE", 1e-3)
    monkeypatch.setattr(f"{choice}.BAND_SHARES", (9 * 22 * 16 * 4 / (1 << 20),))


@pytest.mark.parametrize("case", [*SHARING, *CASES], ids=lambda case: case.name)
def test_cases(case: Case) -> None:
    check(case.graph, case.inputs())


def test_memory_is_written_over() -> None:
    """What nothing reads any more is: one arena buffer fewer for each."""
    c = CaseBuilder("chain")
    c.output(c.op("softmax", c.op("matmul", c.input(40, 6), c.weight(6, 6)), axis=0))
    plan = PlannedGraph(c.graph(), TARGETS[0]).plan
    assert [kernel.symbol for kernel in plan.kernels if kernel.aliased] == ["k2_sub_exp"]


def _all_at_the_start(
    node: Node, real: Callable[[Node], list[Dim]] = concat_parts.piece_offsets
) -> Any:
    return [real(node)[0]] * len(node.inputs)


def _in_regions_unseen(graph: Graph) -> dict[Value, int]:
    return in_place.last_uses(Graph(graph.inputs, graph.outputs, [
        node if node.op == "fused" else Node(node.op, node.inputs, node.outputs, node.attrs)
        for node in graph.nodes
    ]))  # fmt: skip


def _any_that_is_made(views: _Views, value: Value, dense: bool, concat: Node) -> bool:
    made = value.producer is not None and value.producer.op == "fused"
    return made and value.type.layout == DENSE


def _always_over_the_old(self: Planner, value: Value, ends: dict[Value, int], now: int) -> None:
    if value in self.states:
        self.places[value] = self.states[value][1]


# (what is forgotten, in which modules or classes, under which name, what is there instead)
MISTAKES: tuple[tuple[str, tuple[Any, ...], str, Callable[..., Any]], ...] = (
    ("whether memory may be shared", (planner,), "may_share", lambda *_: True),
    ("stages behind the writer", (in_place,), "_reads", lambda *_: False),
    ("what the writer reads", (in_place,), "_reads_what_it_writes", lambda *_: True),
    ("what turns in shared loops read", (in_place,), "_offsets_seen_from", lambda *_: set()),
    ("that sizes differ", (Planner,), "_fits", lambda *_: True),
    ("to say what is aliased", (planner,), "aliased", lambda *_: frozenset()),
    ("where a part begins", (concat_parts, planner), "piece_offsets", _all_at_the_start),
    ("that parts have strides", (concat_views,), "_lies_densely", lambda *_: True),
    ("that a part is a result", (_Views,), "_movable", _any_that_is_made),
    ("the last use", (Planner,), "touch", lambda *_: None),
    ("loops in lifetimes", (control_steps,), "_keep_alive", lambda *_: None),
    ("uses in regions", (planner,), "last_uses", _in_regions_unseen),
    ("that an expanded value may be its operand", (in_place,), "_owners", lambda value: [value]),
    ("what heap memory stands for", (Planner,), "_memory", lambda _, place: place),
    ("that a state is still read", (Planner,), "_update_in_place", _always_over_the_old),
    ("that a buffer lives in its last step", (arena,), "_overlap",
     lambda a, b: a.first < b.last and b.first < a.last),
)  # fmt: skip
WITNESSES = [
    *((case.graph, case.inputs()) for case in SHARING),
    *((case.graph, case.inputs()) for case in control.CASES if case.name == "scan_lstm"),
    *map(tangled, (1, 2, 7, 8, 15)),
]


def check_witnesses() -> None:
    for graph, inputs in WITNESSES:
        check(graph, inputs)


def test_witnesses_are_right() -> None:
    check_witnesses()


@pytest.mark.parametrize(
    ("places", "name", "wrong"),
    [pytest.param(*mistake, id=forgotten) for forgotten, *mistake in MISTAKES],
)
def test_mistakes_are_seen(
    monkeypatch: pytest.MonkeyPatch, places: tuple[Any, ...], name: str, wrong: Callable[..., Any]
) -> None:
    for place in places:
        monkeypatch.setattr(place, name, wrong)
    with pytest.raises((AssertionError, InternalError)) as seen:
        check_witnesses()
    other_values = isinstance(seen.value, AssertionError)
    assert other_values or "are accessed" in str(seen.value)  # outside of a buffer
