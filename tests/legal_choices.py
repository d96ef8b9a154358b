"""Random legal choices: every field of every stage, and what threads divide, drawn together."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.kernel.contraction import contraction_of
from tensmith.compiler.kernel.kernel import Kernel, Stage
from tensmith.compiler.kernel.schedule.choice import BANDS, BLOCKS, Choice, StageChoice
from tensmith.compiler.kernel.schedule.legality import check_schedule
from tensmith.compiler.kernel.schedule.resolve import axes_by_role, resolve
from tensmith.compiler.target import CpuTarget

LANES = (1, 2, 4, 8, 16, 32)
MOST_REGISTERS = 24  # of a tile: more take long to compile
MOST_ROWS, MOST_VECTORS, MOST_UNROLL = 8, 4, 5


def is_legal(choice: Choice, kernel: Kernel, target: CpuTarget) -> bool:
    """Whether code generation takes the choice."""
    try:
        check_schedule(kernel, resolve(choice, kernel, target))
    except ScheduleError:
        return False
    return True


@st.composite
def legal_choices(draw: st.DrawFn, kernel: Kernel, target: CpuTarget) -> Choice:
    """A choice of a kernel as it is lowered, but for its form and blocks of channels."""
    stages = tuple(draw(_stages(stage, kernel.shared)) for stage in kernel.stages)
    if kernel.shared:
        shared = Choice(stages=stages, parallel=kernel.shared)
        return draw(st.just(shared).filter(lambda c: is_legal(c, kernel, target)))
    alone = Choice(stages=stages)
    loops = len(stages[0].order)
    divided = [
        replace(alone, parallel=parallel, ahead=ahead)
        for parallel in range(1, loops + 1)
        for ahead in range(loops - parallel + 1)
    ]
    return draw(st.sampled_from([alone, *divided]).filter(lambda c: is_legal(c, kernel, target)))


@st.composite
def _stages(draw: st.DrawFn, stage: Stage, shared: int) -> StageChoice:
    roles = axes_by_role(stage, shared)
    names = [role for role in roles if role.startswith("p")]
    unroll = draw(st.integers(1, MOST_UNROLL))
    plain = StageChoice(
        order=tuple(names), unroll=unroll, ordered=draw(st.booleans()), written=draw(st.booleans())
    )
    if stage.sequential or any(r.kind.startswith("arg") for r in stage.reductions):
        return plain
    sums = [role for role in roles if role.startswith("r") and not _decides(stage, roles[role])]
    vector = draw(st.sampled_from(["", *names, *sums]))
    plain = replace(plain, order=tuple(draw(st.permutations(names))))
    if vector:
        plain = replace(plain, vector=vector, lanes=draw(st.sampled_from(LANES)))
        plain = replace(plain, vectors=draw(st.integers(1, MOST_VECTORS)))
    rows = [name for name in names if name != vector]
    if rows and vector not in sums:
        row = draw(st.sampled_from(["", *rows]))
        most = min(MOST_ROWS, MOST_REGISTERS // (plain.vectors * max(1, len(stage.reductions))))
        plain = replace(plain, row=row, rows=draw(st.integers(1, max(1, most))) if row else 1)
    if not stage.reductions:
        return plain
    panels = [n for n in range(1, plain.vectors + 1) if plain.vectors % n == 0]
    plain = replace(
        plain, prefetch=draw(st.integers(0, 2)), panel=draw(st.sampled_from([0, *panels]))
    )
    return draw(_blocks(stage, plain)) if vector in names else plain


def _decides(stage: Stage, axis: str) -> bool:
    """Whether the step of a sum decides where results lie."""
    return any(axis in str(store.offset) for store in stage.stores)


@st.composite
def _blocks(draw: st.DrawFn, stage: Stage, plain: StageChoice) -> StageChoice:
    """The sum in blocks inside the loop over columns, and those in bands, or neither."""
    products, extent = contraction_of(stage).products, stage.reduce_axes[0].extent
    if not products or products[0] is None or not isinstance(extent, int):
        return plain
    sizes = [n for n in range(2, extent) if extent % n == 0]
    block = draw(st.sampled_from([0, *sizes]))
    if not block or not plain.row or plain.order.index(plain.row) < plain.order.index(plain.vector):
        return plain
    own, rows = [BLOCKS], draw(st.sampled_from([0, 1, 3]))
    if rows:
        own = [BANDS, BLOCKS]
    place = plain.order.index(plain.vector) + 1
    order = (*plain.order[:place], *own, *plain.order[place:])
    return replace(plain, order=order, block=block, band=rows * plain.rows)
