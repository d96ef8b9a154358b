"""Tiles of products that are worth trying, by what a GPU is predicted to take for them.

A model of one launch, in cycles: programs run in rounds on the multiprocessors, several on each as
far as shared memory and registers allow; a program multiplies, reads its factors from the
second-level cache by way of shared memory, and waits for what it has not asked for early enough.
Its constants are typical figures of compute capability 8.0 to 12.0; nothing of it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from ...compiler.ir.types import DType
from ...compiler.kernel.schedule.tiles import Tiles
from ...compiler.target import GpuTarget
from .dots import Dot

ROWS, COLUMNS, WARPS, STAGES = (16, 32, 64, 128), (16, 32, 64, 128, 256), (4, 8), (3, 4)
WIDEST = 16  # bytes that a thread copies at once
TENSOR_ROWS = 64  # of a group of four warps (`wgmma`, `tcgen05`)
GROUP = 8  # rows of blocks that neighbouring programs go through together
MOST_SUMS, MOST_EXACT_SUMS = 128, 64  # of a thread: more leave no registers for factors
OTHER_REGISTERS = 56  # of a thread, beside its sums
MOST_THREADS, MOST_PROGRAMS = 2048, 16  # on a multiprocessor
START, LATENCY, STEP = 900, 450, 40  # cycles: of a program, of a load, of a step of its loop
ISSUE = 300  # cycles of a multiprocessor for what a program does besides
# Seconds that one more launch takes beside its work, assumed: 1.3e-6 are reported of an empty one,
# in a CUDA graph, on an H100 (Hazy Research, "Look Ma, No Bubbles!", 2025), and for about as long
# memory idles while the launch before ends and this one begins.
LAUNCH = 2.5e-6
SAVES, SHARE = 10000, 0.5  # what parts of sums have to save: so many cycles, or so much of all
PARTS, LEAST_PART = (2, 3, 4, 6, 8, 12, 16), 2  # of a sum; steps of each
SUM_BYTES = 4  # of a part
KEY_STEP = 700  # cycles of a step of attention: two products, one behind the other, and weights
ROW_STEP = 600  # cycles of a step of a reduction: a load, and what is made of it; not measured
MOST_KEY_PARTS = 32
LEAST_KEY_STEPS = 8  # of each part of the keys, where only a run counts them
SHARED_BYTES, CACHE_BYTES = 128, 48  # per cycle and multiprocessor
RATES = {DType.F32: "f32", DType.F16: "f16", DType.BF16: "f16", DType.I8: "i8",
         DType.F8E4M3FN: "f8", DType.F8E5M2: "f8"}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A product: rows by columns, sums of `depth` products, so often (`batch`), `beside` of them
    at once, of which each result is stored in so many bytes. usual: tiles whose steps, and how
    they are computed, all candidates have. unknown: whether a run tells how many results there are,
    for which sizes are assumed here. whole: whether sums are not to be divided.
    """

    rows: int
    columns: int
    depth: int
    batch: int
    beside: int
    dot: Dot
    result_bytes: int
    usual: Tiles
    unknown: bool = False
    whole: bool = False

    @property
    def is_f32(self) -> bool:
        """Whether f32 are multiplied as they are, one after the other."""
        return self.rate == "f32"

    @property
    def element_bytes(self) -> int:
        """Of a factor in shared memory."""
        halves = self.dot.elements.bytes == 1 and self.dot.total is DType.F32 and not self.usual.fp8
        return 2 if halves else self.dot.elements.bytes

    @property
    def rate(self) -> str:
        """What multiplies it."""
        name = "tf32" if self.usual.tf32 else RATES[self.dot.elements]
        return "f16" if name == "f8" and not self.usual.fp8 else name


@dataclass(frozen=True)
class Taken:
    """What the code of tiles takes: registers of a thread, shared memory of a block in bytes."""

    registers: float
    shared: int


def every(problem: Problem, target: GpuTarget) -> tuple[Tiles, ...]:
    """Legal tiles, whatever dividing sums saves, and with blocks gone through in either order, what
    is predicted to be the fastest first."""
    found = []
    for tiles in _all(problem, target):
        several = math.ceil(problem.rows / tiles.rows) > 1
        whole = [replace(tiles, group=n) for n in ((1, GROUP) if several else (1,))]
        found += whole
        if not problem.whole and not problem.unknown:
            found += [part for own in whole for part in _in_parts(problem, own, target)]
    kinds = dict.fromkeys(found)
    return tuple(sorted(kinds, key=lambda tiles: (*_order(problem, tiles, target), -tiles.group)))


@lru_cache(4096)
def candidates(problem: Problem, target: GpuTarget) -> tuple[Tiles, ...]:
    """Legal tiles, what is predicted to be the fastest first."""
    tried = _all(problem, target)
    if not problem.whole:
        tried = (divided for tiles in tried for divided in _divided(problem, tiles, target))
    found = sorted(tried, key=lambda tiles: _order(problem, tiles, target))
    whole = next((predicted(problem, own, target) for own in found if own.split == 1), math.inf)
    if not problem.unknown and found and not _pays(whole, predicted(problem, found[0], target)):
        found = [own for own in found if own.split == 1] or found
    return tuple(own if own.split > 1 else replace(own, busy=1) for own in found)


def _order(problem: Problem, tiles: Tiles, target: GpuTarget) -> tuple[float, ...]:
    """What candidates are sorted by: the cycles, and of as many the smaller tiles."""
    cycles = predicted(problem, tiles, target)
    size = tiles.rows * tiles.columns, tiles.warps, tiles.stages, tiles.rows
    return round(cycles), tiles.split, *size


def _divided(problem: Problem, tiles: Tiles, target: GpuTarget) -> Iterator[Tiles]:
    """Tiles with sums as wholes, and in parts where multiprocessors would be idle: of a number of
    results that only a run knows, in as many as suit the fewest, one block of them."""
    if problem.unknown:
        rows, columns = min(problem.rows, tiles.rows), min(problem.columns, tiles.columns)
        few = replace(problem, rows=rows, columns=columns, batch=1, unknown=False)
        tried = sorted(_in_parts(few, tiles, target), key=lambda own: predicted(few, own, target))
        whole = predicted(few, tiles, target)
        yield next((own for own in tried if _pays(whole, predicted(few, own, target))), tiles)
        return
    yield tiles
    yield from _in_parts(problem, tiles, target)


def _pays(whole: float, divided: float) -> bool:
    """Whether sums in parts save enough cycles: what a launch costs is assumed, not measured."""
    return whole - divided >= min(SAVES, SHARE * whole)


def _in_parts(problem: Problem, tiles: Tiles, target: GpuTarget) -> Iterator[Tiles]:
    steps = math.ceil(problem.depth / tiles.depth)
    for parts in PARTS:
        if parts * LEAST_PART <= steps and parts * blocks_of(problem, tiles) <= 2 * target.sms:
            ahead = min(tiles.stages, math.ceil(steps / parts))
            yield replace(tiles, split=parts, stages=ahead)


def _all(problem: Problem, target: GpuTarget) -> Iterator[Tiles]:
    for rows, columns, warps, stages in product(ROWS, COLUMNS, WARPS, STAGES):
        steps = math.ceil(problem.depth / problem.usual.depth)
        ahead = min(stages, steps) if steps > 1 else 1
        if stages != STAGES[0] and ahead < stages:
            continue
        blocks = math.ceil(problem.rows / rows), math.ceil(problem.columns / columns)
        group = GROUP if min(blocks) >= GROUP else 1
        tiles = replace(
            problem.usual, rows=rows, columns=columns, warps=warps, stages=ahead, group=group
        )
        if _fits(problem, tiles, target):
            yield tiles


def _fits(problem: Problem, tiles: Tiles, target: GpuTarget) -> bool:
    least = min(ROWS[0], problem.rows), min(COLUMNS[0], problem.columns)
    wasted = tiles.rows >= 2 * max(problem.rows, ROWS[0]) or (
        tiles.columns >= 2 * max(problem.columns, COLUMNS[0])
    )
    narrow = problem.rows >= TENSOR_ROWS > tiles.rows and problem.rate != "f32"
    sums = problem.beside * tiles.rows * tiles.columns / (32 * tiles.warps)
    most = MOST_EXACT_SUMS if problem.rate == "f32" else MOST_SUMS
    few = tiles.rows * tiles.columns < 32 * tiles.warps * 4 and min(least) == ROWS[0]
    copied = tiles.depth * problem.element_bytes * min(tiles.rows, tiles.columns)
    copied = min(copied, tiles.rows * tiles.columns * problem.result_bytes)
    short = copied < WIDEST * 32 * tiles.warps and tiles.columns < problem.columns
    idle = tiles.warps > WARPS[0] and tiles.rows * tiles.columns < 128 * 64
    return (
        not (wasted or narrow or few or short or idle)
        and sums <= most
        and shared_bytes(problem, tiles) <= target.shared_bytes
    )


def shared_bytes(problem: Problem, tiles: Tiles) -> int:
    """Of a program, for the steps that are loaded ahead, or the results as they are stored."""
    factors = tiles.depth * (tiles.rows + problem.beside * tiles.columns) * problem.element_bytes
    return max(tiles.stages * factors, tiles.rows * tiles.columns * problem.result_bytes)


def predicted(
    problem: Problem, tiles: Tiles, target: GpuTarget, taken: Taken | None = None
) -> float:
    """Cycles that a launch takes, and that of the function that adds up parts of sums. taken: by
    the code of the tiles; None: as is to be expected."""
    rows, columns = tiles.rows, tiles.columns * problem.beside
    split = 1 if problem.unknown else tiles.split
    steps = math.ceil(problem.depth / tiles.depth / split)
    depth, bytes_ = steps * tiles.depth, problem.element_bytes
    programs = blocks_of(problem, tiles) * split
    multiplied = rows * columns * depth / dict(target.rates)[problem.rate]
    if problem.rate == "f32":  # threads read a factor of theirs for every row and column
        multiplied *= 1 + 0.5 / math.sqrt(rows * columns / (32 * tiles.warps))
    read = (rows + columns * math.ceil(rows / TENSOR_ROWS)) * depth * bytes_ / SHARED_BYTES
    cached = (rows + columns) * depth * bytes_ / CACHE_BYTES
    stored_bytes = problem.result_bytes if split == 1 else SUM_BYTES * problem.beside
    stored = rows * tiles.columns * stored_bytes / CACHE_BYTES
    work = max(multiplied, read, cached) + stored + ISSUE
    waits = max(LATENCY / max(1, tiles.stages - 1), STEP + (work - ISSUE) / steps)
    alone = START + LATENCY + steps * waits
    wanted = programs / target.sms
    together = min(_together(problem, tiles, target, taken), max(1, math.ceil(wanted)))
    rounds = math.ceil(wanted / together)
    size = problem.rows * problem.depth + problem.columns * problem.depth * problem.beside
    size = size * bytes_ + problem.rows * problem.columns * problem.result_bytes
    least = problem.batch * size / target.bandwidth
    total = _adding_up(problem, split, target) if split > 1 else 0.0
    return max(rounds * max(alone, together * work), least) + total


def blocks_of(problem: Problem, tiles: Tiles) -> int:
    """How many blocks of results there are."""
    blocks = math.ceil(problem.rows / tiles.rows) * math.ceil(problem.columns / tiles.columns)
    return problem.batch * blocks


def _adding_up(problem: Problem, parts: int, target: GpuTarget) -> float:
    """Cycles of the second launch, which reads all parts out of the second-level cache."""
    results = problem.batch * problem.rows * problem.columns
    read = results * problem.beside * parts * SUM_BYTES / (CACHE_BYTES * target.sms)
    return launch_cycles(target) + read


def launch_cycles(target: GpuTarget) -> float:
    """Cycles that one more launch takes until its first program has what it loads."""
    return LAUNCH * target.clock + START + LATENCY


def _together(problem: Problem, tiles: Tiles, target: GpuTarget, taken: Taken | None) -> int:
    """Programs of a product that a multiprocessor runs at once."""
    if taken is None:
        sums = problem.beside * tiles.rows * tiles.columns / (32 * tiles.warps)
        taken = Taken(OTHER_REGISTERS + sums, shared_bytes(problem, tiles))
    return programs_at_once(tiles, target, taken)


def programs_at_once(tiles: Tiles, target: GpuTarget, taken: Taken) -> int:
    """Programs that a multiprocessor runs at once, of code that takes so much."""
    threads = 32 * tiles.warps
    registers = target.registers // max(1, int(threads * taken.registers))
    shared = target.shared_bytes // max(1, taken.shared)
    return max(1, min(registers, shared, MOST_THREADS // threads, MOST_PROGRAMS))


def key_parts_of(blocks: int, steps: int | None, target: GpuTarget) -> int:
    """Into how many parts attention divides its keys, of so many blocks of queries and steps over
    keys; None: as many as a run has, for which there are parts enough where they are many."""
    most = max(1, target.sms // max(1, blocks))
    return min(most, MOST_KEY_PARTS) if steps is None else _parts_of(most, steps, KEY_STEP, target)


def row_parts_of(blocks: int, steps: int, target: GpuTarget) -> int:
    """Into how many parts reductions of rows are divided, of so many blocks of rows and steps."""
    return _parts_of(max(1, target.sms // max(1, blocks)), steps, ROW_STEP, target)


def _parts_of(most: int, steps: int, step_cycles: int, target: GpuTarget) -> int:
    """Into how many parts, at most, so many steps are divided."""
    whole = steps * step_cycles
    added = launch_cycles(target)
    tried = range(2, min(most, MOST_KEY_PARTS, steps // LEAST_PART) + 1)
    cycles = {parts: math.ceil(steps / parts) * step_cycles + added for parts in tried}
    best = min(cycles, key=lambda parts: (cycles[parts], parts), default=1)
    return best if best > 1 and _pays(whole, cycles[best]) else 1
