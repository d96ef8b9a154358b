"""Names in graphs within graphs, initialisers, order: what ONNX Runtime takes, and what is said."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node

B, I64, F = TensorProto.BOOL, TensorProto.INT64, TensorProto.FLOAT
X = {"x": floats(4)}
FLAGGED = {**X, "c": np.array(True)}


def region(
    nodes: Sequence[onnx.NodeProto],
    output: str,
    constants: Mapping[str, Any] | None = None,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    more_outputs: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.GraphProto:
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    results = [*more_outputs, helper.make_tensor_value_info(output, F, None)]
    return helper.make_graph(list(nodes), "region", list(inputs), results, tensors)


def if_(then: onnx.GraphProto, other: onnx.GraphProto, output: str = "y") -> onnx.NodeProto:
    return helper.make_node("If", ["c"], [output], then_branch=then, else_branch=other)


def both_ways(proto: onnx.ModelProto) -> None:
    for flag in (True, False):
        check(proto, {**X, "c": np.array(flag)})


def sparse(name: str, values: Any, indices: Any, dims: Sequence[int]) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.asarray(values, np.float32), name),
        numpy_helper.from_array(np.asarray(indices, np.int64), "places"),
        dims,
    )


# --------------------------------------------------------------------------- scopes


def test_branches_call_their_results_as_the_if_does() -> None:
    then = region([node("Relu", "x", "y")], "y")
    other = region([node("Exp", "x", "t"), node("Neg", "t", "y")], "y")
    both_ways(model([if_(then, other)], FLAGGED, ["y"]))


def test_branches_reuse_names_of_nodes_that_come_later() -> None:
    then = region([node("Exp", "x", "z"), node("Neg", "z", "t")], "t")
    other = region([node("Sin", "x", "z"), node("Neg", "z", "u")], "u")
    nodes = [if_(then, other, "t"), node("Abs", "t", "u"), node("Add", "t u", "z")]
    both_ways(model(nodes, FLAGGED, ["z"]))


def test_initialisers_of_a_branch_hide_outer_ones() -> None:
    then = region([node("Mul", "x k", "t")], "t", {"k": np.full(4, 3, np.float32)})
    other = region([node("Neg", "x", "t")], "t")
    constants = {"k": np.full(4, 2, np.float32)}
    both_ways(model([if_(then, other)], FLAGGED, ["y"], constants=constants))


def test_bodies_of_loops_reuse_names_of_the_outer_graph() -> None:
    inputs = [
        helper.make_tensor_value_info("trip", I64, []),
        helper.make_tensor_value_info("go", B, []),
        helper.make_tensor_value_info("x", F, [4]),
    ]
    flag = helper.make_tensor_value_info("more", B, [])
    inner = if_(region([node("Sin", "x", "q")], "q"), region([node("Neg", "x", "q")], "q"), "y")
    body = region([node("Identity", "go", "more"), inner], "y", inputs=inputs, more_outputs=[flag])
    proto = model(
        [helper.make_node("Loop", ["trip", "go", "x"], ["y"], body=body)],
        FLAGGED,
        ["y"],
        constants={"trip": np.int64(3), "go": np.array(True)},
    )
    both_ways(proto)


def test_a_name_twice_in_one_graph_is_refused() -> None:
    with pytest.raises(InvalidModelError, match="defined twice"):
        load_model(model([node("Relu", "x"), node("Neg", "x")], X, ["y"]))
    with pytest.raises(InvalidModelError, match="defined twice"):
        load_model(model([node("Neg", "x", "x"), node("Neg", "x")], X, ["y"]))
    with pytest.raises(InvalidModelError, match="defined twice"):
        load_model(model([node("Neg", "x", "k"), node("Add", "x k")], X, ["y"], constants={"k": 1}))


class _Scopes:
    """Random graphs within graphs on few names, and what they compute: a name is that of the
    innermost graph which defines it, wherever in that graph."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def graph(self, outer: Sequence[str], depth: int) -> tuple[list[onnx.NodeProto], str]:
        """Shuffled nodes, and the name of one result."""
        names = self.random.sample("abdefgh", self.random.randint(1, 4))
        known = [name for name in outer if name not in names]
        nodes = []
        for name in names:
            if depth and self.random.random() < 0.5:
                regions = [region(*self.graph(known, depth - 1)) for _ in range(2)]
                nodes.append(if_(*regions, output=name))
            else:
                op = self.random.choice(["Neg", "Sin", "Add", "Mul"])
                count = 1 if op in ("Neg", "Sin") else 2
                used = [self.random.choice(known) for _ in range(count)]
                nodes.append(helper.make_node(op, used, [name]))
            known.append(name)
        self.random.shuffle(nodes)
        return nodes, names[-1]

    def value(self, nodes: Sequence[onnx.NodeProto], name: str, outer: Any, flag: bool) -> Any:
        makers = {made: n for n in nodes for made in n.output}

        def find(wanted: str) -> Any:
            if wanted not in makers:
                return outer(wanted)
            maker = makers[wanted]
            if maker.op_type == "If":
                taken = {a.name: a.g for a in maker.attribute}[
                    "then_branch" if flag else "else_branch"
                ]
                return self.value(taken.node, taken.output[0].name, find, flag)
            ops = {"Neg": np.negative, "Sin": np.sin, "Add": np.add, "Mul": np.multiply}
            return ops[maker.op_type](*map(find, maker.input))

        return find(name)


@pytest.mark.parametrize("seed", range(40))
def test_random_scopes(seed: int) -> None:
    scopes = _Scopes(seed)
    nodes, result = scopes.graph(["x"], 3)
    graph = load_model(model(nodes, FLAGGED, [result]))
    for flag in (True, False):
        found = run_graph(graph, {**X, "c": np.array(flag)})[result]
        want = scopes.value(nodes, result, lambda _: X["x"], flag)
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------- initialisers


def test_of_initialisers_of_one_name_the_last_counts() -> None:
    proto = model([node("Mul", "x k")], X, ["y"], constants={"k": np.float32(2)})
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(3), "k"))
    check(proto, X)


def test_constants_replace_initialisers_and_earlier_constants() -> None:
    def fixed(value: float) -> onnx.NodeProto:
        tensor = numpy_helper.from_array(np.asarray(value, np.float32))
        return helper.make_node("Constant", [], ["k"], value=tensor)

    for nodes in ([fixed(5), node("Mul", "x k"), fixed(7)], [node("Mul", "x k"), fixed(7)]):
        check(model(nodes, X, ["y"], constants={"k": np.float32(2)}), X)


def test_unused_initialisers_may_be_of_any_type() -> None:
    words = numpy_helper.from_array(np.array(["a", "bb"], object), "words")
    proto = model([node("Neg", "x")], X, ["y"], constants={"z": np.ones(2, np.complex64)})
    proto.graph.initializer.extend([words, numpy_helper.from_array(floats(2), "")])
    check(proto, X)


def test_what_uses_an_initialiser_of_unknown_type_is_named() -> None:
    constants = {"z": np.ones(4, np.complex64)}
    proto = model([node("Add", "x z")], X, ["y"], constants=constants)
    with pytest.raises(UnsupportedError, match=r"initializer 'z'.*COMPLEX64"):
        load_model(proto)
    inner = region([node("Add", "x z", "t")], "t")
    proto = model([if_(inner, region([], "x"))], FLAGGED, ["y"], constants=constants)
    with pytest.raises(UnsupportedError, match=r"initializer 'z'.*COMPLEX64"):
        load_model(proto)
    with pytest.raises(UnsupportedError, match=r"initializer 'z'.*COMPLEX64"):
        load_model(model([], X, ["z"], constants=constants))


@pytest.mark.parametrize(
    ("values", "indices", "dims"),
    [
        ([5, 6], [1, 15], [4, 4]),
        ([5, 6], [[1, 3], [2, 0]], [4, 4]),
        ([5, 6], [[2, 3], [1, 0]], [4, 4]),
        ([], [], [4, 4]),
    ],
)
def test_sparse_initialisers(values: Any, indices: Any, dims: Sequence[int]) -> None:
    proto = model([node("MatMul", "x k")], X, ["y"])
    proto.graph.sparse_initializer.append(sparse("k", values, indices, dims))
    check(proto, X)


def test_sparse_constants() -> None:
    fixed = helper.make_node("Constant", [], ["k"], sparse_value=sparse("", [5, 6], [1, 3], [4]))
    check(model([fixed, node("Mul", "x k")], X, ["y"]), X)


@pytest.mark.parametrize(
    ("values", "indices", "dims"),
    [
        ([1, 2], [1, 999], [2, 3]),
        ([1, 2], [1, -1], [2, 3]),
        ([1, 2], [[0, 0], [1, 3]], [2, 3]),
        ([1, 2], [1], [2, 3]),
        ([1, 2], [[1], [2]], [2, 3]),
        ([1, 2], [1, 4], [2**31, 2**31]),
    ],
)
def test_malformed_sparse_initialisers(values: Any, indices: Any, dims: Sequence[int]) -> None:
    proto = model([node("Neg", "x")], X, ["y"])
    proto.graph.sparse_initializer.append(sparse("k", values, indices, dims))
    with pytest.raises(InvalidModelError, match="'k' is malformed"):
        load_model(proto)


def test_one_value_as_several_outputs() -> None:
    proto = model([node("Neg", "x", "y")], X, ["y", "y", "x", "k"], constants={"k": floats(2)})
    graph = check(proto, X)
    assert [value.name for value in graph.outputs] == ["y", "x", "k"]


def test_a_model_that_imports_other_domains_alone() -> None:
    proto = model([node("Softmax", "x", axis=0)], X, ["y"])
    del proto.opset_import[:]
    with pytest.raises(InvalidModelError, match="imports no opset"):
        load_model(proto)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    check(proto, X)
