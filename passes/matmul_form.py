"""Matrix products in their plainest form: two-dimensional where one matrix meets all rows."""

from __future__ import annotations

from dataclasses import dataclass

from ..compiler.ir.dims import product
from ..compiler.ir.graph import Graph, Node, Value
from ..compiler.ir.ops.registry import Trait
from ..compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite

RULES = Rules()


@dataclass(frozen=True)
class MatmulForm:
    """matmul(x[.., K], w[K, N]) -> matmul of [rows, K] by [K, N]; the reshape that restores the
    shape moves behind what follows row by row (bias, activation, normalisation)."""

    name: str = "matmul_form"

    def run(self, graph: Graph) -> bool:
        """Flatten; whether anything was."""
        return rewrite(graph, RULES)


@RULES.on("matmul")
def two_dimensional(node: Node, rw: Rewriter) -> Replacement:
    """Leading axes of the left operand become rows, those of size 1 of the right one go."""
    a, b = node.inputs
    if a.type.rank == 2 and b.type.rank == 2:
        return None
    if any(dim != 1 for dim in b.shape[:-2]):
        return None
    rows = rw.emit("reshape", [a], {"shape": (product(a.shape[:-1]), a.shape[-1])})
    matrix = rw.emit("reshape", [b], {"shape": b.shape[-2:]})
    flat = rw.emit("matmul", [rows, matrix])
    return rw.emit("reshape", [flat], {"shape": node.output.shape})


def _rows(value: Value, rw: Rewriter) -> Value | None:
    """The [rows, N] tensor that the value is a reshape of with N as the last axis too."""
    view = rw.producer(value, "reshape")
    if view is None:
        return None
    source = view.inputs[0]
    same = source.type.rank == 2 and value.type.rank > 2 and source.shape[1] == value.shape[-1]
    return source if same else None


def _by_column(value: Value) -> bool:
    """Whether the value is the same for all rows."""
    return all(dim == 1 for dim in value.shape[:-1])


@RULES.on(Trait.POINTWISE)
def pointwise_by_rows(node: Node, rw: Rewriter) -> Replacement:
    """f(reshape(y), c) -> reshape(f(y, c)) where y are rows and c is the same for all of them"""
    shape = node.output.shape
    rows = [_rows(value, rw) if value.shape == shape else None for value in node.inputs]
    flat = next((source for source in rows if source is not None), None)
    if flat is None:
        return None
    operands: list[Value] = []
    for value, source in zip(node.inputs, rows, strict=True):
        if source is not None:
            operands.append(source)
        elif value.shape == shape:
            operands.append(rw.emit("reshape", [value], {"shape": flat.shape}))
        elif _by_column(value):
            column = value.shape[-1:]
            one_row = value.type.rank < 2
            operands.append(value if one_row else rw.emit("reshape", [value], {"shape": column}))
        else:
            return None
    result = rw.emit(node.op, operands, node.attrs)
    return rw.emit("reshape", [result], {"shape": shape})


@RULES.on("layer_norm", "softmax")
def normalisation_by_rows(node: Node, rw: Rewriter) -> Replacement:
    """The same for what works on each row by itself."""
    flat = _rows(node.inputs[0], rw)
    if flat is None or node.attrs["axis"] != node.output.type.rank - 1:
        return None
    result = rw.emit(node.op, [flat, *node.inputs[1:]], {**node.attrs, "axis": 1})
    return rw.emit("reshape", [result], {"shape": node.output.shape})
