"""Factors by tensor maps: from 9.0 on a copy engine takes blocks of a matrix by their coordinates.

Every program makes the maps of both factors once, in memory of its own (`SCRATCH`), and goes over
many blocks of results. Elements behind an edge are zero. Source: "CUDA C++ Programming Guide",
asynchronous data copies using the tensor memory access: rows begin at multiples of 16 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....compiler.ir.dims import coefficient, product, symbol
from ....compiler.ir.types import DType
from ....compiler.kernel.expr import Apply, Buffer, Load
from ....compiler.kernel.kernel import Kernel, has_factors, linear_of
from ....compiler.kernel.schedule.tiles import Tiles
from ..dots import contraction_for, dot_of, narrow
from ..tiles import rows_of
from .types import HALVES
from .values import DeviceTile, Term

SCRATCH = 256  # bytes of a program: two maps of 128
_ROW_BYTES = 16  # what distances of rows are multiples of
_ELEMENTS = (*HALVES, DType.F32, DType.I8)
_NAMES = ("left_map", "right_map")


@dataclass(frozen=True)
class MappedFactor:
    """A factor as a matrix in memory: rows of steps of the sum, side by side; stride: elements from
    one row to the next; base: those before the first."""

    buffer: Buffer
    rows: int
    steps: int
    stride: int
    base: int


def matrices_of(kernel: Kernel) -> tuple[MappedFactor, ...] | None:
    """Both factors of a product, where maps describe them; None: they do not."""
    stage = kernel.stages[-1]
    contraction = contraction_for(stage)
    dot = dot_of(stage.reductions[0])
    one = len(kernel.stages) == len(stage.reductions) == len(stage.reduce_axes) == 1
    if not one or contraction.batch or has_factors(stage) or dot is None:
        return None
    body = stage.reductions[0].body
    if dot.elements not in _ELEMENTS or not isinstance(body, Apply):
        return None
    groups = rows_of(stage, contraction), contraction.columns
    found = []
    for axes, factor in zip(groups, body.args, strict=True):
        load = narrow(factor)
        plain = isinstance(load, Load) and not load.dynamic and load.dtype is dot.elements
        if not plain or not isinstance(load, Load) or load.buffer.local is not None or not axes:
            return None
        stride, step = (
            coefficient(load.offset, axis.name) for axis in (axes[-1], stage.reduce_axes[0])
        )
        rows, steps = (product(a.extent for a in own) for own in (axes, stage.reduce_axes))
        if not (isinstance(stride, int) and isinstance(rows, int) and isinstance(steps, int)):
            return None
        base = load.offset - linear_of(axes) * stride - symbol(stage.reduce_axes[0].name)
        if step != 1 or not isinstance(base, int) or base < 0 or stride < steps:
            return None
        if (stride * load.dtype.bytes) % _ROW_BYTES or (base * load.dtype.bytes) % _ROW_BYTES:
            return None
        found.append(MappedFactor(load.buffer, rows, steps, stride, base))
    return tuple(found)


@dataclass(frozen=True)
class TensorMaps:
    """Maps of both factors, by their names in the code. tiles: of the product."""

    tiles: Tiles

    @classmethod
    def emit(cls, tile: DeviceTile, kernel: Kernel, tiles: Tiles) -> TensorMaps:
        """Emit what makes them, before all blocks."""
        matrices = matrices_of(kernel)
        assert matrices is not None
        blocks = tiles.rows, tiles.columns
        for name, own, rows in zip(_NAMES, matrices, blocks, strict=True):
            pointer = tile.pointers[own.buffer.name][0] + f" + {own.base}" * bool(own.base)
            tile.lines.add(
                f"{name} = tl.make_tensor_descriptor({pointer}, [{own.rows}, {own.steps}],"
                f" [{own.stride}, 1], [{rows}, {tiles.depth}])"
            )
        return cls(tiles)

    def load(self, tile: DeviceTile, row: Term, column: Term, step: Term | None) -> tuple[str, str]:
        """Names of both factors, at a step of the sums of a block."""
        place = f"{step.text} * {self.tiles.depth}" if step else "0"
        left = f"left_map.load([{row.text} * {self.tiles.rows}, {place}])"
        right = f"right_map.load([{column.text} * {self.tiles.columns}, {place}])"
        return tile.lines.let(left), tile.lines.let(f"{tile.lines.let(right)}.T")
