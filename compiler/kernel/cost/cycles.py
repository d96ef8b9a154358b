"""Cycles that the arithmetic of a stage takes on one core, from its tiles and the target's ports.

The model that chooses register tiles (`schedule.step_cycles`), applied to whole loop nests and to
bodies other than a multiply-add.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from ...ir.dims import Dim, all_calls, coefficient, symbols_of
from ...ir.ops.byte_table import BYTE_TABLE
from ...target import CpuTarget
from .. import expr as ex
from ..byte_lookup import lookup_operations
from ..contraction import Contraction, contraction_of
from ..instruction import DOTS, INSTRUCTIONS, PAIR, PAIRS
from ..kernel import Reduction, Stage
from ..schedule.schedule import StageSchedule
from ..schedule.transposing import is_transposed, rows_of_piece
from .tile_cycles import FMA_LATENCY, pieces, step_cycles

EXPENSIVE_OPERATIONS = 15.0  # instructions of a transcendental function or a division
QUOTIENT_OPERATIONS = 5.0  # multiply-adds of a division whose divisor's inverse is known
DIVISION_OPERATIONS = 20.0  # instructions of dividing one integer by another
FIXED_DIVISION_OPERATIONS = 2.0  # by a constant: a multiplication and shifts
PLAIN_OPERATIONS = {
    "dot4": 24.0,
    "sdot4": 24.0,
    "wdot2": 6.0,
    "dot2": 6.0,
}  # instructions that make up for one of groups
TILE_CYCLES = 8.0  # addresses and accumulators of one tile of a reduction
LOOP_CYCLES = 2.0


def stage_cycles(
    stage: Stage, own: StageSchedule, extents: Mapping[str, int], target: CpuTarget
) -> float:
    """Cycles of one run of a stage, all iterations of the loops it shares with others included.

    extents: of every axis. Operands are near; `cost.py` accounts for those that are not.
    """
    along_reduction = own.tile.vector in {axis.name for axis in stage.reduce_axes}
    depth = math.prod(extents[axis.name] for axis in stage.reduce_axes)
    total = 0.0
    contraction = contraction_of(stage)
    for count, rows, vectors in _tiles(stage, own, extents, along_reduction):
        tile = _Tile(own, rows, vectors, target)
        cycles = tile.finish(stage)
        if stage.reductions:
            steps: float = depth
            if along_reduction:
                steps = -(-depth // max(1, own.tile.width))
                cycles += 3 * FMA_LATENCY * math.log2(max(2, own.tile.lanes))  # lanes are summed
            cycles += steps * tile.step(contraction, depth) + TILE_CYCLES
        total += count * (cycles + LOOP_CYCLES)
    return total


def _tiles(
    stage: Stage, own: StageSchedule, extents: Mapping[str, int], along_reduction: bool
) -> Iterator[tuple[int, int, int]]:
    """(how many, rows, vectors) of the full and the edge tiles of a stage."""
    tiled = {own.tile.row, own.tile.vector} - {""}
    others = math.prod(extents[axis.name] for axis in stage.axes if axis.name not in tiled)
    rows = pieces(extents[own.tile.row], own.tile.rows) if own.tile.row else [(1, 1)]
    columns = [(1, own.tile.vectors)]
    if own.tile.vector and not along_reduction:
        columns = pieces(-(-extents[own.tile.vector] // own.tile.lanes), own.tile.vectors)
    for count_r, r in rows:
        for count_v, v in columns:
            yield others * count_r * count_v, r, v


class _Tile:
    """A register tile: how many instructions an expression takes on it."""

    def __init__(self, own: StageSchedule, rows: int, vectors: int, target: CpuTarget) -> None:
        self.chosen, self.rows, self.vectors, self.target = own.tile, rows, vectors, target
        self.instruction = INSTRUCTIONS.get(own.instruction)
        self.in_pairs = own.instruction in PAIRS
        self._dependences = ex.Dependences()

    def step(self, contraction: Contraction, depth: int) -> float:
        """Cycles of one step of the reductions."""
        reductions = contraction.stage.reductions
        bodies = [reduction.body for reduction in reductions]
        operations = self._operations(bodies) + sum(map(self._accumulation, reductions))
        far = 0.0
        common = contraction.common(self.chosen.vector, self.chosen.row) if self.chosen.row else ()
        for load in dict.fromkeys(operand.load for operand in common):
            panel = depth * self.vectors * self.chosen.lanes * load.dtype.bytes
            if panel > self.target.l1_bytes // 2:
                far += self.vectors
        broadcasts = sum(
            self._slots(load)
            for load in _loads(bodies)
            if not self._moves(load, self.chosen.vector)
        )
        return step_cycles(operations, self._load_count(bodies), broadcasts, far, self.target)

    def finish(self, stage: Stage) -> float:
        """Cycles of what a tile does once: values are computed and stored."""
        values = [store.value for store in stage.stores]
        indices = [index for store in stage.stores for index, _ in store.dynamic]
        operations = self._operations([*values, *indices])
        loads = self._load_count([*values, *indices], whole=not stage.reductions)
        stores = 0.0
        operations += self._divisions(store.offset for store in stage.stores)
        for store in stage.stores:
            together = self.chosen.row and coefficient(store.offset, self.chosen.row) == 1
            scattered = bool(store.dynamic) or (self._apart(store.offset) and not together)
            stores += self.rows * self.vectors * (self.chosen.lanes if scattered else 1)
        return max(operations / self.target.fma_ports, loads / 2, stores)

    def _accumulation(self, reduction: Reduction) -> float:
        """Instructions that add a body to its accumulator; a product's addition is part of it."""
        body = reduction.body
        product = isinstance(body, ex.Apply) and (body.op == "mul" or body.op in DOTS)
        fused = reduction.kind == "sum" and product
        return 0.0 if fused else float(self.rows * self.vectors)

    def _operations(self, expressions: Iterable[ex.Expr]) -> float:
        total = 0.0
        for part in _unique(expressions):
            if isinstance(part, ex.Apply):
                total += self._weight(part) * self._slots(part)
            elif isinstance(part, ex.Guarded):
                total += 2.0 * self._slots(part)
        indices = (dim for part in _unique(expressions) for dim in ex.indices(part))
        return total + self._divisions(indices)

    def _weight(self, part: ex.Apply) -> float:
        """Instructions of an operator on a vector: integers are divided lane by lane."""
        if part.op in ("div", "mod") and part.dtype.is_integer:
            divisor = part.args[1]
            index = divisor.index if isinstance(divisor, ex.IndexValue) else None
            fixed = isinstance(divisor, ex.Const) or isinstance(index, int)
            return self.chosen.lanes * (FIXED_DIVISION_OPERATIONS if fixed else DIVISION_OPERATIONS)
        if part.op == BYTE_TABLE:
            return lookup_operations(self.chosen.lanes, self.target.instructions)
        if part.op in DOTS:
            if self.instruction is None:
                return PLAIN_OPERATIONS[part.op]
            return self.target.cost(self.instruction.name, self.instruction.operations)
        if part.op == "quotient":
            return QUOTIENT_OPERATIONS
        return EXPENSIVE_OPERATIONS if part.op in ex.EXPENSIVE else 1.0

    def _divisions(self, indices: Iterable[Dim]) -> float:
        """Instructions of the divisions that every lane has its own of."""
        total = 0.0
        for call in all_calls(indices):
            names = symbols_of(call.args[0])
            if call.fn in ("floordiv", "mod") and self.chosen.vector in names:
                fixed = isinstance(call.args[1], int)
                weight = FIXED_DIVISION_OPERATIONS if fixed else DIVISION_OPERATIONS
                rows = self.rows if self.chosen.row in names else 1
                total += weight * rows * self.vectors * self.chosen.lanes
        return total

    def _apart(self, offset: Dim) -> bool:
        """Whether the lanes of an access lie neither side by side nor on one element."""
        return bool(self.chosen.vector) and coefficient(offset, self.chosen.vector) not in (0, 1)

    def _load_count(self, expressions: Iterable[ex.Expr], whole: bool = False) -> float:
        """Loads of a vector; one whose lanes lie apart counts once per lane, one that is transposed
        in registers once per piece, and every shuffle as another.
        """
        total = 0.0
        for load in _loads(expressions):
            if whole and not load.dynamic and is_transposed(load.offset, self.chosen):
                piece = min(self.chosen.lanes, rows_of_piece(load.dtype.bytes))
                total += self._slots(load) * (self.chosen.lanes / piece + math.log2(piece))
                continue
            in_pairs = self.in_pairs and coefficient(load.offset, self.chosen.vector) == PAIR
            gathered = (self._apart(load.offset) and not in_pairs) or any(
                self._moves(i, self.chosen.vector) for i, _ in load.dynamic
            )
            total += self._slots(load) * (self.chosen.lanes if gathered else 1)
        return total

    def _moves(self, part: ex.Expr, axis: str) -> bool:
        names, accumulates = self._dependences.of(part)
        return bool(axis) and (accumulates or axis in names)

    def _slots(self, part: ex.Expr) -> int:
        """How many registers of the tile the values of an expression fill."""
        rows = self.rows if self._moves(part, self.chosen.row) else 1
        return rows * (self.vectors if self._moves(part, self.chosen.vector) else 1)


def _unique(expressions: Iterable[ex.Expr]) -> Iterator[ex.Expr]:
    """Every part once, whatever uses it."""
    seen: set[int] = set()
    pending = list(expressions)
    while pending:
        part = pending.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            pending += ex.children(part)


def _loads(expressions: Iterable[ex.Expr]) -> list[ex.Load]:
    """Different loads; equal ones are done once."""
    found = (part for part in _unique(expressions) if isinstance(part, ex.Load))
    return list(dict.fromkeys(found))
