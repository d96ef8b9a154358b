"""Which movements of elements get a kernel of their own."""

from __future__ import annotations

import pytest
from rewriting import body, rewritten

from tensmith.compiler.ir import Graph
from tensmith.passes.grouping.fusion import Fusion


def groups(graph: Graph) -> list[list[str]]:
    """The operators of every fused node."""
    return [[n.op for n in node.regions[0].nodes] for node in graph.nodes if node.op == "fused"]


TURNED = "%t: f32[n, 64] = transpose(%x) {perm = (1, 0)}"
SOFTMAX = [
    "%m: f32[n, 1] = reduce_max(%t) {axes = (1,), keepdims = true}",
    "%d: f32[n, 64] = sub(%t, %m)",
    "%e: f32[n, 64] = exp(%d)",
    "%s: f32[n, 1] = reduce_sum(%e) {axes = (1,), keepdims = true}",
    "%y: f32[n, 64] = div(%e, %s)",
]
CENTRED = [
    "%m: f32[n, 1] = reduce_mean(%t) {axes = (1,), keepdims = true}",
    "%y: f32[n, 64] = sub(%t, %m)",
]
RESIDUAL = ["%p: f32[n, 64] = matmul(%z, %w)", "%y: f32[n, 64] = add(%p, %t)"]
MEAN = [
    "%e: f32[n, 64] = exp(%t)",
    "%m: f32[n, 1] = reduce_mean(%e) {axes = (1,), keepdims = true}",
    "%y: f32[n, 1] = sqrt(%m)",
]
ACROSS = "%x: f32[64, n], %z: f32[n, 8], %w: f32[8, 64]"


@pytest.mark.parametrize(
    ("lines", "copied"), [(SOFTMAX, True), (CENTRED, True), (RESIDUAL, True), (MEAN, False)]
)
def test_rows_that_lie_across_their_lanes_are_copied(lines: list[str], copied: bool) -> None:
    """A single reduction has its lanes where elements are neighbours, whichever axis that is."""
    text = body(ACROSS, [TURNED, *lines])
    assert (["transpose"] in groups(rewritten(text, Fusion(lanes=16)))) is copied
    assert ["transpose"] not in groups(rewritten(text, Fusion(lanes=1)))


def test_a_few_lanes_are_no_copy() -> None:
    few = [line.replace("64", "3") for line in (TURNED, *SOFTMAX)]
    text = body(ACROSS.replace("64", "3"), few)
    assert ["transpose"] not in groups(rewritten(text, Fusion(lanes=16)))


def test_what_becomes_rows_of_another_length_is_copied() -> None:
    """Else every element would be looked up by two divisions."""
    padded = '%a: f32[t, p + 1] = pad(%x, %c) {mode = "constant", pads = (0, 1, 0, 0)}'
    other = [
        "%b: f32[p + 1, t] = reshape(%a) {shape = (p + 1, t)}",
        "%y: f32[p + 1, t] = exp(%b)",
    ]
    same = [
        "%b: f32[t, 1, p + 1] = reshape(%a) {shape = (t, 1, p + 1)}",
        "%y: f32[t, 1, p + 1] = exp(%b)",
    ]
    zero = "const %c: f32[] = [0.0]"
    graph = rewritten(body("%x: f32[t, p]", [padded, *other], zero), Fusion())
    assert ["pad"] in groups(graph)
    graph = rewritten(body("%x: f32[t, p]", [padded, *same], zero), Fusion())
    assert groups(graph) == [["pad", "reshape", "exp"]]


@pytest.mark.parametrize(("many", "copied"), [(900, True), (9, False)])
@pytest.mark.parametrize("op", ["gather", "gather_nd"])
def test_rows_that_data_pick_lie_side_by_side(op: str, many: int, copied: bool) -> None:
    """But for a few of them not all are turned."""
    lookups = {
        "gather": f"%g: f32[1, {many}, 32] = gather(%t, %i) {{axis = 1}}",
        "gather_nd": f"%g: f32[{many}, 32] = gather_nd(%r, %j) {{batch_dims = 0}}",
    }
    lines = [
        "%t: f32[1, 400, 32] = transpose(%x) {perm = (0, 2, 1)}",
        "%r: f32[400, 32] = reshape(%t) {shape = (400, 32)}",
        lookups[op],
        f"%y: f32[{'1, ' * (op == 'gather')}{many}, 32] = exp(%g)",
    ]
    text = body(f"%x: f32[1, 32, 400], %i: i64[{many}], %j: i64[{many}, 1]", lines)
    assert (["transpose"] in groups(rewritten(text, Fusion(lanes=16)))) is copied
