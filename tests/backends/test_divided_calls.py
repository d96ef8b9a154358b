"""Calls of kernels that threads may share: one function for all calls of a kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith

LAYERS, WIDTH, ROWS = 6, 128, 96


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    """Products by constants, one behind the other, of a million multiplications each."""
    draw = np.random.default_rng(0).standard_normal
    weights = [
        numpy_helper.from_array((draw((WIDTH, WIDTH)) / 11).astype(np.float32), f"w{n}")
        for n in range(LAYERS)
    ]
    nodes = []
    for n in range(LAYERS):
        nodes.append(helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"p{n}"]))
        nodes.append(helper.make_node("Softmax", [f"p{n}"], [f"x{n + 1}"]))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, (ROWS, WIDTH))],
        [helper.make_tensor_value_info(f"x{LAYERS}", TensorProto.FLOAT, (ROWS, WIDTH))],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, tmp_path / "layers.onnx")
    return tmp_path / "layers.onnx"


@needs_native
def test_arguments_for_threads_are_stored_at_one_place(layers: Path) -> None:
    """However often a kernel is called; results are those of one thread."""
    artifact = tensmith.compile(layers, threads=2, texts=["llvm"])
    divided = [k for k in artifact.manifest["kernels"] if k["calls"] > 1 and k["flops"] > 1e6]
    assert divided
    text = artifact.code.texts["llvm"]
    forks = text.count("call void @ts_rt_parallel(")
    assert 0 < forks <= len(artifact.manifest["kernels"])
    assert max(k["calls"] for k in divided) >= LAYERS - 1
    x = {"x0": np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)}
    alone = tensmith.compile(layers, threads=1).load()(x)[f"x{LAYERS}"]
    np.testing.assert_array_equal(artifact.load()(x)[f"x{LAYERS}"], alone)
