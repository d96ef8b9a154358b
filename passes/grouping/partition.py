"""Which operators a device runs, and their segments: convex, and as large as can be.

A segment is convex where no way leads out of it and back in. Nodes are taken in order of
execution; each joins the segment of what it reads, unless a way around would close.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.groups import RegionBuilder
from ...compiler.ir.ops.segment import SEGMENT
from ...compiler.ir.types import DType

_Makers = Mapping[Node, list[Node]]
Legality = Callable[[Node], str | None]
BELONGS = "what it reads or gives stays inside of the processor"


@dataclass(frozen=True)
class Partition:
    """The pass.

    legality: why the device does not take a node, or None. inside: element types of values that no
    segment takes or gives. carries: whether a node computes nothing worth a segment, such as
    movement. reasons: is told why nodes stay outside. members: is told of what each segment was
    made, in order of execution.
    """

    legality: Legality
    device: str
    inside: frozenset[DType]
    carries: Callable[[Node], bool]
    reasons: dict[Node, str] = field(default_factory=dict)
    members: dict[Node, list[Node]] = field(default_factory=dict)
    name: str = "partition"

    def run(self, graph: Graph) -> bool:
        """Rewrite the graph itself, not its regions; whether there is a segment."""
        for nodes in self._divided(graph, self._taken(graph)):
            nodes = self._without_borders(graph, nodes)
            if nodes:
                self.members[_enclose(graph, nodes, self.device)] = nodes
        return any(node.op == SEGMENT for node in graph.nodes)

    def _divided(self, graph: Graph, taken: set[Node]) -> list[list[Node]]:
        """The nodes of segments, none of which cuts a value of an inner type."""
        makers = _makers(graph)
        while True:
            groups = sharing([node for node in graph.nodes if node in taken], self.inside)
            whole = {node: number for number, group in enumerate(groups) for node in group}
            cut = _cut_group(makers, whole)
            if cut is None:
                return _segments(makers, whole)
            self.reasons.update(dict.fromkeys(groups[cut], BELONGS))
            taken = taken - set(groups[cut])

    def _taken(self, graph: Graph) -> set[Node]:
        """The nodes that the device runs: legal ones whose inner values are not seen outside."""
        taken = set()
        for node in graph.nodes:
            reason = self.legality(node)
            if reason is None:
                taken.add(node)
            else:
                self.reasons[node] = reason
        uses, outputs = graph.uses(), set(graph.outputs)
        before = -1
        while len(taken) != before:
            before = len(taken)
            for node in [node for node in graph.nodes if node in taken]:
                if not self._is_closed(node, taken, uses, outputs):
                    taken.remove(node)
                    self.reasons[node] = BELONGS
        return taken

    def _is_closed(
        self,
        node: Node,
        taken: set[Node],
        uses: Mapping[Value, list[tuple[Node | Graph, int]]],
        outputs: set[Value],
    ) -> bool:
        """Whether its values of inner types are read and made by the device alone."""
        for value in node.inputs:
            if value.dtype in self.inside and not value.is_constant and value.producer not in taken:
                return False
        return all(
            value not in outputs and all(user in taken for user, _ in uses.get(value, []))
            for value in node.outputs
            if value.dtype in self.inside
        )

    def _without_borders(self, graph: Graph, nodes: list[Node]) -> list[Node]:
        """A segment without what carries data to its border: other processors do that as well."""
        kept = set(nodes)
        uses = graph.uses()
        changed = True
        while changed:
            changed = False
            for node in list(kept):
                first = all(value.producer not in kept for value in node.inputs)
                last = all(
                    user not in kept for value in node.outputs for user, _ in uses.get(value, [])
                )
                if self.carries(node) and (first or last):
                    kept.remove(node)
                    self.reasons[node] = "it moves elements at the border of a segment"
                    changed = True
        return [node for node in nodes if node in kept]


def _cut_group(makers: _Makers, whole: Mapping[Node, int]) -> int | None:
    """The first group that no segment can hold: something outside is made of it, and goes into it.

    whole: the numbers of groups, of the nodes that the device runs.
    """
    order = nx.DiGraph()
    for node, known in makers.items():
        own = whole.get(node, node)
        order.add_edges_from((whole.get(maker, maker), own) for maker in known)
    found = []
    for part in nx.strongly_connected_components(order):
        groups = [vertex for vertex in part if isinstance(vertex, int)]
        if len(groups) < len(part) > 1:
            found += groups
    return min(found, default=None)


def _segments(makers: _Makers, whole: Mapping[Node, int]) -> list[list[Node]]:
    """The nodes of every segment, in order of execution.

    Each segment has a number that grows with the order of execution, and each node a least number
    that it may have: above that of every segment which something outside lies behind. whole: the
    numbers of groups that no segment cuts, each of which one can hold.
    """
    floors = dict.fromkeys(whole.values(), 0)  # of groups
    while True:
        number = _numbers(makers, whole, floors)
        grown = dict(floors)
        for node, group in whole.items():
            grown[group] = max(grown[group], number[node])
        if grown == floors:
            break
        floors = grown
    members: list[list[Node]] = [[] for _ in range(max(number.values(), default=-1) + 1)]
    for node in makers:
        if node in whole:
            members[number[node]].append(node)
    return _together(members)


def _numbers(
    makers: _Makers, whole: Mapping[Node, int], floors: Mapping[int, int]
) -> dict[Node, int]:
    """The number of each node's segment, where groups have at least those of floors."""
    least: dict[Node, int] = {}
    number: dict[Node, int] = {}
    for node, known in makers.items():
        if node not in whole:
            least[node] = max(
                (least[s] if s not in number else number[s] + 1 for s in known), default=0
            )
            continue
        found = max((least[s] for s in known), default=0)
        least[node] = number[node] = max(found, floors[whole[node]])
    return number


def sharing(nodes: Sequence[Node], inside: frozenset[DType]) -> list[list[Node]]:
    """Nodes in groups that share values of inner types, each group in their order."""
    linked = nx.Graph()
    linked.add_nodes_from(nodes)
    for node in nodes:
        linked.add_edges_from(
            (value.producer, node)
            for value in node.inputs
            if value.dtype in inside and value.producer in linked
        )
    number = {node: n for n, group in enumerate(nx.connected_components(linked)) for node in group}
    found: dict[int, list[Node]] = {}
    for node in nodes:
        found.setdefault(number[node], []).append(node)
    return list(found.values())


def _read(node: Node) -> list[Value]:
    """What a node reads, in its regions too."""
    found = list(node.inputs)
    for region in node.regions:
        for inner in region.walk():
            found += inner.inputs
        found += region.outputs
    return found


def _makers(graph: Graph) -> dict[Node, list[Node]]:
    """The nodes that make what each node reads, in order of execution."""
    found: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        read = (value.producer for value in _read(node))
        found[node] = [maker for maker in read if maker is not None and maker in found]
    return found


def _together(members: list[list[Node]]) -> list[list[Node]]:
    """Segments of nodes that hang together: what shares no value is compiled by itself."""
    found: list[list[Node]] = []
    for nodes in members:
        linked = nx.Graph()
        linked.add_nodes_from(nodes)
        for node in nodes:
            linked.add_edges_from(
                (value.producer, node) for value in node.inputs if value.producer in linked
            )
        for group in nx.connected_components(linked):
            found.append([node for node in nodes if node in group])
    return found


def _enclose(graph: Graph, nodes: list[Node], device: str) -> Node:
    """Put a segment in the place of its nodes: before the first that reads what it gives."""
    chosen = set(nodes)
    uses, outputs = graph.uses(), set(graph.outputs)
    made = {value for node in nodes for value in node.outputs}
    results = [
        value
        for node in nodes
        for value in node.outputs
        if value in outputs or any(user not in chosen for user, _ in uses.get(value, []))
    ]

    def outer(value: Value) -> Value | None:
        return None if value.is_constant or value in made else value

    builder = RegionBuilder(outer)
    for node in nodes:
        builder.copy(node)
    operands, region = builder.close(results)
    segment = Node(SEGMENT, operands, results, {"device": device}, [region], nodes[0].name)
    rest: list[Node] = []
    later: list[Node] = []
    behind: set[Value] = set(results)
    for node in graph.nodes:
        if node in chosen:
            continue
        if any(value in behind for value in _read(node)):
            behind.update(node.outputs)
            later.append(node)
        else:
            rest.append(node)
    graph.nodes = [*rest, segment, *later]
    return segment
