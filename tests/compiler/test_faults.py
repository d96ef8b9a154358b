"""Errors inside the compiler name what was being worked on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from rewriting import body

from tensmith.compiler.errors import InternalError
from tensmith.compiler.faults import internal_error, name_at_fault
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.graph import Node
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import run_passes


@dataclass(frozen=True)
class Stumbles:
    """Fails on the first node of an operator, in a function that holds it."""

    op: str
    name: str = "stumbles"

    def run(self, graph: Graph) -> bool:
        for node in graph.nodes:
            self.visit(node)
        return False

    def visit(self, node: Node) -> None:
        if node.op == self.op:
            raise KeyError("lost")


def _graph() -> Graph:
    graph = parse_graph(body("%x: f32[n]", ["%a: f32[n] = exp(%x)", "%y: f32[n] = neg(%a)"]))
    for node, name in zip(graph.nodes, ("first", ""), strict=True):
        node.name = name
    return graph


def _failure(op: str) -> InternalError:
    with pytest.raises(InternalError) as caught:
        run_passes(_graph(), [Stumbles(op)])
    return caught.value


def test_any_error_of_a_pass_names_pass_and_node() -> None:
    error = _failure("exp")
    assert error.what == "pass 'stumbles' broke the graph"
    assert error.where == "exp 'first' (f32[n])"
    assert error.why == "KeyError: 'lost'"
    assert name_at_fault(error) == "first"


def test_nodes_that_passes_made_have_no_name() -> None:
    error = _failure("neg")
    assert error.where == "neg '' (f32[n])"
    assert name_at_fault(error) == ""


def test_an_error_says_its_own_place() -> None:
    found = internal_error("it failed", InternalError("no form", where="here", why="too wide"))
    assert (found.where, found.why) == ("here", "no form: too wide")
