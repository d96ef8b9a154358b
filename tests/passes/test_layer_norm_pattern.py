"""Layer normalisation written out."""

from __future__ import annotations

import pytest
from rewriting import body, check, count, rewritten

from tensmith.compiler.pass_manager import Fixpoint
from tensmith.passes.patterns.layer_norm_pattern import LayerNormPattern
from tensmith.passes.pipeline import SIMPLIFY

FIND = (Fixpoint(SIMPLIFY), Fixpoint((LayerNormPattern(), *SIMPLIFY)))
CONSTANTS = (
    "const %eps: f32[] = [1e-5]\nconst %two: f32[] = [2.0]\nconst %one: f32[] = [1.0]\n"
    "const %g: f32[3] = [1.0, 2.0, 3.0]\nconst %b: f32[3] = [0.5, 0.0, -1.0]"
)
CENTRED = [
    "%m: f32[n, 4, 1] = reduce_mean(%x) {axes = (2,), keepdims = true}",
    "%d: f32[n, 4, 3] = sub(%x, %m)",
    "%q: f32[n, 4, 3] = pow(%d, %two)",
    "%v: f32[n, 4, 1] = reduce_mean(%q) {axes = (2,), keepdims = true}",
    "%e: f32[n, 4, 1] = add(%v, %eps)",
    "%r: f32[n, 4, 1] = sqrt(%e)",
]
X = "%x: f32[n, 4, 3]"


@pytest.mark.parametrize(
    "normal",
    [
        ["%z: f32[n, 4, 3] = div(%d, %r)"],
        ["%i: f32[n, 4, 1] = div(%one, %r)", "%z: f32[n, 4, 3] = mul(%d, %i)"],
    ],
)
def test_with_scale_and_bias(normal: list[str]) -> None:
    ends = ["%s: f32[n, 4, 3] = mul(%z, %g)", "%y: f32[n, 4, 3] = add(%s, %b)"]
    epsilon = "axis = 2, epsilon = 9.999999747378752e-06"
    check(
        body(X, [*CENTRED, *normal, *ends], CONSTANTS),
        body(X, f"%y: f32[n, 4, 3] = layer_norm(%x, %g, %b) {{{epsilon}}}", CONSTANTS),
        *FIND,
    )


def test_without_scale() -> None:
    graph = rewritten(body(X, [*CENTRED, "%y: f32[n, 4, 3] = div(%d, %r)"], CONSTANTS), *FIND)
    assert count(graph) == {"layer_norm": 1}


def test_other_axes_are_left() -> None:
    lines = [line.replace("(2,)", "(1,)").replace("[n, 4, 1]", "[n, 1, 3]") for line in CENTRED]
    graph = rewritten(body(X, [*lines, "%y: f32[n, 4, 3] = div(%d, %r)"], CONSTANTS), *FIND)
    assert count(graph)["layer_norm"] == 0
