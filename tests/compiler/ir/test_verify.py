"""The verifier accepts what is well formed and refuses each kind of damage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from suites.cases import ALL_CASES
from suites.graphs import chain, value

from tensmith.compiler.errors import InternalError
from tensmith.compiler.ir import DType, Graph, Node, TensorType, Value, constant, symbol
from tensmith.compiler.ir.ops.registry import make_node
from tensmith.compiler.ir.verify import verify

CASES = {case.name: case for case in ALL_CASES}


def damage_order(graph: Graph, nodes: list[Node]) -> None:
    graph.nodes.reverse()


def damage_foreign_value(graph: Graph, nodes: list[Node]) -> None:
    nodes[0].inputs = [value(2, 3)]


def damage_foreign_output(graph: Graph, nodes: list[Node]) -> None:
    graph.outputs = [value(2, 3)]


def damage_twice(graph: Graph, nodes: list[Node]) -> None:
    graph.nodes.append(nodes[1])


def damage_input_twice(graph: Graph, nodes: list[Node]) -> None:
    graph.inputs.append(graph.inputs[0])


def damage_producer(graph: Graph, nodes: list[Node]) -> None:
    nodes[0].output.producer = nodes[1]


def damage_input_producer(graph: Graph, nodes: list[Node]) -> None:
    graph.inputs[0].producer = nodes[0]


def damage_result_data(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].output.data = np.zeros((2, 3), np.float32)


def damage_arity(graph: Graph, nodes: list[Node]) -> None:
    nodes[0].inputs.append(graph.inputs[0])


def damage_dtype(graph: Graph, nodes: list[Node]) -> None:
    nodes[0].output.type = TensorType(DType.F64, (2, 3))


def damage_shape(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].output.type = TensorType(DType.F32, (2, 4))


def damage_rank(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].output.type = TensorType(DType.F32, (6,))


def damage_operator(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].op = "negate"


def damage_attribute(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].attrs["axis"] = 0


def damage_missing_attribute(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].op = "softmax"


def damage_attribute_kind(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].op, nodes[1].attrs = "softmax", {"axis": [1]}


def damage_attribute_symbol(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].op, nodes[1].attrs = "broadcast_to", {"shape": (symbol("n"), 3)}


def damage_regions(graph: Graph, nodes: list[Node]) -> None:
    nodes[0].regions = [Graph()]


def damage_type_symbol(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].output.type = TensorType(DType.F32, (symbol("n"), 3))


def damage_constant(graph: Graph, nodes: list[Node]) -> None:
    bad = constant(np.zeros((2, 3), np.float32))
    bad.type = TensorType(DType.F32, (3, 2))
    nodes[0].inputs = [bad]


def damage_outputs(graph: Graph, nodes: list[Node]) -> None:
    nodes[1].outputs.append(Value(TensorType(DType.F32, ()), "extra", nodes[1]))


DAMAGE: list[tuple[Callable[[Graph, list[Node]], None], str]] = [
    (damage_order, "used before it is defined"),
    (damage_foreign_value, "used before it is defined"),
    (damage_foreign_output, "used before it is defined"),
    (damage_twice, "defined twice"),
    (damage_input_twice, "defined twice"),
    (damage_producer, "producer of .* is another node"),
    (damage_input_producer, "some node's result"),
    (damage_result_data, "holds constant data"),
    (damage_arity, "takes 1 inputs, not 2"),
    (damage_dtype, "should have the type"),
    (damage_shape, "should have the shape"),
    (damage_rank, "should have the type"),
    (damage_operator, "no operator 'negate'"),
    (damage_attribute, r"\['axis'\] are unknown"),
    (damage_missing_attribute, r"\['axis'\] are missing"),
    (damage_attribute_kind, "no known kind"),
    (damage_attribute_symbol, "attribute 'shape' uses the undefined symbol"),
    (damage_regions, "has 0 regions, not 1"),
    (damage_type_symbol, "uses the undefined symbol"),
    (damage_constant, "holds f32"),
    (damage_outputs, "2 outputs, not 1"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGE, ids=lambda x: getattr(x, "__name__", ""))
def test_damage(damage: Callable[[Graph, list[Node]], None], reason: str) -> None:
    graph, nodes = chain()
    verify(graph)
    damage(graph, nodes)
    with pytest.raises(InternalError, match=reason):
        verify(graph)


def test_message_names_the_node() -> None:
    graph, nodes = chain()
    nodes[1].name = "layer7"
    nodes[1].inputs = []
    with pytest.raises(InternalError, match="node 1 of 'graph', exp 'layer7'"):
        verify(graph)


def region_of(name: str) -> tuple[Graph, Node, Graph]:
    graph = CASES[name].graph()
    node = next(node for node in graph.nodes if node.regions)
    verify(graph)
    return graph, node, node.regions[0]


def test_region_value_does_not_leave_its_region() -> None:
    graph, _, body = region_of("scan_forward")
    graph.outputs.append(body.nodes[0].output)
    with pytest.raises(InternalError, match="out of scope"):
        verify(graph)


def test_fused_region_captures_nothing() -> None:
    graph, _, body = region_of("fused_linear")
    body.nodes[0].inputs[0] = graph.inputs[0]
    with pytest.raises(InternalError, match="out of scope"):
        verify(graph)


def test_fused_region_holds_scalars_only() -> None:
    graph, _, body = region_of("fused_linear")
    body.nodes[1].inputs[1] = constant(np.zeros(5, np.float32))
    with pytest.raises(InternalError, match="is not a scalar"):
        verify(graph)


def test_region_types_are_checked() -> None:
    graph, node, body = region_of("scan_forward")
    body.outputs[0] = constant(np.zeros(7, np.float32))
    with pytest.raises(InternalError, match="state after a step: 7 is not 4"):
        verify(graph)
    graph, node, body = region_of("scan_forward")
    node.attrs["reverse_in"] = ()
    with pytest.raises(InternalError, match="reverse_in has 0 entries, not 1"):
        verify(graph)
    graph, node, body = region_of("if_then")
    body.outputs.clear()
    with pytest.raises(InternalError, match="0 and 1 outputs"):
        verify(graph)


@pytest.mark.parametrize("name", ["if_shapes_then", "loop_counted", "loop_growing"])
def test_bound_symbols(name: str) -> None:
    for bound, reason in (((), "too few"), (("a", "b", "c", "d"), "too many")):
        graph, node, _ = region_of(name)
        node.attrs["bound"] = bound
        with pytest.raises(InternalError, match=reason):
            verify(graph)


def test_symbol_is_bound_once() -> None:
    graph = CASES["read_dims"].graph()
    graph.nodes.insert(1, Node("read_dims", graph.nodes[0].inputs, [], {"symbols": ("a", "c")}))
    with pytest.raises(InternalError, match="symbol a is bound twice"):
        verify(graph)


def test_symbol_is_used_after_it_is_bound() -> None:
    graph = CASES["read_dims"].graph()
    graph.nodes.append(graph.nodes.pop(0))
    with pytest.raises(InternalError, match="undefined symbol"):
        verify(graph)


def test_varying_symbol_belongs_to_the_loop() -> None:
    graph, _, body = region_of("loop_growing")
    body.inputs[2].type = TensorType(DType.F32, (symbol("n"), 2))
    body.nodes[0] = make_node("concat", body.nodes[0].inputs, {"axis": 0})
    body.outputs[1] = body.nodes[0].output
    with pytest.raises(InternalError, match="is a symbol from outside"):
        verify(graph)
