"""Ensembles of decision trees, whose nodes are data; a function of the runtime walks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..assumptions import assume_at_most
from ..graph import Value
from ..types import DType, TensorType
from .common import need_dtype, need_rank
from .registry import REQUIRED, Array, OpDef, register

REDUCTIONS = ("sum", "min", "max")
EXACT, NAN_PASSES, LEAF, FEATURE_SHIFT = 1, 2, 4, 3  # of `test`, as in runtime/forest.c


def node_type(dtype: DType) -> np.dtype[Any]:
    """How a node lies in memory; thresholds are of the type that they are compared with.

    test: the feature above FEATURE_SHIFT bits that say what node it is. next: where to go when the
    test fails and when it holds; that of a leaf is the leaf itself, and the threshold its number.
    """
    fields = [("threshold", dtype.numpy), ("test", "<u4"), ("next", "<i4", (2,))]
    return np.dtype(fields, align=True)


def _infer(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, nodes, roots, weights, *targets = inputs
    need_rank(x, 2, "the operand")
    need_dtype(x, frozenset({DType.F32, DType.F64}), "the operand")
    words = node_type(x.dtype).itemsize // DType.I32.bytes
    if nodes.dtype is not DType.I32 or nodes.shape[1:] != (words,):
        raise ValueError(f"{nodes.type} are no nodes of {words} words")
    width = 1 if targets else attrs["columns"]
    if weights.dtype is not x.dtype or weights.shape[1:] != (width,):
        raise ValueError(f"{weights.type} are no weights of {width} columns for {x.type}")
    for value in (roots, *targets):
        need_rank(value, 1, "roots and targets")
        need_dtype(value, frozenset({DType.I32}), "roots and targets")
    if attrs["reduction"] not in REDUCTIONS:
        raise ValueError(f"reduction '{attrs['reduction']}' is none of {' '.join(REDUCTIONS)}")
    assume_at_most(attrs["features"], x.shape[1])
    return [TensorType(x.dtype, (x.shape[0], attrs["columns"]))]


def _evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x, words, roots, weights, *targets = args
    nodes = words.reshape(-1).view(node_type(DType.of(x.dtype)))
    at = np.broadcast_to(roots, (len(x), len(roots)))
    rows = np.arange(len(x))[:, None]
    while not (nodes["test"][at] & LEAF).all():
        test, threshold = nodes["test"][at], nodes["threshold"][at]
        value = x[rows, test >> FEATURE_SHIFT]
        goes = np.where(test & EXACT, value == threshold, value <= threshold)
        goes |= np.isnan(value) & (test & NAN_PASSES > 0)
        at = nodes["next"][at, goes.astype(np.int64)]
    leaf = nodes["threshold"][at].astype(np.int64)
    function = {"sum": np.add, "min": np.minimum, "max": np.maximum}[attrs["reduction"]]
    start = {"sum": 0, "min": np.inf, "max": -np.inf}[attrs["reduction"]]
    out = np.full((len(x), attrs["columns"]), start, np.float64)
    if targets:
        places = np.broadcast_to(rows, leaf.shape), targets[0][leaf]
        function.at(out, places, weights[leaf, 0].astype(np.float64))
    else:
        for tree in range(len(roots)):
            out = function(out, weights[leaf[:, tree]])
    return [out.astype(x.dtype)]


register(
    OpDef(
        "forest",
        _infer,
        _evaluate,
        attrs={"columns": REQUIRED, "features": REQUIRED, "reduction": "sum", "plain": False},
        arity=(4, 5),
    )
)
