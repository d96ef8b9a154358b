"""The choices that a kernel can be given on a target, the heuristic's first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import permutations

from ...errors import ScheduleError
from ...target import CpuTarget
from ..contraction import contraction_of
from ..kernel import Kernel, Stage
from .choice import BANDS, BLOCKS, Choice, StageChoice
from .heuristic import default_choice
from .legality import check_schedule
from .resolve import axes_by_role, resolve

MAX_ORDERS = 24  # of a stage's loops that are tried: all of four
UNROLLS = (1, 2, 4, 8)
ROWS = (1, 2, 3, 4, 6, 8, 12, 14)
VECTORS = (1, 2, 3, 4)
BLOCK_COUNTS = (2, 3, 4, 6, 8)


def choices(kernel: Kernel, target: CpuTarget) -> Iterator[Choice]:
    """Every legal choice of a kernel as it is lowered, each once.

    One stage differs from the heuristic's choice at a time, or the loops that threads divide: what
    stages do is independent, but for the loops that they share.
    """
    first = default_choice(kernel, target)
    seen: set[Choice] = set()
    for choice in (first, *_shares(first), *_by_stage(kernel, first, target)):
        if choice not in seen and _is_legal(choice, kernel, target):
            seen.add(choice)
            yield choice


def _is_legal(choice: Choice, kernel: Kernel, target: CpuTarget) -> bool:
    try:
        check_schedule(kernel, resolve(choice, kernel, target))
    except ScheduleError:
        return False
    return True


def _shares(first: Choice) -> Iterator[Choice]:
    """Other loops for threads to divide."""
    if len(first.stages) == 1:
        loops = len(first.stages[0].order)
        for ahead in range(loops):
            for parallel in range(loops - ahead + 1):
                yield replace(first, ahead=ahead if parallel else 0, parallel=parallel)


def _by_stage(kernel: Kernel, first: Choice, target: CpuTarget) -> Iterator[Choice]:
    for number, (stage, own) in enumerate(zip(kernel.stages, first.stages, strict=True)):
        for changed in _stage(stage, kernel.shared, own, target):
            stages = (*first.stages[:number], changed, *first.stages[number + 1 :])
            loops = len(changed.order)
            parallel = min(first.parallel, loops) if not kernel.shared else first.parallel
            yield replace(first, stages=stages, parallel=parallel)


def _stage(stage: Stage, shared: int, own: StageChoice, target: CpuTarget) -> Iterator[StageChoice]:
    roles = axes_by_role(stage, shared)
    for tile in _tiles(roles, own, target):
        plain = _without_blocks(tile)
        yield tile
        yield from (replace(tile, unroll=unroll) for unroll in UNROLLS)
        yield from (replace(tile, order=order) for order in _orders(plain.order))
        yield from (replace(tile, prefetch=level) for level in (0, 1, 2))
        yield from (replace(tile, panel=n) for n in (0, *VECTORS) if tile.vectors % max(1, n) == 0)
        yield from _blocks(stage, plain)
        yield replace(tile, ordered=not tile.ordered)


def _without_blocks(own: StageChoice) -> StageChoice:
    order = tuple(name for name in own.order if name not in (BLOCKS, BANDS))
    return replace(own, order=order, block=0, band=0)


def _tiles(roles: Iterable[str], own: StageChoice, target: CpuTarget) -> Iterator[StageChoice]:
    """Register tiles along the heuristic's axes, then along others."""
    yield own
    lanes = [own.lanes, own.lanes // 2] if own.lanes > 1 else [own.lanes]
    for count in lanes:
        for vectors in VECTORS if own.vector else (1,):
            for rows in ROWS if own.row else (1,):
                if rows * vectors <= target.vector_registers:
                    yield replace(own, lanes=count, vectors=vectors, rows=rows)
    plain = _without_blocks(own)
    yield replace(plain, vector="", lanes=1, vectors=1, row="", rows=1, prefetch=0, panel=0)
    for role in roles:
        wide = target.lanes(32)
        if role != own.vector:
            yield replace(
                plain, vector=role, lanes=wide, vectors=1, row="", rows=1, prefetch=0, panel=0
            )


def _orders(order: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for count, changed in enumerate(permutations(order)):
        if count == MAX_ORDERS:
            return
        yield changed


def _blocks(stage: Stage, own: StageChoice) -> Iterator[StageChoice]:
    """The sum in a few blocks, around the loops inside that over columns."""
    product = contraction_of(stage).products
    if not product or product[0] is None or own.vector not in own.order:
        return
    extent = stage.reduce_axes[0].extent
    place = own.order.index(own.vector) + 1
    order = (*own.order[:place], BLOCKS, *own.order[place:])
    for count in BLOCK_COUNTS:
        if isinstance(extent, int) and extent % count == 0:
            yield replace(own, order=order, block=extent // count)
