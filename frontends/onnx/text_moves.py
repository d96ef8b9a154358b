"""Strings moved by moving their numbers.

An operator that only moves elements does the same to numbers that stand for the strings; the
strings are then gathered by what became of the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...compiler.ir import DType, TensorType, Value, constant
from ...compiler.ir.dims import Dim, dmax, product
from .containers import Content, Text
from .emitter import GraphEmitter

# Operators that move elements, and those that look at shapes alone.
MOVES = frozenset(
    {"Compress", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Reshape",
     "ReverseSequence", "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Tile",
     "Transpose", "Unsqueeze", "Where", "ai.onnx.ml.ArrayFeatureExtractor"}
)  # fmt: skip
SHAPES = frozenset({"Shape", "Size"})
Entries = Sequence[Content | None]
Lower = Callable[[Entries], Entries]


def moved(emitter: GraphEmitter, entries: Entries, lower: Lower) -> list[Content | None]:
    """The results of an operator of `MOVES`, which `lower` emits on numbers that stand for the
    strings among its inputs."""
    texts = [entry for entry in entries if isinstance(entry, Text)]
    width: Dim = 0
    for text in texts:
        width = dmax(width, text.data.shape[-1])
    tables: list[Value] = []
    given: list[Content | None] = []
    start: Dim = 0
    for entry in entries:
        if not isinstance(entry, Text):
            given.append(entry)
            continue
        shape = entry.data.shape[:-1]
        count = product(shape)
        rows = widened(emitter, entry.data, width)
        tables.append(emitter.emit("reshape", [rows], {"shape": (count, width)}))
        steps = emitter.emit("iota", [], {"shape": (count,), "axis": 0, "dtype": DType.I64})
        numbers = emitter.emit("add", [steps, emitter.virtual(start)])
        given.append(emitter.emit("reshape", [numbers], {"shape": shape}))
        start = start + count
    table = emitter.emit("concat", tables, {"axis": 0})
    return [
        Text(emitter.emit("gather", [table, result], {"axis": 0}))
        if isinstance(result, Value)
        else result
        for result in lower(given)
    ]


def widened(emitter: GraphEmitter, data: Value, width: Dim) -> Value:
    """The bytes [..., width so far] with zeros up to a width."""
    missing = width - data.shape[-1]
    if missing == 0:
        return data
    pads = (0,) * (data.type.rank - 1)
    zero = constant(np.zeros((), data.dtype.numpy))
    attrs = {"pads": (*pads, 0, *pads, missing), "mode": "constant"}
    return emitter.emit("pad", [data, zero], attrs)


def stand_ins(entries: Entries) -> list[Content | None]:
    """The inputs of an operator of `SHAPES`: of strings, something of their shape."""
    return [
        Value(TensorType(DType.U8, entry.data.shape[:-1])) if isinstance(entry, Text) else entry
        for entry in entries
    ]
