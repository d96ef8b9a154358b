"""Whether what nodes compute for one row of a batch depends on other rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ....compiler.ir import Node, Value
from ....compiler.ir.dims import symbols_of
from ....compiler.ir.graph import captures


def mixing_node(
    made: Iterable[Value], before: Collection[Value], symbols: Collection[str]
) -> Node | None:
    """The node, of those that make values out of others `before` them, that sees rows together.

    Rows are along first axes whose sizes depend on the symbols; that they are along no other axis
    is for the caller to see to. Taking rows at places that are computed counts as seeing all.
    """
    waiting, seen = list(made), set(before)
    while waiting:
        value = waiting.pop()
        node = value.producer
        if node is None or value in seen:
            continue
        seen.update(node.outputs)
        found = next((n for n in _with_inner(node) if _sees_rows(n, set(symbols))), None)
        if found is not None:
            return found
        waiting += node.inputs
        for region in node.regions:
            waiting += captures(region)
    return None


def _with_inner(node: Node) -> Iterable[Node]:
    yield node
    for region in node.regions:
        yield from region.walk()


def _sees_rows(node: Node, symbols: set[str]) -> bool:
    """Whether a node goes along the rows of what it reads."""
    attrs = node.attrs
    if node.op == "scan":  # steps that hand on a state see those before them
        return attrs["num_state"] > 0 and bool(symbols_of(attrs["trip"]) & symbols)
    read = node.inputs if node.op == "concat" else node.inputs[:1]
    rows = [v for v in read if v.shape and symbols_of(v.shape[0]) & symbols]
    if not rows:
        return False
    rank = rows[0].type.rank
    axes = [attrs["axis"]] if "axis" in attrs else attrs.get("axes", ())
    if 0 in (axis % rank for axis in axes):
        return True
    if node.op == "slice":
        part = attrs["starts"][0], attrs["stops"][0], attrs["steps"][0]
        return part != (0, rows[0].shape[0], 1)
    if node.op == "pad":
        return (attrs["pads"][0], attrs["pads"][rank]) != (0, 0)
    if node.op == "argsort":
        return rank == 1
    return node.op in _ALL_ROWS and not attrs.get("batch_dims")


_ALL_ROWS = ("gather_nd", "nms", "nonzero", "scatter_nd", "unique")
