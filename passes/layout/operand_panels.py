"""Matrix products of two run-time operands: the right one in panels, as constants are packed.

A register tile reads a few columns of every row of the right operand. Where its rows lie apart,
those columns fall into few sets of the first-level cache and do not stay in it. With many rows on
the left, copying it to panels of such columns, one row after the other, costs less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ...compiler.ir.dims import Dim, product
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar

MIN_ROWS = 32  # fewer read the operand too few times to pay for a copy
MAX_WASTE = 1.06  # of columns that are added to fill the last panel


@dataclass(frozen=True)
class OperandPanels:
    """a[.., M, K] b[.., K, N] -> a[.., 1, M, K] panels(b)[.., N / width, K, width], put together.

    lanes: f32 elements of a vector register; panels are two of them wide (or one, where less is
    wasted), and at least a cache line.
    """

    lanes: int
    name: str = "operand_panels"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether any product was."""
        rules = Rules()
        rules.on("matmul")(partial(_in_panels, lanes=self.lanes))
        rules.on("transpose")(_one_transpose)
        return rewrite(graph, rules)


def many_rows(node: Node) -> bool:
    """Whether a product reads its right operand often enough to be worth a copy."""
    rows, depth = node.inputs[0].shape[-2:] if node.inputs[0].type.rank > 1 else (1, 1)
    return rows >= MIN_ROWS if isinstance(rows, int) else rows == depth


def _in_panels(node: Node, rw: Rewriter, lanes: int) -> Replacement:
    a, b = node.inputs
    if min(a.type.rank, b.type.rank) < 2 or b.is_constant:
        return None
    if not b.dtype.is_float and not node.attrs["product"]:
        return None
    columns = b.shape[-1]
    if not isinstance(columns, int) or not many_rows(node) or _is_panels(b, rw):
        return None
    width = _width(columns, lanes)
    if columns < 2 * width:
        return None
    flipped = rw.sole(b, "bitxor")
    if flipped is not None and scalar(flipped.inputs[1]) is None:
        flipped = None
    if flipped is not None:
        b = flipped.inputs[0]  # done with what the copy stores
    missing = -columns % width
    if missing:
        pads = (0,) * (2 * b.type.rank - 1) + (missing,)
        b = rw.emit("pad", [b], {"pads": pads, "mode": "constant"})
    count, rank = (columns + missing) // width, b.type.rank
    b = rw.emit("reshape", [b], {"shape": (*b.shape[:-1], count, width)})
    b = rw.emit("transpose", [b], {"perm": _panels_swapped(rank + 1)})
    if flipped is not None:
        b = rw.emit("bitxor", [b, flipped.inputs[1]])
    a = rw.emit("reshape", [a], {"shape": (*a.shape[:-2], 1, *a.shape[-2:])})
    result = rw.emit("matmul", [a, b], node.attrs)
    rank = result.type.rank
    result = rw.emit("transpose", [result], {"perm": _panels_swapped(rank)})
    result = rw.emit("reshape", [result], {"shape": (*result.shape[:-2], columns + missing)})
    if not missing:
        return result
    return rw.emit(
        "slice",
        [result],
        {
            "starts": (0,) * (rank - 1),
            "stops": (*result.shape[:-1], columns),
            "steps": (1,) * (rank - 1),
        },
    )


def _panels_swapped(rank: int) -> tuple[int, ...]:
    """[.., K, panel, width] <-> [.., panel, K, width]."""
    return (*range(rank - 3), rank - 2, rank - 3, rank - 1)


def _width(columns: int, lanes: int) -> int:
    wide, narrow = max(16, 2 * lanes), max(16, lanes)
    filled = {width: -(-columns // width) * width for width in (wide, narrow)}
    return wide if filled[wide] <= MAX_WASTE * filled[narrow] else narrow


def _is_panels(b: Value, rw: Rewriter) -> bool:
    """Whether the operand is what this pass made: panels, one after the other."""
    flipped = rw.producer(b, "bitxor")
    node = rw.producer(flipped.inputs[0] if flipped else b, "transpose")
    return node is not None and bool(node.attrs["perm"] == _panels_swapped(b.type.rank))


def _one_transpose(node: Node, rw: Rewriter) -> Replacement:
    """transpose(reshape(transpose(panels of columns))) with the columns last: one transpose."""
    view = rw.sole(node.inputs[0], "reshape")
    inner = rw.sole(view.inputs[0], "transpose") if view else None
    made = rw.sole(inner.inputs[0], "matmul") if inner else None
    perm = node.attrs["perm"]
    if view is None or inner is None or made is None or perm[-1] != len(perm) - 1:
        return None
    apart = inner.output
    first = inner.attrs["perm"]
    merged: tuple[Dim, ...] = (*apart.shape[:-2], product(apart.shape[-2:]))
    if first != _panels_swapped(apart.type.rank) or view.output.shape != merged:
        return None
    moved = rw.emit(
        "transpose", [made.output], {"perm": (*(first[i] for i in perm[:-1]), *first[-2:])}
    )
    return rw.emit("reshape", [moved], {"shape": node.output.shape})
