"""Quantising what is quantised already.

Exporters round the operands and results of every operator to integers, also of those that only move
elements: most of these roundings give each integer back as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....compiler.errors import TensmithError
from ....compiler.ir.graph import Node
from ....compiler.ir.ops.registry import Trait, has_trait, lookup
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules, scalar
from ....compiler.ir.types import DType

RULES = Rules()
_BITS = 16  # of the integers that are all tried
_FIRST = 256  # of them are tried first, as most functions are others
_LONGEST = 24  # operators between an integer and itself
_Step = tuple[Node, int]  # a node, and which of its inputs is not a number


@RULES.on("cast")
def requantised(node: Node, rw: Rewriter) -> Replacement:
    """A function of one integer that is found to give every integer of its type back goes.

    It consists of pointwise operators with numbers as their other operands; elements may be moved
    in between, and still are.
    """
    dtype = node.output.dtype
    if not dtype.is_integer or dtype.bits > _BITS:
        return None
    steps = _function(node, rw)
    if not steps or not _keeps_all(steps, dtype):
        return None
    first, position = steps[0]
    result = first.inputs[position]
    for step, _ in steps:
        if has_trait(step, Trait.INDEX_MAP):
            result = rw.emit(step.op, [result], step.attrs)
    return result


def _function(node: Node, rw: Rewriter) -> list[_Step]:
    """The steps from a value of the node's type to the node; empty if there is no such value."""
    steps: list[_Step] = []
    current: Node | None = node
    while current is not None and len(steps) < _LONGEST:
        position = _operand(current)
        if position is None:
            return []
        steps.insert(0, (current, position))
        value = current.inputs[position]
        if value.dtype is node.output.dtype:
            return steps
        current = rw.producer(value)
    return []


def _operand(node: Node) -> int | None:
    """Which input a step works on, None where the node is no step."""
    if has_trait(node, Trait.INDEX_MAP):
        return 0
    if not has_trait(node, Trait.POINTWISE):
        return None
    varying = [i for i, value in enumerate(node.inputs) if scalar(value) is None]
    if len(varying) != 1 or node.inputs[varying[0]].shape != node.output.shape:
        return None
    return varying[0]


def _keeps_all(steps: Sequence[_Step], dtype: DType) -> bool:
    limits = np.iinfo(dtype.numpy)
    every = np.arange(limits.min, limits.max + 1).astype(dtype.numpy)
    for values in (every[:: max(1, len(every) // _FIRST)], every):
        results = _results(steps, values)
        if results is None or not np.array_equal(results, values):
            return False
    return True


def _results(steps: Sequence[_Step], values: np.ndarray) -> np.ndarray | None:
    """What the steps make of integers, None where they cannot be computed."""
    for node, position in steps:
        evaluate = lookup(node.op).evaluate
        if has_trait(node, Trait.INDEX_MAP):
            continue
        if evaluate is None:
            return None
        operands = [
            values if i == position or value.data is None else value.data.reshape(-1)[:1]
            for i, value in enumerate(node.inputs)
        ]
        try:
            with np.errstate(all="ignore"):
                values = evaluate(operands, node.attrs)[0]
        except (TensmithError, ValueError, ArithmeticError):
            return None
    return values
