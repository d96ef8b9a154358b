"""Rows of weights are moved at compile time where a flattened picture would be turned in a run."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import body, count, rewritten

from tensmith.compiler.ir.graph import Graph
from tensmith.compiler.pass_manager import Fixpoint
from tensmith.passes.layout.moved_weights import MovedWeights
from tensmith.passes.pipeline import SIMPLIFY

MOVED = Fixpoint((MovedWeights(), *SIMPLIFY))
TURN = "%t: f32[{n}, 3, 2, 4] = transpose(%x) {{perm = (0, 3, 1, 2)}}"
FLAT = "%f: f32[{n}, 24] = reshape(%t) {{shape = ({n}, 24)}}"


def weights(rows: int, seed: int = 0) -> str:
    """Text of a constant matrix of two columns."""
    values = np.random.default_rng(seed).normal(size=2 * rows).astype(np.float32)
    return f"const %w: f32[{rows}, 2] = [{', '.join(map(str, values))}]"


def flattened(n: str, between: str = "", last: str = "%f") -> Graph:
    """flattened(transpose(x)) W, rewritten."""
    lines = [TURN.format(n=n), FLAT.format(n=n), *([between] if between else [])]
    lines.append(f"%y: f32[{n}, 2] = matmul({last}, %w)")
    return rewritten(body(f"%x: f32[{n}, 2, 4, 3]", lines, weights(24)), MOVED)


@pytest.mark.parametrize("n", ["1", "3", "n"])
def test_a_picture_is_flattened_as_it_lies(n: str) -> None:
    assert count(flattened(n)) == {"reshape": 1, "matmul": 1}


def test_what_is_between_stays_between() -> None:
    graph = flattened("n", "%g: f32[n, 24] = tanh(%f)", "%g")
    assert count(graph) == {"reshape": 1, "tanh": 1, "matmul": 1}


def test_operands_with_elements_of_their_own_are_in_the_way() -> None:
    lines = [TURN.format(n=2), FLAT.format(n=2), "%g: f32[2, 24] = mul(%f, %s)"]
    lines.append("%y: f32[2, 2] = matmul(%g, %w)")
    graph = rewritten(body("%x: f32[2, 2, 4, 3], %s: f32[24]", lines, weights(24)), MOVED)
    assert count(graph)["transpose"] == 1


@pytest.mark.parametrize(
    "turned",
    [
        "%t: f32[3, 2, 4] = transpose(%x) {perm = (2, 0, 1)}",  # rows are moved themselves
        "%t: f32[2, 3, 4] = transpose(%x) {perm = (0, 2, 1)}",  # a row is a part of two
    ],
)
def test_what_is_no_whole_row_stays_turned(turned: str) -> None:
    lines = [
        turned,
        "%f: f32[3, 8] = reshape(%t) {shape = (3, 8)}",
        "%y: f32[3, 2] = matmul(%f, %w)",
    ]
    graph = rewritten(body("%x: f32[2, 4, 3]", lines, weights(8)), MOVED)
    assert count(graph)["transpose"] == 1


def test_sums_that_become_numbers_of_places_keep_their_order() -> None:
    lines = [TURN.format(n=2), FLAT.format(n=2), "%p: f32[2, 2] = matmul(%f, %w)"]
    lines.append("%y: i64[2, 2] = cast(%p) {dtype = !i64}")
    graph = rewritten(body("%x: f32[2, 2, 4, 3]", lines, weights(24)), MOVED)
    assert count(graph)["transpose"] == 1


def test_two_products_of_one_picture_share_it() -> None:
    lines = [TURN.format(n="n"), FLAT.format(n="n"), "%p: f32[n, 2] = matmul(%f, %w)"]
    lines += ["%q: f32[n, 2] = matmul(%f, %v)", "%y: f32[n, 2] = add(%p, %q)"]
    constants = weights(24) + "\n" + weights(24, 1).replace("%w", "%v")
    graph = rewritten(body("%x: f32[n, 2, 4, 3]", lines, constants), MOVED)
    assert count(graph) == {"reshape": 1, "matmul": 2, "add": 1}
