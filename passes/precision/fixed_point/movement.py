"""Rules: bytes are moved before they are widened, so that products read them as they are, and not
at all where weights can be moved instead."""

from __future__ import annotations

import math

import numpy as np

from ....compiler.ir.graph import Node, constant
from ....compiler.ir.ops.registry import Trait
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules, scalar
from ....compiler.ir.types import DType

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


@RULES.on("matmul")
def of_transposed(node: Node, rw: Rewriter) -> Replacement:
    """i32(flattened(transpose(q))) W -> i32(flattened(q)) W', the rows of constant weights moved"""
    weights = node.inputs[1].data
    if weights is None or weights.ndim != 2:
        return None
    number, value = None, node.inputs[0]
    moved = rw.producer(value, "add")
    if moved is not None and (number := scalar(moved.inputs[1])) is not None:
        value = moved.inputs[0]
    made = rw.producer(value, "cast")
    flat = rw.producer(made.inputs[0], "reshape") if made is not None else None
    turned = rw.producer(flat.inputs[0], "transpose") if flat is not None else None
    if flat is None or turned is None or not turned.output.type.is_static:
        return None
    kept = flat.output.type.rank - 1  # axes in front of the flattened ones
    perm, shape = turned.attrs["perm"], turned.output.shape
    if tuple(perm[:kept]) != tuple(range(kept)) or shape[:kept] != flat.output.shape[:-1]:
        return None
    if math.prod(shape[kept:]) != weights.shape[0]:
        return None
    source = turned.inputs[0]
    order = np.arange(weights.shape[0]).reshape([int(n) for n in shape[kept:]])
    order = order.transpose(np.argsort([axis - kept for axis in perm[kept:]])).reshape(-1)
    x = rw.emit("reshape", [source], {"shape": flat.output.shape})
    wide = rw.emit("cast", [x], {"dtype": DType.I32})
    if number is not None and moved is not None:
        wide = rw.emit("add", [wide, moved.inputs[1]])
    return rw.emit("matmul", [wide, constant(weights[order], node.inputs[1].name)], node.attrs)
