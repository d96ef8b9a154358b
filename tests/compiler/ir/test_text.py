"""The textual form: what it looks like, that it comes back, and what the parser refuses."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from suites.graphs import chain, value

from tensmith.compiler.errors import InternalError, UsageError
from tensmith.compiler.ir import DType, Graph, Layout, TensorType, constant, symbol
from tensmith.compiler.ir.dims import Dim, dmax, dmin, floordiv, mod
from tensmith.compiler.ir.ops.registry import make_node
from tensmith.compiler.ir.text import (
    parse_graph,
    print_attribute,
    print_dim,
    print_graph,
    same_attribute,
    structurally_equal,
)

EXAMPLE = """\
const %w: f32[3, 6] = dense<17b0761f87b081d5>
const %one: f32[] = [1.0]
graph "model"(%x: f32[n, 3]) {
  %y: f32[n, 6] = matmul(%x, %w) "layer1"
  %z: f32[n] = reduce_sum(%y) {axes = (1,)}
  %#0: f32[n] = add(%z, %one)
  return %#0
}
"""


def example() -> Graph:
    x = value(symbol("n"), 3)
    y = make_node("matmul", [x, constant(np.zeros((3, 6), np.float32), "w")], name="layer1")
    z = make_node("reduce_sum", [y.output], {"axes": (1,)})
    r = make_node("add", [z.output, constant(np.float32(1), "one")])
    y.output.name, z.output.name = "y", "z"
    return Graph([x], [r.output], [y, z, r], "model")


def round_trip(graph: Graph) -> Graph:
    text = print_graph(graph, full=True)
    again = parse_graph(text)
    assert structurally_equal(graph, again)
    assert print_graph(again, full=True) == text
    return again


def test_form() -> None:
    text = print_graph(example())
    assert [line.partition("dense<")[0] for line in text.splitlines()] == [
        line.partition("dense<")[0] for line in EXAMPLE.splitlines()
    ]
    assert print_graph(example()) == text
    again = round_trip(example())
    assert [v.name for v in again.inputs] == ["x"]
    assert again.nodes[0].name == "layer1"
    assert again.nodes[0].output.producer is again.nodes[0]


def test_left_out_data_is_refused() -> None:
    with pytest.raises(UsageError, match=r"line 1: data .*full=True"):
        parse_graph(print_graph(example()))


NAMES = st.lists(st.text(max_size=5), min_size=3, max_size=3)


@given(NAMES, st.text(min_size=1, max_size=4))
def test_any_name_comes_back(names: list[str], unknown: str) -> None:
    x = value(symbol(unknown), 3, name=names[0])
    node = make_node("dims", [], {"values": (symbol(unknown) + 1,)}, name=names[1])
    node.output.name = names[1]
    other = make_node("neg", [x], name=names[2])
    other.output.name = names[1]
    again = round_trip(Graph([x], [node.output, other.output], [node, other], names[2]))
    assert [v.name for v in (again.inputs[0], *again.outputs)] == [names[0], names[1], names[1]]
    assert again.nodes[1].name == names[2]


def dims() -> st.SearchStrategy[Dim]:
    leaves: st.SearchStrategy[Dim] = st.one_of(
        st.integers(-9, 9), st.sampled_from(["n", "m", "max", "a b"]).map(symbol)
    )
    positive = st.integers(2, 5)

    def grow(inner: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
        return st.one_of(
            st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
            st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
            st.tuples(inner, positive).map(lambda p: floordiv(*p)),
            st.tuples(inner, positive).map(lambda p: mod(*p)),
            st.tuples(inner, inner).map(lambda p: dmax(*p)),
            st.tuples(inner, inner).map(lambda p: dmin(*p)),
        )

    return st.recursive(leaves, grow, max_leaves=5)


def attributes() -> st.SearchStrategy[object]:
    leaves = st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=6),
        st.sampled_from(list(DType)),
        dims(),
    )
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(tuple))


@given(attributes())
def test_attributes_come_back(attribute: object) -> None:
    text = f'graph "g"() {{\n  dims() {{values = {print_attribute(attribute)}}}\n  return\n}}\n'
    again = parse_graph(text).nodes[0].attrs["values"]
    assert same_attribute(again, attribute)


def test_dims_print_as_polynomials() -> None:
    n, m = symbol("n"), symbol("batch size")
    assert print_dim(2 * n * m - 3 * n + 1) == '2*@"batch size"*n - 3*n + 1'
    assert print_dim(floordiv(n + 1, 2)) == "floordiv(n + 1, 2)"


@given(
    st.sampled_from(list(DType)),
    st.lists(st.integers(0, 255), min_size=0, max_size=96),
)
def test_constant_bits_come_back(dtype: DType, octets: list[int]) -> None:
    usable = octets[: len(octets) // dtype.bytes * dtype.bytes]
    if dtype is DType.BOOL:
        usable = [octet % 2 for octet in usable]
    data = np.frombuffer(bytes(usable), dtype.numpy)
    again = round_trip(Graph([], [constant(data)]))
    assert again.outputs[0].data is not None
    assert again.outputs[0].data.tobytes() == data.tobytes()
    assert again.outputs[0].dtype is dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_special_floats_come_back(dtype: type) -> None:
    with np.errstate(over="ignore"):
        data = np.array([0.1, -0.0, np.inf, -np.inf, 1e-40, 3e38]).astype(dtype)
    text = print_graph(Graph([], [constant(data, "c")]), full=True)
    assert "[0.1" in text
    again = parse_graph(text).outputs[0].data
    assert again is not None
    assert again.tobytes() == data.tobytes()


def test_borders_come_back() -> None:
    x = value(1, 3, 4, 4)
    node = make_node("neg", [x])
    node.output.type = TensorType(DType.F32, (1, 3, 4, 4), Layout(((0, 0), (0, 0), (1, 1), (2, 1))))
    again = round_trip(Graph([x], [node.output], [node]))
    assert again.outputs[0].type == node.output.type


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'graph' expected"),
        ('graph "g"(%x: f32[n]) {\n  return %y\n}', "line 2: a value that is defined above"),
        ('graph "g"(%x: f33[n]) {\n  return\n}', "line 1: an element type"),
        ('graph "g"(%x: f32[n], %x: f32[n]) {\n return\n}', "not defined yet"),
        ('graph "g"() {\n  %y: f32[] = frobnicate()\n  return\n}', "line 2: an operator"),
        ('graph "g"() {\n  return\n} graph', "the end expected"),
        ('graph "g"() {\n  return\n', "'}' expected"),
        ("const %c: f32[2] = [1.0]\n", "data of 2 elements"),
        ("§", "unexpected character"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_graph(text)


def test_unprintable_attribute() -> None:
    with pytest.raises(InternalError, match="cannot be an attribute"):
        print_attribute([1, 2])


def test_differences_are_seen() -> None:
    graph, _ = chain()
    assert structurally_equal(graph, chain()[0])
    changes = [("op", "abs"), ("attrs", {"axis": 0})]
    for name, changed in changes:
        other, nodes = chain()
        setattr(nodes[0], name, changed)
        assert not structurally_equal(graph, other)
    other, nodes = chain()
    nodes[1].inputs = [other.inputs[0]]
    assert not structurally_equal(graph, other)
    other, nodes = chain()
    other.outputs = [nodes[0].output]
    assert not structurally_equal(graph, other)
    one, two = (Graph([], [constant(np.float32(v))]) for v in (1, 2))
    assert not structurally_equal(one, two)
    assert not same_attribute(1, True)
    assert not same_attribute(1.0, 1)
    assert not same_attribute(0.0, -0.0)
