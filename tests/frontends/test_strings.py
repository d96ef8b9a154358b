"""Strings as their bytes: compared, joined and numbered as ONNX Runtime does; the rest refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import Job, Setting, run_all
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.benchmarks.conformance_engine import decoded, encoded
from tensmith.compiler.errors import InvalidModelError, UnsupportedError
from tensmith.frontends.onnx import load_model

from .oracle import node, run_ort

ML = "ai.onnx.ml"
WORDS = np.array([["", "a", "ab"], ["b", "\u7684\u4e2d", "abc"]], object)
OTHERS = np.array([["ab"], ["abc"]], object)
KEYS = ["ab", "", "\u7684\u4e2d", "b", "ab", "zebra"]
LABELS = [5, 6, 7, 8, 9, 10]


def _model(part: onnx.NodeProto, inputs: dict[str, Any], kind: int) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info(name, TensorProto.STRING, array.shape)
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
}  # fmt: skip


def _graph(proto: onnx.ModelProto, inputs: dict[str, Any]) -> Any:
    return load_model(proto, shapes={name: encoded(array).shape for name, array in inputs.items()})


def test_against_onnx_runtime(tmp_path: Path) -> None:
    setting, jobs, wanted = Setting("native", 2), {}, {}
    for name, (part, inputs, kind) in CASES.items():
        proto = _model(part, inputs, kind)
        bytes_of = {key: encoded(array) for key, array in inputs.items()}
        wanted[name] = run_ort(proto, inputs)["y"]
        _check(name, run_graph(_graph(proto, inputs), bytes_of)["y"], wanted[name])
        jobs[name] = Job(_graph(proto, inputs), bytes_of)
    if setting.missing():
        pytest.skip(setting.missing())
    for name, got in run_all(jobs, setting, tmp_path).items():
        assert not isinstance(got, Exception), f"{name}: {got}"
        _check(name, got["y"], wanted[name])


def _check(name: str, got: np.ndarray, want: np.ndarray) -> None:
    found = decoded(got) if want.dtype == object else got
    assert found.dtype == want.dtype, name
    assert found.tolist() == want.tolist(), name


def test_strings_whose_width_is_not_known_are_refused() -> None:
    part, inputs, kind = CASES["equal"]
    with pytest.raises(UnsupportedError, match="one more dimension"):
        load_model(_model(part, inputs, kind))


@pytest.mark.parametrize("op", ["RegexFullMatch", "StringNormalizer", "Size"])
def test_other_operators_on_strings_are_refused_by_name(op: str) -> None:
    proto = _model(node(op, "a"), {"a": WORDS}, TensorProto.STRING)
    with pytest.raises(UnsupportedError, match=op):
        load_model(proto, shapes={"a": (2, 3, 6)})


def test_every_refused_operator_is_named_also_behind_another() -> None:
    proto = _model(node("StringSplit", "a", "t n"), {"a": WORDS}, TensorProto.STRING)
    proto.graph.node.append(node("RegexFullMatch", "t", "y"))
    with pytest.raises(UnsupportedError) as caught:
        load_model(proto)
    for name in ("'a'", "StringSplit", "RegexFullMatch"):
        assert name in str(caught.value)


def test_a_string_and_a_number_do_not_compare() -> None:
    proto = _model(node("Equal", "a b"), {"a": WORDS, "b": OTHERS}, TensorProto.BOOL)
    proto.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(InvalidModelError, match="the other is not"):
        load_model(proto, shapes={"a": (2, 3, 6)})
