"""Scans as their steps: the same results, step behind step, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.dims import symbol
from tensmith.compiler.ir.graph import Graph, Value, constant
from tensmith.compiler.ir.ops.registry import Builder, make_node
from tensmith.compiler.ir.types import DType, TensorType
from tensmith.compiler.ir.verify import verify
from tensmith.passes.simplify.unroll_scans import UnrollScans, in_all_steps

STEPS, SIZE = 4, 3


def _value(*shape, name=""):
    return Value(TensorType(DType.F32, shape), name)


def _scan(reverse_in, reverse_out, trip=STEPS):
    """A state that decays and takes in rows, scaled by a value from around the scan."""
    state, rows, around = _value(SIZE, name="h"), _value(trip, SIZE, name="x"), _value(name="a")
    before, row = _value(SIZE), _value(SIZE)
    nodes = []
    body = Builder(nodes, "step")
    after = body.emit("add", [body.emit("mul", [before, constant(np.float32(0.5))]), row])
    told = body.emit("mul", [after, around])
    attrs = {"num_state": 1, "reverse_in": (reverse_in,), "reverse_out": (reverse_out,),
             "trip": trip}  # fmt: skip
    region = Graph([before, row], [after, told], nodes)
    scan = make_node("scan", [state, rows], attrs, regions=[region], name="cell")
    for value, name in zip(scan.outputs, ("last", "all"), strict=True):
        value.name = name
    return Graph([state, rows, around], scan.outputs, [scan])


@pytest.mark.parametrize("reverse_in", [False, True])
@pytest.mark.parametrize("reverse_out", [False, True])
def test_steps_one_behind_the_other_give_the_same(reverse_in, reverse_out):
    rng = np.random.default_rng(1)
    inputs = {"h": rng.normal(size=SIZE).astype(np.float32), "a": np.float32(3),
              "x": rng.normal(size=(STEPS, SIZE)).astype(np.float32)}  # fmt: skip
    wanted = run_graph(_scan(reverse_in, reverse_out), inputs)
    graph = _scan(reverse_in, reverse_out)
    assert UnrollScans().run(graph)
    verify(graph)
    assert not any(node.op == "scan" for node in graph.nodes)
    found = run_graph(graph, inputs)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_what_one_operator_makes_in_all_steps_is_together():
    graph = _scan(False, False)
    UnrollScans().run(graph)
    groups = in_all_steps(value for node in graph.nodes for value in node.outputs)
    inner = [group for group in groups if group[0].producer.op in ("add", "mul")]
    assert sorted(map(len, inner)) == [STEPS] * 3
    assert all(len({value.producer.op for value in group}) == 1 for group in groups)
    assert not in_all_steps(graph.inputs)


def test_scans_of_the_same_name_are_told_apart():
    """Both directions of a layer are, and layers may be."""
    scans = [_scan(backward, backward) for backward in (False, True)]
    inputs, outputs, nodes = (
        [item for scan in scans for item in getattr(scan, what)]
        for what in ("inputs", "outputs", "nodes")
    )
    assert len({node.name for node in nodes}) == 1
    graph = Graph(inputs, outputs, nodes)
    UnrollScans().run(graph)
    sources: dict[Value, set[int]] = {
        value: {number} for number, scan in enumerate(scans) for value in scan.inputs
    }
    for node in graph.nodes:
        read = set().union(*(sources.get(value, set()) for value in node.inputs))
        sources |= dict.fromkeys(node.outputs, read)
    groups = in_all_steps(value for node in graph.nodes for value in node.outputs)
    inner = [group for group in groups if group[0].producer.op in ("add", "mul")]
    assert sorted(map(len, inner)) == [STEPS] * 6
    for group in groups:
        assert len(set().union(*(sources[value] for value in group))) == 1


def test_scans_of_many_or_unknown_steps_stay():
    assert not UnrollScans(unless=frozenset({"add"})).run(_scan(False, False))
    assert not UnrollScans(most_operators=3 * STEPS - 1).run(_scan(False, False))
    assert not UnrollScans().run(_scan(False, False, symbol("n")))
