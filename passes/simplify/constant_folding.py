"""Constant folding: evaluate nodes whose inputs are all constants, within bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.errors import TensmithError
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Trait, has_trait, lookup
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, attribute_symbols, rewrite


@dataclass(frozen=True)
class ConstantFolding:
    """Evaluate constant nodes.

    max_bytes: largest result that may be larger than what it is made of. max_growth: how many
    times the bytes of its inputs a larger result may have. max_spread_bytes: largest result that
    repeats elements (broadcasts) or comes from nothing (iota). max_operations: largest estimate of
    scalar operations for one node.
    """

    max_bytes: int = 1 << 22
    max_growth: int = 4
    max_spread_bytes: int = 1 << 16
    max_operations: int = 1 << 30
    name: str = "constant_folding"

    def run(self, graph: Graph) -> bool:
        """Fold what can be folded; whether anything was."""
        rules = Rules()

        @rules.on()
        def fold(node: Node, rw: Rewriter) -> Replacement:
            return self._fold(node)

        return rewrite(graph, rules)

    def _fold(self, node: Node) -> Replacement:
        if node.regions or not all(value.is_constant for value in node.inputs):
            return None
        evaluate = lookup(node.op).evaluate
        if (
            evaluate is None
            or has_trait(node, Trait.EFFECT | Trait.QUANTISATION)
            or not self._affordable(node)
        ):
            return None
        arrays = [value.data for value in node.inputs if value.data is not None]
        try:
            with np.errstate(all="ignore"):
                results = evaluate(arrays, node.attrs)
        except (TensmithError, ValueError, IndexError, ArithmeticError):
            return None  # an error of the model (an index out of range) is the run's to report
        return [
            constant(np.asarray(result, dtype=value.dtype.numpy), value.name)
            for result, value in zip(results, node.outputs, strict=True)
        ]

    def _affordable(self, node: Node) -> bool:
        if not all(value.type.is_static for value in node.outputs):
            return False
        if any(attribute_symbols(attribute) for attribute in node.attrs.values()):
            return False
        made = sum(_bytes(value) for value in node.outputs)
        given = sum(_bytes(value) for value in node.inputs)
        spreads = has_trait(node, Trait.INDEX_MAP) or not node.inputs
        limit = self.max_spread_bytes if spreads else max(self.max_bytes, given * self.max_growth)
        return made <= max(limit, given) and _operations(node) <= self.max_operations


def _elements(value: Value) -> int:
    total = 1
    for dim in value.type.static_shape:
        total *= dim
    return total


def _bytes(value: Value) -> int:
    return _elements(value) * value.dtype.bytes


def _operations(node: Node) -> int:
    made = sum(_elements(value) for value in node.outputs)
    given = sum(_elements(value) for value in node.inputs)
    if has_trait(node, Trait.CONTRACTION):
        weights = node.inputs[1]
        return made * _elements(weights) // max(weights.type.static_shape[-1], 1)
    return made + given
