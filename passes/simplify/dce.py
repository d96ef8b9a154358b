"""Dead code elimination: nodes, and unused results of control flow."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...compiler.ir.dims import symbols_of
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.control import symbol_name
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.rewrite import attribute_symbols


@dataclass(frozen=True)
class DeadCodeElimination:
    """Remove what no output depends on.

    Nodes with Trait.EFFECT stay, unless all they do is bind symbols that nothing uses. Results of
    `if`, `loop` and `scan` that have no use are dropped together with what computes them.
    """

    name: str = "dce"

    def run(self, graph: Graph) -> bool:
        """Remove dead nodes; whether there were any."""
        live = _Liveness()
        live.graph(graph)
        return live.removed


@dataclass
class _Liveness:
    values: set[Value] = field(default_factory=set)
    symbols: set[str] = field(default_factory=set)
    removed: bool = False

    def graph(self, graph: Graph) -> None:
        """Keep the nodes that are needed; users come after their producers, so walk backwards."""
        for value in graph.outputs:
            self._use(value)
        kept: list[Node] = []
        for node in reversed(graph.nodes):
            if self._needed(node):
                self._keep(node)
                kept.append(node)
        self.removed |= len(kept) != len(graph.nodes)
        graph.nodes = kept[::-1]

    def _needed(self, node: Node) -> bool:
        if any(value in self.values for value in node.outputs):
            return True
        bound = _bound(node)
        if bound:
            return not self.symbols.isdisjoint(bound)
        return has_trait(node, Trait.EFFECT) or any(
            self._effect(inner) for region in node.regions for inner in region.walk()
        )

    @staticmethod
    def _effect(node: Node) -> bool:
        return has_trait(node, Trait.EFFECT) and not _bound(node)

    def _keep(self, node: Node) -> None:
        if node.regions:
            self.removed |= _drop_results(node, self.values, self.symbols)
        for value in node.inputs:
            self._use(value)
        for value in node.outputs:
            self._need_dims(value)
        self.symbols.update(*map(attribute_symbols, node.attrs.values()))
        for region in node.regions:
            self.graph(region)

    def _use(self, value: Value) -> None:
        if value not in self.values:
            self.values.add(value)
            self._need_dims(value)

    def _need_dims(self, value: Value) -> None:
        for dim in value.type.shape:
            if not isinstance(dim, int):
                self.symbols |= symbols_of(dim)


def _bound(node: Node) -> frozenset[str]:
    """Names of the symbols to which the node gives a value at run time."""
    return frozenset((*node.attrs.get("symbols", ()), *node.attrs.get("bound", ())))


def _drop_results(node: Node, live: set[Value], symbols: set[str]) -> bool:
    """Drop unused results of a control node: all of `if`, the stacked ones of loops."""
    if node.op == "if":
        first, shift = 0, 0
    elif node.op == "scan":
        first, shift = int(node.attrs["num_state"]), 0
    elif node.op == "loop":
        first, shift = len(node.inputs) - 2, 1
    else:
        return False
    dead = [
        index
        for index, value in enumerate(node.outputs)
        if index >= first and value not in live and not _binds(node, value) & symbols
    ]
    if not dead or len(dead) == len(node.outputs):
        return False
    gone = frozenset().union(*(_binds(node, node.outputs[index]) for index in dead))
    if gone:
        node.attrs["bound"] = tuple(name for name in node.attrs["bound"] if name not in gone)
    _remove(node.outputs, dead)
    for region in node.regions:
        _remove(region.outputs, [index + shift for index in dead])
    if node.op == "scan":
        flags = list(node.attrs["reverse_out"])
        _remove(flags, [index - first for index in dead])
        node.attrs["reverse_out"] = tuple(flags)
    return True


def _binds(node: Node, value: Value) -> frozenset[str]:
    """The symbols that get their values from this output."""
    names = {symbol_name(dim) for dim in value.shape}
    return frozenset(name for name in node.attrs.get("bound", ()) if name in names)


def _remove(items: list, indices: list[int]) -> None:  # type: ignore[type-arg]
    for index in sorted(indices, reverse=True):
        del items[index]
