"""Checks of passes: graphs as text before and after, and what they compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from suites.case import draw

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph, TensorType
from tensmith.compiler.ir.dims import evaluate, symbols_of
from tensmith.compiler.ir.text import parse_graph, print_graph, structurally_equal
from tensmith.compiler.pass_manager import Fixpoint, Pass, run_passes

Array = np.ndarray[Any, Any]
SIZE = 5  # what symbols are unless a test says


def inputs_for(graph: Graph, seed: int = 0, **sizes: int) -> dict[str, Array]:
    """Random inputs by name, positive and negative floats, small integers."""
    rng = np.random.default_rng(seed)
    found = {}
    for value in graph.inputs:
        names = set().union(*(symbols_of(dim) for dim in value.shape))
        env = {name: sizes.get(name, SIZE) for name in names}
        shape = tuple(evaluate(dim, env) for dim in value.shape)
        found[value.name] = draw(rng, TensorType(value.dtype, shape), -2, 3)
    return found


def same_results(
    want: Mapping[str, Array], got: Mapping[str, Array], rtol: float = 2e-5, atol: float = 2e-5
) -> None:
    """Raise AssertionError unless both have the same outputs, up to rounding."""
    assert list(want) == list(got)
    for name in want:
        assert want[name].dtype == got[name].dtype
        np.testing.assert_allclose(
            got[name].astype(np.float64),
            want[name].astype(np.float64),
            rtol=rtol,
            atol=atol,
            err_msg=name,
            strict=True,
        )


def rewritten(before: str, *passes: Pass | Fixpoint) -> Graph:
    """The graph after the passes; checks that it computes what it did."""
    graph = parse_graph(before)
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, passes)
    same_results(want, run_graph(graph, inputs))
    return graph


def check(before: str, after: str, *passes: Pass | Fixpoint) -> None:
    """The passes turn the one graph into the other, and a second run changes nothing."""
    graph = rewritten(before, *passes)
    expected = parse_graph(after)
    if not structurally_equal(graph, expected):
        raise AssertionError(f"{print_graph(graph)}\nis not\n\n{print_graph(expected)}")
    assert not run_passes(graph, passes)


def body(inputs: str, lines: Sequence[str] | str, constants: str = "") -> str:
    """The text of a graph from its parts; the last line's value is the output `y`."""
    nodes = [lines] if isinstance(lines, str) else list(lines)
    text = "\n  ".join(nodes)
    return f'{constants}\ngraph "g"({inputs}) {{\n  {text}\n  return %y\n}}\n'


def count(graph: Graph) -> Counter[str]:
    """How often each operator is in the graph and its regions."""
    return Counter(node.op for node in graph.walk())
