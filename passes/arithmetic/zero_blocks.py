"""Products with constants that have blocks of zeros, as structured pruning leaves them.

Columns are taken together in panels as wide as a register tile. Of each panel the rows that are
zero in all its columns are left out: what it multiplies by are its own rows, and the channels of
the other operand that meet them, which an index says. All panels keep as many rows as the one that
has most. Of convolutions with windows, groups of filters take the place of panels, and channels
that are zero in all taps that of rows: what a group reads is copied, and the convolution is one in
groups.

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
_PICTURE = 4  # axes of pictures, and of filters
_LEAST_DEPTH = 32  # of a sum: of shorter ones the results are what takes time
# of the estimated cycles of the dense product, from which on it pays: a panel's rows and their
# index come besides, which no model of cycles has
_MOST_SHARE = 0.8
# filters that take as long as a group's copy of what they read (one Zen 5 core: 3x3 windows of 64
# to 512 channels at 56x56 to 7x7 pixels, strides of 1 and 2, in groups of 16, 32 and 64 filters of
# which a half and three quarters are zero)
_COPY_FILTERS = 28
# what all copies may take of memory, in times of what the layer reads and makes: a layer that is
# sooner done is not worth more than two of the like beside it (chosen, not measured)
_MOST_COPIED = 2
_GROUPS, _CHANNELS = (32, 64, 128), 16  # filters of a group; what its channels are a multiple of


@dataclass(frozen=True)
class ZeroBlocks:
    """x[.., K] @ constant[K, N] -> for each panel of columns, its channels of x by its rows; a
    convolution with windows -> one in groups, of the channels that each group reads.

    Expects channels-last convolutions. target: whose registers decide; None, or one that is no CPU:
    nothing changes. told: hears of it.
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
        rules.on("conv")(self._in_groups)
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
        if any(step != 1 for step in node.attrs.get("strides", ())):
            steps = (1, *node.attrs["strides"], 1)
            x = rw.emit("slice", [x], {"starts": (0,) * 4, "stops": x.shape, "steps": steps})
        panels, kept, width = found.weights.shape
        attrs = {"axis": x.type.rank - 1, "within": True}
        read = rw.emit("gather", [x, constant(found.channels)], attrs)
        read = rw.emit("reshape", [read], {"shape": (*x.shape[:-1], panels, 1, kept)})
        made = rw.emit("matmul", [read, constant(found.weights, node.inputs[1].name)])
        for value in bias:
            assert value.data is not None
            shift = constant(value.data.reshape(panels, 1, width), value.name)
            made = rw.emit("add", [made, shift])
        self._tell(node, found)
        return rw.emit("reshape", [made], {"shape": node.output.shape})

    def _in_groups(self, node: Node, rw: Rewriter) -> Replacement:
        w = _filters(node)
        if w is None or not rw.may_round(node.output):
            return None
        x, _, *bias = node.inputs
        beside = elements(node.output.shape) / elements(x.shape)
        found = best_groups(w, _MOST_COPIED * (1 + beside))
        if found is None:
            return None
        taps, groups, kept, width = w.shape[:2], len(found.channels), found.kept, found.width
        index = constant(found.channels.reshape(-1))
        read = rw.emit("gather", [x, index], {"axis": 3, "within": True})
        split = found.weights.reshape(groups, *taps, kept, width).transpose(1, 2, 3, 0, 4)
        filters = np.ascontiguousarray(split.reshape(*taps, kept, groups * width))
        self._tell(node, found)
        made = constant(filters, node.inputs[1].name)
        return rw.emit("conv", [read, made, *bias], {**node.attrs, "groups": groups})

    def _tell(self, node: Node, found: Panels) -> None:
        if self.told:
            before, share = operations(node), found.kept / found.depth
            why = f"of each {found.width} columns of its weights {share:.0%} of the rows count"
            self.told(Saving("zero_blocks", node.name, node.op, before, before * share, why))


@dataclass(frozen=True)
class Panels:
    """channels: i32[panels, kept], in ascending order. weights: [panels, kept, width], of windows
    [panels, taps * kept, width]. depth: how many channels there were."""

    channels: Array
    weights: Array
    depth: int

    @property
    def kept(self) -> int:
        """Channels that a panel reads."""
        return int(self.channels.shape[1])

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return int(self.weights.shape[2])


def best_panels(w: Array, rows: int, target: CpuTarget) -> Panels | None:
    """The panels of a matrix [K, N] that take the fewest estimated cycles; None where leaving out
    zeros does not pay. rows: that share a panel, up to those of a tile."""
    depth, columns = w.shape
    live = w != 0
    if depth < _LEAST_DEPTH or not columns or live.mean() > _MOST_SHARE:
        return None
    wide = [n for n in range(1, _MOST_VECTORS + 1) if _rows_beside(n, rows, target)]
    least = _MOST_SHARE * depth * min(_column_cycles(rows, vectors, target) for vectors in wide)
    best = None
    for vectors in wide:
        width = vectors * target.lanes(32)
        if columns % width or columns == width:
            continue
        meets = live.reshape(depth, columns // width, width).any(axis=2)
        kept = max(1, int(meets.sum(axis=0).max()))
        cycles = kept * _column_cycles(rows, vectors, target, indexed=True)
        if cycles < least:
            best, least = (meets, kept, width), cycles
    return None if best is None else _panels(w[None], *best)


def best_groups(w: Array, copies: float) -> Panels | None:
    """The groups of filters [.., C, O] that are estimated to take the least time; None where
    leaving out zeros does not pay. copies: how many times of what the filters read all groups'
    copies may have."""
    taps = w.reshape(-1, *w.shape[-2:])
    live = (taps != 0).any(axis=0)
    depth, count = live.shape
    best, least = None, _MOST_SHARE
    for width in _GROUPS:
        if count % width or count == width:
            continue
        meets = live.reshape(depth, count // width, width).any(axis=2)
        kept = max(1, int(meets.sum(axis=0).max()))
        kept = -(-kept // _CHANNELS) * _CHANNELS
        if kept >= depth or count // width * kept > copies * depth:
            continue
        cost = kept / depth * (1 + _COPY_FILTERS / width)
        if cost < least:
            best, least = (meets, kept, width), cost
    return None if best is None else _panels(taps, *best)


def _panels(taps: Array, meets: Array, kept: int, width: int) -> Panels:
    """The rows that each panel meets, filled up with others, which are zero. taps: one matrix, or
    one for each tap of a window."""
    depth = taps.shape[1]
    first = np.argsort(~meets, axis=0, kind="stable")[:kept]
    channels = np.sort(first, axis=0).T
    split = taps.reshape(len(taps), depth, -1, width).transpose(2, 0, 1, 3)
    chosen = np.take_along_axis(split, channels[:, None, :, None], axis=2)
    weights = chosen.reshape(len(channels), -1, width)
    return Panels(channels.astype(np.int32), np.ascontiguousarray(weights), depth)


def _rows_beside(vectors: int, most: int, target: CpuTarget) -> range:
    """The numbers of rows, up to `most`, of a tile so many vectors wide whose sums, and a step's
    vectors, stay in registers."""
    return range(1, min(most, (target.vector_registers - 1) // vectors - 1) + 1)


def _column_cycles(most: int, vectors: int, target: CpuTarget, indexed: bool = False) -> float:
    """Cycles of one step of a sum for one vector of one row, in the best tile so wide; some number
    of rows has to fit."""
    return min(
        step_cycles(r * vectors, r + vectors + indexed, r, 0, target) / (r * vectors)
        for r in _rows_beside(vectors, most, target)
    )


def _weights(node: Node) -> Array | None:
    """The constant floats that a node multiplies what the run makes by, in one group; None where
    there are none."""
    w = node.inputs[1]
    if w.data is None or node.attrs.get("accumulate") or node.attrs.get("product"):
        return None
    if not (node.inputs[0].dtype is w.dtype is node.output.dtype is DType.F32):
        return None
    if node.inputs[0].is_constant or node.attrs.get("groups", 1) != 1:
        return None
    return w.data if node.attrs.get("layout", "NHWC") == "NHWC" else None


def _matrix(node: Node) -> Array | None:
    """The constant matrix [channels in, channels out] that a node multiplies by, if it does no
    more than that, of some pixels or of all, and add a constant."""
    w, rank = _weights(node), node.inputs[0].type.rank
    if w is None or node.op == "matmul":
        return w if w is not None and w.ndim == 2 and rank > 1 else None
    if any(n != 1 for n in w.shape[:-2]) or any(node.attrs["pads"]) or rank != _PICTURE:
        return None
    return w.reshape(w.shape[-2:]) if all(v.is_constant for v in node.inputs[2:]) else None


def _filters(node: Node) -> Array | None:
    """The constant filters [rows, columns, channels in, channels out] of a convolution with
    windows."""
    w = _weights(node)
    return w if w is not None and w.ndim == _PICTURE and w.shape[:2] != (1, 1) else None
