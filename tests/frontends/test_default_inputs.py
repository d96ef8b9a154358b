"""Initialisers that are inputs too: what callers may replace, and what is constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tensmith
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError, UsageError
from tensmith.frontends.onnx import load_model

from .oracle import Array, floats, model, node, run_ort

X = {"x": floats(2, 4)}
SCALE = {"k": np.float32([2])}


def listed(
    nodes: Sequence[onnx.NodeProto],
    defaults: Mapping[str, Array],
    *,
    dims: dict[str, Sequence[int | str | None]] | None = None,
    constants: Mapping[str, Array] | None = None,
) -> onnx.ModelProto:
    """A model of x, and of inputs that have defaults."""
    given = {**X, **defaults}
    values = {**defaults, **(constants or {})}
    return model(nodes, given, ["y"], constants=values, dims={"x": ["n", 4], **(dims or {})})


def scaled() -> onnx.ModelProto:
    return listed([node("Mul", "x k")], SCALE)


def check(proto: onnx.ModelProto, *replacements: Mapping[str, Array]) -> list[str]:
    """Compare with ONNX Runtime without and with replacements; the notes of the import."""
    graph = load_model(proto)
    for more in ({}, *replacements):
        feed = {**X, **more}
        for name, want in run_ort(proto, feed).items():
            np.testing.assert_allclose(run_graph(graph, feed)[name], want, rtol=1e-3, atol=1e-4)
    return graph.notes


@pytest.mark.parametrize(
    ("nodes", "defaults", "replaced"),
    [
        ([node("Mul", "x k")], SCALE, {"k": np.float32([5])}),
        ([node("Mul", "x k")], {"k": np.array(2, np.float32)}, {"k": np.array(5, np.float32)}),
        ([node("MatMul", "x k")], {"k": floats(4, 3)}, {"k": floats(4, 3, seed=1)}),
        ([node("Reshape", "x k")], {"k": np.int64([4, -1])}, {"k": np.int64([-1, 2])}),
        ([node("Clip", "x - k")], {"k": np.array(0, np.float32)}, {"k": np.array(1, np.float32)}),
        ([node("Neg", "x")], SCALE, {"k": np.float32([5])}),
    ],
)
def test_defaults_may_be_replaced(
    nodes: Sequence[onnx.NodeProto], defaults: dict[str, Array], replaced: dict[str, Array]
) -> None:
    proto = listed(nodes, defaults)
    assert check(proto, replaced) == []
    assert list(load_model(proto).defaults) == ["k"]


def test_a_default_as_output() -> None:
    proto = listed([node("Mul", "x k", "y"), node("Neg", "k", "z")], SCALE)
    proto.graph.output.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [1]))
    check(proto, {"k": np.float32([5])})


def test_sizes_of_defaults_are_symbols_of_their_own() -> None:
    nodes = [node("Concat", "x k", "y", axis=0)]
    proto = listed(nodes, {"k": floats(0, 4)}, dims={"k": ["n", 4]})
    check(proto, {"k": floats(3, 4)})
    assert [str(dim) for dim in load_model(proto).inputs[1].shape] == ["k_d0", "4"]


def test_defaults_without_elements_stay_so() -> None:
    proto = listed([node("Concat", "x k", axis=0)], {"k": floats(0, 4)})
    assert check(proto) == []
    assert load_model(proto).inputs[1].type.static_shape == (0, 4)


def test_old_files_and_the_setting_make_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    old = scaled()
    old.ir_version = 3
    for graph in (load_model(old), load_model(scaled(), defaults="constant")):
        assert [value.name for value in graph.inputs] == ["x"]
        assert graph.notes == []
    assert list(load_model(old, defaults="input").defaults) == ["k"]
    monkeypatch.setenv("TENSMITH_DEFAULTS", "constant")
    assert [value.name for value in load_model(scaled()).inputs] == ["x"]
    monkeypatch.setenv("TENSMITH_DEFAULTS", "nonsense")
    with pytest.raises(UsageError, match="TENSMITH_DEFAULTS=nonsense"):
        load_model(scaled())


def test_listed_weights_are_constants() -> None:
    weights = {"k": floats(4, 40), "m": floats(40, 40)}
    nodes = [node("MatMul", "x k", "t"), node("MatMul", "t m", "u"), node("Mul", "u s")]
    proto = listed(nodes, {**weights, "s": np.float32([2])})
    (note,) = check(proto)
    assert "all 3 are constants" in note
    assert "TENSMITH_DEFAULTS=input" in note
    assert load_model(proto).defaults == {}
    assert len(load_model(proto, defaults="input").defaults) == 3


def test_weights_of_which_most_are_not_listed_may_be_replaced() -> None:
    nodes = [node("MatMul", "x a", "t"), node("MatMul", "t b", "u"), node("MatMul", "u k")]
    proto = listed(
        nodes, {"k": floats(40, 40)}, constants={"a": floats(4, 40), "b": floats(40, 40)}
    )
    assert check(proto, {"k": floats(40, 40, seed=1)}) == []


def test_what_the_compiler_must_know_is_constant() -> None:
    nodes = [
        node("Mul", "x k", "t"),
        node("Constant", "", "zero", value_ints=[0]),
        node("Unsqueeze", "x zero", "wide"),
        node("SequenceConstruct", "t x", "parts"),
        node("SequenceInsert", "parts wide a", "more"),
        node("Squeeze", "zero", "first"),
        node("SequenceAt", "more first", "part"),
        node("Add", "part b", "y"),
    ]
    proto = listed(nodes, {**SCALE, "a": np.array(1), "b": np.float32([1])})
    (note,) = check(proto, {"k": np.float32([5])})
    assert "the defaults of 'a' are constants" in note
    assert list(load_model(proto).defaults) == ["k", "b"]


def test_defaults_that_do_not_fit() -> None:
    proto = scaled()
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 9
    (note,) = load_model(proto).notes
    assert "'k' is f32[1], and not [9]" in note
    with pytest.raises(UsageError, match="--shape makes input 'k'"):
        load_model(proto, shapes={"k": (3,)})
    proto.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(InvalidModelError, match="default of type f32"):
        load_model(proto, defaults="input")


def test_defaults_can_be_fixed_and_loosened() -> None:
    assert load_model(scaled(), values={"k": np.float32([3])}).defaults == {}
    graph = load_model(scaled(), shapes={"k": ("?",)})
    feed = {**X, "k": floats(4)}
    np.testing.assert_allclose(run_graph(graph, feed)["y"], X["x"] * feed["k"], rtol=1e-5)


def test_defaults_that_are_strings(tmp_path: Path) -> None:
    words = np.array(["a", "bb"], object)
    proto = model([node("Identity", "s"), node("Relu", "x", "z")], {**X, "s": words}, ["y", "z"],
                  types=[TensorProto.STRING, TensorProto.FLOAT])  # fmt: skip
    proto.graph.initializer.append(
        helper.make_tensor("s", TensorProto.STRING, [2], [b"a", "bé".encode()])
    )
    onnx.save(proto, tmp_path / "model.onnx")
    artifact = tensmith.compile(tmp_path / "model.onnx")
    assert not artifact.notes
    module = artifact.load()
    for more in ({}, {"s": np.array(["longer ones", ""], object)}):
        feed = {**X, **more}
        assert module(feed)["y"].tolist() == run_ort(proto, feed)["y"].tolist()
