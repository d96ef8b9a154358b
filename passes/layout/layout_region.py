"""Regions of a graph that can be computed on permuted tensors, and the cheapest way to do so.

Every value of a region is stored either as it is or under its permutation; windowed operators
(convolutions, poolings) need the permuted form, what is not in the region the plain one. The choice
that moves the fewest elements is a minimum cut: a vertex for every node, an edge for every value
that its producer and its users could see differently.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import networkx as nx
from networkx.algorithms.flow import dinitz

from ...compiler.ir.dims import estimate, product
from ...compiler.ir.graph import Graph, Node, Value, captures
from ...compiler.ir.ops.registry import Trait, has_trait
from .axis_permutation import (
    Carried,
    Perm,
    carry,
    compose,
    inverse,
    is_identity,
    moves_elements,
    same_order,
    source,
)

_PLAIN, _PERMUTED = "plain", "permuted"  # the terminals of the cut
_FREE = 1  # cost of a transpose that moves nothing: a reshape, better avoided
_BYTE = 16


@dataclass
class Surroundings:
    """What one graph says about its values.

    users: nodes of the graph by operand. fixed: values that must exist as they are, as outputs or
    for nested regions. local: values made by the graph or given to it.
    """

    users: dict[Value, list[Node]]
    fixed: set[Value]
    local: set[Value]

    @staticmethod
    def of(graph: Graph) -> Surroundings:
        """Look at a graph (nested regions count as users of what they capture)."""
        users: dict[Value, list[Node]] = {}
        fixed, local = set(graph.outputs), set(graph.inputs)
        for node in graph.nodes:
            for value in dict.fromkeys(node.inputs):
                users.setdefault(value, []).append(node)
            for region in node.regions:
                fixed.update(captures(region))
            local.update(node.outputs)
        return Surroundings(users, fixed, local)


@dataclass
class Region:
    """A part of a graph that grows from its seeds over everything that can carry permutations.

    perms: the permutation of every value in it. carried: how each node goes with them. windows:
    nodes that only take and give permuted tensors.
    """

    around: Surroundings
    typical_dim: int
    windows: set[Node] = field(default_factory=set)
    perms: dict[Value, Perm] = field(default_factory=dict)
    carried: dict[Node, Carried] = field(default_factory=dict)
    _rejected: set[Node] = field(default_factory=set)

    def grow(self, *seeds: tuple[Value, Perm]) -> None:
        """Put values into the region, and all that can follow them."""
        waiting: deque[Value] = deque()
        for value, perm in seeds:
            self._put(value, perm, waiting)
        while waiting:
            value = waiting.popleft()
            for node in self._neighbours(value):
                if node in self.carried or node in self._rejected:
                    continue
                main = self._main_perm(node)
                if main is None:
                    continue
                carried = self._fit(node, main)
                if carried is None:
                    self._rejected.add(node)
                    continue
                self.carried[node] = carried
                self._put(node.output, carried.output, waiting)
                for operand, taken in zip(node.inputs, carried.inputs, strict=True):
                    if taken is not None and operand.type.rank == len(taken):
                        self._put(operand, taken, waiting)

    def _put(self, value: Value, perm: Perm, waiting: deque[Value]) -> None:
        known = value in self.perms or value not in self.around.local
        if not known and not is_identity(perm):
            self.perms[value] = perm
            waiting.append(value)

    def _neighbours(self, value: Value) -> list[Node]:
        made = [value.producer] if value.producer is not None else []
        return [
            node
            for node in made + self.around.users.get(value, [])
            if len(node.outputs) == 1 and node not in self.windows and node.op != "transpose"
        ]

    def _fit(self, node: Node, perm: Perm) -> Carried | None:
        """How the node goes with the permutations that its values have, if it does."""
        carried = carry(node, perm)
        if carried is None:
            return None
        pairs = [*zip(node.inputs, carried.inputs, strict=True), (node.output, carried.output)]
        for value, wanted in pairs:
            known = self.perms.get(value)
            if known is None or wanted is None or len(wanted) != len(known):
                if known is not None and wanted is None:
                    return None
                continue
            if not same_order(value.shape, known, wanted):
                return None
        return carried

    def _main_perm(self, node: Node) -> Perm | None:
        """The permutation for `carry`, None while the region says nothing of it."""
        output = self.perms.get(node.output)
        if has_trait(node, Trait.POINTWISE):
            rank = node.output.type.rank
            of_inputs = (self.perms.get(value) for value in node.inputs)
            fitting = (perm for perm in of_inputs if perm is not None and len(perm) == rank)
            return output or next(fitting, None)
        operands = node.inputs if node.op == "concat" else node.inputs[:1]
        of_inputs = (self.perms.get(value) for value in operands)
        main = next((perm for perm in of_inputs if perm is not None), None)
        return main if main is not None or output is None else source(node, output)

    def transposes(self) -> list[Node]:
        """The transposes that touch the region."""
        found: dict[Node, None] = {}
        for value in self.perms:
            if value.producer is not None and value.producer.op == "transpose":
                found[value.producer] = None
            for node in self.around.users.get(value, ()):
                if node.op == "transpose":
                    found[node] = None
        return list(found)

    def move_cost(self, value: Value, perm: Perm) -> int:
        """What transposing a value costs; constants are transposed at compile time."""
        if value.is_constant:
            return 0
        shape = (1,) * (len(perm) - value.type.rank) + tuple(value.shape)
        if not moves_elements(shape, perm):
            return _FREE
        return _FREE + _BYTE * value.dtype.bytes * estimate(product(shape), self.typical_dim)

    def node_cost(self, node: Node, permuted: bool) -> int:
        """What a node costs by itself: its own movement and operands from outside the region."""
        if node.op == "transpose":
            perm = node.attrs["perm"]
            if permuted and node.output in self.perms:
                perm = compose(perm, self.perms[node.output])
            elif permuted:
                perm = compose(inverse(self.perms[node.inputs[0]]), perm)
            return 0 if is_identity(perm) else self.move_cost(node.output, perm)
        if not permuted or node in self.windows:
            return 0
        pairs = zip(node.inputs, self.carried[node].inputs, strict=True)
        return sum(
            self.move_cost(value, perm)
            for value, perm in pairs
            if perm is not None and value not in self.perms
        )

    def forced(self, node: Node | None) -> bool | None:
        """Whether a node must (True), must not (False) or may (None) be permuted."""
        if node in self.windows:
            return True
        return None if node is not None and self._chooses(node) else False

    def _chooses(self, node: Node) -> bool:
        if node.op == "transpose":
            return (node.output in self.perms) != (node.inputs[0] in self.perms)
        return node in self.carried

    def flows(self) -> list[tuple[int, Node | None, list[Node | None]]]:
        """For every value: cost of a transpose, producer, users; None is what is plain always."""
        found = []
        for value, perm in self.perms.items():
            users: list[Node | None] = list(self.around.users.get(value, ()))
            if value in self.around.fixed:
                users.append(None)
            found.append((self.move_cost(value, perm), value.producer, users))
        return found

    def cost(self, permuted: frozenset[Node]) -> int:
        """The cost of the region when the given nodes are computed on permuted tensors."""
        chosen = permuted | self.windows
        nodes = {*self.carried, *self.transposes()}
        total = sum(self.node_cost(node, node in chosen) for node in nodes)
        for cost, producer, users in self.flows():
            side = producer in chosen
            total += cost * any((user in chosen) != side for user in users)
        return total

    def all(self) -> frozenset[Node]:
        """Every node that can be computed on permuted tensors."""
        nodes = {*self.carried, *self.transposes()}
        return frozenset(node for node in nodes if self.forced(node) is not False)

    def cheapest(self) -> frozenset[Node]:
        """The nodes that are best computed on permuted tensors (windows always are)."""
        network = nx.DiGraph()
        network.add_nodes_from((_PLAIN, _PERMUTED))

        def vertex(node: Node | None) -> Hashable:
            must = self.forced(node)
            return node if must is None else _PERMUTED if must else _PLAIN

        for node in {*self.carried, *self.transposes()}:
            if self.forced(node) is None:
                _add(network, _PLAIN, node, self.node_cost(node, True))
                _add(network, node, _PERMUTED, self.node_cost(node, False))
        for index, (cost, producer, users) in enumerate(self.flows()):
            made, seen = vertex(producer), {vertex(user) for user in users}
            if len(seen | {made}) == 1:
                continue
            _add(network, made, (index, _PERMUTED), cost)
            _add(network, (index, _PLAIN), made, cost)
            for user in seen:
                network.add_edge((index, _PERMUTED), user)  # no capacity: infinite
                network.add_edge(user, (index, _PLAIN))
        _, (_, permuted) = nx.minimum_cut(network, _PLAIN, _PERMUTED, flow_func=dinitz)
        return frozenset(node for node in permuted if isinstance(node, Node))


def _add(network: nx.DiGraph, a: Hashable, b: Hashable, cost: int) -> None:
    if cost and a != b:
        before = network.get_edge_data(a, b, {}).get("capacity", 0)
        network.add_edge(a, b, capacity=before + cost)
