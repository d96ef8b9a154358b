"""Places of the greatest and least elements on the Ethos-U: those that bytes themselves have."""

from __future__ import annotations

import numpy as np
import pytest
from integer_graphs import Sketch, ranges_of
from npu_streams import run
from tosa_runs import needs_vela

from tensmith.backends.ethosu.integer_form import integer_passes
from tensmith.backends.ethosu.placement import place
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.graph import Graph
from tensmith.compiler.ir.verify import verify
from tensmith.compiler.pass_manager import run_passes

ATTRS = [
    {"axis": 1, "keepdims": False, "select_last": False},
    {"axis": 1, "keepdims": True, "select_last": True},
    {"axis": 2, "keepdims": False, "select_last": True},
    {"axis": 3, "keepdims": True, "select_last": False},
]


def _integers(op: str, channels: int = 19, **attrs) -> tuple[Graph, list[dict[str, np.ndarray]]]:
    """A graph of integers with bytes and the places in them, and its samples: one of them has
    nothing but equal elements along rows and columns."""
    sketch = Sketch(3)
    x = sketch.conv(sketch.input(1, 4, 6, 5), channels, (1, 1))
    graph = sketch.graph(x, sketch.op(op, x, **attrs))
    samples = [sketch.draw(seed) for seed in range(6)]
    samples.append({name: np.zeros_like(array) for name, array in samples[0].items()})
    run_passes(graph, integer_passes(ranges_of(graph, samples)))
    verify(graph)
    return graph, samples


@pytest.mark.parametrize("attrs", ATTRS, ids=str)
@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_places_are_those_in_the_bytes(op, attrs):
    graph, samples = _integers(op, **attrs)
    assert op not in {node.op for node in graph.nodes}
    sign, axis = (1 if op == "argmax" else -1), attrs["axis"]
    for sample in samples:
        found = run_graph(graph, sample)
        x = sign * found["y0"]
        wanted = x.argmax(axis)
        if attrs["select_last"]:
            wanted = x.shape[axis] - 1 - np.flip(x, axis).argmax(axis)
        if attrs["keepdims"]:
            wanted = np.expand_dims(wanted, axis)
        np.testing.assert_array_equal(found["y1"], wanted)
        assert found["y1"].dtype == np.int64


def test_places_that_no_byte_holds_are_left():
    graph, _ = _integers("argmax", 128, axis=1, keepdims=False, select_last=False)
    assert "argmax" in {node.op for node in graph.nodes}


@needs_vela
@pytest.mark.parametrize("target", ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"])
def test_places_are_found_on_the_processor(target):
    graph, _ = _integers("argmax", **ATTRS[0])
    placement = place(graph, TARGETS[target])
    assert not any(node.computes for node in placement.nodes if node.segment is None)
    (segment,), (stream,) = placement.segments, placement.streams
    region = segment.regions[0]
    for kind, values in (("in", region.inputs), ("out", region.outputs)):
        for number, value in enumerate(values):
            value.name = f"{kind}{number}"
    rng = np.random.default_rng(1)
    for _ in range(4):
        inputs = {value.name: rng.integers(-128, 128, value.type.static_shape).astype(np.int8)
                  for value in region.inputs}  # fmt: skip
        wanted = run_graph(region, inputs)
        found, _ = run(stream, list(inputs.values()))
        for number, array in enumerate(found):
            assert array == wanted[f"out{number}"].tobytes()
