"""Every operator case, before any backend: it is well formed, runs, and survives its text."""

from __future__ import annotations

import numpy as np
import pytest
from suites.cases import ALL_CASES, Case

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.ops.registry import all_ops
from tensmith.compiler.ir.ops.segment import INVOKE, SEGMENT
from tensmith.compiler.ir.text import parse_graph, print_graph, structurally_equal
from tensmith.compiler.ir.verify import verify


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    graph = case.graph()
    verify(graph)
    inputs = case.inputs(seed=1)
    results = run_graph(graph, inputs)
    assert list(results) == [value.name for value in graph.outputs]
    text = print_graph(graph, full=True)
    again = parse_graph(text)
    verify(again)
    assert structurally_equal(graph, again)
    assert print_graph(again, full=True) == text
    for name, array in run_graph(again, inputs).items():
        np.testing.assert_array_equal(array, results[name])


def test_every_operator_has_a_case() -> None:
    used = {node.op for case in ALL_CASES for node in case.graph().walk()}
    assert used == set(all_ops()) - {SEGMENT, INVOKE}  # which backends make, of their own devices


def test_case_names_are_distinct() -> None:
    names = [case.name for case in ALL_CASES]
    assert len(set(names)) == len(names)


def test_cases_repeat() -> None:
    for case in ALL_CASES[::40]:
        assert structurally_equal(case.graph(), case.graph())
        first, second, other = case.inputs(3), case.inputs(3), case.inputs(4)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
            assert first[name].shape == other[name].shape
