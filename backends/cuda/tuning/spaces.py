"""Spaces of tiles: what each part of a kernel may be tuned to, and how long that is predicted to
take.

Predictions of products are those by which tiles are chosen. Those of attention, reductions and
points say in which order candidates are worth trying, no more: whether one is faster only a GPU
tells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

from ....compiler.ir.dims import evaluate
from ....compiler.ir.dims import product as product_of_dims
from ....compiler.kernel.kernel import Axis, Kernel
from ....compiler.kernel.schedule.tiles import Kind, Tiles
from ....compiler.target import GpuTarget
from ..alternatives import adds_equally
from ..attention_kernel import Attention, attention_of
from ..candidates import (
    CACHE_BYTES,
    ISSUE,
    KEY_STEP,
    LATENCY,
    LEAST_PART,
    MOST_KEY_PARTS,
    MOST_SUMS,
    OTHER_REGISTERS,
    PARTS,
    ROW_STEP,
    START,
    Problem,
    Taken,
    blocks_of,
    every,
    launch_cycles,
    predicted,
    programs_at_once,
)
from ..choosing import TENSOR_MAPS
from ..dots import digits_of
from ..emit.types import HALVES
from ..tiles import (
    LEAST_BLOCK,
    MAX_ROW,
    can_divide_rows,
    columns_of,
    main_of,
    power_of_two,
    problem_of_part,
    shared_axes,
)

EXPONENTIALS = 16  # per cycle and multiprocessor (throughput table, CUDA C++ Programming Guide)
QUERIES, KEYS, KEY_STAGES = (16, 32, 64, 128), (16, 32, 64, 128), (1, 2, 3)
ROW_ELEMENTS, ROW_WARPS = (256, 8192), (2, 4, 8)  # of a program: the fewest and the most
POINT_COLUMNS = (128, 256, 512, 1024, 2048)
_ORDERLESS = ("max", "min", "argmax", "argmin")  # reductions that have one result in any order
Sizes = Mapping[str, int]


class TileSpace(Protocol):
    """Tiles of one part of a kernel. rate: what multiplies; "f32" where nothing does."""

    @property
    def rate(self) -> str:
        """By the names of `candidates.py`."""
        ...

    @property
    def ranks(self) -> bool:
        """Whether predictions decide where nothing is measured."""
        ...

    def tiles(self, target: GpuTarget) -> Iterator[Tiles]:
        """All that are worth trying."""
        ...

    def cycles(self, tiles: Tiles, target: GpuTarget, taken: Taken | None = None) -> float:
        """Predicted of all launches. taken: by the code of the tiles."""
        ...

    def adds_equally(self, one: Tiles, other: Tiles) -> bool:
        """Whether results are the same, bit for bit."""
        ...


@dataclass(frozen=True)
class ProductSpace:
    """Of a contraction. maps: whether its factors may come by tensor maps. busy: programs that keep
    the target busy, where only a run knows how many results there are; else 1."""

    problem: Problem
    maps: bool
    busy: int
    ranks: bool = True

    @property
    def rate(self) -> str:
        """Of the problem."""
        return self.problem.rate

    def tiles(self, target: GpuTarget) -> Iterator[Tiles]:
        """Blocks, and programs that go over several of them, from the architecture on that has
        tensor maps, with these too."""
        for tiles in every(self.problem, target):
            yield tiles
            few = blocks_of(self.problem, tiles) <= target.sms
            if TENSOR_MAPS in target.instructions and tiles.split == 1 and not few:
                persistent = replace(tiles, programs=target.sms)
                yield persistent
                if self.maps:
                    yield replace(persistent, maps=True)

    def cycles(self, tiles: Tiles, target: GpuTarget, taken: Taken | None = None) -> float:
        """See `candidates.predicted`."""
        parts = tiles.split
        if self.busy > 1:
            parts = min(parts, max(1, self.busy // max(1, blocks_of(self.problem, tiles))))
        return predicted(self.problem, replace(tiles, split=parts), target, taken)

    def adds_equally(self, one: Tiles, other: Tiles) -> bool:
        """See `alternatives.adds_equally`."""
        return adds_equally(self.problem, one, other)


@dataclass(frozen=True)
class AttentionSpace:
    """Of so many matrices of queries, keys, elements of either, and elements of a value.

    halves: whether they are of two bytes. usual: the tiles that the part has.
    """

    matrices: int
    queries: int
    keys: int
    depth: int
    columns: int
    halves: bool
    usual: Tiles
    ranks: bool = False

    @property
    def rate(self) -> str:
        """What multiplies scores and values."""
        return "f16" if self.halves else "tf32" if self.usual.tf32 else "f32"

    def tiles(self, target: GpuTarget) -> Iterator[Tiles]:
        """Blocks of queries and keys, and parts of the keys."""
        for rows, depth, warps, stages in product(QUERIES, KEYS, (4, 8), KEY_STAGES):
            wide = rows >= 2 * max(LEAST_BLOCK, self.queries)
            long = depth >= 2 * max(LEAST_BLOCK, self.keys)
            full = rows * self.columns > MOST_SUMS * 32 * warps
            own = replace(self.usual, rows=rows, depth=depth, warps=warps, stages=stages, split=1)
            if wide or long or full or self._shared(own) > target.shared_bytes:
                continue
            yield own
            steps = math.ceil(self.keys / depth)
            for parts in PARTS:
                few = parts * self._blocks(own) <= 2 * target.sms
                if few and parts <= MOST_KEY_PARTS and parts * LEAST_PART <= steps:
                    yield replace(own, split=parts)

    def _shared(self, tiles: Tiles) -> int:
        bytes_ = 2 if self.halves else 4
        ahead = tiles.stages * tiles.depth * (self.depth + self.columns)
        return (ahead + tiles.rows * self.depth) * bytes_

    def _blocks(self, tiles: Tiles) -> int:
        return self.matrices * math.ceil(self.queries / tiles.rows)

    def cycles(self, tiles: Tiles, target: GpuTarget, taken: Taken | None = None) -> float:
        """Steps over keys, one behind the other: products, or exponentials of scores."""
        steps = math.ceil(self.keys / tiles.depth / tiles.split)
        each = tiles.rows * tiles.depth
        multiplied = each * (self.depth + self.columns) / dict(target.rates)[self.rate]
        read = tiles.depth * (self.depth + self.columns) * (2 if self.halves else 4) / CACHE_BYTES
        work = max(multiplied, read) + each / EXPONENTIALS
        alone = START + LATENCY + steps * max(KEY_STEP, work)
        sums = tiles.rows * (self.columns + tiles.depth) / (32 * tiles.warps)
        expected = Taken(OTHER_REGISTERS + sums, self._shared(tiles))
        programs = self._blocks(tiles) * tiles.split
        more = launch_cycles(target) if tiles.split > 1 else 0
        return _rounds(programs, alone, steps * work, tiles, target, taken or expected) + more

    def adds_equally(self, one: Tiles, other: Tiles) -> bool:
        """The tree in which the weights of a block of keys are added up follows from the block and
        its warps; blocks that are loaded ahead change nothing."""
        return replace(one, stages=other.stages) == other


@dataclass(frozen=True)
class RowSpace:
    """Of rows, whose longest stage has so many columns. passes: over them. kept: whether a row
    stays in registers, so that a block has all its columns. fixed: whether columns are."""

    rows: int
    longest: int
    passes: int
    kept: bool
    fixed: bool
    divides: bool
    orderless: bool
    usual: Tiles
    ranks: bool = False
    rate: str = "f32"

    def tiles(self, target: GpuTarget) -> Iterator[Tiles]:
        """Rows of a block, columns that are reduced at once, warps, and parts of reductions."""
        least, most = ROW_ELEMENTS
        columns = [self.usual.columns]
        if not self.kept and not self.fixed:
            longest = power_of_two(self.longest)
            columns = [1 << n for n in range(13) if 1 << n <= longest]
        for width, log, warps in product(columns, range(11), ROW_WARPS):
            rows = 1 << log
            wasted = rows >= 2 * max(1, self.rows)
            if wasted or not least <= rows * width <= most:
                continue
            own = replace(self.usual, rows=rows, columns=width, warps=warps, split=1)
            yield own
            for parts in PARTS if self.divides else ():
                few = parts * math.ceil(self.rows / rows) <= 2 * target.sms
                if few and parts * LEAST_PART <= math.ceil(self.longest / width):
                    yield replace(own, split=parts)

    def cycles(self, tiles: Tiles, target: GpuTarget, taken: Taken | None = None) -> float:
        """Steps along the rows, one behind the other."""
        steps = math.ceil(self.longest / tiles.columns / tiles.split)
        steps *= 1 if self.kept else self.passes
        each = tiles.rows * tiles.columns
        work = each * 4 / CACHE_BYTES + ISSUE / max(1, steps)
        alone = START + LATENCY + steps * max(ROW_STEP, work)
        expected = Taken(OTHER_REGISTERS + each / (32 * tiles.warps), 0)
        programs = math.ceil(self.rows / tiles.rows) * tiles.split
        more = launch_cycles(target) if tiles.split > 1 else 0
        return _rounds(programs, alone, steps * work, tiles, target, taken or expected) + more

    def adds_equally(self, one: Tiles, other: Tiles) -> bool:
        """The tree in which a block's columns are reduced follows from all its numbers."""
        return self.orderless or one == other


@dataclass(frozen=True)
class PointSpace:
    """Of so many points, each computed by itself."""

    points: int
    usual: Tiles
    ranks: bool = False
    rate: str = "f32"

    def tiles(self, target: GpuTarget) -> Iterator[Tiles]:
        """Points of a program, and warps."""
        for columns, warps in product(POINT_COLUMNS, ROW_WARPS):
            if columns < 2 * self.points and columns >= 32 * warps:
                yield replace(self.usual, columns=columns, warps=warps)

    def cycles(self, tiles: Tiles, target: GpuTarget, taken: Taken | None = None) -> float:
        """One load and one store of each."""
        work = tiles.columns * 8 / CACHE_BYTES + ISSUE
        alone = START + 2 * LATENCY + work
        expected = Taken(OTHER_REGISTERS + tiles.columns / (32 * tiles.warps), 0)
        programs = math.ceil(self.points / tiles.columns)
        return _rounds(programs, alone, work, tiles, target, taken or expected)

    def adds_equally(self, one: Tiles, other: Tiles) -> bool:
        """Nothing is added up."""
        return True


def _rounds(
    programs: int, alone: float, work: float, tiles: Tiles, target: GpuTarget, taken: Taken
) -> float:
    """Cycles of programs that take `alone` each by themselves, and `work` of a multiprocessor."""
    wanted = programs / target.sms
    together = min(programs_at_once(tiles, target, taken), max(1, math.ceil(wanted)))
    return math.ceil(wanted / together) * max(alone, together * work)


def space_of(kernel: Kernel, tiles: Tiles, sizes: Sizes, maps: bool, busy: int) -> TileSpace:
    """The space of a part of a kernel, at sizes of its symbols. maps: whether tensor maps may bring
    its factors. busy: programs that keep the target busy, of as many results as a run has.
    Raises InternalError where sizes are missing."""
    if tiles.kind is Kind.PRODUCT:
        return ProductSpace(problem_of_part(kernel, tiles, sizes), maps, busy)
    attention = attention_of(kernel) if tiles.kind is Kind.ATTENTION else None
    if attention is not None:
        return _attention_space(attention, tiles, sizes)
    if tiles.kind is Kind.POINTS:
        points = sum(_count(stage.axes, sizes) for stage in kernel.stages)
        return PointSpace(points, tiles)
    divides, kernel = can_divide_rows(kernel), main_of(kernel)
    totals = [_count(columns_of(kernel, stage), sizes) for stage in kernel.stages]
    reductions = [reduction.kind for stage in kernel.stages for reduction in stage.reductions]
    known = all(isinstance(axis.extent, int) for stage in kernel.stages
                for axis in (*stage.axes, *stage.reduce_axes))  # fmt: skip
    return RowSpace(
        rows=_count(kernel.stages[0].axes[: shared_axes(kernel)], sizes),
        longest=max(totals),
        passes=len(kernel.stages),
        kept=known and len(kernel.stages) > 1 and max(totals) <= MAX_ROW,
        fixed=any(digits_of(stage) for stage in kernel.stages),
        divides=divides,
        orderless=all(kind in _ORDERLESS for kind in reductions),
        usual=tiles,
    )


def _attention_space(attention: Attention, tiles: Tiles, sizes: Sizes) -> AttentionSpace:
    return AttentionSpace(
        matrices=_count(attention.batch, sizes),
        queries=_count(attention.rows, sizes),
        keys=_count(attention.keys, sizes),
        depth=attention.depth,
        columns=tiles.columns,
        halves=all(dot.elements in HALVES for dot in attention.dots),
        usual=tiles,
    )


def _count(axes: Sequence[Axis], sizes: Sizes) -> int:
    """Points along some axes. Raises InternalError for a symbol without a size."""
    return evaluate(product_of_dims(axis.extent for axis in axes), sizes)
