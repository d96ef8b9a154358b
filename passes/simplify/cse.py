"""Common subexpression elimination."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class CommonSubexpressions:
    """Compute once what is computed twice; also merges equal constants of up to `max_bytes`.

    A region sees the expressions of the graphs around it. Nodes with regions or effects are left.
    """

    max_bytes: int = 1 << 16
    name: str = "cse"

    def run(self, graph: Graph) -> bool:
        """Merge equal nodes; whether there were any."""
        state = _Merge(self.max_bytes)
        state.graph(graph, {}, set(graph.outputs))
        return state.changed


@dataclass
class _Merge:
    max_bytes: int
    changed: bool = False
    replaced: dict[Value, Value] = field(default_factory=dict)
    constants: dict[Key, Value] = field(default_factory=dict)
    canonical: dict[Value, Value] = field(default_factory=dict)

    def graph(self, graph: Graph, outer: dict[Key, Node], results: set[Value]) -> None:
        """outer: expressions of the graphs around. results: whose names users of the model know,
        which those of a region are not."""
        known = dict(outer)
        kept: list[Node] = []
        for node in graph.nodes:
            node.inputs = [self._value(value) for value in node.inputs]
            key = None if node.regions or has_trait(node, Trait.EFFECT) else _key(node)
            same = known.get(key) if key is not None else None
            if same is not None and not (_named(node, results) and _named(same, results)):
                self._merge(node, same, results)
                continue
            if key is not None:
                known[key] = node
            for region in node.regions:
                self.graph(region, known, set())
            kept.append(node)
        graph.nodes = kept
        graph.outputs = [self.replaced.get(value, value) for value in graph.outputs]

    def _merge(self, node: Node, same: Node, results: set[Value]) -> None:
        self.changed = True
        for old, new in zip(node.outputs, same.outputs, strict=True):
            self.replaced[old] = new
            if old in results and new not in results:
                new.name = old.name
                results.add(new)

    def _value(self, value: Value) -> Value:
        value = self.replaced.get(value, value)
        data = value.data
        if data is None or data.nbytes > self.max_bytes:
            return value
        found = self.canonical.get(value)
        if found is None:
            key = (value.dtype, data.shape, np.ascontiguousarray(data).tobytes())
            found = self.canonical[value] = self.constants.setdefault(key, value)
        self.changed |= found is not value
        return found


def _named(node: Node, results: set[Value]) -> bool:
    """Whether some output of the node is a result whose name matters."""
    return not results.isdisjoint(node.outputs)


def _key(node: Node) -> Key:
    """Equal for nodes that compute the same (Sym and DType attributes hash by what they are)."""
    inputs = list(node.inputs)
    if has_trait(node, Trait.COMMUTATIVE) and len(inputs) == 2:
        inputs.sort(key=id)
    attrs = tuple((name, _frozen(item)) for name, item in sorted(node.attrs.items()))
    return (node.op, tuple(inputs), attrs)


def _frozen(attribute: Any) -> Hashable:
    if isinstance(attribute, list | tuple):
        if all(type(item) is int for item in attribute):
            return ("ints", *attribute)
        return tuple(_frozen(item) for item in attribute)
    if isinstance(attribute, np.ndarray):
        return (attribute.dtype.str, attribute.shape, attribute.tobytes())
    if isinstance(attribute, float):  # 0.0 == -0.0, and nan is unlike itself
        return ("float", attribute.hex())
    return (type(attribute).__name__, attribute)
