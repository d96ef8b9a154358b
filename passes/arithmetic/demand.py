"""Demand: every value is computed where something needs it, and nowhere else.

What reads a part of a tensor (the one token of a classifier, pixels that are cropped, rows that an
index picks) is known from the results backwards, through all layers at once. A value is computed
once, in the least part that all its readers need, so that nothing becomes dearer by being shared.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import networkx as nx

from ...compiler.decisions import Saving, Told
from ...compiler.ir.dims import symbols_of
from ...compiler.ir.graph import Graph, Node, Value, captures
from ...compiler.ir.ops.registry import Builder, Trait, has_trait
from ..simplify.symbol_use import binders, used_by
from .narrow_rules import narrowed
from .narrowing import Narrowed
from .parts import Interval, Looked, Part, Places, fraction, part_shape, take, union, whole
from .work import TYPICAL, Uses, is_read_from_memory, moved, needs_memory, operations

_ROUNDS = 8


@dataclass(frozen=True)
class Demand:
    """Compute of every value only what its readers need.

    Expects no dead nodes. Nodes whose part would save less than the copies of parts of operands
    cost stay whole. told: hears of contractions that shrink.
    """

    told: Told | None = None
    name: str = "demand"

    def run(self, graph: Graph) -> bool:
        """Narrow the graph and its regions; whether anything was narrowed."""
        changed = False
        for inner in list(graph.graphs()):
            plan = _Plan.of(inner)
            if plan.narrows:
                _tell(plan, self.told)
                _rebuild(inner, plan)
                changed = True
        return changed


def _tell(plan: _Plan, told: Told | None) -> None:
    for node, narrow in plan.nodes.items() if told else ():
        share = fraction(node.output.shape, narrow.computed, TYPICAL)
        if told and operations(node) and share < 1 and has_trait(node, _HEAVY):
            shape = ", ".join(map(str, part_shape(node.output.shape, narrow.computed)))
            before = operations(node)
            why = f"what reads it needs [{shape}] of {node.output.type} only"
            told(Saving("demand", node.name, node.op, before, before * share, why))


_HEAVY = Trait.CONTRACTION | Trait.COMPOSITE


@dataclass
class _Plan:
    """Which part of every value of a graph is computed, and how.

    parts: of values that nodes of the graph make and something reads. nodes: those that compute a
    part, or need only parts of operands. kept: nodes that are not to be narrowed.
    """

    graph: Graph
    uses: Uses
    parts: dict[Value, Part] = field(default_factory=dict)
    nodes: dict[Node, Narrowed] = field(default_factory=dict)
    kept: set[Node] = field(default_factory=set)

    @staticmethod
    def of(graph: Graph) -> _Plan:
        """The plan in which no copy costs more than it saves."""
        plan = _Plan(graph, graph.uses())
        for _ in range(_ROUNDS):
            plan.spread()
            costly = [node for node in plan.nodes if plan._costs(node)]
            if not costly:
                return plan
            plan.kept.update(costly)
        plan.parts, plan.nodes = {}, {}
        return plan

    @property
    def narrows(self) -> bool:
        """Whether something is computed that nothing needs."""
        return any(
            narrow.computed != whole(len(narrow.computed)) and operations(node) > 0
            for node, narrow in self.nodes.items()
        )

    def spread(self) -> None:
        """Find what is needed, from the outputs backwards."""
        self.parts, self.nodes = {}, {}
        for value in self.graph.outputs:
            self.need(value, None)
        for node in reversed(self.graph.nodes):
            for region in node.regions:
                for value in captures(region):
                    self.need(value, None)
            wanted = self.parts.get(node.outputs[0]) if len(node.outputs) == 1 else None
            if wanted is None and len(node.outputs) == 1 and not _binds(node):
                continue
            narrow = None
            if wanted is not None and (node not in self.kept):
                narrow = narrowed(node, wanted)
            if narrow is None:
                self._whole(node)
                continue
            self.parts[node.output] = narrow.computed
            self.nodes[node] = narrow
            for value, part in zip(node.inputs, narrow.needs, strict=True):
                if part is not None:
                    self.need(value, part)
                    for places in part:
                        if isinstance(places, Looked):
                            self.need(places.index, None)

    def need(self, value: Value, part: Part | None) -> None:
        """Note that a part of a value is needed, or all of it."""
        wanted = whole(value.type.rank) if part is None else part
        known = self.parts.get(value)
        self.parts[value] = wanted if known is None else union(known, wanted, value.shape)

    def have(self, value: Value) -> Part:
        """The part of a value that is computed: all of what other graphs make."""
        node = value.producer
        return self.nodes[node].computed if node in self.nodes else whole(value.type.rank)

    def _whole(self, node: Node) -> None:
        for value in node.outputs:
            self.parts[value] = whole(value.type.rank)
        for value in node.inputs:
            self.need(value, None)

    def _costs(self, node: Node) -> bool:
        """Whether parts of operands, copied for the node, cost more than it saves."""
        narrow = self.nodes[node]
        copies = sum(
            moved(value.type) * fraction(value.shape, part, TYPICAL)
            for value, part in zip(node.inputs, narrow.needs, strict=True)
            if part is not None and not value.is_constant and self.have(value) != part
        )
        if not copies:
            return False
        if has_trait(node, Trait.VIEW):
            return is_read_from_memory(node.output, self.uses) and all(
                self.have(value) == whole(value.type.rank) for value in node.inputs
            )
        if not needs_memory(node):
            return False
        share = fraction(node.output.shape, narrow.computed, TYPICAL)
        return copies > (operations(node) + moved(node.output.type)) * (1 - share)


def _binds(node: Node) -> bool:
    """Whether a node is needed although nothing reads its result."""
    return has_trait(node, Trait.EFFECT) or bool(node.regions) or "bound" in node.attrs


def _rebuild(graph: Graph, plan: _Plan) -> None:
    """Make the nodes anew that compute parts, or read parts of what they did."""
    nodes: list[Node] = []
    replaced: dict[Value, Value] = {}
    cuts: dict[tuple[Value, Part], Value] = {}
    outputs = set(graph.outputs)
    for node in _ordered(graph, plan):
        if len(node.outputs) == 1 and node.output not in plan.parts:
            continue
        narrow = plan.nodes.get(node)
        if narrow is None or not _changes(node, narrow, plan):
            node.inputs = [replaced.get(value, value) for value in node.inputs]
            nodes.append(node)
            continue
        b = Builder(nodes, node.name)
        given: list[Value | None] = []
        for value, part in zip(node.inputs, narrow.needs, strict=True):
            if part is not None and (value, part) not in cuts:
                wanted = tuple(_replaced(places, replaced) for places in part)
                source = replaced.get(value, value)
                have = tuple(_replaced(places, replaced) for places in plan.have(value))
                cuts[value, part] = take(b, source, have, wanted)
            given.append(None if part is None else cuts[value, part])
        made = narrow.make(b, given)
        if narrow.computed == whole(len(narrow.computed)):
            made = _stands_for(b, node.output, made, made in given or node.output in outputs)
        replaced[node.output] = made
    graph.nodes = nodes
    graph.replace_uses(replaced)


def _replaced(places: Places | None, replaced: dict[Value, Value]) -> Places | None:
    if isinstance(places, Looked):
        return Looked(replaced.get(places.index, places.index))
    return places


def _changes(node: Node, narrow: Narrowed, plan: _Plan) -> bool:
    """Whether a node computes a part, or reads other things than before."""
    everything = (narrow.computed, *(part for part in narrow.needs))
    return any(part is None or part != whole(len(part)) for part in everything)


def _stands_for(b: Builder, old: Value, new: Value, anew: bool) -> Value:
    """A value that users may take for the old one: of its shape, and called like it.

    anew: whether the value may not be renamed itself.
    """
    if new.shape != old.shape or (anew and new.name != old.name):
        new = b.emit("reshape", [new], {"shape": old.shape})
    new.name = old.name
    return new


def _ordered(graph: Graph, plan: _Plan) -> list[Node]:
    """The nodes, those in front that make an index, or bind a symbol, by which parts are taken."""
    taken = {node: _places(narrow) for node, narrow in plan.nodes.items()}
    if not any(taken.values()):
        return graph.nodes
    position = {node: number for number, node in enumerate(graph.nodes)}
    binder = binders(graph.nodes)
    order = nx.DiGraph()
    order.add_nodes_from(graph.nodes)
    for node in graph.nodes:
        inner = [value for region in node.regions for value in captures(region)]
        places, names = taken.get(node, []), used_by(node)
        looked = [found.index for found in places if isinstance(found, Looked)]
        for found in places:
            if isinstance(found, Interval):
                names |= symbols_of(found.start) | symbols_of(found.count)
        before = [value.producer for value in (*node.inputs, *inner, *looked)]
        for other in (*before, *(binder.get(name) for name in names)):
            if other in position and other is not node:
                order.add_edge(other, node)
    return list(nx.lexicographical_topological_sort(order, key=position.__getitem__))


def _places(narrow: Narrowed) -> list[Places]:
    """The places of a node's parts that only a run knows."""
    parts = (narrow.computed, *(part for part in narrow.needs if part is not None))
    return [found for part in parts for found in part if isinstance(found, (Interval, Looked))]
