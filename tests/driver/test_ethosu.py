"""Models compiled for an Ethos-U by the driver, run in the simulator."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tosa_runs import needs_vela

from tensmith.compiler.errors import UsageError
from tensmith.driver import api
from tensmith.driver.preflight import preflight
from tensmith.driver.request import CompileRequest

TARGET = "ethos-u55-128"
pytestmark = [needs_vela, pytest.mark.filterwarnings("ignore:kernels run in an interpreter")]


@pytest.fixture
def net(tmp_path):
    """A small classifier of images, in floats, with an operator in front that is not for it."""
    rng = np.random.default_rng(0)

    def constant(name, *shape):
        data = (0.4 * rng.normal(size=shape)).astype(np.float32)
        return numpy_helper.from_array(data, name)

    weights = [constant("w0", 8, 3, 3, 3), constant("b0", 8), constant("w1", 8, 4),
               constant("b1", 4)]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w1", "b1"], ["g"], name="scores"),
        helper.make_node("Softmax", ["g"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])], weights,
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def _samples(count: int = 8) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 1, 3, 8, 8)).astype(np.float32)


def _compiled(net, **more):
    return api.compile(net, target=TARGET, calibration={"x": _samples()}, **more)


def test_a_model_of_floats_is_quantised_and_runs_in_the_simulator(net):
    artifact = _compiled(net)
    module = artifact.load()
    for sample in _samples(3):
        (y,) = module({"x": sample}).values()
        assert y.shape == (1, 4)
        assert abs(float(y.sum()) - 1) <= 4 / 256
        np.testing.assert_array_equal(y * 256, np.rint(y * 256))
    assert artifact.verify().status == "passed"
    assert max(d.max_abs for trial in artifact.report.trials for d in trial) == 0


def test_the_manifest_says_what_runs_where(net):
    manifest = _compiled(net).manifest
    npu, cpu = manifest["npu"], manifest["cpu"]
    assert npu["estimated_cycles"] == sum(part["cycles"] for part in npu["segments"])
    assert npu["origin"] == "estimated by Vela"
    assert len(npu["segments"]) == 1
    assert npu["share"] == 1
    assert {row["op"] for row in cpu["operators"]} <= {"quantize", "transpose", "dequantize"}
    assert all(row["reason"] for row in cpu["operators"])
    assert npu["memories"]["Sram"]["peak"] == npu["arena_bytes"]
    assert npu["memories"]["OffChipFlash"]["peak"] >= npu["weight_bytes"]
    assert manifest["target"]["memory_mode"] == "Shared_Sram"


def test_floats_without_calibration_data_are_refused(net):
    with pytest.raises(UsageError, match="the model is of floats") as caught:
        api.compile(net, target=TARGET)
    assert "--calibration" in caught.value.remedy
    with pytest.raises(UsageError, match="computes in integers, not in bf16"):
        api.compile(net, target=TARGET, precision="bf16")


def test_check_says_what_runs_where_without_calibration_data(net):
    found = preflight(net, CompileRequest(target=TARGET))
    assert not found.unsupported
    assert found.npu
    assert found.cpu
    assert {row["op"] for row in found.cpu["operators"]} <= {"quantize", "transpose", "dequantize"}
    compiled = _compiled(net).manifest["npu"]
    assert found.npu["operators"] == compiled["operators"]
    assert found.npu["estimated_cycles"] == pytest.approx(compiled["estimated_cycles"], rel=0.02)


def test_several_segments_share_a_run(net, tmp_path):
    """An operator in the middle that the processor has not: a sum along time."""
    model = onnx.load(net)
    model.graph.node[2].input[0] = "s"
    axis = numpy_helper.from_array(np.array(2, np.int64), "axis")
    model.graph.initializer.append(axis)
    model.graph.node.insert(2, helper.make_node("CumSum", ["r", "axis"], ["s"], name="running"))
    path = tmp_path / "two.onnx"
    onnx.save(model, path)
    artifact = _compiled(path)
    assert len(artifact.manifest["npu"]["segments"]) == 2
    reasons = {row["op"]: row["reason"] for row in artifact.manifest["cpu"]["operators"]}
    assert "integers alone" in reasons["cumsum"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert artifact.verify().status == "passed"
