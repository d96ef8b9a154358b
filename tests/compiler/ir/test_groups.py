"""Regions of fused nodes: built, merged, looked up."""

from __future__ import annotations

from suites.case import CaseBuilder

from tensmith.compiler.ir import Graph, Node, Value
from tensmith.compiler.ir.groups import (
    RegionBuilder,
    Uses,
    control_graphs,
    fused_node,
    lay_out,
    replace_groups,
)
from tensmith.compiler.ir.types import Layout
from tensmith.compiler.ir.verify import verify
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.grouping.fusion import Fusion


def two_groups(*, returned: bool = False, read_twice: bool = False) -> Graph:
    """exp and neg of the same tensor, each a group; the second one adds the first's result."""
    c = CaseBuilder("groups")
    x = c.input(4, 3)
    first = c.op("exp", x)
    c.output(c.op("add", c.op("neg", x), first))
    if returned:
        c.output(first)
    if read_twice:
        c.output(c.op("abs", first))
    graph = c.graph()
    run_passes(graph, (Fusion(epilogues=False),))
    return graph


def merged(graph: Graph, groups: list[Node]) -> Node:
    builder = RegionBuilder()
    for group in groups:
        builder.inline(group)
    operands, region = builder.close(groups[-1].outputs)
    return fused_node(operands, groups[-1].outputs, region)


def test_merged_groups_share_operands_and_results() -> None:
    graph = two_groups()
    made = merged(graph, graph.nodes)
    assert made.inputs == graph.inputs
    [region] = made.regions
    assert [node.op for node in region.nodes] == ["exp", "neg", "add"]
    assert len(region.inputs) == 1
    assert region.outputs == [region.nodes[-1].output]
    replace_groups(graph, list(graph.nodes), made, Uses(graph))
    assert graph.nodes == [made]
    verify(graph)


def test_merging_leaves_the_groups_as_they_are() -> None:
    graph = two_groups()
    inside = {value for node in graph.nodes for value in values(node.regions[0])}
    made = merged(graph, graph.nodes)
    assert not inside & set(values(made.regions[0]))


def values(region: Graph) -> list[Value]:
    return [*region.inputs, *(value for node in region.nodes for value in node.outputs)]


def test_nested_groups_keep_their_regions() -> None:
    graph = two_groups()
    builder = RegionBuilder()
    for group in graph.nodes:
        builder.nest(group)
    operands, region = builder.close(graph.outputs)
    assert operands == graph.inputs
    assert [node.regions for node in region.nodes] == [node.regions for node in graph.nodes]
    assert region.nodes[0].output in region.nodes[-1].inputs


def test_what_is_read_comes_with_the_nodes_that_make_it() -> None:
    c = CaseBuilder("maps")
    x, number = c.input(4, 3), c.scalar(2)
    turned = c.op("transpose", x, perm=(1, 0))
    product = c.op("mul", c.op("neg", turned), number)
    c.output(product)
    c.graph()
    sources = {x: x, turned: turned.producer}
    builder = RegionBuilder(lambda value: sources.get(value))
    assert product.producer is not None
    for node in (product.producer.inputs[0].producer, product.producer):
        assert node is not None
        builder.copy(node)
    operands, region = builder.close([product])
    assert operands == [x]
    assert [node.op for node in region.nodes] == ["transpose", "neg", "mul"]
    assert region.nodes[-1].inputs[1] is number


def test_a_sole_group_has_one_reader() -> None:
    for more in ({}, {"returned": True}, {"read_twice": True}):
        graph = two_groups(**more)
        first = next(node for node in graph.nodes if node.regions[0].nodes[0].op == "exp")
        uses = Uses(graph)
        assert uses.group_of(first.output) is first
        assert uses.sole_group(first.output) is (None if more else first)
        assert uses.sole_group(graph.inputs[0]) is None


def test_merged_groups_make_the_results() -> None:
    graph = two_groups()
    uses = Uses(graph)
    made = merged(graph, graph.nodes)
    replace_groups(graph, list(graph.nodes), made, uses)
    assert uses.group_of(graph.outputs[0]) is made


def test_a_layout_reaches_every_copy() -> None:
    """Those of the groups in branches too, which capture the value."""
    c = CaseBuilder("captured")
    cond, x = c.input(name="cond"), c.input(4, 3)
    made = c.op("exp", x)
    c.output(c.op("neg", made))
    one, other = c.region("then"), c.region("else")
    one.output(one.op("abs", made))
    other.output(other.op("neg", made))
    cond = c.op("lt", cond, c.scalar(1))
    c.output(c.node("if", [cond], {}, [one.graph(), other.graph()]).output)
    graph = c.graph()
    run_passes(graph, (Fusion(epilogues=False),))
    assert len(control_graphs(graph)) == 3
    layout = Layout(((0, 0), (1, 1)))
    lay_out(made, layout, Uses(graph))
    readers = [
        inner
        for node in graph.walk()
        if node.op == "fused" and made in node.inputs
        for inner in node.regions[0].inputs
    ]
    assert len(readers) == 3
    for value in (made, *readers, made.producer.regions[0].outputs[0]):  # type: ignore[union-attr]
        assert value.type.layout == layout
