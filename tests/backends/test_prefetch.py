"""Fetching the next panel: all of it, in equal parts, by the tiles that read the present one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Job, Setting, needs_native, run_all
from kernels import fused_nodes
from suites.case import CaseBuilder

from tensmith.backends.llvm.emit.prefetch import panel_prefetches
from tensmith.backends.llvm.emit.shape import Address
from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.ir.dims import coefficient
from tensmith.compiler.kernel import expr as ex
from tensmith.compiler.kernel.contraction import contraction_of
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.kernel import CACHE_LINE, Stage
from tensmith.compiler.kernel.schedule.heuristic import default_schedule
from tensmith.compiler.kernel.schedule.packing import pack
from tensmith.compiler.kernel.schedule.panels import BLOCKS_AHEAD
from tensmith.compiler.kernel.schedule.schedule import (
    Prefetch,
    RegisterTile,
    StageSchedule,
)


@dataclass
class Arithmetic:
    """An emitter that computes with numbers and notes what is fetched."""

    fetched: list[int] = field(default_factory=list)

    def add(self, a: int, b: int) -> int:
        return a + b

    def sub(self, a: int, b: int) -> int:
        return a - b

    def mul(self, a: int, b: int) -> int:
        return a * b

    def mod(self, a: int, b: int) -> int:
        return a % b

    def floordiv(self, a: int, b: int) -> int:
        return a // b

    def prefetch(self, pointer: int, offset: int, level: int) -> None:
        self.fetched.append(pointer + offset)


@dataclass
class ReadingTile:
    """A tile whose panel begins at address 0 and is read in `width` bytes a step."""

    e: Arithmetic
    own: StageSchedule
    env: dict[str, int]
    width: int
    stage: Stage
    moved: dict[str, int] = field(default_factory=dict)
    step: int = 0
    looked: tuple[tuple[ex.Expr, int], ...] = ()

    @property
    def addresses(self) -> dict[int, Address]:
        """Of all loads, as a prepared tile has them."""
        found = {}
        for load in (operand.load for operand in contraction_of(self.stage).operands):
            steps = [(a.name, coefficient(load.offset, a.name)) for a in self.stage.reduce_axes]
            found[id(load)] = Address(None, 0, 0, tuple(steps), 0, self.looked)
        return found

    @property
    def shape(self) -> RegisterTile:
        return self.own.tile

    def depends(self, part: ex.Expr) -> tuple[bool, bool]:
        return ex.depends_on(part, self.own.tile.row), ex.depends_on(part, self.own.tile.vector)

    def point(self, address: Any, dtype: Any, slot: tuple[int, int]) -> int:
        return self.step * self.width


def scheduled(rows: int, depth: int, columns: int) -> tuple[Stage, StageSchedule]:
    """The stage of a product whose right operand is in panels."""
    c = CaseBuilder("product")
    c.output(c.op("matmul", c.input(rows, depth), c.weight(depth, columns)))
    (node,) = fused_nodes(c.graph())
    kernel = lower_region(node.regions[0]).kernel
    schedule = default_schedule(kernel, resolve_target("x86-64-v3")[1])
    kernel, packings = pack(kernel, schedule, {kernel.params[1].name: depth * columns})
    assert packings
    return kernel.stages[0], schedule.stages[0]


@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(49, 160, 960), (49, 960, 160), (196, 512, 128), (21, 2000, 64)]
)
def test_the_next_panel_is_fetched_whole(rows: int, depth: int, columns: int) -> None:
    stage, own = scheduled(rows, depth, columns)
    width = own.tile.vectors * own.tile.lanes * 4
    (axis,) = stage.reduce_axes
    wanted = range(own.prefetch.ahead // CACHE_LINE, 2 * own.prefetch.ahead // CACHE_LINE)
    fetched_by: dict[int, int] = {}  # line: the first tile that fetches it
    tiles = range(0, rows, own.tile.rows)
    for turn, row in enumerate(tiles):
        tile = ReadingTile(Arithmetic(), own, {own.tile.row: row}, width, stage)
        for step in range(0, own.blocks.steps or depth, own.unrolling.unroll):
            tile.moved[axis.name] = tile.step = step
            (ahead,) = panel_prefetches(stage, own, tile)  # type: ignore[arg-type]
            ahead.emit(tile)  # type: ignore[arg-type]
        for address in tile.e.fetched:
            fetched_by.setdefault(address // CACHE_LINE, turn)
    assert set(wanted) <= set(fetched_by)
    assert 1 < own.prefetch.turns <= len(tiles)
    parts = [list(fetched_by.values()).count(turn) for turn in range(len(tiles))]
    assert max(parts) <= len(wanted) / own.prefetch.turns + own.unrolling.unroll


def test_panels_whose_rows_a_table_names_are_not_fetched() -> None:
    """Nothing says what the next steps read."""
    stage, own = scheduled(49, 160, 960)
    width = own.tile.vectors * own.tile.lanes * 4
    tile = ReadingTile(Arithmetic(), own, {own.tile.row: 0}, width, stage)
    assert panel_prefetches(stage, own, tile)  # type: ignore[arg-type]
    tile.looked = ((ex.Const(1, DType.I64), 960),)
    assert not panel_prefetches(stage, own, tile)  # type: ignore[arg-type]


def test_an_operand_that_is_no_panel_is_not_fetched() -> None:
    c = CaseBuilder("product")
    c.output(c.op("matmul", c.input(49, 160), c.input(160, 960)))
    (node,) = fused_nodes(c.graph())
    kernel = lower_region(node.regions[0]).kernel
    stage = kernel.stages[0]
    (chosen,) = default_schedule(kernel, resolve_target("x86-64-v3")[1]).stages
    own = replace(chosen, prefetch=Prefetch(8192, turns=4))
    tile = ReadingTile(
        Arithmetic(), own, {own.tile.row: 0}, own.tile.vectors * own.tile.lanes * 4, stage
    )
    assert not panel_prefetches(stage, own, tile)  # type: ignore[arg-type]


def quantised(columns: int, rows: int, bits: int = 4, block: int = 32) -> Graph:
    """Data times 64 x columns weights of few bits in blocks."""
    c = CaseBuilder(f"packed{columns}")
    x = c.input(rows, 64)
    weights = c.weight(columns, 8 * bits, dtype=DType.U8, low=0, high=256)
    attrs = {"bits": bits, "block": block, "depth": 64, "columns": columns, "zero": 8}
    c.output(c.op("quantised_matmul", x, weights, c.weight(columns, 64 // block), **attrs))
    return c.graph()


FORMS = [(4, 32), (4, 64), (8, 64)]  # bits, block: several for a column, or one


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_packed_weights_are_fetched_blocks_ahead(bits: int, block: int, rows: int) -> None:
    """Where they are larger than the second-level cache."""
    _, target = resolve_target("znver5")
    found = []
    for columns in (1000, 40000):
        [node] = fused_nodes(quantised(columns, rows, bits, block))
        kernel = lower_region(node.regions[0]).kernel
        found.append(default_schedule(kernel, target).stages[0].prefetch.ahead)
    assert found == [0, BLOCKS_AHEAD]


@needs_native
def test_what_is_fetched_is_computed(tmp_path: Path) -> None:
    wanted, jobs = {}, {}
    for rows, (bits, block) in product((1, 5), FORMS):
        graph, name = quantised(40000, rows, bits, block), f"{rows} rows, {bits} by {block}"
        inputs = {"x0": np.random.default_rng(0).standard_normal((rows, 64)).astype(np.float32)}
        wanted[name] = run_graph(graph, inputs)["y0"]
        jobs[name] = Job(graph, inputs)
    for name, found in run_all(jobs, Setting("native", 2), tmp_path).items():
        assert not isinstance(found, Exception), f"{name}: {found}"
        peak = np.abs(wanted[name]).max()
        np.testing.assert_allclose(found["y0"], wanted[name], 1e-5, 1e-5 * peak, err_msg=name)
