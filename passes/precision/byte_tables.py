"""Functions of one byte, from what is dequantised to what is quantised again, as tables.

A chain of pointwise operators between bytes with one scale and bytes with one scale has 256
results, which numpy computes here from the operators themselves: a table gives the same bits. It
stands where looking up takes fewer instructions than the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.byte_table import BYTE_TABLE, SIZE
from ...compiler.ir.ops.registry import Trait, has_trait, lookup
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar
from ...compiler.ir.types import DType
from ...compiler.kernel.byte_lookup import lookup_operations
from ...compiler.kernel.cost.cycles import EXPENSIVE_OPERATIONS
from ...compiler.kernel.expr import EXPENSIVE
from ...compiler.target import CpuTarget, Target
from .parameters import one_scale

Array = np.ndarray[Any, Any]
_BYTES = (DType.U8, DType.I8)
_LONGEST = 64  # operators of a chain
# instructions of a vector of f32: conversion, difference, product; bounds, quotient, rounding,
# sum, conversion (`lower_quantisation.py`)
_QUANTISATION = {"dequantize": 3.0, "quantize": 10.0}


@dataclass(frozen=True)
class ByteTables:
    """The pass. target: for which instructions are counted."""

    target: Target
    name: str = "byte_tables"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        if not isinstance(self.target, CpuTarget):
            return False
        rules = Rules()
        rules.on("quantize")(partial(table_of_chain, pays=partial(_pays, target=self.target)))
        return rewrite(graph, rules)


def table_of_chain(
    node: Node,
    rw: Rewriter,
    pays: Callable[[Sequence[Node]], bool],
    *,
    shared: bool = False,
) -> Replacement:
    """quantize(f(dequantize(x))) -> byte_table(x), where that pays for the nodes of f.

    shared: also where others read what is computed inside of f.
    """
    if not one_scale(node) or node.output.dtype not in _BYTES:
        return None
    if any(value.data is None for value in node.inputs[1:]):
        return None
    found = _Chain(rw, shared)
    if not found.of(node) or len(found.roots) != 1:
        return None
    (root,) = found.roots
    if root.shape != node.output.shape or not pays(found.nodes):
        return None
    values = _values(found.nodes, root, node.output)
    return rw.emit(BYTE_TABLE, [root], {"values": values, "dtype": node.output.dtype})


class _Chain:
    """The nodes between bytes and a result that hangs on nothing but them, in execution order.

    roots: the bytes; tables of others count as these. shared: whether others may read what is
    inside.
    """

    def __init__(self, rw: Rewriter, shared: bool) -> None:
        self.rw, self.shared = rw, shared
        self.nodes: list[Node] = []
        self.roots: set[Value] = set()
        self._seen: set[Node] = set()

    def of(self, node: Node) -> bool:
        """Collect; whether there is such a chain."""
        if node in self._seen:
            return True
        if len(self._seen) > _LONGEST or not has_trait(node, Trait.POINTWISE):
            return False
        self._seen.add(node)
        for value in node.inputs:
            if scalar(value) is not None:
                continue
            made = self.rw.producer(value)
            if value.is_constant or made is None:
                return False
            if made.op == "dequantize":
                if not self._dequantised(made):
                    return False
            elif self._is_left(value, node) or not self.of(made):
                return False
        self.nodes.append(node)
        return True

    def _is_left(self, value: Value, node: Node) -> bool:
        """Whether a value is to be computed for others than a node as well."""
        return not self.shared and self.rw.uses(value) > node.inputs.count(value)

    def _dequantised(self, node: Node) -> bool:
        """Collect what makes floats of bytes, and the table that those come from."""
        if node in self._seen:
            return True
        x = node.inputs[0]
        if x.dtype not in _BYTES or not one_scale(node) or x.is_constant:
            return False
        if any(value.data is None for value in node.inputs[1:]):
            return False
        self._seen.add(node)
        before = self.rw.producer(x, BYTE_TABLE)
        if before is not None:
            self.roots.add(before.inputs[0])
            if before not in self._seen:
                self._seen.add(before)
                self.nodes.append(before)
        else:
            self.roots.add(x)
        self.nodes.append(node)
        return True


def _pays(nodes: Sequence[Node], *, target: CpuTarget) -> bool:
    """Whether a lookup takes fewer instructions than the chain, for a vector of f32."""
    chain = 0.0
    for node in nodes:
        usual = EXPENSIVE_OPERATIONS if node.op in EXPENSIVE else 1.0
        chain += _QUANTISATION.get(node.op, usual) if node.op != BYTE_TABLE else 0.0
    wide, narrow = target.lanes(8), target.lanes(32)
    looked_up = lookup_operations(wide, target.instructions) * narrow / wide
    return looked_up < chain


def _values(nodes: Sequence[Node], root: Value, result: Value) -> tuple[int, ...]:
    """The results for all bytes, as the operators have them."""
    every = np.arange(SIZE, dtype=np.uint8).view(root.dtype.numpy)
    known: dict[Value, Array] = {root: every}
    for node in nodes:
        operands = [
            known[value] if value in known else np.asarray(scalar(value), value.dtype.numpy)
            for value in node.inputs
        ]
        evaluate = lookup(node.op).evaluate
        assert evaluate is not None
        known[node.output] = evaluate(operands, node.attrs)[0]
    return tuple(np.broadcast_to(known[result], (SIZE,)).view(np.uint8).tolist())
