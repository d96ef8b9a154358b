"""Products with constants that have blocks of zeros, as structured pruning leaves them.

Columns are taken together in panels as wide as a register tile. Of each panel the rows that are
zero in all its columns are left out: what it multiplies by are its own rows, and the channels of
the other operand that meet them, which an index says. All panels keep as many rows as the one that
has most.

A weight of zero times NaN or infinity is taken as zero, as for dead channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.graph import Graph, Node, constant
from ...compiler.ir.ops.registry import Array
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType
from ...compiler.kernel.cost.tile_cycles import step_cycles
from ...compiler.target import CpuTarget, Target
from .work import elements, operations

_MOST_ROWS, _MOST_VECTORS = 14, 4  # of a register tile
_LEAST_DEPTH = 32  # of a sum: of shorter ones the results are what takes time
# of the estimated cycles of the dense product, from which on it pays: a panel's rows and their
# index come besides, which no model of cycles has
_MOST_SHARE = 0.8


@dataclass(frozen=True)
class ZeroBlocks:
    """x[.., K] @ constant[K, N] -> for each panel of columns, its channels of x by its rows.

    Expects channels-last convolutions, of which it takes those that are products. target: whose
    registers decide; None, or one that is no CPU: nothing changes. told: hears of it.
    """

    target: Target | None = None
    told: Told | None = None
    name: str = "zero_blocks"

    def run(self, graph: Graph) -> bool:
        """Leave out blocks of zeros; whether there were any worth it."""
        target = self.target
        if not isinstance(target, CpuTarget) or target.lanes(32) < 4:
            return False
        rules = Rules()
        rules.on("matmul", "conv")(lambda node, rw: self._in_panels(node, rw, target))
        return rewrite(graph, rules)

    def _in_panels(self, node: Node, rw: Rewriter, target: CpuTarget) -> Replacement:
        w = _matrix(node)
        if w is None or not rw.may_round(node.output):
            return None
        rows = int(min(_MOST_ROWS, max(1.0, elements(node.output.shape[:-1]))))
        found = best_panels(w, rows, target)
        if found is None:
            return None
        x, _, *bias = node.inputs
        panels, kept, width = found.weights.shape
        attrs = {"axis": x.type.rank - 1, "within": True}
        read = rw.emit("gather", [x, constant(found.channels)], attrs)
        read = rw.emit("reshape", [read], {"shape": (*x.shape[:-1], panels, 1, kept)})
        made = rw.emit("matmul", [read, constant(found.weights, node.inputs[1].name)])
        for value in bias:
            assert value.data is not None
            shift = constant(value.data.reshape(panels, 1, width), value.name)
            made = rw.emit("add", [made, shift])
        if self.told:
            before = operations(node)
            share = panels * kept * width / w.size
            why = f"of each {width} columns of its weights {kept} of {w.shape[0]} rows are not zero"
            self.told(Saving("zero_blocks", node.name, node.op, before, before * share, why))
        return rw.emit("reshape", [made], {"shape": node.output.shape})


@dataclass(frozen=True)
class Panels:
    """channels: i32[panels, kept], in ascending order. weights: [panels, kept, width]."""

    channels: Array
    weights: Array


def best_panels(w: Array, rows: int, target: CpuTarget) -> Panels | None:
    """The panels of a matrix [K, N] that take the fewest estimated cycles; None where leaving out
    zeros does not pay. rows: that share a panel, up to those of a tile."""
    depth, columns = w.shape
    live = w != 0
    if depth < _LEAST_DEPTH or not columns or live.mean() > _MOST_SHARE:
        return None
    lanes = target.lanes(32)
    least = (
        _MOST_SHARE
        * depth
        * min(_column_cycles(rows, vectors, target) for vectors in range(1, _MOST_VECTORS + 1))
    )
    best = None
    for vectors in range(1, _MOST_VECTORS + 1):
        width = vectors * lanes
        if columns % width or columns == width:
            continue
        meets = live.reshape(depth, columns // width, width).any(axis=2)
        kept = max(1, int(meets.sum(axis=0).max()))
        cycles = kept * _column_cycles(rows, vectors, target, indexed=True)
        if cycles < least:
            best, least = (meets, kept, width), cycles
    return None if best is None else _panels(w, *best)


def _panels(w: Array, meets: Array, kept: int, width: int) -> Panels:
    """The rows that each panel meets, filled up with others, which are zero."""
    first = np.argsort(~meets, axis=0, kind="stable")[:kept]
    channels = np.sort(first, axis=0).T
    split = w.reshape(w.shape[0], -1, width).transpose(1, 0, 2)
    chosen = np.take_along_axis(split, channels[..., None], axis=1)
    return Panels(channels.astype(np.int32), np.ascontiguousarray(chosen))


def _column_cycles(most: int, vectors: int, target: CpuTarget, indexed: bool = False) -> float:
    """Cycles of one step of a sum for one vector of one row, in the best tile so wide."""
    fitting = [r for r in range(1, most + 1) if r * vectors + vectors < target.vector_registers]
    return min(
        step_cycles(r * vectors, r + vectors + indexed, r, 0, target) / (r * vectors)
        for r in fitting
    )


def _matrix(node: Node) -> Array | None:
    """The constant matrix [channels in, channels out] that a node multiplies by, if it does no
    more than that, and add a constant."""
    w = node.inputs[1]
    if w.data is None or node.attrs.get("accumulate") or node.attrs.get("product"):
        return None
    if not (node.inputs[0].dtype is w.dtype is node.output.dtype is DType.F32):
        return None
    if node.inputs[0].is_constant:
        return None
    if node.op == "matmul":
        return w.data if w.type.rank == 2 and node.inputs[0].type.rank > 1 else None
    attrs, taps = node.attrs, w.shape[:-2]
    plain = all(n == 1 for n in (*taps, *attrs["strides"])) and not any(attrs["pads"])
    if attrs["layout"] != "NHWC" or attrs["groups"] != 1 or not plain:
        return None
    if not all(value.is_constant for value in node.inputs[2:]):
        return None
    return w.data.reshape(w.data.shape[-2:])
