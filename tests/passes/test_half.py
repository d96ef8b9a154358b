"""bf16 and f16: which operands are rounded, what is stored so, and what stays f32."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import body, count, inputs_for, same_results
from suites.case import BF16, F16, F32, I64, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import DType, Graph, Value, constant
from tensmith.compiler.ir.text import parse_graph, print_graph, structurally_equal
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.grouping.fusion import Fusion
from tensmith.passes.pipeline import SIMPLIFY, half_passes
from tensmith.passes.precision.half import (
    FEW_ROWS,
    MIN_TABLE,
    MIN_WEIGHTS,
    NO_FASTER,
    Decision,
    StoreHalves,
    ToHalf,
)
from tensmith.passes.precision.weight_products import WeightProducts

ZEN4 = resolve_target("znver4")[1]
WINDOW = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}


def _in_halves(
    graph: Graph, half: DType = BF16, target: str = "znver4"
) -> tuple[Graph, list[Decision]]:
    """The graph after the pass, which computes what it did but for rounding."""
    found: list[Decision] = []
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    passes = [
        ToHalf(half, resolve_target(target)[1], found.append),
        Fixpoint((StoreHalves(half), *SIMPLIFY)),
    ]
    run_passes(graph, passes)
    same_results(want, run_graph(graph, inputs), rtol=0.05, atol=0.2)
    return graph, found


def _weights(graph: Graph) -> list[DType]:
    return [n.inputs[1].dtype for n in graph.walk() if n.op in ("conv", "matmul")]


def test_operands_are_rounded_and_sums_are_f32() -> None:
    before = body(
        "%x: f32[n, 2]", "%y: f32[n, 1] = matmul(%x, %w)", "const %w: f32[2, 1] = [1.0, 2.0]"
    )
    after = body(
        "%x: f32[n, 2]",
        [
            "%a: bf16[n, 2] = cast(%x) {dtype = !bf16}",
            "%y: f32[n, 1] = matmul(%a, %w) {accumulate = !f32}",
        ],
        "const %w: bf16[2, 1] = [1.0, 2.0]",
    )
    graph, found = _in_halves(parse_graph(before))
    assert structurally_equal(graph, parse_graph(after)), print_graph(graph)
    assert found == [Decision("", "matmul", "bf16")]


def test_what_products_read_is_written_in_halves() -> None:
    """The rounding moves in front of movement and pooling, to what makes the values."""
    c = CaseBuilder("chain")
    x = c.op("conv", c.input(1, 4, 8, 8), c.weight(8, 4, 3, 3), **WINDOW)
    x = c.op("transpose", c.op("max", x, c.scalar(0)), perm=(0, 2, 3, 1))
    pool = {"kernel": (2, 2), "strides": (2, 2), "pads": (0,) * 4, "dilations": (1, 1),
            "ceil_mode": False, "layout": "NHWC"}  # fmt: skip
    x = c.op("reshape", c.op("max_pool", x, **pool), shape=(16, 8))
    c.output(c.op("matmul", x, c.weight(8, 6)))
    graph, found = _in_halves(c.graph())
    assert [(d.op, d.precision) for d in found] == [("conv", "bf16"), ("matmul", "bf16")]
    moved = [n.output.dtype for n in graph.walk() if n.op in ("transpose", "max_pool", "reshape")]
    assert moved == [BF16] * 3


@pytest.mark.parametrize("dtype", [DType.I4, DType.I8])
def test_products_with_constant_integers_are_left(dtype: DType) -> None:
    """However many rows meet them, neither floats nor halves are made of all weights."""
    c = CaseBuilder("packed")
    numbers = np.arange(128 * 128, dtype=np.uint8)
    q: Value = constant(numbers.view(np.int8).reshape(128, 128))
    if dtype is DType.I4:
        packed = constant(numbers[: 128 * 64])
        q = c.op("unpack", packed, dtype=dtype, shape=(128, 128))
    q = c.op("reshape", q, shape=(128, 4, 32))
    scale = constant(np.full((128, 4, 1), 0.001, np.float32))
    real = c.op("dequantize", q, scale, constant(np.zeros((), dtype.numpy)))
    real = c.op("transpose", c.op("reshape", real, shape=(128, 128)), perm=(1, 0))
    c.output(c.op("matmul", c.op("matmul", c.input(64, 128), real), c.weight(128, 8)))
    graph, found = _in_halves(c.graph())
    assert [told.precision for told in found] == ["bf16"]
    told: list[Decision] = []
    run_passes(graph, (WeightProducts(told.append),))
    assert [item.precision for item in told] == [f"int{dtype.value[1:]} weights"]
    assert count(graph)["quantised_matmul"] == 1


def _shared(reader: str) -> Graph:
    """A value that a product reads, and another operator."""
    c = CaseBuilder("shared")
    x = c.op("tanh", c.input(N, 8))
    product = c.op("matmul", x, c.weight(8, 8))
    if reader == "result":
        c.output(x)
    elif reader == "sum":
        c.output(c.op("reduce_sum", x, axes=(1,), keepdims=True))
    c.output(c.op("add", product, x) if reader == "add" else product)
    return c.graph()


@pytest.mark.parametrize(("reader", "casts"), [("add", 2), ("sum", 1), ("result", 1)])
def test_readers_of_one_value(reader: str, casts: int) -> None:
    """Pointwise operators read the rounded value; sums and results of the model the f32."""
    graph, _ = _in_halves(_shared(reader))
    assert count(graph)["cast"] == casts
    other = {"add": "add", "sum": "reduce_sum"}.get(reader)
    if other:
        sources = [v.producer.op for n in graph.walk() if n.op == other for v in n.inputs
                   if v.producer]  # fmt: skip
        assert ("cast" in sources) == (reader == "add")


def test_kernels_read_stored_halves_themselves() -> None:
    """What widens a value that lies in memory rounded is part of every kernel that reads it."""
    graph, _ = _in_halves(_shared("add"))
    run_passes(graph, [Fusion()])
    groups = [[n.op for n in node.regions[0].nodes] for node in graph.nodes if node.op == "fused"]
    assert sorted(groups) == [["matmul", "cast", "add"], ["tanh", "cast"]]
    stored = [v.dtype for node in graph.nodes for v in node.outputs if v not in graph.outputs]
    assert stored == [BF16]


def _one(weights: Value, rows: int = 64) -> Graph:
    c = CaseBuilder("one")
    x = c.input(rows, weights.shape[0] if isinstance(weights.shape[0], int) else 1)
    c.output(c.op("matmul", x, weights))
    return c.graph()


def _drawn(*shape: int, scale: float = 1.0) -> Value:
    return constant(np.random.default_rng(1).normal(size=shape).astype(np.float32) * scale)


@pytest.mark.parametrize(
    ("graph", "half", "target", "reason"),
    [
        (_one(_drawn(33, 8)), BF16, "znver4", "sums of 33 products make no whole groups of 2"),
        (
            _one(_drawn(32, 8)),
            BF16,
            "sapphirerapids",
            NO_FASTER.format("bf16"),
        ),
        (_one(_drawn(32, 8)), F16, "znver4", NO_FASTER.format("fp16")),
        (_one(_drawn(32, 8, scale=1e5), 1), F16, "znver4", "the weights exceed the range of fp16"),
    ],
)
def test_products_that_stay(graph: Graph, half: DType, target: str, reason: str) -> None:
    before = print_graph(graph)
    _, found = _in_halves(graph, half, target)
    assert [(d.precision, d.reason) for d in found] == [("fp32", reason)]
    assert print_graph(graph) == before


@pytest.mark.parametrize(("rows", "stored"), [(1, F16), (FEW_ROWS, F16), (FEW_ROWS + 1, F32)])
def test_weights_that_few_rows_read_are_stored_in_halves(rows: int, stored: DType) -> None:
    weights = _drawn(512, MIN_WEIGHTS // 512, scale=0.05)
    graph, found = _in_halves(_one(weights, rows), F16)
    assert _weights(graph) == [stored]
    assert "cast" not in count(graph)
    assert found[0].precision == ("fp16 weights" if stored is F16 else "fp32")


def test_few_weights_are_not_worth_converting() -> None:
    graph, found = _in_halves(_one(_drawn(32, 8), 1), F16)
    assert _weights(graph) == [F32]
    assert found[0].precision == "fp32"


def test_products_of_what_a_run_makes_and_depthwise_ones_stay() -> None:
    c = CaseBuilder("run")
    a = c.input(2, 8, 8)
    scores = c.op("softmax", c.op("matmul", a, c.op("transpose", a, perm=(0, 2, 1))), axis=2)
    images = c.op("reshape", c.op("matmul", scores, a), shape=(1, 2, 8, 8))
    c.output(c.op("conv", images, c.weight(2, 1, 3, 3), groups=2, **WINDOW))
    graph, found = _in_halves(c.graph())
    assert {d.precision for d in found} == {"fp32"}
    assert count(graph)["cast"] == 0


@pytest.mark.parametrize("keys", [64, 65])
def test_products_of_attention_are_of_pairs(keys: int) -> None:
    """Where there are enough queries; an odd number of keys is filled up."""
    c = CaseBuilder("attention")
    q, k, v = c.input(2, 48, 32), c.input(2, keys, 32), c.input(2, keys, 32)
    c.output(c.op("attention", q, k, v, scale=0.2))
    want = c.graph()
    inputs = inputs_for(want)
    expected = run_graph(want, inputs)
    graph, found = _in_halves(want)
    assert [d.precision for d in found] == ["bf16", "bf16"]
    products = [node for node in graph.walk() if node.op == "matmul"]
    assert [node.attrs["product"] for node in products] == ["dot2", "dot2"]
    assert count(graph)["pad"] == (2 if keys % 2 else 0)
    same_results(expected, run_graph(graph, inputs), rtol=0.05, atol=0.02)


@pytest.mark.parametrize(("half", "target"), [(F16, "znver4"), (BF16, "x86-64-v3")])
def test_attention_is_whole_where_no_instruction_multiplies_halves(
    half: DType, target: str
) -> None:
    c = CaseBuilder("attention")
    c.output(c.op("attention", *(c.input(2, 48, 32) for _ in range(3)), scale=0.2))
    graph, found = _in_halves(c.graph(), half, target)
    assert [(d.op, d.precision) for d in found] == [("attention", "fp32")]
    assert count(graph) == {"attention": 1}


def test_convolutions_with_a_fast_algorithm_keep_it() -> None:
    """Winograd's multiplies less often than halves are faster."""
    c = CaseBuilder("fast")
    x = c.op("conv", c.input(1, 64, 56, 56), c.weight(64, 64, 3, 3, low=-0.1, high=0.1), **WINDOW)
    c.output(c.op("conv", x, c.weight(64, 64, 1, 1), **{**WINDOW, "pads": (0,) * 4}))
    graph, found = _in_halves(c.graph())
    assert [d.precision for d in found] == ["fp32", "bf16"]
    assert "Winograd" in found[0].reason
    assert _weights(graph) == [F32, BF16]


def test_tables_are_stored_in_halves() -> None:
    c = CaseBuilder("table")
    places = c.input(3, dtype=I64, low=0, high=2)
    for rows in (MIN_TABLE // 64, 4):
        c.output(c.op("gather", c.weight(rows, 64), places, axis=0))
    graph, found = _in_halves(c.graph())
    assert [n.inputs[0].dtype for n in graph.walk() if n.op == "gather"] == [BF16, F32]
    assert [value.dtype for value in graph.outputs] == [F32, F32]
    assert [d.precision for d in found] == ["bf16 weights"]


def test_a_second_run_changes_nothing() -> None:
    graph, _ = _in_halves(_shared("add"))
    assert not run_passes(graph, [ToHalf(BF16, ZEN4), StoreHalves(BF16), *SIMPLIFY])


def test_gains_are_those_of_the_target() -> None:
    """Zen 4 takes products of bf16 twice as fast, Sapphire Rapids half as fast but for matrices."""
    names = ("znver4", "sapphirerapids", "x86-64-v3", "aarch64", "reference")
    gains = [ToHalf(BF16, resolve_target(name)[1]).gain(matrices=False) for name in names]
    assert gains == [2.0, 0.5, 0.0, 0.0, 0.0]
    assert ToHalf(BF16, resolve_target("sapphirerapids")[1]).gain() == 16
    assert ToHalf(F16, ZEN4).gain() == 0


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "made"),
    [
        (64, 64, 16, "bf16"),
        (3, 512, 256, "bf16 weights"),
        (64, 64, 8, "fp32"),
        (64, 24, 64, "fp32"),
    ],
)
def test_matrices_need_rows_columns_and_steps(
    rows: int, depth: int, columns: int, made: str
) -> None:
    _, found = _in_halves(_one(_drawn(depth, columns), rows), BF16, "sapphirerapids")
    assert [d.precision for d in found] == [made]


def test_maps_become_one_before_they_are_rounded() -> None:
    c = CaseBuilder("maps")
    narrow = c.op("matmul", c.input(64, 32), c.weight(32, 512, low=-0.1, high=0.1))
    c.output(c.op("matmul", narrow, c.weight(512, 48, low=-0.1, high=0.1)))
    graph = c.graph()
    run_passes(graph, half_passes(ToHalf(BF16, ZEN4)))
    (product,) = (node for node in graph.nodes if node.op == "matmul")
    assert product.inputs[1].shape == (32, 48)
    assert product.inputs[1].dtype is BF16
