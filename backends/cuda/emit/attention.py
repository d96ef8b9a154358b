"""Attention in blocks of queries, which go over blocks of keys once: online softmax.

What was added up is scaled anew whenever a larger score comes: T. Dao et al., "FlashAttention",
https://arxiv.org/abs/2205.14135. Neither scores nor weights reach memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ....compiler.ir.dims import Dim, ceildiv, product
from ....compiler.ir.types import DType
from ....compiler.kernel.kernel import Kernel
from ....compiler.kernel.schedule.tiles import Tiles
from ..attention_kernel import Attention, attention_of
from ..tiles import power_of_two
from .attention_parts import LOW, KeyParts, key_parts
from .points import decode, part_of, program, rest_of, span
from .product import multiplied, operand
from .split import PART
from .text import Lines
from .types import HALVES, NoDeviceCode, register_type
from .values import DeviceTile, Pointers, Term
from .visible_keys import VisibleKeys

LEAST_DEPTH = 16  # of `tl.dot`


def emit_attention(
    lines: Lines,
    kernel: Kernel,
    tiles: Tiles,
    index: str,
    pointers: Pointers,
    names: Mapping[str, str],
) -> Dim:
    """Emit a kernel of attention; how many programs it takes.

    A weight is rounded to the type of the values before it is multiplied by them.
    """
    attention = attention_of(kernel)
    if attention is None:
        raise NoDeviceCode("it is no attention")
    env = {name: Term(text) for name, text in names.items()}
    depth = max(LEAST_DEPTH, power_of_two(attention.depth))

    def tile(**shape: int) -> DeviceTile:
        return DeviceTile(lines, shape, index, pointers, dict(env))

    block = _Block(
        attention,
        tiles,
        query=tile(m=tiles.rows, k=depth),
        key=tile(k=depth, n=tiles.depth),
        score=tile(m=tiles.rows, n=tiles.depth),
        value=tile(k=tiles.depth, n=tiles.columns),
        result=tile(m=tiles.rows, n=tiles.columns),
    )
    rows, blocks, count = _blocks_of(attention, tiles)
    number, parts = program(block.score), attention_parts(attention, tiles)
    if parts is not None:
        part = rest_of(block.score, number, count)
        number = part_of(block.score, number, count)
        block.score.env[PART] = block.result.env[PART] = part
    block.place(part_of(block.score, number, blocks), rest_of(block.score, number, blocks), rows)
    block.emit(kernel, parts)
    return count if parts is None else count * parts.parts


def attention_parts(attention: Attention, tiles: Tiles) -> KeyParts | None:
    """How the keys of an attention are divided; None: they are not."""
    return key_parts(attention, tiles, _blocks_of(attention, tiles)[2])


def _blocks_of(attention: Attention, tiles: Tiles) -> tuple[Dim, Dim, Dim]:
    """(queries of a matrix, blocks of them, blocks of all matrices together)."""
    rows = product(axis.extent for axis in attention.rows)
    blocks = ceildiv(rows, tiles.rows)
    return rows, blocks, blocks * product(axis.extent for axis in attention.batch)


@dataclass
class _Block:
    """One block of queries: the tiles of its operands, scores and results. row: its number among
    those of a matrix."""

    attention: Attention
    tiles: Tiles
    query: DeviceTile
    key: DeviceTile
    score: DeviceTile
    value: DeviceTile
    result: DeviceTile
    row: Term = field(default_factory=lambda: Term("0"))

    def place(self, row: Term, batch: Term, rows: Dim) -> None:
        """Give the shared axes their values, which the stages of scores and results both name."""
        attention, self.row = self.attention, row
        others = (self.query, self.key, self.score, self.value, self.result)
        for tile in others:
            decode(tile, batch, attention.batch)
        for tile in (self.query, self.score, self.result):
            decode(tile, span(tile, "m", row, rows), attention.rows)
        for own, other in zip(attention.scores.axes, attention.result.axes, strict=False):
            if own in attention.keys:
                continue
            for tile in others:
                if own.name in tile.env:
                    tile.env[other.name] = tile.env[own.name]

    def emit(self, kernel: Kernel, parts: KeyParts | None) -> None:
        """The loop over the keys or a part of them, and the stores behind it."""
        lines, rows = self.score.lines, self.tiles.rows
        scores, result = self.attention.scores, self.attention.result
        for tile in (self.query, self.key):
            decode(tile, span(tile, "k", None, self.attention.depth), scores.reduce_axes)
        for tile in (self.value, self.result):
            points = span(tile, "n", None, self.attention.columns)
            decode(tile, points, self.attention.value_axes)
        query = operand(self.query, self.attention.factors[0], self.attention.dots[0].elements)
        lines.add(f"largest = tl.full([{rows}, 1], {LOW}, tl.float32)")
        lines.add(f"total = tl.zeros([{rows}, 1], tl.float32)")
        lines.add(f"acc = tl.zeros([{rows}, {self.tiles.columns}], tl.float32)")
        keys = product(axis.extent for axis in self.attention.keys)
        steps = ceildiv(keys, self.tiles.depth)
        if isinstance(keys, int) and keys <= self.tiles.depth and parts is None:
            self._step(query, None, keys)
        else:
            first, last = self._range(steps, parts)
            with lines.block(f"for step in range({first}, {last}):"):
                self._step(query, Term("step"), keys)
        _, largest, total, _ = (stage.stores[0].buffer.name for stage in kernel.stages)
        self.result.registers = {
            largest: Term("largest", frozenset({"m"})),
            total: Term("total", frozenset({"m"})),
        }
        self.result.accumulators = [Term("acc", frozenset({"m", "n"}))]
        if parts is None:
            self.result.store_all(result.stores)
        else:
            parts.store(self.result)

    def _range(self, steps: Dim, parts: KeyParts | None) -> tuple[str, str]:
        """(first, behind the last) of the steps that the program takes."""
        lines, depth, count = self.score.lines, self.tiles.depth, self.score.offset(steps).text
        if self.tiles.looks:
            return VisibleKeys(self.attention, self.tiles, self.score).emit(parts)
        if parts is not None:
            return parts.steps(self.score, steps)
        if self.tiles.band is None:
            return "0", count
        behind, ahead, first, last = self.tiles.band
        query = lines.let(f"{self.row.text} * {self.tiles.rows}")
        low = lines.let(f"tl.maximum({query} - {behind}, {first}) // {depth}")
        high = f"tl.minimum({query} + {self.tiles.rows - 1 + ahead}, {last})"
        return low, lines.let(f"tl.maximum({high} + {depth}, 0) // {depth}")

    def _step(self, query: str, block: Term | None, keys: Dim) -> None:
        """Take a block of keys into account."""
        lines, attention, score = self.score.lines, self.attention, self.score
        for tile, dim, axes in (
            (self.key, "n", attention.keys),
            (score, "n", attention.keys),
            (self.value, "k", attention.result.reduce_axes),
        ):
            decode(tile, span(tile, dim, block, keys), axes)
        of_scores, of_results = attention.dots
        key = operand(self.key, attention.factors[1], of_scores.elements)
        shape = f"[{self.tiles.rows}, {self.tiles.depth}]"
        zeros = f"tl.zeros({shape}, tl.float32)"
        dims = frozenset({"m", "n"})
        product_of = multiplied(of_scores, self.tiles, query, key, zeros)
        score.accumulators = [Term(lines.let(product_of), dims)]
        value = score.value(attention.scores.stores[0].value)
        text = score.widened(value, DType.F32)
        if mask := score.masks["n"]:
            text = f"tl.where({mask}, {text}, {LOW})"
        scores = lines.let(text)
        best = lines.let(f"ts_max(largest, tl.reduce({scores}, 1, ts_max, keep_dims=True))")
        safe = lines.let(f"tl.where({best} == {LOW}, 0.0, {best})")
        halves = of_results.elements in HALVES
        exp = "tl.exp" if halves else "libdevice.exp"
        weights = lines.let(f"{exp}({scores} - {safe})")
        scale = lines.let(f"{exp}(largest - {safe})")
        lines.add(f"total = total * {scale} + tl.sum({weights}, axis=1, keep_dims=True)")
        values = operand(self.value, attention.factors[2], of_results.elements)
        if halves:
            weights = lines.let(f"{weights}.to({register_type(of_results.elements)})")
        before = f"acc * {scale}"
        lines.add(f"acc = {multiplied(of_results, self.tiles, weights, values, before)}")
        lines.add(f"largest = {best}")
