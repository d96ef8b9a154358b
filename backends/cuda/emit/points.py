"""Stages without reductions: every point by itself, in blocks; of several stages, each has
programs of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ....compiler.ir.dims import Dim, ceildiv, product
from ....compiler.kernel.kernel import Axis, Kernel, Stage
from ....compiler.kernel.schedule.tiles import Tiles
from .text import Lines
from .values import DeviceTile, Pointers, Term


def emit_points(
    lines: Lines,
    kernel: Kernel,
    tiles: Tiles,
    index: str,
    pointers: Pointers,
    names: Mapping[str, str],
) -> Dim:
    """Emit a kernel of stages that need none of each other; how many programs it takes."""
    env = {name: Term(text) for name, text in names.items()}

    def tile() -> DeviceTile:
        return DeviceTile(lines, {"i": tiles.columns}, index, pointers, dict(env))

    return _emit_stages(tile, program(tile()), kernel.stages)


def _emit_stages(make: Callable[[], DeviceTile], number: Term, stages: Sequence[Stage]) -> Dim:
    """Emit stages for the programs from `number` on, in their order; how many these are."""
    tile, (stage, *others) = make(), stages
    total = product(axis.extent for axis in stage.axes)
    count = ceildiv(total, tile.shape["i"])
    if not others:
        _emit_points(tile, number, stage, total)
        return count
    end = tile.offset(count).text
    with tile.lines.block(f"if {number.text} < {end}:"):
        _emit_points(tile, number, stage, total)
    with tile.lines.block("else:"):
        return count + _emit_stages(make, tile.named(f"{number.text} - {end}"), others)


def _emit_points(tile: DeviceTile, number: Term, stage: Stage, total: Dim) -> None:
    """Emit the points of block `number` of a stage, which has that many at least."""
    points = span(tile, "i", number, total)
    decode(tile, points, stage.axes, some=True)
    for store in stage.stores:
        tile.store(store)


def program(tile: DeviceTile) -> Term:
    """The number of the program."""
    text = "tl.program_id(0)"
    return Term(tile.lines.let(text if tile.index == "tl.int32" else f"{text}.to({tile.index})"))


def part_of(tile: DeviceTile, number: Term, count: Dim) -> Term:
    """The place of a number among `count` neighbouring ones."""
    if count == 1:
        return Term("0")
    return tile.named(f"{number.text} % {tile.offset(count).text}")


def rest_of(tile: DeviceTile, number: Term, count: Dim) -> Term:
    """Which group of `count` neighbouring ones a number is in."""
    return number if count == 1 else tile.named(f"{number.text} // {tile.offset(count).text}")


def span(tile: DeviceTile, dim: str, block: Term | None, total: Dim) -> Term:
    """The points of a block along a dimension, which has `total` of them; sets their mask."""
    vector = tile.vector(dim)
    size = tile.shape[dim]
    if isinstance(total, int) and total <= size:
        block = None
    text = vector if block is None else f"{block.text} * {size} + {vector}"
    points = Term(tile.lines.let(text), frozenset({dim}))
    tile.masks[dim] = ""
    if not isinstance(total, int) or not total or total % size:
        tile.masks[dim] = tile.lines.let(f"{points.text} < {tile.offset(total).text}")
    return points


def decode(tile: DeviceTile, points: Term, axes: Sequence[Axis], *, some: bool = False) -> None:
    """Give axes their values at points that count through all of them, the last one fastest.

    some: whether there are points wherever a program runs, so that no extent is 0.
    """
    rest = points
    tile.runs = [run for run in tile.runs if run[0][-1:] != tuple(axes[-1:])]
    if len(axes) > 1:
        tile.runs.append((tuple(axes), points))
    for position, axis in reversed(list(enumerate(axes))):
        if position == 0:
            tile.env[axis.name] = rest
            break
        extent = tile.offset(axis.extent)
        divisor = extent.text
        if not isinstance(axis.extent, int) and not some:
            divisor = tile.lines.let(f"tl.maximum({extent.text}, 1)")
        tile.env[axis.name] = tile.named(f"{rest.text} % {divisor}", rest)
        rest = tile.named(f"{rest.text} // {divisor}", rest)
