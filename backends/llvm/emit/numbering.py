"""Local value numbering: what a block has computed already is not appended to it again.

Slots of a tile, steps that are written out and tests of borders ask for the same indices, masks and
repeated scalars over and over. LLVM would find them, but only after each was made, printed, parsed
and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from llvmlite import ir

_PURE = (
    "add", "sub", "mul", "sdiv", "srem", "udiv", "urem", "and_", "or_", "icmp_signed",
    "icmp_unsigned", "select", "zext", "sext", "trunc", "gep", "insert_element", "shuffle_vector",
)  # fmt: skip


def _number(operand: Any) -> object:
    """What stands for an operand in a key: constants are the same if they are written the same."""
    if isinstance(operand, ir.Constant):
        return str(operand)
    if isinstance(operand, ir.Value):
        return id(operand)  # the function keeps it
    if isinstance(operand, ir.Type):
        return str(operand)
    return tuple(map(_number, operand)) if isinstance(operand, list | tuple) else operand


def _once(name: str) -> Callable[..., ir.Value]:
    build: Callable[..., ir.Value] = getattr(ir.IRBuilder, name)

    @wraps(build)
    def numbered(self: NumberingBuilder, *operands: Any, **more: Any) -> ir.Value:
        known = self.known.setdefault(self.block, {})
        key = (name, _number(operands), *((word, _number(value)) for word, value in more.items()))
        found = known.get(key)
        if found is None:
            found = known[key] = build(self, *operands, **more)
        return found

    return numbered


class NumberingBuilder(ir.IRBuilder):  # type: ignore[misc]
    """A builder that gives the instruction which its block has for pure ones that it is asked for.

    It has to append at the ends of blocks, or before what terminates them.
    """

    def __init__(self, block: ir.Block) -> None:
        super().__init__(block)
        self.known: dict[ir.Block, dict[object, ir.Value]] = {}


for _name in _PURE:
    setattr(NumberingBuilder, _name, _once(_name))
