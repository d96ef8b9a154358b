"""Small graphs for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, Node, TensorType, Value
from tensmith.compiler.ir.ops.registry import make_node

Array = np.ndarray[Any, Any]


def value(*shape: Any, dtype: DType = DType.F32, name: str = "x") -> Value:
    """A value that nothing produces."""
    return Value(TensorType(dtype, shape), name)


def single(op: str, arrays: list[Array], attrs: dict[str, Any], outputs: int = 1) -> Graph:
    """A graph of one node whose inputs have the types of the arrays."""
    inputs = [
        value(*array.shape, dtype=DType.of(array.dtype), name=f"x{i}")
        for i, array in enumerate(arrays)
    ]
    node = make_node(op, inputs, attrs)
    for i, result in enumerate(node.outputs):
        result.name = f"y{i}"
    return Graph(inputs, node.outputs, [node])


def evaluate(op: str, *arrays: Any, **attrs: Any) -> Array:
    """Run one operator through the reference backend, which also checks the inferred type."""
    given = [np.asarray(array) for array in arrays]
    graph = single(op, given, attrs)
    return run_graph(graph, {f"x{i}": array for i, array in enumerate(given)})["y0"]


def chain() -> tuple[Graph, list[Node]]:
    """x -> neg -> exp -> y."""
    x = value(2, 3)
    first = make_node("neg", [x])
    second = make_node("exp", [first.output])
    second.output.name = "y"
    return Graph([x], [second.output], [first, second]), [first, second]
