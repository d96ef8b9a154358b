"""Matrix products of two operands that the run makes: in groups of steps, packed by the run.

Attention multiplies queries by keys, and weights by values. Instructions that take several steps of
a sum at once want those of the right operand side by side, which no tensor of a model has them, so
a kernel packs it first: of an operand that many rows meet, that is little.
"""

from __future__ import annotations

import numpy as np

from ...compiler.ir.graph import Node, Value, constant
from ...compiler.ir.ops.step_groups import GROUP, GROUP_PRODUCTS
from ...compiler.ir.rewrite import Rewriter
from ..layout.operand_panels import many_rows

FEWEST_COLUMNS = 16  # fewer fill no vector
FEWEST_DEPTH = 16  # products of a sum: fewer are done before the packing pays


def why_no_groups(node: Node) -> str:
    """Why a product of two operands that the run makes is not computed in groups; "" if it is."""
    left, right = node.inputs[:2]
    if node.op != "matmul" or right.is_constant:
        return "only matrix products are packed by the run"
    depth, columns = right.shape[-2:]
    if not isinstance(depth, int) or left.shape[-1] != depth:
        return "how many products are added up is known to the run only"
    if depth < FEWEST_DEPTH or (isinstance(columns, int) and columns < FEWEST_COLUMNS):
        return "its matrices are small"
    if not many_rows(node):
        return "few rows meet the operand that the run would have to pack"
    return ""


def product_of_groups(rw: Rewriter, op: str, left: Value, right: Value, flip: int = 0) -> Value:
    """left [.., M, K] times right [.., K, N], K known, by an operator of groups (`dot4`, `dot2`).

    K is filled up to whole groups. flip: bits of every element of the right operand that change.
    """
    steps, depth = GROUP_PRODUCTS[op].steps, left.shape[-1]
    assert isinstance(depth, int)
    missing = -depth % steps
    if missing:
        left = _filled(rw, left, -1, missing, 0)
        right = _filled(rw, right, -2, missing, flip)
    groups = [
        rw.emit("pack_groups", [value], {"axis": axis}) for value, axis in ((left, -1), (right, -2))
    ]
    if flip:
        bits = right.dtype.bits
        pattern = sum(flip << (bits * step) for step in range(steps))
        signed = constant(np.asarray(pattern, np.uint32).view(GROUP.numpy))
        groups[1] = rw.emit("bitxor", [groups[1], signed])
    return rw.emit("matmul", groups, {"product": op})


def _filled(rw: Rewriter, value: Value, axis: int, missing: int, fill: int) -> Value:
    pads = [0] * (2 * value.type.rank)  # first those before, then those behind
    pads[axis] = missing
    operands = [value]
    if fill:
        operands.append(constant(value.dtype.numpy.type(fill)))
    return rw.emit("pad", operands, {"pads": tuple(pads), "mode": "constant"})
