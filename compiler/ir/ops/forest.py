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
TESTS = ("any", "plain", "missing")  # of all nodes: <=, for which NaN may pass (runtime/forest.c)
FEATURE, NAN_PASSES, EXACT = (1 << 30) - 1, 1 << 30, 1 << 31  # of `test`, as there


def node_type(dtype: DType) -> np.dtype[Any]:
    """How a node lies in memory; thresholds are of the type that they are compared with.

    test: the feature, and bits that say how it is compared. next: where to go when the test fails;
    behind that, when it holds. A leaf has a number; its successor is itself, and its threshold NaN.
    """
    fields = [("threshold", dtype.numpy), ("test", "<u4"), ("next", "<i4"), ("number", "<i4")]
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
    if attrs["tests"] not in TESTS:
        raise ValueError(f"tests '{attrs['tests']}' are none of {' '.join(TESTS)}")
    assume_at_most(attrs["features"], x.shape[1])
    return [TensorType(x.dtype, (x.shape[0], attrs["columns"]))]


def _evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x, words, roots, weights, *targets = args
    nodes = words.reshape(-1).view(node_type(DType.of(x.dtype)))
    at = np.broadcast_to(roots, (len(x), len(roots)))
    rows = np.arange(len(x))[:, None]
    while (nodes["next"][at] != at).any():
        test, threshold = nodes["test"][at], nodes["threshold"][at]
        value = x[rows, test & FEATURE]
        goes = np.where(test & EXACT, value == threshold, value <= threshold)
        goes |= np.isnan(value) & (test & NAN_PASSES > 0)
        at = nodes["next"][at] + goes
    leaf = nodes["number"][at]
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
        attrs={"columns": REQUIRED, "features": REQUIRED, "reduction": "sum", "tests": "any"},
        arity=(4, 5),
    )
)
