"""Fused nodes: groups of operators, each of which becomes one kernel.

Whatever builds, merges or re-lays-out their regions does it here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from .dims import Dim, Sym, Symbol
from .graph import Graph, Node, Value
from .ops.registry import lookup
from .text import print_attribute, print_data
from .types import Layout

KEY_DIGITS = 16  # of a group's key: hexadecimal


def group_of(key: str) -> str:
    """The key of the group whose kernel this is the key of: what tells its kernels apart is behind
    a "+"."""
    return key.partition("+")[0]


def is_fused(node: Node | Graph | None) -> bool:
    """Whether a node is a group."""
    return isinstance(node, Node) and node.op == "fused"


def fused_node(
    operands: Sequence[Value],
    results: Sequence[Value],
    region: Graph,
    *,
    form: str = "",
    name: str = "",
) -> Node:
    """A fused node around a region, which gives values that exist already.

    form: see `kernel/forms/form.py`.
    """
    return Node("fused", list(operands), list(results), {"form": form}, [region], name)


def control_graphs(graph: Graph) -> list[Graph]:
    """The graph and the regions of its control flow, not those of groups."""
    found = [graph]
    for node in graph.nodes:
        if not is_fused(node):
            for region in node.regions:
                found += control_graphs(region)
    return found


class RegionBuilder:
    """Builds the region of a fused node from copies of nodes.

    comes_from: what a value that is read, and has no copy yet, is copied from: a node, which is
    copied first; a value around the group, which becomes an operand; None where the value stays as
    it is, which is what values do by default.
    """

    def __init__(self, comes_from: Callable[[Value], Node | Value | None] | None = None) -> None:
        self._comes_from = comes_from or (lambda _: None)
        self._copies: dict[Value, Value] = {}
        self._operands: dict[Value, Value] = {}
        self._region = Graph(name="fused")

    def read(self, value: Value) -> Value:
        """What stands for a value in the region."""
        if value not in self._copies:
            source = self._comes_from(value)
            if source is None:
                return value
            if isinstance(source, Node):
                self.copy(source)
            else:
                self._bind(value, source)
        return self._copies[value]

    def copy(self, node: Node) -> None:
        """Add a copy of a node, without its regions."""
        inputs = [self.read(value) for value in node.inputs]
        outputs = [Value(value.type, value.name) for value in node.outputs]
        self.add(Node(node.op, inputs, outputs, node.attrs, (), node.name), node.outputs)

    def add(self, node: Node, results: Sequence[Value]) -> None:
        """Add a node of the region, whose outputs stand for `results`."""
        self._region.nodes.append(node)
        self._copies.update(zip(results, node.outputs, strict=True))

    def inline(self, group: Node) -> None:
        """Add copies of what is in a fused node; results of groups added earlier are read there."""
        own = group.regions[0]
        for outer, inner in zip(group.inputs, own.inputs, strict=True):
            self._bind(inner, outer)
        for node in own.nodes:
            self.copy(node)
        for outer, inner in zip(group.outputs, own.outputs, strict=True):
            self._copies[outer] = self._copies[inner]

    def nest(self, group: Node) -> None:
        """Add a fused node as it is, in plain loops, around the same region."""
        for value in group.inputs:
            self._bind(value, value)
        inputs = [self._copies[value] for value in group.inputs]
        outputs = [Value(value.type, value.name) for value in group.outputs]
        self.add(fused_node(inputs, outputs, group.regions[0], name=group.name), group.outputs)

    def close(self, results: Sequence[Value]) -> tuple[list[Value], Graph]:
        """(operands, region) of a group that gives what stands for `results`."""
        self._region.outputs = [self._copies[value] for value in results]
        return list(self._operands), self._region

    def _bind(self, value: Value, outer: Value) -> None:
        """Let what stands for a value around the region, else an operand, stand for `value`."""
        if outer not in self._copies and outer not in self._operands:
            self._operands[outer] = Value(value.type, value.name)
            self._region.inputs.append(self._operands[outer])
        self._copies[value] = self._copies.get(outer) or self._operands[outer]


class Uses:
    """Who makes and who reads the values of a graph and of its regions.

    It is taken once; of later changes it knows those of `replace_groups`.
    """

    def __init__(self, graph: Graph) -> None:
        self._readers = graph.uses()
        self._groups = {v: n for n in graph.walk() if is_fused(n) for v in n.outputs}

    def readers(self, value: Value) -> list[tuple[Node | Graph, int]]:
        """(reader, operand index), once for every time; a graph reads its outputs."""
        return self._readers.get(value, [])

    def group_of(self, value: Value) -> Node | None:
        """The fused node that makes a value."""
        return self._groups.get(value)

    def note_group(self, group: Node) -> None:
        """From now on this fused node makes its results."""
        self._groups.update(dict.fromkeys(group.outputs, group))

    def sole_group(self, value: Value) -> Node | None:
        """The fused node that makes a value and nothing else, where one operand alone is it."""
        group, readers = self.group_of(value), self.readers(value)
        alone = len(readers) == 1 and isinstance(readers[0][0], Node)
        return group if group and alone and len(group.outputs) == 1 else None


def replace_groups(graph: Graph, groups: Sequence[Node], merged: Node, uses: Uses) -> None:
    """Put a fused node in the place of the last of those that it was made from."""
    graph.nodes[graph.nodes.index(groups[-1])] = merged
    for group in groups[:-1]:
        graph.nodes.remove(group)
    uses.note_group(merged)


def inner_result(value: Value) -> Value:
    """What stands for a fused node's result in its region."""
    group = value.producer
    assert group is not None
    return group.regions[0].outputs[group.outputs.index(value)]


def inner_operand(group: Node, value: Value) -> list[Value]:
    """What stands for a value in the region of a fused node that reads it."""
    pairs = zip(group.inputs, group.regions[0].inputs, strict=True)
    return [inner for outer, inner in pairs if outer is value]


def lay_out(value: Value, layout: Layout, uses: Uses) -> None:
    """Store a fused node's result in another way, in the groups that make and read it too."""
    readers = (reader for reader, _ in uses.readers(value))
    copies = [
        copy
        for reader in readers
        if isinstance(reader, Node) and is_fused(reader)
        for copy in inner_operand(reader, value)
    ]
    for copy in (value, inner_result(value), *copies):
        copy.type = copy.type.with_layout(layout)


def group_key(operands: Sequence[Value], region: Graph) -> str:
    """What a fused node of these computes, as a short text: equal for equal operators and types.

    Names, storage layouts and the form do not count; which operands are constant does.
    """
    constants = [value.is_constant for value in operands]
    text = f"{constants}\n{_described(region)}"
    return _digest(text)


def _described(region: Graph) -> str:
    numbers: dict[Value, str] = {}
    lines = []

    def named(value: Value) -> str:
        if value not in numbers:
            if value.data is not None:
                return print_data(value.data, full=False)
            numbers[value] = f"%{len(numbers)}"
        return numbers[value]

    def typed(value: Value) -> str:
        dims = ", ".join(map(_dim_text, value.shape))
        return f"{named(value)}: {value.dtype}[{dims}]"

    lines.append(", ".join(map(typed, region.inputs)))
    for node in region.nodes:
        inputs = ", ".join(map(named, node.inputs))
        attrs = ", ".join(
            f"{key} = {_attribute_text(value)}"
            for key, value in sorted(node.attrs.items())
            if key != "form" and not _is_unset(node, key)
        )
        inner = "".join(f" [{_described(part)}]" for part in node.regions)
        results = ", ".join(map(typed, node.outputs))
        lines.append(f"{results} = {node.op}({inputs}) {{{attrs}}}{inner}")
    lines.append(f"return {', '.join(map(named, region.outputs))}")
    return "\n".join(lines)


def _is_unset(node: Node, key: str) -> bool:
    """Whether an attribute is left at a default that means there is none of it."""
    default = lookup(node.op).attrs[key]
    unset = default is None or (default == 0 and type(default) is int)
    return unset and node.attrs[key] == default


def _attribute_text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_attribute_text, value))})"
    return _dim_text(value) if isinstance(value, Sym) else print_attribute(value)


@lru_cache(maxsize=1 << 14)
def _dim_text(dim: Dim) -> str:
    """A dim, calls in it as digests: written out, what shares parts could fill memory."""
    if isinstance(dim, int):
        return str(dim)
    terms = []
    for mono, factor in dim.terms:
        atoms = [
            atom.name
            if isinstance(atom, Symbol)
            else _digest(f"{atom.fn}({_dim_text(atom.args[0])}, {_dim_text(atom.args[1])})")
            for atom in mono
        ]
        terms.append("*".join([str(factor), *atoms]))
    return " + ".join(terms)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]
