"""Places of the greatest and least elements as maxima and minima of integers that hold both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, constant
from ...compiler.ir.placed_keys import may_be_placed, order_in, placed_keys, places_in
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import TensorType
from ...compiler.target import CpuTarget, Target
from ..arithmetic.work import elements

_LEAST_LANES = 4  # of i64: with fewer, one element after the other is as fast
_LEAST_WORK = 64  # elements, from which on the vectors are filled
# Measured, AVX2 and AVX-512: elements of an axis side by side, and of those within it, from which
# on vectors pay. These fill a register of AVX2, whose lanes are too few for what is left over.
_LEAST_ROW, _LEAST_INNER = 16, 8


@dataclass(frozen=True)
class PackedPlaces:
    """argmax(x) -> reduce_max(order of x << 32 | place), and so for argmin, where lanes pay.

    A place that is kept beside a maximum is compared element by element. Expects axes of known
    length. target: whose vectors decide.
    """

    target: Target
    name: str = "packed_places"

    def run(self, graph: Graph) -> bool:
        """Replace them; whether there were any."""
        target = self.target
        if not isinstance(target, CpuTarget) or target.lanes(64) < _LEAST_LANES:
            return False
        rules = Rules()
        rules.on("argmax", "argmin")(lambda node, rw: packed(node, rw, target))
        return rewrite(graph, rules)


def packed(node: Node, rw: Rewriter, target: CpuTarget) -> Replacement:
    """argmax(x) -> reduce_max(..): of equal elements the first or the last, NaN if all are."""
    x, rank = node.inputs[0], node.inputs[0].type.rank
    axis = node.attrs["axis"] % rank
    size, greatest = x.shape[axis], node.op == "argmax"
    if not may_be_placed(x.dtype, size) or not _pays(x.type, axis, target):
        return None
    # NaN is behind all numbers, whose order i32 hold
    kind, worst = ("max", np.iinfo(np.int32).min) if greatest else ("min", np.iinfo(np.int32).max)
    last = bool(node.attrs["select_last"])
    backwards = greatest != last  # places are compared as they are, or from the other end
    keys = placed_keys(rw.emit, x, axis, backwards=backwards, nan=int(worst))
    attrs = {"axes": (axis,), "keepdims": node.attrs["keepdims"]}
    best = rw.emit(f"reduce_{kind}", [keys], attrs)
    found = places_in(rw.emit, best, size, backwards=backwards)
    if x.dtype.is_float and last:  # of NaN alone it is the first
        some = rw.emit("ne", [order_in(rw.emit, best), constant(np.int64(worst))])
        found = rw.emit("where", [some, found, constant(np.int64(0))])
    return found


def _pays(x: TensorType, axis: int, target: CpuTarget) -> bool:
    """Whether vectors of keys are faster than one element after the other."""
    if elements(x.shape) < _LEAST_WORK:
        return False
    inner = elements(x.shape[axis + 1 :])
    if inner == 1:
        return elements(x.shape[axis : axis + 1]) >= _LEAST_ROW
    wide = target.lanes(64) >= _LEAST_INNER
    return inner >= (_LEAST_INNER if wide else target.lanes(x.dtype.bits))
