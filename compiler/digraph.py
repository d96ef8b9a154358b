"""Directed graphs as dictionaries: orders, circles, components and cheapest cuts.

A graph maps each vertex to those that its edges lead to, in the order in which they were added.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

V = TypeVar("V", bound=Hashable)
Successors = dict[V, dict[V, None]]


def digraph(vertices: Iterable[V], edges: Iterable[tuple[V, V]]) -> Successors[V]:
    """The graph of the edges, each once, and of vertices that may have none."""
    found: Successors[V] = {vertex: {} for vertex in vertices}
    for tail, head in edges:
        found.setdefault(tail, {})[head] = None
        found.setdefault(head, {})
    return found


def topological_order(graph: Successors[V], key: Callable[[V], int]) -> list[V] | None:
    """The vertices, each before those that its edges lead to, and of those that may come next the
    one with the least key, which no other has; None where there is a circle."""
    before = dict.fromkeys(graph, 0)
    for heads in graph.values():
        for head in heads:
            before[head] += 1
    ready = [(key(vertex), vertex) for vertex, count in before.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, vertex = heapq.heappop(ready)
        order.append(vertex)
        for head in graph[vertex]:
            before[head] -= 1
            if not before[head]:
                heapq.heappush(ready, (key(head), head))
    return order if len(order) == len(graph) else None


def circle(graph: Successors[V]) -> list[V]:
    """The vertices of the first circle that a search into the depth closes; none where there is
    none."""
    left: set[V] = set()
    for start in graph:
        path, place = [start], {start: 0}
        pending = [iter(graph[start])] if start not in left else []
        while pending:
            head = next(pending[-1], None)
            if head is None:
                pending.pop()
                vertex = path.pop()
                del place[vertex]
                left.add(vertex)
            elif head in place:
                return path[place[head] :]
            elif head not in left:
                place[head] = len(path)
                path.append(head)
                pending.append(iter(graph[head]))
    return []


def strong_components(graph: Successors[V]) -> list[list[V]]:
    """The largest sets of vertices that all lead to each other (Tarjan, 1972)."""
    number: dict[V, int] = {}
    least: dict[V, int] = {}
    stack: list[V] = []
    inside: set[V] = set()
    found = []
    for start in graph:
        pending = [(start, iter(graph[start]))] if start not in number else []
        while pending:
            vertex, heads = pending[-1]
            if vertex not in number:
                number[vertex] = least[vertex] = len(number)
                stack.append(vertex)
                inside.add(vertex)
            head = next(heads, None)
            if head is not None:
                if head not in number:
                    pending.append((head, iter(graph[head])))
                elif head in inside:
                    least[vertex] = min(least[vertex], number[head])
                continue
            pending.pop()
            if pending:
                tail = pending[-1][0]
                least[tail] = min(least[tail], least[vertex])
            if least[vertex] == number[vertex]:
                part: list[V] = []
                while not part or part[-1] != vertex:
                    part.append(stack.pop())
                    inside.discard(part[-1])
                found.append(part)
    return found


def connected(vertices: Sequence[V], links: Iterable[tuple[V, V]]) -> list[list[V]]:
    """The vertices in groups that links, whichever way, hold together; groups are in the order of
    their first vertices, and vertices in theirs."""
    above = {vertex: vertex for vertex in vertices}

    def top(vertex: V) -> V:
        while above[vertex] != vertex:
            above[vertex] = above[above[vertex]]
            vertex = above[vertex]
        return vertex

    for one, other in links:
        above[top(one)] = top(other)
    groups: dict[V, list[V]] = {}
    for vertex in vertices:
        groups.setdefault(top(vertex), []).append(vertex)
    return list(groups.values())


def sink_side(capacities: Mapping[tuple[V, V], int | None], source: V, sink: V) -> set[V]:
    """The side of the sink, as small as can be, of the cheapest cut between two vertices.

    capacities: of each edge, what it costs to cut it; None: it cannot be cut. Raises ValueError
    where only edges that cannot be cut lead from the source to the sink.
    """
    endless = 1 + sum(capacity for capacity in capacities.values() if capacity is not None)
    network = _Network[V]()
    for (tail, head), capacity in capacities.items():
        network.add(tail, head, endless if capacity is None else capacity)
    flow = 0
    while levels := network.levels(source, sink):
        flow += network.saturate(levels, source, sink)
        if flow >= endless:
            raise ValueError("only edges that cannot be cut lead from the source to the sink")
    return network.leading_to(sink)


class _Network(Generic[V]):
    """A flow and what is left of capacities: edges by number, those back have the next number
    (Dinitz, 1970)."""

    def __init__(self) -> None:
        self.edges: dict[V, list[int]] = {}
        self.heads: list[V] = []
        self.left: list[int] = []

    def add(self, tail: V, head: V, capacity: int) -> None:
        for one, other, amount in ((tail, head, capacity), (head, tail, 0)):
            self.edges.setdefault(one, []).append(len(self.heads))
            self.heads.append(other)
            self.left.append(amount)

    def levels(self, source: V, sink: V) -> dict[V, int]:
        """How far from the source vertices are; nothing where the sink cannot be reached."""
        found, waiting = {source: 0}, deque([source])
        while waiting:
            vertex = waiting.popleft()
            for edge in self.edges.get(vertex, ()):
                head = self.heads[edge]
                if self.left[edge] and head not in found:
                    found[head] = found[vertex] + 1
                    waiting.append(head)
        return found if sink in found else {}

    def saturate(self, levels: Mapping[V, int], source: V, sink: V) -> int:
        """Fill all shortest ways; how much more flows."""
        pending = {vertex: list(edges) for vertex, edges in self.edges.items()}
        path: list[int] = []
        vertex, flow = source, 0
        while True:
            if vertex == sink:
                amount = min(self.left[edge] for edge in path)
                for edge in path:
                    self.left[edge] -= amount
                    self.left[edge ^ 1] += amount
                flow += amount
                full = next(n for n, edge in enumerate(path) if not self.left[edge])
                vertex = self.heads[path[full] ^ 1]
                del path[full:]
            edges = pending[vertex]
            while edges and not self._leads_on(edges[-1], levels, vertex):
                edges.pop()
            if edges:
                path.append(edges[-1])
                vertex = self.heads[edges[-1]]
            elif path:
                vertex = self.heads[path.pop() ^ 1]
                pending[vertex].pop()
            else:
                return flow

    def _leads_on(self, edge: int, levels: Mapping[V, int], vertex: V) -> bool:
        return self.left[edge] > 0 and levels.get(self.heads[edge]) == levels[vertex] + 1

    def leading_to(self, sink: V) -> set[V]:
        """The vertices that more could flow from to the sink, and it."""
        found, waiting = {sink}, [sink]
        while waiting:
            for edge in self.edges.get(waiting.pop(), ()):
                tail = self.heads[edge]
                if self.left[edge ^ 1] and tail not in found:
                    found.add(tail)
                    waiting.append(tail)
        return found
