"""Bounds that are the ends of a float type: a Clip of one side costs what a Relu does."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from frontends.oracle import floats, model, node, run_ort
from rewriting import body, check, count

from tensmith.backends.ethosu.integer_form import FLOAT_FORM, integer_passes
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.frontends.onnx import load_model
from tensmith.passes.pipeline import SIMPLIFY, optimization_passes

LARGEST = float(np.finfo(np.float32).max)
ENDS = f"""const %most: f32[] = [{LARGEST!r}]
const %least: f32[] = [{-LARGEST!r}]
const %zero: f32[] = [0.0]
const %six: f32[] = [6.0]
const %step: f32[] = [0.5]
const %place: i8[] = [3]"""
X = "%x: f32[4, 4], %i: i32[4, 4], %h: f16[4, 4]"


@pytest.mark.parametrize(
    ("made", "bound"),
    [
        (["matmul(%x, %x)"], "min(%v0, %most)"),
        (["matmul(%x, %x)", "max(%v0, %zero)"], "min(%v1, %most)"),
        (["matmul(%x, %x)", "add(%v0, %six)"], "max(%v1, %least)"),
        (["matmul(%x, %x)", "transpose(%v0) {perm = (1, 0)}"], "min(%v1, %most)"),
        (["min(%x, %six)"], "min(%v0, %most)"),
        (["cast(%i) {dtype = !f32}"], "min(%v0, %most)"),
        (["sigmoid(%x)"], "max(%v0, %least)"),
    ],
)
def test_a_bound_goes_where_nothing_is_infinite(made: list[str], bound: str) -> None:
    lines = [f"%v{i}: f32[4, 4] = {line}" for i, line in enumerate(made)]
    name = f"%v{len(made) - 1}"
    kept = [*lines, f"%y: f32[4, 4] = neg({name})"]
    before = [*lines, f"%b: f32[4, 4] = {bound}", "%y: f32[4, 4] = neg(%b)"]
    check(body(X, before, ENDS), body(X, kept, ENDS), Fixpoint(SIMPLIFY))


@pytest.mark.parametrize(
    "lines",
    [
        ["%y: f32[4, 4] = min(%x, %most)"],
        ["%v: f32[4, 4] = max(%x, %zero)", "%y: f32[4, 4] = min(%v, %most)"],
        ["%v: f32[4, 4] = min(%x, %six)", "%y: f32[4, 4] = max(%v, %least)"],
        ["%p: f32[4, 4] = matmul(%x, %x)", "%v: f32[4, 4] = add(%p, %x)",
         "%y: f32[4, 4] = min(%v, %most)"],
        ["%v: f32[4, 4] = exp(%x)", "%y: f32[4, 4] = min(%v, %most)"],
        ["%v: f32[4, 4] = cast(%h) {dtype = !f32}", "%y: f32[4, 4] = min(%v, %most)"],
    ],
)  # fmt: skip
def test_a_bound_stays_where_something_may_be_infinite(lines: list[str]) -> None:
    graph = body(X, lines, ENDS)
    check(graph, graph, Fixpoint(SIMPLIFY))


def test_an_overflow_of_halves_is_bounded() -> None:
    ends = "const %most: f16[] = [65504.0]"
    lines = ["%v: f16[4, 4] = matmul(%h, %h)", "%y: f16[4, 4] = min(%v, %most)"]
    check(body(X, lines, ends), body(X, lines, ends), Fixpoint(SIMPLIFY))


@pytest.mark.parametrize(
    ("dtype", "read"), [("i8", "quantize({}, %step, %place)"), ("f16", "cast({}) {{dtype = !f16}}")]
)
def test_a_bound_goes_where_its_reader_sees_no_difference(dtype: str, read: str) -> None:
    before = ["%v: f32[4, 4] = min(%x, %most)", f"%y: {dtype}[4, 4] = {read.format('%v')}"]
    after = f"%y: {dtype}[4, 4] = {read.format('%x')}"
    check(body(X, before, ENDS), body(X, after, ENDS), Fixpoint(SIMPLIFY))


def _clips(low: float | None, high: float | None) -> onnx.ModelProto:
    constants = {
        name: np.float32(number)
        for name, number in (("low", low), ("high", high))
        if number is not None
    }
    names = f"x {'low' if low is not None else '-'} {'high' if high is not None else '-'}"
    return model([node("Clip", names)], {"x": floats(1)}, ["y"], constants=constants,
                 dims={"x": [None]})  # fmt: skip


@pytest.mark.parametrize(("low", "high"), [(0, None), (None, 6), (None, None), (-1, 1)])
def test_infinite_floats_are_those_of_onnxruntime(low: float | None, high: float | None) -> None:
    proto = _clips(low, high)
    x = {"x": np.array([np.inf, -np.inf, np.nan, LARGEST, -LARGEST, 0, 3.5, -2], np.float32)}
    graph = load_model(proto)
    run_passes(graph, optimization_passes(2))
    np.testing.assert_array_equal(run_graph(graph, x)["y"], run_ort(proto, x)["y"])


def _network(activation: str, quantised: bool) -> Graph:
    """Two convolutions, a sum and a pooling, each of them with an activation."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {"zero": np.float32(0), "point": np.int8(0)}
    constants |= {"step": np.float32(0.05), "fine": np.float32(0.01)}

    def put(op: str, inputs: str, **attributes: object) -> str:
        nodes.append(node(op, inputs, f"v{len(nodes)}", **attributes))
        return str(nodes[-1].output[0])

    def rounded(x: str) -> str:
        if not quantised:
            return x
        return put("DequantizeLinear", put("QuantizeLinear", f"{x} step point") + " step point")

    def active(x: str) -> str:
        return rounded(put("Relu", x) if activation == "Relu" else put("Clip", f"{x} zero"))

    def convolved(x: str, number: int) -> str:
        constants[f"w{number}"] = (floats(8, 8, 3, 3, seed=number) * 20).astype(np.int8)
        weights = put("DequantizeLinear", f"w{number} fine point")
        return put("Conv", f"{x} {weights}", pads=[1, 1, 1, 1])

    first = active(convolved(rounded("x"), 0))
    total = rounded(put("Add", f"{rounded(convolved(first, 1))} {first}"))
    pooled = put("MaxPool", active(total), kernel_shape=[2, 2], strides=[2, 2])
    nodes.append(node("Identity", active(rounded(pooled))))
    return load_model(model(nodes, {"x": floats(1, 8, 8, 8)}, ["y"], constants=constants))


def _on_cpu(graph: Graph) -> Counter[str]:
    run_passes(graph, optimization_passes(2))
    return count(graph)


def _on_npu(graph: Graph) -> Counter[str]:
    run_passes(graph, (*FLOAT_FORM, *integer_passes({})))
    return count(graph)


@pytest.mark.parametrize("quantised", [False, True], ids=["floats", "quantised"])
def test_a_clip_at_0_costs_what_a_relu_does(quantised: bool) -> None:
    relu, clip = (_on_cpu(_network(name, quantised)) for name in ("Relu", "Clip"))
    assert clip == relu
    assert clip["min"] == 0


def test_a_clip_at_0_costs_an_npu_what_a_relu_does() -> None:
    relu, clip = (_on_npu(_network(name, True)) for name in ("Relu", "Clip"))
    assert clip == relu
    assert clip["min"] == clip["quantize"] - 1 == 0
