"""Strings as their bytes: compared, moved and mapped as ONNX Runtime does; the rest refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import Job, Setting, run_all
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import InvalidModelError, RunError, UnsupportedError
from tensmith.frontends.onnx import load_model
from tensmith.runtime.meaning import decode, encode

from .oracle import node, run_ort

ML = "ai.onnx.ml"
WORDS = np.array([["", "a", "ab"], ["b", "\u7684\u4e2d", "abc"]], object)
OTHERS = np.array([["ab"], ["abc"]], object)
NUMBERS = np.array([[3, -1], [7, 100]])
FLAGS = np.array([[True, False, True], [False, False, True]])
STRING = TensorProto.STRING
KEYS = ["ab", "", "\u7684\u4e2d", "b", "ab", "zebra"]
LABELS = [5, 6, 7, 8, 9, 10]


def _model(part: onnx.NodeProto, inputs: dict[str, Any], kind: int) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in inputs.items()
    ]
    result = onnx.ValueInfoProto(name="y")
    result.type.tensor_type.elem_type = kind
    graph = helper.make_graph([part], "g", infos, [result])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ML, 4)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _encoder(**attributes: Any) -> onnx.NodeProto:
    return node("LabelEncoder", "a", domain=ML, **attributes)


CASES: dict[str, tuple[onnx.NodeProto, dict[str, Any], int]] = {
    "equal": (node("Equal", "a b"), {"a": WORDS, "b": OTHERS}, TensorProto.BOOL),
    "equal of one width": (node("Equal", "a b"), {"a": WORDS, "b": WORDS}, TensorProto.BOOL),
    "joined": (node("StringConcat", "a b"), {"a": WORDS, "b": OTHERS}, TensorProto.STRING),
    "joined with more": (
        node("StringConcat", "a b"), {"a": OTHERS, "b": WORDS}, TensorProto.STRING
    ),
    "joined vectors": (
        node("StringConcat", "a b"), {"a": WORDS[0], "b": WORDS[1]}, TensorProto.STRING
    ),
    "labels": (_encoder(keys_strings=KEYS, values_int64s=LABELS), {"a": WORDS}, TensorProto.INT64),
    "labels that are floats": (
        _encoder(keys_strings=KEYS, values_floats=[float(i) for i in LABELS], default_float=0.5),
        {"a": WORDS}, TensorProto.FLOAT,
    ),
    "labels in tensors": (
        _encoder(
            keys_tensor=numpy_helper.from_array(np.array(KEYS, object)),
            values_tensor=numpy_helper.from_array(np.array(LABELS, np.int16)),
            default_tensor=numpy_helper.from_array(np.array([-7], np.int16)),
        ),
        {"a": WORDS}, TensorProto.INT16,
    ),
    "strings from strings": (
        _encoder(keys_strings=KEYS, values_strings=[key * 2 for key in KEYS]),
        {"a": WORDS}, STRING,
    ),
    "strings from numbers": (
        _encoder(keys_int64s=[3, -1, 7], values_strings=["x", "long name", ""],
                 default_string="none"),
        {"a": NUMBERS}, STRING,
    ),
    "strings from numbers that may be NaN": (
        _encoder(keys_floats=[1.5, float("nan"), 0.0], values_strings=["x", "not", "zero"]),
        {"a": np.array([np.nan, 0.0, 1.5, 2.0], np.float32)}, STRING,
    ),
    "strings in tensors": (
        _encoder(keys_tensor=numpy_helper.from_array(np.array(KEYS, object)),
                 values_tensor=numpy_helper.from_array(np.array(KEYS[::-1], object)),
                 default_tensor=numpy_helper.from_array(np.array(["other"], object))),
        {"a": WORDS}, STRING,
    ),
    "categories to numbers": (
        node("CategoryMapper", "a", domain=ML, cats_strings=KEYS[:3], cats_int64s=[4, 5, 6],
             default_int64=-3),
        {"a": WORDS}, TensorProto.INT64,
    ),
    "numbers to categories": (
        node("CategoryMapper", "a", domain=ML, cats_strings=KEYS[:3], cats_int64s=[3, -1, 6]),
        {"a": NUMBERS}, STRING,
    ),
    "one flag per category": (
        node("OneHotEncoder", "a", domain=ML, cats_strings=["ab", "", "zebra"]),
        {"a": WORDS}, TensorProto.FLOAT,
    ),
    "reshape": (node("Reshape", "a s"), {"a": WORDS, "s": np.array([-1, 2])}, STRING),
    "transpose": (node("Transpose", "a", perm=[1, 0]), {"a": WORDS}, STRING),
    "concat": (node("Concat", "a b a", axis=1), {"a": WORDS, "b": OTHERS}, STRING),
    "gather": (node("Gather", "a i", axis=1), {"a": WORDS, "i": np.array([2, 0, -1])}, STRING),
    "where": (node("Where", "c a b"), {"c": FLAGS, "a": WORDS, "b": OTHERS}, STRING),
    "expand": (node("Expand", "a s"), {"a": OTHERS, "s": np.array([2, 4])}, STRING),
    "columns": (
        node("ArrayFeatureExtractor", "a i", domain=ML), {"a": WORDS, "i": np.array([2, 0])}, STRING
    ),
    "shape": (node("Shape", "a"), {"a": WORDS}, TensorProto.INT64),
}  # fmt: skip


def _bytes(inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    return {k: encode(array) if array.dtype == object else array for k, array in inputs.items()}


def _graph(proto: onnx.ModelProto, inputs: dict[str, Any], *, pinned: bool) -> Any:
    """Shapes that operators read are constants of the model."""
    shapes = {name: array.shape for name, array in _bytes(inputs).items() if pinned}
    values = {"s": inputs["s"]} if "s" in inputs else {}
    return load_model(proto, shapes={k: v for k, v in shapes.items() if k != "s"}, values=values)


def _given(inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: array for name, array in _bytes(inputs).items() if name != "s"}


@pytest.mark.parametrize("pinned", [True, False], ids=["known widths", "any width"])
def test_against_onnx_runtime(tmp_path: Path, pinned: bool) -> None:
    setting, jobs, wanted = Setting("native", 2), {}, {}
    for name, (part, inputs, kind) in CASES.items():
        proto = _model(part, inputs, kind)
        wanted[name] = run_ort(proto, inputs)["y"]
        graph = _graph(proto, inputs, pinned=pinned)
        _check(name, run_graph(graph, _given(inputs))["y"], wanted[name])
        jobs[name] = Job(_graph(proto, inputs, pinned=pinned), _given(inputs))
    if setting.missing():
        pytest.skip(setting.missing())
    for name, got in run_all(jobs, setting, tmp_path).items():
        assert not isinstance(got, Exception), f"{name}: {got}"
        _check(name, got["y"], wanted[name])


def _check(name: str, got: np.ndarray, want: np.ndarray) -> None:
    found = decode(got).astype(object) if want.dtype == object else got
    assert found.dtype == want.dtype, name
    assert found.tolist() == want.tolist(), name


def test_constants_that_are_strings() -> None:
    parts = [
        node("Constant", "", "one", value_string="ab"),
        node("Constant", "", "more", value_strings=["a", "zebra"]),
        node("Constant", "", "whole", value=numpy_helper.from_array(np.array([["c"]], object))),
        node("Unsqueeze", "one axis", "first"),
        node("Squeeze", "whole axis", "last"),
        node("Concat", "first more last a", "y", axis=0),
    ]
    proto = _model(parts[-1], {"a": np.array(["x", ""], object)}, STRING)
    del proto.graph.node[:]
    proto.graph.node.extend(parts)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    words = np.array(["b"], object)
    proto.graph.initializer.append(numpy_helper.from_array(words, "unused"))
    inputs = {"a": np.array(["x", ""], object)}
    want = run_ort(proto, inputs)["y"]
    _check("constants", run_graph(load_model(proto), _bytes(inputs))["y"], want)


@pytest.mark.parametrize("first", ["s", "z"])
@pytest.mark.parametrize("shapes", [{}, {"s": ("s_width",)}])
def test_the_width_of_strings_is_a_size_of_its_own(
    first: str, shapes: dict[str, tuple[str, ...]]
) -> None:
    inputs = {"s": (STRING, ["n"]), "z": (TensorProto.FLOAT, ["s_width"])}
    infos = [
        helper.make_tensor_value_info(name, *inputs[name])
        for name in sorted(inputs, reverse=first == "z")
    ]
    results = [onnx.ValueInfoProto(name=name) for name in ("t", "w")]
    nodes = [node("Identity", "s", "t"), node("Relu", "z", "w")]
    graph = helper.make_graph(nodes, "g", infos, results)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    words, numbers = np.array(["abc", "de"]), np.ones(2, np.float32)
    widths = [str(v.shape[1]) for v in load_model(proto, shapes=shapes).inputs if v.name == "s"]
    assert len(widths) == 1
    assert widths[0].startswith("s_width")
    found = run_graph(load_model(proto, shapes=shapes), {"s": encode(words), "z": numbers})
    assert decode(found["t"]).tolist() == words.tolist()
    np.testing.assert_array_equal(found["w"], numbers)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_strings_that_a_loop_carries(rounds: int) -> None:
    """One grows in every round, one stays as wide."""
    infos = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []),
            ("p", STRING, ["n"]), ("q", STRING, ["n"]),
        )
    ]  # fmt: skip
    body = [
        node("Identity", "go", "on"),
        node("StringConcat", "p mark", "longer"),
        node("Where", "c q p", "chosen"),
    ]
    ends = [onnx.ValueInfoProto(name=name) for name in ("on", "longer", "chosen")]
    for end, kind in zip(ends, (TensorProto.BOOL, STRING, STRING), strict=True):
        end.type.tensor_type.elem_type = kind
    region = helper.make_graph(body, "body", infos, ends)
    part = helper.make_node("Loop", ["m", "", "a", "b"], ["y", "z"], body=region)
    proto = _model(part, {"a": WORDS[0], "b": WORDS[1], "c": FLAGS[0]}, STRING)
    proto.graph.output.add(name="z").type.tensor_type.elem_type = STRING
    proto.graph.input.append(helper.make_tensor_value_info("m", TensorProto.INT64, []))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(["!"], object), "mark"))
    inputs = {"a": WORDS[0], "b": WORDS[1], "c": FLAGS[0], "m": np.array(rounds)}
    want = run_ort(proto, inputs)
    got = run_graph(load_model(proto), _bytes(inputs))
    for name, array in want.items():
        _check(name, got[name], array)


def test_a_value_in_no_category_ends_the_run_where_zeros_are_not_wanted() -> None:
    part = node("OneHotEncoder", "a", domain=ML, cats_strings=["a", "b"], zeros=0)
    graph = load_model(_model(part, {"a": WORDS[0]}, TensorProto.FLOAT))
    run_graph(graph, {"a": encode(["a", "b", "a"])})
    with pytest.raises(RunError, match="none of its categories"):
        run_graph(graph, {"a": encode(["a", "c", "a"])})


@pytest.mark.parametrize("op", ["IsNaN", "NonZero"])
def test_other_operators_on_strings_are_refused_by_name(op: str) -> None:
    proto = _model(node(op, "a"), {"a": WORDS}, TensorProto.STRING)
    with pytest.raises(UnsupportedError, match=op):
        load_model(proto, shapes={"a": (2, 3, 6)})


def test_every_refused_operator_is_named_also_behind_another() -> None:
    proto = _model(node("NonZero", "a", "t"), {"a": WORDS}, TensorProto.STRING)
    proto.graph.node.append(node("ImageDecoder", "a", "y"))
    with pytest.raises(UnsupportedError) as caught:
        load_model(proto)
    for name in ("NonZero", "ImageDecoder"):
        assert name in str(caught.value)


def test_a_string_and_a_number_do_not_compare() -> None:
    proto = _model(node("Equal", "a b"), {"a": WORDS, "b": OTHERS}, TensorProto.BOOL)
    proto.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(InvalidModelError, match="the other is not"):
        load_model(proto, shapes={"a": (2, 3, 6)})
