"""What a model declares of shapes: true for inputs, hints elsewhere; and how --shape changes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError, UnsupportedError
from tensmith.compiler.ir import Graph
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node

F = TensorProto.FLOAT
X = {"x": floats(2, 4)}
WEIGHTS = {"w": floats(4, 3)}


def declared(
    proto: onnx.ModelProto, name: str, shape: Sequence[int | str] | None, kind: int = F
) -> onnx.ModelProto:
    """The model with a value, or an output, declared with another shape."""
    info = helper.make_tensor_value_info(name, kind, shape)
    outputs = {output.name: output for output in proto.graph.output}
    if name in outputs:
        outputs[name].CopyFrom(info)
    else:
        proto.graph.value_info.append(info)
    return proto


def product() -> onnx.ModelProto:
    return model([node("Neg", "x", "t"), node("MatMul", "t w")], X, ["y"], constants=WEIGHTS)


def shape_of(graph: Graph, index: int = 0) -> list[str]:
    return [str(dim) for dim in graph.inputs[index].shape]


@pytest.mark.parametrize("name", ["y", "t"])
@pytest.mark.parametrize("shape", [[1, 3], [6], [1, 2, 3], [], [7, "n"], [2**40, 2**40]])
def test_declared_shapes_that_do_not_hold_are_ignored(
    name: str, shape: Sequence[int | str]
) -> None:
    graph = check(declared(product(), name, shape), X)
    assert len(graph.notes) == 1
    assert f"'{name}' is f32[2, " in graph.notes[0]


@pytest.mark.parametrize("shape", [None, [2, 3], [-1, -1], [0, 3], ["n", "q"], [-1, 3]])
def test_declared_shapes_that_say_less_are_right(shape: Sequence[int | str] | None) -> None:
    assert check(declared(product(), "y", shape), X).notes == []


def test_many_contradictions_are_one_note() -> None:
    proto = declared(product(), "y", [9])
    for name in "txw":
        declared(proto, name, [9, 9])
    (note,) = load_model(proto).notes
    assert "'y' is f32[2, 3], and not [9]" in note
    assert note.endswith("and 1 more")


def test_declared_shapes_are_compared_whatever_is_pinned() -> None:
    proto = declared(product(), "y", [1, 3])
    for shapes in (None, {"x": (5, 4)}, {"x": ("?", 4)}):
        notes = load_model(proto, shapes=shapes).notes
        assert bool(notes) is (shapes != {"x": ("?", 4)})


def test_an_output_of_another_element_type_is_refused() -> None:
    proto = declared(product(), "y", [2, 3], TensorProto.INT64)
    for shapes in (None, {"x": (2, 4)}):
        with pytest.raises(InvalidModelError, match="declares"):
            load_model(proto, shapes=shapes)


def test_shapes_of_branches_and_bodies_are_hints() -> None:
    regions = [
        helper.make_graph(
            [node(op, "x", "t")], "region", [], [helper.make_tensor_value_info("t", F, [9])]
        )
        for op in ("Neg", "Exp")
    ]
    proto = model(
        [helper.make_node("If", ["c"], ["y"], then_branch=regions[0], else_branch=regions[1])],
        {**X, "c": np.array(True)},
        ["y"],
    )
    check(proto, {**X, "c": np.array(False)})


@pytest.mark.parametrize("dim", [-1, 0, "", "?", "None", " ", "-1"])
def test_sizes_that_are_not_known(dim: int | str) -> None:
    """Each is a symbol of its own."""
    proto = model([node("Relu", "x")], X, ["y"], dims={"x": [dim, dim]})
    graph = load_model(proto)
    assert shape_of(graph) == ["x_d0", "x_d1"]
    for x in (floats(2, 4), floats(3, 3), floats(0, 5)):
        np.testing.assert_array_equal(run_graph(graph, {"x": x})["y"], np.maximum(x, 0))


def test_lists_without_elements_stay_so() -> None:
    x = {"x": floats(2, 4), "axes": np.zeros(0, np.int64)}
    nodes = [node("ReduceSum", "x axes", "y", keepdims=0, noop_with_empty_axes=1)]
    check(model(nodes, x, ["y"]), x)


def test_negative_sizes_other_than_unknown_are_refused() -> None:
    with pytest.raises(InvalidModelError, match="dimension of -5"):
        load_model(model([node("Relu", "x")], X, ["y"], dims={"x": [-5, 4]}))


def test_different_names_are_different_symbols() -> None:
    names = [["a.b", "a_b"], ["z" * 70 + "1", "z" * 70 + "2"], ["x_d1", None], ["7", "d7"]]
    for first, second in names:
        proto = model([node("Relu", "x")], X, ["y"], dims={"x": [first, second]})
        graph = load_model(proto)
        assert len(set(shape_of(graph))) == 2
        run_graph(graph, X)


def test_what_a_dim_is_declared_to_mean_is_not_its_name() -> None:
    proto = model([node("Relu", "x")], X, ["y"], dims={"x": [None, None]})
    for dim, meaning in zip(
        proto.graph.input[0].type.tensor_type.shape.dim, ("DATA_BATCH", "DATA_FEATURE"), strict=True
    ):
        dim.denotation = meaning
    assert shape_of(load_model(proto)) == ["x_d0", "x_d1"]


def test_shapes_loosen_what_the_model_declares() -> None:
    x = {"a": floats(2, 4), "b": floats(3, 4)}
    nodes = [node("ReduceSum", "a", "s", keepdims=0), node("Add", "b s")]
    proto = model(nodes, x, ["y"], dims={"a": ["n", 4], "b": ["n", 4]})
    assert shape_of(load_model(proto), 1) == ["n", "4"]
    for dim in ("?", "m"):
        graph = load_model(proto, shapes={"b": (dim, 4)})
        want = x["b"] + x["a"].sum()
        np.testing.assert_allclose(run_graph(graph, x)["y"], want, rtol=1e-5)
    graph = load_model(proto, shapes={"a": ("?", "?"), "b": ("?", "?")})
    assert len({*shape_of(graph, 0), *shape_of(graph, 1)}) == 4


def test_an_input_of_unknown_rank_gets_it_from_the_caller() -> None:
    proto = model([node("Relu", "x")], X, ["y"])
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UnsupportedError, match=r"--shape x:\?x\?"):
        load_model(proto)
    graph = load_model(proto, shapes={"x": ("?", "?")})
    np.testing.assert_array_equal(run_graph(graph, X)["y"], np.maximum(X["x"], 0))


def test_a_condition_of_unknown_size_has_one_element() -> None:
    regions = [
        helper.make_graph([node(op, "x", "t")], "r", [], [onnx.ValueInfoProto(name="t")])
        for op in ("Neg", "Exp")
    ]
    proto = model(
        [helper.make_node("If", ["c"], ["y"], then_branch=regions[0], else_branch=regions[1])],
        {**X, "c": np.array([True])},
        ["y"],
        dims={"c": ["n"]},
    )
    for flag in (True, False):
        check(proto, {**X, "c": np.array([flag])})


def test_a_number_of_axes_that_is_not_known_is_said() -> None:
    x = {"x": floats(1, 4, 1), "axes": np.int64([0])}
    unknown: dict[str, list[int | str | None]] = {"x": [None] * 3, "axes": [None]}
    proto = model([node("Squeeze", "x axes")], x, ["y"], dims=unknown)
    with pytest.raises(UnsupportedError, match="known at run time only"):
        load_model(proto)
