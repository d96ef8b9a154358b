"""Schedules are legal: they cover the loops, fit the registers, and divide only what may be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import fused_nodes
from random_graphs import build
from suites.case import I8, I32, U8, CaseBuilder, N, S
from suites.cases import ALL_CASES

from tensmith.backends.llvm.pipeline import make_plan
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import Dim, coefficient
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.kernel import CACHE_LINE, Kernel, Stage
from tensmith.compiler.kernel.schedule.heuristic import default_schedule, naive_choice
from tensmith.compiler.kernel.schedule.resolve import resolve
from tensmith.compiler.kernel.schedule.schedule import Schedule, StageSchedule
from tensmith.compiler.kernel.schedule.slices import slice_axis
from tensmith.compiler.target import CpuTarget

TARGETS = ["x86-64-v3", "x86-64-v4", "aarch64"]


def kernels(graph: Graph) -> list[Kernel]:
    return [lower_region(node.regions[0]).kernel for node in fused_nodes(graph)]


def check(kernel: Kernel, schedule: Schedule, target: CpuTarget) -> None:
    assert len(schedule.stages) == len(kernel.stages)
    for stage, own in zip(kernel.stages, schedule.stages, strict=True):
        check_stage(stage, own, kernel.shared, target)
    if kernel.shared:
        assert schedule.parallel == kernel.shared
        return
    assert schedule.parallel <= len(schedule.stages[0].order)
    if len(kernel.stages) > 1 or kernel.stages[0].sequential:
        assert schedule.parallel == 0, "stages that follow each other must not be divided"


def check_stage(stage: Stage, own: StageSchedule, shared: int, target: CpuTarget) -> None:
    axes = [axis.name for axis in stage.axes[shared:]]
    assert sorted(own.order) == sorted(axes), "every loop once"
    names = {*axes, *(axis.name for axis in stage.reduce_axes)}
    assert own.tile.vector in {"", *names}
    assert own.tile.row in {"", *axes}
    assert not own.tile.row or own.tile.row != own.tile.vector
    assert min(own.tile.lanes, own.tile.vectors, own.tile.rows, own.unrolling.unroll) >= 1
    assert own.tile.lanes & (own.tile.lanes - 1) == 0
    assert own.tile.rows == 1 or own.tile.row
    assert own.tile.lanes * own.tile.vectors == 1 or own.tile.vector
    accumulators = own.tile.rows * own.tile.vectors * len(stage.reductions)
    bits = own.tile.lanes * max((r.body.dtype.bits for r in stage.reductions), default=8)
    registers = accumulators * -(-bits // target.vector_bits)
    assert registers <= target.vector_registers, "accumulators stay in registers"
    positions = any(r.kind.startswith("arg") for r in stage.reductions)
    if stage.sequential or positions:
        slices = slice_axis(stage)
        assert own.tile.vector in ("", slices.name if slices else "")
        assert own.tile.rows == 1
    if stage.sequential:
        assert list(own.order) == axes, "ordered points keep their order"


@pytest.mark.parametrize("name", TARGETS)
def test_schedules_of_the_suites(name: str) -> None:
    target = resolve_target(name)[1]
    for case in ALL_CASES:
        if any(node.op == "fused" for node in case.graph().nodes):
            continue
        for kernel in kernels(case.graph()):
            check(kernel, default_schedule(kernel, target), target)
            check(kernel, resolve(naive_choice(kernel), kernel, target), target)


@given(
    st.lists(st.integers(0, 9999), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from(TARGETS),
)
def test_schedules_of_random_graphs(numbers: list[int], symbolic: bool, name: str) -> None:
    target = resolve_target(name)[1]
    for kernel in kernels(build(numbers, symbols=int(symbolic))):
        check(kernel, default_schedule(kernel, target), target)


@pytest.mark.parametrize("columns", [2, 4, 8])
def test_lanes_of_a_narrow_product(columns: int) -> None:
    """Lanes run along the few columns: along the sum, every step would gather its weights."""
    c = CaseBuilder("narrow")
    c.output(c.op("matmul", c.input(300, 128), c.weight(128, columns)))
    [kernel] = kernels(c.graph())
    for name in TARGETS:
        [own] = default_schedule(kernel, resolve_target(name)[1]).stages
        assert own.tile.vector in {axis.name for axis in kernel.stages[0].axes}
        assert own.tile.rows > 1


def test_equal_axes_and_names() -> None:
    """Simplified stages have no unit axes, and no neighbours that could be one."""
    for case in ALL_CASES[:100]:
        for kernel in kernels(case.graph()):
            for stage in kernel.stages:
                assert all(axis.extent != 1 for axis in stage.axes)
                names = [axis.name for axis in stage.axes + stage.reduce_axes]
                assert len(set(names)) == len(names)
                for outer, inner in pairwise(stage.axes[kernel.shared :]):
                    assert any(
                        coefficient(index, outer.name)
                        != (coefficient(index, inner.name) or 0) * inner.extent
                        for index in stage.all_indices()
                    ), f"{case.name}: {outer} and {inner} could be one axis"


@pytest.mark.parametrize(
    ("l1_bytes", "depth", "level"), [(32 << 10, 512, 2), (48 << 10, 512, 1), (32 << 10, 128, 1)]
)
def test_large_panels_come_to_a_cache_with_room(l1_bytes: int, depth: int, level: int) -> None:
    """Panels of 96 KiB pass by a first level of 32 KiB; 24 KiB do not."""
    c = CaseBuilder("product")
    c.output(c.op("matmul", c.input(160, depth), c.weight(depth, 480)))
    (kernel,) = kernels(c.graph())
    target = replace(resolve_target("x86-64-v4")[1], l1_bytes=l1_bytes)
    (own,) = default_schedule(kernel, target).stages
    assert own.prefetch.ahead == depth * own.tile.vectors * own.tile.lanes * 4
    assert own.prefetch.level == level


@pytest.mark.parametrize(
    ("target", "rows", "tile", "steps", "ordered"),
    [
        ("x86-64-v4", N, (14, 2), 2, True),
        ("x86-64-v4", 18, (9, 3), 4, False),
        ("x86-64-v4", 104, (13, 2), 4, False),
        ("x86-64-v3", N, (6, 2), 4, False),
    ],
)
def test_steps_of_a_tile_that_fills_the_registers_are_ordered(
    target: str, rows: Dim, tile: tuple[int, int], steps: int, ordered: bool
) -> None:
    """Where the vectors of two steps do not fit beside the sums, these would be spilled."""
    c = CaseBuilder("product")
    c.output(c.op("matmul", c.input(rows, 768), c.weight(768, 768)))
    (kernel,) = kernels(c.graph())
    (own,) = default_schedule(kernel, resolve_target(target)[1]).stages
    assert own.prefetch.ahead
    assert (own.tile.rows, own.tile.vectors) == tile
    assert (own.unrolling.unroll, own.unrolling.ordered) == (steps, ordered)


@pytest.mark.parametrize(
    ("l1_bytes", "rows", "depth"),
    [(32 << 10, 16, 512), (32 << 10, 160, 0), (48 << 10, 16, 0)],
    ids=["few rows", "many rows", "a large first level"],
)
def test_blocks_of_few_rows_stay_in_the_first_level(l1_bytes: int, rows: int, depth: int) -> None:
    c = CaseBuilder("product")
    c.output(c.op("matmul", c.input(rows, 512), c.weight(512, 480)))
    (kernel,) = kernels(c.graph())
    target = replace(resolve_target("x86-64-v3")[1], l1_bytes=l1_bytes)
    (own,) = default_schedule(kernel, target).stages
    assert bool(own.blocks.axis) == bool(depth)
    if own.blocks.axis:
        assert (
            own.prefetch.ahead
            == own.blocks.steps * own.tile.vectors * own.tile.lanes * 4
            <= l1_bytes // 2
        )
        assert depth % own.blocks.steps == 0


@pytest.mark.parametrize("rows", [8, 12, 16, 24, 32])
def test_partial_sums_on_a_small_stack(rows: int) -> None:
    """Without an operating system a product that no register tile holds adds up no more of them."""
    c = CaseBuilder("product")
    c.output(c.op("matmul", c.input(rows, 4096), c.weight(4096, 96)))
    (kernel,) = kernels(c.graph())
    small = resolve_target("cortex-m55")[1]
    for target in (small, replace(small, bare=False)):
        (own,) = default_schedule(kernel, target).stages
        held = rows * own.tile.vectors * own.tile.lanes * 4
        assert not own.blocks.axis or held <= target.stack_bytes
    assert own.blocks.axis


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    ("shape", "perm", "reads_on"),
    [((1024, 1000), (1, 0), True), ((N, S), (1, 0), True), ((4096, 64), (1, 0), False)],
    ids=["square", "symbolic", "short rows"],
)
def test_tiles_of_a_cache_line_both_ways(
    name: str, shape: tuple[Dim, ...], perm: tuple[int, ...], reads_on: bool
) -> None:
    """Lanes lie along the result; loops go on along what the operand has in one long run."""
    c = CaseBuilder("crossed")
    x, y = c.input(*shape), c.input(*(shape[axis] for axis in perm))
    c.output(c.op("add", c.op("transpose", x, perm=perm), y))
    (kernel,) = kernels(c.graph())
    (own,) = default_schedule(kernel, resolve_target(name)[1]).stages
    (stage,) = kernel.stages
    assert coefficient(stage.stores[0].offset, own.tile.vector) == 1
    assert own.tile.width * 4 == own.tile.rows * 4 == CACHE_LINE
    assert own.order[-1] == (own.tile.row if reads_on else own.tile.vector)


def test_lanes_follow_what_is_read_behind_a_border() -> None:
    """A piece of several rows may not be read where some of them are outside."""
    c = CaseBuilder("bordered")
    c.output(c.op("pad", c.op("transpose", c.input(64, 80), perm=(1, 0)), pads=(1, 1, 1, 1)))
    (kernel,) = kernels(c.graph())
    (own,) = default_schedule(kernel, resolve_target("x86-64-v4")[1]).stages
    assert coefficient(kernel.stages[0].stores[0].offset, own.tile.row) == 1
    assert own.tile.rows > 1


def test_what_lies_one_way_has_no_rows() -> None:
    c = CaseBuilder("plain")
    c.output(c.op("add", c.input(64, 80), c.input(64, 1)))
    (kernel,) = kernels(c.graph())
    (own,) = default_schedule(kernel, resolve_target("x86-64-v4")[1]).stages
    assert own.tile.rows == 1


@pytest.mark.parametrize(("rows", "columns"), [(196, 384), (784, 192), (49, 960)])
def test_tiles_of_bytes_leave_no_edges(rows: int, columns: int) -> None:
    """Where that takes hardly more time: every kind of edge has code of its own."""
    c = CaseBuilder("bytes")
    x = c.input(rows, 96, dtype=U8)
    c.output(c.op("matmul", x, c.weight(96, columns, dtype=I8), accumulate=I32))
    options = CompileOptions("m", Path())
    plan = make_plan(c.graph(), resolve_target("znver5")[1], options, Stages())
    tiles = [own.tile for kernel in plan.kernels for own in kernel.schedule.stages if own.tile.row]
    assert tiles
    for tile in tiles:
        assert rows % tile.rows == columns % (tile.vectors * tile.lanes) == 0
