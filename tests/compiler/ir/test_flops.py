"""Counts of arithmetic, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
from suites.cases import ALL_CASES
from suites.graphs import value

from tensmith.compiler.ir import Graph, constant, symbol
from tensmith.compiler.ir.flops import graph_flops, node_flops, parameter_bytes, parameters
from tensmith.compiler.ir.ops.registry import make_node

CASES = {case.name: case for case in ALL_CASES}


def test_contractions() -> None:
    n = symbol("n")
    assert node_flops(make_node("matmul", [value(n, 8), value(8, 5)])) == 80 * n
    window = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    conv = make_node("conv", [value(n, 3, 8, 8), value(6, 3, 3, 3)], window)
    assert node_flops(conv) == 2 * n * 6 * 4 * 4 * 27
    grouped = {**window, "groups": 3, "layout": "NHWC"}
    conv = make_node("conv", [value(n, 8, 8, 3), value(3, 3, 1, 6)], grouped)
    assert node_flops(conv) == 2 * n * 6 * 4 * 4 * 9
    back = {**window, "output_padding": (0, 0)}
    up = make_node("conv_transpose", [value(1, 3, 4, 4), value(3, 6, 3, 3)], back)
    assert node_flops(up) == 2 * 3 * 16 * 6 * 9
    q, k, v = value(2, 5, 8), value(2, 7, 8), value(2, 7, 6)
    attention = make_node("attention", [q, k, v], {"scale": 1.0})
    assert node_flops(attention) == 2 * 2 * 5 * 7 * (8 + 6)
    assert node_flops(make_node("exp", [value(4)])) == 0


def test_regions() -> None:
    n = symbol("n")
    assert graph_flops(CASES["scan_lstm"].graph()) == 2 * n * 2 * 24 * 5 + n * 2 * 2 * 24 * 6
    assert graph_flops(CASES["fused_linear"].graph()) == 2 * n * 8 * 5
    assert graph_flops(CASES["if_then"].graph()) == 0


def test_loops() -> None:
    for trip, steps in ((3, 3), ((1 << 63) - 1, 1)):
        graph = CASES["loop_while"].graph()
        node = graph.nodes[0]
        node.inputs[0] = constant(np.array(trip))
        body = node.regions[0]
        square = make_node("matmul", [value(2, 4), value(4, 5)])
        body.nodes.append(square)
        assert graph_flops(graph) == steps * 80


def test_parameters() -> None:
    weights, index = constant(np.zeros((3, 4), np.float32)), constant(np.zeros(5, np.int64))
    gather = make_node("gather", [weights, index], {"axis": 0})
    graph = Graph([], [gather.output], [gather])
    assert parameters(graph) == 12
    assert parameter_bytes(graph) == 12 * 4 + 5 * 8
