"""Data that are divided, and weights that are multiplied by the same: results stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.driver.quantisation import Quantisation
from tensmith.driver.request import CompileRequest
from tensmith.driver.weight_compensation import DIVIDED, NEAREST
from tensmith.driver.weight_quantisation import quantise_weights
from tensmith.frontends.onnx import load
from tensmith.frontends.onnx.quantising.additions import Additions
from tensmith.frontends.onnx.quantising.constants import Constants
from tensmith.frontends.onnx.quantising.data_scales import Divider, scales_of

Array = np.ndarray[Any, Any]
DEPTH, COLUMNS = 128, 160
RNG = np.random.default_rng(11)
SIZES = np.where(np.arange(DEPTH) % 17 == 3, 40.0, 1.0).astype(np.float32)


def drawn(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def model(maker: str, *, read_twice: bool = False) -> onnx.ModelProto:
    """Two products that read what `maker` makes of x, and, if that is read twice, its sum."""
    constants = {
        "g": SIZES,
        "b": drawn(DEPTH),
        "w": drawn(DEPTH, COLUMNS),
        "v": drawn(DEPTH, COLUMNS),
    }
    inputs = {"Mul": ["x", "g"], "LayerNormalization": ["x", "g", "b"], "Tanh": ["x"]}[maker]
    nodes = [
        helper.make_node(maker, inputs, ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"], "first"),
        helper.make_node("MatMul", ["h", "v"], ["z"], "second"),
    ]
    nodes += [helper.make_node("ReduceSum", ["h"], ["s"])] if read_twice else []
    outputs = ["y", "z", *(["s"] if read_twice else [])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", DEPTH))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_scales_follow_the_size_of_data() -> None:
    power = np.array([0.0, 1.0, 100.0, 10000.0])
    scales = scales_of(power, 0.5)
    np.testing.assert_allclose(scales[3] / scales[1], 10.0, 1e-6)
    np.testing.assert_allclose(scales.max() * scales.min(), 1.0, 1e-6)
    assert scales[0] > 0


@pytest.mark.parametrize(
    ("maker", "read_twice", "added"),
    [
        ("Mul", False, 0),
        ("LayerNormalization", False, 0),
        ("LayerNormalization", True, 1),
        ("Tanh", False, 1),
    ],
)
def test_what_makes_data_divides_them_where_nothing_else_reads_them(
    maker: str, read_twice: bool, added: int, tmp_path: Path
) -> None:
    changed = model(maker, read_twice=read_twice)
    before = tmp_path / "before.onnx"
    onnx.save(changed, before)
    scales = scales_of(SIZES**2, 0.5)
    new, constants = Additions(changed.graph), Constants(changed)
    divider = Divider(new, constants, {"h": scales})
    readers = [node for node in changed.graph.node if node.op_type == "MatMul"]
    divider.plan(readers)
    for node in changed.graph.node:
        if node.op_type == "MatMul":
            node.input[0] = divider.of(node.input[0])
            wide = constants.array(node.input[1]) * scales[:, None]
            node.input[1] = new.initial("wide", wide)
        new.nodes.append(node)
    new.finish()
    after = tmp_path / "after.onnx"
    onnx.save(changed, after)
    assert len(changed.graph.node) == 3 + read_twice + added
    x = drawn(5, DEPTH)
    want, got = (run_graph(load(path), {"x": x}) for path in (before, after))
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, 1e-4, 1e-4 * np.abs(array).max())


def quantised(source: Path, precision: str, samples: list[dict[str, Array]]) -> Quantisation:
    request = CompileRequest(precision=precision, calibration=samples)
    folder = source.parent / precision
    folder.mkdir()
    return quantise_weights(source, folder / "q.onnx", request, folder)


@needs_native
def test_weights_of_large_data_lose_less(tmp_path: Path) -> None:
    """Where few channels of the data are large and each comes by itself."""
    source = tmp_path / "net.onnx"
    onnx.save(model("LayerNormalization"), source)
    samples = [{"x": drawn(40, DEPTH)} for _ in range(8)]
    found = quantised(source, "int4-weights", samples)
    assert found.tried[DIVIDED] > found.tried[NEAREST] + 1
    ops = [node.op_type for node in onnx.load(found.path).graph.node]
    assert "Mul" not in ops
    x = drawn(40, DEPTH)
    want, got = (run_graph(load(path), {"x": x})["y"] for path in (source, found.path))
    noise = np.square(got - want).sum() / np.square(want).sum()
    assert 10 * np.log10(1 / noise) > found.tried[NEAREST] + 1
    assert DIVIDED not in quantised(source, "int8-weights", samples).tried
