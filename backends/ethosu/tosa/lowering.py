"""Graphs of integers as TOSA operators: one function for every core operator.

Functions are registered by `@lowers`. Sums are made of bytes less their zero points in the graph;
TOSA takes the bytes and the zero point, so that what widens them is left out in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ....compiler.errors import InternalError
from ....compiler.ir.graph import Graph, Node, Value
from ....compiler.ir.rewrite import scalar
from ....compiler.ir.types import DType
from .graph import Array, Operator, Tensor, TosaGraph
from .schema import ElementType, Op

TYPES = {
    DType.BOOL: ElementType.BOOL,
    DType.I8: ElementType.INT8,
    DType.I16: ElementType.INT16,
    DType.I32: ElementType.INT32,
}
Lower = Callable[["Lowering", Node], Tensor]
_LOWER: dict[str, Lower] = {}


def lowers(*ops: str) -> Callable[[Lower], Lower]:
    """Decorator: what makes the result of core operators."""

    def add(function: Lower) -> Lower:
        _LOWER.update(dict.fromkeys(ops, function))
        return function

    return add


def is_lowered(op: str) -> bool:
    """Whether there is a way to make the results of a core operator."""
    return op in _LOWER


class Lowering:
    """The TOSA graph of a region, as it grows."""

    def __init__(self) -> None:
        self.graph = TosaGraph()
        self._tensors: dict[Value, Tensor] = {}

    def tensor(self, value: Value) -> Tensor:
        """What stands for a value."""
        if value.data is not None:
            return self.graph.constant(value.data, TYPES[value.dtype])
        return self._tensors[value]

    def region(self, region: Graph) -> TosaGraph:
        """Lower a region whole. Raises InternalError for an operator that nothing lowers."""
        for value in region.inputs:
            self._tensors[value] = self.graph.input(_shape(value.shape), TYPES[value.dtype])
        for node in region.nodes:
            lower = _LOWER.get(node.op)
            if lower is None:
                raise InternalError(f"operator '{node.op}' has no form in TOSA")
            self.graph.location = node.name
            made = lower(self, node)
            self._tensors[node.output] = self.graph.reshape(made, _shape(node.output.shape))
        for value in region.outputs:
            self.graph.output(self.tensor(value))
        self.graph.operators = _needed(self.graph)
        return self.graph

    def emit(
        self, op: Op, inputs: Sequence[Tensor], shape: Sequence[int], dtype: DType, **attrs: Any
    ) -> Tensor:
        """Append an operator; its result."""
        return self.graph.emit(op, inputs, shape, TYPES[dtype], **attrs)

    def narrow(self, value: Value) -> tuple[Tensor, int]:
        """(bytes or halves, zero point) of which an i32 is made; itself, and 0, for others."""
        source, zero = narrowed(value)
        return self.tensor(source), zero


def narrowed(value: Value) -> tuple[Value, int]:
    """(i8 or i16, zero point) of which an i32 is the difference; (value, 0) where it is none."""
    zero, source = 0, value
    while source.producer is not None and source.producer.op == "add":
        left, right = source.producer.inputs
        number = scalar(right)
        if number is None or left.shape != source.shape:
            break
        source, zero = left, zero - int(number)
    made = source.producer
    if made is None or made.op != "cast" or made.inputs[0].dtype not in (DType.I8, DType.I16):
        return value, 0
    fits = -128 <= zero <= 127 if made.inputs[0].dtype is DType.I8 else zero == 0
    return (made.inputs[0], zero) if fits else (value, 0)


def _shape(dims: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(dim) for dim in dims)


def _needed(graph: TosaGraph) -> list[Operator]:
    """The operators that outputs hang on, in order."""
    wanted = set(graph.outputs)
    kept: list[Operator] = []
    for operator in reversed(graph.operators):
        if operator.output in wanted:
            kept.append(operator)
            wanted.update(operator.inputs)
    return kept[::-1]


def as_bytes(data: Array) -> Array:
    """Constant weights as i8. Raises InternalError where they are none."""
    found = data.astype(np.int8)
    if (found != data).any():
        raise InternalError("weights that are no bytes")
    return found
