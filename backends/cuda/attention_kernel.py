"""Attention as a kernel of four stages: which nodes become one, and what a kernel is read as."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.graph import Node
from ...compiler.ir.types import DType
from ...compiler.kernel.contraction import contraction_of
from ...compiler.kernel.expr import EACH_POINT, Apply, Expr
from ...compiler.kernel.kernel import Axis, Kernel, Stage
from ...compiler.kernel.lower import ATTENTION
from .dots import Dot, dot_of, element_of
from .emit.types import HALVES

WIDEST = 256  # depth and columns of which a block stays in registers


def streams(node: Node) -> bool:
    """Whether a node is attention that one kernel computes, block by block of its keys."""
    if node.op != ATTENTION:
        return False
    q, _, v = node.inputs[:3]
    sizes = q.shape[-1], v.shape[-1]
    read = all(value.data is None or value.data.size > 1 for value in node.inputs[:3])
    known = all(isinstance(size, int) and 0 < size <= WIDEST for size in sizes)
    return known and read and node.output.dtype in (DType.F32, *HALVES)


@dataclass(frozen=True)
class Attention:
    """What a kernel of attention computes.

    scores: the stage of one query's scores, result: that of what they weigh. batch, rows: the
    shared axes: those along which keys or values move, and the others. keys: of the scores.
    """

    scores: Stage
    result: Stage
    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    keys: tuple[Axis, ...]

    @property
    def depth(self) -> int:
        """Steps of a score's sum."""
        return contraction_of(self.scores).depth

    @property
    def columns(self) -> int:
        """Elements of one result."""
        total = 1
        for axis in self.value_axes:
            assert isinstance(axis.extent, int)
            total *= axis.extent
        return total

    @property
    def value_axes(self) -> tuple[Axis, ...]:
        """The axes of the elements of one result."""
        return self.result.axes[len(self.batch) + len(self.rows) :]

    @property
    def factors(self) -> tuple[Expr, Expr, Expr]:
        """Elements of the query, the key and the value."""
        first, last = (stage.reductions[0].body for stage in (self.scores, self.result))
        assert isinstance(first, Apply)
        assert isinstance(last, Apply)
        return first.args[0], first.args[1], last.args[1]

    @property
    def dots(self) -> tuple[Dot, Dot]:
        """How scores and results are multiplied: weights are rounded to the type of halves that
        they are multiplied by."""
        first = dot_of(self.scores.reductions[0]) or Dot(DType.F32, DType.F32)
        kind = element_of(self.factors[2])
        return first, Dot(kind if kind in HALVES else DType.F32, DType.F32)


def attention_of(kernel: Kernel) -> Attention | None:
    """What a kernel computes if it is attention as it is lowered; None for another."""
    if len(kernel.stages) != 4 or not kernel.stages[0].stores:
        return None
    scores, largest, _, result = kernel.stages
    found = [reduction.kind for stage in (scores, largest) for reduction in stage.reductions]
    if scores.stores[0].buffer.local != EACH_POINT or found != ["sum", "max"]:
        return None
    right = contraction_of(scores).operands[1]
    value = next(o for o in contraction_of(result).operands if o.load.buffer.local is None)
    shared = scores.axes[: kernel.shared]
    of_result = dict(zip((a.name for a in shared), (a.name for a in result.axes), strict=False))
    batch = tuple(
        axis for axis in shared if right.along(axis.name) or value.along(of_result[axis.name])
    )
    rows = tuple(axis for axis in shared if axis not in batch)
    return Attention(scores, result, batch, rows, scores.axes[kernel.shared :])
