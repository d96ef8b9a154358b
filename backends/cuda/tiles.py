"""How the points of a kernel are shared by the programs of a launch: blocks, warps, pipelining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...compiler.ir.dims import Dim, evaluate, product
from ...compiler.ir.types import DType
from ...compiler.kernel.contraction import Contraction, Product
from ...compiler.kernel.expr import EACH_POINT
from ...compiler.kernel.kernel import Axis, Kernel, Stage, has_factors
from ...compiler.kernel.schedule.tiles import Kind, Tiles
from ...compiler.target import GpuTarget
from .attention_kernel import Attention, attention_of
from .candidates import TENSOR_ROWS, Problem, key_parts_of, row_parts_of
from .dots import AS_WRITTEN, Arithmetic, contraction_for, digits_of, dot_of
from .emit.types import FLOAT_BYTES, HALVES, NoDeviceCode

POINTS = 1024  # of a program that computes each by itself
ELEMENTS, LEAST_ELEMENTS = 4096, 512  # of a program that reduces rows
WORDS = 64  # of packed numbers that a program reads of a column at once
MANY_ROWS = 1 << 14  # that keep a GPU busy, each reduced by a thread of its own
MAX_STEP = 4096  # elements of one row that are reduced at once
MAX_ROW = 16384  # elements of a row that stays in registers
LEAST_PRODUCT = 8  # rows or columns below which a product is no matter of tensor cores
LEAST_BLOCK = 16  # of `tl.dot`, along each of its dimensions
STEP_BYTES = 128  # of a row of a factor, in one step of a sum
LEAST_STEPS = 32  # bytes of those that `tl.dot` takes at least
# Elements of a query or a value whose sums a group of warps keeps in registers: with 64 queries of
# 128 a thread has 137 to 168 of its 255, with those of 256 up to 254 (tf32 on 9.0), without a mask
MOST_GROUPED = 128
MULTIPROCESSORS = 108  # that blocks should keep busy: an A100's
UNKNOWN = 256  # assumed of a size that only a run knows
_DIVIDED = ("sum", "prod", "max", "min")  # reductions whose parts are reduced as elements are
_WIDE = (DType.F32, DType.F64, DType.I32, DType.I64)


def tiles_of(kernel: Kernel, target: GpuTarget, arithmetic: Arithmetic = AS_WRITTEN) -> Tiles:
    """The usual tiles of a kernel whose stages share axes, or that has one stage, on a target.

    arithmetic: how products may be computed.
    Raises NoDeviceCode for one that no program can compute.
    """
    for stage in kernel.stages:
        if stage.sequential:
            raise NoDeviceCode("elements are written one after the other, in order")
    if (attention := attention_of(kernel)) is not None:
        return _attention_tiles(attention, target, arithmetic.tf32)
    alone = len(kernel.stages) == 1 or kernel.together
    if alone and not any(stage.reductions for stage in kernel.stages):
        totals = [product(axis.extent for axis in stage.axes) for stage in kernel.stages]
        most = max(total if isinstance(total, int) else POINTS for total in totals)
        return Tiles(Kind.POINTS, 1, min(POINTS, power_of_two(most)))
    last = kernel.stages[-1]
    if not kernel.shared and (products := products_of(last)) is not None:
        return _product_tiles(contraction_for(last), products, arithmetic)
    return _row_tiles(main_of(kernel))


def is_normalised_row(kernel: Kernel) -> bool:
    """Whether the last stage multiplies one row that those before find elements of: every program
    finds anew what it is scaled by."""
    *before, last = kernel.stages
    alone = bool(before) and not kernel.shared and not before[0].axes
    return alone and bool(last.reduce_axes) and before[-1].stores[0].buffer.local == EACH_POINT


def main_of(kernel: Kernel) -> Kernel:
    """What programs share the work of: all of a kernel, but for what every one of them finds
    anew."""
    return replace(kernel, stages=kernel.stages[-1:]) if is_normalised_row(kernel) else kernel


def power_of_two(number: int) -> int:
    """The least power of two that is not below a number, at least 1."""
    return 1 << max(0, number - 1).bit_length()


def columns_of(kernel: Kernel, stage: Stage) -> tuple[Axis, ...]:
    """The axes of a stage that lie along rows: its own or those of its reductions, but for that of
    the numbers of a word, which are taken one after the other."""
    own = stage.axes[shared_axes(kernel) :]
    if own and stage.reduce_axes:
        raise NoDeviceCode("a stage reduces along other axes than those of the rows")
    if own:
        return own
    return stage.reduce_axes[:-1] if digits_of(stage) else stage.reduce_axes


def shared_axes(kernel: Kernel) -> int:
    """How many axes are rows: those that stages share, or all parallel ones of an only stage."""
    return len(kernel.stages[0].axes) if len(kernel.stages) == 1 else kernel.shared


def products_of(stage: Stage) -> tuple[Product, ...] | None:
    """The products that `tl.dot` computes for a stage, or None where it does not.

    They are of the same elements, and all share rows, columns and batch, with enough of either.
    """
    contraction = contraction_for(stage)
    products = [product for product in contraction.products if product is not None]
    if not products or len(products) != len(stage.reductions):
        return None
    dots = {dot_of(reduction) for reduction in stage.reductions}
    if len(dots) > 1 or None in dots:
        return None
    if has_factors(stage) and not _block_steps(stage):
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


def _assumed(axes: Sequence[Axis], sizes: Mapping[str, int] | None = None) -> int:
    total = product(axis.extent for axis in axes)
    if isinstance(total, int):
        return total
    return UNKNOWN if sizes is None else evaluate(total, sizes)


def _product_tiles(
    contraction: Contraction, products: Sequence[Product], arithmetic: Arithmetic
) -> Tiles:
    """Blocks of 64 by 64, smaller for small products; steps of 128 bytes of either factor."""
    rows = _assumed(rows_of(contraction.stage, contraction))
    columns, depth = _assumed(contraction.columns), _assumed(contraction.stage.reduce_axes)
    dot = dot_of(contraction.stage.reductions[0])
    assert dot is not None
    deepest = STEP_BYTES // dot.elements.bytes
    rows, columns = (max(LEAST_BLOCK, min(64, power_of_two(size))) for size in (rows, columns))
    if len(products) > 1:
        columns = min(columns, 32)
    least = max(LEAST_BLOCK, LEAST_STEPS // dot.elements.bytes)
    steps = _whole_steps(contraction.stage.reduce_axes, least, deepest)
    if within := _block_steps(contraction.stage):
        steps = min(within, max(least, deepest))
    tf32 = arithmetic.tf32 and dot.elements is DType.F32
    fp8 = arithmetic.fp8 and dot.elements in FLOAT_BYTES
    ahead = 3 if depth > steps else 1
    return Tiles(Kind.PRODUCT, rows, columns, steps, 4, ahead, tf32=tf32, fp8=fp8)


def problem_of(stage: Stage, usual: Tiles, sizes: Mapping[str, int] | None = None) -> Problem:
    """The product that a stage computes. sizes: of symbols; None: where only a run knows them,
    sizes are assumed. Raises InternalError for symbols without a size."""
    contraction = contraction_for(stage)
    dot = dot_of(stage.reductions[0])
    assert dot is not None
    return Problem(
        rows=_assumed(rows_of(stage, contraction), sizes),
        columns=_assumed(contraction.columns, sizes),
        depth=_assumed(stage.reduce_axes, sizes),
        batch=_assumed(contraction.batch, sizes),
        beside=contraction.beside,
        dot=dot,
        result_bytes=max(store.buffer.dtype.bytes for store in stage.stores),
        usual=usual,
        unknown=sizes is None and not all(isinstance(axis.extent, int) for axis in stage.axes),
    )


def problem_of_part(part: Kernel, usual: Tiles, sizes: Mapping[str, int] | None = None) -> Problem:
    """The product that a part of a kernel computes, whose sums stay whole where stages before it
    find the scales of its rows: every part of a sum would find them anew. sizes: of
    `problem_of`."""
    return replace(problem_of(part.stages[-1], usual, sizes), whole=len(part.stages) > 1)


def _block_steps(stage: Stage) -> int:
    """How many steps a program may take at once of a sum whose blocks have a scale each, or whose
    numbers are packed into words: a power of two; 0: of any other sum, or where there are too few.
    """
    if not has_factors(stage) and digits_of(stage) is None:
        return 0
    inner = product(axis.extent for axis in stage.reduce_axes[stage.outer_axes :])
    divisor = inner & -inner if isinstance(inner, int) else 0
    return divisor if divisor >= LEAST_BLOCK else 0


def _whole_steps(axes: Sequence[Axis], least: int, most: int) -> int:
    """Steps of a sum that a program takes at once: of a window as many as divide the elements that
    lie side by side in its rows."""
    most = max(least, min(most, power_of_two(_assumed(axes))))
    if len(axes) > 1:
        runs = [product(axis.extent for axis in axes[n:]) for n in range(1, len(axes))]
        for steps in (most, most // 2, most // 4):
            if steps >= least and any(isinstance(n, int) and n and n % steps == 0 for n in runs):
                return steps
    return most


def _attention_tiles(attention: Attention, target: GpuTarget, tf32: bool) -> Tiles:
    """Blocks of queries by keys. Of as many queries as a group of four warps multiplies at once,
    where the architecture has instructions for groups and there are so many: fewer would be
    multiplied by those for a warp, and take as many steps over the keys. Else of 64 by 64, smaller
    ones of f32, where rows are long, and where there would be fewer blocks than a GPU has
    multiprocessors."""
    columns, depth = (
        max(LEAST_BLOCK, power_of_two(size)) for size in (attention.columns, attention.depth)
    )
    halves = all(dot.elements in HALVES for dot in attention.dots)
    rows, keys = (64, 64) if halves else (32, 32)
    if max(columns, depth) > 128:
        rows, keys = rows // 2, keys // 2
    queries, others = _assumed(attention.rows), _assumed(attention.batch)
    grouped = (tf32 or halves) and not {"wgmma", "tcgen05"}.isdisjoint(target.instructions)
    if grouped and max(columns, depth) <= MOST_GROUPED and queries >= TENSOR_ROWS:
        rows = TENSOR_ROWS
    else:
        rows = min(rows, max(LEAST_BLOCK, power_of_two(queries)))
        while rows > LEAST_BLOCK and -(-queries // rows) * others < MULTIPROCESSORS:
            rows //= 2
    keys = min(keys, max(LEAST_BLOCK, power_of_two(_assumed(attention.keys))))
    return Tiles(Kind.ATTENTION, rows, columns, keys, 4, 2, tf32=tf32 and not halves)


def key_split(attention: Attention, tiles: Tiles, target: GpuTarget) -> int:
    """Into how many parts attention divides its keys; of sizes that only a run knows, the fewest
    queries and many keys count: the run makes fewer parts of others."""
    rows, others, keys = (
        product(axis.extent for axis in axes)
        for axes in (attention.rows, attention.batch, attention.keys)
    )
    blocks = -(-rows // tiles.rows) if isinstance(rows, int) else 1
    blocks *= others if isinstance(others, int) else 1
    steps = -(-keys // tiles.depth) if isinstance(keys, int) else None
    return key_parts_of(blocks, steps, target)


def can_divide_rows(kernel: Kernel) -> bool:
    """Whether the reductions of rows may be divided: of one stage, of known sizes, of elements that
    registers hold as memory does."""
    stage = kernel.stages[0]
    axes = (*stage.axes, *stage.reduce_axes)
    kinds = {(r.kind in _DIVIDED, r.body.dtype) for r in stage.reductions}
    known = all(isinstance(axis.extent, int) for axis in axes)
    return (
        len(kernel.stages) == 1
        and bool(stage.reduce_axes)
        and known
        and digits_of(stage) is None
        and len(kinds) == 1
        and all(divided and dtype in _WIDE for divided, dtype in kinds)
    )


def row_split_of(kernel: Kernel, tiles: Tiles, target: GpuTarget) -> int:
    """Into how many parts the reductions of rows are divided."""
    if not can_divide_rows(kernel):
        return 1
    stage = kernel.stages[0]
    rows, total = (
        product(axis.extent for axis in axes) for axes in (stage.axes, stage.reduce_axes)
    )
    assert isinstance(rows, int)
    assert isinstance(total, int)
    return row_parts_of(-(-rows // tiles.rows), -(-total // tiles.columns), target)


def _row_tiles(kernel: Kernel) -> Tiles:
    totals = [product(a.extent for a in columns_of(kernel, stage)) for stage in kernel.stages]
    longest = max(total if isinstance(total, int) else MAX_ROW + 1 for total in totals)
    rows = _assumed(kernel.stages[0].axes[: shared_axes(kernel)])
    if longest <= MAX_ROW and len(kernel.stages) > 1:
        columns = power_of_two(longest)
    else:
        columns = min(power_of_two(longest), _steps(kernel, rows))
    block = max(1, min(power_of_two(rows), ELEMENTS // columns))
    if columns == 1:
        block = min(block, POINTS)
    while rows < MULTIPROCESSORS * block and block * columns > LEAST_ELEMENTS and block > 1:
        block //= 2
    return Tiles(Kind.ROWS, block, columns, 1, 8 if block * columns > ELEMENTS else 4)


def _steps(kernel: Kernel, rows: int) -> int:
    """Steps of a reduction at once: many where its elements lie side by side; one where enough
    rows do, of which every thread then adds up its own (windows of pooling, depthwise products).
    """
    stage = kernel.stages[0]
    if digits_of(stage):
        return WORDS
    last = stage.reduce_axes[-1].name if stage.reduce_axes else ""
    along: list[Dim | None] = [
        operand.stride(last) for operand in contraction_for(stage).operands if operand.along(last)
    ]
    if len(kernel.stages) > 1 or 1 in along:
        return 1024
    return 1 if stage.reduce_axes and rows >= MANY_ROWS else 16
