"""Attention over parts of the keys: of few queries and many keys, so that a GPU is busy.

A program leaves the largest score of each of its queries, the sum of the weights by it, and the
values that they weigh; a second function brings the parts to one largest score and adds them up:
T. Dao, D. Haziza, F. Massa, G. Sizov, "Flash-Decoding for long-context inference", 2023,
https://crfm.stanford.edu/2023/10/12/flashdecoding.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....compiler.ir.dims import Dim, ceildiv, dmax, dmin, floordiv, product, symbol
from ....compiler.ir.types import DType
from ....compiler.kernel.expr import Acc, Load
from ....compiler.kernel.kernel import Kernel, Store, linear_of
from ....compiler.kernel.schedule.tiles import Tiles
from ..attention_kernel import Attention
from ..candidates import LEAST_KEY_STEPS
from .points import decode, program, span
from .split import PART, TOTAL, Division, most_parts
from .text import Lines
from .values import DeviceTile, Pointers, Term

LOW = 'float("-inf")'


@dataclass(frozen=True)
class KeyParts(Division):
    """How the keys of an attention are divided."""

    attention: Attention

    @property
    def queries(self) -> Dim:
        """Of all matrices together."""
        return product(axis.extent for axis in (*self.attention.batch, *self.attention.rows))

    @property
    def query(self) -> Dim:
        """The number of a query among all, by the names that the stage of results has."""
        axes = self.stage.axes
        return linear_of(axes[: len(axes) - len(self.attention.value_axes)])

    def place(self, part: Dim, column: Dim) -> Dim:
        """Where a part of a query lies: its largest score (column -2), the sum of its weights (-1),
        an element of the values."""
        width = self.attention.columns + 2
        return (part * self.queries + self.query) * width + column + 2

    def store(self, tile: DeviceTile) -> None:
        """Store what a program has of its queries; `tile` is that of results."""
        part = symbol(PART)
        column = linear_of(self.attention.value_axes)
        values = Store(self.buffer, self.place(part, column), Acc(0, self.dtype))

        def store() -> None:
            for number, name in enumerate(("largest", "total")):
                at = self.place(part, number - 2)
                text = Term(name, frozenset({"m"}))
                given = Store(self.buffer, at, Acc(0, self.dtype))
                tile.lines.add(tile.stored(given, text, tile.address(at, (), None), None))
            tile.store(values)

        self.store_either(tile, store)


def key_parts(attention: Attention, tiles: Tiles, blocks: Dim) -> KeyParts | None:
    """How keys are divided for so many blocks of queries; None: they are not.

    Of keys that only a run counts every part has enough to be worth it.
    """
    if tiles.split == 1:
        return None
    keys = product(axis.extent for axis in attention.keys)
    stage, width = attention.result, DType.F32.bytes * (attention.columns + 2)
    parts: Dim = tiles.split
    queries = product(axis.extent for axis in (*attention.batch, *attention.rows))
    size = tiles.busy * tiles.rows
    if isinstance(queries, int):
        size = tiles.split * queries
    else:
        parts = most_parts(tiles, blocks)
    if not isinstance(keys, int):
        steps = ceildiv(keys, tiles.depth)
        parts = dmin(parts, dmax(1, floordiv(steps, LEAST_KEY_STEPS)))
    return KeyParts(stage, parts, DType.F32, size * width, attention)


def emit_combined(
    lines: Lines,
    kernel: Kernel,
    found: KeyParts,
    halves: bool,
    index: str,
    pointers: Pointers,
    names: Mapping[str, str],
) -> Dim:
    """Emit the function that puts the parts of results together; how many programs it takes."""
    env = {name: Term(text) for name, text in names.items()}
    tile = DeviceTile(lines, {"i": TOTAL.columns}, index, pointers, env)
    axes = found.stage.axes
    points = product(axis.extent for axis in axes)
    decode(tile, span(tile, "i", program(tile), points), axes)
    column = linear_of(found.attention.value_axes)
    exp = "tl.exp" if halves else "libdevice.exp"
    count = tile.offset(found.parts).text
    tile.env[PART] = Term("part")

    def loaded(at: Dim) -> str:
        return tile.value(Load(found.buffer, found.place(symbol(PART), at))).text

    shape = f"[{TOTAL.columns}]"
    lines.add(f"largest = tl.full({shape}, {LOW}, tl.float32)")
    with lines.block(f"for part in range(0, {count}):"):
        lines.add(f"largest = ts_max(largest, {loaded(-2)})")
    safe = lines.let(f"tl.where(largest == {LOW}, 0.0, largest)")
    for name in ("total", "acc"):
        lines.add(f"{name} = tl.zeros({shape}, tl.float32)")
    with lines.block(f"for part in range(0, {count}):"):
        scale = lines.let(f"{exp}({loaded(-2)} - {safe})")
        lines.add(f"total += {loaded(-1)} * {scale}")
        lines.add(f"acc += {loaded(column)} * {scale}")
    _, of_largest, of_total, _ = (stage.stores[0].buffer.name for stage in kernel.stages)
    dims = frozenset({"i"})
    tile.registers = {of_largest: Term("largest", dims), of_total: Term("total", dims)}
    tile.accumulators = [Term("acc", dims)]
    tile.store_all(found.stage.stores)
    return found.programs(points)
