"""Behind an exit rows are gathered, but only where each is computed by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import needs_native
from exit_models import (
    EXITS,
    FEATURES,
    X,
    behind_middle,
    by_hand,
    compiled_exits,
    exits_model,
    whole_model,
)
from onnx import helper, numpy_helper

from tensmith.compiler.errors import UsageError
from tensmith.frontends.onnx.cascading.exits import ExitStages

pytestmark = needs_native


@pytest.fixture(autouse=True, scope="module")
def _forget() -> Iterator[None]:
    yield
    whole_model.cache_clear()


_NODE = helper.make_node
_TABLE = np.arange(640, dtype=np.float32).reshape(64, 10)
_ALONG_ROWS = {
    "mean": [
        _NODE("ReduceMean", ["l1"], ["mean"], axes=[0], keepdims=1),
        _NODE("Sub", ["l1", "mean"], ["mixed"]),
    ],
    "largest": [
        _NODE("ReduceMax", ["l1"], ["most"], keepdims=0),
        _NODE("Div", ["l1", "most"], ["mixed"]),
    ],
    "softmax": [_NODE("Softmax", ["l1"], ["mixed"], axis=0)],
    "sums": [_NODE("CumSum", ["l1", "zero"], ["mixed"])],
    "turned": [_NODE("Slice", ["l1", "minus", "least", "zero", "minus"], ["mixed"])],
    "product": [
        _NODE("ReduceMax", ["l1"], ["most"], axes=[1]),
        _NODE("Gemm", ["most", "l1"], ["sum"], transA=1),
        _NODE("Add", ["l1", "sum"], ["mixed"]),
    ],
    "Einstein": [
        _NODE("Einsum", ["l1", "x"], ["among"], equation="nk,nm->km"),
        _NODE("MatMul", ["l1", "among"], ["mixed"]),
    ],
    "dot": [
        _NODE("ReduceMax", ["l1"], ["most"], axes=[1], keepdims=0),
        _NODE("MatMul", ["most", "most"], ["dot"]),
        _NODE("Add", ["l1", "dot"], ["mixed"]),
    ],
    "pairs": [
        _NODE("Reshape", ["l1", "two_rows"], ["pairs"]),
        _NODE("Softmax", ["pairs"], ["even"], axis=1),
        _NODE("Reshape", ["even", "one_row"], ["mixed"]),
    ],
    "interleaved": [
        _NODE("Transpose", ["l1"], ["turned"], perm=[1, 0]),
        _NODE("Reshape", ["turned", "one_row"], ["mixed"]),
    ],
    "first": [
        _NODE("Gather", ["l1", "zero"], ["first"], axis=0),
        _NODE("Add", ["l1", "first"], ["mixed"]),
    ],
    "row of a table": [  # that of the row's number
        _NODE("Constant", [], ["table"], value=numpy_helper.from_array(_TABLE)),
        _NODE("ArgMax", ["l1"], ["place"], axis=1),
        _NODE("GatherElements", ["table", "place"], ["own"], axis=1),
        _NODE("Add", ["l1", "own"], ["mixed"]),
    ],
    "padding": [  # for all rows but the first
        _NODE("Constant", [], ["row"], value=numpy_helper.from_array(_TABLE[:1])),
        _NODE("Shape", ["l1"], ["rows"], end=1),
        _NODE("Add", ["rows", "minus"], ["others"]),
        _NODE("Concat", ["zero", "zero", "others", "zero"], ["pads"], axis=0),
        _NODE("Pad", ["row", "pads"], ["padded"]),
        _NODE("Add", ["l1", "padded"], ["mixed"]),
    ],
}
_APART = {
    "mean": [
        _NODE("ReduceMean", ["l1"], ["mean"], axes=[1], keepdims=1),
        _NODE("Sub", ["l1", "mean"], ["mixed"]),
    ],
    "softmax": [_NODE("Softmax", ["l1"], ["mixed"], axis=1)],
    "turned": [_NODE("Slice", ["l1", "minus", "least", "one", "minus"], ["mixed"])],
    "gathered": [_NODE("Gather", ["l1", "order"], ["mixed"], axis=1)],
    "product": [_NODE("Gemm", ["l1", "square", "bias"], ["mixed"], transB=1)],
    "Einstein": [_NODE("Einsum", ["l1", "square"], ["mixed"], equation="nk,mk->nm")],
    "attention": [  # among five parts of a row
        _NODE("Reshape", ["l1", "five_parts"], ["parts"]),
        _NODE("Transpose", ["parts"], ["turned"], perm=[0, 2, 1]),
        _NODE("MatMul", ["parts", "turned"], ["scores"]),
        _NODE("Softmax", ["scores"], ["weights"], axis=2),
        _NODE("MatMul", ["weights", "parts"], ["seen"]),
        _NODE("Flatten", ["seen"], ["mixed"], axis=1),
    ],
    "flat": [  # parts as rows, each by itself
        _NODE("Reshape", ["l1", "halves"], ["flat"]),
        _NODE("Softmax", ["flat"], ["even"], axis=1),
        _NODE("Reshape", ["even", "one_row"], ["mixed"]),
    ],
    "recurrent": [  # steps come first inside
        _NODE("Reshape", ["l1", "five_parts"], ["parts"]),
        _NODE("Transpose", ["parts"], ["steps"], perm=[1, 0, 2]),
        _NODE("RNN", ["steps", "w", "r"], ["", "last"], hidden_size=10),
        _NODE("Squeeze", ["last", "zero"], ["mixed"]),
    ],
    "picture": [
        _NODE("Reshape", ["l1", "pixels"], ["picture"]),
        _NODE("Conv", ["picture", "window"], ["near"], pads=[1, 1]),
        _NODE("GlobalAveragePool", ["near"], ["mean"]),
        _NODE("Flatten", ["mean"], ["mixed"], axis=1),
    ],
}


@pytest.mark.parametrize("kind", _ALONG_ROWS)
def test_what_goes_along_rows_is_not_gathered(tmp_path: Path, kind: str) -> None:
    model = behind_middle(tmp_path, "batch", _ALONG_ROWS[kind])
    first = {"product": "sum", "Einstein": "among", "dot": "dot", "pairs": "pairs"}.get(kind, "")
    named = rf"{first}' .* goes along the rows .* its rows are not apart"
    with pytest.raises(UsageError, match=named):
        ExitStages(model, EXITS).joined((0.6, 0.7))
    ExitStages(model, EXITS, single=True).joined((0.6, 0.7))


@pytest.mark.parametrize("kind", _APART)
def test_what_goes_along_features_is_gathered(tmp_path: Path, kind: str) -> None:
    model = onnx.load(behind_middle(tmp_path, "batch", _APART[kind]))
    rng = np.random.default_rng(11)
    sizes = {"square": (10, 10), "bias": (10,), "w": (1, 10, 2), "r": (1, 10, 10)}
    weights = {name: rng.normal(size=size) for name, size in sizes.items()}
    weights["window"] = rng.normal(size=(10, 2, 3))
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    constants |= {"one": np.array([1]), "order": np.arange(FEATURES)[::-1]}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.save(model, tmp_path / "m.onnx")
    wanted, exits = by_hand(tmp_path / "m.onnx", X, ("max_softmax",), (0.6, 0.7))
    told = compiled_exits(ExitStages(tmp_path / "m.onnx", EXITS), (0.6, 0.7), tmp_path)({"x": X})
    np.testing.assert_array_equal(told["exit"], exits)
    np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)


def test_rows_may_see_each_other_in_front_of_the_first_exit(tmp_path: Path) -> None:
    """Nothing is gathered there."""
    model = onnx.load(exits_model(tmp_path / "m.onnx"))
    first = model.graph.node[0]
    assert first.output[0] == "xa"
    first.input[0] = "mixed"
    rest = list(model.graph.node)
    del model.graph.node[:]
    mean = _NODE("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1)
    model.graph.node.extend([mean, _NODE("Sub", ["x", "mean"], ["mixed"]), *rest])
    onnx.save(model, tmp_path / "m.onnx")
    wanted, exits = by_hand(tmp_path / "m.onnx", X, ("max_softmax",), (0.6, 0.7))
    told = compiled_exits(ExitStages(tmp_path / "m.onnx", EXITS), (0.6, 0.7), tmp_path)({"x": X})
    np.testing.assert_array_equal(told["exit"], exits)
    np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", ["batch", 4])
def test_rows_that_see_each_other_are_not_gathered(tmp_path: Path, batch: int | str) -> None:
    """Attention among rows behind the middle exit: a fixed batch runs as a whole."""
    mixing = [
        helper.make_node("Transpose", ["l1"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["l1", "turned"], ["among"]),
        helper.make_node("MatMul", ["among", "l1"], ["mixed"]),
    ]
    behind_middle(tmp_path, batch, mixing)
    stages = ExitStages(tmp_path / "m.onnx", EXITS)
    if batch == "batch":
        with pytest.raises(UsageError, match="its rows are not apart"):
            stages.joined((0.6, 0.7))
        ExitStages(tmp_path / "m.onnx", EXITS, single=True).joined((0.6, 0.7))
        return
    wanted, exits = by_hand(tmp_path / "m.onnx", X[:4], ("max_softmax",), (0.6, 0.7))
    told = compiled_exits(stages, (0.6, 0.7), tmp_path)({"x": X[:4]})
    np.testing.assert_array_equal(told["exit"], exits)
    np.testing.assert_allclose(told["late"], wanted, rtol=1e-4, atol=1e-5)
