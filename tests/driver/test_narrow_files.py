"""Inputs and outputs of types that numpy does not know, between processes and in files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.compiler.ir import DType, Graph, TensorType, Value
from tensmith.driver.cli import main
from tensmith.driver.engines import EngineSpec
from tensmith.driver.processes import EngineProcess
from tensmith.driver.samples import Sampler
from tensmith.driver.tensor_files import as_types, narrow_types, read_file, write_npz

NARROW = [dtype for dtype in DType if dtype.is_narrow]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = 2 q, z = q; of float8: g = f, h = f as float32."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "two"], ["y"]),
        helper.make_node("Identity", ["q"], ["z"]),
        helper.make_node("Identity", ["f"], ["g"]),
        helper.make_node("Cast", ["f"], ["h"], to=TensorProto.FLOAT),
    ]
    inputs = {"q": TensorProto.INT4, "f": TensorProto.FLOAT8E5M2}
    outputs = {"y": 1, "z": TensorProto.INT4, "g": TensorProto.FLOAT8E5M2, "h": 1}
    infos = [
        [helper.make_tensor_value_info(name, code, ["n"]) for name, code in side.items()]
        for side in (inputs, outputs)
    ]
    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    graph = helper.make_graph(nodes, "g", *infos, [two])
    opsets = [helper.make_opsetid("", 21)]
    path = tmp_path_factory.mktemp("narrow") / "model.onnx"
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path.write_bytes(made.SerializeToString())
    return path


def _inputs() -> dict[str, np.ndarray]:
    bits = np.array([-8, 7, 3, -1, 0])
    return {
        "q": bits.astype(DType.I4.numpy),
        "f": (bits / 4).astype(np.float32).astype(DType.F8E5M2.numpy),
    }


def _assert_outputs(found: dict[str, np.ndarray]) -> None:
    given = _inputs()
    assert found["z"].dtype == given["q"].dtype
    assert found["g"].dtype == given["f"].dtype
    np.testing.assert_array_equal(found["y"], given["q"].astype(np.float32) * 2)
    np.testing.assert_array_equal(found["z"].astype(int), given["q"].astype(int))
    np.testing.assert_array_equal(found["h"], given["f"].astype(np.float32))
    np.testing.assert_array_equal(found["g"].view(np.uint8), given["f"].view(np.uint8))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_files_hold_their_bytes(tmp_path: Path, dtype: DType) -> None:
    array = np.array([0, 1, 1, 0, 1], np.float32).astype(dtype.numpy)
    write_npz(tmp_path / "x.npz", {"x": array, "w": np.ones(2)})
    assert narrow_types({"x": array, "w": np.ones(2)}) == {"x": dtype.value}
    read = read_file(tmp_path / "x.npz")
    assert read["x"].dtype == np.dtype("V1")
    typed = as_types(read, {"x": dtype.value, "w": dtype.value})
    assert (typed["x"].dtype, typed["w"].dtype) == (dtype.numpy, np.float64)
    np.testing.assert_array_equal(typed["x"].view(np.uint8), array.view(np.uint8))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_random_inputs_have_several_values(dtype: DType) -> None:
    sampler = Sampler(Graph([Value(TensorType(dtype, (200,)), "x")]))
    drawn = sampler.draw({}, 0)["x"]
    assert drawn.dtype == dtype.numpy
    numbers = drawn.astype(np.float32)
    assert np.isfinite(numbers).all()
    assert len(set(numbers.tolist())) > 3


def test_engines_in_processes_take_and_give_them(model: Path) -> None:
    with EngineProcess(EngineSpec("reference", model)) as engine:
        engine.open()
        _assert_outputs(engine.run(_inputs()))


def test_commands_and_programs_read_and_write_them(tmp_path: Path, model: Path) -> None:
    artifact = tensmith.compile(model)
    artifact.save(tmp_path / "model.so")
    artifact.save(tmp_path / "model")
    write_npz(tmp_path / "in.npz", _inputs())
    types = {"z": "i4", "g": "f8e5m2"}
    _assert_outputs(tensmith.load(tmp_path / "model.so")(_inputs()))
    words = ["--input", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz")]
    assert main(["run", str(tmp_path / "model.so"), *words]) == 0
    _assert_outputs(as_types(read_file(tmp_path / "out.npz"), types))
    output = ["--output", str(tmp_path / "own.npz")]
    subprocess.run([tmp_path / "model", "--quiet", *words[:2], *output], check=True)
    _assert_outputs(as_types(read_file(tmp_path / "own.npz"), types))
