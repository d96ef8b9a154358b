"""The reference interpreter: symbols, control flow, errors, and its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cplans import make_model
from suites.cases import ALL_CASES, compare
from suites.graphs import chain, value

from tensmith.backends.reference import BACKEND, run_graph
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import InternalError, RunError, UsageError
from tensmith.compiler.ir import DType, Graph, symbol
from tensmith.compiler.ir.ops.registry import make_node

CASES = {case.name: case for case in ALL_CASES}


def run_case(name: str, **sizes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    case = CASES[name]
    inputs = case.inputs(0, **sizes)
    return inputs, run_graph(case.graph(), inputs)


def same(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, strict=True)


def test_scan() -> None:
    inputs, out = run_case("scan_forward")
    sums = np.cumsum(inputs["steps"], 0) + inputs["start"]
    same(out["y0"], sums[-1])
    same(out["y1"], sums * inputs["steps"])
    inputs, out = run_case("scan_backward")
    sums = np.cumsum(inputs["steps"][::-1], 0)[::-1] + inputs["start"]
    same(out["y0"], sums[0])
    same(out["y1"], sums * inputs["steps"])
    inputs, out = run_case("scan_no_step")
    same(out["y0"], inputs["start"])
    assert out["y1"].shape == (0, 4)


def test_scan_of_more_steps_than_memory_holds() -> None:
    """Refused before the first step, and not after years of them."""
    count = symbol("count")
    state = value(name="state")
    body = Graph([state], [state, state], [], "step")
    attrs = {"num_state": 1, "reverse_in": (), "reverse_out": (False,), "trip": count}
    start, length = value(name="start"), value(1, dtype=DType.I64, name="length")
    read = make_node("read_dims", [length], {"symbols": ("count",)}, types=[])
    scan = make_node("scan", [start], attrs, regions=[body])
    graph = Graph([start, length], list(scan.outputs), [read, scan], "g")
    feed = {"start": np.float32(1), "length": np.array([2**62])}
    with pytest.raises(RunError, match="do not fit memory"):
        run_graph(graph, feed)


def test_lstm() -> None:
    inputs, out = run_case("scan_lstm", n=3)
    graph = CASES["scan_lstm"].graph()
    w, b, r = (v.data.astype(np.float64) for v in graph.constants() if v.data is not None)
    h, cell, hidden = inputs["h0"].astype(np.float64), inputs["c0"].astype(np.float64), []

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    for x in inputs["x0"]:
        i, o, f, g = np.split(x @ w + b + h @ r, 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(cell)
        hidden.append(h)
    for got, want in zip(out.values(), (h, cell, np.stack(hidden)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_if() -> None:
    inputs, out = run_case("if_shapes_then")
    same(out["y1"], np.concatenate([inputs["x1"]] * 2))
    inputs, out = run_case("if_shapes_else")
    same(out["y1"], inputs["x1"][:, :1])
    same(out["y0"], inputs["x1"][:, :1].sum(dtype=np.float32))


def test_loops() -> None:
    inputs, out = run_case("loop_counted")
    x = inputs["x1"]
    same(out["y0"], x * 5)
    same(out["y1"], np.stack([x * (t + 2) * t for t in range(4)]))
    inputs, out = run_case("loop_no_step")
    same(out["y0"], inputs["x1"])
    assert out["y1"].shape == (0, 3)
    _, out = run_case("loop_while")
    assert out["y0"].sum() >= 50 > out["y0"].sum() / 2
    inputs, out = run_case("loop_growing")
    same(out["y0"][:2], -inputs["x1"])
    assert out["y0"].shape == (5, 2)


def test_run_time_dims() -> None:
    inputs, out = run_case("read_dims")
    same(out["y0"], np.broadcast_to(inputs["x0"], (3, 2, 4)))
    same(out["y1"], np.arange(5))
    graph = CASES["read_dims"].graph()
    with pytest.raises(RunError, match="negative dimension, -1"):
        run_graph(graph, {**inputs, "shape": np.array([-1, 2])})


def test_symbols_come_from_the_inputs() -> None:
    for n, s in ((1, 1), (4, 3)):
        _, out = run_case("dims", n=n, s=s)
        same(out["y0"], np.array([n, s * 2 + 1, 4, (n + 1) * s]))


def test_wrong_inputs() -> None:
    case = CASES["dims"]
    graph, x = case.graph(), np.zeros((2, 3), np.float32)
    for inputs, reason in [
        ({}, r"\['x0'\] missing"),
        ({"x0": x, "x1": x}, r"\['x1'\] unknown"),
        ({"x0": x.astype(np.float64)}, "is float64"),
        ({"x0": x[0]}, r"is float32\[3\]"),
        ({"x0": x.astype(complex)}, "has the type complex128"),
    ]:
        with pytest.raises(UsageError, match=reason):
            run_graph(graph, inputs)
    a, b = value(symbol("n"), 2, name="a"), value(symbol("n"), 3, name="b")
    two = Graph([a, b], [], [])
    with pytest.raises(UsageError, match=r"input 'b' has the shape \(5, 3\), not \(4, 3\)"):
        run_graph(two, {"a": np.zeros((4, 2), np.float32), "b": np.zeros((5, 3), np.float32)})
    free = Graph([value(symbol("n") * 2)], [], [])
    with pytest.raises(UsageError, match="no input gives the symbols"):
        run_graph(free, {"x": np.zeros(4, np.float32)})


def test_failing_node_is_named() -> None:
    a, b = value(symbol("n"), name="a"), value(symbol("m"), name="b")
    node = make_node("add", [a, b], name="sum")
    graph = Graph([a, b], [node.output], [node])
    inputs = {"a": np.zeros(3, np.float32), "b": np.zeros(4, np.float32)}
    with pytest.raises(RunError, match=r"node 'sum' \(add\) failed"):
        run_graph(graph, inputs)
    # n is taken to equal m, which numpy alone would not notice here
    with pytest.raises(RunError, match=r"node 'sum' \(add\) gives"):
        run_graph(graph, {"a": np.zeros(1, np.float32), "b": np.zeros(4, np.float32)})


def test_observer_sees_every_node() -> None:
    graph, _ = chain()
    seen = []
    x = np.ones((2, 3), np.float32)
    run_graph(graph, {"x": x}, observe=lambda node, out: seen.append((node.op, out[0][0, 0])))
    assert [op for op, _ in seen] == ["neg", "exp"]
    assert seen[0][1] == -1


def test_outputs_need_distinct_names() -> None:
    graph, nodes = chain()
    nodes[0].output.name = "y"
    graph.outputs.append(nodes[0].output)
    with pytest.raises(InternalError, match="two outputs are called 'y'"):
        run_graph(graph, {"x": np.ones((2, 3), np.float32)})


def test_manifest(tmp_path: Path) -> None:
    target = BACKEND.parse_target("reference")
    assert target is not None
    assert BACKEND.parse_target("native") is None
    assert BACKEND.available() is None
    graph, nodes = chain()
    assert BACKEND.supports(nodes[0], target) is None
    with pytest.raises(UsageError, match="emits no binaries"):
        BACKEND.compile(graph, target, CompileOptions("m", tmp_path), Stages())
    model = make_model("affine", tmp_path)
    with pytest.raises(UsageError, match="emits no binaries"):
        BACKEND.link(model, "so", tmp_path / "m.so", {})
    assert BACKEND.evaluate is run_graph
    assert BACKEND.runs_here(target) is None


def test_compare() -> None:
    case = CASES["add_3x1x5_4x1"]
    x = np.ones(3, np.float32)
    compare("x", x, x.copy(), case.tolerance)
    with pytest.raises(AssertionError, match="int32 is not float32"):
        compare("x", x.astype(np.int32), x, case.tolerance)
    with pytest.raises(AssertionError):
        compare("x", x + np.float32(1e-6), x, case.tolerance)
    assert DType.of(x.dtype) is DType.F32
