"""Simplification of control flow and of shapes known at compile time."""

from __future__ import annotations

from ....compiler.ir.dims import Dim
from ....compiler.ir.graph import Graph, Node, Value
from ....compiler.ir.ops.control import symbol_name
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules, scalar

RULES = Rules()


@RULES.on("if")
def constant_condition(node: Node, rw: Rewriter) -> Replacement:
    """An `if` with a constant condition is the branch that it takes."""
    taken = scalar(node.inputs[0])
    if taken is None:
        return None
    region = node.regions[0 if taken else 1]
    results = rw.inline(region, [])
    rw.bind(_dims_bound(node, results))
    return results


def _dims_bound(node: Node, results: list[Value]) -> dict[str, Dim]:
    bound: dict[str, Dim] = {}
    for old, new in zip(node.outputs, results, strict=True):
        for dim, actual in zip(old.shape, new.shape, strict=True):
            name = symbol_name(dim)
            if name in node.attrs["bound"]:
                bound[str(name)] = actual
    return bound


@RULES.on("read_dims")
def known_dims(node: Node, rw: Rewriter) -> Replacement:
    """Symbols read from constants, or from dims, are those."""
    x = node.inputs[0]
    source = rw.producer(x, "dims")
    values: list[Dim]
    if x.data is not None:
        values = [int(item) for item in x.data]
    elif source is not None:
        values = list(source.attrs["values"])
    else:
        return None
    rw.bind(dict(zip(node.attrs["symbols"], values, strict=True)))
    return []


@RULES.on("scan")
def single_step(node: Node, rw: Rewriter) -> Replacement:
    """A scan of one step is its region."""
    if node.attrs["trip"] != 1:
        return None
    region: Graph = node.regions[0]
    states = int(node.attrs["num_state"])
    arguments = list(node.inputs[:states])
    for value in node.inputs[states:]:
        arguments.append(rw.emit("reshape", [value], {"shape": value.shape[1:]}))
    results = rw.inline(region, arguments)
    stacked = [rw.emit("reshape", [v], {"shape": (1, *v.shape)}) for v in results[states:]]
    return results[:states] + stacked
