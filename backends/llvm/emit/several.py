"""What is computed for several slots of a tile at once, as one operation on wider vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llvmlite import ir

from ....compiler.kernel import expr as ex
from .builder import Emitter, is_vector
from .shape import Guard, Shape, Slot


class Slots(Protocol):
    """The tile that has the slots (`tile.py`). memo: values by expression, slot and guard."""

    e: Emitter
    shape: Shape
    guard: Guard
    memo: dict[object, ir.Value]

    def depends(self, expression: ex.Expr) -> tuple[bool, bool]:
        """Whether the expression differs between rows, and between vectors."""
        ...

    def value(self, expression: ex.Expr, slot: Slot) -> ir.Value:
        """The expression at a slot."""
        ...


def for_several(
    tile: Slots,
    expression: ex.Apply,
    slot: Slot,
    most: int,
    apply: Callable[[ir.Value, int], ir.Value],
) -> ir.Value:
    """An expression at a slot, whose first operand `apply` makes it of, and by the way at those
    after it that need their own, up to `most`.

    apply: from the operand at several slots, end to end, and their number.
    """
    by_row, by_vector = tile.depends(expression)
    found: dict[object, Slot] = {}
    for r, v in filter(tile.guard.covers, tile.shape.slots()):
        key = (id(expression), r if by_row else -1, v if by_vector else -1, tile.guard.key)
        if key not in tile.memo and (found or (r, v) == slot):
            found.setdefault(key, (r, v))
    count = 1 << (max(1, min(len(found), most)).bit_length() - 1)
    keys = list(found)[:count]
    values = [tile.value(expression.args[0], found[key]) for key in keys]
    if not is_vector(values[0]):
        keys, values = keys[:1], values[:1]
    wide = apply(tile.e.joined(values), len(keys))
    tile.memo.update(zip(keys, tile.e.parts(wide, len(keys)), strict=True))
    result: ir.Value = tile.memo[keys[0]]
    return result
