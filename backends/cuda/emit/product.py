"""Contractions: tiles of results, added up over the depth by `tl.dot`, with their epilogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ....compiler.ir.dims import Dim, ceildiv, dmin, product
from ....compiler.ir.ops.packed import DIGITS
from ....compiler.ir.types import DType
from ....compiler.kernel.expr import Apply, Const, Expr, Guarded, Load
from ....compiler.kernel.kernel import Axis, Kernel, Stage
from ....compiler.kernel.schedule.tiles import Tiles
from ..dots import Dot, contraction_for, digits_of, dot_of, element_of, is_small, narrow
from ..tiles import rows_of
from .points import decode, part_of, program, rest_of, span
from .row_prologue import RowPrologue
from .scalar import cast
from .split import PART, Split, split_of
from .tensor_maps import TensorMaps
from .text import Lines
from .types import FLOAT_BYTES, register_type
from .values import DeviceTile, Pointers, Term

MOST_IMPRECISE = 128  # products of 8-bit floats that are added up in fewer bits than f32 has


def emit_product(
    lines: Lines,
    kernel: Kernel,
    tiles: Tiles,
    index: str,
    pointers: Pointers,
    names: Mapping[str, str],
) -> Dim:
    """Emit a kernel of one stage whose reductions are products; how many programs it takes.

    f32 is multiplied and added up in f32 (`ieee`), or rounded to tf32 before; halves and bytes are
    multiplied exactly, and added up in f32 and i32.
    """
    stage = kernel.stages[-1]
    env = {name: Term(text) for name, text in names.items()}
    split = product_split(stage, tiles)
    count = _blocks_of(stage, tiles)[2] * (1 if split is None else split.parts)
    shape = {"m": tiles.rows, "n": tiles.columns}
    tile = DeviceTile(lines, shape, index, pointers, env)
    first = program(tile)
    if not tiles.programs:
        _emit_block(tile, kernel, tiles, first, split, None)
        return count
    maps = TensorMaps.emit(tile, kernel, tiles) if tiles.maps else None
    last = tile.offset(count).text
    with lines.block(f"for block in range({first.text}, {last}, {tiles.programs}):"):
        _emit_block(tile, kernel, tiles, Term("block"), split, maps)
    return dmin(count, tiles.programs)


def _emit_block(
    tile: DeviceTile,
    kernel: Kernel,
    tiles: Tiles,
    number: Term,
    split: Split | None,
    maps: TensorMaps | None,
) -> None:
    """Emit what computes one block of results, or a part of its sums, by its number."""
    *before, stage = kernel.stages
    contraction = contraction_for(stage)
    groups = rows_of(stage, contraction), contraction.columns
    sizes, blocks, count = _blocks_of(stage, tiles)
    lines, index, pointers, env = tile.lines, tile.index, tile.pointers, tile.env
    if split is not None:
        env[PART], number = rest_of(tile, number, count), part_of(tile, number, count)
    row, column, batch = _blocks(tile, number, blocks, tiles.group)
    decode(tile, batch, contraction.batch)
    left = DeviceTile(lines, {"m": tiles.rows, "k": tiles.depth}, index, pointers, dict(env))
    right = _right(lines, stage, tiles, index, pointers, env)
    for part, dim, block in ((left, "m", row), (tile, "m", row), (right, "n", column),
                             (tile, "n", column)):  # fmt: skip
        which = 0 if dim == "m" else 1
        decode(part, span(part, dim, block, sizes[which]), groups[which])
    prologue = None
    if before:
        first = tile.named(f"tl.zeros([1, 1], tl.int32) + {column.text} == 0")
        prologue = RowPrologue(before, stage, None if blocks[1] == 1 else first)
        prologue.emit(tiles, left, row, env)
    mapped = partial(maps.load, left, row, column) if maps else None
    tile.accumulators = _sums(stage, tiles, left, right, prologue, split, mapped)
    if split is None:
        tile.store_all(stage.stores)
    else:
        split.store(tile)


def product_split(stage: Stage, tiles: Tiles) -> Split | None:
    """How the sums of a product are divided; None: they are not."""
    return split_of(stage, tiles, _blocks_of(stage, tiles)[2], _dot(stage).total)


def _blocks_of(stage: Stage, tiles: Tiles) -> tuple[list[Dim], list[Dim], Dim]:
    """(rows and columns of a product, blocks of either, blocks of all matrices together)."""
    contraction = contraction_for(stage)
    groups = rows_of(stage, contraction), contraction.columns
    sizes = [product(axis.extent for axis in group) for group in groups]
    shape = tiles.rows, tiles.columns
    blocks = [ceildiv(size, block) for size, block in zip(sizes, shape, strict=True)]
    return sizes, blocks, product([*blocks, *(axis.extent for axis in contraction.batch)])


def _dot(stage: Stage) -> Dot:
    dot = dot_of(stage.reductions[0])
    assert dot is not None
    return dot


def _blocks(
    tile: DeviceTile, number: Term, counts: Sequence[Dim], group: int
) -> tuple[Term, Term, Term]:
    """(row, column, batch) of a program's block: neighbours go through columns, or where rows are
    in groups through those of a group, so that what they share is read once."""
    rows, columns = counts
    if group == 1:
        column, rest = part_of(tile, number, columns), rest_of(tile, number, columns)
        return part_of(tile, rest, rows), column, rest_of(tile, rest, rows)
    count = rows * columns
    within, batch = part_of(tile, number, count), rest_of(tile, number, count)
    around = tile.offset(columns * group)
    first = tile.named(f"{within.text} // {around.text} * {group}", within)
    height = tile.named(f"tl.minimum({tile.offset(rows).text} - {first.text}, {group})", first)
    place = tile.named(f"{within.text} % {around.text}", within)
    row = tile.named(f"{first.text} + {place.text} % {height.text}", first, place)
    return row, tile.named(f"{place.text} // {height.text}", place, height), batch


def multiplied(dot: Dot, tiles: Tiles, a: str, b: str, total: str) -> str:
    """total + a @ b of factors that are the dot's elements."""
    options = f"out_dtype={register_type(dot.total)}"
    if dot.elements is DType.F32:
        options += f', input_precision="{"tf32" if tiles.tf32 else "ieee"}"'
    if tiles.fp8:  # else 9.0 adds up in fewer bits than f32 has
        options += f", max_num_imprecise_acc={min(MOST_IMPRECISE, tiles.depth)}"
    return f"tl.dot({a}, {b}, {total}, {options})"


def factor_type(dot: Dot, tiles: Tiles) -> DType:
    """The elements that `tl.dot` is given: those of the dot, but for 8-bit floats that no tensor
    core takes."""
    halves = dot.elements in FLOAT_BYTES and not tiles.fp8
    return DType.F16 if halves else dot.elements


def _sums(
    stage: Stage,
    tiles: Tiles,
    left: DeviceTile,
    right: DeviceTile,
    prologue: RowPrologue | None,
    split: Split | None,
    mapped: Callable[[Term | None], tuple[str, str]] | None,
) -> list[Term]:
    """The accumulators of all products, behind the loop over the depth or a part of it. mapped:
    loads both factors of a step by tensor maps."""
    lines, dot = left.lines, _dot(stage)
    total = register_type(dot.total)
    zeros = f"tl.zeros([{tiles.rows}, {tiles.columns}], {total})"
    sums = [f"acc{number}" for number in range(len(stage.reductions))]
    for name in sums:
        lines.add(f"{name} = {zeros}")

    outer, inner = _loops(stage.reduce_axes, tiles.depth)
    depth, run = (product(axis.extent for axis in axes) for axes in (stage.reduce_axes, inner))

    def step(block: Term | None) -> None:
        if mapped is not None:
            a, b = mapped(block)
            lines.add(f"{sums[0]} = {multiplied(dot, tiles, a, b, sums[0])}")
            return
        for part, packed in zip((left, right), tiles.packed, strict=True):
            within = block
            if outer and block is not None:
                count = Term(str(ceildiv(run, tiles.depth)))
                decode(part, part.named(f"{block.text} // {count.text}", block), outer)
                within = part.named(f"{block.text} % {count.text}", block)
            points = span(part, "k", within, run if outer else packed or depth)
            decode(part, points, inner)
        if isinstance(right, NumberTile):
            right.place_words(within, inner, outer)
        for name, reduction in zip(sums, stage.reductions, strict=True):
            assert isinstance(reduction.body, Apply)
            sides = zip((left, right), reduction.body.args, strict=True)
            a, b = (operand(side, factor, factor_type(dot, tiles)) for side, factor in sides)
            if reduction.factor is None:
                lines.add(f"{name} = {multiplied(dot, tiles, a, b, name)}")
                continue
            scale = right.value(reduction.factor)
            lines.add(f"{name} += {multiplied(dot, tiles, a, b, zeros)} * {scale.text}")
        if prologue is not None:
            prologue.store(left)

    steps = ceildiv(depth, tiles.depth)
    if split is None and isinstance(depth, int) and depth <= tiles.depth:
        step(None)
    else:
        first, last = (
            ("0", left.offset(steps).text) if split is None else (split.steps(left, steps))
        )
        with lines.block(f"for step in range({first}, {last}):"):
            step(Term("step"))
    return [Term(name, frozenset({"m", "n"})) for name in sums]


def _right(
    lines: Lines,
    stage: Stage,
    tiles: Tiles,
    index: str,
    pointers: Pointers,
    env: Mapping[str, Term],
) -> DeviceTile:
    """The tile of right factors; of numbers in words it has one of words, too."""
    shape = {"k": tiles.depth, "n": tiles.columns}
    digits = digits_of(stage)
    if digits is None:
        return DeviceTile(lines, shape, index, pointers, dict(env))
    assert isinstance(digits.extent, int)
    fewer = {**shape, "k": tiles.depth // digits.extent}
    words = DeviceTile(lines, fewer, index, pointers, dict(env))
    return NumberTile(lines, shape, index, pointers, dict(env), words=words)


@dataclass
class NumberTile(DeviceTile):
    """A tile of numbers that come out of words: all those of a word at once.

    words: the tile of these, which has fewer steps.
    """

    words: DeviceTile = field(kw_only=True)

    def place_words(
        self, block: Term | None, inner: tuple[Axis, ...], outer: tuple[Axis, ...]
    ) -> None:
        """Give the axes of the words their values, in a step whose block is known."""
        for name, value in self.env.items():
            self.words.env.setdefault(name, value)
        for axis in outer:
            self.words.env[axis.name] = self.env[axis.name]
        self.words.masks["n"] = self.masks["n"]
        total = product(axis.extent for axis in inner[:-1])
        decode(self.words, span(self.words, "k", block, total), inner[:-1])

    def value(self, expr: Expr, guard: Term | None = None) -> Term:
        """An expression; a number of words is that of every place."""
        if isinstance(expr, Apply) and expr.op in DIGITS:
            word = self.words.widened(self.words.value(expr.args[0], guard), DType.U32)
            numbers = f"ts_digits({word}, {DIGITS[expr.op]}).to(tl.float32)"
            return Term(self.lines.let(numbers), frozenset(self.shape))
        return super().value(expr, guard)


def _loops(axes: tuple[Axis, ...], depth: int) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """(axes of which a step has one point each, axes that the points of a step run along).

    The latter are the fewest last ones that steps divide, so that nothing has to be masked, and
    places within a step need no division; all where there are none.
    """
    for number in range(len(axes) - 1, 0, -1):
        run = product(axis.extent for axis in axes[number:])
        if isinstance(run, int) and run and run % depth == 0:
            return axes[:number], axes[number:]
    return (), axes


def operand(tile: DeviceTile, factor: Expr, elements: DType) -> str:
    """A factor along both dimensions of its tile, zero behind the depth."""
    if element_of(factor) is elements or element_of(factor) in FLOAT_BYTES:
        factor = narrow(factor)
    value = tile.value(factor)
    text = tile.widened(value, factor.dtype)
    if elements is not factor.dtype and (is_small(factor) or factor.dtype in FLOAT_BYTES):
        text = cast(text, factor.dtype, elements)
        factor = Apply("cast", (factor,), elements)
    mask = tile.masks["k"]
    if mask and not ("k" in value.dims and _zero_outside(factor)):
        zeros = f"tl.zeros({tile.shape_of(frozenset(tile.shape))}, {register_type(factor.dtype)})"
        text = f"tl.where({mask}, {text}, {zeros})"
    if elements in FLOAT_BYTES:
        text = f"{tile.lines.let(text)}.to({FLOAT_BYTES[elements]}, bitcast=True)"
    return tile.lines.let(text)


def _zero_outside(factor: Expr) -> bool:
    """Whether masked loads make the factor zero."""
    if isinstance(factor, Guarded):
        plain = isinstance(factor.other, Const) and factor.other.value == 0
        return plain and isinstance(factor.value, Load)
    if isinstance(factor, Apply) and factor.op == "cast":
        return _zero_outside(factor.args[0])
    return isinstance(factor, Load) and factor.buffer.local is None
