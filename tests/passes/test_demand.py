"""Demand: values are computed where something needs them, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import STEPS, Step, build
from rewriting import body, check, count, inputs_for, rewritten, same_results
from suites.case import CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Graph, Value, constant
from tensmith.compiler.ir.flops import graph_flops
from tensmith.compiler.ir.ops.registry import make_node
from tensmith.compiler.ir.text import parse_graph, print_graph
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.arithmetic.demand import Demand
from tensmith.passes.arithmetic.work import graph_work
from tensmith.passes.pipeline import SIMPLIFY

WHOLE = Fixpoint((Demand(), *SIMPLIFY))
ROW = "{starts = (0, 2, 0), steps = (1, 1, 1), stops = (1, 3, 6)}"


def flops(graph: Graph) -> int:
    found = graph_flops(graph)
    assert isinstance(found, int)
    return found


def test_a_row_through_a_layer() -> None:
    layer = [
        "%q: f32[1, 8, 6] = matmul(%x, %w)",
        "%h: f32[1, 8, 2, 3] = reshape(%q) {shape = (1, 8, 2, 3)}",
        "%t: f32[1, 2, 8, 3] = transpose(%h) {perm = (0, 2, 1, 3)}",
        "%k: f32[1, 2, 8, 3] = tanh(%t)",
        "%a: f32[1, 2, 8, 3] = attention(%t, %k, %k) {scale = 0.5}",
        "%u: f32[1, 8, 2, 3] = transpose(%a) {perm = (0, 2, 1, 3)}",
        "%r: f32[1, 8, 6] = reshape(%u) {shape = (1, 8, 6)}",
        "%s: f32[1, 8, 6] = add(%r, %x)",
        "%n: f32[1, 8, 6] = layer_norm(%s, %g) {axis = 2}",
        "%m: f32[1, 8, 6] = matmul(%n, %w)",
        f"%y: f32[1, 1, 6] = slice(%m) {ROW}",
    ]
    text = body("%x: f32[1, 8, 6], %w: f32[6, 6], %g: f32[6]", layer)
    graph = rewritten(text, WHOLE)
    shapes = {node.op: node.output.shape for node in graph.nodes if node.op != "slice"}
    assert shapes["attention"] == (1, 2, 1, 3)
    assert shapes["layer_norm"] == (1, 1, 6)
    assert [n.output.shape for n in graph.nodes if n.op == "matmul"] == [(1, 8, 6), (1, 1, 6)]


def test_padding_stays_exact_at_borders() -> None:
    conv = "strides = (1,), dilations = (1,), pads = (4, 4)"
    before = body(
        "%x: f32[1, 3, 9], %w: f32[2, 3, 5]",
        [
            f"%c: f32[1, 2, 13] = conv(%x, %w) {{{conv}}}",
            "%y: f32[1, 2, 9] = slice(%c) "
            "{starts = (0, 0, 0), steps = (1, 1, 1), stops = (1, 2, 9)}",
        ],
    )
    graph = rewritten(before, WHOLE)
    (node,) = (node for node in graph.nodes if node.op == "conv")
    assert node.attrs["pads"] == (0, 4, 0, 0)  # over two spatial axes
    assert count(graph)["slice"] == 0


def test_every_second_pixel_is_a_stride() -> None:
    conv = "strides = (1, 1), dilations = (1, 1), pads = (1, 1, 1, 1)"
    graph = rewritten(
        body(
            "%x: f32[1, 3, 9, 9], %w: f32[2, 3, 3, 3]",
            [
                f"%c: f32[1, 2, 9, 9] = conv(%x, %w) {{{conv}}}",
                "%r: f32[1, 2, 9, 9] = tanh(%c)",
                "%y: f32[1, 2, 5, 5] = slice(%r) "
                "{starts = (0, 0, 0, 0), steps = (1, 1, 2, 2), stops = (1, 2, 9, 9)}",
            ],
        ),
        WHOLE,
    )
    (conv_node,) = (node for node in graph.nodes if node.op == "conv")
    assert conv_node.attrs["strides"] == (2, 2)
    assert count(graph)["slice"] == 0


def test_parts_that_cover_all_stay_one() -> None:
    lines = [
        "%m: f32[4, 6] = matmul(%x, %w)",
        "%a: f32[4, 3] = slice(%m) {starts = (0, 0), steps = (1, 1), stops = (4, 3)}",
        "%b: f32[4, 3] = slice(%m) {starts = (0, 3), steps = (1, 1), stops = (4, 6)}",
        "%y: f32[4, 3] = mul(%a, %b)",
    ]
    text = body("%x: f32[4, 6], %w: f32[6, 6]", lines)
    check(text, text, WHOLE)


def test_a_copy_that_costs_more_than_it_saves() -> None:
    """One row of 64 less is no reason to copy 63 rows of the operand."""
    lines = [
        "%c: f32[64, 1] = matmul(%x, %w)",
        "%s: f32[63, 1] = slice(%c) {starts = (0, 0), steps = (1, 1), stops = (63, 1)}",
        "%y: f32[63, 1] = tanh(%s)",
    ]
    text = body("%x: f32[64, 9], %w: f32[9, 1]", lines)
    check(text, text, WHOLE)


def test_rows_that_the_run_picks() -> None:
    lines = [
        "%l: f32[n, 6] = layer_norm(%x, %g) {axis = 1}",
        "%m: f32[n, 6] = matmul(%l, %w)",
        "%i: i64[1] = add(%at, %at)",
        "%y: f32[1, 6] = gather(%m, %i) {axis = 0}",
    ]
    text = body("%x: f32[n, 6], %w: f32[6, 6], %g: f32[6], %at: i64[1]", lines)
    graph = parse_graph(text)
    inputs = inputs_for(graph)
    inputs["at"] = np.array([2])
    want = run_graph(graph, inputs)
    run_passes(graph, (WHOLE,))
    same_results(want, run_graph(graph, inputs))
    assert graph.nodes[-1].output.shape == (1, 6)
    assert next(n for n in graph.nodes if n.op == "layer_norm").output.shape == (1, 6)


def test_rows_whose_number_is_read_behind_what_makes_them() -> None:
    """What makes the rows goes behind what reads their number."""
    lines = [
        "%m: f32[4096, 6] = matmul(%x, %w)",
        "%t: f32[4096, 6] = tanh(%m)",
        "%i: i64[1] = abs(%n)",
        'read_dims(%i) {symbols = ("k",)}',
        "%y: f32[k, 6] = slice(%t) {starts = (0, 0), steps = (1, 1), stops = (k, 6)}",
    ]
    graph = parse_graph(body("%x: f32[4096, 6], %w: f32[6, 6], %n: i64[1]", lines))
    rng = np.random.default_rng(3)
    shapes = {"x": (4096, 6), "w": (6, 6)}
    given = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for rows in (-3, 0, 8):
        given["n"] = np.array([rows])
        want = run_graph(graph, given)
        narrow = parse_graph(print_graph(graph))
        run_passes(narrow, (Demand(),))
        same_results(want, run_graph(narrow, given))
    (product,) = (node for node in narrow.nodes if node.op == "matmul")
    assert [str(dim) for dim in product.output.shape] == ["k", "6"]


def test_first_row_of_a_length_that_a_run_decides() -> None:
    lines = [
        "%m: f32[b, n, 6] = matmul(%x, %w)",
        "%t: f32[b, n, 6] = tanh(%m)",
        "%y: f32[b, 1, 6] = slice(%t) "
        "{starts = (0, n - 1, 0), steps = (1, 1, 1), stops = (b, n, 6)}",
    ]
    graph = rewritten(body("%x: f32[b, n, 6], %w: f32[6, 6]", lines), WHOLE)
    assert all(node.output.shape[1] == 1 for node in graph.nodes)


def test_it_tells_what_is_saved() -> None:
    told: list[Saving] = []
    text = body(
        "%x: f32[8, 6], %w: f32[6, 6]",
        [
            "%m: f32[8, 6] = matmul(%x, %w)",
            "%y: f32[1, 6] = slice(%m) {starts = (7, 0), steps = (1, 1), stops = (8, 6)}",
        ],
    )
    run_passes(parse_graph(text), (Demand(told.append),))
    assert [(item.op, item.before, item.after) for item in told] == [("matmul", 576, 72)]
    assert "[1, 6]" in told[0].reason


def _norm(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    return c.op("layer_norm", x, c.weight(x.shape[-1]), axis=x.type.rank - 1)


def _attend(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    if x.type.rank < 2:
        return x
    return c.op("attention", c.op("tanh", x), x, c.op("neg", x), scale=0.5)


def _pick(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    axis = int(rng.integers(x.type.rank))
    places = rng.integers(0, x.shape[axis], int(rng.integers(1, 4)))
    return c.op("gather", x, constant(places), axis=axis)


def _flip(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    axis = int(rng.integers(x.type.rank))
    starts = tuple(dim - 1 if i == axis else 0 for i, dim in enumerate(x.shape))
    stops = tuple(-1 if i == axis else dim for i, dim in enumerate(x.shape))
    steps = tuple(-1 if i == axis else 1 for i in range(x.type.rank))
    return c.op("slice", x, starts=starts, stops=stops, steps=steps)


def _unpool(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    if x.type.rank != 4 or x.type.elements > 4000:
        return x
    low, high = (int(pad) for pad in rng.integers(0, 3, 2))
    window = {"strides": (2, 1), "dilations": (1, 1), "pads": (low, 0, high, 1)}
    return c.op("conv_transpose", x, c.weight(x.shape[1], 3, 4, 3), **window, output_padding=(1, 0))


def _running(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    axis = int(rng.integers(x.type.rank))
    return c.op("cumsum", x, axis=axis, reverse=bool(rng.integers(2)))


NARROWING: tuple[Step, ...] = (*STEPS, _norm, _attend, _pick, _flip, _unpool, _running, _pick)


def _cut_results(graph: Graph, seed: int) -> None:
    """Make the results parts of what they were."""
    rng = np.random.default_rng(seed)
    for number, value in enumerate(graph.outputs):
        starts = [int(rng.integers(0, dim)) for dim in value.shape]
        stops = [int(rng.integers(s + 1, d + 1)) for s, d in zip(starts, value.shape, strict=True)]
        steps = [int(rng.integers(1, 3)) for _ in starts]
        attrs = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
        graph.nodes.append(make_node("slice", [value], attrs, name=f"cut{number}"))
        graph.outputs[number] = graph.nodes[-1].output


@settings(max_examples=200)
@given(st.lists(st.integers(0, 1 << 16), min_size=2, max_size=9), st.integers(0, 1 << 16))
def test_random_graphs(numbers: list[int], seed: int) -> None:
    graph = build(numbers, steps=NARROWING)
    _cut_results(graph, seed)
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, (Fixpoint(SIMPLIFY),))
    before = graph_work(graph), graph_flops(graph)
    run_passes(graph, (WHOLE,))
    assert graph_work(graph) <= before[0]
    assert flops(graph) <= before[1]
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    assert not Demand().run(graph)


@pytest.mark.parametrize("symbols", [1, 2, 3])
def test_random_graphs_of_symbols(symbols: int) -> None:
    for seed in range(25):
        numbers = np.random.default_rng(seed).integers(0, 1 << 16, 6).tolist()
        graph = build(numbers, symbols=symbols)
        for number, value in enumerate(graph.outputs):
            steps = (1,) * value.type.rank
            attrs = {"starts": (0,) * value.type.rank, "stops": (1,) * value.type.rank}
            node = make_node("slice", [value], {**attrs, "steps": steps}, name=f"cut{number}")
            graph.nodes.append(node)
            graph.outputs[number] = node.output
        inputs = inputs_for(graph)
        want = run_graph(graph, inputs)
        run_passes(graph, (WHOLE,))
        same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
