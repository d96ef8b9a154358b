"""Common subexpression elimination, of whole regions too."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Array, Trait, has_trait

Key = tuple[Hashable, ...]
_CORNER = 4  # elements along each axis of a large constant that are compared first
_CHUNK = 1 << 20  # bytes that are compared at once


@dataclass(frozen=True)
class CommonSubexpressions:
    """Compute once what is computed twice; equal constants are one.

    A region sees the expressions of the graphs around it. Nodes whose regions compute the same from
    the same are equal; those with effects are left. max_bytes: of constants that are compared as
    they are found; larger ones are compared where a sample of their elements is equal.
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
            for region in node.regions:
                self.graph(region, known, set())
            key = _key(node)
            same = _noted(node, key, known) if key is not None else None
            if same is not None and not (_named(node, results) and _named(same, results)):
                self._merge(node, same, results)
                continue
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
        if data is None:
            return value
        found = self.canonical.get(value)
        if found is None:
            large = data.nbytes > self.max_bytes
            sample = _sample(data) if large else np.ascontiguousarray(data)
            key = (value.dtype, data.shape, sample.tobytes())
            found = self.constants.setdefault(key, value)
            if large and found is not value and not _equal(found, data):
                found = value
            self.canonical[value] = found
        self.changed |= found is not value
        return found


def _named(node: Node, results: set[Value]) -> bool:
    """Whether some output of the node is a result whose name matters."""
    return not results.isdisjoint(node.outputs)


def _sample(data: Array) -> Array:
    """Some elements of an array: of its first and last corner."""
    first, last = ((slice(*ends),) * data.ndim for ends in ((None, _CORNER), (-_CORNER, None)))
    return np.concatenate([data[first].ravel(), data[last].ravel()])


def _equal(value: Value, data: Array) -> bool:
    """Whether a constant has the bytes of an array of its shape and type."""
    assert value.data is not None
    one, other = (np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in (value.data, data))
    starts = range(0, one.size, _CHUNK)
    return all(np.array_equal(one[i : i + _CHUNK], other[i : i + _CHUNK]) for i in starts)


def _noted(node: Node, key: Key, known: dict[Key, Node]) -> Node | None:
    """The node before this one that computes the same; where there is none, this one is noted.

    Attributes count where something else has the key.
    """
    first = known.setdefault(key, node)
    if first is node:
        return None
    known.setdefault((key, _attributes(first)), first)
    same = known.setdefault((key, _attributes(node)), node)
    return None if same is node else same


def _key(node: Node) -> Key | None:
    """Equal for nodes that compute the same, but for attributes of those without regions (Sym and
    DType attributes hash by what they are); None for those that are equal to no others."""
    if has_trait(node, Trait.EFFECT):
        return None
    if node.regions:
        return None if node.attrs.get("bound") else _region_key(node, {})
    return _plain_key(node)


def _region_key(node: Node, numbers: dict[Value, int]) -> Key | None:
    """The key of a node with regions; values of these count by where they are made."""
    own = [numbers.get(value, value) for value in node.inputs]
    found: list[Hashable] = [node.op, tuple(own), _attributes(node)]
    for region in node.regions:
        for value in region.inputs:
            numbers[value] = len(numbers)
        found.append(tuple(value.type for value in region.inputs))
        for inner in region.nodes:
            if has_trait(inner, Trait.EFFECT) or inner.attrs.get("bound"):
                return None
            key = _region_key(inner, numbers)
            if key is None:
                return None
            found.append(key)
            for value in inner.outputs:
                numbers[value] = len(numbers)
        found.append(tuple(numbers.get(value, value) for value in region.outputs))
    return tuple(found)


def _attributes(node: Node) -> Key:
    return tuple((name, _frozen(item)) for name, item in sorted(node.attrs.items()))


def _plain_key(node: Node) -> Key:
    inputs = list(node.inputs)
    if has_trait(node, Trait.COMMUTATIVE) and len(inputs) == 2:
        inputs.sort(key=id)
    return (node.op, tuple(inputs))


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
