"""From a region of integer operators to a TOSA graph: every family of operators is known here."""

from __future__ import annotations

from ....compiler.ir.graph import Graph
from . import contractions, movement, pointwise
from .graph import TosaGraph
from .lowering import Lowering, is_lowered

__all__ = ["FAMILIES", "is_lowered", "tosa_of"]

FAMILIES = (contractions, movement, pointwise)


def tosa_of(region: Graph) -> TosaGraph:
    """The TOSA graph of a region whose operators are all legal for the processor."""
    return Lowering().region(region)
