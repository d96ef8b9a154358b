"""Rows of masks that hide every key: the softmax of such a row is no number.

Exporters guard the weights of attention against them: `where(isnan(w), 0, w)`, or, as the function
of ONNX's Attention has it, with a condition for every row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Value
from ...compiler.ir.rewrite import Rewriter, like, scalar
from ...compiler.ir.types import DType
from ..arithmetic.hidden_scores import MASKED, lowest

_MOST_NODES = 64  # that are looked at behind one mask


@dataclass(frozen=True)
class RowGuard:
    """Weights of attention, and for which rows zeros replace them: a condition [..., rows, 1], or
    None for rows that are no numbers."""

    weights: Value
    rows: Value | None

    @staticmethod
    def of(value: Value, rw: Rewriter) -> RowGuard | None:
        """The guard that makes a value which is read once; None where there is none."""
        node = rw.sole(value, "where")
        if node is None or scalar(node.inputs[1]) != 0 or node.inputs[2].shape != value.shape:
            return None
        condition, _, kept = node.inputs
        if condition.type.rank > 0 and condition.shape[-1] == 1:
            return RowGuard(kept, condition) if rw.uses(kept) == 1 else None
        test = rw.sole(condition, "isnan")
        own = test is not None and test.inputs[0] is kept and rw.uses(kept) == 2
        return RowGuard(kept, None) if own else None

    def around(self, result: Value, mask: Value | None, rw: Rewriter) -> Value:
        """The guard for what attention makes of the weights.

        Scores are finite here: rows that are no numbers for other reasons than a mask of -inf stay
        so.
        """
        zero = like(result, 0)
        if self.rows is not None:
            return rw.emit("where", [self.rows, zero, result])
        if mask is None or not may_be_infinite(mask):
            return result
        last = {"axes": (mask.type.rank - 1,), "keepdims": True}
        least = like(mask, lowest(mask.dtype))
        seen = rw.emit("ge", [rw.emit("reduce_max", [mask], last), least])
        return rw.emit("where", [seen, result, zero])


def may_be_infinite(mask: Value) -> bool:
    """Whether a mask may have elements of -inf, as far as what makes it tells."""
    waiting, seen = [mask], set[Value]()
    finite = lowest(mask.dtype)
    low = max(MASKED, finite / _MOST_NODES)  # some of these may be -inf together
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
            lows += bool(least < low)
        elif node is None or len(seen) > _MOST_NODES:
            return True
        elif node.op == "where":
            waiting.extend(node.inputs[1:])
        elif node.op in ("reshape", "transpose", "broadcast_to", "slice", "add"):
            waiting.extend(node.inputs)
        elif node.op == "cast" and not node.inputs[0].dtype.is_float:
            least = _least(node.inputs[0].dtype)
            if least < finite:
                return True
            lows += least < low
        else:
            return True
    return lows > 1


def _least(dtype: DType) -> int:
    """The lowest number of an integer type; 0 of bools."""
    return -(1 << (dtype.bits - 1)) if dtype.is_integer and dtype.is_signed else 0
