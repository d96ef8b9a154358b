"""Vector constants, written so that LLVM's text stays short and none is written twice."""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir


class Splat(ir.Constant):  # type: ignore[misc]
    """A vector constant with one number in every lane, written as such: LLVM's text stays short."""

    def __init__(self, type_: ir.VectorType, value: Any) -> None:
        self.type = type_
        self.constant = [ir.Constant(type_.element, value)] * type_.count

    def _get_reference(self) -> str:
        return f"splat ({self.constant[0]})"


@cache
def lanes_from(first: int, count: int, type_: ir.Type) -> ir.Constant:
    """The vector constant first, first + 1, ... of so many lanes."""
    return ir.Constant(ir.VectorType(type_, count), list(range(first, first + count)))


class _Undefined(ir.Constant):  # type: ignore[misc]
    def __init__(self, type_: ir.Type) -> None:
        self.type = type_
        self.constant = ir.Undefined


def undefined(type_: ir.Type) -> ir.Constant:
    """A value of the type that nothing reads, written as one word."""
    return _Undefined(type_)


def is_first_lane(mask: ir.Value | None) -> bool:
    """Whether a mask is known to leave the first lane alone."""
    if not isinstance(mask, ir.Constant) or not isinstance(mask.constant, list):
        return False
    lanes = [bool(getattr(lane, "constant", lane)) for lane in mask.constant]
    return lanes[0] and not any(lanes[1:])
