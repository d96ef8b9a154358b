"""How the points of a kernel are shared by the programs of a launch: blocks, warps, pipelining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ...compiler.ir.dims import Dim, product
from ...compiler.ir.types import DType
from ...compiler.kernel import expr as ex
from ...compiler.kernel.contraction import Contraction, Product, contraction_of
from ...compiler.kernel.kernel import Axis, Kernel, Stage, has_factors
from .emit.types import HALVES, NoDeviceCode

POINTS = 1024  # of a program that computes each by itself
ELEMENTS = 4096  # of a program that reduces rows
MAX_ROW = 16384  # elements of a row that stays in registers
LEAST_PRODUCT = 8  # rows or columns below which a product is no matter of tensor cores
LEAST_BLOCK = 16  # of `tl.dot`, along each of its dimensions
UNKNOWN = 256  # assumed of a size that only a run knows


class Kind(Enum):
    """How a function goes over its points.

    POINTS: one by one. ROWS: blocks of rows, along which are reductions and stages. PRODUCT: tiles
    of the results of `tl.dot`.
    """

    POINTS = "points"
    ROWS = "rows"
    PRODUCT = "product"


@dataclass(frozen=True)
class Tiles:
    """What one program computes: a block of rows by columns, in steps of `depth` of a sum.

    POINTS: columns alone. ROWS: columns are steps of the reductions, of stages' own axes too.
    warps: of 32 threads each. stages: how many steps of the sum are loaded ahead.
    """

    kind: Kind
    rows: int
    columns: int
    depth: int = 1
    warps: int = 4
    stages: int = 1

    def __str__(self) -> str:
        block = f"{self.rows}x{self.columns}" + f"x{self.depth}" * (self.kind is Kind.PRODUCT)
        ahead = f", {self.stages} stages" if self.stages > 1 else ""
        return f"{self.kind.value} {block}, {self.warps} warps{ahead}"


def tiles_of(kernel: Kernel) -> Tiles:
    """The usual tiles of a kernel whose stages share axes, or that has one stage.

    Raises NoDeviceCode for one that no program can compute.
    """
    for stage in kernel.stages:
        if stage.sequential:
            raise NoDeviceCode("elements are written one after the other, in order")
        if has_factors(stage):
            raise NoDeviceCode("sums in blocks with a scale each have no device code")
    only = kernel.stages[0]
    if len(kernel.stages) == 1 and not any(stage.reductions for stage in kernel.stages):
        total = _assumed(only.axes)
        return Tiles(Kind.POINTS, 1, min(POINTS, power_of_two(total)))
    if len(kernel.stages) == 1 and (products := products_of(only)) is not None:
        return _product_tiles(contraction_of(only), products)
    return _row_tiles(kernel)


def power_of_two(number: int) -> int:
    """The least power of two that is not below a number, at least 1."""
    return 1 << max(0, number - 1).bit_length()


def columns_of(kernel: Kernel, stage: Stage) -> tuple[Axis, ...]:
    """The axes of a stage that lie along rows: its own or those of its reductions."""
    own = stage.axes[shared_axes(kernel) :]
    if own and stage.reduce_axes:
        raise NoDeviceCode("a stage reduces along other axes than those of the rows")
    return own or stage.reduce_axes


def shared_axes(kernel: Kernel) -> int:
    """How many axes are rows: those that stages share, or all parallel ones of an only stage."""
    return len(kernel.stages[0].axes) if len(kernel.stages) == 1 else kernel.shared


def products_of(stage: Stage) -> tuple[Product, ...] | None:
    """The products that `tl.dot` computes for a stage, or None where it does not.

    They are added up in f32, exactness is not asked for, and all share rows, columns and batch,
    with enough of either.
    """
    contraction = contraction_of(stage)
    products = [product for product in contraction.products if product is not None]
    if not products or len(products) != len(stage.reductions):
        return None
    if contraction.accumulate is not DType.F32 or any(
        isinstance(r.body, ex.Apply) and (r.body.exact or r.body.op != "mul")
        for r in stage.reductions
    ):
        return None
    kinds = {tuple(_moves(product, axis) for axis in stage.axes) for product in products}
    enough = [_assumed(axes) >= LEAST_PRODUCT for axes in (contraction.rows, contraction.columns)]
    return tuple(products) if len(kinds) == 1 and all(enough) else None


def _moves(product: Product, axis: Axis) -> tuple[bool, bool]:
    return product.left.along(axis.name), product.right.along(axis.name)


def rows_of(stage: Stage, contraction: Contraction) -> tuple[Axis, ...]:
    """The axes of a product's rows: of its left operand, or of neither."""
    others = {axis.name for axis in (*contraction.columns, *contraction.batch)}
    return tuple(axis for axis in stage.axes if axis.name not in others)


def _assumed(axes: Sequence[Axis]) -> int:
    total = product(axis.extent for axis in axes)
    return total if isinstance(total, int) else UNKNOWN


def _product_tiles(contraction: Contraction, products: Sequence[Product]) -> Tiles:
    """Blocks of 64 by 64, smaller for small products; a block of halves is twice as deep."""
    rows = _assumed(rows_of(contraction.stage, contraction))
    columns, depth = _assumed(contraction.columns), _assumed(contraction.stage.reduce_axes)
    halves = all(operand.load.dtype in HALVES for p in products for operand in (p.left, p.right))
    deepest = 64 if halves else 32
    block = [max(LEAST_BLOCK, min(64, power_of_two(size))) for size in (rows, columns)]
    if len(products) > 1:
        block[1] = min(block[1], 32)
    steps = max(LEAST_BLOCK, min(deepest, power_of_two(depth)))
    return Tiles(Kind.PRODUCT, block[0], block[1], steps, 4, 3 if depth > steps else 1)


def _row_tiles(kernel: Kernel) -> Tiles:
    totals = [product(a.extent for a in columns_of(kernel, stage)) for stage in kernel.stages]
    longest = max(total if isinstance(total, int) else MAX_ROW + 1 for total in totals)
    rows = _assumed(kernel.stages[0].axes[: shared_axes(kernel)])
    if longest <= MAX_ROW and len(kernel.stages) > 1:
        columns = power_of_two(longest)
    else:
        columns = min(power_of_two(longest), _steps(kernel))
    block = max(1, min(power_of_two(rows), ELEMENTS // columns))
    return Tiles(Kind.ROWS, block, columns, 1, 8 if block * columns > ELEMENTS else 4)


def _steps(kernel: Kernel) -> int:
    """Steps of a reduction at once: many where its elements lie side by side."""
    stage = kernel.stages[0]
    last = stage.reduce_axes[-1].name if stage.reduce_axes else ""
    along: list[Dim | None] = [
        operand.stride(last) for operand in contraction_of(stage).operands if operand.along(last)
    ]
    return 1024 if len(kernel.stages) > 1 or 1 in along else 16
