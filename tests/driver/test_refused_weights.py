"""Models none of whose weights are stored in few bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.compiler.errors import UsageError


def test_models_of_other_products_are_told_what_stores_their_weights(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).standard_normal
    constants = {"w": drawn((1, 32, 6)), "r": drawn((1, 32, 8))}
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "w", "r"], ["y"], "cells", hidden_size=8)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (5, 1, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (5, 1, 1, 8))],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(UsageError) as raised:
        tensmith.compile(tmp_path / "net.onnx", precision="int8-weights")
    assert "--precision int8 and --calibration" in str(raised.value.remedy)
    assert "weights of LSTM in 8 bits" in str(raised.value.remedy)
