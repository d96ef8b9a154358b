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
SMALL = 0.1
APART = ["forward", "backward"]
LEAST = 20.0  # decibels that errors of 8 bits lie below the states of twelve steps


def _model(op: str, directions: int, path: Path, *, apart: bool = False) -> None:
    """apart: both directions are outputs, and the second's weights are small beside the first's."""
    rng = np.random.default_rng(GATES[op])
    width = GATES[op] * HIDDEN
    sizes = {"w": (directions, width, INPUT), "r": (directions, width, HIDDEN),
             "b": (directions, 2 * width)}  # fmt: skip
    arrays = {name: 0.5 * rng.normal(size=shape) for name, shape in sizes.items()}
    for array in arrays.values():
        array[1:] *= SMALL if apart else 1.0
    tensors = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
    attrs = {"direction": "bidirectional"} if directions == 2 else {}
    cell = helper.make_node(op, ["x", "w", "r", "b"], ["y"], "cell", hidden_size=HIDDEN, **attrs)
    shapes = {"x": (STEPS, 1, INPUT), "y": (STEPS, directions, 1, HIDDEN)}
    nodes = [cell]
    if apart:
        nodes.append(helper.make_node("Split", ["y"], APART, axis=1, num_outputs=2))
        shapes = {"x": shapes["x"], **dict.fromkeys(APART, (STEPS, 1, 1, HIDDEN))}
    x, *y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    graph = helper.make_graph(nodes, op.lower(), [x], y, tensors)
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


@pytest.mark.parametrize("op", ["GRU", "RNN"])
def test_directions_have_ranges_of_their_own(op, tmp_path):
    """Else, states of small weights have a few of the steps of the other direction's."""
    path = tmp_path / "model.onnx"
    _model(op, 2, path, apart=True)
    samples = np.random.default_rng(2).normal(size=(8, STEPS, 1, INPUT)).astype(np.float32)
    target, graph = TARGETS["ethos-u55-128"], load(path)
    request = CompileRequest(target=target.name, calibration={"x": samples})
    options = CompileOptions(name="net", work_dir=tmp_path)
    options, notes = with_ranges(graph, target, backend_of("ethosu"), request, options)
    assert not notes
    INTEGERS.rewrite(graph, target, options.ranges)
    runs = [[run_graph(g, {"x": x}) for x in samples] for g in (load(path), graph)]
    for name in APART:
        wanted, found = (np.stack([told[name] for told in run]).astype(np.float64) for run in runs)
        noise = np.square(found - wanted).sum()
        assert 10 * np.log10(np.square(wanted).sum() / noise) >= LEAST


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
