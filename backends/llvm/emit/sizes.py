"""Sizes that hold all over a function, and what they decide, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llvmlite import ir

from ....compiler.ir.dims import Call


class SizeHolder:
    """What appends to a function in which symbols may have values from some place on.

    held: those symbols. sizes: calls that they decide and that were computed.
    """

    b: ir.IRBuilder
    function: ir.Function

    def __init__(self) -> None:
        self.held: Mapping[str, int | ir.Value] = {}
        self.sizes: dict[Call, int | ir.Value] = {}
        self._sizes_block: ir.Block | None = None

    def hold(self, values: Mapping[str, int | ir.Value]) -> None:
        """Let symbols have these values from here on: what they decide is computed here, once."""
        self.held, self._sizes_block = dict(values), self.b.block
        following = self.function.append_basic_block("sized")
        self.b.branch(following)
        self.b.position_at_end(following)

    def sizing(self) -> Any:
        """A context that emits to where what the held symbols decide is computed."""
        return self.b.goto_block(self._sizes_block)
