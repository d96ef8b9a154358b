"""From a choice to the schedule that code generation obeys, and back.

A choice holds what can be decided; all else about a schedule follows from it, the kernel and the
target: how far ahead a panel is fetched, how many tiles share that, which smaller tiles take the
rows that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ...errors import ScheduleError
from ...target import CpuTarget
from ..axis_names import band_of
from ..contraction import contraction_of
from ..forms.step_groups import products_of_groups
from ..kernel import Kernel, Stage
from .choice import BANDS, BLOCKS, Choice, StageChoice
from .panels import BLOCKS_AHEAD, fetched
from .schedule import Blocks, Prefetch, RegisterTile, Schedule, StageSchedule, Unrolling

FORK_OPERATIONS = 1_000_000  # some 10 us: below that a fork costs more than it gains
WRITTEN_PER_REGISTER = 8  # accumulations: what is written out is reordered, and more spills
MIN_HIDING_STEPS = 16  # of a sum: fewer are done before anything comes from memory
MIN_FETCHED_POINTS = 64 << 10  # fewer elements are in a second-level cache, mostly
MOST_SHARES = 4  # of rows, for which each thread still fetches all of a panel


def resolve(choice: Choice, kernel: Kernel, target: CpuTarget) -> Schedule:
    """The schedule of a kernel.

    Raises ScheduleError where the choice does not speak of this kernel: other stages, axes that
    there are not.
    """
    if len(choice.stages) != len(kernel.stages):
        raise ScheduleError(
            f"the choice has {len(choice.stages)} stages, the kernel {len(kernel.stages)}"
        )
    stages = tuple(
        replace(
            _stage(own, stage, kernel.shared, target, shared_panels=choice.ahead > 0),
            instruction=choice.instruction if products_of_groups(stage) else "",
        )
        for own, stage in zip(choice.stages, kernel.stages, strict=True)
    )
    return Schedule(stages, choice.parallel, choice.ahead, FORK_OPERATIONS)


def choice_of(schedule: Schedule, kernel: Kernel) -> Choice:
    """The choice that a schedule of a kernel is made of, but for `form` and `channels`."""
    stages = tuple(
        _roles(own, stage, kernel.shared)
        for own, stage in zip(schedule.stages, kernel.stages, strict=True)
    )
    instruction = next((own.instruction for own in schedule.stages if own.instruction), "")
    return Choice(
        instruction=instruction, stages=stages, parallel=schedule.parallel, ahead=schedule.ahead
    )


def axes_by_role(stage: Stage, shared: int) -> dict[str, str]:
    """The axes of a stage by their roles. shared: how many leading axes are not its own."""
    own = {f"p{n}": axis.name for n, axis in enumerate(stage.axes[shared:])}
    return {**own, **{f"r{n}": axis.name for n, axis in enumerate(stage.reduce_axes)}}


def _roles(own: StageSchedule, stage: Stage, shared: int) -> StageChoice:
    tile, blocks = own.tile, own.blocks
    role = {name: key for key, name in axes_by_role(stage, shared).items()} | {"": ""}
    loops = {**role, blocks.axis: BLOCKS} if blocks.axis else role
    if blocks.band:
        loops = {**loops, band_of(tile.row): BANDS}
    return StageChoice(
        vector=role[tile.vector],
        lanes=tile.lanes,
        vectors=tile.vectors,
        row=role[tile.row],
        rows=tile.rows,
        order=tuple(loops[name] for name in own.order),
        unroll=own.unrolling.unroll,
        ordered=own.unrolling.ordered,
        written=own.unrolling.written > 0,
        block=blocks.steps,
        band=blocks.band,
        prefetch=own.prefetch.level if own.prefetch.ahead else 0,
        panel=own.panel,
    )


def _stage(
    choice: StageChoice, stage: Stage, shared: int, target: CpuTarget, *, shared_panels: bool
) -> StageSchedule:
    names: Mapping[str, str] = {**axes_by_role(stage, shared), "": ""}
    first = stage.reduce_axes[0].name if stage.reduce_axes else ""
    loops = {**names, BLOCKS: first, BANDS: band_of(names.get(choice.row, ""))}
    try:
        vector, row = names[choice.vector], names[choice.row]
        order = tuple(loops[loop] for loop in choice.order)
    except KeyError as error:
        raise ScheduleError(
            f"the kernel has no axis {error}", remedy=f"those that it has: {', '.join(names)}"
        ) from None
    rows = choice.rows
    smaller = {max(rows // 2, 1), min(rows - 1, 2), 1} if rows > 1 else set()
    rests = tuple(sorted(smaller, reverse=True))
    tile = RegisterTile(vector, choice.lanes, choice.vectors, row, rows, rests)
    blocks = Blocks(first if choice.block else "", choice.block, choice.band)
    return StageSchedule(
        tile,
        order,
        blocks,
        _prefetch(choice, stage, tile, order, blocks, shared_panels=shared_panels),
        Unrolling(
            choice.unroll,
            written=WRITTEN_PER_REGISTER * target.vector_registers if choice.written else 0,
            ordered=choice.ordered,
            # what side by side keeps in registers has to fit one
            abreast=Unrolling.abreast if choice.lanes <= target.lanes(32) else 1,
        ),
        choice.panel,
    )


def _prefetch(
    choice: StageChoice,
    stage: Stage,
    tile: RegisterTile,
    order: tuple[str, ...],
    blocks: Blocks,
    *,
    shared_panels: bool,
) -> Prefetch:
    points = math.prod(a.extent for a in stage.axes if isinstance(a.extent, int))
    steps = math.prod(a.extent for a in stage.reduce_axes if isinstance(a.extent, int))
    tiled = bool(tile.row and tile.vector) and not blocks.axis
    epilogue = tiled and steps >= MIN_HIDING_STEPS and points >= MIN_FETCHED_POINTS
    if not choice.prefetch or not stage.reductions or tile.vector not in order:
        return Prefetch(epilogue=epilogue)
    contraction = contraction_of(stage)
    if contraction.reads_packed:
        return Prefetch(BLOCKS_AHEAD, choice.prefetch, epilogue=epilogue)
    ahead, turns = fetched(contraction, tile, order, blocks)
    if shared_panels:
        turns = max(1, turns // MOST_SHARES)  # all threads fetch the whole panel
    return Prefetch(ahead, choice.prefetch, turns, epilogue)
