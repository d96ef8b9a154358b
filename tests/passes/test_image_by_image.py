"""Batches of pictures run picture by picture where a batch leaves the caches."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import count, inputs_for, same_results
from suites.case import F32, I64, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.backends.x86.targets import parse_target
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Dim, Graph, Value, constant
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.arithmetic.image_by_image import ImageByImage
from tensmith.passes.pipeline import SIMPLIFY, optimization_passes

SAME = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1)}
HALF = {"strides": (2, 2), "dilations": (1, 1), "pads": (1, 1, 1, 1)}
TARGET = parse_target("x86-64-v4")
SMALL = ImageByImage(TARGET, cache_bytes=4096)


def network(
    batch: Dim = 4, size: int = 16, last: int = 12, joined: bool = False, stride: int = 2
) -> Graph:
    """A residual network, whose last layer has more weights than results."""
    c = CaseBuilder("network")
    x = c.input(batch, 3, size, size)
    a = c.op("tanh", c.op("conv", x, c.weight(4, 3, 3, 3), c.weight(4), **SAME))
    b = c.op("add", a, c.op("conv", a, c.weight(4, 4, 3, 3), **SAME))
    d = c.op("max_pool", b, **{**HALF, "strides": (stride, stride)}, kernel=(3, 3))
    if joined:  # all pictures meet
        d = c.op("sub", d, c.op("reduce_mean", d, axes=(0,), keepdims=True))
    e = c.op("tanh", c.op("conv", d, c.weight(last, 4, 3, 3), **SAME))
    mean = c.op("reduce_mean", e, axes=(2, 3), keepdims=False)
    c.output(c.op("matmul", mean, c.weight(last, 5)))
    return c.graph()


def optimised(graph: Graph, *passes: ImageByImage) -> Graph:
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, (*(passes or (SMALL,)), Fixpoint(SIMPLIFY)))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    return graph


def scanned(graph: Graph) -> list[Value]:
    return [node.output for node in graph.nodes if node.op == "scan"]


@pytest.mark.parametrize("batch", [4, N])
def test_pictures_one_by_one(batch: Dim) -> None:
    told: list[Saving] = []
    graph = optimised(network(batch), ImageByImage(TARGET, told.append, 4096))
    (result,) = scanned(graph)
    assert result.shape[0] == batch
    assert [item.by for item in told] == ["image_by_image"]
    assert told[0].after < told[0].before
    assert all(node.op != "conv" for node in graph.nodes[:1])


def test_large_weights_stay_behind() -> None:
    """Read once for the batch where four positions of a picture are computed sooner than read."""
    graph = optimised(network(last=200, stride=8))
    assert len(scanned(graph)) == 1
    (conv,) = (node for node in graph.nodes if node.op == "conv")
    assert conv.output.shape[:2] == (4, 200)


@pytest.mark.parametrize(("version", "behind"), [(4, 1), (3, 0)])
def test_the_target_decides_which_weights_are_waited_for(version: int, behind: int) -> None:
    """With half the lanes a layer computes for twice as long while its weights arrive."""
    target = parse_target(f"x86-64-v{version}")
    graph = optimised(network(last=40, stride=6), ImageByImage(target, cache_bytes=4096))
    assert len(scanned(graph)) == 1
    assert sum(node.op == "conv" for node in graph.nodes) == behind


def test_what_follows_the_last_layer_at_once_goes_along() -> None:
    """As a part of its kernel, where it would go over the whole batch again behind the scan."""
    c = CaseBuilder("stack")
    x = c.input(N, 4, 16, 16)
    y = c.op("conv", x, c.weight(4, 4, 3, 3), **SAME)
    c.output(c.op("tanh", c.op("add", y, c.weight(4, 1, 1))))
    graph = optimised(c.graph())
    assert [node.op for node in graph.nodes] == ["scan"]


@pytest.mark.parametrize("batch", [4, N])
def test_what_is_the_same_for_all_pictures_is_repeated_inside(batch: Dim) -> None:
    """A token in front of the patches of every picture, which what lies behind reads, too."""
    c = CaseBuilder("tokens")
    x = c.input(batch, 3, 16, 15)
    y = c.op("conv", x, c.weight(4, 3, 3, 3), **SAME)
    y = c.op("transpose", c.op("reshape", y, shape=(batch, 4, 240)), perm=(0, 2, 1))
    token = c.op("broadcast_to", c.weight(1, 1, 4), shape=(batch, 1, 4))
    other = c.op("tanh", token)
    y = c.op("concat", token, y, axis=1)
    y = c.op("tanh", c.op("matmul", c.op("layer_norm", y, c.weight(4), axis=2), c.weight(4, 4)))
    y = c.op("reduce_mean", c.op("cumsum", y, axis=0), axes=(1,), keepdims=True)
    c.output(c.op("add", y, token), other)
    graph = optimised(c.graph())
    (result,) = scanned(graph)
    ops = {node.op for node in result.producer.regions[0].nodes}
    assert {"conv", "concat", "layer_norm", "matmul"} <= ops
    assert "cumsum" in count(graph)


def test_what_enlarges_stays_behind() -> None:
    c = CaseBuilder("stack")
    x = c.input(N, 4, 16, 16)
    y = c.op("conv", x, c.weight(4, 4, 3, 3), **SAME)
    y = c.op("reshape", y, shape=(N, 4, 16, 1, 16))
    c.output(c.op("broadcast_to", y, shape=(N, 4, 16, 3, 16)))
    (result,) = scanned(optimised(c.graph()))
    assert result.shape[-1] == 16
    assert "broadcast_to" not in {node.op for node in result.producer.regions[0].nodes}


def test_without_a_target_nothing_changes() -> None:
    assert not ImageByImage(cache_bytes=4096).run(network())


def test_where_pictures_meet_the_scan_ends() -> None:
    graph = optimised(network(joined=True))
    assert len(scanned(graph)) == 1
    assert count(graph)["reduce_mean"] == 2
    assert sum(node.op == "reduce_mean" for node in graph.nodes) == 2


@pytest.mark.parametrize("how", ["cumsum", "gather"])
def test_pictures_that_go_into_others_end_the_scan(how: str) -> None:
    """Sums of all pictures before each, and pictures that change places but the outer ones."""
    c = CaseBuilder("mixed")
    x = c.input(4, 3, 16, 16)
    a = c.op("tanh", c.op("conv", x, c.weight(4, 3, 3, 3), c.weight(4), **SAME))
    if how == "cumsum":
        b = c.op("cumsum", a, axis=0)
    else:
        b = c.op("gather", a, constant(np.array([0, 2, 1, 3])), axis=0)
    d = c.op("tanh", c.op("conv", b, c.weight(4, 4, 3, 3), **SAME))
    c.output(c.op("reduce_mean", d, axes=(2, 3), keepdims=False))
    optimised(c.graph())


@pytest.mark.parametrize("graph", [network(1), network(4, size=4)], ids=["one picture", "small"])
def test_others_stay(graph: Graph) -> None:
    assert not SMALL.run(graph)


def test_the_whole_pipeline() -> None:
    graph = network(3, size=16)
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    SMALL.run(graph)
    run_passes(graph, optimization_passes(2))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    assert np.isfinite(next(iter(want.values()))).all()


def windows(batch: Dim, timm: bool = False) -> Graph:
    """Attention within windows that move by half a window, as in Swin; timm: queries, keys and
    values of one product, with the batch as the second axis."""
    c = CaseBuilder("windows")
    x = c.input(batch, 8, 8, 6, name="x")
    x = c.op("tanh", x)
    low, high = (c.op("slice", x, **_cut(batch, *ends)) for ends in ((2, 8), (0, 2)))
    moved = c.op("concat", low, high, axis=1)
    six = c.op("reshape", moved, shape=(batch, 2, 4, 2, 4, 6))
    rows = c.op(
        "reshape", c.op("transpose", six, perm=(0, 1, 3, 2, 4, 5)), shape=(batch * 4, 16, 6)
    )
    if timm:
        qkv = c.op("reshape", c.op("matmul", rows, c.weight(6, 18)), shape=(batch * 4, 16, 3, 2, 3))
        qkv = c.op("transpose", qkv, perm=(2, 0, 3, 1, 4))
        ends = [{"starts": (i, 0, 0, 0, 0), "stops": (i + 1, *qkv.shape[1:])} for i in range(3)]
        parts = [c.op("slice", qkv, **end, steps=(1,) * 5) for end in ends]
        q, k, v = (c.op("reshape", part, shape=qkv.shape[1:]) for part in parts)
    else:
        q, k, v = (
            c.op("transpose", c.op("reshape", c.op("matmul", rows, c.weight(6, 6)),
                                   shape=(batch * 4, 16, 2, 3)), perm=(0, 2, 1, 3))
            for _ in range(3)
        )  # fmt: skip
    scores = c.op("matmul", q, c.op("transpose", k, perm=(0, 1, 3, 2)))
    masked = c.op("reshape", scores, shape=(batch, 4, 2, 16, 16))
    hidden = c.op("broadcast_to", c.weight(1, 4, 1, 16, 16), shape=(batch, 4, 1, 16, 16))
    bias = c.op("tanh", c.op("reshape", hidden, shape=(batch * 4, 1, 16, 16)))
    masked = c.op("add", masked, c.op("reshape", bias, shape=(batch, 4, 1, 16, 16)))
    weights = c.op("softmax", c.op("reshape", masked, shape=scores.shape), axis=3)
    mixed = c.op("transpose", c.op("matmul", weights, v), perm=(0, 2, 1, 3))
    flat = c.op("reshape", mixed, shape=(batch * 64, 6))
    last = c.op("reshape", c.op("matmul", flat, c.weight(6, 6)), shape=(batch, 64, 6))
    c.output(c.op("reduce_mean", last, axes=(1,), keepdims=False))
    return c.graph()


def _cut(batch: Dim, start: int, stop: int) -> dict[str, tuple[Dim, ...]]:
    return {"starts": (0, start, 0, 0), "stops": (batch, stop, 8, 6), "steps": (1, 1, 1, 1)}


@pytest.mark.parametrize("timm", [False, True], ids=["apart", "one product"])
@pytest.mark.parametrize("batch", [4, 8, N])
def test_windows_that_are_merged_with_the_batch(batch: Dim, timm: bool) -> None:
    graph = optimised(windows(batch, timm), ImageByImage(TARGET, cache_bytes=5000))
    (result,) = scanned(graph)
    assert {"matmul", "softmax"} <= {node.op for node in result.producer.regions[0].nodes}
    assert "softmax" not in {node.op for node in graph.nodes}


@pytest.mark.parametrize("batch", [4, N])
def test_several_rows_of_a_picture_behind_the_scan(batch: Dim) -> None:
    """The scan ends where a picture has several places of the first axis."""
    c = CaseBuilder("rows")
    y = c.op("tanh", c.op("conv", c.input(batch, 4, 16, 16), c.weight(4, 4, 3, 3), **SAME))
    y = c.op("reshape", c.op("transpose", y, perm=(0, 2, 3, 1)), shape=(batch * 256, 4))
    c.output(c.op("cumsum", c.op("tanh", c.op("matmul", y, c.weight(4, 4))), axis=0))
    graph = optimised(c.graph())
    (result,) = scanned(graph)
    assert result.shape == (batch, 256, 4)


@pytest.mark.parametrize("kind", ["other pictures", "part of a run", "runs of several pictures"])
def test_rows_of_several_pictures_end_the_scan(kind: str) -> None:
    c = CaseBuilder("mixed")
    x = c.op("tanh", c.op("conv", c.input(4, 4, 16, 16), c.weight(4, 4, 3, 3), **SAME))
    y = c.op("tanh", c.op("reshape", x, shape=(8, 512)))
    if kind == "other pictures":  # each picture's second half behind the next one's first
        y = c.op("gather", y, constant(np.array([0, 3, 2, 5, 4, 7, 6, 1])), axis=0)
    elif kind == "part of a run":
        y = c.op("slice", y, starts=(1, 0), stops=(8, 512), steps=(2, 1))
    else:
        y = c.op("reshape", y, shape=(2, 2048))
    c.output(c.op("tanh", c.op("matmul", y, c.weight(int(y.shape[1]), 3))))  # type: ignore[arg-type]
    graph = optimised(c.graph())
    (result,) = scanned(graph)
    assert result.shape == (4, 2, 512)
    inside = {node.op for node in result.producer.regions[0].nodes}
    assert inside == {"reshape", "conv", "tanh"}
    behind = {"other pictures": "gather", "part of a run": "slice"}.get(kind, "reshape")
    assert {behind, "matmul"} <= {node.op for node in graph.nodes}


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("batch", [3, 4, N])
def test_constants_may_be_as_long_as_the_batch_by_chance(batch: Dim, computed: bool) -> None:
    """What all pictures are multiplied by is no run of it for each, however long it is."""
    c = CaseBuilder("chance")
    x = c.input(batch, 4, 16, 16)
    y = c.op("tanh", c.op("conv", x, c.weight(4, 4, 3, 3), **SAME))
    rows = c.op("broadcast_to", c.weight(1, 16), shape=(16, 16))
    y = c.op("matmul", y, c.op("tanh", rows) if computed else rows)
    y = c.op("tanh", c.op("conv", y, c.weight(4, 4, 3, 3), **SAME))
    c.output(c.op("reduce_mean", y, axes=(2, 3), keepdims=False))
    (result,) = scanned(optimised(c.graph()))
    ops = [node.op for node in result.producer.regions[0].nodes]
    assert ops.count("conv") == 2
    assert "matmul" in ops


@pytest.mark.parametrize("batch", [4, N])
def test_texts_one_by_one(batch: Dim) -> None:
    """Tokens and the mask of several inputs; a text's embeddings are looked up within the scan."""
    c = CaseBuilder("texts")
    ids = c.input(batch, 12, dtype=I64, low=0, high=9, name="ids")
    mask = c.input(batch, 12, dtype=I64, low=0, high=2, name="mask")
    x = c.op("gather", c.weight(5000, 8), ids, axis=0)  # no text waits for all of a table
    x = c.op("layer_norm", c.op("add", x, c.weight(12, 8)), c.weight(8), axis=2)
    keys = c.op("transpose", c.op("matmul", x, c.weight(8, 8)), perm=(0, 2, 1))
    seen = c.op("reshape", c.op("cast", mask, dtype=F32), shape=(batch, 1, 12))
    scores = c.op("add", c.op("matmul", x, keys), seen)
    y = c.op("matmul", c.op("matmul", c.op("softmax", scores, axis=2), x), c.weight(8, 8))
    c.output(c.op("reduce_mean", c.op("tanh", y), axes=(1,), keepdims=False))
    inputs = {"ids": np.arange(12) % 9, "mask": np.arange(12) % 2}
    feed = {name: np.stack([np.roll(v, i) for i in range(4)]) for name, v in inputs.items()}
    graph = c.graph()
    want = run_graph(graph, feed)
    run_passes(graph, (ImageByImage(TARGET, cache_bytes=1500), Fixpoint(SIMPLIFY)))
    same_results(want, run_graph(graph, feed), rtol=1e-4, atol=1e-4)
    (result,) = scanned(graph)
    assert len(result.producer.inputs) == 2
    assert {"gather", "softmax"} <= {node.op for node in result.producer.regions[0].nodes}


def test_small_rows_stay_together() -> None:
    """A million rows of a few numbers each are no pictures."""
    c = CaseBuilder("rows")
    ids = c.input(1 << 20, 4, dtype=I64, low=0, high=9)
    c.output(c.op("tanh", c.op("tanh", c.op("gather", c.weight(9, 2), ids, axis=0))))
    assert not ImageByImage(TARGET).run(c.graph())
