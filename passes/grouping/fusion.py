"""Fusion: group the nodes of a graph into `fused` nodes, each of which becomes one kernel.

A group grows forward from its anchor in execution order. A reduction (convolution, matmul, pooling,
row reduction) takes the pointwise nodes that follow it element by element; products of the same
matrix join where their results meet, reductions over the same rows as well (softmax, norms); what
is left of pointwise nodes joins by shape, with branches that it alone reads. A node that depends on
a group by way of a node outside it never joins; of groups that need each other all the same the
smallest is dissolved. Operators that only move elements are copied into every group that reads
them, as index maps, and so is what makes floats of bytes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

import networkx as nx

from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.groups import RegionBuilder, fused_node
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.kernel.lower import ANCHORS, SCATTER
from ...compiler.kernel.plan.external import reads_memory
from ..patterns.siblings import siblings_of
from ..precision.parameters import scales_of
from ..simplify.symbol_use import bound_by, used_by
from .dependences import captured, needs, sort_nodes
from .joined_pieces import joined_pieces
from .node_kinds import (
    is_map,
    is_pointwise,
    moves_last,
    multiplies,
    row_axes,
    steps_along,
    widens,
)
from .placed_maps import gathers_lanes, is_looked_up, makes_other_rows, slow_operand
from .table_operands import tables_as_operands

# Operators and operands in the expression of one element, where what is used twice counts twice:
# lowering expands it, and recurses to its depth.
MAX_EXPRESSION = 256


@dataclass(eq=False)
class _Group:
    """Nodes that become one kernel, in execution order."""

    members: list[Node] = field(default_factory=list)


_Part = Node | _Group


@dataclass(frozen=True)
class Fusion:
    """The pass. epilogues: whether groups grow at all (off: one node, one kernel). side_by_side:
    whether products of one operand are in one group where their results meet. strided: whether
    products read well what lies apart: then neither what moves their operands has a kernel of its
    own, nor a concat of what is moved that a pointwise node reads. lanes: of a vector register;
    what lies apart is loaded one by one."""

    epilogues: bool = True
    side_by_side: bool = True
    strided: bool = False
    lanes: int = 1
    name: str = "fusion"

    def run(self, graph: Graph) -> bool:
        """Fuse the graph and the regions of its control flow."""
        for node in graph.nodes:
            for region in node.regions:
                self.run(region)
        _Fuser(graph, self).run()
        return True


class _Fuser:
    def __init__(self, graph: Graph, options: Fusion) -> None:
        self.graph = graph
        self.options = options
        self.group_of: dict[Node, _Group] = {}
        self.position = {node: i for i, node in enumerate(graph.nodes)}
        self.users: dict[Value, list[Node]] = {}
        self.captured = {node: captured(node) for node in graph.nodes if node.regions}
        self.escapes: set[Value] = set(graph.outputs).union(*self.captured.values())
        self.map_sizes: dict[Value, int] = {}
        self.deep_maps: set[Node] = set()
        self.aliases: set[Node] = set()  # reshapes outside of kernels
        self.released: dict[Value, tuple[Node, _Group]] = {}  # and where they were
        self.scales = scales_of(graph.nodes)
        for node in graph.nodes:
            for value in node.inputs:
                self.users.setdefault(value, []).append(node)
        strided = options.strided and options.epilogues
        self.joined = joined_pieces(graph.nodes, self.users, self.escapes) if strided else set()
        for node in filter(self._moves, graph.nodes):
            self._measure_map(node)

    def _moves(self, node: Node) -> bool:
        return is_map(node) or node in self.joined

    def _measure_map(self, node: Node) -> None:
        size = self._size(node, {})
        if size > MAX_EXPRESSION:
            self.deep_maps.add(node)
        self.map_sizes[node.output] = size if size <= MAX_EXPRESSION else 1

    def _size(self, node: Node, inside: Mapping[Value, int]) -> int:
        """Of the node's expression; `inside` has those of the values computed in its group."""
        return 1 + sum(inside.get(v, self.map_sizes.get(v, 1)) for v in node.inputs)

    # growing groups ------------------------------------------------------------------------

    def run(self) -> None:
        nodes = self.graph.nodes
        for node in nodes:
            if node.op in ANCHORS and node not in self.group_of:
                self._start(node)
        for node in nodes:
            if node in self.group_of or node in self.joined or node.op in ANCHORS:
                continue
            if is_pointwise(node):
                self._start(node)
            elif node.op in SCATTER or node.op == "concat":
                self.group_of[node] = _Group([node])
        self._untangle()
        self._release()
        self._materialise_maps()
        self._rebuild()

    def _untangle(self) -> None:
        """Dissolve groups that need each other: one grew over an earlier one's other members."""
        nodes = self.graph.nodes
        while True:
            order = needs(nodes, [self.group_of.get(node, node) for node in nodes])
            if nx.is_directed_acyclic_graph(order):
                return
            circle = [part for part, _ in nx.find_cycle(order) if isinstance(part, _Group)]
            group = min((g for g in circle if len(g.members) > 1), key=lambda g: len(g.members))
            for member in group.members:
                self.group_of[member] = _Group([member])

    def _release(self) -> None:
        """Bytes and halves are read as such: what makes f32 of them is done anew in every group."""
        for node in self.graph.nodes:
            group = self.group_of.get(node)
            if group is None or not widens(node):
                continue
            users = self.users.get(node.output, [])
            apart = node.output in self.escapes or not users
            if not apart and any(self.group_of.get(user) is not group for user in users):
                group.members.remove(node)
                self.released[node.output] = node, self.group_of.pop(node)

    def _start(self, anchor: Node) -> None:
        group = _Group([anchor])
        self.group_of[anchor] = group
        if self.options.epilogues and not has_trait(anchor, Trait.PLACE | Trait.CUMULATIVE):
            self._grow(group, anchor)
            if anchor.op not in ANCHORS:
                self._absorb_producers(group, anchor.output.shape, pointwise=True)
            elif has_trait(anchor, Trait.REDUCTION):
                self._absorb_producers(group, anchor.inputs[0].shape, pointwise=False)
        group.members.sort(key=lambda node: self.position[node])

    def _grow(self, group: _Group, anchor: Node) -> None:
        """Add the nodes behind the anchor that fit, in execution order."""
        rows = row_axes(anchor)
        first = 1 if anchor.op in ANCHORS else self._size(anchor, {})
        inside: dict[Value, int] = dict.fromkeys(anchor.outputs, first)
        tainted: set[Value] = set()
        late: set[str] = set()  # symbols that depend on the group
        moved = False
        found = siblings_of(anchor, self.users) if self.options.side_by_side else []
        siblings = set(found) - self.group_of.keys()
        last = max((self.position[node] for node in siblings), default=-1)
        last = max(last, self._last_user(anchor.outputs))
        for position in range(self.position[anchor] + 1, len(self.graph.nodes)):
            if position > last:
                break  # nothing reads the group any more
            node = self.graph.nodes[position]
            if (
                any(value in tainted for value in node.inputs)
                or any(v in inside or v in tainted for v in self.captured.get(node, ()))
                or (late and late & used_by(node))
            ):
                tainted.update(node.outputs)
                late.update(bound_by(node))
                continue
            if node in siblings:
                self._join(group, node)
                inside[node.output] = 1
                last = max(last, self._last_user(node.outputs))
                continue
            if not any(value in inside for value in node.inputs):
                continue
            transposes = self._last_transpose(node, anchor, inside)
            joins = node not in self.group_of and not moved and (
                self._joins(node, anchor, rows) or transposes
            )  # fmt: skip
            size = self._size(node, inside)
            if joins and size <= MAX_EXPRESSION:
                self._join(group, node)
                inside.update(dict.fromkeys(node.outputs, 1 if node.op in ANCHORS else size))
                moved = moved or transposes
                last = max(last, self._last_user(node.outputs))
            else:
                tainted.update(node.outputs)
                late.update(bound_by(node))

    def _last_user(self, values: Iterable[Value]) -> int:
        """Where the last node is that reads one of some values; -1: none does."""
        readers = (user for value in values for user in self.users.get(value, ()))
        return max((self.position[user] for user in readers), default=-1)

    def _join(self, group: _Group, node: Node) -> None:
        group.members.append(node)
        self.group_of[node] = group

    def _last_transpose(self, node: Node, anchor: Node, inside: Container[Value]) -> bool:
        """A transpose of a group's only result is done by its stores."""
        source = node.inputs[0] if node.inputs else None
        return (
            node.op == "transpose"
            and multiplies(anchor)
            and source is not None
            and (self.options.strided or not moves_last(node))
            and source in inside
            and source not in self.escapes
            and len(self.users.get(source, ())) == 1
        )

    def _joins(self, node: Node, anchor: Node, rows: tuple[int, ...] | None) -> bool:
        shape = anchor.output.shape
        if rows is None:
            return is_pointwise(node) and node.output.shape == shape
        full = anchor.inputs[0].shape
        if is_pointwise(node):
            return node.output.shape in (full, shape)
        return (
            row_axes(node) == rows
            and node.inputs[0].shape == full
            and not has_trait(node, Trait.CUMULATIVE)
        )

    def _absorb_producers(self, group: _Group, shape: tuple[Dim, ...], pointwise: bool) -> None:
        """Pull pointwise nodes of a shape that only this group reads into it.

        pointwise: whether the group is, and they are other branches of its expression; else they
        are in front of its reductions.
        """
        members = set(group.members)
        times: dict[Node, int] = {}  # how often the node is in the group's expressions
        for node in sorted(members, key=self.position.__getitem__, reverse=True):
            times[node] = max(1, self._times(node, times) if pointwise else 1)
        waiting = {maker for node in members for maker in self._makers(node)}
        while waiting:
            node = max(waiting, key=self.position.__getitem__)  # all that read it are behind it
            waiting.remove(node)
            if node in self.group_of or not is_pointwise(node) or node.output.shape != shape:
                continue
            users = self.users.get(node.output, [])
            if node.output in self.escapes or not members.issuperset(users):
                continue
            times[node] = self._times(node, times)
            if sum(times.values()) > MAX_EXPRESSION:
                return
            members.add(node)
            self._join(group, node)
            waiting.update(self._makers(node))

    def _times(self, node: Node, times: Mapping[Node, int]) -> int:
        readers = {user for value in node.outputs for user in self.users.get(value, ())}
        return sum(
            times[user] * sum(value in node.outputs for value in user.inputs)
            for user in readers & times.keys()
        )

    def _makers(self, node: Node) -> set[Node]:
        """The nodes of the graph that make what a node reads."""
        makers = {value.producer for value in node.inputs}
        return {maker for maker in makers if maker is not None and maker in self.position}

    # maps ----------------------------------------------------------------------------------

    def _materialise_maps(self) -> None:
        """Give an own kernel to maps whose result must lie in memory; reshapes become aliases."""
        for node in reversed(self.graph.nodes):  # users first: whether they are aliases is known
            if not self._moves(node) or node in self.group_of:
                continue
            placed = self._is_placed(node.output)
            if not has_trait(node, Trait.VIEW):
                alone = placed or self._is_slow(node, node.output)
            else:
                alone = self._needs_copy(node)
            if alone or node in self.deep_maps:
                self.group_of[node] = _Group([node])
            elif placed:
                self.aliases.add(node)

    def _is_placed(self, value: Value) -> bool:
        """Whether something outside of kernels reads the value, which must lie in memory then, or
        an index that products step along, which is none into the axes that a reshape has merged."""
        return value in self.escapes or any(
            bool(user.regions)
            or reads_memory(user)
            or user in self.aliases
            or (steps_along(user) and user.inputs[0] is value)
            for user in self.users.get(value, ())
        )

    def _needs_copy(self, node: Node) -> bool:
        """A graph's result must be memory of its own: not an input, a constant, another result."""
        if node.output not in self.escapes:
            return False
        source = node.inputs[0]
        owner = source.producer
        while (
            owner in self.position and owner not in self.group_of and has_trait(owner, Trait.VIEW)
        ):
            source = owner.inputs[0]
            owner = source.producer
        return owner is None or owner not in self.position or node.output in self.graph.outputs

    def _is_slow(self, node: Node, value: Value) -> bool:
        """Whether a kernel that reads the node's result, or `value` that maps made of it, had
        better find it in memory."""
        for user in self.users.get(value, []):
            group = self.group_of.get(user)
            if multiplies(user) and slow_operand(node, value, user, self.options.strided):
                return True
            if group is None and makes_other_rows(node, value, user):
                return True
            if (
                group is not None
                and not multiplies(user)
                and gathers_lanes(node, group.members, self.options.lanes)
            ):
                return True
            if has_trait(user, Trait.POOLING) and not has_trait(node, Trait.VIEW):
                return True
            if is_looked_up(node, value, user):
                return True
            if self._moves(user) and user not in self.group_of and self._is_slow(node, user.output):
                return True
        return False

    # building ------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        """Replace every group by one fused node, where its last member stood."""
        result: list[Node] = []
        for node in self.graph.nodes:
            group = self.group_of.get(node)
            if group is None:
                if not self._moves(node) or node in self.aliases:
                    result.append(node)
            elif group.members[-1] is node:
                result.append(self._fuse(group))
        self.graph.nodes = result
        sort_nodes(self.graph)

    def _source(self, value: Value, group: _Group) -> Node | Value | None:
        """What a group that reads a value holds of it: a map, an operand, a number as it is.

        What was released from the group may have a kernel now, which needs the group's results.
        """
        if value.data is not None and value.data.size == 1:
            return value if value in self.scales else None
        node, home = self.released.get(value, (value.producer, None))
        if node is None or node not in self.position or not self._moves(node):
            return value
        return value if node in self.group_of and home is not group else node

    def _fuse(self, group: _Group) -> Node:
        members = set(group.members)
        builder = RegionBuilder(lambda value: self._source(value, group))
        for member in group.members:
            builder.copy(member)
        results = [
            value
            for member in group.members
            for value in member.outputs
            if value in self.escapes
            or any(user not in members for user in self.users.get(value, ()))
        ]
        operands, region = builder.close(results)
        name = next((m.name for m in group.members if m.name), "")
        return tables_as_operands(fused_node(operands, results, region, name=name))
