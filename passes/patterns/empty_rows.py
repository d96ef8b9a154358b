"""Rows of masks that hide every key: the softmax of such a row is no number.

Exporters guard the weights of attention against them: `where(isnan(w), 0, w)`.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from ...compiler.ir.graph import Value
from ...compiler.ir.rewrite import Rewriter, like, scalar

_MOST_NODES = 64  # that are looked at behind one mask
_LOW = -1e30  # two of these may be -inf together


def unguarded(weights: Value, rw: Rewriter) -> Value | None:
    """w of where(isnan(w), 0, w), which nothing else reads; None for others."""
    guard = rw.sole(weights, "where")
    if guard is None or scalar(guard.inputs[1]) != 0:
        return None
    condition, _, kept = guard.inputs
    test = rw.sole(condition, "isnan")
    own = test is not None and test.inputs[0] is kept and rw.uses(kept) == 2
    return kept if own and kept.shape == weights.shape else None


def guarded(result: Value, mask: Value | None, rw: Rewriter) -> Value:
    """Results of attention with zeros in rows whose mask is -inf throughout.

    Scores are finite here: rows that are no numbers for other reasons stay so.
    """
    if mask is None or not may_be_infinite(mask):
        return result
    last = {"axes": (mask.type.rank - 1,), "keepdims": True}
    best = rw.emit("reduce_max", [mask], last)
    lowest = float(ml_dtypes.finfo(mask.dtype.numpy).min)
    seen = rw.emit("ge", [best, like(mask, lowest)])
    return rw.emit("where", [seen, result, like(result, 0)])


def may_be_infinite(mask: Value) -> bool:
    """Whether a mask may have elements of -inf, as far as what makes it tells."""
    waiting, seen = [mask], set[Value]()
    lows = 0
    while waiting:
        value = waiting.pop()
        node = value.producer
        if value in seen:
            continue
        seen.add(value)
        if value.data is not None:
            least = value.data.astype(np.float64).min(initial=0)
            if not np.isfinite(least):
                return True
            lows += bool(least < _LOW)
        elif node is None or len(seen) > _MOST_NODES:
            return True
        elif node.op == "where":
            waiting.extend(node.inputs[1:])
        elif node.op in ("reshape", "transpose", "broadcast_to", "slice", "add"):
            waiting.extend(node.inputs)
        elif node.op != "cast" or node.inputs[0].dtype.is_float:
            return True
    return lows > 1
