"""Vectors of which hardly any has a lane that takes another, slower way."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from .builder import I1, Emitter


def with_rare_lanes(
    e: Emitter, fast: ir.Value, rare: ir.Value, slow: Callable[[], ir.Value]
) -> ir.Value:
    """`fast`, or, in lanes that are rare, what `slow` emits; that is run where there is such a
    lane."""
    some = e.call(f"llvm.vector.reduce.or.v{fast.type.count}i1", I1, [rare])
    before = e.b.block
    with e.b.if_then(some, likely=False):
        exact = e.b.select(rare, slow(), fast)
        inside = e.b.block
    result = e.b.phi(fast.type)
    result.add_incoming(fast, before)
    result.add_incoming(exact, inside)
    return result
