"""Whole networks of MLPerf Tiny's kind: the simulator, the TOSA reference model and the graph of
integers give the same bits, and nothing is left for the host but edges.

Two are those of ../shared/models, two of `python -m benchmarks.mlperf_tiny` (and, in 8 bits, of
`python -m benchmarks.zoo_quantised`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from npu_streams import run
from tosa_runs import needs_model, needs_vela, reference_run

from tensmith.backends.ethosu.arrangement import arranged
from tensmith.backends.ethosu.pipeline import INTEGERS
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.tosa.region import tosa_of
from tensmith.backends.ethosu.tosa.writer import serialised
from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load

ROOT = Path(__file__).resolve().parents[2]
MODELS, ZOO = ROOT.parent / "shared" / "models" / "dev", ROOT / "benchmarks" / "zoo"
NETS = {
    **{name: MODELS / name for name in ("kws", "kws_qdq", "resnet8", "resnet8_qdq")},
    **{name: ZOO / name for name in ("vww-like", "vww-like-qdq", "ad-like", "ad-like-qdq")},
}
EDGES = {"quantize", "dequantize", "reshape", "transpose", "pad"}
RUNS = 100
pytestmark = [pytest.mark.slow, needs_vela, needs_model]


@pytest.fixture(params=NETS)
def net(request):
    folder = NETS[request.param]
    if not (folder / "model.onnx").is_file():
        pytest.skip(f"the model is not here: {folder.relative_to(ROOT.parent)}")
    return folder / "model.onnx"


@pytest.mark.parametrize("target", ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"])
def test_three_ways_give_the_same_bits(net, target):
    graph = load(net)
    rng = np.random.default_rng(0)
    values = INTEGERS.observed(graph, TARGETS[target])
    ranges = {value: (-4.0, 4.0) for value in values}
    INTEGERS.rewrite(graph, TARGETS[target], ranges)
    placement = arranged(graph, TARGETS[target], {})
    outside = {node.op for node in placement.nodes if node.segment is None}
    assert outside <= EDGES
    (segment,), (stream,) = placement.segments, placement.streams
    region = segment.regions[0]
    for number, value in enumerate(region.inputs):
        value.name = f"in{number}"
    for number, value in enumerate(region.outputs):
        value.name = f"out{number}"
    blob = serialised(tosa_of(region))
    for _ in range(RUNS):
        inputs = {v.name: rng.integers(-128, 128, v.type.static_shape).astype(np.int8)
                  for v in region.inputs}  # fmt: skip
        wanted = run_graph(region, inputs)
        found, _ = run(stream, list(inputs.values()))
        told = reference_run(blob, inputs.values())
        for number, (array, other) in enumerate(zip(found, told, strict=True)):
            assert array == wanted[f"out{number}"].tobytes()
            np.testing.assert_array_equal(other, wanted[f"out{number}"])
