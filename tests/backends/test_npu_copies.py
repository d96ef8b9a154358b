"""What only copies elements, and is widened and scaled by what reads it: the simulated stream gives
what Arm's reference model does."""

from __future__ import annotations

import numpy as np
import pytest
from npu_streams import run, stream_of
from tosa_runs import needs_model, needs_vela, reference_run

from tensmith.backends.ethosu.legality import legality
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.tosa.graph import Tensor, TosaGraph
from tensmith.backends.ethosu.tosa.schema import ElementType, Op
from tensmith.backends.ethosu.tosa.writer import serialised
from tensmith.compiler.ir.dims import symbol
from tensmith.compiler.ir.graph import Value, constant
from tensmith.compiler.ir.ops.registry import make_node
from tensmith.compiler.ir.types import DType, TensorType

INT8, INT32 = ElementType.INT8, ElementType.INT32
SHAPE = (1, 4, 8, 8)
ROWS = ((0, 1), (0, 2), (1, 2), (2, 2), (3, 1))  # first, how many


def _slice(graph: TosaGraph, x: Tensor, start: int, size: int) -> Tensor:
    sizes = (x.shape[0], size, *x.shape[2:])
    return graph.emit(Op.SLICE, [x, graph.sizes((0, start, 0, 0)), graph.sizes(sizes)], sizes, INT8)


def _concat(graph: TosaGraph, x: Tensor) -> Tensor:
    parts = [_slice(graph, x, *row) for row in ROWS]
    shape = (x.shape[0], sum(size for _, size in ROWS), *x.shape[2:])
    return graph.emit(Op.CONCAT, parts, shape, INT8, axis=1)


def _pad(graph: TosaGraph, x: Tensor) -> Tensor:
    shape = (1, x.shape[1] + 2, x.shape[2] + 1, x.shape[3])
    margins, filler = graph.sizes((0, 0, 1, 1, 1, 0, 0, 0)), graph.number(5, INT8)
    return graph.emit(Op.PAD, [x, margins, filler], shape, INT8)


def _tile(graph: TosaGraph, x: Tensor) -> Tensor:
    shape = (1, 2 * x.shape[1], *x.shape[2:])
    return graph.emit(Op.TILE, [x, graph.sizes((1, 2, 1, 1))], shape, INT8)


COPIES = {
    "slice": lambda graph, x: _slice(graph, x, 1, 2),
    "concat": _concat,
    "pad": _pad,
    "tile": _tile,
    "slice of concat": lambda graph, x: _slice(graph, _concat(graph, x), 1, 3),
    "pad of concat, reshaped": lambda graph, x: graph.reshape(
        _pad(graph, _concat(graph, x)), (1, 10, 72, 1)
    ),
}


@needs_vela
@needs_model
@pytest.mark.parametrize("target", ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"])
@pytest.mark.parametrize("scale", [0.37, 1.0])
@pytest.mark.parametrize("name", COPIES)
def test_copies_that_are_widened_keep_their_elements(name, scale, target):
    graph = TosaGraph()
    x = COPIES[name](graph, graph.input(SHAPE, INT8))
    wide = graph.rescale(x, scale, INT32, zero_in=3)
    wide = graph.emit(Op.ADD, [wide, graph.constant(np.full((1,) * 4, 7), INT32)], x.shape, INT32)
    graph.output(graph.rescale(graph.emit(Op.ABS, [wide], x.shape, INT32), 0.9, INT8))
    blob = serialised(graph)
    data = np.random.default_rng(0).integers(-128, 128, SHAPE).astype(np.int8)
    (wanted,) = reference_run(blob, [data])
    (found,), _ = run(stream_of(blob, target), [data])
    np.testing.assert_array_equal(np.frombuffer(found, np.int8), np.asarray(wanted).reshape(-1))


def test_sizes_of_a_run_are_the_reason_that_is_told_first():
    """Nothing of such a model is quantised, and that it computes in floats helps nobody."""
    batch = symbol("batch")
    x = Value(TensorType(DType.F32, (batch, 3, 8, 8)), "x")
    node = make_node("max", [x, constant(np.float32(0))])
    reason = legality(node, TARGETS["ethos-u55-128"])
    assert reason is not None
    assert reason.startswith("sizes are fixed in a command stream")
    assert reason.endswith("(--shape)")
