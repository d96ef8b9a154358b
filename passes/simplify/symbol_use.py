"""Which symbolic dims nodes bind at run time, and which they use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ...compiler.ir.dims import Sym, symbols_of
from ...compiler.ir.graph import Graph, Node


def bound_by(node: Node) -> tuple[str, ...]:
    """The symbols that a node gives values to."""
    return tuple(node.attrs.get("symbols" if node.op == "read_dims" else "bound", ()))


def binders(nodes: Iterable[Node]) -> dict[str, Node]:
    """The node that binds each symbol."""
    return {name: node for node in nodes for name in bound_by(node)}


def used_by(node: Node) -> set[str]:
    """The symbols in a node's attributes, the shapes of its results, and its regions."""
    found: set[str] = set()
    for dim in dims_in(node):
        found |= symbols_of(dim)
    for value in node.outputs:
        for size in value.shape:
            found |= symbols_of(size)
    for region in node.regions:
        found |= _used_in(region)
    return found


def dims_in(node: Node) -> Iterator[Sym]:
    """The symbolic dims in a node's attributes."""
    for attribute in node.attrs.values():
        yield from _dims(attribute)


def _used_in(graph: Graph) -> set[str]:
    found: set[str] = set()
    for node in graph.nodes:
        found |= used_by(node)
    return found


def _dims(attribute: Any) -> Iterator[Sym]:
    if isinstance(attribute, Sym):
        yield attribute
    elif isinstance(attribute, tuple):
        for item in attribute:
            yield from _dims(item)
