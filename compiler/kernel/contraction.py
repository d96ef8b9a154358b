"""What the reductions of a stage read, and by which axes: products, sums, windows.

A product adds up left * right over its depth. Parallel axes along which only the left operand
moves are its rows, those of the right one alone its columns, and those of both its batch: a
convolution has pixels for rows, output channels for columns, and windows for depth; a depthwise one
has its channels for a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from ..ir.dims import Dim, coefficient
from ..ir.types import DType
from . import expr as ex
from .instruction import DOTS
from .kernel import Axis, Reduction, Stage

UNKNOWN_EXTENT = 256  # assumed of an axis whose extent only a run knows


def extent_of(axis: Axis) -> int:
    """The axis' extent, at least 1, or the assumed one when it is symbolic."""
    return max(1, axis.extent) if isinstance(axis.extent, int) else UNKNOWN_EXTENT


@dataclass(frozen=True)
class Operand:
    """A load in the body of a reduction.

    moves: the axes (and symbols) that its indices depend on. reduction: whose body it is in.
    """

    load: ex.Load
    moves: frozenset[str]
    reduction: int = 0

    def along(self, axis: str) -> bool:
        """Whether it is another element for another step of the axis."""
        return axis in self.moves

    def stride(self, axis: str) -> Dim | None:
        """Elements from one step of the axis to the next; None where that is no fixed number."""
        return coefficient(self.load.offset, axis)


@dataclass(frozen=True)
class Product:
    """A sum over left * right: the operands of one reduction.

    plain: whether its factors are the elements themselves, at indices that no data decides, and not
    elements that are converted, or guarded where a window leaves the tensor.
    """

    left: Operand
    right: Operand
    plain: bool


@dataclass(frozen=True)
class Contraction:
    """The reductions of a stage: as many as are computed side by side, over the same depth.

    operands: all loads in their bodies, in order. products: for each reduction, its operands where
    it is the sum of a product.
    """

    stage: Stage
    operands: tuple[Operand, ...]
    products: tuple[Product | None, ...]

    @property
    def beside(self) -> int:
        """How many reductions share what their rows load."""
        return len(self.stage.reductions)

    @property
    def accumulate(self) -> DType:
        """The type that is added up in."""
        return self.stage.reductions[0].body.dtype

    @property
    def depth(self) -> int:
        """Steps of one sum; extents that only a run knows count as assumed."""
        return math.prod(extent_of(axis) for axis in self.stage.reduce_axes)

    @property
    def static_depth(self) -> bool:
        """Whether the steps of one sum are known."""
        return all(isinstance(axis.extent, int) for axis in self.stage.reduce_axes)

    @cached_property
    def rows(self) -> tuple[Axis, ...]:
        """Parallel axes of the left operand of the first product alone."""
        return self._axes(left=True, right=False)

    @cached_property
    def columns(self) -> tuple[Axis, ...]:
        """Parallel axes of its right operand alone."""
        return self._axes(left=False, right=True)

    @cached_property
    def batch(self) -> tuple[Axis, ...]:
        """Parallel axes of both operands."""
        return self._axes(left=True, right=True)

    def _axes(self, *, left: bool, right: bool) -> tuple[Axis, ...]:
        product = self.products[0] if self.products else None
        if product is None:
            return ()
        return tuple(
            axis
            for axis in self.stage.axes
            if (product.left.along(axis.name), product.right.along(axis.name)) == (left, right)
        )

    @property
    def reads_packed(self) -> bool:
        """Whether floats are made of words or bytes of weights as they are multiplied."""
        packed = any(o.load.dtype in (DType.U32, DType.I8) for o in self.operands)
        return packed and self.accumulate is DType.F32

    def common(self, vector: str, row: str) -> tuple[Operand, ...]:
        """Operands that all rows share, and lanes move along: a product's weights, in panels."""
        return tuple(o for o in self.operands if o.along(vector) and not o.along(row))

    def by_row(self, vector: str, row: str) -> tuple[Operand, ...]:
        """Operands that all lanes share, and rows move along."""
        return tuple(o for o in self.operands if o.along(row) and not o.along(vector))


def contraction_of(stage: Stage) -> Contraction:
    """What the reductions of a stage read; without reductions there are no operands."""
    dependences = ex.Dependences()
    operands: list[Operand] = []
    products: list[Product | None] = []
    for number, reduction in enumerate(stage.reductions):
        loads = [part for part in ex.unique_parts(reduction.body) if isinstance(part, ex.Load)]
        own = [Operand(load, dependences.of(load)[0], number) for load in loads]
        factor = () if reduction.factor is None else ex.unique_parts(reduction.factor)
        operands += own
        operands += [
            Operand(part, dependences.of(part)[0], number)
            for part in factor
            if isinstance(part, ex.Load)
        ]
        products.append(_product(reduction, own))
    return Contraction(stage, tuple(operands), tuple(products))


def _product(reduction: Reduction, operands: list[Operand]) -> Product | None:
    """The product that a reduction adds up, if its body multiplies two factors of one load each."""
    body = reduction.body
    if reduction.kind != "sum" or not isinstance(body, ex.Apply):
        return None
    if body.op != "mul" and body.op not in DOTS:
        return None
    if len(operands) != 2:
        return None
    factors = [[p for p in ex.unique_parts(arg) if isinstance(p, ex.Load)] for arg in body.args]
    if [len(loads) for loads in factors] != [1, 1]:
        return None
    plain = all(isinstance(arg, ex.Load) and not arg.dynamic for arg in body.args)
    return Product(operands[0], operands[1], plain)
