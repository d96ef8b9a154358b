"""Memory planning: buffers that live at the same time do not overlap."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from plan_runs import PlannedGraph
from random_graphs import build_tangled
from suites import control, patterns

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import Dim, evaluate, symbol, symbols_of
from tensmith.compiler.kernel.plan.arena import assign_offsets, lower_bound
from tensmith.compiler.kernel.plan.plan import ALIGNMENT, ArenaBuffer

TARGET = resolve_target("x86-64-v3")[1]
N, M = symbol("n"), symbol("m")
SIZES: st.SearchStrategy[Dim] = st.one_of(
    st.integers(0, 5000), st.sampled_from([N * 4, N * 400, N * M * 4, M * 8 + 12, (N + M) * 4])
)


@st.composite
def buffers(draw: st.DrawFn, sizes: st.SearchStrategy[Dim] = SIZES) -> list[ArenaBuffer]:
    made = []
    for _ in range(draw(st.integers(1, 12))):
        first = draw(st.integers(0, 20))
        made.append(ArenaBuffer(draw(sizes), first, first + draw(st.integers(0, 8))))
    return made


@given(buffers(), st.integers(0, 70), st.integers(0, 70))
def test_living_buffers_are_apart(arena: list[ArenaBuffer], n: int, m: int) -> None:
    sizes = {"n": n, "m": m}
    total = evaluate(assign_offsets(arena), sizes)
    placed = [(b, evaluate(b.offset, sizes), evaluate(b.size, sizes)) for b in arena]
    for _, start, size in placed:
        assert start >= 0
        assert start % ALIGNMENT == 0
        assert start + size <= total
    for (a, a_start, a_size), (b, b_start, b_size) in combinations(placed, 2):
        if a.first <= b.last and b.first <= a.last and a_size and b_size:
            assert a_start + a_size <= b_start or b_start + b_size <= a_start


@given(buffers(st.integers(1, 5000)))
def test_arena_holds_what_lives_at_once(arena: list[ArenaBuffer]) -> None:
    total = assign_offsets(arena)
    assert isinstance(total, int)
    assert lower_bound(arena) <= total


def drawn_buffers(rng: np.random.Generator) -> list[ArenaBuffer]:
    """Up to 40 buffers of few and of any sizes, that live up to nine steps of 40."""
    made = []
    for _ in range(int(rng.integers(2, 41))):
        first = int(rng.integers(31))
        size = int(rng.choice([64, 128, 1024, 4096, rng.integers(1, 9000)]))
        made.append(ArenaBuffer(size, first, first + int(rng.integers(9))))
    return made


def test_arena_is_close_to_its_lower_bound() -> None:
    """No placement of these needs more than a quarter above the bound, half of them nothing."""
    drawn = [drawn_buffers(np.random.default_rng(seed)) for seed in range(200)]
    ratios = sorted(evaluate(assign_offsets(arena), {}) / lower_bound(arena) for arena in drawn)
    assert ratios[len(ratios) // 2] == 1
    assert ratios[-len(ratios) // 20] <= 1.1
    assert ratios[-1] <= 1.25


def arena_ratio(graph: Graph, sizes: Mapping[str, int]) -> tuple[bool, float] | None:
    """Whether a plan's arena has symbols, and how often it holds the bound; None without one."""
    plan = PlannedGraph(graph, TARGET).plan
    if not plan.arena or any(symbols_of(b.size) - sizes.keys() for b in plan.arena):
        return None
    living = [ArenaBuffer(evaluate(b.size, sizes), b.first, b.last) for b in plan.arena]
    total = evaluate(plan.arena_bytes, sizes)
    return not isinstance(plan.arena_bytes, int), total / max(lower_bound(living), 1)


def test_arenas_of_graphs_are_close_to_their_lower_bounds() -> None:
    """Known sizes: a tenth above at most. Slots of symbolic sizes: 0.4, on average a tenth."""
    graphs = [case.graph() for case in (*patterns.CASES, *control.CASES)]
    graphs = [graph for graph in graphs if all(node.op != "fused" for node in graph.nodes)]
    graphs += [
        build_tangled(np.random.default_rng(seed).integers(0, 9999, 12).tolist(), symbols=seed % 4)
        for seed in range(12)
    ]
    found = [ratio for graph in graphs if (ratio := arena_ratio(graph, {"n": 64, "s": 64}))]
    known = [ratio for symbolic, ratio in found if not symbolic]
    symbolic = [ratio for symbolic, ratio in found if symbolic]
    assert len(known) > 20
    assert max(known) <= 1.1
    assert len(symbolic) > 10
    assert max(symbolic) <= 1.4
    assert sum(symbolic) / len(symbolic) <= 1.1


def test_memory_is_reused() -> None:
    chain = [ArenaBuffer(1024, step, step + 1) for step in range(8)]
    assert assign_offsets(chain) == 2048
    symbolic = [ArenaBuffer(N * 64, step, step + 1) for step in range(8)]
    assert evaluate(assign_offsets(symbolic), {"n": 16}) == 2048
