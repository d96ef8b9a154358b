"""The rewriting toolkit."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import body, count

from tensmith.compiler.errors import InternalError
from tensmith.compiler.ir import Node, constant
from tensmith.compiler.ir.dims import symbol
from tensmith.compiler.ir.ops.registry import Trait
from tensmith.compiler.ir.rewrite import (
    Replacement,
    Rewriter,
    Rules,
    attribute_symbols,
    bind_symbols,
    rewrite,
    scalar,
    use_counts,
)
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.ir.verify import verify

CHAIN = body("%x: f32[n]", ["%a: f32[n] = exp(%x)", "%b: f32[n] = neg(%a)", "%y: f32[n] = neg(%b)"])


def test_rules_select_by_name_trait_or_all() -> None:
    rules = Rules()
    rules.on("exp")(lambda node, rw: None)
    rules.on(Trait.POINTWISE)(lambda node, rw: None)
    rules.on()(lambda node, rw: None)
    assert [len(rules.of(op)) for op in ("exp", "neg", "matmul")] == [3, 2, 1]


def test_emitted_nodes_are_rewritten_too() -> None:
    rules = Rules()

    @rules.on("neg")
    def minus(node: Node, rw: Rewriter) -> Replacement:
        return rw.emit("mul", [node.inputs[0], constant(np.float32(-1))])

    @rules.on("mul")
    def once(node: Node, rw: Rewriter) -> Replacement:
        inner = rw.sole(node.inputs[0], "mul")
        return inner.inputs[0] if inner is not None else None

    graph = parse_graph(CHAIN)
    assert rewrite(graph, rules)
    verify(graph)
    assert graph.outputs[0].name == "y"
    assert not any(node.op == "neg" for node in graph.nodes)


def test_sole_and_producer_know_users_and_scopes() -> None:
    text = body(
        "%x: f32[n], %c: bool[]",
        [
            "%a: f32[n] = exp(%x)",
            "%y: f32[n] = if(%c) [",
            '  graph "then"() {',
            "    %t: f32[n] = neg(%a)",
            "    return %t",
            "  }",
            '  graph "else"() {',
            "    return %a",
            "  }",
            "]",
        ],
    )
    graph = parse_graph(text)
    seen = []
    rules = Rules()

    @rules.on("neg")
    def look(node: Node, rw: Rewriter) -> Replacement:
        seen.append((rw.uses(node.inputs[0]), rw.producer(node.inputs[0])))
        return None

    assert not rewrite(graph, rules)
    assert seen == [(2, None)]
    assert use_counts(graph)[graph.nodes[0].output] == 2


def test_wrong_replacements_are_refused() -> None:
    graph = parse_graph(CHAIN)
    rules = Rules()
    rules.on("exp")(lambda node, rw: constant(np.float64(1)))
    with pytest.raises(InternalError, match="a rule replaced"):
        rewrite(graph, rules)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(np.float32(2), 2.0), (np.full((3, 1), 7), 7), (np.array([1, 2]), None), (np.ones(300), None)],
)
def test_scalar(data: object, expected: object) -> None:
    assert scalar(constant(data)) == expected


def test_symbols_are_bound_everywhere() -> None:
    graph = parse_graph(body("%x: f32[n, m]", "%y: f32[n*m] = reshape(%x) {shape = (n*m,)}"))
    assert attribute_symbols(graph.nodes[0].attrs["shape"]) == {"n", "m"}
    bind_symbols(graph, {"n": symbol("m") + 1, "m": 3})
    assert graph.inputs[0].shape == (4, 3)
    assert graph.nodes[0].attrs["shape"] == (12,)
    assert graph.outputs[0].shape == (12,)
    verify(graph)
    with pytest.raises(InternalError, match="bound to each other"):
        bind_symbols(graph, {"m": symbol("m") + 1})


def test_equal_branches_need_no_symbol() -> None:
    lines = [
        '%a: f32[k] = if(%c) {bound = ("k",)} [',
        '  graph "then"() {',
        "    %t: f32[n] = exp(%x)",
        "    return %t",
        "  }",
        '  graph "else"() {',
        "    %e: f32[m] = exp(%z)",
        "    return %e",
        "  }",
        "]",
        "%y: f32[k] = neg(%a)",
    ]
    graph = parse_graph(body("%x: f32[n], %z: f32[m], %c: bool[]", lines))
    bind_symbols(graph, {"n": 4, "m": 4})
    verify(graph)
    assert graph.nodes[0].attrs["bound"] == ()
    assert graph.outputs[0].shape == (4,)
    assert count(graph)["exp"] == 2
