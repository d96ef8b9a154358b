"""Rule: the place of the greatest of few elements, in bytes.

Of every element that equals the greatest one, how far it is from the end (or from the beginning,
where the last of equal ones is asked for) is a byte, of all others 0: the greatest of these tells
the place.
"""

from __future__ import annotations

import numpy as np

from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules
from ....compiler.ir.types import DType
from .operands import operand_of, rescaled
from .softmax import byte_table, wide

RULES = Rules()
_MOST = 127  # elements: places are signed bytes
_PEAK = 127  # the byte of the difference 0


@RULES.on("argmax", "argmin")
def of_bytes(node: Node, rw: Rewriter) -> Replacement:
    """argmax(dequantize(x)) -> the same place, found in bytes"""
    made = rw.producer(node.inputs[0], "dequantize")
    operand = operand_of(node.inputs[0], rw) if made is not None else None
    axis = node.attrs["axis"]
    count = node.inputs[0].shape[axis]
    if operand is None or operand.integers.dtype is not DType.I8:
        return None
    if not isinstance(count, int) or not 1 <= count <= _MOST:
        return None
    x, least = operand.integers, node.op == "argmin"
    found = _place(x, axis, count, least=least, last=bool(node.attrs["select_last"]), rw=rw)
    if not node.attrs["keepdims"]:
        found = rw.emit("reshape", [found], {"shape": node.output.shape})
    return rw.emit("cast", [found], {"dtype": node.output.dtype})


def _place(x: Value, axis: int, count: int, *, least: bool, last: bool, rw: Rewriter) -> Value:
    along = {"axes": (axis,), "keepdims": True}
    peak = wide(rw.emit("reduce_min" if least else "reduce_max", [x], along), rw)
    operands = [peak, wide(x, rw)] if least else [wide(x, rw), peak]
    below = rescaled(rw.emit("sub", operands), 1.0, DType.I8, rw, zero=_PEAK)
    equal = wide(byte_table(below, np.arange(-128, 128) == _PEAK, rw), rw)
    shape = tuple(count if a == axis else 1 for a in range(x.type.rank))
    places = np.arange(1, count + 1, dtype=np.int32)
    marks = constant((places if last else places[::-1]).reshape(shape))
    marked = rescaled(rw.emit("mul", [equal, marks]), 1.0, DType.I8, rw)
    far = rw.emit("reduce_max", [marked], along)
    told = np.clip(np.arange(-128, 128), 1, count)
    return byte_table(far, told - 1 if last else count - told, rw)
