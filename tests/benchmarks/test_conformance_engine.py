"""The engine that a conformance runner drives: sequences in and out, structure from values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import Setting
from onnx import TensorProto, helper

from tensmith.benchmarks.conformance_engine import merge_outputs, run, split_inputs
from tensmith.compiler.errors import UnsupportedError

SEQUENCE = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))


def _repeated(folder: Path) -> Path:
    """A loop that appends its number to a sequence, as often as an input says."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["again"]),
            helper.make_node("Cast", ["i"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("SequenceInsert", ["s", "number"], ["t"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_value_info("s", SEQUENCE),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_value_info("t", SEQUENCE),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["yes"], value_ints=[1]),
            helper.make_node("Cast", ["yes"], ["going"], to=TensorProto.BOOL),
            helper.make_node("Loop", ["trip", "going", "first"], ["all"], body=body),
        ],
        "g",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_value_info("first", SEQUENCE),
        ],
        [helper.make_value_info("all", SEQUENCE)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.skipif(bool(Setting("native", 1).missing()), reason=Setting("native", 1).missing())
def test_sequences_and_values_that_decide_the_structure(tmp_path: Path) -> None:
    path = str(_repeated(tmp_path))
    for trip, first in ((2, []), (1, [np.float32([5, 6]), np.float32([7])])):
        (got,) = run(path, {"trip": np.array(trip), "first": first})
        wanted = [*first, *(np.float32(i) for i in range(trip))]
        assert isinstance(got, list)
        assert [np.asarray(item).tolist() for item in got] == [item.tolist() for item in wanted]


def test_what_is_refused_is_raised(tmp_path: Path) -> None:
    model = onnx.load(_repeated(tmp_path))
    model.graph.node[0].op_type = "NoSuchOperator"
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    with pytest.raises(UnsupportedError, match="NoSuchOperator"):
        run(str(path), {"trip": np.array(2), "first": []})


def test_parts_of_inputs_and_outputs() -> None:
    a, b = np.zeros(3), np.zeros((2, 1))
    arrays, shapes, empty = split_inputs({"s": [a, b], "x": a, "n": None, "e": []})
    assert list(arrays) == ["s_0", "s_1", "x"]
    assert shapes == {"s_0": (3,), "s_1": (2, 1)}
    assert empty == {"n": None, "e": []}
    infos = [helper.make_value_info("y", SEQUENCE), helper.make_value_info("s", SEQUENCE)]
    assert merge_outputs(infos, {"y": b, "s_0": a, "s_1": b}) == [b, [a, b]]


def test_strings_are_their_bytes() -> None:
    words = np.array([["a", ""], ["\u7684", "bcde"]], object)
    arrays, shapes, _ = split_inputs({"w": words})
    assert shapes == {"w": (2, 2, 4)}
    assert bytes(arrays["w"][1, 0]) == "\u7684".encode() + b"\0"
    info = helper.make_tensor_value_info("w", TensorProto.STRING, None)
    (back,) = merge_outputs([info], arrays)
    assert isinstance(back, np.ndarray)
    assert back.tolist() == words.tolist()
