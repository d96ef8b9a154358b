"""Memory planning: buffers that live at the same time do not overlap."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tensmith.compiler.ir.dims import Dim, evaluate, symbol
from tensmith.compiler.kernel.plan.memory import assign_offsets, lower_bound
from tensmith.compiler.kernel.plan.plan import ALIGNMENT, ArenaBuffer

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
def test_arena_is_no_larger_than_all_buffers(arena: list[ArenaBuffer]) -> None:
    total = assign_offsets(arena)
    assert isinstance(total, int)
    assert lower_bound(arena) <= total
    assert total <= sum(-(-int(str(b.size)) // ALIGNMENT) * ALIGNMENT for b in arena)


def test_memory_is_reused() -> None:
    chain = [ArenaBuffer(1024, step, step + 1) for step in range(8)]
    assert assign_offsets(chain) == 2048
    symbolic = [ArenaBuffer(N * 64, step, step + 1) for step in range(8)]
    assert evaluate(assign_offsets(symbolic), {"n": 16}) == 2048
