"""Rules: bytes are moved before they are widened, so that products read them as they are, and not
at all where weights can be moved instead."""

from __future__ import annotations

from ....compiler.ir.graph import Node
from ....compiler.ir.ops.registry import Trait
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules, scalar
from ....compiler.ir.types import DType
from ...layout import moved_weights

RULES = Rules()
_NARROW = (DType.I8, DType.I16)


@RULES.on(Trait.INDEX_MAP, Trait.VIEW)
def before_widening(node: Node, rw: Rewriter) -> Replacement:
    """movement(i32(q) - z) -> i32(movement(q)) - z"""
    if len(node.inputs) != 1 or node.output.dtype is not DType.I32:
        return None
    value, number = node.inputs[0], None
    moved = rw.producer(value, "add")
    if moved is not None and (number := scalar(moved.inputs[1])) is not None:
        value = moved.inputs[0]
    made = rw.producer(value, "cast")
    if made is None or made.inputs[0].dtype not in _NARROW:
        return None
    wide = rw.emit("cast", [rw.emit(node.op, [made.inputs[0]], node.attrs)], {"dtype": DType.I32})
    return wide if number is None or moved is None else rw.emit("add", [wide, moved.inputs[1]])


RULES.extend(moved_weights.RULES)
