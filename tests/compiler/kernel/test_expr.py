"""Expressions whose parts are shared: every part is looked at once, not once for each path."""

from __future__ import annotations

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir.dims import symbol
from tensmith.compiler.ir.types import DType
from tensmith.compiler.kernel.cost.cycles import stage_cycles
from tensmith.compiler.kernel.expr import Acc, Apply, Buffer, Const, Dependences, Expr, Load
from tensmith.compiler.kernel.kernel import Axis, Stage, Store
from tensmith.compiler.kernel.schedule.schedule import RegisterTile, StageSchedule

ROW, COLUMN, N = (symbol(name) for name in ("$r", "$c", "n"))
TARGET = resolve_target("x86-64-v4")[1]
DOUBLINGS = 64  # as a tree, more parts than can be counted


def load(*offsets: object) -> Load:
    return Load(Buffer("x", DType.F32), sum(offsets))  # type: ignore[call-overload]


def doubled(part: Expr, times: int) -> Expr:
    for _ in range(times):
        part = Apply("add", (part, part), DType.F32)
    return part


def test_dependences_are_those_of_all_operands() -> None:
    dependences = Dependences()
    index = Load(Buffer("i", DType.I64), COLUMN)
    gathered = Load(Buffer("x", DType.F32), N * ROW, ((index, N),))
    total = Apply("mul", (gathered, Acc(0, DType.F32)), DType.F32)
    assert dependences.of(index) == ({"$c"}, False)
    assert dependences.of(gathered) == ({"n", "$r", "$c"}, False)
    assert dependences.of(total) == ({"n", "$r", "$c"}, True)
    assert dependences.of(Const(1.0, DType.F32)) == (frozenset(), False)


def test_shared_parts_are_looked_at_once() -> None:
    whole = doubled(Apply("mul", (load(N * ROW), load(COLUMN)), DType.F32), DOUBLINGS)
    assert Dependences().of(whole) == ({"n", "$r", "$c"}, False)


def test_cycles_of_a_stage_with_shared_parts() -> None:
    own = StageSchedule(RegisterTile("$c", 16, 2, "$r", 4))

    def cycles(times: int, *offsets: object) -> float:
        value = doubled(load(*offsets), times)
        store = Store(Buffer("y", DType.F32), 64 * ROW + COLUMN, value)
        stage = Stage((Axis("$r", 8), Axis("$c", 64)), (), (), (store,))
        return stage_cycles(stage, own, {"$r": 8, "$c": 64}, TARGET)

    by_row, by_column, by_both = (
        cycles(DOUBLINGS, *offsets) - cycles(DOUBLINGS // 2, *offsets)
        for offsets in ((ROW,), (COLUMN,), (64 * ROW, COLUMN))
    )
    # a tile of 4 rows and 2 vectors: what moves along one of them only is computed once for it
    assert (by_row, by_column) == (by_both / 2, by_both / 4)
