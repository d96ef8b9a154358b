"""Rows of a large model are gathered only where each is computed by itself, and what is no number
is never taken for sure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.compiler.errors import UsageError
from tensmith.frontends.onnx.cascading.merging import CascadeStages, cascade_model

ROWS, FEATURES = 9, 6
X = np.random.default_rng(5).normal(size=(ROWS, FEATURES)).astype(np.float32)
_NODE = helper.make_node

# the number of each row and of each feature, as exporters write the places of a mask
_NUMBERS = [
    _NODE("Shape", ["x"], ["sizes"]),
    _NODE("Gather", ["sizes", "zero"], ["count"], axis=0),
    _NODE("Range", ["zero", "count", "one"], ["numbers"]),
    _NODE("Unsqueeze", ["numbers", "last"], ["column"]),
]
_PLACES = [
    *_NUMBERS,
    _NODE("Expand", ["column", "sizes"], ["row_places"]),
    _NODE("Unsqueeze", ["row_places", "last"], ["first"]),
    _NODE("Expand", ["features", "sizes"], ["feature_places"]),
    _NODE("Unsqueeze", ["feature_places", "last"], ["second"]),
]
_OWN = [
    *_PLACES,
    _NODE("Concat", ["first", "second"], ["places"], axis=-1),
    _NODE("GatherND", ["x", "places"], ["found"]),
]
_MET = {
    "numbers told apart": [
        *_NUMBERS, _NODE("Cast", ["column"], ["floats"], to=TensorProto.FLOAT),
        _NODE("Add", ["x", "floats"], ["found"]),
    ],
    "taken at turned places": [
        *_PLACES, _NODE("Concat", ["second", "first"], ["places"], axis=-1),
        _NODE("GatherND", ["x", "places"], ["found"]),
    ],
    "taken at the next row": [
        *_PLACES, _NODE("Sub", ["count", "one"], ["end"]), _NODE("Add", ["first", "one"], ["next"]),
        _NODE("Min", ["next", "end"], ["bound"]),
        _NODE("Concat", ["bound", "second"], ["places"], axis=-1),
        _NODE("GatherND", ["x", "places"], ["found"]),
    ],
    "told how many there are": [
        _NODE("Shape", ["x"], ["sizes"]), _NODE("Gather", ["sizes", "zero"], ["count"], axis=0),
        _NODE("Cast", ["count"], ["floats"], to=TensorProto.FLOAT),
        _NODE("Add", ["x", "floats"], ["found"]),
    ],
    "a mean": [
        _NODE("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        _NODE("Sub", ["x", "mean"], ["found"]),
    ],
}  # fmt: skip


def _model(path: Path, nodes: Sequence[onnx.NodeProto], opset: int = 17) -> Path:
    constants = {
        "zero": np.int64(0), "one": np.int64(1), "last": np.array([-1], np.int64),
        "features": np.arange(FEATURES)[::-1].reshape(1, FEATURES).astype(np.int64),
    }  # fmt: skip
    graph = helper.make_graph(
        [*nodes, _NODE("Mul", ["found", "found"], ["y"])], "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", FEATURES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _small(path: Path, opset: int = 17) -> Path:
    return _model(path, [_NODE("Identity", ["x"], ["found"])], opset)


@needs_native
def test_a_row_that_looks_itself_up_is_gathered(tmp_path: Path) -> None:
    large = _model(tmp_path / "large.onnx", _OWN)
    stages = CascadeStages(_small(tmp_path / "small.onnx"), large)
    squares = np.exp(X * X)
    sure = squares.max(axis=1) / squares.sum(axis=1)
    cut = float(np.median(sure)) + 1e-5
    model = cascade_model(stages, cut)
    told = tensmith.compile(model.SerializeToString()).load()({"x": X})
    assert 0 < told["deferred"].sum() < ROWS
    np.testing.assert_array_equal(told["deferred"], sure < cut)
    turned = np.where(told["deferred"][:, None], X[:, ::-1], X)
    np.testing.assert_allclose(told["y"], turned**2, rtol=1e-5)


@pytest.mark.parametrize("kind", _MET)
def test_rows_that_meet_in_the_large_model_are_refused(tmp_path: Path, kind: str) -> None:
    large = _model(tmp_path / "large.onnx", _MET[kind])
    small = _small(tmp_path / "small.onnx")
    with pytest.raises(UsageError, match="of the large model goes along the rows") as refused:
        cascade_model(CascadeStages(small, large), 0.5)
    assert "--single" in str(refused.value.remedy)
    cascade_model(CascadeStages(small, large, single=True), 0.5)


@pytest.mark.parametrize("axes", [("batch",), (FEATURES, "batch")])
def test_rows_lie_along_the_first_axis(tmp_path: Path, axes: tuple[int | str, ...]) -> None:
    """An output of the large model has them there, and each its own."""
    path = tmp_path / "m.onnx"
    nodes = [_NODE("Identity", ["x"], ["found"])]
    model = onnx.load(_model(path, nodes))
    if len(axes) == 1:
        model.graph.node.append(_NODE("ReduceMax", ["x"], ["z"], keepdims=0))
        axes = ()
    else:
        model.graph.node.append(_NODE("Transpose", ["x"], ["z"], perm=[1, 0]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, axes))
    onnx.save(model, path)
    with pytest.raises(UsageError, match=r"'z' of the large model .* its rows are not apart"):
        cascade_model(CascadeStages(path, path), 0.5)


@needs_native
@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("kind", ["max_softmax", "margin", "entropy"])
def test_what_is_no_number_is_not_sure(tmp_path: Path, kind: str, opset: int) -> None:
    small = _small(tmp_path / "small.onnx", opset)
    large = _model(tmp_path / "large.onnx", [_NODE("Neg", ["x"], ["found"])], opset)
    model = cascade_model(CascadeStages(small, large, kind), 0.0)
    x = X.copy()
    x[3] = np.nan
    told = tensmith.compile(model.SerializeToString()).load()({"x": x})
    assert told["deferred"].tolist() == [row == 3 for row in range(ROWS)]
