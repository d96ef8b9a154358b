"""Products of matrices in registers of their own (AMX): a tile's sums, by way of memory.

The registers hold so many rows of so many bytes as the kernel sets up at its start. A tile's
results are stored and read again where what follows the sums needs them. Source: Intel SDM vol. 1,
chapter 18, and vol. 2, LDTILECFG, TILELOADD, TDPBUSD, TDPBF16PS.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from ....compiler.errors import InternalError
from ....compiler.ir.ops.step_groups import GROUP
from ....compiler.kernel.instruction import MATRICES, MATRIX_ROWS, matrix_steps
from ....compiler.kernel.kernel import Kernel, Stage
from ....compiler.kernel.schedule.schedule import Schedule, StageSchedule
from .access import index_value
from .builder import I8, I32, VOID, Emitter
from .factor_addresses import factor_addresses
from .indices import Int
from .shape import Address, Shape, Slot
from .tile import Tile

_PRODUCTS = {"amx": "llvm.x86.tdpbusd", "amxbf16": "llvm.x86.tdpbf16ps"}
NAME = "results of matrices"
_LINE = 64  # bytes of a matrix register's row
_CONFIGURATION = 64  # bytes: palette, start row, bytes of a row and rows of each register


@dataclass(frozen=True)
class Matrices:
    """How a stage's tile is made of matrices: `high` of rows, `wide` of columns.

    rows: of one of them. steps: groups of the sum that one product takes.
    """

    high: int
    wide: int
    rows: int
    steps: int

    @property
    def elements(self) -> int:
        """Of the results of a tile."""
        return self.high * self.rows * self.wide * (_LINE // GROUP.bytes)

    def configuration(self) -> bytes:
        """What LDTILECFG reads: results first, then rows of the left operand, then the right."""
        products = self.high * self.wide
        sizes = [(_LINE, self.rows)] * products
        sizes += [(self.steps * GROUP.bytes, self.rows)] * self.high
        sizes += [(_LINE, self.steps)]
        data = bytearray(_CONFIGURATION)
        data[0] = 1
        for number, (line, rows) in enumerate(sizes):
            data[16 + 2 * number : 18 + 2 * number] = line.to_bytes(2, "little")
            data[48 + number] = rows
        return bytes(data)


def matrices_of(stage: Stage, own: StageSchedule) -> Matrices | None:
    """The matrices of a stage's full tiles, if it has any."""
    if own.instruction not in MATRICES:
        return None
    high = -(-own.tile.rows // MATRIX_ROWS)
    if own.tile.rows % high:
        raise InternalError(f"{own.tile.rows} rows are no {high} matrices")
    steps = matrix_steps(stage.reduce_axes[-1].extent)
    return Matrices(high, own.tile.vectors, own.tile.rows // high, steps)


def set_up(e: Emitter, kernel: Kernel, schedule: Schedule) -> bool:
    """Set the registers up for a kernel's stage that multiplies matrices; whether there is one."""
    pairs = zip(kernel.stages, schedule.stages, strict=True)
    found = [m for m in (matrices_of(*pair) for pair in pairs) if m is not None]
    if not found:
        return False
    data = found[0].configuration()
    place = e.local(I8, _CONFIGURATION)
    for number in range(0, _CONFIGURATION, 4):
        word = ir.Constant(I32, int.from_bytes(data[number : number + 4], "little"))
        e.b.store(word, e.b.gep(place, [e.as_index(number)], source_etype=I8), align=4)
    e.call("llvm.x86.ldtilecfg", VOID, [place])
    return True


def release(e: Emitter) -> None:
    """Leave the registers as they were found."""
    e.call("llvm.x86.tilerelease", VOID, [])


class MatrixSums:
    """Emits the sums of a stage's full tiles."""

    def __init__(self, e: Emitter, stage: Stage, own: StageSchedule, matrices: Matrices) -> None:
        self.e, self.stage, self.own, self.matrices = e, stage, own, matrices
        self.memory = e.local(I32, matrices.elements)
        e.checks.add_local(NAME, self.memory, matrices.elements * GROUP.bytes)

    def fits(self, shape: Shape) -> bool:
        """Whether a tile is a full one, of which nothing is masked off, nor looked at."""
        if self.e.checks.watching:
            return False
        own = self.own.tile
        return (shape.rows, shape.vectors) == (own.rows, own.vectors) and shape.mask is None

    def emit(self, tile: Tile) -> None:
        """Add up the tile's products; its accumulators are read from memory from then on."""
        left, right = factor_addresses(tile, self.stage)
        m = self.matrices
        for number in range(m.high * m.wide):
            self._call("tilezero", number)
        self._nest(tile, 0, left, right)
        for i in range(m.high):
            for v in range(m.wide):
                place = self.e.pointer(self.memory, self._place((i * m.rows, v)), GROUP)
                stride = self.e.as_index(m.wide * _LINE)
                self._call("tilestored64", i * m.wide + v, place, stride)
        for slot in tile.shape.slots():
            tile.stored[(0, *slot)] = (self.memory, self._place(slot))

    def _nest(self, tile: Tile, position: int, left: Address, right: Address) -> None:
        axes = self.stage.reduce_axes
        if position == len(axes):
            self._products(tile, left, right)
            return
        axis = axes[position]
        step = self.matrices.steps if position == len(axes) - 1 else 1

        def body(index: Int, _: list[ir.Value]) -> list[ir.Value]:
            tile.advance(axis.name, index)
            self._nest(tile, position + 1, left, right)
            return []

        extent = index_value(self.e, axis.extent, tile.env)
        self.e.loop(0, extent, step, [], body)

    def _products(self, tile: Tile, left: Address, right: Address) -> None:
        """One product of every pair of matrices."""
        m, e = self.matrices, self.e
        tile.begin_step()
        first = m.high * m.wide
        for i in range(m.high):
            place = tile.point(left, GROUP, (i * m.rows, 0))
            self._load(first + i, place, left.row)
        inner = self.stage.reduce_axes[-1].name
        stride = dict(right.steps)[inner]
        for v in range(m.wide):
            self._load(first + m.high, tile.point(right, GROUP, (0, v)), stride)
            for i in range(m.high):
                numbers = [ir.Constant(I8, n) for n in (i * m.wide + v, first + i, first + m.high)]
                e.call(_PRODUCTS[self.own.instruction], VOID, numbers)

    def _load(self, number: int, place: ir.Value, stride: Int) -> None:
        self._call("tileloadd64", number, place, self.e.as_index(self.e.mul(stride, GROUP.bytes)))

    def _call(self, name: str, number: int, *args: ir.Value) -> None:
        self.e.call(f"llvm.x86.{name}", VOID, [ir.Constant(I8, number), *args])

    def _place(self, slot: Slot) -> int:
        """Where the first result of a slot lies, in elements."""
        return (slot[0] * self.matrices.wide + slot[1]) * (_LINE // GROUP.bytes)
