"""Edits of models under reduction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensmith.frontends.onnx import load, reduction

from .oracle import floats, model, node


def _network() -> onnx.ModelProto:
    nodes = [
        node("Gemm", "x w b", "g", transB=1),
        node("Split", "g", "p q", axis=1),
        node("Mul", "p q", "m"),
        node("Concat", "m m", "c", axis=1),
        node("Softmax", "c", "y"),
    ]
    constants = {"w": floats(6, 4), "b": floats(6)}
    return model(nodes, {"x": floats(2, 4)}, ["y"], constants=constants, dims={"x": ["n", 4]})


def _all(proto: onnx.ModelProto, stage: str, folder: Path) -> list[onnx.ModelProto]:
    """The models after each edit of a stage, those that can be told nothing of left out."""
    path = folder / "model.onnx"
    reduction.write(proto, path)
    types = reduction.types_of(proto, path)
    edits = dict(reduction.STAGES)[stage](proto, types)
    made = (reduction.edited(proto, [edit], types) for edit in edits)
    return [candidate for candidate in made if candidate is not None]


def _operators(proto: onnx.ModelProto) -> list[str]:
    return [item.op_type for item in proto.graph.node]


def test_what_a_removed_node_made_becomes_an_input(tmp_path: Path) -> None:
    without = _all(_network(), "nodes", tmp_path)
    assert [_operators(proto) for proto in without] == [
        ["Split", "Mul", "Concat", "Softmax"],
        ["Mul", "Concat", "Softmax"],
        ["Concat", "Softmax"],
        ["Softmax"],
    ]
    for proto, inputs in zip(without, (["g"], ["p", "q"], ["m"], ["c"]), strict=True):
        assert [info.name for info in proto.graph.input] == inputs
        assert not proto.graph.initializer
        graph = load_again(proto, tmp_path)
        assert [str(value.type.shape[0]) for value in graph.inputs] == ["n"] * len(inputs)


def load_again(proto: onnx.ModelProto, folder: Path):  # type: ignore[no-untyped-def]
    path = folder / "again.onnx"
    reduction.write(proto, path)
    return load(path)


def test_bypasses_keep_types(tmp_path: Path) -> None:
    found = {tuple(_operators(proto)) for proto in _all(_network(), "bypasses", tmp_path)}
    assert ("Gemm", "Split", "Concat", "Softmax") in found  # p in place of m
    assert ("Gemm", "Split", "Mul", "Concat") in found
    assert not any("Gemm" not in operators for operators in found)


def test_operands_attributes_symbols_and_sizes(tmp_path: Path) -> None:
    network = _network()
    shorter = _all(network, "operands", tmp_path)
    assert any(len(proto.graph.node[0].input) == 2 for proto in shorter)
    assert any(list(proto.graph.node[3].input) == ["m"] for proto in shorter)
    plain = _all(network, "attributes", tmp_path)
    assert any(not proto.graph.node[0].attribute for proto in plain)
    fixed = _all(network, "symbols", tmp_path)
    assert [[d.dim_value for d in _dims(proto)] for proto in fixed] == [[2, 4]]
    small = _all(network, "sizes", tmp_path)
    assert any(list(proto.graph.initializer[0].dims) == [6, 1] for proto in small)
    assert any(list(proto.graph.initializer[0].dims) == [2, 4] for proto in small)


def _dims(proto: onnx.ModelProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(proto.graph.input[0].type.tensor_type.shape.dim)


def test_results_that_nothing_reads_go(tmp_path: Path) -> None:
    proto = model([node("TopK", "x k", "v i")], {"x": floats(5)}, ["v"],
                  constants={"k": np.int64([2])})  # fmt: skip
    assert [list(p.graph.node[0].output) for p in _all(proto, "results", tmp_path)] == [["v"]]


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_weights_lie_beside_the_model(tmp_path: Path, place: str) -> None:
    weight = floats(200, 200)
    proto = model([node("MatMul", "x w")], {"x": floats(1, 200)}, ["y"], constants={"w": weight})
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=place == "beside", size_threshold=0)
    read = reduction.read(path)
    folder = tmp_path / "work"
    folder.mkdir()
    reduction.stow(read, folder)
    assert read.ByteSize() < 1000
    reduction.write(read, folder / "candidate.onnx")
    data = load(folder / "candidate.onnx").constants()[0].data
    np.testing.assert_array_equal(data, weight)
    reduction.unstow(read, folder)
    reduction.write(read, tmp_path / "whole.onnx")
    data = load(tmp_path / "whole.onnx").constants()[0].data
    np.testing.assert_array_equal(data, weight)


def test_pinned_shapes_are_declared() -> None:
    proto = _network()
    reduction.pin(proto, {"x": (7, "1..8")})
    assert [dim.dim_value for dim in _dims(proto)] == [7, 4]
    reduction.pin(proto, {"x": ("rows", "?")})
    assert [dim.dim_param for dim in _dims(proto)] == ["rows", ""]
    assert not _dims(proto)[1].HasField("dim_value")


def test_random_weights_keep_settings() -> None:
    proto = model(
        [node("Reshape", "x s", "r"), node("MatMul", "r w")],
        {"x": floats(2, 40)},
        ["y"],
        constants={"s": np.int64([4, 20]), "w": floats(20, 3, seed=1)},
    )
    drawn = reduction.random_weights(proto)
    same = [
        onnx.numpy_helper.to_array(new).tolist() == onnx.numpy_helper.to_array(old).tolist()
        for new, old in zip(drawn.graph.initializer, proto.graph.initializer, strict=True)
    ]
    assert same == [True, False]
    assert reduction.random_weights(proto).SerializeToString() == drawn.SerializeToString()


def test_names_are_numbers_everywhere() -> None:
    inner = helper.make_graph(
        [node("Add", "x private", "own")],
        "private",
        [],
        [helper.make_tensor_value_info("own", TensorProto.FLOAT, ["private"])],
    )
    proto = model(
        [helper.make_node("If", ["c"], ["y"], "private", then_branch=inner, else_branch=inner)],
        {"x": floats(3), "c": np.array(True)},
        ["y"],
        constants={"private": floats(3)},
        dims={"x": ["private"]},
    )
    hidden = reduction.anonymous(proto)
    assert b"private" not in hidden.SerializeToString()
    assert hidden.graph.node[0].attribute[0].g.node[0].input[0] == hidden.graph.input[0].name
