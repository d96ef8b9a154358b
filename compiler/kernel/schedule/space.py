"""The choices that a kernel can be given on a target: those a single decision away, and all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import permutations

from ...errors import ScheduleError
from ...target import CpuTarget
from ..contraction import contraction_of, extent_of
from ..kernel import Kernel, Stage
from .choice import BANDS, BLOCKS, Choice, StageChoice
from .heuristic import default_choice
from .legality import check_schedule
from .resolve import axes_by_role, resolve
from .schedule import Schedule

MAX_ORDERS = 24  # of a stage's loops that are tried: all of four
UNROLLS = (1, 2, 3, 4, 5, 8)
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)
VECTORS = (1, 2, 3, 4, 6)
BLOCK_COUNTS = (2, 3, 4, 6, 8)
BAND_TILES = (4, 8, 16, 32)  # row tiles of a band
PREFETCHES = (0, 1, 2)
# fields that are one decision together
_TOGETHER = {"vectors": "tile", "rows": "tile", "lanes": "tile", "vector": "axes", "row": "axes"}
_TOGETHER |= {"block": "blocks", "band": "blocks"}


def choices(kernel: Kernel, target: CpuTarget) -> Iterator[Choice]:
    """Every legal choice of a kernel as it is lowered that is one decision, or a tile and another
    decision, away from the heuristic's, each once."""
    first = default_choice(kernel, target)
    seen: set[Choice] = set()

    def new(found: Iterable[Choice]) -> Iterator[Choice]:
        for choice in found:
            if choice not in seen and legal_schedule(choice, kernel, target):
                seen.add(choice)
                yield choice

    yield from new([first])
    for steps in single_steps(kernel, first, target, shared=True).values():
        yield from new(steps)
    single = single_steps(kernel, first, target, shared=True)
    for name in [name for name in single if name.endswith(("tile", "axes"))]:
        for tile in single[name]:
            for steps in single_steps(kernel, tile, target, shared=True).values():
                yield from new(steps)


def legal_schedule(choice: Choice, kernel: Kernel, target: CpuTarget) -> Schedule | None:
    """The schedule of a choice; None where code generation does not take it."""
    try:
        schedule = resolve(choice, kernel, target)
        check_schedule(kernel, schedule)
    except ScheduleError:
        return None
    return schedule


def single_steps(
    kernel: Kernel, choice: Choice, target: CpuTarget, *, shared: bool
) -> dict[str, Iterator[Choice]]:
    """Choices that differ from one by a single decision, by the stage and name of that; not all of
    them are legal. shared: whether threads share the work."""
    found: dict[str, Iterator[Choice]] = {}
    for number, (stage, own) in enumerate(zip(kernel.stages, choice.stages, strict=True)):
        for name, changed in _stage(stage, kernel.shared, own, target).items():
            found[f"{number} {name}"] = _with_stage(kernel, choice, number, changed)
    if shared and len(choice.stages) == 1 and not kernel.shared:
        found["share"] = (new for new in _shares(choice) if new != choice)
    return found


def _with_stage(
    kernel: Kernel, choice: Choice, number: int, changed: Iterable[StageChoice]
) -> Iterator[Choice]:
    """Choices with another one for a stage."""
    for new in changed:
        stages = (*choice.stages[:number], new, *choice.stages[number + 1 :])
        made = replace(choice, stages=stages, parallel=_parallel(kernel, choice, new))
        if made != choice:
            yield made


def differing(first: Choice, second: Choice) -> int:
    """By how many decisions two choices differ; other loops count as one."""
    if first.form != second.form or len(first.stages) != len(second.stages):
        return 1
    decided = {
        field.name
        for field in fields(Choice)
        if field.name not in ("stages", "parallel", "ahead")
        and getattr(first, field.name) != getattr(second, field.name)
    }
    for number, (one, other) in enumerate(zip(first.stages, second.stages, strict=True)):
        own = {
            f"{number} {_TOGETHER.get(field.name, field.name)}"
            for field in fields(StageChoice)
            if getattr(one, field.name) != getattr(other, field.name)
        }
        plain = [stage.without_blocks().order for stage in (one, other)]
        # an order that blocks alone change is their decision, and a tile comes with its axes
        if plain[0] == plain[1]:
            own.discard(f"{number} order")
        if f"{number} axes" in own:
            own -= {f"{number} {name}" for name in ("tile", "prefetch", "panel", "blocks")}
        decided |= own
    if len(first.stages) == 1 and (first.parallel, first.ahead) != (second.parallel, second.ahead):
        moved = first.ahead != second.ahead or not decided
        decided |= {"share"} if moved else set()
    return len(decided)


def registers_needed(stage: Stage, schedule: Schedule, number: int) -> int:
    """Registers that a tile's sums and what they load take at least; 0 without sums."""
    tile, beside = schedule.stages[number].tile, len(stage.reductions)
    if not beside or not tile.vector:
        return 0
    contraction = contraction_of(stage)
    common = contraction.common(tile.vector, tile.row)
    loads = tile.vectors * beside if common and tile.row else 2
    return tile.rows * tile.vectors * beside + loads


def _parallel(kernel: Kernel, choice: Choice, changed: StageChoice) -> int:
    """As many divided loops as before, where there are as many."""
    return choice.parallel if kernel.shared else min(choice.parallel, len(changed.order))


def _shares(first: Choice) -> Iterator[Choice]:
    """Other loops for threads to divide."""
    loops = len(first.stages[0].order)
    for ahead in range(loops):
        for parallel in range(loops - ahead + 1):
            yield replace(first, ahead=ahead if parallel else 0, parallel=parallel)


def _stage(
    stage: Stage, shared: int, own: StageChoice, target: CpuTarget
) -> Mapping[str, Iterable[StageChoice]]:
    """What a single decision makes of a stage's choice, by its name."""
    roles = axes_by_role(stage, shared)
    sizes = {axis.name: extent_of(axis) for axis in (*stage.axes, *stage.reduce_axes)}
    extents = {role: sizes[name] for role, name in roles.items()}
    found: dict[str, Iterable[StageChoice]] = {
        "tile": _tiles(own, extents, target),
        "axes": _axes(stage, shared, own, target),
        "order": (replace(own, order=order) for order in _orders(own.order)),
    }
    if stage.reductions:
        found |= {
            "unroll": (replace(own, unroll=unroll) for unroll in UNROLLS),
            "ordered": (replace(own, ordered=value) for value in (not own.ordered,)),
            "written": (replace(own, written=value) for value in (not own.written,)),
            "prefetch": (replace(own, prefetch=level) for level in PREFETCHES),
            "panel": (replace(own, panel=n) for n in (0, *VECTORS) if own.vectors % max(1, n) == 0),
            "blocks": _blocks(stage, own),
        }
    return found


def _tiles(
    own: StageChoice, extents: Mapping[str, int], target: CpuTarget
) -> Iterator[StageChoice]:
    """Other register tiles along the same axes."""
    lanes = [own.lanes, own.lanes // 2] if own.lanes > 1 else [own.lanes]
    for count in lanes:
        for vectors in VECTORS if own.vector else (1,):
            for rows in ROWS if own.row else (1,):
                too_wide = (vectors - 1) * count >= extents.get(own.vector, 1) and vectors > 1
                if rows * vectors > target.vector_registers or too_wide:
                    continue
                if rows > max(1, extents.get(own.row, 1)):
                    continue
                band = own.band // rows * rows if own.band else 0
                panel = own.panel if own.panel and vectors % own.panel == 0 else 0
                whole = replace(
                    own, lanes=count, vectors=vectors, rows=rows, band=band, panel=panel
                )
                yield whole if not own.band or band else whole.without_blocks()


def _axes(stage: Stage, shared: int, own: StageChoice, target: CpuTarget) -> Iterator[StageChoice]:
    """Lanes along another axis, rows along another one, or none."""
    roles, plain = axes_by_role(stage, shared), own.without_blocks()
    alone = replace(plain, row="", rows=1, prefetch=0, panel=0)
    yield replace(alone, vector="", lanes=1, vectors=1)
    if own.row:
        yield alone
    wide = own.lanes if own.lanes > 1 else target.lanes(32)
    for role in roles:
        if role != own.vector:
            yield from (
                replace(alone, vector=role, lanes=wide, vectors=count) for count in (1, 2, 4)
            )
        if role.startswith("p") and role not in (own.vector, own.row) and own.vector in roles:
            yield replace(plain, row=role, rows=max(2, own.rows))


def _orders(order: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for count, changed in enumerate(permutations(order)):
        if count == MAX_ORDERS:
            return
        yield changed


def _blocks(stage: Stage, own: StageChoice) -> Iterator[StageChoice]:
    """The sum in one piece, or in a few blocks around the loops inside that over columns, for all
    rows or for bands of them."""
    plain = own.without_blocks()
    yield plain
    product = contraction_of(stage).products
    if not product or product[0] is None or own.vector not in plain.order or not stage.reduce_axes:
        return  # a sum of one term has no axis
    extent = stage.reduce_axes[0].extent
    place = plain.order.index(own.vector) + 1
    head, inside = plain.order[:place], plain.order[place:]
    for count in BLOCK_COUNTS:
        if not isinstance(extent, int) or extent % count:
            continue
        block = extent // count
        yield replace(plain, order=(*head, BLOCKS, *inside), block=block)
        if inside and inside[-1] == own.row:
            order = (*head, *inside[:-1], BANDS, BLOCKS, own.row)
            for tiles in BAND_TILES:
                yield replace(plain, order=order, block=block, band=tiles * own.rows)
