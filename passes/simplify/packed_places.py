"""Places of the greatest and least elements as maxima and minima of integers that hold both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType
from ...compiler.target import CpuTarget, Target
from ..arithmetic.work import elements

_KEY_BITS = 32  # of what says the order of elements; their place lies below it
_LEAST_LANES = 4  # of i64: with fewer, one element after the other is as fast
_LEAST_WORK = 64  # elements, from which on the vectors are filled


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
        rules.on("argmax", "argmin")(packed)
        return rewrite(graph, rules)


def packed(node: Node, rw: Rewriter) -> Replacement:
    """argmax(x) -> reduce_max(..): of equal elements the first or the last, NaN if all are."""
    x, rank = node.inputs[0], node.inputs[0].type.rank
    axis = node.attrs["axis"] % rank
    size, greatest = x.shape[axis], node.op == "argmax"
    if not isinstance(size, int) or not 0 < size < 1 << (_KEY_BITS - 1):
        return None
    if x.dtype.bits > _KEY_BITS or elements(x.shape) < _LEAST_WORK:
        return None
    kind, end = ("max", np.iinfo(np.int32).min) if greatest else ("min", np.iinfo(np.int32).max)
    shape = tuple(size if place == axis else 1 for place in range(rank))
    place = rw.emit("iota", [], {"shape": shape, "axis": axis, "dtype": DType.I64})
    ascending = greatest == bool(node.attrs["select_last"])  # places are compared as they are
    if not ascending:
        place = rw.emit("sub", [_number(size - 1), place])
    keys = rw.emit("shl", [_keys(x, rw, int(end)), _number(_KEY_BITS)])
    attrs = {"axes": (axis,), "keepdims": node.attrs["keepdims"]}
    best = rw.emit(f"reduce_{kind}", [rw.emit("bitor", [keys, place])], attrs)
    found = rw.emit("bitand", [best, _number((1 << _KEY_BITS) - 1)])
    if not ascending:
        found = rw.emit("sub", [_number(size - 1), found])
    if x.dtype.is_float and node.attrs["select_last"]:  # of NaN alone it is the first
        order = rw.emit("shr", [best, _number(_KEY_BITS)])
        some = rw.emit("ne", [order, _number(int(end))])
        found = rw.emit("where", [some, found, _number(0)])
    return rw.emit("max", [rw.emit("min", [found, _number(size - 1)]), _number(0)])


def _number(value: int, dtype: DType = DType.I64) -> Value:
    return constant(np.asarray(value, dtype.numpy))


def _keys(x: Value, rw: Rewriter, worst: int) -> Value:
    """i64 of 32 bits in the order of the elements; both zeros are one, and NaN are `worst`."""
    if not x.dtype.is_float:
        keys = rw.emit("cast", [x], {"dtype": DType.I64})
        return rw.emit("sub", [keys, _number(1 << 31)]) if x.dtype is DType.U32 else keys
    wide = x if x.dtype is DType.F32 else rw.emit("cast", [x], {"dtype": DType.F32})
    zero, most = constant(np.float32(0)), _number(np.iinfo(np.int32).max, DType.I32)
    plain = rw.emit("where", [rw.emit("eq", [wide, zero]), zero, wide])
    bits = rw.emit("bitcast", [plain], {"dtype": DType.I32})
    negative = rw.emit("lt", [bits, _number(0, DType.I32)])
    order = rw.emit("where", [negative, rw.emit("bitxor", [bits, most]), bits])
    kept = rw.emit("where", [rw.emit("isnan", [wide]), _number(worst, DType.I32), order])
    return rw.emit("cast", [kept], {"dtype": DType.I64})
