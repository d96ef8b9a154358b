"""Orders, circles, components and cuts of directed graphs, beside those of networkx."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensmith.compiler.digraph import (
    circle,
    connected,
    digraph,
    sink_side,
    strong_components,
    topological_order,
)

SIZE = 9
VERTICES = st.integers(0, SIZE - 1)
EDGES = st.lists(st.tuples(VERTICES, VERTICES).filter(lambda e: e[0] != e[1]), max_size=24)
FORWARD = st.lists(st.tuples(VERTICES, VERTICES).map(sorted).map(tuple), max_size=24)
ORDER = st.permutations(range(SIZE))


def other(vertices: list[int], edges: list[tuple[int, int]]) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(vertices)
    graph.add_edges_from(edges)
    return graph


@settings(max_examples=300)
@given(ORDER, EDGES | FORWARD.map(lambda edges: [e for e in edges if e[0] != e[1]]), ORDER)
def test_orders_and_circles(
    vertices: list[int], edges: list[tuple[int, int]], keys: list[int]
) -> None:
    graph, same = digraph(vertices, edges), other(vertices, edges)
    order, found = topological_order(graph, keys.__getitem__), circle(graph)
    if nx.is_directed_acyclic_graph(same):
        assert order == list(nx.lexicographical_topological_sort(same, key=keys.__getitem__))
        assert found == []
    else:
        assert order is None
        assert found == [tail for tail, _ in nx.find_cycle(same)]


@settings(max_examples=200)
@given(ORDER, EDGES)
def test_components(vertices: list[int], edges: list[tuple[int, int]]) -> None:
    same = other(vertices, edges)
    mine = {frozenset(part) for part in strong_components(digraph(vertices, edges))}
    assert mine == set(map(frozenset, nx.strongly_connected_components(same)))
    groups = connected(vertices, edges)
    assert list(map(set, groups)) == list(nx.connected_components(same.to_undirected()))
    assert all(group == sorted(group, key=vertices.index) for group in groups)


@settings(max_examples=300)
@given(EDGES, st.lists(st.none() | st.integers(0, 5), min_size=24, max_size=24))
def test_the_cheapest_cut(edges: list[tuple[int, int]], costs: list[int | None]) -> None:
    capacities = dict(zip(edges, costs, strict=False))
    same = other([0, SIZE - 1], [])
    for (tail, head), cost in capacities.items():
        same.add_edge(tail, head, **({} if cost is None else {"capacity": cost}))
    try:
        _, (_, wanted) = nx.minimum_cut(same, 0, SIZE - 1)
    except nx.NetworkXUnbounded:
        with pytest.raises(ValueError, match="only edges that cannot be cut"):
            sink_side(capacities, 0, SIZE - 1)
        return
    assert sink_side(capacities, 0, SIZE - 1) == wanted
