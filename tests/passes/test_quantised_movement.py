"""What only moves quantised data moves bytes."""

from __future__ import annotations

import numpy as np
from quantised_graphs import MOVE, WINDOW, data, number, passed, weights
from rewriting import count, same_results
from suites.case import I8, U8, CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph, Value, constant
from tensmith.compiler.pass_manager import run_passes


def moved(c: CaseBuilder, result: Value) -> Graph:
    c.output(result)
    graph = c.graph()
    rng = np.random.default_rng(3)
    inputs = {v.name: rng.uniform(-2, 2, v.type.static_shape).astype(np.float32)
              for v in graph.inputs}  # fmt: skip
    want = run_graph(graph, inputs)
    run_passes(graph, [MOVE])
    same_results(want, run_graph(graph, inputs), rtol=0, atol=0)
    return graph


def test_bytes_are_moved_not_floats() -> None:
    c = CaseBuilder("moved")
    x = data(c, 2, 6, 4, 4)
    y = c.op("transpose", x, perm=(0, 2, 3, 1))
    y = c.op("pad", c.op("reshape", y, shape=(2, 16, 6)), pads=(0, 1, 0, 0, 1, 0), mode="constant")
    y = c.op("slice", c.op("max", y, c.scalar(0)), starts=(0, 0, 1), stops=(2, 18, 5),
             steps=(1, 1, 1))  # fmt: skip
    graph = moved(c, y)
    assert graph.nodes[-1].op == "dequantize"
    assert all(node.output.dtype is U8 for node in graph.nodes[:-1])


def test_pooling_and_concat_by_one_scale() -> None:
    c = CaseBuilder("pooled")
    window = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 1, 1), "dilations": (1, 1),
              "ceil_mode": False}  # fmt: skip
    parts = [c.op("max_pool", data(c, 1, 3, 5, 5), **window) for _ in range(2)]
    graph = moved(c, c.op("concat", *parts, axis=1))
    assert graph.nodes[-1].op == "dequantize"
    assert count(graph)["dequantize"] == 1


def test_quantising_again_by_the_same_scale_goes() -> None:
    c = CaseBuilder("again")
    y = c.op("transpose", data(c, 3, 4), perm=(1, 0))
    graph = moved(c, c.op("quantize", y, c.scalar(1 / 64), number(13, U8)))
    assert count(graph) == {"quantize": 1, "transpose": 1}
    c = CaseBuilder("other")
    y = c.op("transpose", data(c, 3, 4), perm=(1, 0))
    graph = moved(c, c.op("quantize", y, c.scalar(1 / 32), number(13, U8)))
    assert count(graph)["quantize"] == 2


def test_quantising_rises_above_movement() -> None:
    c = CaseBuilder("risen")
    y = c.op("transpose", c.op("sigmoid", c.input(3, 4)), perm=(1, 0))
    graph = moved(c, c.op("quantize", y, c.scalar(1 / 255), number(0, U8)))
    assert [node.op for node in graph.nodes] == ["sigmoid", "quantize", "transpose"]


def test_signed_bytes_are_made_unsigned() -> None:
    """Also where others read them, moved, or as they are."""
    c = CaseBuilder("signed")
    q = c.op("quantize", c.input(2, 8, 6, 6), c.scalar(1 / 64), number(-3, I8))
    x = c.op("dequantize", q, c.scalar(1 / 64), number(-3, I8))
    y = c.op("conv", x, weights(c, 8, 8, 3, 3), **WINDOW)
    graph = passed(c, c.op("add", y, x))
    assert all(v.dtype is not I8 for node in graph.nodes for v in node.outputs)
    c = CaseBuilder("output")
    q = c.op("quantize", c.input(2, 3), c.scalar(1 / 64), number(-3, I8))
    graph = moved(c, c.op("transpose", q, perm=(1, 0)))
    assert [node.op for node in graph.nodes] == ["quantize", "transpose", "bitxor", "bitcast"]


def test_a_zero_of_more_axes_is_no_clip_of_bytes() -> None:
    for op in ("max", "min"):
        c = CaseBuilder(f"{op}_of_axes")
        graph = moved(c, c.op(op, data(c, 5), constant(np.zeros((1, 1), np.float32))))
        assert graph.nodes[-1].op == op
        assert graph.outputs[0].shape == (1, 5)
