"""The graph IR: dims, types, graph, operators."""

from __future__ import annotations

from . import ops as _ops  # noqa: F401  (registers the operators)
from .dims import Dim, Sym, ceildiv, floordiv, symbol
from .graph import Graph, Meaning, Node, Value, constant
from .types import DENSE, DType, Layout, TensorType

__all__ = [
    "DENSE",
    "DType",
    "Dim",
    "Graph",
    "Layout",
    "Meaning",
    "Node",
    "Sym",
    "TensorType",
    "Value",
    "ceildiv",
    "constant",
    "floordiv",
    "symbol",
]
