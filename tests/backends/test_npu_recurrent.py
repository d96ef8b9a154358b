"""Recurrent layers of a known number of steps run on the Ethos-U whole, and give the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from npu_streams import run
from onnx import TensorProto, helper, numpy_helper
from tosa_runs import needs_vela

from tensmith.backends.ethosu.arrangement import arranged
from tensmith.backends.ethosu.pipeline import INTEGERS
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import backend_of
from tensmith.compiler.compilation import CompileOptions
from tensmith.driver.integer_ranges import with_ranges
from tensmith.driver.request import CompileRequest
from tensmith.frontends.onnx import load

STEPS, INPUT, HIDDEN = 12, 6, 8
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
LEAST = 20.0  # decibels that errors of 8 bits lie below the states of twelve steps


def _model(op: str, directions: int, path: Path) -> None:
    rng = np.random.default_rng(GATES[op])
    width = GATES[op] * HIDDEN
    sizes = {"w": (directions, width, INPUT), "r": (directions, width, HIDDEN),
             "b": (directions, 2 * width)}  # fmt: skip
    tensors = [
        numpy_helper.from_array((0.5 * rng.normal(size=shape)).astype(np.float32), name)
        for name, shape in sizes.items()
    ]
    attrs = {"direction": "bidirectional"} if directions == 2 else {}
    node = helper.make_node(op, ["x", "w", "r", "b"], ["y"], "cell", hidden_size=HIDDEN, **attrs)
    shapes = {"x": (STEPS, 1, INPUT), "y": (STEPS, directions, 1, HIDDEN)}
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    graph = helper.make_graph([node], op.lower(), [x], [y], tensors)
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


@needs_vela
@pytest.mark.parametrize(("op", "directions"), [("LSTM", 1), ("LSTM", 2), ("GRU", 1), ("RNN", 1)])
def test_every_step_is_on_the_processor(op, directions, tmp_path):
    path = tmp_path / "model.onnx"
    _model(op, directions, path)
    rng = np.random.default_rng(2)
    samples = rng.normal(size=(12, STEPS, 1, INPUT)).astype(np.float32)
    target = TARGETS["ethos-u55-128"]
    graph = load(path)
    request = CompileRequest(target=target.name, calibration={"x": samples[:8]})
    options = CompileOptions(name="net", work_dir=tmp_path)
    options, _ = with_ranges(graph, target, backend_of("ethosu"), request, options)
    INTEGERS.rewrite(graph, target, options.ranges)
    placement = arranged(graph, target, {})
    assert not [node for node in placement.nodes if node.segment is None and node.computes]
    (segment,), (stream,) = placement.segments, placement.streams
    wanted = np.stack([run_graph(load(path), {"x": x})["y"] for x in samples[8:]])
    found = np.stack([run_graph(placement.graph, {"x": x})["y"] for x in samples[8:]])
    noise = np.square(found - wanted, dtype=np.float64).sum()
    assert 10 * np.log10(np.square(wanted, dtype=np.float64).sum() / noise) >= LEAST
    region = segment.regions[0]
    inputs = {}
    for number, value in enumerate(region.inputs):
        value.name = f"in{number}"
        inputs[value.name] = rng.integers(-128, 128, value.type.static_shape).astype(np.int8)
    for number, value in enumerate(region.outputs):
        value.name = f"out{number}"
    exact = run_graph(region, inputs)
    for number, array in enumerate(run(stream, list(inputs.values()))[0]):
        assert array == exact[f"out{number}"].tobytes()
