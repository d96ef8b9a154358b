"""Observers: what is to be known of tensors, as operators behind them.

They are compiled as everything else is, and a run hands out a few numbers for each tensor, however
large that is.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...compiler.ir.dims import product
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import make_node
from ...compiler.ir.types import DType

LOW, HIGH, SQUARE, MEAN, SAMPLE, NOISE = "low", "high", "square", "mean", "sample", "noise"
LOWS, HIGHS = "lows", "highs"
MOMENTS = "moments"
SAMPLED = 1 << 16  # elements of a tensor, roughly
_STATISTICS = ((LOW, "reduce_min"), (HIGH, "reduce_max"))
_OF_CHANNELS = ((MEAN, "reduce_mean"), (LOWS, "reduce_min"), (HIGHS, "reduce_max"))


def observed(name: str, what: str) -> str:
    """The name of the output that says something of a tensor."""
    return f"{name}:{what}"


class _Behind:
    """Adds operators at the end of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def emit(self, op: str, inputs: Sequence[Value], **attrs: object) -> Value:
        node: Node = make_node(op, inputs, attrs)
        self.graph.nodes.append(node)
        return node.output

    def give(self, value: Value, name: str) -> None:
        value.name = name
        self.graph.outputs.append(value)


def observe(graph: Graph, kept: int, channels: Sequence[int | None]) -> None:
    """Outputs behind the first `kept` become what is to be known of them: for every f32 tensor the
    mean of the squares; the least and greatest element, and the mean, of each channel where
    `channels` (one entry for each such output) says which axis the channels are; the least and
    greatest of all elements where it says None."""
    tensors, behind = graph.outputs[kept:], _Behind(graph)
    del graph.outputs[kept:]
    for value, axis in zip(tensors, channels, strict=True):
        name, every = value.name, tuple(range(value.type.rank))
        x = value if value.dtype is DType.F32 else behind.emit("cast", [value], dtype=DType.F32)
        square = behind.emit("mul", [x, x])
        mean = behind.emit("reduce_mean", [square], axes=every, keepdims=False)
        behind.give(mean, observed(name, SQUARE))
        rank = value.type.rank
        others = every if axis is None else tuple(a for a in every if a != axis % rank)
        for what, op in _STATISTICS if axis is None else _OF_CHANNELS:
            behind.give(behind.emit(op, [x], axes=others, keepdims=False), observed(name, what))


def sample(graph: Graph, kept: int) -> None:
    """Outputs behind the first `kept` become vectors of some of their elements, evenly chosen."""
    tensors, behind = graph.outputs[kept:], _Behind(graph)
    del graph.outputs[kept:]
    for value in tensors:
        name, count = value.name, product(value.shape)
        x = behind.emit("reshape", [value], shape=(count,))
        step = count // SAMPLED | 1 if isinstance(count, int) else 1
        if step > 1:
            x = behind.emit("slice", [x], starts=(0,), stops=(count,), steps=(step,))
        elif value.type.rank == 1:
            x = behind.emit("reshape", [x], shape=(count,))
        behind.give(x, observed(name, SAMPLE))


def compare(graph: Graph) -> None:
    """Pairs of outputs become, of the first of each, the mean of its squares and that of the
    squares of the differences."""
    tensors, behind = graph.outputs, _Behind(graph)
    graph.outputs = []
    for exact, real in zip(tensors[::2], tensors[1::2], strict=True):
        name, every = exact.name, tuple(range(exact.type.rank))
        difference = behind.emit("sub", [real, exact])
        for value, what in ((exact, SQUARE), (difference, NOISE)):
            square = behind.emit("mul", [value, value])
            mean = behind.emit("reduce_mean", [square], axes=every, keepdims=False)
            behind.give(mean, observed(name, what))


def multiply(graph: Graph, kept: int) -> None:
    """Outputs behind the first `kept` become sums over rows x (the last axis) of x times its
    transpose."""
    tensors, behind = graph.outputs[kept:], _Behind(graph)
    del graph.outputs[kept:]
    for value in tensors:
        x = value if value.dtype is DType.F32 else behind.emit("cast", [value], dtype=DType.F32)
        rows = behind.emit("reshape", [x], shape=(product(value.shape[:-1]), value.shape[-1]))
        columns = behind.emit("transpose", [rows], perm=(1, 0))
        moments = behind.emit("matmul", [columns, rows], accumulate=None)
        behind.give(moments, observed(value.name, MOMENTS))
