"""Products of bytes become products of words where the target takes more of these at once."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import same_results
from suites.case import I8, I32, U8, CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.ir.dims import Dim, symbol
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.precision.word_products import WordProducts

WINDOW = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "pad_value": 7}


def matmul(rows: Dim = 9, depth: int = 32, columns: int = 16) -> Graph:
    c = CaseBuilder("matmul")
    x = c.input(rows, depth, dtype=U8, low=0, high=256, name="x")
    w = c.weight(depth, columns, dtype=I8, low=-128, high=128)
    c.output(c.op("matmul", x, w, accumulate=I32))
    return c.graph()


def conv(layout: str, groups: int = 1, channels: int = 8) -> Graph:
    c = CaseBuilder("conv")
    last = layout == "NHWC"
    shape, filters = (1, channels, 5, 6), (16, channels // groups, 3, 3)
    if last:
        shape, filters = (1, 5, 6, channels), (3, 3, channels // groups, 16)
    x = c.input(*shape, dtype=U8, low=0, high=256, name="x")
    w = c.weight(*filters, dtype=I8, low=-128, high=128)
    c.output(c.op("conv", x, w, accumulate=I32, layout=layout, groups=groups, **WINDOW))
    return c.graph()


def widened(graph: Graph, target: str = "x86-64-v3") -> bool:
    """Whether the pass changed the graph, which computes the same integers then."""
    rng = np.random.default_rng(4)
    [x] = graph.inputs
    shape = [n if isinstance(n, int) else 6 for n in x.shape]
    inputs = {"x": rng.integers(0, 256, shape, np.uint8)}
    want = run_graph(graph, inputs)
    run_passes(graph, (WordProducts(resolve_target(target)[1]),))
    same_results(want, run_graph(graph, inputs), rtol=0, atol=0)
    product = next(node for node in graph.nodes if node.op in ("matmul", "conv"))
    kinds = {value.dtype for value in product.inputs}
    assert kinds in ({DType.I16}, {DType.U8, DType.I8})
    return kinds == {DType.I16}


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
def test_where_bytes_would_be_made_words_at_every_use(target: str) -> None:
    assert widened(matmul(), target)


@pytest.mark.parametrize("target", ["znver5", "aarch64", "cortex-m55"])
def test_not_where_bytes_are_multiplied_as_they_are(target: str) -> None:
    assert not widened(matmul(), target)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_keep_their_borders(layout: str, groups: int) -> None:
    assert widened(conv(layout, groups))


def pictures(side: int, channels: int, low: int = -128) -> Graph:
    """A convolution of bytes that a kernel makes, at stride 1."""
    c = CaseBuilder("pictures")
    x = c.input(1, channels, side, side, dtype=U8, low=0, high=256, name="x")
    w = c.weight(channels, channels, 3, 3, dtype=I8, low=low, high=128)
    data = c.op("max", x, c.scalar(3, U8))
    c.output(c.op("conv", data, w, accumulate=I32, layout="NCHW", groups=1, **WINDOW))
    return c.graph()


@pytest.mark.parametrize("target", ["znver4", "znver5"])
def test_convolutions_that_winograds_algorithm_computes_sooner(target: str) -> None:
    """A quarter of the products, which take twice the steps, where transforms are little work and
    weights little memory."""
    assert widened(pictures(56, 64), target)
    assert not widened(pictures(56, 8), target)
    assert not widened(pictures(7, 256), target)
    assert not widened(conv("NCHW", channels=64), target)  # of what the run is given


def test_matrices_of_bytes_are_faster_than_winograds_algorithm() -> None:
    assert not widened(pictures(56, 64), "sapphirerapids")


def test_sums_that_tiles_of_four_would_lose() -> None:
    """Those of tiles of two save no more than words cost."""
    assert not widened(pictures(28, 192, low=120), "znver5")


def test_a_row_that_only_a_run_knows() -> None:
    assert widened(matmul(symbol("rows")))


@pytest.mark.parametrize(
    "graph",
    [matmul(rows=4), matmul(columns=4), matmul(depth=31), conv("NCHW", groups=4, channels=16)],
    ids=["few rows", "few columns", "odd depth", "few columns of a group"],
)
def test_what_gains_nothing_stays(graph: Graph) -> None:
    assert not widened(graph)
